"""Viewers of an RTP stream, by TCP and by UDP: what each gets next, and how it is sent. Runs on the event loop."""

import contextlib
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from softcam.h264.ring import Reader
from softcam.net.udp import PortPair, Run, runs_of
from softcam.rtsp.rtp import interleave
from softcam.rtsp.server.transport import Interleaved

# Almost all viewers use 0-1. Viewers with many others must not keep a copy of the ring for each.
_MAX_INTERLEAVED: Final = 4


@dataclass(frozen=True, eq=False, slots=True)
class AccessUnit:
    """The RTP packets of an access unit, made once for all viewers. `made_s` is on the clock of the event loop."""

    number: int  # increases by one from unit to unit
    packets: list[bytes]
    is_keyframe: bool
    began_s: float
    made_s: float
    sequence: int  # of the first packet
    timestamp: int
    total: tuple[int, int]  # packets and octets of the stream so far, for reports
    report: bytes = b""  # a sender report that follows the packets, for every viewer
    _interleaved: dict[Interleaved, bytes] = field(default_factory=dict, init=False)  # as they are needed
    _runs: dict[int, list[Run]] = field(default_factory=dict, init=False)

    def interleaved(self, channels: Interleaved) -> bytes:
        part = self._interleaved.get(channels)
        if part is None:
            part = interleave(self.packets, channels.rtp)
            part += interleave([self.report] if self.report else [], channels.rtcp)
            if len(self._interleaved) < _MAX_INTERLEAVED:
                self._interleaved[channels] = part
        return part

    def runs(self, max_segments: int) -> list[Run]:
        if max_segments not in self._runs:
            self._runs[max_segments] = runs_of(self.packets, max_segments)
        return self._runs[max_segments]


class MediaConnection(Protocol):
    """The RTSP connection of a viewer by TCP."""

    @property
    def fd(self) -> int: ...

    @property
    def is_idle(self) -> bool:
        """Everything was sent."""

    def continue_part(self, part: bytes, sent: int) -> None:
        """Of `part` the kernel has accepted `sent` bytes; a negative number is an errno."""

    def flush(self) -> None:
        """Send what there is, also from the stream."""


@dataclass(eq=False, slots=True, kw_only=True)
class Viewer:
    """One viewer; `on_start` is called with the first unit before that is sent, `on_end` when the stream ends it."""

    reader: Reader[AccessUnit]
    on_start: Callable[[AccessUnit], None]
    on_end: Callable[[str], None]
    has_started: bool = field(default=False, init=False)
    _first_report: bytes = field(default=b"", init=False)  # directly behind the first unit

    def start(self, keyframe: AccessUnit, report: bytes) -> None:
        """It begins with this keyframe, and the report directly behind."""
        self.has_started = True
        self._first_report = report
        self.on_start(keyframe)


@dataclass(eq=False, slots=True, kw_only=True)
class TcpViewer(Viewer):
    connection: MediaConnection
    channels: Interleaved

    @property
    def is_idle(self) -> bool:
        return self.connection.is_idle

    def part_of(self, unit: AccessUnit) -> bytes:
        part = unit.interleaved(self.channels)
        if self._first_report and not unit.report:
            part += interleave([self._first_report], self.channels.rtcp)
        self._first_report = b""
        return part


@dataclass(eq=False, slots=True, kw_only=True)
class UdpViewer(Viewer):
    """`rtp_name` is the address as `net.udp.sockaddr` returns it, `rtcp_address` as a socket expects it."""

    ports: PortPair
    rtp_name: bytes
    rtcp_address: tuple[str | int, ...]
    _unsent: list[Run] = field(default_factory=list, init=False)  # of the last unit

    @property
    def is_idle(self) -> bool:
        return not self._unsent

    def send(self, unit: AccessUnit) -> None:
        self._unsent = unit.runs(self.ports.sender.max_segments)
        self.send_rest()
        report, self._first_report = self._first_report or unit.report, b""
        self.send_report(report)

    def keep_rest(self, runs: list[Run]) -> None:
        """The socket had no room for these."""
        self._unsent = runs

    def send_rest(self) -> None:
        """What could not be sent, as far as there is room for it."""
        if self._unsent:
            unsent = self.ports.sender.send_to_each([self.rtp_name], self._unsent)
            self._unsent = self._unsent[unsent[0] :] if unsent else []

    def send_report(self, report: bytes) -> None:
        if report:
            send_datagram(self.ports.rtcp, report, self.rtcp_address)


def send_datagram(connection: socket.socket, data: bytes, address: tuple[str | int, ...]) -> None:
    """Send one datagram, which may be lost, as any may."""
    with contextlib.suppress(OSError):
        connection.sendto(data, socket.MSG_DONTWAIT, address)
