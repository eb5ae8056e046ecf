"""What a camera supports: reasons for rejections, clamping, and where an open camera deviates from the request."""

import re
from dataclasses import replace
from typing import Any

import pytest

from softcam.camera.base import StreamConfig, StreamRequest
from softcam.camera.sensor_modes import FovMode, SensorModes, Size
from softcam.controls import capabilities
from softcam.controls.schema import BY_NAME
from softcam.controls.state import RequestedControls
from tests.support.control_scene import CONFIGURED, CONTROLS
from tests.support.sensors import IMX708, modes_of

CONFIG = StreamConfig(32, 16, "YUV420", (64, 32), controls=CONTROLS)
BARE = StreamConfig(32, 16, "YUV420", (64, 32), can_flip=False)


@pytest.mark.parametrize(
    ("name", "values", "reason"),
    [
        ("manual_exposure", {"exposure_us": 20_000, "gain": 2.0}, None),
        ("manual_exposure", {"exposure_us": 1, "gain": 64.0}, "exposure_us: .* 10 to 1000000; gain: .* 0.1 to 16"),
        ("manual_exposure", {"gain": 0.5}, None),  # below the sensor's minimum, which it then sets
        ("image_processing", {"contrast": 5.0}, "contrast: this camera supports 0 to 4"),
        ("image_processing", {"sharpness": 1.0}, "sharpness: this camera does not support Sharpness"),
        ("autofocus", {"window": None}, None),  # unsets it
        ("lens_correction", {"enabled": True}, "enabled: .* LensDewarpEnable"),
        ("lens_correction", {"enabled": False}, None),  # as it is
        ("awb_preset", {"preset": "ir_850nm"}, None),
        ("awb_preset", {"preset": "custom"}, None),
        ("ae_exposure_mode", {"mode": "long"}, "mode: this camera does not support AeExposureMode"),
        ("fov_mode", {"mode": "crop"}, None),
        ("hdr", {"mode": "off"}, None),
        ("hdr", {"mode": "sensor"}, "its sensor has no HDR"),
        ("hdr", {"mode": "single-exp"}, "requires a Raspberry Pi 5"),
        ("hdr", {"mode": "auto"}, "it has no HDR"),
        ("transform", {"hflip": True, "rotation": 180}, None),
    ],
)
def test_reason_of_a_rejection(name: str, values: dict[str, Any], reason: str | None) -> None:
    found = capabilities.unsupported_reason(BY_NAME[name], values, CONFIG)
    assert found is None if reason is None else re.search(reason, found or "")


@pytest.mark.parametrize(
    ("name", "field", "control", "last", "supported"),
    [
        ("ae_constraint_mode", "mode", "AeConstraintMode", 2, "normal, highlight, shadows"),
        ("ae_exposure_mode", "mode", "AeExposureMode", 0, "normal"),
        ("image_processing", "noise_reduction", "NoiseReductionMode", 1, "off, fast"),
    ],
)
def test_modes_are_those_that_the_camera_lists(name: str, field: str, control: str, last: int, supported: str) -> None:
    group, config = BY_NAME[name], replace(CONFIG, controls={**CONTROLS, control: (0, last, 0)})
    for word, number in group.row(field).choices.items():
        reason = capabilities.unsupported_reason(group, {field: word}, config, {field: "kind"})
        assert reason == (None if number <= last else f"kind: this camera supports {supported}")
        assert capabilities.is_listed(control, number, config) is (number <= last)
        assert capabilities.is_listed(control, number, CONFIG), "not known"


def test_white_balance_modes_are_those_that_the_camera_lists() -> None:
    config = replace(CONFIG, controls={**CONTROLS, "AwbMode": (0, 6, 0)})
    for name, field in (("awb_preset", "preset"), ("day_night_mode", "night_awb_preset")):
        for preset, is_supported in (("ir_850nm", True), ("cloudy", True), ("custom", False)):
            reason = capabilities.unsupported_reason(BY_NAME[name], {field: preset}, config)
            assert (reason is None) is is_supported


@pytest.mark.parametrize(
    ("values", "is_supported"),
    [({"rotation": 90}, True), ({"rotation": 180}, False), ({"hflip": True}, False), ({"vflip": False}, True)],
)
def test_camera_that_cannot_flip_is_rotated_by_exif_only(values: dict[str, Any], is_supported: bool) -> None:
    reason = capabilities.unsupported_reason(BY_NAME["transform"], values, BARE)
    assert (reason is None) is is_supported


@pytest.mark.parametrize(
    ("control", "value", "nearest"),
    [
        ("ExposureTime", 5, 10),
        ("ExposureTime", 2_000_000, 1_000_000),
        ("ColourGains", (0.5, 40.0), (0.5, 32.0)),
        ("Sharpness", 9.0, 9.0),  # not in the ranges of this camera
        ("ScalerCrop", "anything", "anything"),  # not a number
        ("ExposureTime", None, None),
    ],
)
def test_nearest_supported_value(control: str, value: Any, nearest: Any) -> None:
    assert capabilities.clamped(control, value, CONFIG) == nearest
    assert capabilities.clamped(control, value, None) == value, "the ranges are not known yet"


@pytest.mark.parametrize(("fps", "nearest"), [(20.0, 20.0), (100.9, 100.9), (120.0, 100.0), (0.5, 1.0)])
def test_nearest_supported_frame_rate(fps: float, nearest: float) -> None:
    assert capabilities.clamped_fps(fps, CONFIG) == nearest
    assert capabilities.clamped_fps(fps, BARE) == fps, "the limits are not known"


def test_deviations_of_an_open_camera() -> None:
    requested = RequestedControls()
    for name, values in (
        ("manual_exposure", {"exposure_us": 5, "gain": 2.0}),
        ("image_processing", {"sharpness": 2.0}),
        ("stream", {"width": 64, "height": 16, "fps": 120.0}),
    ):
        requested = requested.with_values(BY_NAME[name], values)
    ignored, limited = capabilities.deviations(requested, CONFIGURED, CONFIG)
    assert ignored == ["sharpness: this camera does not support Sharpness"]
    assert limited == [
        "exposure_us: this camera supports 10 to 1000000; using 10",
        "width: the camera delivers 32",
        "fps: the camera delivers at most 100 in its current mode",
    ]


@pytest.mark.parametrize(
    ("size", "fps", "fov", "note"),
    [
        ((1536, 864), 20, "scale", None),
        ((1280, 720), 100, "scale", "fps: at this rate the sensor delivers only the middle 67 % of its width"),
        ((1536, 864), 10, "crop", None),
        ((1536, 864), 20, "crop", "fov_mode: the sensor delivers single pixels at up to 14.35 fps"),
        ((5120, 2880), 10, "crop", "fov_mode: the sensor has only 4608x2592 pixels; they are enlarged"),
    ],
)
def test_notes_on_the_field_of_view(size: Size, fps: float, fov: FovMode, note: str | None) -> None:
    modes = modes_of(IMX708)
    config = replace(
        CONFIG, width=size[0], height=size[1], sensor_modes=modes, sensor_mode=modes.choose_mode(size, fps, fov)
    )
    assert next(capabilities.field_notes(StreamRequest(*size, fps, fov=fov), config), None) == note


def test_note_on_a_sensor_mode_without_single_pixels() -> None:
    binned = SensorModes(IMX708, modes_of(IMX708).modes[1:2])  # as with its HDR
    config = replace(CONFIG, sensor_modes=binned, sensor_mode=binned.modes[0])
    (note,) = capabilities.field_notes(replace(CONFIGURED, fov="crop"), config)
    assert note == "fov_mode: the sensor combines pixels in this mode; they are enlarged 2 times"


def test_camera_that_cannot_crop() -> None:
    requested, cropped = RequestedControls(), replace(CONFIGURED, fov="crop")
    assert capabilities.field_of_view(cropped, CONFIG) == capabilities.field_of_view(cropped, None) == "crop"
    assert capabilities.field_of_view(cropped, BARE) == "scale"
    assert capabilities.deviations(requested, cropped, BARE)[0] == ["fov_mode: this camera does not support ScalerCrop"]
    assert capabilities.unsupported_reason(BY_NAME["fov_mode"], {"mode": "scale"}, BARE) is None
    asked = requested.with_values(BY_NAME["fov_mode"], {"mode": "crop"})
    assert capabilities.deviations(asked, cropped, BARE)[0] == ["mode: this camera does not support ScalerCrop"]


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        (None, (0.0, 32.0)),
        ((0.5, 4.0, 1.0), (0.5, 4.0)),
        ((0.0, 0.0, 0.0), (0.0, 32.0)),  # a range that libcamera does not know
        ((1.0, 64.0, 1.0), (1.0, 32.0)),
    ],
)
def test_limits_are_those_of_camera_and_schema(limits: Any, expected: tuple[float, float]) -> None:
    assert capabilities.effective_limits(BY_NAME["image_processing"].row("contrast"), limits) == expected


def test_single_exposure_hdr_requires_modes_and_range() -> None:
    able = replace(CONFIG, controls={**CONTROLS, "HdrMode": (0, 4, 0)}, has_hdr_modes=True)
    assert capabilities.has_single_exposure_hdr(able)
    assert not capabilities.has_single_exposure_hdr(replace(able, has_hdr_modes=False))
    assert not capabilities.has_single_exposure_hdr(replace(able, controls={**CONTROLS, "HdrMode": (0, 1, 0)}))
