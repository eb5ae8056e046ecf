"""Frames become JPEGs here, and nowhere else: the one module that knows simplejpeg.

A frame is in full-range YCbCr already, which is what JFIF wants, so its planes are compressed where they lie and no
colour is converted. A camera that gives JPEGs by itself is passed through where that serves. Nothing is kept between
calls: any thread may call, several at once, and simplejpeg lets the others run while it works.
"""

import re
from functools import lru_cache
from typing import Final, NamedTuple

import numpy as np
import simplejpeg

from softcam.errors import CameraError
from softcam.imaging.frame import Frame, Plane
from softcam.imaging.scale import shrink, shrink_plane

Planes = tuple[Plane, Plane, Plane]


def encode(frame: Frame, size: tuple[int, int] | None, quality: int, *, quality_is_explicit: bool = False) -> bytes:
    """`frame`, which the caller holds, as a JPEG of `size` (width, height) pixels, None for the frame's own.

    `quality` is 1 to 100. A frame that is a JPEG already and has the size is passed on as it is: what the camera took
    away does not come back, and another compression costs time and loses more. Only with `quality_is_explicit`, when
    somebody asked for this very quality, and where it is below the camera's own, is it compressed again.

    Raises CameraError, naming the fault, for a frame that is not what its format says; ValueError for a `size` larger
    than the frame or a `quality` out of range.
    """
    if not 1 <= quality <= 100:
        raise ValueError(f"quality must be 1 to 100, not {quality}")
    if frame.pixel_format == "MJPEG":
        return _encode_mjpeg(frame, size, quality, quality_is_explicit)
    planes = separate(frame)
    if size is not None and size != frame.size:
        planes = shrink(planes, frame.size, size)
    return _compress(planes, quality)


def decode(frame: Frame) -> Plane:
    """An MJPEG frame, which the caller holds, as RGB (height, width, 3). Raises CameraError for one that is damaged."""
    if frame.pixel_format != "MJPEG" or len(frame.planes) != 1:
        raise CameraError(f"a {frame.pixel_format} frame is no JPEG")
    try:
        rgb: Plane = simplejpeg.decode_jpeg(frame.planes[0].tobytes(), "RGB", strict=False)
    except ValueError as error:
        raise CameraError(f"the camera's JPEG cannot be read: {error}") from error
    return rgb


def size_of(jpeg: bytes) -> tuple[int, int]:
    """(width, height) in pixels, from the header alone. Raises ValueError for what is no JPEG."""
    header = _read_header(jpeg)
    return header.width, header.height


def _compress(planes: Planes, quality: int) -> bytes:
    y, u, v = planes
    height, width = y.shape
    if width % 2 or height % 2:
        # libjpeg-turbo takes the luma of an odd size for one column and one row larger, and would read behind it:
        # https://rawcdn.githack.com/libjpeg-turbo/libjpeg-turbo/2.1.x/doc/html/group___turbo_j_p_e_g.html
        y = np.pad(y, ((0, height % 2), (0, width % 2)), mode="edge")[:height, :width]
    try:
        jpeg: bytes = simplejpeg.encode_jpeg_yuv_planes(y, u, v, quality=quality)
    except ValueError as error:
        raise CameraError(f"the frame cannot be compressed: {error}") from error
    return jpeg


# Planes


def separate(frame: Frame) -> Planes:
    """The Y, U and V planes with contiguous rows: views for YUV420, copies of what is interleaved for the others.

    Raises CameraError for a frame that is not what its format says, or a JPEG.
    """
    width, height = frame.size
    half_width, half_height = (width + 1) // 2, (height + 1) // 2
    match frame.pixel_format:
        case "YUV420":
            half = (half_height, half_width)
            y, u, v = _checked(frame, (height, width), half, half)
            return y, u, v
        case "NV12":
            y, chroma = _checked(frame, (height, width), (half_height, 2 * half_width))
            return y, *_split_pairs(chroma)
        case "YUYV":
            (packed,) = _checked(frame, (height, 2 * width))
            if width % 2:  # half a pair ends each row, with no V of its own; no camera does this
                packed = np.pad(packed, ((0, 0), (0, 2)), mode="edge")
                packed[:, -1] = packed[:, -5] if width > 1 else 128
            return _first_of_pairs(packed)[:, :width], packed[:, 1::4].copy(), packed[:, 3::4].copy()
        case other:
            raise CameraError(f"frames of the format {other} cannot be compressed")


def _checked(frame: Frame, *shapes: tuple[int, int]) -> tuple[Plane, ...]:
    """The frame's planes, if they are of these shapes: what is not would be read beyond its end, or shown askew."""
    planes = frame.planes
    if len(planes) != len(shapes):
        # An empty tuple is what a frame has after it was given back.
        raise CameraError(f"a {frame.pixel_format} frame has {len(shapes)} planes, not {len(planes)}")
    for number, (plane, shape) in enumerate(zip(planes, shapes, strict=True)):
        if plane.shape != shape or plane.dtype != np.uint8 or plane.strides[-1] != 1:
            raise CameraError(
                f"plane {number} of a {frame.pixel_format} frame of {frame.width}x{frame.height} is {plane.dtype} "
                f"{plane.shape} with strides {plane.strides}, not uint8 {shape} with contiguous rows"
            )
    return planes


def _split_pairs(plane: Plane) -> tuple[Plane, Plane]:
    """The even columns and the odd ones of a plane of even width, each as a plane of its own."""
    return _first_of_pairs(plane), (plane.view(np.uint16) >> 8).astype(np.uint8)


def _first_of_pairs(plane: Plane) -> Plane:
    """The even columns of a plane of even width, as a plane of its own.

    To keep the low byte of a 16-bit number takes a third of the time of numpy's copy of every second byte. (All
    machines that this runs on put the low byte first.)
    """
    return plane.view(np.uint16).astype(np.uint8)


# JPEGs that the camera made


def _encode_mjpeg(frame: Frame, size: tuple[int, int] | None, quality: int, quality_is_explicit: bool) -> bytes:
    if len(frame.planes) != 1:
        raise CameraError(f"an MJPEG frame has 1 plane, not {len(frame.planes)}")
    data = frame.planes[0].tobytes()
    try:
        header = _read_header(data)
        end = _find_end(data, header.scan)
    except ValueError as error:
        raise CameraError(f"the camera's JPEG is damaged: {error}") from error
    own_size = header.width, header.height
    if size is None:
        size = own_size
    if size == own_size and not (quality_is_explicit and quality < _estimate_quality(header.quantisation)):
        if header.has_huffman_tables:
            return data[:end]
        return data[: header.scan] + _usual_huffman_tables() + data[header.scan : end]
    width, height = size
    if width > header.width or height > header.height:
        raise ValueError(f"cannot shrink {header.width}x{header.height} to {width}x{height}")
    try:
        # libjpeg decodes to some fractions of the size at a fraction of the cost. Not strict: libjpeg's warnings
        # are common with USB cameras, and the picture that it makes of the rest is better than none.
        rgb = simplejpeg.decode_jpeg(data[:end], "RGB", min_width=width, min_height=height, min_factor=1, strict=False)
        if rgb.shape[:2] != (height, width):
            rgb = np.dstack([shrink_plane(np.ascontiguousarray(rgb[:, :, channel]), size) for channel in range(3)])
        jpeg: bytes = simplejpeg.encode_jpeg(rgb, quality=quality, colorspace="RGB", colorsubsampling="420")
    except ValueError as error:
        raise CameraError(f"the camera's JPEG cannot be read: {error}") from error
    return jpeg


class _Header(NamedTuple):
    """What stands before a JPEG's pixels."""

    width: int
    height: int
    quantisation: bytes  # the first segment of such tables; empty where there is none
    has_huffman_tables: bool
    scan: int  # where the first start-of-scan marker stands


# https://www.w3.org/Graphics/JPEG/itu-t81.pdf, table B.1
_SOI: Final = b"\xff\xd8"
_HUFFMAN: Final = 0xC4
_QUANTISATION: Final = 0xDB
_SCAN: Final = 0xDA
_END: Final = 0xD9
_FRAME_HEADERS: Final = frozenset(range(0xC0, 0xD0)) - {_HUFFMAN, 0xC8, 0xCC}
_QUALITY_50_SUM: Final = 3685  # of the example luminance table in annex K, which libjpeg scales by its quality


def _read_header(data: bytes) -> _Header:
    """Read up to the pixels. Raises ValueError, saying what is wrong."""
    if not data.startswith(_SOI):
        raise ValueError("it does not begin with FFD8")
    size: tuple[int, int] | None = None
    quantisation = b""
    has_huffman_tables = False
    for marker, start, payload in _segments(data, len(_SOI)):
        if marker in _FRAME_HEADERS:
            if len(payload) < 5:
                raise ValueError("its frame header is cut short")
            size = int.from_bytes(payload[3:5], "big"), int.from_bytes(payload[1:3], "big")
        elif marker == _HUFFMAN:
            has_huffman_tables = True
        elif marker == _QUANTISATION and not quantisation:
            quantisation = payload
        elif marker == _SCAN:
            if size is None or 0 in size:
                raise ValueError("it does not tell its size")
            return _Header(*size, quantisation, has_huffman_tables, start)
    raise ValueError("it ends before its pixels")


def _segments(data: bytes, at: int) -> list[tuple[int, int, bytes]]:
    """(marker, where it stands, payload) of each segment from `at` to the first scan's header, inclusive."""
    found = []
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            raise ValueError(f"there is no marker at byte {at}")
        marker = data[at + 1]
        if marker == 0xFF:  # any number of these may fill the space before a marker
            at += 1
            continue
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        if length < 2 or at + 2 + length > len(data):
            raise ValueError(f"the segment at byte {at} is cut short")
        found.append((marker, at, data[at + 4 : at + 2 + length]))
        if marker == _SCAN:
            break
        at += 2 + length
    return found


# Within the pixels FF is followed by 00 or a restart marker; FF before a marker is filling.
_next_marker = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]").search


def _find_end(data: bytes, scan: int) -> int:
    """The true length of the JPEG whose first scan stands at `scan`.

    A camera's buffer is as large as its largest JPEG, and behind this one lie zeros or what is left of an older one.
    Raises ValueError when it does not end.
    """
    at = scan
    while found := _next_marker(data, at):
        if data[found.start() + 1] == _END:
            return found.end()
        # Another scan or a table, of a progressive JPEG.
        at = found.end() + int.from_bytes(data[found.end() : found.end() + 2], "big")
    raise ValueError("it has no end")


def _estimate_quality(tables: bytes) -> int:
    """libjpeg's quality, 1 to 100, that gives a luminance table about as coarse as the first of `tables`.

    100 where there are none.
    """
    if not tables:
        return 100
    wide = tables[0] >> 4
    steps = np.frombuffer(tables[1:129] if wide else tables[1:65], ">u2" if wide else "u1")
    percent = 100 * int(steps.sum()) / _QUALITY_50_SUM
    quality = (200 - percent) / 2 if percent <= 100 else 5000 / percent
    return min(max(round(quality), 1), 100)


@lru_cache(maxsize=1)
def _usual_huffman_tables() -> bytes:
    """The segments of the Huffman tables that a Motion JPEG may leave out, as AVI allows and USB cameras do.

    Browsers know them by heart, other programs do not. libjpeg uses the same ones, so they are taken from it.
    """
    grey = np.full((8, 8), 128, np.uint8)
    sample = _compress((grey, grey[:4, :4], grey[:4, :4]), 50)
    return b"".join(
        sample[start : start + 4 + len(payload)]
        for marker, start, payload in _segments(sample, len(_SOI))
        if marker == _HUFFMAN
    )
