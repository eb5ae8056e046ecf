"""A fan-out with an fMP4 stream, its clients, and a video source that records its calls."""

import contextlib
import socket
import struct
import threading
from typing import Any

from softcam.errors import CameraError
from softcam.h264.packet import Packet, PacketSink, VideoFormat
from softcam.h264.ring import RingLimits
from softcam.net.event_loop import EventLoop
from softcam.streaming.clients import StreamClient
from softcam.streaming.fanout import FanOut
from softcam.streaming.fmp4_channel import Fmp4Stream
from tests.support.background import eventually, soon
from tests.support.stream_clients import connect
from tests.support.timeouts import PATIENCE_S

FPS = 20.0
FRAME_S = 1 / FPS


class FakeVideo:
    """A `VideoSource` that records its calls."""

    def __init__(self) -> None:
        self.sinks: list[PacketSink] = []
        self.subscriptions = 0
        self.keyframe_requests = 0
        self.error: CameraError | None = None

    def subscribe(self, sink: PacketSink) -> None:
        if self.error is not None:
            raise self.error
        if sink not in self.sinks:
            self.subscriptions += 1
            self.sinks.append(sink)

    def unsubscribe(self, sink: PacketSink) -> None:
        if sink in self.sinks:
            self.sinks.remove(sink)

    def request_keyframe(self) -> None:
        self.keyframe_requests += 1


class Fmp4Reader:
    """The client's end of an fMP4 stream: reads boxes."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self._buffer = b""

    def _read(self, size: int) -> bytes:
        while len(self._buffer) < size:
            received = self.socket.recv(1 << 20)
            assert received, "the stream ended"
            self._buffer += received
        result, self._buffer = self._buffer[:size], self._buffer[size:]
        return result

    def read_box(self) -> tuple[str, bytes]:
        size, kind = struct.unpack(">I4s", self._read(8))
        return kind.decode(), self._read(size - 8)

    def read_initial_segment(self) -> bytes:
        """The parameters in the initial segment."""
        assert self.read_box()[0] == "ftyp"
        kind, content = self.read_box()
        assert kind == "moov"
        return content[content.index(b"avcC") + 4 :]

    def read_fragment(self) -> int:
        """The number of the packet in the fragment."""
        kind, moof = self.read_box()
        assert kind == "moof"
        self.number = struct.unpack_from(">I", moof, 12)[0]
        kind, data = self.read_box()
        assert kind == "mdat"
        return int(data[:8])

    def has_ended(self) -> bool:
        with contextlib.suppress(ConnectionResetError):
            while received := self.socket.recv(1 << 20):
                self._buffer += received
        return not self._buffer


class Stage:
    """A fan-out with an fMP4 stream; the test provides the packets."""

    def __init__(self, *, stall_timeout_s: float = 30.0, limits: RingLimits | None = None) -> None:
        self.video = FakeVideo()
        self.crashes: list[str] = []
        self.disconnected = 0
        self.jpeg_channels: list[tuple[Any, ...]] = []
        self.readers: list[Fmp4Reader] = []
        self.count = 0
        self.loop = EventLoop("event-loop", self.crashes.append)
        self.fan = FanOut(self.loop, self.jpeg_channels.append, lambda: None, stall_timeout_s=stall_timeout_s)
        self.stream = Fmp4Stream(self.video, self.fan.notify, limits=limits)
        self.now_s = self.stream.zero_s + 100.0
        self.loop.start()

    def connect(self, *, small_buffers: bool = False) -> Fmp4Reader:
        ours, theirs = connect(small_buffers)
        before = self.client_count
        self.fan.add_client(StreamClient(ours, "192.0.2.1", self.stream, 0.0, self._on_disconnect))
        reader = Fmp4Reader(theirs)
        self.readers.append(reader)
        eventually(lambda: self.client_count > before, "a client")
        self.settle()  # it is counted before its subscription is complete
        return reader

    @property
    def client_count(self) -> int:
        return len(self.stream.clients)

    def start_format(self, *, sps: bytes = b"\x67\x42\xc0\x1e", size: tuple[int, int] = (64, 48)) -> None:
        self.stream.on_format(VideoFormat(*size, FPS, sps, b"\x68"))

    def send_packets(
        self, count: int = 1, *, is_keyframe: bool = False, size: int = 100, after_s: float = FRAME_S
    ) -> int:
        """Send `count` packets; returns the number of the last one, which is its data."""
        for _ in range(count):
            self.count += 1
            self.now_s += after_s
            data = (b"%08d" % self.count).ljust(size, b"x")
            self.stream.on_packet(Packet(data, is_keyframe, self.now_s, 0.0))
        return self.count

    def settle(self) -> None:
        """Wait until the loop has handled all packets."""
        is_done = threading.Event()
        self.fan.notify(self.stream, is_done.set)
        assert is_done.wait(PATIENCE_S)

    def stop(self) -> None:
        self.loop.stop(soon())
        for reader in self.readers:
            reader.socket.close()

    def _on_disconnect(self) -> None:
        self.disconnected += 1
