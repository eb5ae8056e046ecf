"""Planes and crops of a buffer are views, compared with images whose pixels encode their position."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from softcam.errors import CameraError
from softcam.imaging.frame import Frame, PixelFormat, Plane
from softcam.imaging.planes import PIXEL_FORMATS, centre_crop, pixel_format_of, planes_of

PLANAR: tuple[PixelFormat, ...] = ("YUV420", "NV12", "YUYV")


def shapes_of(pixel_format: PixelFormat, width: int, height: int) -> list[tuple[int, int]]:
    """As `Frame` promises them."""
    half_width, half_height = (width + 1) // 2, (height + 1) // 2
    match pixel_format:
        case "YUV420":
            return [(height, width), (half_height, half_width), (half_height, half_width)]
        case "NV12":
            return [(height, width), (half_height, 2 * half_width)]
        case _:
            return [(height, 2 * width)]


def strides_of(pixel_format: PixelFormat, stride: int) -> list[int]:
    return [stride, stride // 2, stride // 2] if pixel_format == "YUV420" else [stride, stride]


def lay_out(planes: list[Plane], strides: list[int]) -> Plane:
    """The buffer in which a camera lays these planes, one behind the other, with rows so far apart."""
    rows = []
    for plane, stride in zip(planes, strides, strict=False):
        padded = np.full((plane.shape[0], stride), 99, np.uint8)
        padded[:, : plane.shape[1]] = plane
        rows.append(padded.reshape(-1))
    return np.concatenate(rows)


def numbered(pixel_format: PixelFormat, width: int, height: int) -> list[Plane]:
    random = np.random.default_rng(width * height)
    return [random.integers(0, 256, shape, np.uint8) for shape in shapes_of(pixel_format, width, height)]


# The format


@pytest.mark.parametrize("name", PIXEL_FORMATS)
def test_known_formats(name: PixelFormat) -> None:
    assert pixel_format_of(name) == name


@pytest.mark.parametrize("name", ["RGB888", "yuv420", "", "SRGGB10_CSI2P"])
def test_unknown_formats(name: str) -> None:
    with pytest.raises(CameraError, match=r"must be one of YUV420, NV12, YUYV, MJPEG"):
        pixel_format_of(name)


# Planes


@pytest.mark.parametrize("pixel_format", PLANAR)
@pytest.mark.parametrize("size", [(64, 32), (6, 4), (2, 2), (7, 5), (1, 1)])
@pytest.mark.parametrize("padding", [0, 2, 62])
def test_planes_are_views(pixel_format: PixelFormat, size: tuple[int, int], padding: int) -> None:
    width, height = size
    wanted = numbered(pixel_format, width, height)
    stride = (max(wanted[0].shape[1], wanted[-1].shape[1]) + 1) // 2 * 2 + padding
    buffer = lay_out(wanted, strides_of(pixel_format, stride))
    planes = planes_of(buffer, pixel_format, width, height, stride)
    assert len(planes) == len(wanted)
    for plane, original in zip(planes, wanted, strict=True):
        assert np.array_equal(plane, original)
        assert plane.strides[-1] == 1
        assert np.shares_memory(plane, buffer), "nothing is copied"
        assert not plane.flags.writeable


@pytest.mark.parametrize("pixel_format", PLANAR)
def test_last_row_without_padding(pixel_format: PixelFormat) -> None:
    wanted = numbered(pixel_format, 6, 4)
    strides = strides_of(pixel_format, 32)
    buffer = lay_out(wanted, strides)
    padding = strides[len(wanted) - 1] - wanted[-1].shape[1]
    assert padding > 0
    planes = planes_of(buffer[:-padding], pixel_format, 6, 4, 32)
    assert np.array_equal(planes[-1], wanted[-1])
    with pytest.raises(CameraError, match="too short"):
        planes_of(buffer[: -padding - 1], pixel_format, 6, 4, 32)


@pytest.mark.parametrize("pixel_format", PLANAR)
@pytest.mark.parametrize(("length", "stride"), [(0, 16), (10, 16), (1000, 5), (1000, 0)])
def test_buffer_too_short(pixel_format: PixelFormat, length: int, stride: int) -> None:
    with pytest.raises(CameraError, match=r"buffer of \d+ bytes is too short"):
        planes_of(np.zeros(length, np.uint8), pixel_format, 6, 4, stride)


def test_mjpeg_has_one_plane() -> None:
    buffer = np.frombuffer(b"\xff\xd8 a JPEG \xff\xd9", np.uint8)
    (plane,) = planes_of(buffer, "MJPEG", 640, 480, 0)
    assert plane is buffer


# The middle part


def frame_that_knows_its_place(pixel_format: PixelFormat, width: int, height: int) -> Frame:
    """Luma encodes its column, chroma twice its column: in a crop they must still agree."""
    luma = np.broadcast_to(np.arange(width, dtype=np.uint8), (height, width))
    half_width, half_height = (width + 1) // 2, (height + 1) // 2
    blue = np.broadcast_to(2 * np.arange(half_width, dtype=np.uint8), (half_height, half_width))
    red = np.broadcast_to(2 * np.arange(half_height, dtype=np.uint8)[:, None], (half_height, half_width))
    if pixel_format == "YUV420":
        planes: tuple[Plane, ...] = (luma, blue, red)
    elif pixel_format == "NV12":
        planes = (luma, np.dstack((blue, red)).reshape(half_height, 2 * half_width))
    else:
        pairs = np.repeat(blue, 2, axis=1)[:, :width]
        planes = (np.dstack((luma, np.broadcast_to(pairs[:1], (height, width)))).reshape(height, 2 * width),)
    planes = tuple(plane.copy() for plane in planes)
    return Frame(planes, pixel_format, width, height, sequence=7, began_s=3.5, metadata={"Lux": 1})


@pytest.mark.parametrize(
    ("size", "target", "part"),
    [
        ((64, 36), (16, 9), (64, 36)),
        ((64, 36), (4, 3), (48, 36)),
        ((64, 36), (1, 1), (36, 36)),
        ((64, 48), (16, 9), (64, 36)),
        ((36, 64), (16, 9), (36, 20)),
        ((64, 36), (4000, 3000), (48, 36)),
        ((64, 36), (63, 36), (64, 36)),  # less than two pixels: not worth it
        ((64, 36), (1, 1000), (2, 36)),
        ((64, 36), (1000, 1), (64, 2)),
    ],
)
@pytest.mark.parametrize("pixel_format", PLANAR)
def test_crop_has_the_aspect_ratio(
    pixel_format: PixelFormat, size: tuple[int, int], target: tuple[int, int], part: tuple[int, int]
) -> None:
    frame = frame_that_knows_its_place(pixel_format, *size)
    cropped = centre_crop(frame, target)
    assert cropped.size == part
    assert (cropped is frame) == (part == size)


def test_mjpeg_is_not_cropped() -> None:
    frame = Frame((np.zeros(10, np.uint8),), "MJPEG", 64, 36)
    assert centre_crop(frame, (1, 1)) is frame


@given(
    pixel_format=st.sampled_from(PLANAR),
    width=st.integers(2, 120),
    height=st.integers(2, 120),
    target=st.tuples(st.integers(1, 200), st.integers(1, 200)),
)
def test_crop_is_centred(pixel_format: PixelFormat, width: int, height: int, target: tuple[int, int]) -> None:
    frame = frame_that_knows_its_place(pixel_format, width, height)
    part = centre_crop(frame, target)
    assert [plane.shape for plane in part.planes] == shapes_of(pixel_format, *part.size)
    assert (part.sequence, part.began_s, part.metadata) == (7, 3.5, {"Lux": 1})
    assert all(
        np.shares_memory(plane, whole) and plane.strides[-1] == 1
        for plane, whole in zip(part.planes, frame.planes, strict=True)
    )
    luma = part.planes[0] if pixel_format != "YUYV" else part.planes[0][:, ::2]
    left = int(luma[0, 0])
    assert abs((width - left - part.width) - left) <= 3, "as much is cut on the left as on the right"
    first_blue = {"YUV420": lambda: part.planes[1][0, 0], "NV12": lambda: part.planes[1][0, 0]}.get(
        pixel_format, lambda: part.planes[0][0, 1]
    )()
    assert first_blue == left, "the colours lie where the light lies"
    # One side is whole, or the ratio was met on the way to it.
    assert part.width == width or part.height == height
