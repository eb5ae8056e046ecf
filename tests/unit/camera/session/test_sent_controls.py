"""`SentControls`: the values in effect, and from which frame on they are visible."""

from typing import Any

import pytest

from softcam.camera.session.sent_controls import CONTROL_FRAMES, SentControls, min_frame_duration_s


def _count(sent: SentControls, frames: int) -> None:
    for _ in range(frames):
        sent.count_frame()


def test_visible_after_some_frames() -> None:
    sent = SentControls()
    _count(sent, 50)
    sent.record({"Brightness": 0.5}, 10.0)
    is_seen = sent.visible_since(10.0)
    _count(sent, CONTROL_FRAMES - 1)
    assert not is_seen({})
    _count(sent, 1)
    assert is_seen({})


def test_later_controls_are_not_awaited() -> None:
    sent = SentControls()
    sent.record({"Brightness": 0.5}, 10.0)
    assert sent.visible_since(9.9)({})
    assert not sent.visible_since(10.1)({})


def test_later_change_does_not_hide_an_earlier_one() -> None:
    sent = SentControls()
    sent.record({"ExposureTime": 1000}, 10.0)
    _count(sent, 3)
    sent.record({"AnalogueGain": 2.0}, 11.0)
    is_seen = sent.visible_since(10.5)
    assert not is_seen({"AnalogueGain": 2.0})
    assert is_seen({"AnalogueGain": 2.0, "ExposureTime": 1000})
    _count(sent, CONTROL_FRAMES)
    sent.record({"AnalogueGain": 3.0}, 12.0)
    assert sent.visible_since(11.5)({}), "the others were seen long ago"


def test_controls_are_visible_after_a_start() -> None:
    sent = SentControls()
    sent.record({"Brightness": 0.5}, 10.0)
    sent.mark_visible()
    assert sent.visible_since(11.0)({})


@pytest.mark.parametrize(
    ("values", "metadata", "is_shown"),
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
def test_visible_in_the_metadata(values: dict[str, Any], metadata: dict[str, Any], is_shown: bool) -> None:
    sent = SentControls()
    sent.record(values, 10.0)
    assert sent.visible_since(10.0)(metadata) is is_shown


def test_controls_that_no_frame_shows_are_not_awaited() -> None:
    sent = SentControls()
    sent.record({"AfMode": 1, "AfTrigger": 0, "FrameDurationLimits": (50_000, 50_000)}, 10.0)
    assert sent.visible_since(11.0)({})
    assert sent.values == {"AfMode": 1, "FrameDurationLimits": (50_000, 50_000)}, "a trigger is not a value in effect"
    sent.record({"FrameDurationLimits": (90_000, 90_000), "ExposureTime": 80_000}, 12.0)
    assert not sent.visible_since(12.0)({"ExposureTime": 20_000})
    assert sent.visible_since(12.0)({"ExposureTime": 80_000})


def test_values_until_the_next_opening() -> None:
    sent = SentControls()
    sent.record({"Brightness": 0.5, "ExposureTime": 1000}, 10.0)
    sent.record({"Brightness": 0.7}, 11.0)
    sent.mark_visible()
    assert sent.values == {"Brightness": 0.7, "ExposureTime": 1000}
    sent.clear()
    assert sent.values == {}
    assert sent.requested_duration_s == 0.0


@pytest.mark.parametrize(
    ("controls", "duration_s"),
    [
        ({}, 0.0),
        ({"ExposureTime": None, "FrameDurationLimits": None}, 0.0),
        ({"ExposureTime": 50_000, "FrameDurationLimits": (40_000, 100_000)}, 0.05),
        ({"ExposureTime": 1000, "FrameDurationLimits": (40_000, 100_000)}, 0.04),
    ],
)
def test_min_frame_duration(controls: dict[str, Any], duration_s: float) -> None:
    assert min_frame_duration_s(controls) == duration_s
