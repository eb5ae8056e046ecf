"""The UDP sockets that viewers share: when they are opened and closed, and what is read from them."""

import socket
import threading
from collections.abc import Iterator
from functools import partial

import pytest

from softcam.net.event_loop import EventLoop
from softcam.net.udp import PortPair
from softcam.rtsp.server.ports import PeerAddress, Ports
from tests.support.background import eventually, soon
from tests.support.rtsp_viewers import Stage
from tests.support.timeouts import PATIENCE_S

LOCAL = ("127.0.0.1", 8554)


class Desk:
    """Ports on a running loop, and what they report."""

    def __init__(self) -> None:
        crashes: list[str] = []
        self.reports: list[tuple[PortPair, PeerAddress, bytes]] = []
        self.loop = EventLoop("event-loop", crashes.append)
        self.ports = Ports(self.loop, lambda *report: self.reports.append(report), lambda _: None)
        self.crashes = crashes
        self.loop.start()

    def acquire(self, *locals_: tuple[str | int, ...]) -> list[PortPair]:
        """The pairs of these addresses, registered."""
        pairs: list[PortPair] = []
        self.loop.call(lambda: pairs.extend(map(self.ports.acquire_pair, locals_)))
        self._settle()
        self._settle()  # sockets are registered by a second call
        return pairs

    def release(self, *pairs: PortPair) -> None:
        for pair in pairs:
            self.loop.call(partial(self.ports.release_pair, pair))
        self._settle()

    def _settle(self) -> None:
        is_done = threading.Event()
        self.loop.call(is_done.set)
        assert is_done.wait(PATIENCE_S)


@pytest.fixture
def desk() -> Iterator[Desk]:
    desk = Desk()
    yield desk
    assert desk.loop.stop(soon())
    assert desk.crashes == []


def test_one_pair_for_each_local_address(desk: Desk) -> None:
    first, second, other = pairs = desk.acquire(LOCAL, ("127.0.0.1", 9554), ("127.0.0.2", 8554))
    assert first is second
    assert other is not first
    desk.release(first)
    assert first.rtp.fileno() >= 0
    desk.release(*pairs[1:])
    assert [each.fileno() for pair in pairs for each in (pair.rtp, pair.rtcp)] == [-1] * 6


def test_reports(desk: Desk) -> None:
    """From both sockets, with the address that they come from; also more than are read at once."""
    (pair,) = desk.acquire(LOCAL)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.bind(("127.0.0.1", 0))
        for port in pair.ports:
            for number in range(100):
                client.sendto(bytes([number]), ("127.0.0.1", port))
        eventually(lambda: len(desk.reports) == 200, "that all were read")
        assert {(report[0], report[1]) for report in desk.reports} == {(pair, client.getsockname())}
    assert sorted(report[2][0] for report in desk.reports) == sorted([*range(100)] * 2)
    desk.release(pair)


def test_long_datagram(desk: Desk) -> None:
    """Only its beginning is read."""
    (pair,) = desk.acquire(LOCAL)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.sendto(bytes(60_000), ("127.0.0.1", pair.ports[1]))
        eventually(lambda: desk.reports, "a report")
    assert len(desk.reports[0][2]) == 2048
    desk.release(pair)


def test_viewers_share_ports(stage: Stage) -> None:
    """One pair for each local address, closed with the last viewer and opened again; also within one turn."""
    peers = [stage.connect() for _ in range(3)]
    receivers = [stage.ports() for _ in peers]
    with stage.flow():
        for _ in range(3):
            for peer, ports in zip(peers, receivers, strict=True):
                peer.session = ""
                peer.play(ports.transport)
            assert len({peer.transport.partition("server_port")[2] for peer in peers}) == 1
            for ports in receivers:
                ports.unit()
            for peer in peers:
                assert peer.request("TEARDOWN").status == 200
            stage.wait_idle()
            # TEARDOWN and SETUP in one packet.
            peer = peers[0]
            peer.session = ""
            peer.set_up(receivers[0].transport)
            again = f"Transport: {receivers[0].transport}\r\nCSeq: 2\r\n\r\n"
            peer.send(
                f"TEARDOWN * RTSP/1.0\r\nSession: {peer.session}\r\nCSeq: 1\r\n\r\nSETUP {peer.url} RTSP/1.0\r\n{again}"
            )
            peer.cseq = 0
            assert [peer.response().status for _ in range(2)] == [200, 200]
            peer.session = ""
            assert peer.request("TEARDOWN").status == 200


def test_ports_of_one_turn(stage: Stage) -> None:
    """SETUP and TEARDOWN in one packet: the sockets are closed before they were watched."""
    peer, ports = stage.connect(), stage.ports()
    with stage.flow():
        assert peer.request("DESCRIBE").status == 200
        peer.send(f"SETUP {peer.url} RTSP/1.0\r\nCSeq: 2\r\nTransport: {ports.transport}\r\n\r\n")
        peer.send(f"TEARDOWN {peer.url} RTSP/1.0\r\nCSeq: 3\r\n\r\n")
        peer.cseq = 0
        assert [peer.response().status for _ in range(2)] == [200, 200]
        stage.wait_idle()
