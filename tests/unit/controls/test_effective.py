"""The values in effect: what was requested, unless another control or the camera decides."""

from typing import Any

import pytest

from softcam.camera.base import StreamConfig, StreamRequest
from softcam.camera.session.autofocus_cycle import AfMode
from softcam.controls.effective import effective_values, exposure_limits_us, frame_limits_us
from softcam.controls.schema import BY_NAME
from softcam.controls.state import RequestedControls
from tests.support.control_scene import CONTROLS

STREAM = StreamRequest(64, 48, 20.0)
CONFIG = StreamConfig(32, 16, "YUV420", (64, 32), controls=CONTROLS)


def values(
    name: str,
    requested: dict[str, dict[str, Any]],
    config: StreamConfig | None = None,
    focus: AfMode | None = None,
) -> dict[str, Any]:
    state = RequestedControls()
    for group, row in requested.items():
        state = state.with_values(BY_NAME[group], row)
    return dict(effective_values(BY_NAME[name], state, STREAM, config, focus))


@pytest.mark.parametrize(
    ("name", "requested", "expected"),
    [
        ("auto_exposure", {}, {"enabled": True}),
        ("auto_exposure", {"manual_exposure": {"exposure_us": 9, "gain": 1.0}}, {"enabled": False}),
        ("awb", {}, {"enabled": True}),
        ("awb", {"manual_awb": {"red_gain": 1.0, "blue_gain": 2.0}}, {"enabled": False}),
        ("awb_preset", {}, {"preset": "auto"}),
        ("awb_preset", {"manual_awb": {"red_gain": 1.0, "blue_gain": 2.0}}, {"preset": None}),
        ("awb_preset", {"awb_preset": {"preset": "ir_850nm"}}, {"preset": "ir_850nm"}),
        ("manual_exposure", {}, {"exposure_us": None, "gain": None}),
        ("hdr", {}, {"mode": "off"}),
        ("stream", {}, {"width": 64, "height": 48, "fps": 20.0}),
    ],
)
def test_other_controls_override(name: str, requested: dict[str, Any], expected: dict[str, Any]) -> None:
    assert values(name, requested) == expected


@pytest.mark.parametrize(("focus", "mode"), [(AfMode.CONTINUOUS, "continuous"), (AfMode.MANUAL, "manual")])
def test_focus_mode_is_the_one_sent_last(focus: AfMode, mode: str) -> None:
    assert values("autofocus_mode", {"autofocus_mode": {"mode": "auto"}}, focus=focus) == {"mode": mode}


def test_requested_focus_mode_before_any_was_sent() -> None:
    assert values("autofocus_mode", {"lens_position": {"position": 2.0}}) == {"mode": "manual"}
    assert values("autofocus_mode", {}) == {"mode": None}


def test_camera_limits_what_was_set_before_its_ranges_were_known() -> None:
    requested: dict[str, dict[str, Any]] = {
        "image_processing": {"contrast": 9.0, "metering": "spot"},
        "stream": {"fps": 120.0},
    }
    shown = values("image_processing", requested, CONFIG)
    assert (shown["contrast"], shown["metering"]) == (4.0, "centre")
    assert values("stream", requested, CONFIG)["width"] == 32


@pytest.mark.parametrize(
    ("fps", "sent", "metadata", "limits"),
    [
        (20.0, {}, {}, (50_000, 50_000)),
        (500.0, {}, {}, (10_000, 10_000)),  # what the camera does
        (20.0, {"FrameDurationLimits": (201_000, 201_000)}, {}, (201_000, 201_000)),
        (20.0, {"FrameDurationLimits": (50_000, 2_000_000)}, {}, (50_000, 1_000_000)),
        (
            20.0,
            {"FrameDurationLimits": (201_000, 201_000)},
            {"FrameDurationLimits": (40_000, 60_000)},
            (40_000, 60_000),
        ),
    ],
)
def test_limits_of_the_frame_duration(
    fps: float, sent: dict[str, Any], metadata: dict[str, Any], limits: tuple[int, int]
) -> None:
    assert frame_limits_us(StreamRequest(64, 48, fps), CONFIG, sent, metadata) == limits


def test_frame_durations_that_the_camera_does_not_limit() -> None:
    bare = StreamConfig(32, 16, "YUV420", (64, 32))
    assert frame_limits_us(STREAM, bare, {}, {}) is None
    unknown = StreamConfig(32, 16, "YUV420", (64, 32), controls={"FrameDurationLimits": (0, 0, None)})
    assert frame_limits_us(STREAM, unknown, {}, {}) == (50_000, 50_000)


@pytest.mark.parametrize(
    ("requested", "frame_us", "limits"),
    [
        ({}, (50_000, 50_000), (10, 50_000)),
        ({}, None, (10, 1_000_000)),
        ({"min_exposure_us": 200, "max_exposure_us": 20_000}, (50_000, 50_000), (200, 20_000)),
        ({"max_exposure_us": 80_000}, (50_000, 50_000), (10, 50_000)),
        ({"min_exposure_us": 200_000}, (201_000, 201_000), (200_000, 201_000)),
    ],
)
def test_limits_of_the_exposure(
    requested: dict[str, Any], frame_us: tuple[int, int] | None, limits: tuple[int, int]
) -> None:
    state = RequestedControls().with_values(BY_NAME["exposure_limits"], requested)
    assert exposure_limits_us(state, CONFIG, frame_us) == limits
    fixed = state.with_values(BY_NAME["manual_exposure"], {"exposure_us": 9, "gain": 1.0})
    longest = 1_000_000 if frame_us is None else frame_us[1]
    assert exposure_limits_us(fixed, CONFIG, frame_us) == (10, longest), "a fixed exposure has no others"


def test_exposure_that_the_camera_does_not_limit() -> None:
    bare = StreamConfig(32, 16, "YUV420", (64, 32))
    assert exposure_limits_us(RequestedControls(), bare, (50_000, 50_000)) is None
    unknown = StreamConfig(32, 16, "YUV420", (64, 32), controls={"ExposureTime": (0, 0, None)})
    assert exposure_limits_us(RequestedControls(), unknown, (50_000, 50_000)) == (0, 50_000)
    assert exposure_limits_us(RequestedControls(), unknown, None) is None
