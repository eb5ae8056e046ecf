"""Small pictures that stand for recordings. Pure functions but for the newest frame; any thread may call."""

from typing import Final

import numpy as np

from softcam import jpeg
from softcam.exif import with_orientation
from softcam.frames import Frame, NewestFrame
from softcam.scale import scaled_size

_WIDEST: Final = 320  # pixels
_QUALITY: Final = 70


def of_newest(frames: NewestFrame, orientation: int = 1) -> bytes | None:
    """A small JPEG of what the camera sees now, None while it is closed; `orientation` is EXIF's.

    Raises CameraError.
    """
    frame = frames.held()
    if frame is None:
        return None
    try:
        return _small(frame, orientation)
    finally:
        frame.release()


def of_jpeg(picture: bytes, orientation: int = 1) -> bytes:
    """A small JPEG of another one, whose `orientation` (EXIF's) it tells as well. Raises CameraError."""
    width, height = jpeg.size_of(picture)
    return _small(Frame((np.frombuffer(picture, np.uint8),), "MJPEG", width, height), orientation)


def _small(frame: Frame, orientation: int) -> bytes:
    return with_orientation(jpeg.encode(frame, scaled_size(frame.size, _WIDEST), _QUALITY), orientation)
