"""Makes a picture's planes smaller, with numpy alone.

Whole pixels are averaged first, in boxes, which costs little and loses no light; what remains, a factor below two, is
interpolated. Nothing here knows frames or JPEG, and nothing keeps pixels: any thread may call, several at once.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Plane = npt.NDArray[np.uint8]
Size = tuple[int, int]  # (width, height) in pixels

# The largest box whose sum still fits 16 bits: 16 * 16 * 255, and half a box for rounding.
_LARGEST_BOX = 16

# Planes are worked on by strips of so many pixels, so that what lies between the steps (up to half a megabyte) stays in
# the second-level cache; whole planes take half as long again, and smaller strips lose the gain to the calls.
_STRIP_PIXELS = 65536

# A portal serves a handful of sizes, each with a luma and a chroma table; a few kilobytes each.
_KEPT_TABLES = 64


def scaled_size(size: Size, width: int) -> Size:
    """(width, height) of a picture of `size` shrunk to about `width`: even numbers, 2 or more, the same proportions.

    A picture that is no wider than `width` keeps its size: there is nothing to gain from making it larger.
    Raises ValueError for a width below 1.
    """
    full_width, full_height = size
    if width < 1:
        raise ValueError(f"width must be 1 or more, not {width}")
    if width >= full_width:
        return size
    even_width = max(2, width // 2 * 2)
    even_height = max(2, round(full_height * even_width / full_width / 2) * 2)
    return min(even_width, full_width), min(even_height, full_height)


def shrink(planes: Sequence[Plane], size: Size, to: Size) -> tuple[Plane, Plane, Plane]:
    """The Y, U and V planes of a picture of `size` shrunk to 4:2:0 planes of a picture of `to`.

    The planes are uint8 (rows, columns) with any strides, chroma subsampled in any way that 4:2:0 does not exceed.
    A plane that has its size already is returned as it is. Raises ValueError where a plane would have to grow.
    """
    y, u, v = planes
    if y.shape != (size[1], size[0]):
        raise ValueError(f"luma plane is {y.shape[1]}x{y.shape[0]}, not {size[0]}x{size[1]}")
    chroma_to = ((to[0] + 1) // 2, (to[1] + 1) // 2)
    return shrink_plane(y, to), shrink_plane(u, chroma_to), shrink_plane(v, chroma_to)


def shrink_plane(plane: Plane, to: Size) -> Plane:
    """One plane, uint8 (rows, columns) with any strides, shrunk to `to`. Raises ValueError where it would grow."""
    height, width = plane.shape
    if min(to) < 1 or to[0] > width or to[1] > height:
        raise ValueError(f"cannot shrink {width}x{height} to {to[0]}x{to[1]}")
    # What a box leaves over at the right and the bottom is dropped; the extents remember it, so that nothing shifts.
    extent_x, extent_y = float(width), float(height)
    while True:
        box_x, box_y = min(plane.shape[1] // to[0], _LARGEST_BOX), min(plane.shape[0] // to[1], _LARGEST_BOX)
        if box_x == box_y == 1:
            break
        plane = _average_boxes(plane, box_x, box_y)
        extent_x /= box_x
        extent_y /= box_y
    if plane.shape == (to[1], to[0]):
        return plane
    return _interpolate(plane, _taps(plane.shape[1], extent_x, to[0]), _taps(plane.shape[0], extent_y, to[1]))


def _average_boxes(plane: Plane, box_x: int, box_y: int) -> Plane:
    """Each `box_x` by `box_y` pixels averaged into one, rounded. Rows go first: they are contiguous."""
    height, width = plane.shape[0] // box_y, plane.shape[1] // box_x
    result = np.empty((height, width), np.uint8)
    strip = max(1, min(height, _STRIP_PIXELS // (width * box_x)))
    rows_buffer = np.empty((strip, width * box_x), np.uint16)
    sums_buffer = np.empty((strip, width), np.uint16)
    count = box_x * box_y
    for top in range(0, height, strip):
        bottom = min(top + strip, height)
        source = plane[top * box_y : bottom * box_y, : width * box_x]
        rows, sums = rows_buffer[: bottom - top], sums_buffer[: bottom - top]
        rows[...] = source[0::box_y]
        for y in range(1, box_y):
            rows += source[y::box_y]
        sums[...] = rows[:, 0::box_x]
        for x in range(1, box_x):
            sums += rows[:, x::box_x]
        sums += count // 2
        if count & (count - 1):
            sums //= count
        else:  # numpy divides more slowly than it shifts
            sums >>= count.bit_length() - 1
        result[top:bottom] = sums
    return result


class _Taps(NamedTuple):
    """Where each pixel of an axis comes from: `first` and its successor, weighted in 256ths."""

    first: npt.NDArray[np.intp]
    second: npt.NDArray[np.intp]
    first_weight: npt.NDArray[np.uint16]
    second_weight: npt.NDArray[np.uint16]


@lru_cache(maxsize=_KEPT_TABLES)
def _taps(pixels: int, extent: float, to: int) -> _Taps:
    """The taps for an axis of `pixels`, which shows the part `pixels / extent` of the scene, shrunk to `to`."""
    centres = ((np.arange(to) + 0.5) * (extent / to) - 0.5).clip(0, pixels - 1)
    first = np.minimum(centres.astype(np.intp), max(pixels - 2, 0))
    second_weight = np.rint((centres - first) * 256).astype(np.uint16)
    return _Taps(first, np.minimum(first + 1, pixels - 1), 256 - second_weight, second_weight)


def _interpolate(plane: Plane, across: _Taps, down: _Taps) -> Plane:
    """The pixels that `across` and `down` point at, blended bilinearly: first down, then across."""
    source_width, width, height = plane.shape[1], len(across.first), len(down.first)
    result = np.empty((height, width), np.uint8)
    plane = np.ascontiguousarray(plane)  # or `take` would do so for every strip
    strip = max(1, min(height, _STRIP_PIXELS // source_width))
    gathered_buffer = np.empty((strip, source_width), np.uint8)
    above_buffer, below_buffer = np.empty((2, strip, source_width), np.uint16)
    left_buffer, right_buffer = np.empty((2, strip, width), np.uint16)
    for top in range(0, height, strip):
        bottom = min(top + strip, height)
        count = bottom - top
        gathered, above, below = gathered_buffer[:count], above_buffer[:count], below_buffer[:count]
        left, right = left_buffer[:count], right_buffer[:count]
        # "clip" since every index is in range: to check them, the default would make a copy of `out`.
        above[...] = np.take(plane, down.first[top:bottom], axis=0, out=gathered, mode="clip")
        below[...] = np.take(plane, down.second[top:bottom], axis=0, out=gathered, mode="clip")
        _blend(above, down.first_weight[top:bottom, None], below, down.second_weight[top:bottom, None])
        np.take(above, across.first, axis=1, out=left, mode="clip")
        np.take(above, across.second, axis=1, out=right, mode="clip")
        _blend(left, across.first_weight, right, across.second_weight)
        result[top:bottom] = left
    return result


def _blend(
    a: npt.NDArray[np.uint16],
    a_weight: npt.NDArray[np.uint16],
    b: npt.NDArray[np.uint16],
    b_weight: npt.NDArray[np.uint16],
) -> None:
    """Put `a` and `b`, both below 256, weighted in 256ths and rounded, into `a`; `b` is spoilt. Never overflows."""
    a *= a_weight
    b *= b_weight
    a += b
    a += 128
    a >>= 8
