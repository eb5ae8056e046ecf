"""What PyAV opens, as pictures: a server's stream, a file, a device. The one module of the cameras that imports PyAV.

PyAV is imported when the first source is made. No thread of its own: a `Source` belongs to the reader that opened it.
JPEGs are passed on as they came, and decoded only where they have to be made smaller.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np

from softcam.camera.base import StreamRequest
from softcam.camera.url.pipe import Pipe
from softcam.errors import CameraError, CameraMissing, NotSupported
from softcam.imaging.frame import Frame, Plane
from softcam.runtime.pyav import import_pyav

Size = tuple[int, int]  # (width, height) in pixels

# A camera's RTSP server may take seconds to begin, and its first keyframe some more.
_OPEN_LIMIT_S: Final = 10.0
_READ_LIMIT_S: Final = 5.0  # a live stream that gives nothing for so long is none any more
# What is known of a stream suffices as soon as one picture of it was seen. No `nobuffer`: FFmpeg would throw away what
# it has read till then, the first keyframe among it, and the next may be ten seconds off.
_LIVE_OPTIONS: Final = {"analyzeduration": "1000000", "probesize": "1000000", "fpsprobesize": "0"}
_LOW_DELAY: Final = 1 << 19  # AV_CODEC_FLAG_LOW_DELAY

# Files with an index. Others are opened anew, which takes longer: they do not go back, or have nothing after it.
_SEEKABLE: Final = frozenset({"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi"})

_FULL_RANGE: Final = "yuvj420p"  # the j is for JPEG's range; PyAV before 17 converts nothing where it is not there
_MPEG_RANGE, _JPEG_RANGE = 1, 2  # AVColorRange
_BT709, _UNSPECIFIED = 1, 2  # AVColorSpace
# Colours that nobody named: what players take for high definition, and for what is smaller.
_HD_WIDTH, _HD_HEIGHT = 1280, 576


def require_pyav() -> Any:
    """PyAV. Raises CameraMissing if it cannot be loaded: then there is no such camera."""
    try:
        return import_pyav("a URL, a file or a device as the camera")
    except NotSupported as error:
        raise CameraMissing(str(error)) from error


def is_url(address: str) -> bool:
    return "://" in address


def is_device(address: str) -> bool:
    return address.startswith("/dev/")


def path_of(address: str) -> Path | None:
    """The file or the device; None for what is somewhere else."""
    return None if is_url(address) else Path(address).expanduser().absolute()


def fitted(size: Size, most: Size) -> Size:
    """The largest size of the same proportions within `most`, even numbers; never larger than `size`."""
    factor = min(1.0, most[0] / size[0], most[1] / size[1])
    # Half a pixel for what the product lacks of a whole one.
    return tuple(max(2, int(side * factor + 0.5) // 2 * 2) for side in size)  # type: ignore[return-value]


def covering(size: Size, least: Size) -> Size:
    """The smallest size of the same proportions that is not within `least`, but never larger than `size`."""
    factor = min(1.0, max(least[0] / size[0], least[1] / size[1]))
    return tuple(min(side, -(-int(side * factor + 0.5) // 2) * 2) for side in size)  # type: ignore[return-value]


class Picture(Protocol):
    """One picture as it came; `time_s` counts from anywhere, None where the source tells no time."""

    size: Size
    time_s: float | None

    def frame(self, size: Size | None, sequence: int, began_s: float, duration_s: float | None) -> Frame:
        """At this size; None is its own, but for an odd row or column. Raises CameraError where it is damaged."""


class Source:
    """An open source. `is_paced`: its pictures come as fast as they are taken, and have a pace of their own to keep;
    `is_endless`: it begins again when it is over."""

    def __init__(self, address: str, request: StreamRequest) -> None:
        """Opens it. Raises CameraError, with a reason that names no password."""
        self._av = require_pyav()
        self._address = address
        self._request = request
        self._pipe: Pipe | None = None
        self._open()

    def _open(self) -> None:
        av = self._av
        path = path_of(self._address)
        try:
            self._pipe = Pipe(path, _READ_LIMIT_S) if path is not None and path.is_fifo() else None
            self._container = _open(av, self._address, self._request, self._pipe)
        except (OSError, ValueError, av.error.FFmpegError) as error:
            if self._pipe is not None:
                self._pipe.close()
            raise CameraError(_reason(error)) from error
        try:
            self._read_kind(self._address)
        except CameraError:
            self.close()
            raise

    def _read_kind(self, address: str) -> None:
        video = next((stream for stream in self._container.streams if stream.type == "video"), None)
        if video is None:
            raise CameraError("there is no video in it")
        if video.codec_context is None:
            raise CameraError("its video is of a kind that FFmpeg does not know")
        self._video = video
        name = self._container.format.name
        is_known_length = bool(self._container.duration and self._container.duration > 0)
        is_file = not is_url(address) and not is_device(address) and self._pipe is None
        self.is_endless = is_file or (is_known_length and not address.startswith("rtsp"))
        self.is_paced = self.is_endless or name == "hls"  # whose pieces come seconds at a time
        self._is_jpeg = video.codec_context.name == "mjpeg"
        video.thread_type = "SLICE"  # by frames, one would be kept back for each thread
        if not self.is_endless:
            video.codec_context.flags |= _LOW_DELAY
        rate = video.average_rate
        self.interval_s = 1 / float(rate) if rate and 0.1 <= rate <= 1000 else 0.04
        self._converter = Converter(self._av)

    def pictures(self) -> Iterator[Picture | None]:
        """To the end of the stream; None for a picture that was damaged. Raises CameraError when the source fails."""
        av = self._av
        try:
            for packet in self._container.demux(self._video):
                if self._is_jpeg:
                    if packet.size:
                        yield self._jpeg(packet)
                    continue
                try:
                    decoded = packet.decode()
                except (av.error.InvalidDataError, av.error.PatchWelcomeError):
                    yield None
                    continue
                for picture in decoded:
                    # Before the first keyframe, and after a loss.
                    yield None if picture.is_corrupt else _Decoded(picture, self._converter)
        except av.error.EOFError:
            return
        except (OSError, ValueError, av.error.FFmpegError) as error:
            raise CameraError(_reason(error)) from error

    def rewind(self) -> None:
        """To the beginning. Raises CameraError where it cannot."""
        av = self._av
        if self._container.format.name not in _SEEKABLE:
            self.close()
            self._open()
            return
        try:
            self._container.seek(0 if self._container.start_time is None else self._container.start_time)
            self._video.codec_context.flush_buffers()
        except (OSError, ValueError, av.error.FFmpegError) as error:
            raise CameraError(_reason(error)) from error

    def close(self) -> None:
        self._container.close()
        if self._pipe is not None:
            self._pipe.close()

    def _jpeg(self, packet: Any) -> "Picture | None":
        data = bytes(packet)
        size = size_of_jpeg(data)
        if size is None:
            return None
        time_s = None if packet.pts is None else float(packet.pts * packet.time_base)
        return _Jpeg(data, size, time_s, self._converter)


def _open(av: Any, address: str, request: StreamRequest, pipe: Pipe | None) -> Any:
    if pipe is not None:
        return av.open(pipe, options=_LIVE_OPTIONS)
    path = path_of(address)
    if path is None:
        options = dict(_LIVE_OPTIONS)
        if address.startswith("rtsp"):
            options["rtsp_transport"] = "tcp"  # whole pictures, and through every router
        return av.open(address, options=options, timeout=(_OPEN_LIMIT_S, _READ_LIMIT_S))
    if not is_device(address):
        return av.open(f"file:{path}")  # the word keeps a colon in the name from being a scheme
    options = {"video_size": f"{request.width}x{request.height}", "framerate": f"{request.fps:g}"}
    try:
        # USB cameras reach their full rate only so.
        return av.open(str(path), format="video4linux2", options={**options, "input_format": "mjpeg"})
    except (OSError, ValueError, av.error.FFmpegError):
        pass
    try:
        return av.open(str(path), format="video4linux2", options=options)
    except (OSError, ValueError, av.error.FFmpegError):
        return av.open(str(path), format="video4linux2")  # a size or a rate that it does not have


def _reason(error: BaseException) -> str:
    """For people, and never with the address, as FFmpeg's own message has it: that may hold a password."""
    text = getattr(error, "strerror", None) or type(error).__name__
    return "it does not answer" if text == "Immediate exit requested" else text


class Converter:
    """Pictures of any kind to full-range BT.601 planes, by libswscale."""

    def __init__(self, av: Any) -> None:
        from av.video.reformatter import VideoReformatter

        self._av = av
        self._reformatter = VideoReformatter()
        self._jpeg_decoder: Any = None

    def planes(self, picture: Any, size: Size) -> tuple[Plane, ...]:
        """Y, U and V of a PyAV picture at `size`. Raises CameraError."""
        name = picture.format.name
        is_yuv = name.startswith(("yuv", "nv", "yuyv", "uyvy", "yvyu", "p0", "y2"))
        matrix = source_range = None
        if is_yuv:
            is_jpeg = name.startswith("yuvj") or picture.color_range == _JPEG_RANGE
            source_range = _JPEG_RANGE if is_jpeg else _MPEG_RANGE
            matrix = _matrix_of(picture, is_jpeg=name.startswith("yuvj"))
        from av.video.reformatter import Colorspace

        try:
            picture = self._reformatter.reformat(
                picture,
                *size,
                _FULL_RANGE,
                src_colorspace=None if matrix is None else Colorspace[matrix],
                dst_colorspace=Colorspace.ITU601,
                src_color_range=source_range,
                dst_color_range=_JPEG_RANGE,
            )
        except (OSError, ValueError, self._av.error.FFmpegError) as error:
            raise CameraError(f"a picture of {name} cannot be converted: {_reason(error)}") from error
        # Views: they keep the memory for as long as they live.
        return tuple(
            np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: plane.height, : plane.width]
            for plane in picture.planes
        )

    def decode_jpeg(self, data: bytes) -> Any:
        """Raises CameraError."""
        av = self._av
        if self._jpeg_decoder is None:
            self._jpeg_decoder = av.CodecContext.create("mjpeg", "r")
            self._jpeg_decoder.thread_count = 1  # more would each keep a picture back
        try:
            pictures = self._jpeg_decoder.decode(av.Packet(data))
        except (OSError, ValueError, av.error.FFmpegError) as error:
            raise CameraError(f"a JPEG cannot be read: {_reason(error)}") from error
        if not pictures:
            raise CameraError("a JPEG cannot be read")
        return pictures[0]


def _matrix_of(picture: Any, *, is_jpeg: bool) -> str:
    space = picture.colorspace
    if space == _BT709:
        return "ITU709"
    if space in (9, 10):  # AVCOL_SPC_BT2020_NCL, _CL
        return "BT2020"
    is_hd = picture.width >= _HD_WIDTH or picture.height > _HD_HEIGHT
    return "ITU709" if space == _UNSPECIFIED and is_hd and not is_jpeg else "ITU601"


class _Decoded:
    """A picture that the codec gave."""

    def __init__(self, picture: Any, converter: Converter) -> None:
        self._picture = picture
        self._converter = converter
        self.size: Size = (picture.width, picture.height)
        self.time_s: float | None = picture.time

    def frame(self, size: Size | None, sequence: int, began_s: float, duration_s: float | None) -> Frame:
        size = size or fitted(self.size, self.size)
        planes = self._converter.planes(self._picture, size)
        return _framed(planes, size, sequence, began_s, duration_s)


class _Jpeg:
    """A picture that is a JPEG, and whole as far as its ends tell."""

    def __init__(self, data: bytes, size: Size, time_s: float | None, converter: Converter) -> None:
        self._data = data
        self._converter = converter
        self.size = size
        self.time_s = time_s

    def frame(self, size: Size | None, sequence: int, began_s: float, duration_s: float | None) -> Frame:
        if size is None:
            plane = np.frombuffer(self._data, np.uint8)
            return Frame(
                (plane,), "MJPEG", *self.size, sequence=sequence, began_s=began_s, metadata=_metadata(duration_s)
            )
        planes = self._converter.planes(self._converter.decode_jpeg(self._data), size)
        return _framed(planes, size, sequence, began_s, duration_s)


def _framed(planes: tuple[Plane, ...], size: Size, sequence: int, began_s: float, duration_s: float | None) -> Frame:
    return Frame(planes, "YUV420", *size, sequence=sequence, began_s=began_s, metadata=_metadata(duration_s))


def _metadata(duration_s: float | None) -> dict[str, Any]:
    return {} if duration_s is None else {"FrameDuration": round(duration_s * 1e6)}


def size_of_jpeg(data: bytes) -> Size | None:
    """(width, height) of a JPEG that has a beginning, a size and an end; None for what has not.

    Only its marker segments are read: https://www.w3.org/Graphics/JPEG/itu-t81.pdf, table B.1
    """
    if not data.startswith(b"\xff\xd8") or data.rfind(b"\xff\xd9") < 0:
        return None
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # filling
            at += 1
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = int.from_bytes(data[at + 5 : at + 7], "big"), int.from_bytes(data[at + 7 : at + 9], "big")
            return (width, height) if width and height else None
        if marker == 0xDA:
            return None
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None
