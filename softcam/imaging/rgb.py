"""Frames as RGB arrays and back, for hooks: by libswscale in PyAV, which takes a tenth of numpy's time.

PyAV is imported at the first call. Nothing is kept between calls: any thread may call.
"""

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from softcam.errors import CameraError
from softcam.imaging.frame import Frame, Plane
from softcam.imaging.jpeg import decode, separate
from softcam.runtime.pyav import import_pyav

Rgb = npt.NDArray[np.uint8]

_FEATURE: Final = "converting to RGB"
_FULL_RANGE: Final = "yuvj420p"  # the j is for JPEG's range; libswscale then takes BT.601's matrix by itself


def rgb_of(frame: Frame) -> Rgb:
    """A frame that the caller holds, as (height, width, 3) in memory of its own, which may be written to.

    Raises CameraError for a frame that cannot be read.
    """
    if frame.pixel_format == "MJPEG":
        return decode(frame)
    width, height = frame.size
    picture = import_pyav(_FEATURE).VideoFrame(width, height, _FULL_RANGE)
    for rows, plane in zip(_rows_of(picture), separate(frame), strict=True):
        rows[:] = plane
    rgb: Rgb = picture.to_ndarray(format="rgb24")
    return rgb


def frame_of(rgb: Rgb, like: Frame) -> Frame:
    """An array (height, width, 3) as a YUV420 frame in memory of its own, with the time and metadata of `like`."""
    height, width, _ = rgb.shape
    picture = (
        import_pyav(_FEATURE)
        .VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
        .reformat(format=_FULL_RANGE)
    )
    return _made(tuple(rows.copy() for rows in _rows_of(picture)), width, height, like)


def decode_yuv420(jpeg: bytes, choose_size: Callable[[tuple[int, int]], tuple[int, int]]) -> Frame:
    """A JPEG as a YUV420 frame (full range); `choose_size` maps its (width, height) to that of the frame.

    Raises CameraError for a JPEG that cannot be decoded.
    """
    av = import_pyav(_FEATURE)
    try:
        decoder: Any = av.CodecContext.create("mjpeg", "r")
        decoder.thread_count = 1  # with more threads, each would delay the picture by one
        (picture,) = decoder.decode(av.Packet(jpeg))
        picture = picture.reformat(*choose_size((picture.width, picture.height)), format=_FULL_RANGE)
    except (av.error.FFmpegError, ValueError) as error:
        raise CameraError(f"the still cannot be read: {error}") from error
    planes = tuple(
        np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: plane.height, : plane.width]
        for plane in picture.planes
    )
    return Frame(planes, "YUV420", picture.width, picture.height)


def _made(planes: tuple[Plane, ...], width: int, height: int, like: Frame) -> Frame:
    return Frame(planes, "YUV420", width, height, sequence=like.sequence, began_s=like.began_s, metadata=like.metadata)


def _rows_of(picture: Any) -> list[Plane]:
    """The planes of a PyAV picture as arrays without the padding at the end of rows, to read and to write."""
    return [
        np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: plane.height, : plane.width]
        for plane in picture.planes
    ]


def shape_error(given: Any, size: tuple[int, int]) -> CameraError | None:
    """Why something cannot be shown in place of a frame of `size` (width, height); None where it can."""
    wanted = (size[1], size[0], 3)
    if not isinstance(given, np.ndarray):
        return CameraError(f"returned {type(given).__name__}, must be an array or None")
    if given.shape != wanted or given.dtype != np.uint8:
        return CameraError(f"returned {given.dtype} {given.shape}, must be uint8 {wanted}")
    return None
