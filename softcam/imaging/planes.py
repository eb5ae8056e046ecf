"""The layout of planes: divides the buffer of a camera into them, and crops them, as views without a copy.

Pure functions; any thread.
"""

from typing import Final, get_args

import numpy as np

from softcam.errors import CameraError
from softcam.imaging.frame import Frame, PixelFormat, Plane
from softcam.runtime.plural import counted

PIXEL_FORMATS: Final[tuple[PixelFormat, ...]] = get_args(PixelFormat)


# Of the samples of each plane: their size in bytes, and how many pixels each covers across and down.
Samples = tuple[tuple[int, int, int], ...]
LUMA: Final = (1, 1, 1)
_SAMPLES: Final[dict[str, Samples]] = {
    "YUV420": (LUMA, (1, 2, 2), (1, 2, 2)),
    "NV12": (LUMA, (2, 2, 2)),
    "YUYV": ((2, 1, 1),),
}


def pixel_format_of(name: str) -> PixelFormat:
    """The format of this libcamera name. Raises CameraError for one that the portal cannot encode."""
    for known in PIXEL_FORMATS:
        if name == known:
            return known
    raise CameraError(f"pixel format {name} of the camera: must be one of {', '.join(PIXEL_FORMATS)}")


def plane_shapes(pixel_format: str, width: int, height: int) -> list[tuple[int, int]]:
    """(rows, bytes of a row) of each plane. Raises CameraError for a format without planes."""
    if pixel_format not in _SAMPLES:
        raise CameraError(f"cannot encode frames of format {pixel_format}")
    return shapes_of(_SAMPLES[pixel_format], width, height)


def shapes_of(samples: Samples, width: int, height: int) -> list[tuple[int, int]]:
    """(rows, bytes of a row) of each plane, whose samples are described as at `Samples`."""
    return [(_ceil(height, down), sample * _ceil(width, across)) for sample, across, down in samples]


def checked_planes(frame: Frame) -> tuple[Plane, ...]:
    """The planes of a frame that has some. Raises CameraError for a frame that does not match its format."""
    shapes = plane_shapes(frame.pixel_format, *frame.size)
    if len(frame.planes) != len(shapes):
        # A frame that was released has an empty tuple.
        raise CameraError(f"a {frame.pixel_format} frame has {counted(len(shapes), 'plane')}, not {len(frame.planes)}")
    for number, (plane, shape) in enumerate(zip(frame.planes, shapes, strict=True)):
        # Others would be read beyond their end, or look skewed.
        if plane.shape != shape or plane.dtype != np.uint8 or plane.strides[-1] != 1:
            raise CameraError(
                f"plane {number} of a {frame.pixel_format} frame of {frame.width}x{frame.height} is {plane.dtype} "
                f"{plane.shape} with strides {plane.strides}, not uint8 {shape} with contiguous rows"
            )
    return frame.planes


def planes_of(buffer: Plane, pixel_format: PixelFormat, width: int, height: int, stride: int) -> tuple[Plane, ...]:
    """The planes of the frame in `buffer` (bytes,), in the shapes described at `Frame`.

    `stride` is the length of a row of the first plane in bytes, including padding. The chroma planes of YUV420 have
    half of it, that of NV12 all of it. Raises CameraError if the buffer is too short.
    """
    if pixel_format == "MJPEG":
        return (buffer,)
    planes: list[Plane] = []
    at = 0
    for rows, row_bytes in plane_shapes(pixel_format, width, height):
        row_stride = stride // 2 if pixel_format == "YUV420" and planes else stride
        planes.append(_rows(buffer, at, rows, row_stride, row_bytes))
        at += row_stride * rows
    return tuple(planes)


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
    planes = tuple(
        plane[top // down : _ceil(bottom, down), sample * (left // across) : sample * _ceil(right, across)]
        for plane, (sample, across, down) in zip(frame.planes, _SAMPLES[frame.pixel_format], strict=True)
    )
    return frame.derive(planes, (part_width, part_height))


def _ceil(pixels: int, pixels_per_sample: int) -> int:
    return -(-pixels // pixels_per_sample)
