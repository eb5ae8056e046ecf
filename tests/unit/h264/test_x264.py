"""libx264: all pixel formats are encoded alike, at once, as browsers and WebRTC require."""

import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import simplejpeg

from softcam.errors import CameraError
from softcam.h264 import nal, x264
from softcam.h264.packet import Packet, VideoFormat
from softcam.h264.x264 import X264
from softcam.imaging.frame import Frame, PixelFormat, Plane
from softcam.imaging.planes import planes_of
from softcam.mp4 import fragment
from tests.support.background import eventually

pytest.importorskip("av")

SIZE = (128, 96)
FPS = 25.0
BITRATE = 2_000_000
FORMATS: tuple[PixelFormat, ...] = ("YUV420", "NV12", "YUYV", "MJPEG")
NEAR = 6.0  # of 255, on average: what compression at this rate loses of smooth planes


def planes(size: tuple[int, int] = SIZE) -> tuple[Plane, Plane, Plane]:
    """Smooth planes from black to white in full range, with many colours, all of them within RGB."""
    width, height = size
    half = ((height + 1) // 2, (width + 1) // 2)
    luma = np.broadcast_to(np.linspace(0, 255, width), (height, width)).astype(np.uint8)
    # At both ends of the luma range, RGB leaves no room for colour.
    room = np.sin(np.linspace(0, np.pi, half[1]))
    blue = (128 + 50 * room * np.linspace(-1, 1, half[0])[:, None]).round().astype(np.uint8)
    red = (128 + 40 * room * np.linspace(1, -1, half[0])[:, None]).round().astype(np.uint8)
    return luma, blue, red


def make(pixel_format: PixelFormat, size: tuple[int, int] = SIZE, *, padding: int = 0, sampling: str = "420") -> Frame:
    """The image of `planes` in this format, in one buffer with padded rows, as cameras deliver it."""
    width, height = size
    luma, blue, red = planes(size)
    if pixel_format == "MJPEG":
        rgb = to_rgb(luma, blue, red)
        jpeg = simplejpeg.encode_jpeg(rgb, quality=95, colorspace="RGB", colorsubsampling=sampling)
        return Frame((np.frombuffer(jpeg + bytes(64), np.uint8),), "MJPEG", width, height)
    stride = (2 * width if pixel_format == "YUYV" else width + width % 2) + padding
    buffer = np.full(stride * height * 2, 77, np.uint8)
    given = planes_of(buffer, pixel_format, width, height, stride)
    frame = Frame(given, pixel_format, width, height)
    # The views are read-only, the buffer is not.
    writable = tuple(
        np.ndarray(plane.shape, np.uint8, buffer, plane.ctypes.data - buffer.ctypes.data, plane.strides)
        for plane in given
    )
    if pixel_format == "YUV420":
        for target, source in zip(writable, (luma, blue, red), strict=True):
            target[:] = source
    elif pixel_format == "NV12":
        writable[0][:] = luma
        writable[1][:, 0::2], writable[1][:, 1::2] = blue, red
    else:
        writable[0][:, 0::2] = luma
        writable[0][:, 1::4] = np.repeat(blue, 2, axis=0)[:height]
        writable[0][:, 3::4] = np.repeat(red, 2, axis=0)[:height]
    return frame


def to_rgb(luma: Plane, blue: Plane, red: Plane) -> npt.NDArray[np.uint8]:
    """As JFIF says."""
    height, width = luma.shape
    y = luma.astype(float)
    cb, cr = (np.repeat(np.repeat(plane, 2, 0), 2, 1)[:height, :width] - 128.0 for plane in (blue, red))
    rgb = np.dstack([y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb])
    pixels: npt.NDArray[np.uint8] = np.clip(rgb.round(), 0, 255).astype(np.uint8)
    return pixels


def movie(encoder: X264, units: Sequence[tuple[bytes, bool]]) -> bytes:
    fmt = VideoFormat(*encoder.size, FPS, *encoder.parameter_sets)
    packets = [Packet(data, is_keyframe, n / FPS, 0.0) for n, (data, is_keyframe) in enumerate(units)]
    return fragment.initial_segment(fmt) + fragment.fragment(1, packets, 0.0, 1 / FPS)


def decode(data: bytes) -> list[Any]:
    """PyAV's frames."""
    import av

    with av.open(io.BytesIO(data), "r") as container:
        return list(container.decode(video=0))


def seen(picture: Any) -> tuple[npt.NDArray[np.uint8], ...]:
    assert picture.format.name in ("yuv420p", "yuvj420p")
    return tuple(
        np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: plane.height, : plane.width].copy()
        for plane in picture.planes
    )


def encode(frame: Frame, bitrate: int = BITRATE) -> tuple[X264, list[tuple[bytes, bool]]]:
    encoder = X264(frame.size, frame.pixel_format, FPS, bitrate)
    return encoder, [encoder.encode(frame, is_keyframe=False) for _ in range(3)]


@pytest.mark.parametrize("pixel_format", FORMATS)
@pytest.mark.parametrize("padding", [0, 32])
@pytest.mark.parametrize("size", [SIZE, (128, 98), (129, 97)], ids=["even", "no multiple of four", "odd"])
def test_pixel_formats_are_encoded(pixel_format: PixelFormat, padding: int, size: tuple[int, int]) -> None:
    if pixel_format == "YUYV" and size[0] % 2:
        size = (size[0] - 1, size[1])  # packed pairs have no odd width
    encoder, units = encode(make(pixel_format, size, padding=padding))
    assert encoder.size == (size[0] // 2 * 2, size[1] // 2 * 2)
    pictures = decode(movie(encoder, units))
    assert len(pictures) == 3
    width, height = encoder.size
    for plane, wanted in zip(seen(pictures[-1]), planes(size), strict=True):
        part = wanted[: plane.shape[0], : plane.shape[1]].astype(int)
        assert np.abs(plane.astype(int) - part).mean() < NEAR
    assert (pictures[-1].width, pictures[-1].height) == (width, height)


@pytest.mark.parametrize("pixel_format", FORMATS)
@pytest.mark.parametrize("padding", [0, 32])
@pytest.mark.parametrize(
    ("size", "fit", "expected"),
    [
        ((256, 192), SIZE, SIZE),
        ((384, 288), SIZE, SIZE),
        ((384, 338), SIZE, (110, 96)),
        ((256, 96), SIZE, (128, 48)),
        ((192, 256), SIZE, (72, 96)),
        ((258, 194), (129, 97), (128, 96)),
        ((257, 193), SIZE, SIZE),
        ((130, 98), SIZE, SIZE),
        (SIZE, (640, 360), SIZE),
        ((129, 97), (640, 360), SIZE),
    ],
    ids=[
        "half",
        "third",
        "third, with a rest",
        "wide",
        "tall",
        "odd limit",
        "odd frame",
        "slightly larger",
        "smaller",
        "smaller and odd",
    ],
)
def test_fitted_pixel_formats(
    pixel_format: PixelFormat, padding: int, size: tuple[int, int], fit: tuple[int, int], expected: tuple[int, int]
) -> None:
    """The whole image, and never an enlarged one."""
    if pixel_format == "YUYV" and size[0] % 2:
        size = (size[0] - 1, size[1])  # packed pairs have no odd width
    frame = make(pixel_format, size, padding=padding)
    encoder = X264(size, pixel_format, FPS, BITRATE, fit=fit)
    assert encoder.size == expected
    pictures = decode(movie(encoder, [encoder.encode(frame, is_keyframe=False) for _ in range(3)]))
    assert (pictures[-1].width, pictures[-1].height) == expected
    for plane, wanted in zip(seen(pictures[-1]), planes(expected), strict=True):
        assert np.abs(plane.astype(int) - wanted).mean() < NEAR
    encoder.close()


@pytest.mark.parametrize(("height", "to", "step"), [(1080, 360, 3), (864, 360, 2), (1232, 360, 2), (1944, 360, 4)])
def test_rows_between_are_not_read(height: int, to: int, step: int) -> None:
    frame = make("YUV420", (height // 2, height))
    other = frame.copy()
    for plane in other.planes:
        for first in range(step):
            if first != step // 2:
                plane[first::step] = 0
    units = [
        X264(frame.size, "YUV420", FPS, BITRATE, fit=(to // 2, to)).encode(each, is_keyframe=True)
        for each in (frame, other)
    ]
    assert units[0] == units[1]


def test_scaling_starts_no_thread() -> None:
    encoder = X264((1280, 720), "YUV420", FPS, BITRATE, fit=(640, 360))
    before = len(list(Path("/proc/self/task").iterdir()))
    encoder.encode(make("YUV420", (1280, 720)), is_keyframe=True)
    assert len(list(Path("/proc/self/task").iterdir())) == before
    encoder.close()


def test_smaller_frames_are_not_scaled() -> None:
    frame = make("YUV420")
    fitted = X264(SIZE, "YUV420", FPS, BITRATE, fit=(640, 360))
    alone = X264(SIZE, "YUV420", FPS, BITRATE)
    assert fitted.encode(frame, is_keyframe=False) == alone.encode(frame, is_keyframe=False)


@pytest.mark.parametrize(
    ("size", "limit", "expected"),
    [
        ((1536, 864), (640, 360), (640, 360)),
        ((1640, 1232), (640, 360), (480, 360)),
        ((1920, 1080), (640, 640), (640, 360)),
        ((1080, 1920), (640, 360), (202, 360)),
        ((320, 240), (640, 360), (320, 240)),
        ((320, 240), (320, 240), (320, 240)),
        ((1280, 720), (641, 361), (640, 360)),
        ((1296, 972), (640, 480), (640, 480)),
        ((8192, 64), (64, 64), (64, 2)),
    ],
)
def test_fitted_size(size: tuple[int, int], limit: tuple[int, int], expected: tuple[int, int]) -> None:
    assert x264.fitted_size(size, limit) == expected


@pytest.mark.parametrize("sampling", ["444", "422", "420", "440", "Gray"])
def test_jpeg_subsamplings_are_encoded(sampling: str) -> None:
    frame = make("MJPEG", sampling=sampling)
    if sampling == "Gray":
        grey = simplejpeg.encode_jpeg(planes()[0][:, :, None].copy(), quality=95, colorspace="GRAY")
        frame = Frame((np.frombuffer(grey, np.uint8),), "MJPEG", *SIZE)
    encoder, units = encode(frame)
    luma, blue, _ = seen(decode(movie(encoder, units))[-1])
    assert np.abs(luma.astype(int) - planes()[0]).mean() < NEAR
    wanted = np.full_like(blue, 128) if sampling == "Gray" else planes()[1]
    assert np.abs(blue.astype(int) - wanted).mean() < NEAR


def test_full_range_is_kept_and_declared() -> None:
    encoder, units = encode(make("YUV420"))
    picture = decode(movie(encoder, units))[-1]
    assert picture.color_range == 2  # full
    assert picture.colorspace == 6  # BT.601
    luma = seen(picture)[0]
    assert luma.min() < 8
    assert luma.max() > 247


def test_keyframes_on_request_only() -> None:
    frame = make("YUV420")
    encoder = X264(SIZE, "YUV420", FPS, BITRATE)
    units = [encoder.encode(frame, is_keyframe=n in (7, 8)) for n in range(400)]
    assert [n for n, (_, is_keyframe) in enumerate(units) if is_keyframe] == [0, 7, 8]
    assert len(decode(movie(encoder, units[7:12]))) == 5


def test_constrained_baseline_and_slices_only() -> None:
    encoder, units = encode(make("NV12"))
    sps, _ = encoder.parameter_sets
    assert sps[0] & 0x1F == nal.SPS
    assert sps[1] == 66
    assert sps[2] & 0x40
    for data, is_keyframe in units:
        at = 0
        while at < len(data):
            length = int.from_bytes(data[at : at + 4], "big")
            assert data[at + 4] & 0x1F == (nal.IDR if is_keyframe else 1)
            at += 4 + length
        assert at == len(data)


def test_bitrate() -> None:
    encoder = X264((640, 480), "YUV420", FPS, 1_000_000)
    noise = np.random.default_rng(1)
    sizes = []
    for _ in range(75):
        luma = noise.integers(0, 255, (480, 640), dtype=np.uint8)
        chroma = np.full((240, 320), 128, np.uint8)
        frame = Frame((luma, chroma, chroma), "YUV420", 640, 480)
        sizes.append(len(encoder.encode(frame, is_keyframe=False)[0]))
    assert sum(sizes[25:]) * 8 < 1.5 * 1_000_000 * 2  # two seconds of what cannot be compressed


def test_contiguous_buffer_is_read_in_place_and_released() -> None:
    for pixel_format in ("YUV420", "NV12"):
        frame = make(pixel_format, padding=64)
        assert x264.as_one_buffer(frame.planes, *SIZE) is not None
        encoder = X264(SIZE, pixel_format, FPS, BITRATE)
        base = frame.planes[0]
        before = sys.getrefcount(base)
        encoder.encode(frame, is_keyframe=False)
        assert sys.getrefcount(base) == before


def test_separate_planes_are_copied() -> None:
    luma, blue, red = planes()
    assert x264.as_one_buffer((luma.copy(), blue.copy(), red.copy()), *SIZE) is None


@pytest.mark.parametrize(
    ("frame", "fault"),
    [
        (Frame((), "YUV420", *SIZE), "planes"),
        (Frame(planes()[:2], "YUV420", *SIZE), "planes"),
        (Frame((planes()[0][:, ::2], *planes()[1:]), "YUV420", *SIZE), "plane 0 of"),
        (make("YUV420", (64, 64)), "unexpected"),
        (make("NV12"), "unexpected"),
    ],
)
def test_mismatched_frames_are_rejected(frame: Frame, fault: str) -> None:
    encoder = X264(SIZE, "YUV420", FPS, BITRATE)
    with pytest.raises(CameraError, match=fault):
        encoder.encode(frame, is_keyframe=False)
    assert encoder.encode(make("YUV420"), is_keyframe=False)[1]


@pytest.mark.parametrize("data", [b"", b"no JPEG at all", bytes(make("MJPEG").planes[0])[:200]])
def test_damaged_jpegs_are_rejected(data: bytes) -> None:
    encoder = X264(SIZE, "MJPEG", FPS, BITRATE)
    with pytest.raises(CameraError, match="JPEG"):
        encoder.encode(Frame((np.frombuffer(data, np.uint8),), "MJPEG", *SIZE), is_keyframe=False)
    assert encoder.encode(make("MJPEG"), is_keyframe=False)[1]


def test_jpeg_of_other_size_is_rejected() -> None:
    encoder = X264(SIZE, "MJPEG", FPS, BITRATE)
    with pytest.raises(CameraError, match="64x64, not 128x96"):
        encoder.encode(Frame(make("MJPEG", (64, 64)).planes, "MJPEG", *SIZE), is_keyframe=False)


def test_one_pixel_is_rejected() -> None:
    with pytest.raises(CameraError, match="1x1"):
        X264((1, 1), "YUV420", FPS, BITRATE)


def test_no_output_on_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    encoder, _ = encode(make("YUV420"))
    encoder.close()
    assert capfd.readouterr() == ("", "")


def test_closed_encoder_leaves_no_thread() -> None:
    before = len(list(Path("/proc/self/task").iterdir()))
    for _ in range(5):
        encoder, _ = encode(make("YUV420"))
        encoder.close()
    eventually(lambda: len(list(Path("/proc/self/task").iterdir())) <= before, "the end of its threads")
