"""How a camera's buffer is divided into planes, as views without a copy. Pure arithmetic: no camera, no thread."""

import numpy as np

from softcam.errors import CameraError
from softcam.frames import PixelFormat, Plane

PIXEL_FORMATS: tuple[PixelFormat, ...] = ("YUV420", "NV12", "YUYV", "MJPEG")


def pixel_format_of(name: str) -> PixelFormat:
    """The format called so by libcamera. Raises CameraError for one that the portal cannot encode."""
    for known in PIXEL_FORMATS:
        if name == known:
            return known
    raise CameraError(f"the camera gives {name}, and the portal reads only {', '.join(PIXEL_FORMATS)}")


def planes_of(buffer: Plane, pixel_format: PixelFormat, width: int, height: int, stride: int) -> tuple[Plane, ...]:
    """The planes of a frame that lies in `buffer` (bytes,), in the shapes that `Frame` names.

    `stride` is the length of a row of the first plane in bytes, padding included. The chroma planes of YUV420 have
    half of it, that of NV12 the whole. Raises CameraError when the buffer is too short for them.
    """
    if pixel_format == "MJPEG":
        return (buffer,)
    if pixel_format == "YUYV":
        return (_rows(buffer, 0, height, stride, 2 * width),)
    chroma_width, chroma_height = (width + 1) // 2, (height + 1) // 2
    luma = _rows(buffer, 0, height, stride, width)
    chroma_at = stride * height
    if pixel_format == "NV12":
        return luma, _rows(buffer, chroma_at, chroma_height, stride, 2 * chroma_width)
    chroma_stride = stride // 2
    blue = _rows(buffer, chroma_at, chroma_height, chroma_stride, chroma_width)
    red = _rows(buffer, chroma_at + chroma_stride * chroma_height, chroma_height, chroma_stride, chroma_width)
    return luma, blue, red


def _rows(buffer: Plane, at: int, rows: int, stride: int, width: int) -> Plane:
    # The last row may lack its padding.
    if stride < width or at + stride * (rows - 1) + width > buffer.size:
        raise CameraError(
            f"the camera's buffer of {buffer.size} bytes is too short for {rows} rows of {width} bytes at {at}, "
            f"{stride} apart"
        )
    return np.lib.stride_tricks.as_strided(buffer[at:], shape=(rows, width), strides=(stride, 1), writeable=False)
