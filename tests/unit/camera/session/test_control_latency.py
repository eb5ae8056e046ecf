"""From which frame on a picture shows what the camera was told."""

from typing import Any

import pytest

from softcam.camera.session.control_latency import ControlLatency
from softcam.camera.session.frame_rate import CONTROL_FRAMES


def _count(changes: ControlLatency, frames: int) -> None:
    for _ in range(frames):
        changes.count()


def test_some_frames_later_where_the_metadata_does_not_tell() -> None:
    changes = ControlLatency()
    _count(changes, 50)
    changes.sent({"Brightness": 0.5}, 10.0)
    is_seen = changes.visible_since(10.0)
    _count(changes, CONTROL_FRAMES - 1)
    assert not is_seen({})
    _count(changes, 1)
    assert is_seen({})


def test_what_was_sent_after_the_moment_is_not_waited_for() -> None:
    changes = ControlLatency()
    changes.sent({"Brightness": 0.5}, 10.0)
    assert changes.visible_since(9.9)({})
    assert not changes.visible_since(10.1)({})


def test_a_later_change_does_not_hide_the_one_before() -> None:
    changes = ControlLatency()
    changes.sent({"ExposureTime": 1000}, 10.0)
    _count(changes, 3)
    changes.sent({"AnalogueGain": 2.0}, 11.0)
    is_seen = changes.visible_since(10.5)
    assert not is_seen({"AnalogueGain": 2.0})
    assert is_seen({"AnalogueGain": 2.0, "ExposureTime": 1000})
    _count(changes, CONTROL_FRAMES)
    changes.sent({"AnalogueGain": 3.0}, 12.0)
    assert changes.visible_since(11.5)({}), "the others were seen long ago"


def test_a_start_has_told_all() -> None:
    changes = ControlLatency()
    changes.sent({"Brightness": 0.5}, 10.0)
    changes.begin()
    assert changes.visible_since(11.0)({})


@pytest.mark.parametrize(
    ("told", "seen", "is_shown"),
    [
        ({"ExposureTime": 20_000}, {"ExposureTime": 19_968}, True),
        ({"ExposureTime": 20_000}, {"ExposureTime": 10_000}, False),
        ({"ExposureTime": 0}, {"ExposureTime": 10_000}, False),
        ({"ColourGains": (1.5, 1.8)}, {"ColourGains": (1.49, 1.8)}, True),
        ({"ColourGains": (1.5, 1.8)}, {"ColourGains": (1.5, 2.2)}, False),
        ({"ScalerCrop": (0, 0, 100, 50)}, {"ScalerCrop": (0, 0, 100, 50)}, True),
        ({"AeEnable": False, "ExposureTime": 1000}, {"ExposureTime": 1000}, False),
        ({"AfWindows": [(0, 0, 5, 5)]}, {"AfWindows": "unknown"}, False),
    ],
)
def test_metadata_tells(told: dict[str, Any], seen: dict[str, Any], is_shown: bool) -> None:
    changes = ControlLatency()
    changes.sent(told, 10.0)
    assert changes.visible_since(10.0)(seen) is is_shown
