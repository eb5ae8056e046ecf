"""Whole conversations with the server over loopback."""

import re

import pytest

from tests.support.rtsp_viewers import Peer, Stage, UdpReceiver


def test_conversation_by_tcp(stage: Stage) -> None:
    peer = stage.connect()
    options = peer.request("OPTIONS")
    assert options.status == 200
    assert options["Public"] == "OPTIONS, DESCRIBE, SETUP, PLAY, PAUSE, GET_PARAMETER, SET_PARAMETER, TEARDOWN"
    assert stage.camera.leases == 0
    with stage.flow():
        described = peer.request("DESCRIBE", Accept="application/sdp")
        assert described["Content-Type"] == "application/sdp"
        assert described["Content-Base"] == peer.url + "/"
        sdp = described.body.decode().split("\r\n")
        for line in (
            "c=IN IP4 0.0.0.0",
            "a=control:*",
            "a=range:npt=0-",
            "m=video 0 RTP/AVP 96",
            "b=AS:4000",
            "a=fmtp:96 packetization-mode=1;profile-level-id=640028;sprop-parameter-sets=Z2QAKKzZQA==,aOvjyw==",
            "a=framerate:50",
            "a=framesize:96 640-360",
            "a=control:trackID=0",
        ):
            assert line in sdp
        assert stage.camera.leases == 1
        set_up = peer.set_up()
        assert re.fullmatch(r"RTP/AVP/TCP;unicast;interleaved=0-1;ssrc=[0-9A-F]{8}", set_up["Transport"])
        assert re.fullmatch(r"[0-9a-f]{16};timeout=60", set_up["Session"])
        played = peer.request("PLAY", Range="npt=0.000-")
        info = re.fullmatch(rf"url={re.escape(peer.url)}/trackID=0;seq=(\d+);rtptime=(\d+)", played["RTP-Info"])
        assert info, played
        assert played["Range"] == "npt=0.000-"
        first = peer.unit()
        assert first.is_keyframe
        assert (first.sequence, first.timestamp) == (int(info[1]), int(info[2]))
        units = [peer.unit() for _ in range(10)]
        assert [unit.number for unit in units] == list(range(first.number + 1, first.number + 11))
        assert stage.server.viewer_count == 1
        for method in ("GET_PARAMETER", "SET_PARAMETER", "OPTIONS", "PLAY"):
            assert peer.request(method).status == 200
        assert peer.request("SET_PARAMETER", body=b"x: 1\r\n").status == 451
        assert peer.request("PAUSE")["Session"] == set_up["Session"]
        peer.packets.clear()
        assert stage.server.viewer_count == 0
        assert stage.camera.leases == 1, "a paused session keeps the camera open"
        assert peer.request("PLAY").status == 200
        assert peer.unit().is_keyframe
        assert peer.request("TEARDOWN").status == 200
        stage.wait_idle()
        assert peer.request("PLAY").status == 454


@pytest.mark.parametrize("stage", [{"host": "127.0.0.1"}, {"host": "::1"}], ids=["IPv4", "IPv6"], indirect=True)
def test_conversation_by_udp(stage: Stage) -> None:
    peer, ports = stage.connect(), stage.ports()
    with stage.flow():
        assert peer.request("DESCRIBE").status == 200
        set_up = peer.set_up(ports.transport)
        rtp, rtcp = set_up.server_ports
        assert (rtp % 2, rtcp) == (0, rtp + 1)
        info = peer.request("PLAY")["RTP-Info"]
        first = ports.unit()
        assert first.is_keyframe
        assert f";seq={first.sequence};rtptime={first.timestamp}" in info
        assert [ports.unit().number for _ in range(10)] == list(range(first.number + 1, first.number + 11))
        report, source = ports.rtcp.recvfrom(2048)
        assert (report[1], source[1]) == (200, rtcp)
        assert peer.request("TEARDOWN").status == 200
        stage.wait_idle()


def test_dual_stack() -> None:
    """An IPv4 client of an IPv6 socket: an IPv4 address in the description and in the log; UDP works, too."""
    stage = Stage(host="::")
    peer, ports = Peer(("127.0.0.1", stage.address[1])), UdpReceiver("127.0.0.1")
    stage.clients += (peer, ports)
    with stage.flow():
        described = peer.request("DESCRIBE")
        assert b"c=IN IP4 0.0.0.0" in described.body
        assert b"IN IP4 127.0.0.1" in described.body
        peer.set_up(ports.transport)
        assert peer.request("PLAY").status == 200
        assert ports.unit().is_keyframe
    stage.stop()


def test_pipelined_requests(stage: Stage) -> None:
    """A client that does not wait gets its responses in order, although the first one takes a while."""
    peer = stage.connect()
    for number, line in enumerate(("OPTIONS", "DESCRIBE", "GET_PARAMETER", "PLAY"), 1):
        peer.send(f"{line} {peer.url} RTSP/1.0\r\nCSeq: {number}\r\n\r\n")
    responses = [peer.response()]
    stage.wait_subscribed()
    stage.video.deliver()
    responses += [peer.response() for _ in range(3)]
    assert [(response["CSeq"], response.status) for response in responses] == [
        ("1", 200), ("2", 200), ("3", 200), ("4", 454)
    ]  # fmt: skip


@pytest.mark.parametrize("data", [b"nonsense\r\n\r\n", b"\x16\x03\x01\x02\x00\x01", b"A" * 20000])
def test_not_rtsp(data: bytes, stage: Stage) -> None:
    """A response with the reason, and the connection is closed."""
    peer = stage.connect()
    peer.send(data)
    response = peer.response()
    assert response.status in (400, 413)
    assert response["Connection"] == "close"
    assert peer.has_ended()
