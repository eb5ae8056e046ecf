"""Encodes frames as JPEGs, and reads JPEG headers; the only module that uses simplejpeg.

A frame is in full-range YCbCr already, as JFIF requires, so its planes are compressed in place without a colour
conversion. A JPEG that the camera delivers is passed through where possible. Stateless: any thread may call, several at
once, and simplejpeg releases the interpreter lock.

No JPEG returned here contains FFD8 or FFD9 before its end, where tables and metadata may contain them by chance: Home
Assistant and many scripts search a stream for these markers, and would cut the image there.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Final, NamedTuple

import numpy as np
import simplejpeg

from softcam.errors import CameraError
from softcam.imaging.frame import Frame, Plane
from softcam.imaging.planes import checked_planes
from softcam.imaging.scale import shrink, shrink_plane

Planes = tuple[Plane, Plane, Plane]

# libjpeg's quantisation tables for these two qualities contain FFD9 and FFD8; the next quality hardly differs.
_CLEAN_QUALITY: Final = {6: 7, 18: 19}


def encode(frame: Frame, size: tuple[int, int] | None, quality: int, *, quality_is_explicit: bool = False) -> bytes:
    """`frame`, which the caller holds, as a JPEG of `size` (width, height) pixels; None for the size of the frame.

    `quality` is 1 to 100. A frame that is a JPEG of that size already is returned unchanged: compressing it again takes
    time and loses detail. Only with `quality_is_explicit`, for a client that requested this quality, and where it is
    lower than that of the camera, is it compressed again.

    Raises CameraError, with the reason, for a frame that does not match its format; ValueError for a `size` larger than
    the frame or a `quality` out of range.
    """
    if not 1 <= quality <= 100:
        raise ValueError(f"quality {quality}: must be from 1 to 100")
    if frame.pixel_format == "MJPEG":
        return _encode_mjpeg(frame, size, quality, quality_is_explicit)
    planes = separate(frame)
    if size is not None and size != frame.size:
        planes = shrink(planes, size)
    return _compress(planes, quality)


def decode(frame: Frame) -> Plane:
    """An MJPEG frame, which the caller holds, as RGB (height, width, 3). Raises CameraError for one that is damaged."""
    if frame.pixel_format != "MJPEG" or len(frame.planes) != 1:
        raise CameraError(f"a {frame.pixel_format} frame is not a JPEG")
    try:
        rgb: Plane = simplejpeg.decode_jpeg(frame.planes[0].tobytes(), "RGB", strict=False)
    except ValueError as error:
        raise CameraError(f"cannot decode the camera's JPEG: {error}") from error
    return rgb


def size_of(jpeg: bytes) -> tuple[int, int]:
    """(width, height) in pixels, from the header. Raises ValueError for anything but a JPEG."""
    header = _read_header(jpeg)
    return header.width, header.height


def with_end(jpeg: bytes) -> bytes:
    """`jpeg` without what follows it; an end marker is appended if only that is missing. Unchanged if it is damaged."""
    if jpeg.endswith(EOI):
        return jpeg
    try:
        return _with_end(jpeg, _read_header(jpeg))
    except ValueError:
        return jpeg


def _compress(planes: Planes, quality: int) -> bytes:
    y, u, v = planes
    height, width = y.shape
    if width % 2 or height % 2:
        # libjpeg-turbo expects one more column and row of luma for an odd size, and would read beyond the end:
        # https://rawcdn.githack.com/libjpeg-turbo/libjpeg-turbo/2.1.x/doc/html/group___turbo_j_p_e_g.html
        y = np.pad(y, ((0, height % 2), (0, width % 2)), mode="edge")[:height, :width]
    try:
        jpeg: bytes = simplejpeg.encode_jpeg_yuv_planes(y, u, v, quality=_CLEAN_QUALITY.get(quality, quality))
    except ValueError as error:
        raise CameraError(f"cannot encode the frame: {error}") from error
    return jpeg


# Planes


def separate(frame: Frame) -> Planes:
    """The Y, U and V planes with contiguous rows: views for YUV420, copies of interleaved planes for other formats.

    Raises CameraError for a JPEG, and for a frame that does not match its format.
    """
    planes = checked_planes(frame)
    match planes:
        case (y, u, v):  # YUV420
            return y, u, v
        case (y, chroma):  # NV12
            return y, _first_of_pairs(chroma), (chroma.view(np.uint16) >> 8).astype(np.uint8)
    (packed,) = planes  # YUYV
    width = frame.width
    if width % 2:  # each row ends with half a pair, without V; no known camera does this
        packed = np.pad(packed, ((0, 0), (0, 2)), mode="edge")
        packed[:, -1] = packed[:, -5] if width > 1 else 128
    return _first_of_pairs(packed)[:, :width], packed[:, 1::4].copy(), packed[:, 3::4].copy()


def _first_of_pairs(plane: Plane) -> Plane:
    """The even columns of a plane of even width, as a plane.

    Reading 16-bit numbers and keeping the low byte takes a third of the time that numpy takes to copy every second
    byte. (All supported machines are little-endian.)
    """
    return plane.view(np.uint16).astype(np.uint8)


# JPEGs that the camera delivers


def _encode_mjpeg(frame: Frame, size: tuple[int, int] | None, quality: int, quality_is_explicit: bool) -> bytes:
    if len(frame.planes) != 1:
        raise CameraError(f"an MJPEG frame has 1 plane, not {len(frame.planes)}")
    data = frame.planes[0].tobytes()
    try:
        header = _read_header(data)
        data = _with_end(data, header)
    except ValueError as error:
        raise CameraError(f"the camera's JPEG is damaged: {error}") from error
    own_size = header.width, header.height
    if size is None:
        size = own_size
    if size == own_size and not (quality_is_explicit and quality < _estimate_quality(header.quantisation)):
        tables = b"" if header.has_huffman_tables else _default_huffman_tables()
        return b"".join((*_clean_segments(data, header.scan), tables, data[header.scan :]))
    width, height = size
    if width > header.width or height > header.height:
        raise ValueError(f"cannot shrink {header.width}x{header.height} to {width}x{height}")
    try:
        # libjpeg decodes to fractions of the size at a fraction of the cost. Not strict: libjpeg's warnings are
        # common with USB cameras, and a partly damaged image is better than none.
        rgb = simplejpeg.decode_jpeg(data, "RGB", min_width=width, min_height=height, min_factor=1, strict=False)
        if rgb.shape[:2] != (height, width):
            rgb = np.dstack([shrink_plane(np.ascontiguousarray(rgb[:, :, channel]), size) for channel in range(3)])
        quality = _CLEAN_QUALITY.get(quality, quality)
        jpeg: bytes = simplejpeg.encode_jpeg(rgb, quality=quality, colorspace="RGB", colorsubsampling="420")
    except ValueError as error:
        raise CameraError(f"cannot decode the camera's JPEG: {error}") from error
    return jpeg


class _Header(NamedTuple):
    width: int
    height: int
    quantisation: bytes  # the first segment of quantisation tables; empty if there is none
    has_huffman_tables: bool
    has_one_scan: bool  # as all but progressive JPEGs
    scan: int  # position of the first start-of-scan marker


# https://www.w3.org/Graphics/JPEG/itu-t81.pdf, table B.1
SOI: Final = b"\xff\xd8"
EOI: Final = b"\xff\xd9"
_HUFFMAN: Final = 0xC4
_QUANTISATION: Final = 0xDB
SCAN: Final = 0xDA  # the second byte of its marker
_METADATA: Final = frozenset({*range(0xE0, 0xF0), 0xFE})  # EXIF with a thumbnail, comments
_FRAME_HEADERS: Final = frozenset(range(0xC0, 0xD0)) - {_HUFFMAN, 0xC8, 0xCC}
_SEQUENTIAL: Final = frozenset({0xC0, 0xC1})  # frame headers of Huffman-coded images that are not progressive
_MAX_PIXELS_PER_BYTE: Final = 256  # 64 pixels have a code for the average and one for the end, each of at least one bit
_QUALITY_50_SUM: Final = 3685  # of the example luminance table in annex K, which libjpeg scales by its quality


def _read_header(data: bytes) -> _Header:
    """Read up to the image data. Raises ValueError with the reason."""
    if not data.startswith(SOI):
        raise ValueError("it does not start with FFD8")
    size: tuple[int, int] | None = None
    components = 0  # of the image, if one scan can contain them
    quantisation = b""
    has_huffman_tables = False
    for marker, start, payload in _segments(data):
        if marker in _FRAME_HEADERS:
            if len(payload) < 5:
                raise ValueError("its frame header is truncated")
            size = int.from_bytes(payload[3:5], "big"), int.from_bytes(payload[1:3], "big")
            components = payload[5] if marker in _SEQUENTIAL and len(payload) > 5 else 0
        elif marker == _HUFFMAN:
            has_huffman_tables = True
        elif marker == _QUANTISATION and not quantisation:
            quantisation = payload
        elif marker == SCAN:
            if size is None or 0 in size:
                raise ValueError("it has no size")
            return _Header(*size, quantisation, has_huffman_tables, 0 < components == sum(payload[:1]), start)
    raise ValueError("it has no image data")


def _segments(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """(marker, position, payload) of each segment after SOI, to the header of the first scan, inclusive."""
    at = len(SOI)
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            raise ValueError(f"there is no marker at byte {at}")
        marker = data[at + 1]
        if marker == 0xFF:  # any number of fill bytes may precede a marker
            at += 1
            continue
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        if length < 2 or at + 2 + length > len(data):
            raise ValueError(f"the segment at byte {at} is truncated")
        yield marker, at, data[at + 4 : at + 2 + length]
        if marker == SCAN:
            return
        at += 2 + length


_false_marker: Final = re.compile(rb"\xff(?=[\xd8\xd9])")


def without_markers(content: bytes) -> bytes:
    """`content` of a segment without FFD8 and FFD9: numbers there become smaller by 0.4 % at most.

    An EXIF thumbnail can no longer be decoded.
    """
    return _false_marker.sub(b"\xfe", content)


def _clean_segments(data: bytes, scan: int) -> Iterator[bytes]:
    """The header of a JPEG up to its first scan, without FFD8 and FFD9 after its start; usually unchanged."""
    if not _false_marker.search(data, len(SOI), scan):
        yield data[:scan]
        return
    yield SOI
    for marker, start, payload in _segments(data):
        if start == scan:
            return
        segment = data[start : start + 4] + (
            without_markers(payload) if marker == _QUANTISATION or marker in _METADATA else payload
        )
        if marker not in _METADATA or not _false_marker.search(segment):  # its length may look like a marker, too
            yield segment


# In image data, FF is followed by 00 or a restart marker; FF before a marker is a fill byte.
next_marker = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]").search


def _with_end(data: bytes, header: _Header) -> bytes:
    """The JPEG at the beginning of `data`, with its end marker.

    The buffer of a camera has the size of its largest JPEG; after the current one it contains zeros or parts of an
    older one. Raises ValueError if the image is damaged.
    """
    at = header.scan
    while found := next_marker(data, at):
        if data[found.start() + 1] == EOI[1]:
            return data[: found.end()]
        if data[found.start() + 1] == SOI[1]:
            raise ValueError("another image begins before its end")
        # A further scan or table of a progressive JPEG.
        at = found.end() + int.from_bytes(data[found.end() : found.end() + 2], "big")
    if not header.has_one_scan:
        raise ValueError("it has no end marker")
    return _append_end(data, header)


def _append_end(data: bytes, header: _Header) -> bytes:
    """`data` with an end marker. Raises ValueError if the image data is incomplete, which only decoding shows."""
    content = data.rstrip(b"\0")
    text = content.removesuffix(b"\n").removesuffix(b"\r").rstrip(b"\0")  # without the line end before a boundary
    # Image data may itself end with a line end or zeros, of which no code has more than two bytes.
    for end in dict.fromkeys((len(text), len(content), len(content) + 1, len(content) + 2)):
        jpeg = data[:end] + EOI
        if header.width * header.height > _MAX_PIXELS_PER_BYTE * (end - header.scan):
            continue
        try:
            simplejpeg.decode_jpeg(jpeg, "GRAY", min_width=1, min_height=1)
        except ValueError as error:
            if "extraneous bytes" not in str(error):
                continue
        return jpeg
    raise ValueError("it is truncated")


def _estimate_quality(tables: bytes) -> int:
    """The quality of libjpeg, 1 to 100, whose luminance table is about as coarse as the first of `tables`.

    100 if there are none.
    """
    if not tables:
        return 100
    wide = tables[0] >> 4
    steps = np.frombuffer(tables[1:129] if wide else tables[1:65], ">u2" if wide else "u1")
    percent = 100 * int(steps.sum()) / _QUALITY_50_SUM
    quality = (200 - percent) / 2 if percent <= 100 else 5000 / percent
    return min(max(round(quality), 1), 100)


@lru_cache(maxsize=1)
def _default_huffman_tables() -> bytes:
    """The segments with the Huffman tables that a Motion JPEG may omit, as AVI allows and USB cameras do.

    Browsers have them built in, other programs do not. libjpeg uses the same ones, so they are copied from its output.
    """
    grey = np.full((8, 8), 128, np.uint8)
    sample = _compress((grey, grey[:4, :4], grey[:4, :4]), 50)
    return b"".join(
        sample[start : start + 4 + len(payload)] for marker, start, payload in _segments(sample) if marker == _HUFFMAN
    )
