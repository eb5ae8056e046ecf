"""Files and an HTTP server for tests of the URL camera: images with known colours and numbers."""

import contextlib
import socket
import threading
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any, Self

import av
import numpy as np
import numpy.typing as npt
import simplejpeg
from av.video.reformatter import Colorspace, VideoReformatter

from softcam.imaging.frame import Frame

Rgb = npt.NDArray[np.uint8]
Planes = tuple[npt.NDArray[np.float64], ...]

STEP = 14  # between the greys of two images; codecs change them by less than half of it


def smooth_rgb(size: tuple[int, int]) -> Rgb:
    """An image with all colours and no edges, which would blur with subsampled chroma."""
    width, height = size
    across = np.linspace(0, 255, width)[None, :].repeat(height, 0)
    down = np.linspace(0, 255, height)[:, None].repeat(width, 1)
    waves = 127.5 + 127.5 * np.cos(across / 40 + down / 60)
    return np.dstack([across, down, waves]).round().astype(np.uint8)


def planes_of(rgb: Rgb) -> Planes:
    """Y, U and V according to JFIF, the last two at half the size."""
    red, green, blue = (rgb[..., channel].astype(np.float64) for channel in range(3))
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    height, width = luma.shape
    chroma = (128 + (blue - luma) / 1.772, 128 + (red - luma) / 1.402)
    return (luma, *(each.reshape(height // 2, 2, width // 2, 2).mean((1, 3)) for each in chroma))


def grey_rgb(number: int, size: tuple[int, int] = (64, 48)) -> Rgb:
    return np.full((size[1], size[0], 3), 20 + STEP * (number % 16), np.uint8)


def number_of(luma: npt.NDArray[np.uint8]) -> int:
    """The number of an image of `grey_rgb`."""
    return round((float(luma.mean()) - 20) / STEP)


def number_in(frame: Frame) -> int:
    if frame.pixel_format == "MJPEG":
        return number_of(simplejpeg.decode_jpeg(frame.planes[0].tobytes(), "GRAY")[..., 0])
    return number_of(frame.planes[0])


def write_unknown(path: Path) -> Path:
    """Write a video with an unknown codec."""
    data = write_movie(path, [grey_rgb(0)] * 3, 20).read_bytes()
    assert data.count(b"avc1") >= 1
    path.write_bytes(data.replace(b"avc1", b"none").replace(b"avcC", b"nonC"))
    return path


def write_movie(
    path: Path,
    pictures: list[Rgb],
    fps: int,
    *,
    is_bt709: bool = False,
    is_full: bool = False,
    is_told: bool = True,
    keyframes: int = 250,
) -> Path:
    """Write nearly lossless H.264 with this matrix and range, declared in the file if `is_told`."""
    height, width, _ = pictures[0].shape
    matrix, value_range = (1 if is_bt709 else 6), (2 if is_full else 1)
    reformatter = VideoReformatter()
    with av.open(str(path), "w") as target:
        stream = target.add_stream("libx264", rate=fps)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuvj420p" if is_full else "yuv420p"
        stream.options = {"preset": "ultrafast", "crf": "1", "g": str(keyframes)}
        if is_told:
            stream.codec_context.colorspace, stream.codec_context.color_range = matrix, value_range
        for number, rgb in enumerate(pictures):
            picture = reformatter.reformat(
                av.VideoFrame.from_ndarray(rgb, format="rgb24"),
                format="yuvj420p" if is_full else "yuv420p",
                dst_colorspace=Colorspace.ITU709 if is_bt709 else Colorspace.ITU601,
                dst_color_range=value_range,
            )
            picture.pts = number
            target.mux(stream.encode(picture))
        target.mux(stream.encode(None))
    return path


def write_jpegs(path: Path, jpegs: list[bytes], fps: int) -> Path:
    """Write the JPEGs unchanged to an AVI file, an MP4 file or one after the other, depending on the file's suffix."""
    if path.suffix == ".mjpeg":
        path.write_bytes(b"".join(jpegs))
        return path
    width, height = _size_of(jpegs[0])
    with av.open(str(path), "w") as target:
        stream = target.add_stream("mjpeg", rate=fps)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuvj420p"
        for number, jpeg in enumerate(jpegs):
            packet = av.Packet(jpeg)
            packet.stream, packet.pts, packet.dts, packet.time_base = stream, number, number, Fraction(1, fps)
            packet.is_keyframe = True
            target.mux(packet)
    return path


def jpeg_of(rgb: Rgb, quality: int = 90) -> bytes:
    jpeg: bytes = simplejpeg.encode_jpeg(rgb, quality, "RGB", "420")
    return jpeg


def _size_of(jpeg: bytes) -> tuple[int, int]:
    height, width, _, _ = simplejpeg.decode_jpeg_header(jpeg)
    return width, height


class MjpegServer:
    """Calls `serve(connection)` for each connection, in a new thread, after the response's header was sent.

    `stop` closes the listener and all connections; `start` listens again on the same port.
    """

    def __init__(self, serve: Callable[[socket.socket], None]) -> None:
        self.serve = serve
        self.connections = 0
        self._lock = threading.Lock()  # guards _open
        self._open: list[socket.socket] = []
        self._listener: socket.socket | None = None
        self.port = 0
        self.start()

    def start(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, args=[self._listener], name="mjpeg server")
        self._thread.start()

    def stop(self) -> None:
        if self._listener is None:
            return
        listener, self._listener = self._listener, None
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        self._thread.join()
        with self._lock:
            opened, self._open = self._open, []
        for connection in opened:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/stream.mjpg"

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with self._lock:
                self._open.append(connection)
            self.connections += 1
            threading.Thread(target=self._answer, args=[connection], name="mjpeg connection").start()

    def _answer(self, connection: socket.socket) -> None:
        with contextlib.closing(connection), contextlib.suppress(OSError):
            request = b""
            while not request.endswith(b"\r\n\r\n"):
                received = connection.recv(4096)
                if not received:
                    return
                request += received
            connection.sendall(
                b"HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace;boundary=frame\r\n\r\n--frame\r\n"
            )
            self.serve(connection)


def send_part(connection: Any, jpeg: bytes) -> None:
    head = f"Content-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
    connection.sendall(head.encode() + jpeg + b"\r\n--frame\r\n")
