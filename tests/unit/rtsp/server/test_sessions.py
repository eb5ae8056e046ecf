"""When sessions end, and what keeps them: by TCP and by UDP, with and without their connection."""

import os
import resource
import socket
from collections.abc import Callable

import pytest

from softcam.rtsp.server.handler import HandlerLimits
from softcam.rtsp.server.server import ServerLimits
from softcam.rtsp.server.sessions import SessionLimits
from tests.support.background import eventually
from tests.support.rtsp_viewers import FPS, TCP, Peer, Stage, UdpReceiver, is_goodbye

LIMITS = SessionLimits()
TIMEOUT_S = LIMITS.timeout_s + LIMITS.slack_s
STALL_S = ServerLimits().stall_s
STEP_S = 5.0  # what happens in a step may be noticed in the next one, or the one after it


def receiver_report(ssrc: int) -> bytes:
    """Of a receiver that reports on the stream with this SSRC (RFC 3550, 6.4.2)."""
    return b"\x81\xc9\0\7" + bytes(4) + ssrc.to_bytes(4) + bytes(20)


def no_sign() -> None: ...


def pass_time(stage: Stage, duration_s: float, show_life: Callable[[], object] = no_sign) -> None:
    """Step by step, each with a frame and a sign of life."""
    for _ in range(round(duration_s / STEP_S)):
        show_life()
        stage.video.deliver()
        stage.advance(STEP_S)


def wait_gone(stage: Stage) -> float:
    """Pass time until the only viewer has ended; returns how much, without the last step."""
    steps = 0
    while stage.server.viewer_count:
        pass_time(stage, STEP_S)
        steps += 1
    return (steps - 1) * STEP_S


def wait_goodbye(ports: UdpReceiver) -> None:
    report = b""
    while not is_goodbye(report):
        report = ports.rtcp.recv(2048)


def server_ports(peer: Peer) -> tuple[int, int]:
    """Those of RTP and RTCP."""
    rtp, rtcp = peer.transport.partition(";server_port=")[2].partition(";")[0].split("-")
    return int(rtp), int(rtcp)


def report_from(stage: Stage, peer: Peer, ports: UdpReceiver) -> Callable[[], object]:
    """Sends a report from these ports to that of the peer's session."""
    _, rtcp = server_ports(peer)
    report = receiver_report(stage.stream.ssrc)
    return lambda: ports.rtcp.sendto(report, (stage.host, rtcp))


def test_dead_tcp_viewer(timed_stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    """One that reads nothing ends after the stall limit; the other one gets everything."""
    caplog.set_level("INFO")
    quick, dead = timed_stage.connect(), timed_stage.connect(small_buffers=True)
    with timed_stage.flow():
        quick.play()
        dead.play()
    timed_stage.video.size = 60_000
    numbers = [quick.unit().number]
    steps = 0
    while timed_stage.server.viewer_count == 2:
        last = timed_stage.video.deliver()
        while numbers[-1] != last:
            numbers.append(quick.unit().number)
        timed_stage.advance(1.0)
        steps += 1
    assert steps > STALL_S
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert "disconnected (no data accepted for " in caplog.text
    assert quick.request("GET_PARAMETER").status == 200


def test_slow_tcp_viewer_stays(timed_stage: Stage) -> None:
    """One that reads a little, again and again."""
    peer = timed_stage.connect(small_buffers=True)
    with timed_stage.flow():
        peer.play()
    timed_stage.video.size = 60_000
    for _ in range(round(2 * STALL_S)):
        timed_stage.video.deliver(10, is_keyframe=True)
        received = 0
        while received < 200_000:
            received += len(peer.socket.recv(20_000))
        timed_stage.advance(1.0)
    assert timed_stage.server.viewer_count == 1


def test_silent_tcp_viewer_stays(timed_stage: Stage) -> None:
    """That it reads is enough: many clients send nothing, and GStreamer no reports by TCP either."""
    peer = timed_stage.connect()
    with timed_stage.flow():
        peer.play()
    pass_time(timed_stage, 2 * TIMEOUT_S, peer.unit)
    assert timed_stage.server.viewer_count == 1


def test_silent_udp_viewer(timed_stage: Stage) -> None:
    """Without requests and reports for the time-out it ends, with a goodbye, and its connection is closed."""
    peer, ports = timed_stage.connect(), timed_stage.ports()
    with timed_stage.flow():
        peer.play(ports.transport)
    assert wait_gone(timed_stage) == TIMEOUT_S
    wait_goodbye(ports)
    assert peer.has_ended()
    timed_stage.wait_idle()


def test_udp_viewers_with_requests(timed_stage: Stage) -> None:
    """Each by another sign of life."""
    peers = [timed_stage.connect() for _ in range(3)]
    with timed_stage.flow():
        for peer in peers:
            peer.play(timed_stage.ports().transport)

    def show_life() -> None:
        peers[0].send(b"$\1\0\x20" + receiver_report(0))
        assert peers[1].request("OPTIONS").status == 200
        assert peers[2].request("GET_PARAMETER").status == 200

    pass_time(timed_stage, 2 * TIMEOUT_S, show_life)
    assert timed_stage.server.viewer_count == 3


def test_udp_viewer_with_reports(timed_stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    """Also without its connection: there are clients that close it (RFC 2326, 1.1)."""
    caplog.set_level("DEBUG")
    peer, ports = timed_stage.connect(), timed_stage.ports()
    with timed_stage.flow():
        peer.play(ports.transport)
    report = report_from(timed_stage, peer, ports)
    pass_time(timed_stage, 2 * TIMEOUT_S, report)
    assert timed_stage.server.viewer_count == 1
    peer.close()
    eventually(lambda: "closed by the client" in caplog.text)
    pass_time(timed_stage, 10 * LIMITS.slack_s, report)
    assert timed_stage.server.viewer_count == 1
    assert LIMITS.slack_s - STEP_S <= wait_gone(timed_stage) < TIMEOUT_S
    wait_goodbye(ports)


@pytest.mark.parametrize("is_connected", [True, False])
def test_udp_viewer_that_says_goodbye(timed_stage: Stage, is_connected: bool, caplog: pytest.LogCaptureFixture) -> None:
    """It ends at once, the others go on. A TEARDOWN may follow, and is not an error."""
    caplog.set_level("INFO")
    peer, other = timed_stage.connect(), timed_stage.connect()
    ports, others = timed_stage.ports(), timed_stage.ports()
    with timed_stage.flow():
        peer.play(ports.transport)
        other.play(others.transport)
    if not is_connected:
        peer.close()
    _, rtcp = server_ports(peer)
    report = receiver_report(timed_stage.stream.ssrc)
    ports.rtcp.sendto(report + b"\x81\xcb\0\1else", (timed_stage.host, rtcp))  # of another source
    ports.rtcp.sendto(report + b"\x81\xcb\0\1" + report[4:8], (timed_stage.host, rtcp))
    eventually(lambda: timed_stage.server.viewer_count == 1, "that it has ended")
    assert "disconnected (goodbye by RTCP): " in caplog.text
    if is_connected:
        assert peer.request("PLAY").status == 454
        assert peer.request("TEARDOWN").status == 200
        assert peer.request("TEARDOWN", Session="").status == 200
        assert peer.request("TEARDOWN", Session="another").status == 454
        peer.session = ""
        with timed_stage.flow():
            peer.play(timed_stage.ports().transport)
        assert timed_stage.server.viewer_count == 2
        assert peer.request("TEARDOWN").status == 200
    timed_stage.video.deliver()
    assert others.unit()
    assert other.request("TEARDOWN").status == 200
    timed_stage.wait_idle()


def test_forged_goodbye(timed_stage: Stage) -> None:
    """Who sends with the client's address needs the SSRC of the stream, or that of the client's reports."""
    peer, ports = timed_stage.connect(), timed_stage.ports()
    with timed_stage.flow():
        peer.play(ports.transport)
    address = timed_stage.host, server_ports(peer)[1]
    forged = b"\x80\xc9\0\1fake\x81\xcb\0\1fake"
    own = receiver_report(timed_stage.stream.ssrc)
    ports.rtcp.sendto(forged, address)
    ports.rtcp.sendto(own, address)
    ports.rtcp.sendto(forged, address)
    pass_time(timed_stage, TIMEOUT_S + STEP_S, lambda: ports.rtcp.sendto(b"\x80\xc9\0\1" + bytes(4), address))
    assert timed_stage.server.viewer_count == 1
    ports.rtcp.sendto(b"\x80\xc9\0\1" + own[4:8] + b"\x81\xcb\0\1" + own[4:8], address)
    eventually(lambda: timed_stage.server.viewer_count == 0, "that it has ended")
    timed_stage.wait_idle()


def test_reports_of_strangers(timed_stage: Stage) -> None:
    """Only those from the ports of the client count."""
    peer, ports, stranger = timed_stage.connect(), timed_stage.ports(), timed_stage.ports()
    with timed_stage.flow():
        peer.play(ports.transport)
    pass_time(timed_stage, TIMEOUT_S + STEP_S, report_from(timed_stage, peer, stranger))
    assert timed_stage.server.viewer_count == 0


def test_connection_closed_under_udp_session(timed_stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    peer, ports = timed_stage.connect(), timed_stage.ports()
    with timed_stage.flow():
        peer.play(ports.transport)
    peer.close()
    eventually(lambda: "closed by the client" in caplog.text)
    assert wait_gone(timed_stage) == LIMITS.slack_s
    timed_stage.wait_idle()


def test_udp_session_moves_to_another_connection(timed_stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    first, ports = timed_stage.connect(), timed_stage.ports()
    with timed_stage.flow():
        first.play(ports.transport)
    second = timed_stage.connect()
    assert second.request("GET_PARAMETER", Session=first.session).status == 200
    first.close()
    eventually(lambda: "closed by the client" in caplog.text)
    timed_stage.advance(LIMITS.slack_s)
    pass_time(timed_stage, TIMEOUT_S, lambda: second.request("GET_PARAMETER"))
    assert timed_stage.server.viewer_count == 1
    assert second.request("TEARDOWN", Session=first.session).status == 200
    timed_stage.wait_idle()


def test_interleaved_session_of_another_connection(stage: Stage) -> None:
    first, second = stage.connect(), stage.connect()
    with stage.flow():
        first.play()
        for method in ("PLAY", "PAUSE", "TEARDOWN", "GET_PARAMETER"):
            assert second.request(method, Session=first.session).status == 454
        assert second.request("SETUP", Session=first.session, Transport=TCP).status == 454
        assert stage.server.viewer_count == 1


def test_connection_that_names_another_session(stage: Stage) -> None:
    """Its own one stays its own: it ends with the connection, and nothing is sent to a descriptor of another client."""
    by_tcp, by_udp, ports = stage.connect(), stage.connect(), stage.ports()
    with stage.flow():
        by_tcp.play()
        by_udp.play(ports.transport)
        assert by_tcp.request("GET_PARAMETER", Session=by_udp.session).status == 200
        by_tcp.close()
        eventually(lambda: stage.server.viewer_count == 1)
        later = stage.connect()
        assert later.request("OPTIONS").status == 200
        stage.video.deliver(1)
        assert later.socket.getsockname()
        assert not later.has_data()
        assert by_udp.request("GET_PARAMETER").status == 200


def test_set_up_ends_both_sessions(stage: Stage) -> None:
    """A connection with a session that sets up that of another: one session remains."""
    by_tcp, by_udp, ports = stage.connect(), stage.connect(), stage.ports()
    with stage.flow():
        by_tcp.play()
        by_tcp.request("PAUSE")
        by_udp.play(ports.transport)
        by_udp.request("PAUSE")
        assert by_tcp.request("SETUP", Session=by_udp.session, Transport=TCP).status == 200
        assert stage.camera.leases == 1


def test_set_up_again(stage: Stage) -> None:
    """Another transport before PLAY: that of the last SETUP counts; the camera stays open. None while it plays."""
    peer, ports = stage.connect(), stage.ports()
    with stage.flow():
        assert peer.request("DESCRIBE").status == 200
        peer.set_up(ports.transport)
        first = peer.session
        peer.set_up(TCP)
        assert peer.session != first
        assert peer.request("PLAY", Session=first).status == 454
        assert peer.request("PLAY").status == 200
        assert peer.unit().is_keyframe
        assert peer.request("SETUP", Transport=TCP).status == 455
        assert stage.camera.leases == 1
        assert stage.video.subscriptions == 1


def test_set_up_without_description(stage: Stage) -> None:
    """A client that knows the description already; the keyframe may take a while."""
    peer = stage.connect()
    peer.set_up()
    with stage.flow():
        assert peer.request("PLAY").status == 200
        assert peer.unit().is_keyframe


def test_play_without_a_frame(timed_stage: Stage) -> None:
    """The response does not wait for long; the media follow with the first keyframe, or the session ends."""
    peer = timed_stage.connect()
    peer.set_up()
    peer.send_request("PLAY")
    eventually(lambda: timed_stage.server.viewer_count == 1)
    timed_stage.advance(HandlerLimits().play_s)
    response = peer.response()
    assert response.status == 200
    assert "rtp-info" not in response.fields
    with timed_stage.flow():
        assert peer.unit().is_keyframe
    timed_stage.advance(LIMITS.silence_s)
    assert timed_stage.server.viewer_count == 1
    timed_stage.advance(1.0)
    assert timed_stage.server.viewer_count == 0
    assert peer.has_ended()


def test_session_ends_while_play_waits(timed_stage: Stage) -> None:
    """By another connection, which a session by UDP permits."""
    first, second, ports = timed_stage.connect(), timed_stage.connect(), timed_stage.ports()
    first.set_up(ports.transport)
    first.send_request("PLAY")
    eventually(lambda: timed_stage.server.viewer_count == 1)
    assert second.request("TEARDOWN", Session=first.session).status == 200
    timed_stage.advance(HandlerLimits().play_s)
    assert first.response().status == 454
    timed_stage.wait_idle()


def test_late_keyframe_while_another_request_waits(timed_stage: Stage) -> None:
    """PLAY was answered without it, and is not answered again."""
    peer = timed_stage.connect()
    peer.set_up()
    peer.send_request("PLAY")
    eventually(lambda: timed_stage.server.viewer_count == 1)
    timed_stage.advance(HandlerLimits().play_s)
    assert peer.response().status == 200
    peer.send_request("DESCRIBE", peer.url.replace("cam0", "sub"))
    eventually(lambda: timed_stage.sub_video.sinks, "the smaller stream, without a frame")
    timed_stage.video.deliver()
    assert peer.unit().is_keyframe
    timed_stage.sub_video.deliver()
    assert peer.response()["Content-Type"] == "application/sdp"


def test_freeze(timed_stage: Stage) -> None:
    """A short one keeps the sessions: numbers and times go on. A long one ends them, so that clients connect again."""
    tcp, udp, ports = timed_stage.connect(), timed_stage.connect(), timed_stage.ports()
    with timed_stage.flow():
        tcp.play()
        udp.play(ports.transport)
        before = tcp.unit()
    timed_stage.advance(LIMITS.silence_s)
    assert timed_stage.server.viewer_count == 2
    timed_stage.video.deliver(began_s=timed_stage.video.now_s + LIMITS.silence_s)
    last = timed_stage.video.deliver()
    while (unit := tcp.unit()).number != last:
        pass
    assert (unit.sequence - before.sequence) & 0xFFFF < 1000
    assert (unit.timestamp - before.timestamp) & 0xFFFF_FFFF >= LIMITS.silence_s * 90_000
    assert udp.request("GET_PARAMETER").status == 200
    timed_stage.advance(LIMITS.silence_s)
    assert timed_stage.server.viewer_count == 2
    timed_stage.advance(1.0)
    assert timed_stage.server.viewer_count == 0
    assert tcp.has_ended()
    assert udp.has_ended()
    assert is_goodbye(tcp.rest)
    wait_goodbye(ports)
    timed_stage.wait_idle()


def test_long_exposures(timed_stage: Stage) -> None:
    """Fewer frames than the limit allows: it follows the interval, but not that of an earlier stream."""
    peer = timed_stage.connect()
    with timed_stage.flow():
        peer.play()
    for wait_s in (0.8 * LIMITS.silence_s, 1.4 * LIMITS.silence_s, 1.4 * LIMITS.silence_s):
        timed_stage.advance(wait_s)
        number = timed_stage.video.deliver()
        while peer.unit().number != number:
            pass
    assert timed_stage.stream.interval_s == 1.4 * LIMITS.silence_s
    assert peer.request("TEARDOWN").status == 200
    timed_stage.wait_idle()
    assert timed_stage.stream.interval_s == 0
    with timed_stage.flow():
        again = timed_stage.connect()
        again.play()
        again.unit()
        assert timed_stage.stream.interval_s < LIMITS.silence_s


def test_paused_session_times_out(timed_stage: Stage) -> None:
    peer = timed_stage.connect()
    with timed_stage.flow():
        peer.play()
        assert peer.request("PAUSE").status == 200
    eventually(lambda: timed_stage.camera.leases == 1)
    timed_stage.advance(TIMEOUT_S)
    assert timed_stage.camera.leases == 1
    timed_stage.advance(1.0)
    assert peer.has_ended()
    timed_stage.wait_idle()


def test_no_udp_ports(stage: Stage) -> None:
    """The process has no descriptor left for them."""
    peer, ports = stage.connect(), stage.ports()
    with stage.flow():
        assert peer.request("DESCRIBE").status == 200
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        free = os.dup(peer.socket.fileno())
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))
        try:
            response = peer.request("SETUP", Transport=ports.transport)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert (response.status, response.body) == (503, b"no UDP ports: Too many open files\r\n")
        stage.wait_idle()
        peer.set_up(TCP)


def test_flood_of_datagrams(timed_stage: Stage) -> None:
    """More than are read at once, of a stranger and without meaning: reports among them are seen, media continue."""
    peer, ports, stranger = timed_stage.connect(), timed_stage.ports(), timed_stage.ports()
    with timed_stage.flow():
        peer.play(ports.transport)
    report = report_from(timed_stage, peer, ports)

    def show_life() -> None:
        for number in range(140):
            port = server_ports(peer)[number % 2]
            stranger.rtp.sendto(bytes(number % 7), (timed_stage.host, port))
        report()
        ports.unit()

    pass_time(timed_stage, 2 * TIMEOUT_S, show_life)
    assert timed_stage.server.viewer_count == 1


def test_goodbye_to_a_closed_port(stage: Stage) -> None:
    """A client by UDP that vanished entirely: errors of the network end nothing else."""
    gone, ports, other = stage.connect(), stage.ports(), stage.connect()
    with stage.flow(10 * FPS):
        gone.play(ports.transport)
        other_ports = stage.ports()
        other.play(other_ports.transport)
        ports.close()
        for _ in range(20):
            other_ports.unit()
        gone.socket.shutdown(socket.SHUT_RDWR)
        for _ in range(20):
            other_ports.unit()
