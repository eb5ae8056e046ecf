"""Opens a network stream, a file or a device with PyAV and yields its images.

PyAV is loaded when the first source is opened. No thread is started: a `Source` belongs to the reader that opened
it. JPEGs are passed on unchanged, and decoded only to scale them down.
"""

import contextlib
import os
import select
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np

from softcam.camera.base import StreamRequest
from softcam.errors import CameraError, CameraMissing, NotSupported
from softcam.imaging.frame import Frame, PixelFormat, Plane
from softcam.imaging.jpeg import EOI, size_of, with_end
from softcam.imaging.jpeg_decoder import JpegDecoder
from softcam.imaging.rgb import rows_of
from softcam.runtime.pyav import import_pyav

Size = tuple[int, int]  # (width, height) in pixels

# An RTSP server may need seconds to start, and its first keyframe some more.
_OPEN_TIMEOUT_S: Final = 10.0
READ_TIMEOUT_S: Final = 5.0  # a live stream without data for so long is disconnected
_SOCKET_SCHEME: Final = "unixfd:"
# Analysis may end with the first image. No `nobuffer`: FFmpeg would discard what it has read by then, including the
# first keyframe, and the next one may be ten seconds away.
_LIVE_OPTIONS: Final = {"analyzeduration": "1000000", "probesize": "1000000", "fpsprobesize": "0"}
_LOW_DELAY: Final = 1 << 19  # AV_CODEC_FLAG_LOW_DELAY

# Files with an index. Others are reopened, which takes longer: they cannot seek, or yield nothing after it.
_SEEKABLE: Final = frozenset({"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi"})

_FULL_RANGE: Final = "yuvj420p"  # the j is for JPEG's range; PyAV before 17 does not convert the range without it
_MPEG_RANGE, _JPEG_RANGE = 1, 2  # AVColorRange
_BT709, _UNSPECIFIED = 1, 2  # AVColorSpace
# From this size on, players assume BT.709 for unspecified colours, and BT.601 below.
_HD_WIDTH, _HD_HEIGHT = 1280, 576


def require_pyav() -> Any:
    """Import PyAV. Raises CameraMissing if it cannot be loaded: then there is no such camera."""
    try:
        return import_pyav("a URL, a file or a device as the camera")
    except NotSupported as error:
        raise CameraMissing(str(error)) from error


def path_of(address: str) -> Path | None:
    """The path of a file or a device; None for a URL and for the socket of another program."""
    return None if "://" in address or socket_path_of(address) else Path(address).expanduser().absolute()


def socket_path_of(address: str) -> Path | None:
    """The path of the socket in `unixfd:/path`; None for another address."""
    return Path(address.removeprefix(_SOCKET_SCHEME)) if address.startswith(_SOCKET_SCHEME) else None


def fitted(size: Size, most: Size) -> Size:
    """The largest even size with the same aspect ratio within `most`; never larger than `size`."""
    factor = min(1.0, most[0] / size[0], most[1] / size[1])
    # Half a pixel against rounding errors of the product.
    return tuple(max(2, int(side * factor + 0.5) // 2 * 2) for side in size)  # type: ignore[return-value]


def covering(size: Size, least: Size) -> Size:
    """The smallest even size with the same aspect ratio that covers `least`; never larger than `size`."""
    factor = min(1.0, max(least[0] / size[0], least[1] / size[1]))
    return tuple(min(side, -(-int(side * factor + 0.5) // 2) * 2) for side in size)  # type: ignore[return-value]


@dataclass(frozen=True, slots=True)
class SourceImage:
    """One image of a source; `time_s` has an arbitrary origin, and is None in sources without timestamps."""

    size: Size
    time_s: float | None
    data: Any  # PyAV's frame, or the bytes of a JPEG with a valid header and an end marker
    converter: "Converter"

    def frame(self, size: Size | None, sequence: int, began_s: float, duration_s: float | None) -> Frame:
        """A frame of this size, None for its own without an odd row or column. Raises CameraError if damaged."""
        metadata = {} if duration_s is None else {"FrameDuration": round(duration_s * 1e6)}
        data = self.data
        planes: tuple[Plane, ...]
        pixel_format: PixelFormat = "YUV420"
        if isinstance(data, bytes) and size is None:
            size, pixel_format, planes = self.size, "MJPEG", (np.frombuffer(data, np.uint8),)
        else:
            size = size or fitted(self.size, self.size)
            decoded = self.converter.decode_jpeg(data) if isinstance(data, bytes) else data
            planes = self.converter.planes(decoded, size)
        return Frame(planes, pixel_format, *size, sequence=sequence, began_s=began_s, metadata=metadata)


class ReadableStream(Protocol):
    """What FFmpeg reads like a file that only grows; `name` ends like a file's."""

    @property
    def name(self) -> str: ...
    def read(self, size: int) -> bytes: ...
    def close(self) -> None: ...


class Pipe:
    """A named pipe into which another program writes its video, as a file object with a timeout for each read.

    FFmpeg itself would block in the kernel until another process opens the other end.
    """

    def __init__(self, path: Path, timeout_s: float) -> None:
        """Open the pipe, even without a writer. Raises OSError."""
        self.name = str(path)  # FFmpeg derives the format from the extension
        self._timeout_ms = round(timeout_s * 1000)
        self._descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        self._poll = select.poll()
        self._poll.register(self._descriptor, select.POLLIN)

    def read(self, size: int) -> bytes:
        """Up to `size` bytes, none when the writer has closed the pipe. Raises TimeoutError."""
        while self._poll.poll(self._timeout_ms):
            with contextlib.suppress(BlockingIOError):  # another reader was faster
                return os.read(self._descriptor, size)
        raise TimeoutError(0, "no data")

    def close(self) -> None:
        os.close(self._descriptor)


class Source:
    """An open source.

    `is_paced` means that it is read faster than its frame rate, which the reader has to keep; `is_endless` that the
    reader rewinds it at its end; `interval_s` is the frame interval in seconds.
    """

    def __init__(
        self, address: str, request: StreamRequest, read_timeout_s: float, stream: ReadableStream | None = None
    ) -> None:
        """Open the source, or read the open `stream`. Raises CameraError, with a message without passwords."""
        self._av = require_pyav()
        self._address = address
        self._path = path_of(address)
        self._is_device = address.startswith("/dev/")
        self._is_rtsp = address.startswith("rtsp")
        self._request = request
        self._read_timeout_s = read_timeout_s
        self._stream = stream
        self._open()

    def _open(self) -> None:
        with camera_errors(), contextlib.ExitStack() as opened:
            if self._path is not None and self._path.is_fifo():
                self._stream = Pipe(self._path, self._read_timeout_s)
            if self._stream is not None:
                opened.enter_context(contextlib.closing(self._stream))
            self._container = opened.enter_context(self._open_container())
            self._find_video(is_file=self._path is not None and not self._is_device and self._stream is None)
            self._opened = opened.pop_all()

    def _open_container(self) -> Any:
        av, path = self._av, self._path
        if self._stream is not None:
            return av.open(self._stream, options=_LIVE_OPTIONS)
        if path is None:
            # TCP: complete images, and through every router.
            options = _LIVE_OPTIONS | ({"rtsp_transport": "tcp"} if self._is_rtsp else {})
            return av.open(self._address, options=options, timeout=(_OPEN_TIMEOUT_S, self._read_timeout_s))
        if not self._is_device:
            return av.open(f"file:{path}")  # with the prefix, a colon in the name does not end a URL scheme
        request = self._request
        size_and_rate = {"video_size": f"{request.width}x{request.height}", "framerate": f"{request.fps:g}"}
        # USB cameras reach their full frame rate only in MJPEG; not every one has this format, or this size and rate.
        for options in ({**size_and_rate, "input_format": "mjpeg"}, size_and_rate):
            with contextlib.suppress(OSError, ValueError, av.error.FFmpegError):
                return av.open(str(path), format="video4linux2", options=options)
        return av.open(str(path), format="video4linux2")

    def _find_video(self, *, is_file: bool) -> None:
        container = self._container
        video = next((stream for stream in container.streams if stream.type == "video"), None)
        if video is None:
            raise CameraError("contains no video")
        if video.codec_context is None:
            raise CameraError("FFmpeg does not support its video format")
        self._video = video
        is_known_length = bool(container.duration and container.duration > 0)
        self.is_endless = is_file or (is_known_length and not self._is_rtsp and self._stream is None)
        self.is_paced = self.is_endless or container.format.name == "hls"  # segments of seconds arrive at once
        video.thread_type = "SLICE"  # frame threads would each delay the output by one image
        if not self.is_endless:
            video.codec_context.flags |= _LOW_DELAY
        rate = video.average_rate
        self.interval_s = 1 / float(rate) if rate and 0.1 <= rate <= 1000 else 0.04
        self._converter = Converter(self._av)

    def images(self) -> Iterator[SourceImage | None]:
        """Yield images to the end of the stream, None for damaged ones. Raises CameraError when the source fails."""
        errors = self._av.error
        is_jpeg = self._video.codec_context.name == "mjpeg"
        with camera_errors(), contextlib.suppress(errors.EOFError):
            for packet in self._container.demux(self._video):
                if is_jpeg:
                    if packet.size:
                        yield self._jpeg(packet)
                    continue
                try:
                    decoded = packet.decode()
                except (errors.InvalidDataError, errors.PatchWelcomeError):
                    yield None
                    continue
                for image in decoded:
                    size = (image.width, image.height)
                    # Corrupt before the first keyframe, and after a loss.
                    yield None if image.is_corrupt else SourceImage(size, image.time, image, self._converter)

    def rewind(self) -> None:
        """Seek to the beginning. Raises CameraError."""
        if self._container.format.name not in _SEEKABLE:
            self.close()
            self._open()
            return
        with camera_errors():
            self._container.seek(0 if self._container.start_time is None else self._container.start_time)
            self._video.codec_context.flush_buffers()

    def close(self) -> None:
        self._opened.close()

    def _jpeg(self, packet: Any) -> SourceImage | None:
        data = with_end(bytes(packet))
        size = size_of_jpeg(data)
        if size is None:
            return None
        time_s = None if packet.pts is None else float(packet.pts * packet.time_base)
        return SourceImage(size, time_s, data, self._converter)


@contextlib.contextmanager
def camera_errors(what: str = "") -> Iterator[None]:
    """Raise CameraError for the errors of PyAV and of files."""
    try:
        yield
    except (OSError, ValueError, require_pyav().error.FFmpegError) as error:
        raise CameraError(f"{what}{_reason(error)}") from error


def _reason(error: BaseException) -> str:
    """The message without the address, which FFmpeg's own message contains: it may have a password."""
    text = getattr(error, "strerror", None) or type(error).__name__
    return "timed out" if text in ("Immediate exit requested", "TimeoutError") else text


class Converter:
    """Converts images of any format to full-range BT.601 planes with libswscale."""

    def __init__(self, av: Any) -> None:
        self._av = av
        self._reformatter = av.video.reformatter.VideoReformatter()
        self._decoder = JpegDecoder()

    def planes(self, image: Any, size: Size) -> tuple[Plane, ...]:
        """Y, U and V of a PyAV image at `size`. Raises CameraError."""
        name = image.format.name
        is_yuv = name.startswith(("yuv", "nv", "yuyv", "uyvy", "yvyu", "p0", "y2"))
        is_jpeg = name.startswith("yuvj")
        is_full = is_jpeg or image.color_range == _JPEG_RANGE
        colorspaces = self._av.video.reformatter.Colorspace
        with camera_errors(f"{name} cannot be converted: "):
            image = self._reformatter.reformat(
                image,
                *size,
                _FULL_RANGE,
                src_colorspace=colorspaces[_matrix_of(image, is_jpeg=is_jpeg)] if is_yuv else None,
                dst_colorspace=colorspaces.ITU601,
                src_color_range=(_JPEG_RANGE if is_full else _MPEG_RANGE) if is_yuv else None,
                dst_color_range=_JPEG_RANGE,
            )
        return tuple(rows_of(image))

    def decode_jpeg(self, data: bytes) -> Any:
        """Raises CameraError."""
        return self._decoder.decode(data)


def _matrix_of(image: Any, *, is_jpeg: bool) -> str:
    space = image.colorspace
    if space == _BT709:
        return "ITU709"
    if space in (9, 10):  # AVCOL_SPC_BT2020_NCL, _CL
        return "BT2020"
    is_hd = image.width >= _HD_WIDTH or image.height > _HD_HEIGHT
    return "ITU709" if space == _UNSPECIFIED and is_hd and not is_jpeg else "ITU601"


def size_of_jpeg(data: bytes) -> Size | None:
    """(width, height) of a JPEG with a valid header and an end marker; None if it is damaged."""
    try:
        return size_of(data) if EOI in data else None
    except ValueError:
        return None
