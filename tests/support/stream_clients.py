"""A fan-out with real sockets, and clients that check every byte of an MJPEG stream."""

import contextlib
import select
import socket
import struct
import time
from collections.abc import Callable

from softcam.net.event_loop import EventLoop
from softcam.net.io_uring import BatchSender
from softcam.streaming.clients import JpegChannel, StreamClient
from softcam.streaming.fanout import FanOut
from softcam.streaming.jpeg_encoder import JpegVariant
from tests.support.background import eventually, soon
from tests.support.timeouts import PATIENCE_S

VARIANT = JpegVariant(0, 80)
SMALL_VARIANT = JpegVariant(320, 80)
BOUNDARY = b"--frame\r\n"
LARGE = 4_000_000  # more than the kernel buffers for both ends together
SMALL_BUFFER = 4096  # the kernel doubles it


def connect(small_buffers: bool = False) -> tuple[socket.socket, socket.socket]:
    """A TCP connection over loopback: the end of the portal and that of the client."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        if small_buffers:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL_BUFFER)
        theirs = socket.socket()
        if small_buffers:
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)
        theirs.settimeout(PATIENCE_S)
        theirs.connect(listening.getsockname())
        ours, _ = listening.accept()
    return ours, theirs


class StreamReader:
    """The client's end of an MJPEG stream: reads parts and checks their form."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self._buffer = b""

    def read(self, size: int) -> bytes:
        while len(self._buffer) < size:
            received = self.socket.recv(1 << 20)
            assert received, f"the stream ended within {size} bytes, after {self._buffer!r}"
            self._buffer += received
        result, self._buffer = self._buffer[:size], self._buffer[size:]
        return result

    def unread(self, data: bytes) -> None:
        """Return data that was received from `socket` directly."""
        self._buffer = data + self._buffer

    def read_header(self) -> dict[str, str]:
        lines = b""
        while not lines.endswith(b"\r\n\r\n"):
            lines += self.read(1)
        return dict(line.split(": ", 1) for line in lines.decode().split("\r\n") if line)

    def read_boundary(self) -> "StreamReader":
        assert self.read(len(BOUNDARY)) == BOUNDARY
        return self

    def read_jpeg(self) -> bytes:
        """The JPEG of the next part, whose closing boundary is read, too."""
        header = self.read_header()
        assert list(header) == ["Content-Type", "Content-Length", "X-Timestamp"]
        jpeg = self.read(int(header["Content-Length"]))
        assert self.read(2 + len(BOUNDARY)) == b"\r\n" + BOUNDARY
        return jpeg

    def read_rest(self) -> bytes:
        """Everything until the portal closes or resets the connection."""
        with contextlib.suppress(ConnectionResetError):
            while received := self.socket.recv(1 << 20):
                self._buffer += received
        rest, self._buffer = self._buffer, b""
        return rest

    def has_no_data(self) -> bool:
        return not self._buffer and not select.select([self.socket], [], [], 0)[0]

    def close(self, *, reset: bool = False) -> None:
        if reset:  # the kernel sends RST
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


class Stage:
    """A running fan-out, its callbacks and its clients."""

    def __init__(
        self,
        *,
        stall_timeout_s: float = 30.0,
        sender: BatchSender | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.channels: tuple[JpegChannel, ...] = ()
        self.ticks = 0
        self.crashes: list[str] = []
        self.disconnected: list[int] = []  # numbers of clients, in order of their disconnection
        self.added = 0
        self.readers: list[StreamReader] = []
        self.on_channels: Callable[[], None] = lambda: None
        self.on_tick: Callable[[], None] = lambda: None
        self.loop = EventLoop("event-loop", self.crashes.append, clock=clock)
        self.fan = FanOut(self.loop, self._on_channels, self._on_tick, stall_timeout_s=stall_timeout_s, sender=sender)
        self.loop.start()

    def connect(
        self, variant: JpegVariant = VARIANT, *, interval_s: float = 0.0, small_buffers: bool = False
    ) -> StreamReader:
        """A new client, which has received the first boundary."""
        ours, theirs = connect(small_buffers)
        self.add(ours, variant, interval_s)
        reader = StreamReader(theirs)
        self.readers.append(reader)
        return reader.read_boundary()

    def add(self, ours: socket.socket, variant: JpegVariant = VARIANT, interval_s: float = 0.0) -> int:
        number = self.added
        self.added += 1
        self.fan.add_client(
            StreamClient(ours, "192.0.2.1", variant, interval_s, lambda: self.disconnected.append(number))
        )
        return number

    def publish(self, jpeg: bytes, made_s: float = 1.0, variant: JpegVariant = VARIANT) -> None:
        self.fan.publish_jpeg(variant, jpeg, timestamp_s=1_700_000_000.25, made_s=made_s)

    def wait_empty(self) -> None:
        eventually(lambda: self.fan.client_count == 0 and self.channels == (), "that all clients disconnected")

    def stop(self) -> None:
        self.loop.stop(soon())
        for reader in self.readers:
            reader.close()

    def _on_channels(self, channels: tuple[JpegChannel, ...]) -> None:
        self.channels = channels
        self.on_channels()

    def _on_tick(self) -> None:
        self.ticks += 1
        self.on_tick()
