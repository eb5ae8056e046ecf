"""Datagrams to many addresses: every one arrives whole and in order, whether or not the kernel splits them."""

import contextlib
import ctypes
import errno
import socket
import struct
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from softcam.net import sockets
from softcam.net.udp import DatagramSender, Message, PortPair, Run, bind_datagrams, runs_of, sockaddr
from tests.support.timeouts import PATIENCE_S

LOOPBACK = {"IPv4": "127.0.0.1", "IPv6": "::1"}
# An access unit of a keyframe: parameter sets, packets of one size and a shorter one, a small unit behind them.
UNIT = [b"s" * 20, b"p" * 8, *(bytes([number]) * 1400 for number in range(120)), b"e" * 700, b"t" * 30]


def split(runs: list[Run]) -> list[bytes]:
    return [run.data[at : at + run.size] for run in runs for at in range(0, len(run.data), run.size)]


@pytest.mark.parametrize(
    ("sizes", "runs"),
    [
        ([], []),
        ([5], [(5, 5)]),
        ([5, 5, 5], [(15, 5)]),
        ([5, 5, 3], [(13, 5)]),
        ([5, 3, 3], [(8, 5), (3, 3)]),
        ([3, 5], [(3, 3), (5, 5)]),
        ([3, 5, 5, 4, 5], [(3, 3), (14, 5), (5, 5)]),
        ([20000] * 5, [(60000, 20000), (40000, 20000)]),
    ],
)
def test_runs(sizes: list[int], runs: list[tuple[int, int]]) -> None:
    assert [(len(run.data), run.size) for run in runs_of(bytes(size) for size in sizes)] == runs


def test_runs_without_splitting() -> None:
    assert [run.data for run in runs_of(UNIT, 1)] == UNIT


@given(st.lists(st.integers(1, 1500).flatmap(lambda size: st.binary(min_size=size, max_size=size)), max_size=150))
def test_any_datagrams(datagrams: list[bytes]) -> None:
    for max_segments in (1, 3, 64):
        runs = runs_of(datagrams, max_segments)
        assert split(runs) == datagrams
        for run in runs:
            assert len(run.data) <= 65000
            assert -(-len(run.data) // run.size) <= max_segments


class Receivers:
    """Sockets of viewers at one address, and what they receive."""

    def __init__(self, host: str, count: int, *, buffer: int = 1 << 20) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.sockets = [socket.socket(family, socket.SOCK_DGRAM) for _ in range(count)]
        for each in self.sockets:
            each.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
            each.bind((host, 0))
            each.settimeout(PATIENCE_S)
        self.names = [sockaddr(host, each.getsockname()[1]) for each in self.sockets]

    def received(self, index: int, count: int) -> list[bytes]:
        return [self.sockets[index].recv(65536) for _ in range(count)]

    def is_empty(self, index: int) -> bool:
        self.sockets[index].setblocking(False)
        with contextlib.suppress(BlockingIOError):
            return not self.sockets[index].recv(65536)
        return True

    def close(self) -> None:
        for each in self.sockets:
            each.close()


@pytest.fixture(params=LOOPBACK.values(), ids=list(LOOPBACK))
def host(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def receivers(host: str) -> Iterator[Receivers]:
    receivers = Receivers(host, 3)
    yield receivers
    receivers.close()


@pytest.fixture
def pair(host: str) -> Iterator[PortPair]:
    pair = PortPair((host, 8554))
    yield pair
    pair.close()


@pytest.mark.parametrize("can_split", [True, False, None])
def test_every_viewer_gets_every_datagram(receivers: Receivers, pair: PortPair, can_split: bool | None) -> None:
    sender = DatagramSender(pair.rtp, can_split=can_split)
    runs = runs_of(UNIT, sender.max_segments)
    assert len(runs) == (len(UNIT) if can_split is False else 5)
    assert sender.send_to_each(receivers.names, runs) == {}
    for index in range(3):
        assert receivers.received(index, len(UNIT)) == UNIT
        assert receivers.is_empty(index)


def test_nothing_to_send(receivers: Receivers, pair: PortPair) -> None:
    assert pair.sender.send_to_each([], runs_of(UNIT)) == {}
    assert pair.sender.send_to_each(receivers.names, []) == {}
    assert receivers.is_empty(0)


class Kernel:
    """Stands for sendmmsg(2) where a real socket cannot be made to fail: accepts messages before the nth one.

    With `only_split`, others are accepted, and not counted.
    """

    def __init__(self, number: int, error: int, *, only_split: bool = False) -> None:
        self._left, self._error, self._only_split = number, error, only_split
        self.is_failing = True

    def __call__(self, fd: int, start: Any, count: int, flags: int) -> int:
        messages = ctypes.cast(start, ctypes.POINTER(Message))
        accepted = 0
        while accepted < count and self._accepts(messages[accepted]):
            accepted += 1
        if accepted:
            return int(sockets.libc.sendmmsg(fd, start, accepted, flags))
        ctypes.set_errno(self._error)
        return -1

    def _accepts(self, message: Any) -> bool:
        if not self.is_failing or (self._only_split and not message.header.control_size):
            return True
        self._left -= 1
        return self._left >= 0


@pytest.mark.parametrize("number", range(8))
def test_no_room(number: int, host: str, pair: PortPair) -> None:
    """The rest is returned for each address; sent later, everything has arrived, in order."""
    receivers = Receivers(host, 3)
    kernel = Kernel(number, errno.EAGAIN)
    sender = DatagramSender(pair.rtp, send=kernel)
    runs = runs_of(UNIT, sender.max_segments)
    unsent = sender.send_to_each(receivers.names, runs)
    assert unsent == {index: number // 3 + (index < number % 3) for index in range(3)}
    kernel.is_failing = False
    for index, first in unsent.items():
        assert sender.send_to_each([receivers.names[index]], runs[first:]) == {}
    for index in range(3):
        assert receivers.received(index, len(UNIT)) == UNIT
    receivers.close()


def test_no_room_in_the_last_run(host: str, pair: PortPair) -> None:
    """Those that got everything are not among the unsent ones."""
    receivers = Receivers(host, 3)
    sender = DatagramSender(pair.rtp, send=Kernel(2, errno.ENOBUFS))
    assert sender.send_to_each(receivers.names, [Run(b"x", 1)]) == {2: 0}
    receivers.close()


@pytest.mark.parametrize("number", range(1, 6))
@pytest.mark.parametrize("error", [errno.EIO, errno.EINVAL])
def test_kernel_cannot_split(number: int, error: int, receivers: Receivers, pair: PortPair) -> None:
    """From the nth message with several datagrams on: found out once, without a loss for any viewer."""
    sender = DatagramSender(pair.rtp, can_split=True, send=Kernel(number - 1, error, only_split=True))
    assert sender.send_to_each(receivers.names, runs_of(UNIT)) == {}
    assert sender.max_segments == 1
    for index in range(3):
        assert receivers.received(index, len(UNIT)) == UNIT
        assert receivers.is_empty(index)


def test_small_path_mtu(receivers: Receivers, pair: PortPair) -> None:
    """What the kernel does not split for one address is sent to it datagram by datagram; others are split as before."""
    small = receivers.names[1]
    messages = 0

    def send(fd: int, start: Any, count: int, flags: int) -> int:
        nonlocal messages
        for index in range(count):
            header = ctypes.cast(start, ctypes.POINTER(Message))[index].header
            if header.control and ctypes.string_at(header.name, header.name_size) == small:
                if index == 0:
                    ctypes.set_errno(errno.EMSGSIZE)
                    return -1
                count = index
                break
        messages += count
        return int(sockets.libc.sendmmsg(fd, start, count, flags))

    sender = DatagramSender(pair.rtp, can_split=True, send=send)
    runs = runs_of(UNIT, sender.max_segments)
    assert sender.send_to_each(receivers.names, runs) == {}
    assert messages == 2 * len(runs) + len(UNIT)
    for index in range(3):
        assert receivers.received(index, len(UNIT)) == UNIT
        assert receivers.is_empty(index)


def test_unreachable_viewer(host: str, pair: PortPair) -> None:
    """The others get everything; nothing is kept for one that cannot be reached."""
    receivers = Receivers(host, 2)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    broken = struct.pack("=H", 255 - family) + receivers.names[0][2:]
    names = [receivers.names[0], broken, receivers.names[1]]
    runs = runs_of(UNIT, 1)
    sender = DatagramSender(pair.rtp, can_split=False)
    assert sender.send_to_each(names, runs) == {}
    for index in range(2):
        assert receivers.received(index, len(UNIT)) == UNIT
    receivers.close()


def test_kernel_without_splitting() -> None:
    """Before Linux 4.18 the option is unknown."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:  # has no such option either
        assert DatagramSender(other).max_segments == 1


def test_closed_socket() -> None:
    pair = PortPair(("127.0.0.1", 0))
    pair.close()
    assert pair.sender.send_to_each([sockaddr("127.0.0.1", 9)], [Run(b"x", 1)]) == {}


def test_more_messages_than_a_call_accepts(host: str, pair: PortPair) -> None:
    receivers = Receivers(host, 1, buffer=4 << 20)
    datagrams = [struct.pack(">I", number) for number in range(1500)]
    sender = DatagramSender(pair.rtp, can_split=False)
    position = 0
    while unsent := sender.send_to_each(receivers.names, runs_of(datagrams, 1)[position:]):
        position += unsent[0]
    received = receivers.received(0, 100)
    assert received == datagrams[:100]
    receivers.close()


def test_port_pairs(host: str, no_leaks: Callable[[], contextlib.AbstractContextManager[None]]) -> None:
    """Even for RTP, the next one for RTCP (RFC 3550, 11), whatever ports are in use."""
    with no_leaks():
        pairs = [PortPair((host, 0)) for _ in range(40)]
        for pair in pairs:
            assert pair.ports == (pair.rtp.getsockname()[1], pair.rtcp.getsockname()[1])
            assert pair.ports[0] % 2 == 0
            assert pair.ports[1] == pair.ports[0] + 1
            assert not pair.rtp.getblocking()
            buffers = [each.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) for each in (pair.rtp, pair.rtcp)]
            assert buffers[0] > buffers[1]
        assert len({pair.ports for pair in pairs}) == len(pairs)
        for pair in pairs:
            pair.close()


def test_port_in_use(no_leaks: Callable[[], contextlib.AbstractContextManager[None]]) -> None:
    """That next to the first one: another pair is tried."""
    bound: list[int] = []

    def bind(family: int, address: tuple[str | int, ...]) -> socket.socket:
        bound.append(int(address[1]))
        if len(bound) % 2 == 0 and len(bound) < 6:
            raise OSError(errno.EADDRINUSE, "Address already in use")
        return bind_datagrams(family, address)

    with no_leaks():
        pair = PortPair(("127.0.0.1", 8554), bind=bind)
        assert [port == 0 for port in bound] == [True, False] * 3
        assert bound[-1] in pair.ports
        pair.close()
        bound.clear()
        with pytest.raises(OSError, match="Address already in use"):
            PortPair(("127.0.0.1", 8554), attempts=2, bind=bind)


def test_fail_port_pair(no_leaks: Callable[[], contextlib.AbstractContextManager[None]]) -> None:
    with no_leaks():
        with pytest.raises(OSError, match="assign"):
            PortPair(("192.0.2.1", 0), attempts=3)
        with pytest.raises(OSError, match="no pair"):
            PortPair(("127.0.0.1", 0), attempts=0)


def test_addresses() -> None:
    assert sockaddr("192.0.2.1", 5000) == struct.pack("=H", socket.AF_INET) + bytes.fromhex("1388c0000201") + bytes(8)
    name = sockaddr("fe80::1%eth0", 5000, 3)
    assert name == struct.pack("=HHI", socket.AF_INET6, socket.htons(5000), 0) + bytes.fromhex("fe80") + bytes(13) + (
        b"\x01" + struct.pack("=I", 3)
    )


def test_scope_of_link_local_addresses() -> None:
    """Binding to one fails without the interface; `::1` accepts that of loopback."""
    pair = PortPair(("::1", 8554, 0, socket.if_nametoindex("lo")))
    assert pair.rtp.getsockname()[3] in (0, socket.if_nametoindex("lo"))
    pair.close()
