"""The sensor modes that Picamera2 lists, and the limits of the frame rate."""

from typing import Any

import pytest

from softcam.camera.picamera.sensor_modes import frame_rate_controls, is_too_fast, parse_modes
from softcam.camera.sensor_modes import SensorMode


def _row(crop: Any) -> dict[str, Any]:
    return {"size": (10, 20), "bit_depth": 10, "fps": 30.0, "crop_limits": crop}


def test_modes_of_picamera2() -> None:
    listing = [{"format": "YUYV"}, _row((0, 0, 20, 40))]
    assert parse_modes(listing) == (SensorMode((10, 20), 10, 30.0, (0, 0, 20, 40)),)
    assert parse_modes(listing[:1]) == ()


def test_rectangle_of_libcamera() -> None:
    class Rectangle:
        def to_tuple(self) -> tuple[int, int, int, int]:
            return 0, 0, 10, 20

    assert [mode.crop for mode in parse_modes([_row(Rectangle())])] == [(0, 0, 10, 20)]


@pytest.mark.parametrize("crop", [None, (1, 2, 3), "all"])
def test_invalid_crop_is_an_error(crop: object) -> None:
    """`ModeReader.read_modes` logs these errors and lets Picamera2 choose the mode."""
    with pytest.raises((AttributeError, ValueError)):
        parse_modes([_row(crop)])


def test_frame_rate_within_limits() -> None:
    ranges = {"FrameDurationLimits": (8333, 1_000_000, None)}
    assert frame_rate_controls(ranges, 100) == {"FrameDurationLimits": (10_000, 10_000)}
    assert frame_rate_controls(ranges, 240) == {"FrameDurationLimits": (8333, 8333)}
    assert not is_too_fast(ranges, 2)
    assert is_too_fast(ranges, 0.5)
    assert is_too_fast({}, 30)
