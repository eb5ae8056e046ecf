"""The bit rate of H.264: a fixed one, or one that follows the size and the frame rate. Pure functions.

The automatic rate is 6.5 Mbit/s for a megapixel at 30 fps, between 2 and 25 Mbit/s; the maximum is that of the encoder
of a Raspberry Pi 4.
"""

from collections.abc import Callable
from typing import Final

Bitrate = Callable[[tuple[int, int], float], int]  # bits per second, for frames of (width, height) at that rate

_MAX_AUTOMATIC: Final = 25_000_000
_MIN_AUTOMATIC: Final = 2_000_000
_BITS_PER_PIXEL: Final = 6.5 / 30
_SMALL_BITS_PER_PIXEL: Final = 0.2  # of the smaller stream; its frames are further apart, and differ more
_MIN_SMALL: Final = 200_000


def fixed_bitrate(bits_per_s: int) -> Bitrate:
    """The same rate for all frames."""
    return lambda _size, _fps: bits_per_s


def automatic_bitrate(size: tuple[int, int], fps: float) -> int:
    """A `Bitrate`: the rate that frames of this size need."""
    return min(max(round(size[0] * size[1] * fps * _BITS_PER_PIXEL), _MIN_AUTOMATIC), _MAX_AUTOMATIC)


def substream_bitrate(size: tuple[int, int], fps: float) -> int:
    """The rate of a stream for detectors, of at most this size and frame rate."""
    return max(round(size[0] * size[1] * fps * _SMALL_BITS_PER_PIXEL), _MIN_SMALL)
