"""What the server limits: viewers, connections, idle ones, unfinished requests, unread responses; and its end."""

import contextlib
import socket
import time

import pytest

from softcam.rtsp.server import client, server, sessions
from softcam.rtsp.server.handler import HandlerLimits
from softcam.rtsp.server.server import ServerLimits
from softcam.runtime.address import client_network
from tests.support.background import eventually, soon
from tests.support.rtsp_viewers import TCP, Response, Stage, is_goodbye
from tests.support.timeouts import PATIENCE_S

LIMITS = ServerLimits()
FEW = {"limits": ServerLimits(HandlerLimits(max_viewers=3), spare_connections=2)}

FEW_PER_ADDRESS = {"limits": ServerLimits(HandlerLimits(max_per_address=2, is_exempt=lambda _: False))}


def reason(response: Response) -> str:
    return response.body.decode().rstrip()


@pytest.mark.parametrize("stage", [FEW], indirect=True)
def test_viewer_limit(stage: Stage) -> None:
    peers = [stage.connect() for _ in range(4)]
    with stage.flow():
        for peer in peers[:3]:
            peer.play()
        response = peers[3].request("SETUP", Transport=TCP)
        assert response.status == 503
        assert "viewer limit reached (3)" in reason(response)
        assert peers[0].request("TEARDOWN").status == 200
        assert peers[3].request("SETUP", Transport=TCP).status == 200


@pytest.mark.parametrize("stage", [FEW_PER_ADDRESS], indirect=True)
def test_share_of_an_address(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    rule = "of this address: must be at most 2; disconnect one, or raise --max-clients-per-address"
    with stage.flow():
        first = stage.connect()
        first.play()
        assert first.request("TEARDOWN").status == 200
        second = stage.connect()
        assert second.request("OPTIONS").status == 200
        third = stage.connect()
        assert third.request("OPTIONS").status == 200
        assert first.has_ended()  # it was silent for longest
        for peer in (second, third):
            peer.play()
        assert stage.connect().has_ended()
        assert f"RTSP client 127.0.0.1 rejected: connections {rule}" in caplog.messages


def test_networks_are_computed_once(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not of all clients for each that connects or sets up."""
    addresses = list[str]()

    def note(address: str) -> str:
        addresses.append(address)
        return client_network(address)

    for module in (client, server, sessions):
        monkeypatch.setattr(module, "client_network", note)
    for _ in range(10):
        assert stage.connect().request("SETUP", Transport=TCP).status == 200
    assert 10 <= len(addresses) <= 4 * 10


@pytest.mark.parametrize("stage", [FEW_PER_ADDRESS], indirect=True)
def test_viewers_of_an_address(stage: Stage) -> None:
    """A session by UDP may go on without its connection."""
    with stage.flow():
        for _ in range(2):
            peer, ports = stage.connect(), stage.ports()
            assert peer.request("SETUP", Transport=ports.transport).status == 200
            assert peer.request("PLAY").status == 200
            peer.close()
        response = stage.connect().request("SETUP", Transport=TCP)
        assert (response.status, response["Retry-After"]) == (503, "5")
        assert reason(response).startswith("viewers of this address: must be at most 2")


@pytest.mark.parametrize("stage", [FEW], indirect=True)
def test_connection_limit(stage: Stage) -> None:
    """The one that was silent for longest makes room, unless it has a session; with sessions alone, new ones wait."""
    viewers = [stage.connect() for _ in range(3)]
    with stage.flow():
        for viewer in viewers:
            viewer.play()
        idle = stage.connect()
        assert idle.request("OPTIONS").status == 200
        active = stage.connect()
        assert active.request("OPTIONS").status == 200
        third = stage.connect()
        assert third.request("OPTIONS").status == 200
        assert idle.has_ended()
        assert active.request("OPTIONS").status == 200
        for viewer in viewers:
            assert viewer.request("GET_PARAMETER").status == 200


@pytest.mark.parametrize(
    "stage", [{"limits": ServerLimits(HandlerLimits(max_viewers=2), spare_connections=0)}], indirect=True
)
def test_no_room_for_another_connection(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    """None of a viewer is closed for it."""
    peers = [stage.connect() for _ in range(2)]
    with stage.flow():
        for peer in peers:
            peer.play()
        assert stage.connect().has_ended()
        assert "RTSP client 127.0.0.1 rejected: too many connections" in caplog.text
        assert all(peer.request("GET_PARAMETER").status == 200 for peer in peers)


def test_idle_connection(timed_stage: Stage) -> None:
    peer = timed_stage.connect()
    assert peer.request("OPTIONS").status == 200
    timed_stage.advance(LIMITS.idle_s)
    assert not peer.has_data()
    timed_stage.advance(1.0)
    assert peer.has_ended()


def test_unfinished_request(timed_stage: Stage) -> None:
    """Sent byte by byte, it has a limit as a whole."""
    peer = timed_stage.connect()
    peer.socket.setblocking(False)
    response, sent = b"", 0
    for byte in b"OPTIONS * RTSP/1.0\r\n" + b"X: y\r\n" * 100:
        peer.send(bytes([byte]))
        sent += 1
        timed_stage.advance(0.5)
        with contextlib.suppress(BlockingIOError):
            response = peer.socket.recv(65536)
            break
    assert b"RTSP/1.0 408" in response
    assert sent * 0.5 > LIMITS.request_s


def test_requests_without_end(timed_stage: Stage) -> None:
    """A connection whose buffer always has a part of the next request is not one with an unfinished request."""
    peer = timed_stage.connect()
    request = b"OPTIONS * RTSP/1.0\r\nCSeq: 0\r\n\r\n"
    peer.send(request[:10])
    for _ in range(20):
        peer.send(request[10:] + request[:10])
        assert peer.response().status == 200
        timed_stage.advance(LIMITS.request_s / 4)


def test_responses_are_not_read(stage: Stage) -> None:
    """Requests without end are accepted only as long as their responses are."""
    peer = stage.connect(small_buffers=True)
    requests = b"OPTIONS * RTSP/1.0\r\nCSeq: 0\r\n\r\n" * 500

    def flood() -> None:
        deadline_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline_s:
            peer.send(requests)

    with pytest.raises(ConnectionError):
        flood()


@pytest.mark.parametrize("stage", [{"limits": ServerLimits(tick_s=0.02)}], indirect=True)
def test_no_descriptors_left(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients wait in the queue of the kernel until there is one again."""
    failures = 0
    accept = socket.socket.accept

    def fail(listener: socket.socket) -> object:
        nonlocal failures
        if failures < 1:
            failures += 1
            raise OSError(24, "Too many open files")
        return accept(listener)

    monkeypatch.setattr(socket.socket, "accept", fail)
    peer = stage.connect()
    assert peer.request("OPTIONS").status == 200
    assert failures == 1


def test_stop_with_viewers(stage: Stage) -> None:
    """They get a goodbye, and the connection is closed."""
    tcp, udp, ports = stage.connect(), stage.connect(), stage.ports()
    with stage.flow():
        tcp.play()
        udp.play(ports.transport)
        ports.unit()
    eventually(lambda: stage.server.viewer_count == 2)
    stage.loop.stop(soon())
    assert udp.has_ended()
    report = b""
    while not is_goodbye(report):
        report = ports.rtcp.recv(2048)
    assert tcp.has_ended()
    assert is_goodbye(tcp.rest[-len(report) :])


def test_stop_while_a_client_waits(stage: Stage) -> None:
    """For the camera: it gets the reason, and the connection is closed."""
    peer = stage.connect()
    peer.send_request("DESCRIBE")
    eventually(lambda: stage.camera.leases == 1)
    stage.loop.stop(soon())
    refused = peer.response()
    assert refused.status == 503
    assert refused.body == b"the portal stops\r\n"
    assert peer.has_ended()
