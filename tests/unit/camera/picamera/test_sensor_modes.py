"""The choice of the sensor mode, with the modes that Picamera2 lists for Raspberry Pi's camera modules."""

from collections.abc import Sequence
from typing import Any

import pytest

from softcam.camera.picamera.sensor_modes import choose_mode, frame_rate_controls, is_too_fast, parse_modes

Row = tuple[tuple[int, int], int, float, tuple[int, int, int, int]]  # size, bits, fps, crop

_IMX708 = (4608, 2592)
_IMX219 = (3280, 2464)
_IMX477 = (4056, 3040)
_OV5647 = (2592, 1944)
_TABLES: dict[tuple[int, int], Sequence[Row]] = {
    _IMX708: [
        ((1536, 864), 10, 120.13, (768, 432, 3072, 1728)),
        ((2304, 1296), 10, 56.03, (0, 0, 4608, 2592)),
        ((4608, 2592), 10, 14.35, (0, 0, 4608, 2592)),
    ],
    _IMX219: [
        ((640, 480), 10, 206.65, (1000, 752, 1280, 960)),
        ((1640, 1232), 10, 41.85, (0, 0, 3280, 2464)),
        ((1920, 1080), 10, 47.57, (680, 692, 1920, 1080)),
        ((3280, 2464), 10, 21.19, (0, 0, 3280, 2464)),
        ((640, 480), 8, 206.65, (1000, 752, 1280, 960)),
        ((1640, 1232), 8, 83.7, (0, 0, 3280, 2464)),
        ((1920, 1080), 8, 47.57, (680, 692, 1920, 1080)),
        ((3280, 2464), 8, 21.19, (0, 0, 3280, 2464)),
    ],
    _IMX477: [
        ((1332, 990), 10, 120.05, (696, 528, 2664, 1980)),
        ((2028, 1080), 12, 50.03, (0, 440, 4056, 2160)),
        ((2028, 1520), 12, 40.01, (0, 0, 4056, 3040)),
        ((4056, 3040), 12, 10.0, (0, 0, 4056, 3040)),
    ],
    _OV5647: [
        ((640, 480), 10, 58.92, (16, 0, 2560, 1920)),
        ((1296, 972), 10, 43.25, (0, 0, 2592, 1944)),
        ((1920, 1080), 10, 30.62, (348, 434, 1928, 1080)),
        ((2592, 1944), 10, 15.63, (0, 0, 2592, 1944)),
    ],
}


def _listing(array_size: tuple[int, int]) -> list[dict[str, Any]]:
    return [
        {"size": size, "bit_depth": bits, "fps": fps, "crop_limits": crop}
        for size, bits, fps, crop in _TABLES[array_size]
    ]


@pytest.mark.parametrize(
    ("array_size", "size", "fps", "chosen", "bits"),
    [
        pytest.param(_IMX708, (1536, 864), 20, (2304, 1296), 10, id="imx708 by default: the whole field"),
        pytest.param(_IMX708, (1536, 864), 60, (1536, 864), 10, id="imx708: only the crop is fast enough"),
        pytest.param(_IMX708, (1920, 1080), 60, (2304, 1296), 10, id="imx708: none is; a lower rate"),
        pytest.param(_IMX708, (2560, 1440), 30, (4608, 2592), 10, id="imx708: larger than the binned mode"),
        pytest.param(_IMX708, _IMX708, 0, _IMX708, 10, id="imx708: a still"),
        pytest.param(_IMX708, (5000, 3000), 10, _IMX708, 10, id="imx708: larger than the sensor"),
        pytest.param(_IMX219, (1536, 864), 20, (1640, 1232), 10, id="imx219 by default: ten bits if available"),
        pytest.param(_IMX219, (1536, 864), 60, (1640, 1232), 8, id="imx219: eight bits before a crop"),
        pytest.param(_IMX219, (1920, 1080), 20, (3280, 2464), 10, id="imx219: slow enough for the whole field"),
        pytest.param(_IMX219, (1920, 1080), 30, (1920, 1080), 10, id="imx219: the rate requires the crop"),
        pytest.param(_IMX219, (640, 480), 150, (640, 480), 10, id="imx219: high rate"),
        pytest.param(_IMX477, (1536, 864), 20, (2028, 1520), 12, id="imx477 by default"),
        pytest.param(_IMX477, (1536, 864), 50, (2028, 1080), 12, id="imx477: fewer rows for the rate"),
        pytest.param(_IMX477, (1280, 720), 100, (1332, 990), 10, id="imx477: high rate"),
        pytest.param(_OV5647, (1536, 864), 15, (2592, 1944), 10, id="ov5647: slow enough for the whole field"),
        pytest.param(_OV5647, (1536, 864), 20, (1920, 1080), 10, id="ov5647: the rate requires the crop"),
        pytest.param(_OV5647, (1280, 720), 30, (1296, 972), 10, id="ov5647: binned"),
        # 97.5 % of the pixel array, without a margin of sixteen pixels.
        pytest.param(_OV5647, (640, 480), 59, (640, 480), 10, id="ov5647: nearly the whole field, nearly the rate"),
    ],
)
def test_choose_mode(
    array_size: tuple[int, int], size: tuple[int, int], fps: float, chosen: tuple[int, int], bits: int
) -> None:
    mode = choose_mode(parse_modes(_listing(array_size)), array_size, size, fps)
    assert mode is not None
    assert (mode.size, mode.bit_depth) == (chosen, bits)


def test_camera_without_modes() -> None:
    assert parse_modes([{"format": "YUYV"}, {"format": "MJPEG"}]) == ()
    assert choose_mode((), _IMX708, (640, 480), 30) is None


def test_rectangle_of_libcamera() -> None:
    class Rectangle:
        def to_tuple(self) -> tuple[int, int, int, int]:
            return 0, 0, 10, 20

    listing = [{"size": (10, 20), "bit_depth": 10, "fps": 30, "crop_limits": Rectangle()}]
    assert [mode.crop for mode in parse_modes(listing)] == [(0, 0, 10, 20)]


@pytest.mark.parametrize("crop", [None, (1, 2, 3), "all"])
def test_fail_invalid_crop(crop: object) -> None:
    """`SensorModes.read` logs these errors and lets Picamera2 choose the mode."""
    with pytest.raises((AttributeError, ValueError)):
        parse_modes([{"size": (10, 20), "bit_depth": 10, "fps": 30, "crop_limits": crop}])


def test_frame_rate_within_limits() -> None:
    ranges = {"FrameDurationLimits": (8333, 1_000_000, None)}
    assert frame_rate_controls(ranges, 100) == {"FrameDurationLimits": (10_000, 10_000)}
    assert frame_rate_controls(ranges, 240) == {"FrameDurationLimits": (8333, 8333)}
    assert not is_too_fast(ranges, 2)
    assert is_too_fast(ranges, 0.5)
    assert is_too_fast({}, 30)
