"""Divides the buffer of a camera into planes, as views without a copy. Pure functions."""

import numpy as np

from softcam.errors import CameraError
from softcam.imaging.frame import Frame, PixelFormat, Plane

PIXEL_FORMATS: tuple[PixelFormat, ...] = ("YUV420", "NV12", "YUYV", "MJPEG")


def pixel_format_of(name: str) -> PixelFormat:
    """The format of this libcamera name. Raises CameraError for one that the portal cannot encode."""
    for known in PIXEL_FORMATS:
        if name == known:
            return known
    raise CameraError(f"pixel format {name} of the camera: must be one of {', '.join(PIXEL_FORMATS)}")


def planes_of(buffer: Plane, pixel_format: PixelFormat, width: int, height: int, stride: int) -> tuple[Plane, ...]:
    """The planes of the frame in `buffer` (bytes,), in the shapes described at `Frame`.

    `stride` is the length of a row of the first plane in bytes, including padding. The chroma planes of YUV420 have
    half of it, that of NV12 all of it. Raises CameraError if the buffer is too short.
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
    # The last row may have no padding.
    if stride < width or at + stride * (rows - 1) + width > buffer.size:
        raise CameraError(
            f"the camera's buffer of {buffer.size} bytes is too short for {rows} rows of {width} bytes at {at}, "
            f"{stride} apart"
        )
    return np.lib.stride_tricks.as_strided(buffer[at:], shape=(rows, width), strides=(stride, 1), writeable=False)


def centre_crop(frame: Frame, size: tuple[int, int]) -> Frame:
    """The largest centred part of `frame` with the aspect ratio of `size` (width, height), as views into its planes.

    The caller holds `frame` for as long as it uses the part. A frame whose ratio differs by less than two pixels, and
    an MJPEG frame, which has no planes to crop, are returned unchanged.
    """
    width, height = frame.size
    # Keeps at least two pixels for extreme ratios.
    part_width = min(width, max(2, 2 * round(height * size[0] / size[1] / 2)))
    part_height = min(height, max(2, 2 * round(width * size[1] / size[0] / 2)))
    if frame.pixel_format == "MJPEG" or (width - part_width < 2 and height - part_height < 2):
        return frame
    # Even, since chroma has half the resolution: an odd edge would shift the colours by a pixel.
    left = (width - part_width) // 4 * 2
    top = (height - part_height) // 4 * 2
    right, bottom = left + part_width, top + part_height
    chroma_left, chroma_right = left // 2, (right + 1) // 2
    chroma_rows = slice(top // 2, (bottom + 1) // 2)
    if frame.pixel_format == "YUYV":
        planes: tuple[Plane, ...] = (frame.planes[0][top:bottom, 2 * left : 2 * right],)
    else:
        luma = frame.planes[0][top:bottom, left:right]
        chroma: tuple[Plane, ...]
        if frame.pixel_format == "NV12":
            chroma = (frame.planes[1][chroma_rows, 2 * chroma_left : 2 * chroma_right],)
        else:
            chroma = tuple(plane[chroma_rows, chroma_left:chroma_right] for plane in frame.planes[1:])
        planes = (luma, *chroma)
    return Frame(
        planes,
        frame.pixel_format,
        part_width,
        part_height,
        sequence=frame.sequence,
        began_s=frame.began_s,
        metadata=frame.metadata,
    )
