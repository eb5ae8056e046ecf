"""Converts frames to RGB arrays and back, for hooks: with libswscale of PyAV, in a tenth of the time of numpy.

PyAV is loaded by the first call. Stateless: any thread may call.
"""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from softcam.errors import CameraError
from softcam.imaging.frame import Frame, Plane
from softcam.imaging.jpeg import decode, separate
from softcam.runtime.pyav import import_pyav

Rgb = npt.NDArray[np.uint8]

_FEATURE: Final = "converting to RGB"
FULL_RANGE: Final = "yuvj420p"  # the j selects the range of JPEG; libswscale then uses the matrix of BT.601


def rgb_of(frame: Frame) -> Rgb:
    """A writable copy of a frame that the caller holds, as an array (height, width, 3).

    Raises CameraError for a frame that cannot be decoded.
    """
    if frame.pixel_format == "MJPEG":
        return decode(frame)
    width, height = frame.size
    picture = import_pyav(_FEATURE).VideoFrame(width, height, FULL_RANGE)
    for rows, plane in zip(rows_of(picture), separate(frame), strict=True):
        rows[:] = plane
    rgb: Rgb = picture.to_ndarray(format="rgb24")
    return rgb


def frame_of(rgb: Rgb, like: Frame) -> Frame:
    """A copy of an array (height, width, 3) as a YUV420 frame, with the time and metadata of `like`."""
    height, width, _ = rgb.shape
    picture = import_pyav(_FEATURE).VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
    picture = picture.reformat(format=FULL_RANGE)
    planes = tuple(rows.copy() for rows in rows_of(picture))
    return like.derive(planes, (width, height), "YUV420")


def rows_of(picture: Any) -> list[Plane]:
    """The planes of a PyAV frame without the padding of the rows: writable views, which keep the memory alive."""
    return [
        np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: plane.height, : plane.width]
        for plane in picture.planes
    ]


def check_shape(given: Any, size: tuple[int, int]) -> None:
    """Raises CameraError if the result of a hook cannot replace a frame of `size` (width, height)."""
    wanted = (size[1], size[0], 3)
    if not isinstance(given, np.ndarray):
        raise CameraError(f"returned {type(given).__name__}, must be an array or None")
    if given.shape != wanted or given.dtype != np.uint8:
        raise CameraError(f"returned {given.dtype} {given.shape}, must be uint8 {wanted}")
