"""The bit rates of H.264."""

import pytest

from softcam.h264.bitrate import automatic_bitrate, fixed_bitrate, substream_bitrate


@pytest.mark.parametrize(
    ("size", "fps", "mbit_per_s"),
    [
        ((320, 180), 20, 2.0),
        ((640, 480), 30, 2.0),
        ((1280, 720), 30, 6.0),
        ((1536, 864), 20, 5.8),
        ((1280, 720), 60, 12.0),
        ((1920, 1080), 30, 13.5),
        ((1920, 1080), 60, 25.0),
        ((3840, 2160), 14.35, 25.0),
        ((4608, 2592), 0.1, 2.0),
    ],
)
def test_automatic_rate(size: tuple[int, int], fps: float, mbit_per_s: float) -> None:
    assert automatic_bitrate(size, fps) / 1e6 == pytest.approx(mbit_per_s, abs=0.05)


def test_fixed_rate() -> None:
    assert {fixed_bitrate(5)(size, fps) for size in ((64, 64), (4608, 2592)) for fps in (1.0, 120.0)} == {5}


@pytest.mark.parametrize(
    ("size", "fps", "bits_per_s"), [((640, 360), 5, 230_400), ((320, 180), 1, 200_000), ((1920, 1080), 30, 12_441_600)]
)
def test_rate_of_the_smaller_stream(size: tuple[int, int], fps: float, bits_per_s: int) -> None:
    assert substream_bitrate(size, fps) == bits_per_s
