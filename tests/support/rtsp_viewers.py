"""An RTSP server over loopback, the encoder and camera that it uses, and clients that read what it sends."""

import contextlib
import re
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from softcam.errors import CameraError
from softcam.h264.bitrate import fixed_bitrate
from softcam.h264.packet import Packet, PacketSink, VideoFormat
from softcam.net.event_loop import EventLoop
from softcam.net.io_uring import BatchSender
from softcam.net.key_brake import CheckKey, KeyBrake
from softcam.rtsp.server.server import RtspServer, ServerLimits, listening_socket
from softcam.rtsp.server.stream import RtpStream, StreamLimits
from softcam.runtime.deadline import Clock
from tests.support.background import Flow, eventually, soon
from tests.support.fmp4_clients import FakeVideo
from tests.support.stream_clients import SMALL_BUFFER
from tests.support.timeouts import PATIENCE_S

FPS = 50.0
SPS, PPS = bytes.fromhex("67640028acd940"), bytes.fromhex("68ebe3cb")
FORMAT = VideoFormat(640, 360, FPS, SPS, PPS)
TCP = "RTP/AVP/TCP;unicast;interleaved=0-1"
_STATUS_LINE = re.compile(r"RTSP/1\.0 (\d{3}) (.+)")


class FakeEncoder(FakeVideo):
    """Delivers a format and numbered packets to its sinks, from a keyframe on, and keyframes on request."""

    def __init__(self) -> None:
        super().__init__()
        self.fmt = FORMAT
        self.count = 0
        self.now_s = time.monotonic()  # of the last packet
        self.size = 200
        self._lock = threading.Lock()  # guards the sinks and what they have received
        self._formats: dict[PacketSink, VideoFormat] = {}
        self._honored = 0  # keyframe requests

    def subscribe(self, sink: PacketSink) -> None:
        with self._lock:
            super().subscribe(sink)

    def unsubscribe(self, sink: PacketSink) -> None:
        with self._lock:
            super().unsubscribe(sink)
            self._formats.pop(sink, None)

    def deliver(self, count: int = 1, *, is_keyframe: bool = False, began_s: float | None = None) -> int:
        """Returns the number of the last packet, which its data contains. Only one thread at a time may call it."""
        for _ in range(count):
            with self._lock:
                self._deliver(is_keyframe, time.monotonic() if began_s is None else began_s)
        return self.count

    def _deliver(self, is_keyframe: bool, began_s: float) -> None:
        self.count += 1
        self.now_s = max(self.now_s + 0.001, began_s)
        requests = self.keyframe_requests
        is_key = is_keyframe or self._honored != requests or any(self._formats.get(s) != self.fmt for s in self.sinks)
        self._honored = requests
        unit = (b"\x65" if is_key else b"\x41") + (b"%08d" % self.count).ljust(self.size, b"x")
        for sink in self.sinks:
            if self._formats.get(sink) != self.fmt:
                self._formats[sink] = self.fmt
                sink.on_format(self.fmt)
            sink.on_packet(Packet(struct.pack(">I", len(unit)) + unit, is_key, self.now_s, 0.0))


@dataclass
class FakeCamera:
    """Counts leases; any thread may acquire and release them."""

    leases: int = 0
    opened: int = 0
    state: str = "open"
    error: CameraError | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)  # guards the numbers

    def lease(self) -> Callable[[], None]:
        if self.error is not None:
            raise self.error
        with self._lock:
            self.leases += 1
            self.opened += 1
        return self._release

    def _release(self) -> None:
        with self._lock:
            self.leases -= 1


@dataclass(frozen=True)
class Response:
    status: int
    fields: dict[str, list[str]]
    body: bytes

    def __getitem__(self, name: str) -> str:
        """The only value of a field."""
        (value,) = self.fields[name.lower()]
        return value

    @property
    def session(self) -> str:
        return self["Session"].partition(";")[0]

    @property
    def server_ports(self) -> tuple[int, int]:
        match = re.search(r";server_port=(\d+)-(\d+)", self["Transport"])
        assert match, self["Transport"]
        return int(match[1]), int(match[2])


@dataclass(frozen=True)
class MediaUnit:
    """The RTP packets of an access unit; `number` is that of the encoder's packet."""

    number: int
    is_keyframe: bool
    sequence: int
    timestamp: int
    has_report: bool  # among what was received before the next unit


class Peer:
    """A client's connection: sends requests, and reads responses and interleaved packets."""

    def __init__(self, address: tuple[str, int], *, small_buffers: bool = False) -> None:
        self.url = f"rtsp://{address[0]}:{address[1]}/cam0"
        self.socket = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET)
        if ":" in address[0]:
            self.url = f"rtsp://[{address[0]}]:{address[1]}/cam0"
        if small_buffers:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # packets are not answered
        self.socket.settimeout(PATIENCE_S)
        self.socket.connect(address)
        self.cseq = 0
        self.session = self.transport = ""
        self.packets: list[tuple[int, bytes]] = []  # interleaved, not yet read
        self._buffer = b""

    # --- requests ---------------------------------------------------------------------------------------------

    def send(self, data: bytes | str) -> None:
        self.socket.sendall(data.encode() if isinstance(data, str) else data)

    def request(self, method: str, url: str | None = None, body: bytes = b"", **fields: str) -> Response:
        self.send_request(method, url, body, **fields)
        return self.response()

    def send_request(self, method: str, url: str | None = None, body: bytes = b"", **fields: str) -> None:
        self.cseq += 1
        if self.session and "session" not in map(str.lower, fields):
            fields["Session"] = self.session
        lines = [f"{method} {url or self.url} RTSP/1.0", f"CSeq: {self.cseq}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in fields.items() if value]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        self.send("\r\n".join([*lines, "", ""]).encode("latin-1") + body)

    def set_up(self, transport: str = TCP) -> Response:
        response = self.request("SETUP", self.url + "/trackID=0", Transport=transport)
        assert response.status == 200, response
        self.session, self.transport = response.session, response["Transport"]
        return response

    def play(self, transport: str = TCP) -> Response:
        """DESCRIBE, SETUP and PLAY; the response to the last."""
        assert self.request("DESCRIBE").status == 200
        self.set_up(transport)
        response = self.request("PLAY")
        assert response.status == 200, response
        return response

    # --- what is received -------------------------------------------------------------------------------------

    def response(self) -> Response:
        """The next response; interleaved packets before it are kept."""
        while True:
            part = self._part()
            if not isinstance(part, Response):
                self.packets.append(part)
                continue
            if self.cseq and part.fields.get("cseq"):
                assert part["CSeq"] == str(self.cseq), (part, self.cseq)
            return part

    def packet(self) -> tuple[int, bytes]:
        """The next interleaved packet: its channel and content."""
        if self.packets:
            return self.packets.pop(0)
        part = self._part()
        assert not isinstance(part, Response), part
        return part

    def unit(self) -> MediaUnit:
        """The next access unit; with the reports directly behind it, as far as they have been received."""
        packets: list[bytes] = []
        while not packets or not packets[-1][1] & 0x80:
            channel, data = self.packet()
            if channel % 2 == 0:
                packets.append(data)
        has_report = bool(self.packets) and self.packets[0][0] % 2 == 1
        if not self.packets and self._buffer[:1] == b"$" and self._buffer[1] % 2 == 1:
            self.packets.append(self.packet())
            has_report = True
        return read_unit(packets, has_report=has_report)

    def has_ended(self) -> bool:
        """Read until the server closes the connection; whether it does."""
        with contextlib.suppress(ConnectionError):
            while data := self.socket.recv(1 << 20):
                self._buffer += data
        return True

    def has_data(self) -> bool:
        """Whether there is more to read within a moment."""
        return bool(self.packets or self._buffer or select.select([self.socket], [], [], 0.02)[0])

    @property
    def rest(self) -> bytes:
        """What was received and not read."""
        return self._buffer

    def close(self) -> None:
        self.socket.close()

    def _part(self) -> Response | tuple[int, bytes]:
        if self._need(1) == b"$":
            length = struct.unpack(">H", self._need(4)[2:])[0]
            data = self._take(4 + length)
            return data[1], data[4:]
        while b"\r\n\r\n" not in self._buffer:
            self._receive()
        head = self._take(self._buffer.index(b"\r\n\r\n") + 4).decode()
        first, *lines = head.split("\r\n")[:-2]
        match = _STATUS_LINE.fullmatch(first)
        assert match, head
        fields: dict[str, list[str]] = {}
        for line in lines:
            name, _, value = line.partition(": ")
            fields.setdefault(name.lower(), []).append(value)
        return Response(int(match[1]), fields, self._take(int(fields.get("content-length", ["0"])[0])))

    def _need(self, size: int) -> bytes:
        while len(self._buffer) < size:
            self._receive()
        return self._buffer[:size]

    def _take(self, size: int) -> bytes:
        result = self._need(size)
        self._buffer = self._buffer[size:]
        return result

    def _receive(self) -> None:
        data = self.socket.recv(1 << 16)
        assert data, f"the connection was closed after {self._buffer!r}"
        self._buffer += data


class UdpReceiver:
    """A client's ports."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.rtp, self.rtcp = (socket.socket(family, socket.SOCK_DGRAM) for _ in range(2))
        for each in (self.rtp, self.rtcp):
            each.bind((host, 0))
            each.settimeout(PATIENCE_S)
        self.transport = f"RTP/AVP;unicast;client_port={self.rtp.getsockname()[1]}-{self.rtcp.getsockname()[1]}"

    def unit(self) -> MediaUnit:
        packets: list[bytes] = []
        while not packets or not packets[-1][1] & 0x80:
            packets.append(self.rtp.recv(65536))
        return read_unit(packets)

    def close(self) -> None:
        self.rtp.close()
        self.rtcp.close()


def is_goodbye(report: bytes) -> bool:
    """Whether an RTCP packet ends with BYE (RFC 3550, 6.6) for one source."""
    return report[-8:-4] == b"\x81\xcb\0\1"


def read_unit(packets: Sequence[bytes], *, has_report: bool = False) -> MediaUnit:
    sequences = [struct.unpack(">H", packet[2:4])[0] for packet in packets]
    assert sequences == [(sequences[0] + index) & 0xFFFF for index in range(len(packets))]
    (timestamp,) = {struct.unpack(">I", packet[4:8])[0] for packet in packets}
    is_keyframe = packets[0][12:] == SPS
    picture = packets[2] if is_keyframe else packets[0]
    start = 14 if picture[12] & 0x1F == 28 else 13
    return MediaUnit(int(picture[start : start + 8]), is_keyframe, sequences[0], timestamp, has_report)


class ManualClock:
    """A clock of the event loop that stands still until `Stage.advance`, so that no time limit depends on the load."""

    def __init__(self) -> None:
        self.now_s = float(int(time.monotonic()))  # whole, so that sums of durations are exact
        self.wall_offset_s = 1.7e9

    def __call__(self) -> float:
        return self.now_s

    def wall(self) -> float:
        """Unix time."""
        return self.now_s + self.wall_offset_s


@dataclass
class Stage:
    """A running server with its event loop; with a `clock` of the test, or the monotonic one."""

    passwords: tuple[str, ...] = ()
    limits: ServerLimits = field(default_factory=ServerLimits)
    host: str = "127.0.0.1"
    sender: BatchSender | None = None
    wall_clock: Clock | None = None  # by default that of `clock`
    clock: ManualClock | None = None
    stream_limits: StreamLimits | None = None
    check_key: CheckKey | None = None  # by default that of a brake

    def __post_init__(self) -> None:
        self.crashes: list[str] = []
        self.video = FakeEncoder()
        self.camera = FakeCamera()
        self.loop = EventLoop("event-loop", self.crashes.append, clock=self.clock or time.monotonic)
        self.stream = RtpStream(
            self.video,
            self.loop,
            self.crashes.append,
            bitrate=fixed_bitrate(4_000_000),
            sender=self.sender,
            wall_clock=self.wall_clock or (time.time if self.clock is None else self.clock.wall),
            limits=self.stream_limits,
        )
        self.sub_video = FakeEncoder()
        sub = RtpStream(self.sub_video, self.loop, self.crashes.append, bitrate=fixed_bitrate(300_000))
        self.server = RtspServer(
            self.loop,
            {**dict.fromkeys(("", "stream", "cam0"), self.stream), "sub": sub},
            self.camera.lease,
            self.passwords,
            lambda: self.camera.state,
            self.crashes.append,
            self.limits,
            check_key=self.check_key or KeyBrake(self.loop).check,
        )
        self.clients: list[Peer | UdpReceiver] = []
        listener = listening_socket(self.host, 0)
        self.address: tuple[str, int] = listener.getsockname()[:2]
        self.url = self.server.start(listener)
        self.loop.start()

    def connect(self, *, small_buffers: bool = False) -> Peer:
        peer = Peer(self.address, small_buffers=small_buffers)
        self.clients.append(peer)
        return peer

    def ports(self) -> UdpReceiver:
        ports = UdpReceiver(self.host)
        self.clients.append(ports)
        return ports

    def flow(self, fps: float = FPS) -> Flow:
        """Frames, while the block runs."""
        is_over = threading.Event()

        def run() -> None:
            while not is_over.wait(1 / fps):
                self.video.deliver()

        return Flow(run, is_over)

    def settle(self) -> None:
        """Wait until the loop has made all calls so far."""
        is_done = threading.Event()
        assert self.loop.call(is_done.set)
        assert is_done.wait(PATIENCE_S)

    def advance(self, duration_s: float) -> None:
        """Let time pass at once, after all calls so far; wait until the timers that are due have fired."""
        clock, is_done = self.clock, threading.Event()
        assert clock is not None

        def advance() -> None:
            clock.now_s += duration_s
            self.loop.call_later(0, is_done.set)  # behind all others that are due

        assert self.loop.call(advance)
        assert is_done.wait(PATIENCE_S)

    def wait_subscribed(self) -> None:
        eventually(lambda: self.video.sinks, "a subscription")

    def wait_idle(self) -> None:
        """No viewers, no leases, no subscription."""
        eventually(
            lambda: (self.server.viewer_count, self.camera.leases, len(self.video.sinks)) == (0, 0, 0),
            "that everything was released",
        )

    def stop(self) -> None:
        self.loop.stop(soon())
        for client in self.clients:
            client.close()
        assert self.crashes == []
        eventually(lambda: self.camera.leases == 0, "that one acquired meanwhile was released")
