"""Thumbnails of recordings. Functions without state; any thread may call."""

from typing import Final

import numpy as np

from softcam.imaging import jpeg
from softcam.imaging.exif import orientation_of, with_orientation
from softcam.imaging.frame import Frame, NewestFrame
from softcam.imaging.scale import scaled_size

_MAX_WIDTH: Final = 320  # pixels
_QUALITY: Final = 70


def of_newest(frames: NewestFrame, orientation: int = 1) -> bytes | None:
    """A small JPEG of the newest frame, None while the camera is closed; `orientation` is EXIF's.

    Raises CameraError.
    """
    frame = frames.held()
    if frame is None:
        return None
    try:
        return _shrink(frame, orientation)
    finally:
        frame.release()


def of_jpeg(picture: bytes, orientation: int | None = None) -> bytes:
    """A small JPEG of another one; `orientation` is EXIF's, None for that of the image. Raises CameraError."""
    orientation = orientation_of(picture) if orientation is None else orientation
    width, height = jpeg.size_of(picture)
    return _shrink(Frame((np.frombuffer(picture, np.uint8),), "MJPEG", width, height), orientation)


def _shrink(frame: Frame, orientation: int) -> bytes:
    small = jpeg.encode(frame, scaled_size(frame.size, _MAX_WIDTH), _QUALITY)
    # A JPEG that was small already is passed through, with its EXIF data.
    return small if orientation_of(small) == orientation else with_orientation(small, orientation)
