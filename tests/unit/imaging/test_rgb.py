"""Conversion to RGB and back: the colours match those of a JPEG of the same frame, for all formats and paddings."""

import contextlib

import numpy as np
import pytest
import simplejpeg

from softcam.errors import CameraError
from softcam.imaging import jpeg
from softcam.imaging.frame import Frame
from softcam.imaging.rgb import check_shape, frame_of, rgb_of

SIZES = [(64, 48), (1536, 864), (66, 50), (62, 34)]


def picture(size: tuple[int, int]) -> np.ndarray:
    """Smooth colours, from black to white, that survive halved chroma."""
    width, height = size
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return np.dstack([x, y, 255 - x]).astype(np.uint8)


@pytest.mark.parametrize("size", SIZES)
def test_round_trip(size: tuple[int, int]) -> None:
    original = picture(size)
    like = Frame((), "YUV420", *size, sequence=7, began_s=12.5, metadata={"Lux": 3.0})
    frame = frame_of(original, like)
    assert (frame.size, frame.sequence, frame.began_s, frame.metadata) == (size, 7, 12.5, {"Lux": 3.0})
    again = rgb_of(frame)
    assert again.shape == original.shape
    assert np.abs(again.astype(int) - original).mean() < 3, "chroma is halved, which steep colours lose by"
    again[:] = 0  # may be written to


@pytest.mark.parametrize("size", SIZES)
def test_matches_jpeg(size: tuple[int, int]) -> None:
    frame = frame_of(picture(size), Frame((), "YUV420", *size))
    shown = simplejpeg.decode_jpeg(jpeg.encode(frame, None, 100), "RGB")
    assert np.abs(rgb_of(frame).astype(int) - shown).mean() < 3


@pytest.mark.parametrize("level", [0, 128, 255])
def test_grey_levels(level: int) -> None:
    grey = np.full((48, 64, 3), level, np.uint8)
    frame = frame_of(grey, Frame((), "YUV420", 64, 48))
    assert abs(int(frame.planes[0].mean()) - level) <= 1, "full range"
    assert np.abs(rgb_of(frame).astype(int) - level).max() <= 2


def test_other_formats_and_padded_rows() -> None:
    frame = frame_of(picture((64, 48)), Frame((), "YUV420", 64, 48))
    y, u, v = frame.planes
    expected = rgb_of(frame)
    padded = tuple(np.pad(plane, ((0, 0), (0, 9)))[:, : plane.shape[1]] for plane in (y, u, v))
    nv12 = np.dstack([u, v]).reshape(24, 64)
    assert np.array_equal(rgb_of(Frame(padded, "YUV420", 64, 48)), expected)
    assert np.array_equal(rgb_of(Frame((y, nv12), "NV12", 64, 48)), expected)
    packed = np.frombuffer(jpeg.encode(frame, None, 100), np.uint8)
    assert np.abs(rgb_of(Frame((packed,), "MJPEG", 64, 48)).astype(int) - expected).mean() < 2


def test_damaged_frame() -> None:
    with pytest.raises(CameraError, match="cannot decode"):
        rgb_of(Frame((np.zeros(9, np.uint8),), "MJPEG", 64, 48))
    with pytest.raises(CameraError, match="planes"):
        rgb_of(Frame((), "YUV420", 64, 48))


def test_copy_of_frame() -> None:
    buffer = np.full((48, 64), 9, np.uint8)
    given_back: list[bool] = []
    half = np.zeros((24, 32), np.uint8)
    frame = Frame((buffer, half, half), "YUV420", 64, 48, sequence=3, on_release=lambda: given_back.append(True))
    copy = frame.copy()
    frame.release()
    buffer[:] = 0
    assert given_back == [True]
    assert (copy.planes[0] == 9).all()
    assert (copy.sequence, copy.began_s) == (3, frame.began_s)


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        (np.zeros((48, 64, 3), np.uint8), None),
        (np.zeros((48, 64, 3), np.uint8)[:, ::-1], None),
        (np.zeros((64, 48, 3), np.uint8), r"uint8 \(64, 48, 3\)"),
        (np.zeros((48, 64), np.uint8), r"\(48, 64\)"),
        (np.zeros((48, 64, 4), np.uint8), "4"),
        (np.zeros((48, 64, 3), np.float32), "float32"),
        ([[0]], "list"),
        (True, "bool"),
    ],
)
def test_check_shape(given: object, fault: str | None) -> None:
    with contextlib.nullcontext() if fault is None else pytest.raises(CameraError, match=fault):
        check_shape(given, (64, 48))
