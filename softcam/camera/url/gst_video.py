"""How raw video of GStreamer lies in memory, from its caps and metas. Pure functions; any thread.

Caps are a text: `video/x-raw, format=(string)NV12, width=(int)640, …`. Without a meta that says otherwise, rows and
planes are padded as `gst_video_info_set_format` does (gst-libs/gst/video/video-info.c).
"""

import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from softcam.errors import CameraError
from softcam.imaging.frame import Plane
from softcam.imaging.planes import LUMA, Samples, shapes_of

_FIELD: Final = re.compile(r'([\w-]+)=(?:\(\w+\))?("[^"]*"|[^,;\s]+)')

# By GStreamer's format: FFmpeg's, and the samples of each plane.
_FORMATS: Final[dict[str, tuple[str, Samples]]] = {
    "I420": ("yuv420p", (LUMA, (1, 2, 2), (1, 2, 2))),
    "NV12": ("nv12", (LUMA, (2, 2, 2))),
    "NV21": ("nv21", (LUMA, (2, 2, 2))),
    "YUY2": ("yuyv422", ((4, 2, 1),)),
    "UYVY": ("uyvy422", ((4, 2, 1),)),
    "RGB": ("rgb24", ((3, 1, 1),)),
    "BGR": ("bgr24", ((3, 1, 1),)),
    "RGBx": ("rgb0", ((4, 1, 1),)),
    "BGRx": ("bgr0", ((4, 1, 1),)),
}
# The names of colorimetry as range:matrix; 0 is unknown. AVColorRange has the opposite order of GStreamer's numbers.
_COLORIMETRY: Final = {
    "bt601": "2:4",
    "bt709": "2:3",
    "bt2020": "2:6",
    "bt2020-10": "2:6",
    "sRGB": "1:1",
    "smpte240m": "2:5",
}
_RANGES: Final = {"1": 2, "2": 1}
_MATRICES: Final = {"3": 1, "4": 6, "5": 7, "6": 9}  # AVColorSpace: BT709, SMPTE170M, SMPTE240M, BT2020_NCL
_UNSPECIFIED: Final = 2

_META: Final = struct.Struct("<II")  # bytes of it all, length of the name; the name with a zero, and a version follow
_VIDEO_META: Final = struct.Struct("<iiIII")  # flags, format, width, height, number of planes
_VIDEO_META_NAME: Final = b"GstVideoMeta"


@dataclass(frozen=True, slots=True)
class Layout:
    """Raw video: FFmpeg's name of its format and numbers of its colours, and where the planes lie in a buffer."""

    width: int
    height: int
    pixel_format: str
    matrix: int
    value_range: int
    shapes: tuple[tuple[int, int], ...]  # (rows, bytes of a row) of each plane
    strides: tuple[int, ...]
    offsets: tuple[int, ...]

    def plane(self, index: int, memories: Sequence[Plane]) -> Plane:
        """A view of a plane, which must lie within one of the memories (bytes,). Raises CameraError."""
        (rows, row_bytes), stride, at = self.shapes[index], self.strides[index], self.offsets[index]
        for memory in memories:
            if at < memory.size:
                # The last row may have no padding.
                if stride < row_bytes or at + stride * (rows - 1) + row_bytes > memory.size:
                    break
                return np.lib.stride_tricks.as_strided(memory[at:], (rows, row_bytes), (stride, 1), writeable=False)
            at -= memory.size
        raise CameraError("a buffer is too short for its format")


def layout_of_caps(caps: str) -> Layout:
    """The default layout. Raises CameraError for video that is not supported."""
    fields = {name: value.strip('"') for name, value in _FIELD.findall(caps)}
    name = fields.get("format", "")
    kind = re.split(r"[,(;\s]", caps)[0]
    if kind != "video/x-raw" or name not in _FORMATS:
        raise CameraError(f"delivers {kind} {name}".rstrip() + f": must be image/jpeg or one of {', '.join(_FORMATS)}")
    try:
        width, height = int(fields["width"]), int(fields["height"])
    except (KeyError, ValueError):
        width = height = 0
    if not (0 < width < 1 << 15 and 0 < height < 1 << 15):
        raise CameraError("delivers video without a size")
    pixel_format, samples = _FORMATS[name]
    shapes = tuple(shapes_of(samples, width, height))
    strides = tuple(_round_up(row_bytes, 4) for _, row_bytes in shapes)
    # Planes begin after an even number of rows, where chroma has half of them.
    sizes = [stride * _round_up(height, 2) // down for stride, (_, _, down) in zip(strides, samples, strict=True)]
    colours = fields.get("colorimetry", "")
    value_range, matrix = (*_COLORIMETRY.get(colours, colours).split(":"), "")[:2]
    return Layout(
        width,
        height,
        pixel_format,
        _MATRICES.get(matrix, _UNSPECIFIED),
        _RANGES.get(value_range, 0),
        shapes,
        strides,
        tuple(sum(sizes[:index]) for index in range(len(sizes))),
    )


def layout_of_metas(metas: bytes, default: Layout) -> Layout:
    """The layout of one buffer: with the strides and offsets of its video meta, if there is one.

    Raises CameraError for a meta that contradicts the caps.
    """
    while len(metas) >= _META.size:
        total, name_bytes = _META.unpack_from(metas)
        name = metas[_META.size : _META.size + name_bytes]
        if name == _VIDEO_META_NAME:
            body = metas[_META.size + name_bytes + 2 : total]  # behind the zero and the version
            _, _, width, height, planes = _VIDEO_META.unpack_from(body)
            if (width, height, planes) != (default.width, default.height, len(default.strides)):
                raise CameraError("a buffer differs from its format")
            numbers = struct.unpack_from(f"<{planes}Q{planes}i", body, _VIDEO_META.size)
            return replace(default, offsets=numbers[:planes], strides=numbers[planes:])
        metas = metas[max(total, _META.size) :]
    return default


def _round_up(number: int, step: int) -> int:
    return -(-number // step) * step
