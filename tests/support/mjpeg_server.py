"""MJPEG streams as servers of many habits send them, and a server in a thread that sends them."""

import contextlib
import io
import random
import socket
import threading
from collections.abc import Callable, Sequence

import numpy as np
import simplejpeg
from PIL import Image

from tests.support.timeouts import PATIENCE_S


def encode(width: int, height: int, seed: int = 0) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return bytes(simplejpeg.encode_jpeg(pixels, quality=80))


def encode_as(form: str, *, level: int = 200) -> bytes:
    """A grey image of 64x48 pixels in another format."""
    file = io.BytesIO()
    Image.new("RGB", (64, 48), (level, level, level)).save(file, form)
    return file.getvalue()


SMALL = encode(64, 48)
OTHER = encode(80, 32, seed=1)
# A JPEG with a thumbnail in its APP1 segment, whose EOI is not the end.
WITH_THUMBNAIL = SMALL[:2] + b"\xff\xe1" + (len(OTHER) + 8).to_bytes(2, "big") + b"Exif\0\0" + OTHER + SMALL[2:]


def part(
    picture: bytes,
    *,
    end: bytes = b"\r\n",
    boundary: bytes = b"frame",
    length: bool = True,
    stamp: str = "",
    content_type: str = "image/jpeg",
) -> bytes:
    lines = [b"--" + boundary, b"Content-Type: " + content_type.encode()]
    if length:
        lines.append(b"Content-Length: %d" % len(picture))
    if stamp:
        lines.append(b"X-Timestamp: " + stamp.encode())
    return end.join(lines) + end + end + picture + end


def head(
    content_type: str = "multipart/x-mixed-replace;boundary=frame",
    *,
    version: str = "1.1",
    end: str = "\r\n",
    extra: Sequence[str] = (),
) -> bytes:
    return (end.join([f"HTTP/{version} 200 OK", f"Content-Type: {content_type}", *extra]) + end + end).encode()


def chunked(body: bytes, seed: int = 1) -> bytes:
    chance = random.Random(seed)
    out = b""
    while body:
        size = chance.randint(1, 3000)
        out += b"%x;why=not\r\n" % len(body[:size]) + body[:size] + b"\r\n"
        body = body[size:]
    return out + b"0\r\n\r\n"


Answer = Callable[[socket.socket, bytes], None]


class Stub:
    """Calls `answer(connection, request)` for each connection, then closes it."""

    def __init__(self, answer: Answer) -> None:
        self.requests: list[bytes] = []
        self.has_ended = threading.Event()  # set at the end of the test, for responses that keep a connection open
        self._answer = answer
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/stream.mjpg"
        self._thread = threading.Thread(target=self._serve, name="stub server")
        self._thread.start()

    def _serve(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            with connection:
                if self.has_ended.is_set():
                    return
                connection.settimeout(PATIENCE_S)
                # The probe disconnects when it has enough frames, or while it connects: neither is an error.
                with contextlib.suppress(ConnectionError):
                    if request := _read_request(connection):
                        self.requests.append(request)
                        self._answer(connection, request)

    def close(self) -> None:
        self.has_ended.set()
        socket.create_connection(("127.0.0.1", self.port)).close()
        self._thread.join(PATIENCE_S)
        self._listener.close()
        assert not self._thread.is_alive()


def _read_request(connection: socket.socket) -> bytes:
    """Up to the empty line after the headers; nothing if the client disconnects before."""
    request = b""
    while not request.endswith(b"\r\n\r\n"):
        received = connection.recv(4096)
        if not received:
            return b""
        request += received
    return request


def send(data: bytes) -> Answer:
    return lambda connection, request: connection.sendall(data)


def paced(count: int, pause_s: float, picture: bytes = SMALL) -> Answer:
    def answer(connection: socket.socket, request: bytes) -> None:
        connection.sendall(head())
        pace = threading.Event()
        for _ in range(count):
            connection.sendall(part(picture))
            pace.wait(pause_s)

    return answer


def stalling(data: bytes) -> Answer:
    """Sends `data`, and nothing more until the client disconnects."""

    def answer(connection: socket.socket, request: bytes) -> None:
        connection.sendall(data)
        with contextlib.suppress(ConnectionError):
            connection.recv(1)

    return answer


PLAIN = [part(SMALL) for _ in range(6)]
HABITS = {
    "well behaved": head() + b"".join(PLAIN) + b"--frame\r\n",
    "closing delimiter": head() + b"".join(PLAIN) + b"--frame--\r\n",
    "no length": head() + b"".join(part(SMALL, length=False) for _ in range(6)) + b"--frame\r\n",
    "no length, thumbnails": head() + b"".join(part(WITH_THUMBNAIL, length=False) for _ in range(6)),
    "no length, no EOI": head() + b"".join(part(SMALL[:-2], length=False) for _ in range(6)) + b"--frame\r\n",
    "chunked": head(extra=["Transfer-Encoding: chunked"]) + chunked(b"".join(PLAIN)),
    "chunked, no length": head(extra=["Transfer-Encoding: Chunked"])
    + chunked(b"".join(part(SMALL, length=False) for _ in range(6))),
    "HTTP/1.0": head(version="1.0") + b"".join(PLAIN),
    "LF alone": head(end="\n") + b"".join(part(SMALL, end=b"\n") for _ in range(6)),
    "LF alone, no length": head(end="\n") + b"".join(part(SMALL, end=b"\n", length=False) for _ in range(6)),
    "quoted boundary": head('multipart/x-mixed-replace; boundary="frame"') + b"".join(PLAIN),
    "boundary with dashes": head("multipart/x-mixed-replace; boundary=--frame") + b"".join(PLAIN),
    "dashes doubled": head("multipart/x-mixed-replace; boundary=--frame")
    + b"".join(part(SMALL, boundary=b"--frame") for _ in range(6)),
    "another boundary than announced": head() + b"".join(part(SMALL, boundary=b"other") for _ in range(6)),
    "boundary without dashes": head() + b"".join(part(SMALL)[2:] for _ in range(6)),
    "no boundary announced": head("multipart/x-mixed-replace") + b"".join(PLAIN),
    "no content type": b"HTTP/1.1 200 OK\r\n\r\n" + b"".join(PLAIN),
    "nothing between the pictures": head("video/x-motion-jpeg") + SMALL * 6,
    "no first boundary": head() + b"".join(PLAIN)[len(b"--frame\r\n") :],
    "no line end behind the picture": head() + b"".join(one[:-2] for one in PLAIN),
    "a preamble": head() + b"This is a stream.\r\nNote: patience\r\n\r\n" + b"".join(PLAIN),
    "parts that are no pictures": head()
    + b"".join(one + b"--frame\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello\r\n" for one in PLAIN),
    "header names in capitals": head() + b"".join(one.replace(b"Content-Length", b"CONTENT-LENGTH") for one in PLAIN),
    "100 Continue first": b"HTTP/1.1 100 Continue\r\n\r\n" + head() + b"".join(PLAIN),
}
