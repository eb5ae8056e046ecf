"""Small pictures that stand for recordings. Pure functions but for the newest frame; any thread may call."""

from typing import Final

import numpy as np

from softcam import jpeg
from softcam.frames import Frame, NewestFrame
from softcam.scale import scaled_size

_WIDEST: Final = 320  # pixels
_QUALITY: Final = 70


def of_newest(frames: NewestFrame) -> bytes | None:
    """A small JPEG of what the camera sees now, None while it is closed. Raises CameraError."""
    frame = frames.held()
    if frame is None:
        return None
    try:
        return _small(frame)
    finally:
        frame.release()


def of_jpeg(picture: bytes) -> bytes:
    """A small JPEG of another one. Raises CameraError."""
    width, height = jpeg.size_of(picture)
    return _small(Frame((np.frombuffer(picture, np.uint8),), "MJPEG", width, height))


def _small(frame: Frame) -> bytes:
    return jpeg.encode(frame, scaled_size(frame.size, _WIDEST), _QUALITY)
