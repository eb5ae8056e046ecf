"""Scales planes down, with numpy alone.

Boxes of pixels are averaged first, which is fast and loses no light; the remaining factor, below two, is interpolated.
Independent of frames and JPEG, and stateless: any thread may call, several at once.
"""

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Plane = npt.NDArray[np.uint8]
Size = tuple[int, int]  # (width, height) in pixels
_Sums = npt.NDArray[np.uint16]

# The largest box whose sum still fits 16 bits: 16 * 16 * 255, and half a box for rounding.
_MAX_BOX = 16

# Planes are processed in strips of this many pixels, so that intermediate results (up to half a megabyte) stay in the
# second-level cache; whole planes take 1.5 times as long, and with smaller strips the calls use up the gain.
_STRIP_PIXELS = 65536

# A portal serves few sizes, each with a luma and a chroma table of a few kilobytes.
_CACHED_TABLES = 64


def scaled_size(size: Size, width: int) -> Size:
    """(width, height) of an image of `size` scaled down to about `width`: even numbers, 2 or more, same aspect ratio.

    An image that is not wider than `width` keeps its size; it is never enlarged. Raises ValueError for a width below 1.
    """
    full_width, full_height = size
    if width < 1:
        raise ValueError(f"width {width}: must be at least 1")
    if width >= full_width:
        return size
    even_width = max(2, width // 2 * 2)
    even_height = max(2, round(full_height * even_width / full_width / 2) * 2)
    return min(even_width, full_width), min(even_height, full_height)


def fit_within(size: Size, limit: Size) -> Size:
    """`size`, or the largest size of its aspect ratio that fits into `limit`: images are never enlarged."""
    factor = min(1.0, limit[0] / size[0], limit[1] / size[1])
    # Half a pixel makes up for rounding errors of the product; `limit` is even, so the result does not exceed it.
    return size if factor == 1.0 else (floor_even(size[0] * factor + 0.5), floor_even(size[1] * factor + 0.5))


def floor_even(length: float) -> int:
    """The largest even number up to `length`, at least 2."""
    return max(2, 2 * math.floor(length / 2))


def shrink(planes: tuple[Plane, Plane, Plane], to: Size) -> tuple[Plane, Plane, Plane]:
    """The Y, U and V planes of an image, scaled down to the 4:2:0 planes of an image of `to`.

    The planes are uint8 (rows, columns) with any strides, and chroma subsampled no more than in 4:2:0. A plane that
    already has its size is returned unchanged. Raises ValueError if a plane would have to be enlarged.
    """
    y, u, v = planes
    chroma_to = ((to[0] + 1) // 2, (to[1] + 1) // 2)
    return shrink_plane(y, to), shrink_plane(u, chroma_to), shrink_plane(v, chroma_to)


def shrink_plane(plane: Plane, to: Size) -> Plane:
    """One plane, uint8 (rows, columns) with any strides, scaled down to `to`. Raises ValueError if it is smaller."""
    height, width = plane.shape
    if min(to) < 1 or to[0] > width or to[1] > height:
        raise ValueError(f"cannot shrink {width}x{height} to {to[0]}x{to[1]}")
    # Pixels that do not fill a box at the right and the bottom are dropped; the extents account for them.
    extent_x, extent_y = float(width), float(height)
    while True:
        box_x, box_y = min(plane.shape[1] // to[0], _MAX_BOX), min(plane.shape[0] // to[1], _MAX_BOX)
        if box_x == box_y == 1:
            break
        plane = _average_boxes(plane, box_x, box_y)
        extent_x /= box_x
        extent_y /= box_y
    if plane.shape == (to[1], to[0]):
        return plane
    return _interpolate(plane, _taps(plane.shape[1], extent_x, to[0]), _taps(plane.shape[0], extent_y, to[1]))


def _average_boxes(plane: Plane, box_x: int, box_y: int) -> Plane:
    """Average each box of `box_x` by `box_y` pixels, rounded. Rows first, since they are contiguous."""
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
        else:  # in numpy a shift is faster than a division
            sums >>= count.bit_length() - 1
        result[top:bottom] = sums
    return result


class _Taps(NamedTuple):
    """The source of each pixel of an axis: `first` and its successor, with weights in 256ths."""

    first: npt.NDArray[np.intp]
    second: npt.NDArray[np.intp]
    first_weight: _Sums
    second_weight: _Sums


@lru_cache(maxsize=_CACHED_TABLES)
def _taps(pixels: int, extent: float, to: int) -> _Taps:
    """The taps for an axis of `pixels`, which covers `pixels / extent` of the scene, scaled down to `to`."""
    centres = ((np.arange(to) + 0.5) * (extent / to) - 0.5).clip(0, pixels - 1)
    first = np.minimum(centres.astype(np.intp), max(pixels - 2, 0))
    second_weight = np.rint((centres - first) * 256).astype(np.uint16)
    return _Taps(first, np.minimum(first + 1, pixels - 1), 256 - second_weight, second_weight)


def _interpolate(plane: Plane, across: _Taps, down: _Taps) -> Plane:
    source_width, width, height = plane.shape[1], len(across.first), len(down.first)
    result = np.empty((height, width), np.uint8)
    plane = np.ascontiguousarray(plane)  # otherwise `take` would do it for every strip
    strip = max(1, min(height, _STRIP_PIXELS // source_width))
    gathered_buffer = np.empty((strip, source_width), np.uint8)
    above_buffer, below_buffer = np.empty((2, strip, source_width), np.uint16)
    left_buffer, right_buffer = np.empty((2, strip, width), np.uint16)
    for top in range(0, height, strip):
        bottom = min(top + strip, height)
        count = bottom - top
        gathered, above, below = gathered_buffer[:count], above_buffer[:count], below_buffer[:count]
        left, right = left_buffer[:count], right_buffer[:count]
        # "clip", since every index is in range: the default checks them, for which it copies `out`.
        above[...] = np.take(plane, down.first[top:bottom], axis=0, out=gathered, mode="clip")
        below[...] = np.take(plane, down.second[top:bottom], axis=0, out=gathered, mode="clip")
        _blend(above, down.first_weight[top:bottom, None], below, down.second_weight[top:bottom, None])
        np.take(above, across.first, axis=1, out=left, mode="clip")
        np.take(above, across.second, axis=1, out=right, mode="clip")
        _blend(left, across.first_weight, right, across.second_weight)
        result[top:bottom] = left
    return result


def _blend(a: _Sums, a_weight: _Sums, b: _Sums, b_weight: _Sums) -> None:
    """Store the weighted, rounded sum of `a` and `b`, both below 256, in `a`; overwrites `b`. Never overflows."""
    a *= a_weight
    b *= b_weight
    a += b
    a += 128
    a >>= 8
