"""The video of a GStreamer pipeline, from a sink that the test runs: formats, layouts, returned buffers, restarts."""

import contextlib
import itertools
import os
import resource
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest

from softcam.camera.url.source import SourceImage
from softcam.camera.url.unixfd import UnixFdSource
from softcam.errors import CameraError
from tests.support.background import Background, eventually
from tests.support.motion_pictures import grey_rgb, jpeg_of, number_in, planes_of, smooth_rgb
from tests.support.timeouts import PATIENCE_S
from tests.support.unixfd_sink import CAPS, END_OF_STREAM, Sink, caps, video_meta
from tests.support.url_client import FrameRecorder, MakeCamera, open_with

SIZE = (160, 120)
DMA_BUF_SYNC = 1 << 30 | 8 << 16 | ord("b") << 8  # _IOW('b', 0, struct dma_buf_sync) of linux/dma-buf.h
Next = Callable[[], SourceImage | None]


@pytest.fixture
def sink(tmp_path: Path) -> Iterator[Sink]:
    with contextlib.closing(Sink(tmp_path / "camera")) as made:
        yield made


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "camera"


@contextlib.contextmanager
def opened(path: Path, timeout_s: float = PATIENCE_S) -> Iterator[UnixFdSource]:
    with contextlib.closing(UnixFdSource(path, timeout_s)) as source:
        yield source


def next_image(images: Iterator[SourceImage | None]) -> SourceImage:
    return next(image for image in images if image is not None)


def pixels(rgb: npt.NDArray[np.uint8], form: str, *, is_bt709: bool = False, is_full: bool = False) -> list[bytes]:
    """The planes of an image in FFmpeg's format, without padding."""
    picture = av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(
        format=form, dst_colorspace="ITU709" if is_bt709 else "ITU601", dst_color_range=2 if is_full else 1
    )
    width = SIZE[0]
    row_bytes = {"yuv420p": (width, width // 2, width // 2), "nv12": (width, width), "yuyv422": (2 * width,)}
    row_bytes |= {"uyvy422": (2 * width,), "nv21": (width, width), "rgb0": (4 * width,), "bgr0": (4 * width,)}
    rows = zip(picture.planes, row_bytes.get(form, (3 * width,)), strict=True)
    return [
        np.frombuffer(bytes(plane), np.uint8).reshape(-1, plane.line_size)[:, :length].tobytes()
        for plane, length in rows
    ]


def check_colours(image: SourceImage | None, rgb: npt.NDArray[np.uint8]) -> None:
    assert image is not None
    frame = image.frame(image.size, 0, 0.0, None)
    assert (frame.pixel_format, frame.size) == ("YUV420", SIZE)
    for plane, expected in zip(frame.planes, planes_of(rgb), strict=True):
        off = np.abs(plane - expected)
        assert off.mean() < 1.5
        assert np.percentile(off, 98) <= 4


FORMATS = {
    "I420": "yuv420p",
    "NV12": "nv12",
    "NV21": "nv21",
    "YUY2": "yuyv422",
    "UYVY": "uyvy422",
    "RGB": "rgb24",
    "BGR": "bgr24",
    "RGBx": "rgb0",
    "BGRx": "bgr0",
}


@pytest.mark.parametrize("form", FORMATS)
def test_formats(sink: Sink, path: Path, form: str) -> None:
    rgb = smooth_rgb(SIZE)
    with opened(path) as source:
        sink.accept(caps(form, SIZE))
        sink.send_buffer(7, b"".join(pixels(rgb, FORMATS[form])))
        check_colours(next(source.images()), rgb)
        assert sink.released() == 7


@pytest.mark.parametrize(
    ("colorimetry", "is_bt709", "is_full"),
    [("bt601", False, False), ("bt709", True, False), ("1:4:7:1", False, True), ('"2:3:5:1"', True, False)],
)
def test_colorimetry(sink: Sink, path: Path, colorimetry: str, is_bt709: bool, is_full: bool) -> None:
    rgb = smooth_rgb(SIZE)
    with opened(path) as source:
        sink.accept(caps("NV12", SIZE, f"colorimetry=(string){colorimetry}"))
        sink.send_buffer(1, b"".join(pixels(rgb, "nv12", is_bt709=is_bt709, is_full=is_full)))
        check_colours(next(source.images()), rgb)


def padded(plane: bytes, row_bytes: int, stride: int) -> bytes:
    rows = np.frombuffer(plane, np.uint8).reshape(-1, row_bytes)
    return np.pad(rows, ((0, 3), (0, stride - row_bytes)), constant_values=99).tobytes()


@pytest.mark.parametrize("is_split", [False, True], ids=["one memory", "a memory for each plane"])
@pytest.mark.parametrize("offset", [0, 5000])
def test_padded_planes(sink: Sink, path: Path, is_split: bool, offset: int) -> None:
    """As libcamera's and V4L2's buffers are."""
    rgb, (width, _), stride = smooth_rgb(SIZE), SIZE, 192
    planes = [padded(plane, width, stride) for plane in pixels(rgb, "nv12")]
    metas = video_meta(SIZE, (0, len(planes[0])), (stride, stride))
    with opened(path) as source:
        sink.accept(caps("NV12", SIZE))
        memories = planes if is_split else [b"".join(planes)]
        sink.send_buffer(1, *memories, metas=metas, count=2, offset=offset)
        check_colours(next(source.images()), rgb)


def test_odd_size_has_padding(sink: Sink, path: Path) -> None:
    width, height = 7, 5
    luma = np.pad(np.full((height, width), 200, np.uint8), ((0, 1), (0, 1)))
    with opened(path) as source:
        sink.accept(caps("I420", (width, height)))
        sink.send_buffer(1, luma.tobytes() + bytes([128]) * (4 * 3 * 2))
        image = next(source.images())
        assert image is not None
        assert image.size == (width, height)
        assert image.frame((6, 4), 0, 0.0, None).planes[0].min() > 200  # of the limited range


def test_jpeg_is_unchanged(sink: Sink, path: Path) -> None:
    jpeg = jpeg_of(grey_rgb(3))
    with opened(path) as source:
        sink.accept("image/jpeg, width=(int)64, height=(int)48")
        images = source.images()
        sink.send_buffer(1, jpeg[:100], jpeg[100:])
        image = next(images)
        assert image is not None
        assert (image.data, image.size) == (jpeg, (64, 48))
        sink.send_buffer(2, jpeg[:100])  # damaged
        assert sink.released() == 1
        assert next(images) is None
        assert sink.released() == 2
        sink.send(END_OF_STREAM)
        assert list(images) == []


def test_buffers_return_at_once_and_the_newest_is_used(sink: Sink, path: Path) -> None:
    with opened(path) as source:
        sink.accept("NULL", caps("RGB", (64, 48)))
        images = source.images()
        for number in range(5):
            sink.send_buffer(number, grey_rgb(number).tobytes())
        image = next_image(images)
        assert [sink.released() for _ in range(5)] == [0, 1, 2, 3, 4]
        assert number_in(image.frame(None, 0, 0.0, None)) == 4


def test_buffer_without_memory_is_returned(sink: Sink, path: Path) -> None:
    with opened(path) as source:
        sink.accept(caps("RGB", (64, 48)))
        sink.send_buffer(1)
        sink.send(99, b"a command of the future")
        sink.send_buffer(2, grey_rgb(2).tobytes())
        next_image(source.images())
        assert (sink.released(), sink.released()) == (1, 2)


def test_no_leak(sink: Sink, path: Path) -> None:
    def in_use() -> tuple[int, int]:
        return len(list(Path("/proc/self/fd").iterdir())), Path("/proc/self/maps").read_text().count("memfd:buffer")

    with opened(path) as source:
        sink.accept(caps("RGB", (64, 48)))
        images = source.images()
        before = in_use()
        for number in range(20):
            sink.send_buffer(number, grey_rgb(number).tobytes())
            assert next(images) is not None
            assert sink.released() == number
        assert in_use() == before


@pytest.mark.parametrize(
    ("texts", "reason"),
    [
        (["video/x-h264, stream-format=(string)avc"], "delivers video/x-h264: must be image/jpeg or one of I420, NV12"),
        ([caps("P010_10LE", SIZE)], "delivers video/x-raw P010_10LE"),
        (["video/x-raw(memory:DMABuf), format=(string)DMA_DRM, width=(int)64, height=(int)48"], "DMA_DRM"),
        (["video/x-raw, format=(string)RGB, width=(int)0, height=(int)48"], "without a size"),
        (["video/x-raw, format=(string)RGB"], "without a size"),
    ],
)
def test_unsupported_caps_are_an_error(sink: Sink, path: Path, texts: list[str], reason: str) -> None:
    with opened(path) as source:
        sink.accept(*texts)
        with pytest.raises(CameraError, match=f"{reason}".replace("(", r"\(")):
            next(source.images())


def test_short_buffers_are_an_error(sink: Sink, path: Path) -> None:
    metas = video_meta((64, 48), (0,), (191,))
    for arguments, reason in (
        ({"missing": 1}, "shorter than announced"),
        ({"metas": metas}, "too short for its format"),
        ({"metas": video_meta((64, 49), (0,), (192,))}, "differs from its format"),
        ({"metas": metas[:-30], "count": 2}, "not a socket of unixfdsink"),
    ):
        with opened(path) as source:
            sink.accept(caps("RGB", (64, 48)))
            sink.send_buffer(1, grey_rgb(1).tobytes(), **arguments)
            with pytest.raises(CameraError, match=reason):
                next(source.images())
            assert sink.released() == 1


@pytest.mark.parametrize("size", [1 << 30, 1 << 63])
@pytest.mark.parametrize("is_dmabuf", [False, True])
def test_large_buffers_are_an_error(sink: Sink, path: Path, size: int, *, is_dmabuf: bool) -> None:
    with opened(path) as source:
        sink.accept(caps("RGB", (64, 48)))
        sink.send_buffer(1, grey_rgb(1).tobytes(), size=size, offset=1, is_dmabuf=is_dmabuf)
        with pytest.raises(CameraError, match="too large"):
            next(source.images())
        assert sink.released() == 1


@pytest.mark.parametrize("data", [b"HTTP/1.1 400 No\r\n\r\n", b"\0" * 8 + b"\0" * 56, b"\0\0\0\0\x04\0\0\0abcd"])
def test_another_protocol_is_an_error(sink: Sink, path: Path, data: bytes) -> None:
    with opened(path) as source:
        sink.accept()
        sink.client.sendall(data)
        with pytest.raises(CameraError, match="not a socket of unixfdsink"):
            next(source.images())


def test_many_open_files(sink: Sink, path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.ExitStack() as opened_files:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
        opened_files.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        while opened_files.enter_context(Path(os.devnull).open("rb")).fileno() < 1024:  # what `select` supports
            pass
        source = opened_files.enter_context(opened(path))
        sink.accept(caps("RGB", (64, 48)))
        sink.send_buffer(1, grey_rgb(1).tobytes())
        assert next(source.images()) is not None


class SyncRecorder:
    """Stands in for `ioctl` of a dma-buf: a memfd has none."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, int]] = []

    def __call__(self, descriptor: int, request: int, argument: bytes) -> None:
        os.fstat(descriptor)  # open
        self.calls.append((request, int.from_bytes(argument, sys.byteorder)))


def test_dmabuf(sink: Sink, path: Path) -> None:
    """The processor's cache is synchronized before and after the image is read."""
    ioctl = SyncRecorder()
    jpeg = jpeg_of(grey_rgb(3))
    with contextlib.closing(UnixFdSource(path, PATIENCE_S, ioctl)) as source:
        sink.accept("image/jpeg")
        images = source.images()
        sink.send_buffer(1, jpeg, offset=4096, is_dmabuf=True)
        assert next_image(images).data == jpeg
        assert ioctl.calls == [(DMA_BUF_SYNC, 1), (DMA_BUF_SYNC, 1 | 4)]
        sink.send_buffer(2, jpeg[:100], is_dmabuf=True)
        assert next(images) is None
        assert len(ioctl.calls) == 4
        sink.send_buffer(3, jpeg)
        assert next_image(images).data == jpeg
        assert len(ioctl.calls) == 4
        assert [sink.released() for _ in range(3)] == [1, 2, 3]


def test_memory_that_is_not_a_dmabuf_is_an_error(sink: Sink, path: Path) -> None:
    with opened(path) as source:
        sink.accept("image/jpeg")
        sink.send_buffer(1, jpeg_of(grey_rgb(3)), is_dmabuf=True)
        with pytest.raises(CameraError, match="Inappropriate ioctl"):
            next(source.images())
        assert sink.released() == 1


def test_silent_sink_is_an_error(sink: Sink, path: Path) -> None:
    with opened(path, timeout_s=0.1) as source:
        sink.accept(caps("RGB", (64, 48)))
        with pytest.raises(CameraError, match="timed out"):
            next(source.images())


@pytest.mark.parametrize("later", ["image/jpeg", "NULL"])
def test_close_during_buffers_without_image(sink: Sink, path: Path, make_camera: MakeCamera, later: str) -> None:
    jpeg = jpeg_of(grey_rgb(1))

    def send_until_disconnected() -> None:
        sink.accept("image/jpeg")
        sink.send_buffer(0, jpeg)
        sink.released()
        sink.send(CAPS, later.encode() + b"\0")
        with contextlib.suppress(ConnectionError, struct.error):  # `released` reads the end of the connection
            for number in itertools.count(1):
                sink.send_buffer(number, jpeg[:100])
                sink.released()

    sending = Background(send_until_disconnected)
    camera = make_camera(f"unixfd:{path}")
    open_with(camera).wait(1)
    camera.close()
    sending.result()


def test_caps_change_and_restart(path: Path, make_camera: MakeCamera) -> None:
    """The camera stays open while the socket is absent, has another size, and after a restart of the pipeline."""
    camera = make_camera(f"unixfd:{path}")
    recorder = FrameRecorder()
    camera.open(recorder)
    assert camera.is_present()
    assert (camera.name, camera.disconnect_reason) == (f"unixfd:{path}", f"unixfd:{path}: No such file or directory")
    for delivered, number, size in ((0, 3, (64, 48)), (2, 5, (128, 96))):
        sink = Sink(path)
        with contextlib.closing(sink):
            sink.accept(caps("RGB", size))
            sink.send_buffer(1, grey_rgb(number, size).tobytes())
            frame = recorder.wait(delivered + 1)[-1]
            assert (frame.number, frame.size) == (number, size)
            sink.send(CAPS, b"image/jpeg\0")
            sink.send_buffer(2, jpeg_of(grey_rgb(9, size)))
            assert recorder.wait(delivered + 2)[-1].pixel_format == "MJPEG"
        eventually(lambda: camera.disconnect_reason is not None)
