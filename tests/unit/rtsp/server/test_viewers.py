"""What a viewer is sent: the packets of a unit in the form that it needs, and the reports behind them."""

import socket

import pytest

from softcam.h264.ring import Ring
from softcam.net.udp import PortPair, sockaddr
from softcam.rtsp.rtp import interleave
from softcam.rtsp.server.transport import Interleaved
from softcam.rtsp.server.viewers import AccessUnit, TcpViewer, UdpViewer, send_datagram
from tests.support.timeouts import PATIENCE_S

PACKETS = [b"\x80\x60" + bytes([number]) * 98 for number in range(4)]
REPORT = b"\x80\xc8report"
FIRST_REPORT = b"\x80\xc8first report"


def make(report: bytes = b"") -> AccessUnit:
    return AccessUnit(
        number=1,
        packets=PACKETS,
        is_keyframe=True,
        began_s=0.0,
        made_s=0.0,
        sequence=0,
        timestamp=0,
        total=(4, 400),
        report=report,
    )


class Connection:
    """Keeps what a viewer by TCP is sent."""

    fd = -1
    is_idle = True

    def continue_part(self, _part: bytes, _sent: int) -> None: ...

    def flush(self) -> None: ...


def test_interleaved_unit() -> None:
    """The packets, and a report in the channel for it; made once for all viewers with these channels."""
    unit = make(REPORT)
    part = unit.interleaved(Interleaved(2, 3))
    assert part == interleave(PACKETS, 2) + interleave([REPORT], 3)
    assert unit.interleaved(Interleaved(2, 3)) is part
    assert unit.interleaved(Interleaved(0, 1)) == interleave(PACKETS, 0) + interleave([REPORT], 1)


def test_many_channels_keep_few_copies() -> None:
    unit = make()
    for number in range(0, 100, 2):
        assert unit.interleaved(Interleaved(number, number + 1)) == interleave(PACKETS, number)
    assert len(unit._interleaved) == 4


@pytest.mark.parametrize(
    ("report", "expected"), [(b"", [FIRST_REPORT]), (REPORT, [REPORT])], ids=["alone", "with that of the stream"]
)
def test_first_report_of_a_tcp_viewer(report: bytes, expected: list[bytes]) -> None:
    """Directly behind its first unit, once."""
    starts: list[AccessUnit] = []
    viewer = TcpViewer(
        reader=Ring[AccessUnit](lambda: None).new_reader(0.0),
        on_start=starts.append,
        on_end=lambda _: None,
        connection=Connection(),
        channels=Interleaved(0, 1),
    )
    unit = make(report)
    viewer.start(unit, FIRST_REPORT)
    assert starts == [unit]
    assert viewer.has_started
    assert viewer.part_of(unit) == interleave(PACKETS, 0) + interleave(expected, 1)
    assert viewer.part_of(make()) == interleave(PACKETS, 0)


def test_udp_viewer() -> None:
    """All packets from the RTP port, and one report from the RTCP port."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as rtp,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as rtcp,
    ):
        for each in (rtp, rtcp):
            each.bind(("127.0.0.1", 0))
            each.settimeout(PATIENCE_S)
        ports = PortPair(("127.0.0.1", 0))
        viewer = UdpViewer(
            reader=Ring[AccessUnit](lambda: None).new_reader(0.0),
            on_start=lambda _: None,
            on_end=lambda _: None,
            ports=ports,
            rtp_name=sockaddr("127.0.0.1", rtp.getsockname()[1]),
            rtcp_address=rtcp.getsockname(),
        )
        viewer.start(make(), FIRST_REPORT)
        viewer.send(make(REPORT))
        viewer.send(make())
        assert viewer.is_idle
        assert [rtp.recvfrom(2048) for _ in range(8)] == [
            (packet, ("127.0.0.1", ports.ports[0])) for packet in PACKETS * 2
        ]
        assert rtcp.recvfrom(2048) == (FIRST_REPORT, ("127.0.0.1", ports.ports[1]))
        rtcp.setblocking(False)
        with pytest.raises(BlockingIOError):
            rtcp.recv(2048)
        ports.close()


def test_datagram_without_a_way() -> None:
    """It is lost, as any may be."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as connection:
        send_datagram(connection, bytes(70_000), ("127.0.0.1", 9))
    send_datagram(connection, b"x", ("127.0.0.1", 9))
