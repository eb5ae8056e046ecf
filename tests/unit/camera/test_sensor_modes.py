"""The choice of the sensor mode, with the modes that Picamera2 lists for Raspberry Pi's camera modules."""

import pytest

from softcam.camera.sensor_modes import SensorModes, Size
from tests.support.sensors import IMX219, IMX477, IMX708, OV5647, modes_of


@pytest.mark.parametrize(
    ("array_size", "size", "fps", "chosen", "bits"),
    [
        pytest.param(IMX708, (1536, 864), 20, (2304, 1296), 10, id="imx708 by default: the whole field"),
        pytest.param(IMX708, (1536, 864), 60, (1536, 864), 10, id="imx708: only the crop is fast enough"),
        pytest.param(IMX708, (1920, 1080), 60, (2304, 1296), 10, id="imx708: none is; a lower rate"),
        pytest.param(IMX708, (2560, 1440), 30, (4608, 2592), 10, id="imx708: larger than the binned mode"),
        pytest.param(IMX708, IMX708, 0, IMX708, 10, id="imx708: a still"),
        pytest.param(IMX708, (5000, 3000), 10, IMX708, 10, id="imx708: larger than the sensor"),
        pytest.param(IMX219, (1536, 864), 20, (1640, 1232), 10, id="imx219 by default: ten bits if available"),
        pytest.param(IMX219, (1536, 864), 60, (1640, 1232), 8, id="imx219: eight bits before a crop"),
        pytest.param(IMX219, (1920, 1080), 20, (3280, 2464), 10, id="imx219: slow enough for the whole field"),
        pytest.param(IMX219, (1920, 1080), 30, (1920, 1080), 10, id="imx219: the rate requires the crop"),
        pytest.param(IMX219, (640, 480), 150, (640, 480), 10, id="imx219: high rate"),
        pytest.param(IMX477, (1536, 864), 20, (2028, 1520), 12, id="imx477 by default"),
        pytest.param(IMX477, (1536, 864), 50, (2028, 1080), 12, id="imx477: fewer rows for the rate"),
        pytest.param(IMX477, (1280, 720), 100, (1332, 990), 10, id="imx477: high rate"),
        pytest.param(OV5647, (1536, 864), 15, (2592, 1944), 10, id="ov5647: slow enough for the whole field"),
        pytest.param(OV5647, (1536, 864), 20, (1920, 1080), 10, id="ov5647: the rate requires the crop"),
        pytest.param(OV5647, (1280, 720), 30, (1296, 972), 10, id="ov5647: binned"),
        # 97.5 % of the pixel array, without a margin of sixteen pixels.
        pytest.param(OV5647, (640, 480), 59, (640, 480), 10, id="ov5647: nearly the whole field, nearly the rate"),
    ],
)
def test_choose_mode(array_size: Size, size: Size, fps: float, chosen: Size, bits: int) -> None:
    mode = modes_of(array_size).choose_mode(size, fps)
    assert (mode.size, mode.bit_depth) == (chosen, bits)


@pytest.mark.parametrize(
    ("array_size", "size", "fps", "chosen", "bits"),
    [
        pytest.param(IMX708, (1536, 864), 10, IMX708, 10, id="imx708: only one mode has single pixels"),
        pytest.param(IMX708, (1536, 864), 60, IMX708, 10, id="imx708: a lower rate, not an enlarged image"),
        pytest.param(IMX708, (5000, 3000), 10, IMX708, 10, id="imx708: larger than the sensor"),
        pytest.param(IMX219, (1536, 864), 20, (1920, 1080), 10, id="imx219: the smallest with single pixels"),
        pytest.param(IMX219, (1920, 1080), 40, (1920, 1080), 10, id="imx219: exactly that mode"),
        pytest.param(IMX219, (2560, 1440), 20, IMX219, 10, id="imx219: larger than that mode"),
        pytest.param(IMX219, (640, 480), 60, (1920, 1080), 10, id="imx219: the fastest with single pixels"),
        pytest.param(IMX477, (1280, 720), 30, IMX477, 12, id="imx477: only one mode has single pixels"),
        pytest.param(OV5647, (1920, 1080), 30, (1920, 1080), 10, id="ov5647: a few columns more"),
        pytest.param(OV5647, (1920, 1440), 30, OV5647, 10, id="ov5647: too high for that mode"),
    ],
)
def test_mode_of_the_middle(array_size: Size, size: Size, fps: float, chosen: Size, bits: int) -> None:
    mode = modes_of(array_size).choose_mode(size, fps, "crop")
    assert (mode.size, mode.bit_depth) == (chosen, bits)
    assert mode.is_one_to_one


@pytest.mark.parametrize(
    ("size", "fps", "chosen"),
    [
        pytest.param((1536, 864), 20, (2304, 1296), id="as without a wide lens"),
        pytest.param((1280, 720), 120, (2304, 1296), id="a lower rate, not a smaller field"),
        pytest.param((2560, 1440), 60, IMX708, id="a lower rate, not an enlarged image"),
        pytest.param((5000, 3000), 10, IMX708, id="larger than the sensor"),
    ],
)
def test_wide_lens_keeps_its_field_of_view(size: Size, fps: float, chosen: Size) -> None:
    modes = modes_of(IMX708, is_wide=True)
    assert modes.choose_mode(size, fps).size == chosen
    assert modes.highest_fps(size) == next(mode.fps for mode in modes.modes if mode.size == chosen)


def test_wide_lens_in_front_of_a_sensor_with_cropped_modes_only() -> None:
    cropped = SensorModes(IMX708, modes_of(IMX708).modes[:1], is_wide=True)
    assert cropped.choose_mode((1280, 720), 120).size == (1536, 864)


def test_highest_rate_of_the_middle() -> None:
    assert modes_of(IMX708).highest_fps((1280, 720), "crop") == 14.35
    assert modes_of(IMX219).highest_fps((1280, 720), "crop") == 47.57


def test_middle_without_single_pixels() -> None:
    binned = SensorModes(IMX708, modes_of(IMX708).modes[:2])
    assert binned.choose_mode((1280, 720), 100, "crop").size == (1536, 864)
    assert binned.choose_mode((4000, 2000), 100, "crop").size == (2304, 1296)
    assert not binned.choose_mode((1280, 720), 100, "crop").is_one_to_one


@pytest.mark.parametrize(
    ("array_size", "size", "fps"),
    [
        (IMX708, (1280, 720), 120.13),
        (IMX708, (1920, 1080), 56.03),
        (IMX708, (3840, 2160), 14.35),
        (IMX708, (5000, 3000), 14.35),
        (IMX219, (640, 480), 206.65),
        (IMX219, (1280, 720), 83.7),
        (IMX219, (1920, 1080), 47.57),
        (IMX219, (2560, 1440), 21.19),
        (IMX477, (1280, 720), 120.05),
        (IMX477, (1920, 1080), 50.03),
        (OV5647, (1920, 1080), 30.62),
    ],
)
def test_highest_rate(array_size: Size, size: Size, fps: float) -> None:
    modes = modes_of(array_size)
    assert modes.highest_fps(size) == fps
    assert modes.choose_mode(size, fps).fps == fps
