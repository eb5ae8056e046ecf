"""The same datagrams to many addresses by one system call: sendmmsg(2), with UDP_SEGMENT where the kernel has it.

With UDP_SEGMENT (Linux 4.18, udp(7)) a run of datagrams of one size is one message for the kernel, which splits it.
Layouts: recvmsg(2), sendmmsg(2), cmsg(3). No thread here; a `DatagramSender` belongs to one thread.
"""

import ctypes
import errno
import ipaddress
import socket
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from softcam.net import sockets
from softcam.net.sockets import SEND_FLAGS, address_of

_SOL_UDP: Final = 17
_UDP_SEGMENT: Final = 103
_MAX_SEGMENTS: Final = 64  # UDP_MAX_SEGMENTS of include/linux/udp.h
_MAX_BYTES: Final = 65_000  # below the longest datagram
_MAX_MESSAGES: Final = 1024  # UIO_MAXIOV
_SEND_BUFFER_BYTES: Final = 1 << 20  # a keyframe for several viewers; the kernel may allow less

# sendmmsg(2): of a socket's number, the messages, how many, and flags; the number sent, or -1 with ctypes' errno.
SendMessages = Callable[[int, Any, int, int], int]
Bind = Callable[[int, tuple[str | int, ...]], socket.socket]  # of an address family, and the address; raises OSError


class _IoVec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("size", ctypes.c_size_t))


class _Header(ctypes.Structure):
    """msghdr"""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_size", ctypes.c_uint32),
        ("parts", ctypes.c_void_p),
        ("part_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_size", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class Message(ctypes.Structure):
    """mmsghdr, of which sendmmsg(2) gets an array."""

    _fields_ = (("header", _Header), ("sent", ctypes.c_uint))


class _Segment(ctypes.Structure):
    """A control message with the size of the datagrams; the header is padded as CMSG_SPACE does."""

    _fields_ = (
        ("size", ctypes.c_size_t),
        ("level", ctypes.c_int),
        ("kind", ctypes.c_int),
        ("value", ctypes.c_uint16),
        ("padding", ctypes.c_uint8 * (ctypes.sizeof(ctypes.c_size_t) - 2)),
    )


_SEGMENT_SIZE: Final = _Segment.value.offset + 2


@dataclass(frozen=True, slots=True)
class Run:
    """Datagrams in a row, each of `size` bytes but the last one, which may be shorter."""

    data: bytes
    size: int


def runs_of(datagrams: Iterable[bytes], max_segments: int = _MAX_SEGMENTS) -> list[Run]:
    """Datagrams as the fewest runs."""
    runs: list[Run] = []
    current: list[bytes] = []
    size = total = 0
    for datagram in datagrams:
        is_full = len(current) >= max_segments or total + len(datagram) > _MAX_BYTES
        if current and (is_full or len(datagram) > size or len(current[-1]) < size):
            runs.append(Run(b"".join(current), size))
            current = []
        if not current:
            size, total = len(datagram), 0
        current.append(datagram)
        total += len(datagram)
    if current:
        runs.append(Run(b"".join(current), size))
    return runs


def sockaddr(host: str, port: int, scope: int = 0) -> bytes:
    """The address as system calls expect it."""
    ip = ipaddress.ip_address(host.partition("%")[0])
    if ip.version == 4:
        return struct.pack("=H", socket.AF_INET) + struct.pack(">H4s8x", port, ip.packed)
    return struct.pack("=H", socket.AF_INET6) + struct.pack(">HI16s", port, 0, ip.packed) + struct.pack("=I", scope)


class DatagramSender:
    """Sends runs through one socket; remembers whether the kernel can split them."""

    def __init__(
        self, connection: socket.socket, *, can_split: bool | None = None, send: SendMessages = sockets.libc.sendmmsg
    ) -> None:
        """`can_split` is found out unless it is set."""
        self._connection = connection
        self._send = send
        if can_split is None:
            try:
                connection.setsockopt(_SOL_UDP, _UDP_SEGMENT, 0)
                can_split = True
            except OSError:
                can_split = False
        self.max_segments = _MAX_SEGMENTS if can_split else 1  # for `runs_of`

    def send_to_each(self, names: Sequence[bytes], runs: Sequence[Run]) -> dict[int, int]:
        """Send the runs to each address in `names` (from `sockaddr`).

        Returns, for the addresses to which not all were sent, by index, the number of the first run that was not: the
        socket has no room now. What another error prevents (no route, a firewall) is lost, as any datagram may be.
        """
        keep, messages = self._messages(names, runs)
        unsent: dict[int, int] = {}
        position = 0
        while position < len(messages):
            count = min(len(messages) - position, _MAX_MESSAGES)
            start = ctypes.byref(messages, position * ctypes.sizeof(Message))
            sent = self._send(self._connection.fileno(), start, count, SEND_FLAGS)
            if sent > 0:
                position += sent
                continue
            number = ctypes.get_errno()
            run, index = divmod(position, len(names))
            if number in (errno.EAGAIN, errno.ENOBUFS):
                unsent = {each: run + (each < index) for each in range(len(names))}
                unsent = {each: first for each, first in unsent.items() if first < len(runs)}
                break
            if number in (errno.EIO, errno.EINVAL) and self.max_segments > 1 and len(runs[run].data) > runs[run].size:
                # The network device cannot compute checksums, which udp(7) requires for splitting.
                # What the socket has no room for is lost, this once.
                self.max_segments = 1
                self.send_to_each(names[:index], _single(runs[run + 1 :]))
                self.send_to_each(names[index:], _single(runs[run:]))
                break
            if number == errno.EMSGSIZE and len(runs[run].data) > runs[run].size:
                # Behind a VPN, for example: what has to be fragmented is not split for this address.
                self.send_to_each(names[index : index + 1], _single(runs[run : run + 1]))
            position += 1
        del keep
        return unsent

    @staticmethod
    def _messages(names: Sequence[bytes], runs: Sequence[Run]) -> "tuple[list[object], ctypes.Array[Message]]":
        """Run by run, so that each address gets them in order; with what the messages refer to."""
        messages = (Message * (len(names) * len(runs)))()
        addresses = [(address_of(name), len(name)) for name in names]
        keep: list[object] = [names, runs]
        position = 0
        for run in runs:
            part = _IoVec(address_of(run.data), len(run.data))
            control = _Segment(_SEGMENT_SIZE, _SOL_UDP, _UDP_SEGMENT, run.size)
            keep += (part, control)
            part_at = ctypes.addressof(part)
            is_split = len(run.data) > run.size
            control_at, control_size = (ctypes.addressof(control), ctypes.sizeof(control)) if is_split else (None, 0)
            for name_at, name_size in addresses:
                messages[position].header = (name_at, name_size, part_at, 1, control_at, control_size, 0)
                position += 1
        return keep, messages


def _single(runs: Sequence[Run]) -> list[Run]:
    """Each datagram as a run."""
    return [Run(run.data[at : at + run.size], run.size) for run in runs for at in range(0, len(run.data), run.size)]


def bind_datagrams(family: int, address: tuple[str | int, ...]) -> socket.socket:
    """A UDP socket that does not block."""
    connection = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        connection.bind(address)
    except OSError:
        connection.close()
        raise
    return connection


class PortPair:
    """Two UDP sockets of one local address with an even and the next port, for RTP and RTCP (RFC 3550, 11)."""

    def __init__(
        self,
        local: Sequence[str | int],
        attempts: int = 100,
        *,
        bind: Bind = bind_datagrams,
        send: SendMessages = sockets.libc.sendmmsg,
    ) -> None:
        """`local` is an address as `getsockname` returns it, whose port is ignored. Raises OSError."""
        host, _, *rest = local
        family = socket.AF_INET6 if ":" in str(host) else socket.AF_INET
        error: OSError | None = None
        for _ in range(attempts):
            first, second = bind(family, (host, 0, *rest)), None
            try:
                port = first.getsockname()[1]
                second = bind(family, (host, port ^ 1, *rest))
            except OSError as failure:
                first.close()
                error = failure
                continue
            self.rtp, self.rtcp = (second, first) if port % 2 else (first, second)
            self.rtp.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
            break
        else:
            raise error or OSError("no pair of UDP ports")
        self.ports: tuple[int, int] = (self.rtp.getsockname()[1], self.rtcp.getsockname()[1])
        self.sender = DatagramSender(self.rtp, send=send)

    def close(self) -> None:
        self.rtp.close()
        self.rtcp.close()
