"""What the responses to requests say, over loopback: status, access, and what the camera and the encoder do."""

import pytest

from softcam.errors import CameraBusy, NotSupported
from softcam.rtsp.server.handler import HandlerLimits
from softcam.rtsp.server.server import ServerLimits
from softcam.runtime.http_auth import authorization
from tests.support.background import eventually
from tests.support.rtsp_viewers import TCP, Response, Stage


def reason(response: Response) -> str:
    assert response["Content-Type"] == "text/plain; charset=utf-8"
    return response.body.decode().rstrip()


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        ("DESCRIBE rtsp://{host}/nothing RTSP/1.0", 404),
        ("DESCRIBE rtsp://{host}/cam0/trackID=7 RTSP/1.0", 404),
        ("DESCRIBE http://{host}/cam0 RTSP/1.0", 400),
        ("SETUP rtsp://{host}/cam0/trackID=0 RTSP/1.0", 461),
        ("PLAY rtsp://{host}/cam0 RTSP/1.0", 454),
        ("PAUSE rtsp://{host}/cam0 RTSP/1.0", 454),
        ("TEARDOWN rtsp://{host}/cam0 RTSP/1.0", 454),
        ("GET_PARAMETER rtsp://{host}/cam0 RTSP/1.0\r\nSession: 12345678", 454),
        ("OPTIONS rtsp://{host}/cam0 RTSP/2.0", 505),
        ("ANNOUNCE rtsp://{host}/cam0 RTSP/1.0", 405),
        ("RECORD rtsp://{host}/cam0 RTSP/1.0", 405),
        ("FETCH rtsp://{host}/cam0 RTSP/1.0", 501),
        ("DESCRIBE rtsp://{host}/cam0 RTSP/1.0\r\nAccept: text/html", 406),
        ("DESCRIBE rtsp://{host}/cam0 RTSP/1.0\r\nRequire: www.onvif.org/ver20/backchannel", 551),
        ("OPTIONS rtsp://{host}/cam0 RTSP/1.0\r\nRequire:", 200),
        ("OPTIONS * RTSP/1.0", 200),
        ("OPTIONS rtsp://{host}/nothing RTSP/1.0", 200),
        ("GET_PARAMETER * RTSP/1.0", 200),
    ],
)
def test_status(request_line: str, status: int, stage: Stage) -> None:
    """The connection can be used further, and the response has the request's number."""
    peer = stage.connect()
    host = "{}:{}".format(*stage.address)
    peer.send(f"{request_line.format(host=host)}\r\nCSeq: 7\r\n\r\n")
    response = peer.response()
    assert (response.status, response["CSeq"]) == (status, "7")
    assert response["Server"].startswith("Soft Stream ")
    if status == 551:
        assert response["Unsupported"] == "www.onvif.org/ver20/backchannel"
    if status == 405:
        assert "DESCRIBE" in response["Allow"]
    assert peer.request("OPTIONS").status == 200
    assert stage.camera.leases == 0


def test_fail_without_sequence_number(stage: Stage) -> None:
    peer = stage.connect()
    peer.send("OPTIONS * RTSP/1.0\r\n\r\n")
    assert reason(peer.response()) == "CSeq: must be a number"


def test_browser(stage: Stage) -> None:
    peer = stage.connect()
    peer.send("GET / HTTP/1.1\r\nHost: pi\r\n\r\n")
    received = b""
    while data := peer.socket.recv(65536):
        received += data
    assert received.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"rtsp://" in received


# --- access -------------------------------------------------------------------------------------------------------


def basic(password: str) -> str:
    return authorization(['Basic realm="camera"'], "", "", ("any", password), 1)


def credentials(response: Response, method: str, url: str, password: str) -> str:
    return authorization(response.fields["www-authenticate"], method, url, ("any", password), 1)


@pytest.mark.parametrize("stage", [{"passwords": ("full", "view")}], indirect=True)
@pytest.mark.parametrize("number", range(3))
def test_access(stage: Stage, number: int, caplog: pytest.LogCaptureFixture) -> None:
    """By each challenge: a wrong key opens nothing, a right one lets the connection go on without repeating it."""
    peer = stage.connect()
    assert peer.request("OPTIONS").status == 200
    challenged = peer.request("DESCRIBE")
    assert challenged.status == 401
    offered = challenged.fields["www-authenticate"][number : number + 1]
    for method in ("SETUP", "PLAY", "PAUSE", "TEARDOWN", "GET_PARAMETER", "SET_PARAMETER"):
        assert peer.request(method, Transport=TCP).status == 401
    assert "wrong key" not in caplog.text
    wrong = authorization(offered, "DESCRIBE", peer.url, ("any", "wrong"), 1)
    assert peer.request("DESCRIBE", Authorization=wrong).status == 401
    assert "Client 127.0.0.1 rejected: wrong key" in caplog.text
    assert stage.camera.opened == 0
    with stage.flow():
        right = authorization(offered, "DESCRIBE", peer.url, ("any", "view"), 1)
        assert peer.request("DESCRIBE", Authorization=right).status == 200
        peer.set_up()
        assert peer.request("PLAY").status == 200
        another = stage.connect()
        assert another.request("PLAY", Session=peer.session).status == 401


@pytest.mark.parametrize("timed_stage", [{"passwords": ("view",)}], indirect=True)
def test_delay_of_wrong_keys(timed_stage: Stage) -> None:
    """The fourth one waits, also on another connection; a right key does not, also from the same address."""
    first = timed_stage.connect()
    for _ in range(3):
        assert first.request("DESCRIBE", Authorization=basic("wrong")).status == 401
    peer = timed_stage.connect()
    assert peer.request("DESCRIBE").status == 401  # without a key
    peer.send_request("DESCRIBE", Authorization=basic("wrong"))
    right = timed_stage.connect()
    assert right.request("GET_PARAMETER", Authorization=basic("view")).status == 200
    assert not peer.has_data()
    timed_stage.advance(0.1)
    response = peer.response()
    assert (response.status, len(response.fields["www-authenticate"])) == (401, 3)
    assert peer.request("OPTIONS").status == 200
    gone = timed_stage.connect()
    gone.send_request("DESCRIBE", Authorization=basic("wrong"))
    gone.close()
    timed_stage.settle()
    timed_stage.advance(1.0)


@pytest.mark.parametrize("timed_stage", [{"passwords": ("view", "api")}], indirect=True)
def test_keys_that_are_not_compared(timed_stage: Stage) -> None:
    """While responses to wrong keys are due: all but one that was right before."""
    assert timed_stage.connect().request("GET_PARAMETER", Authorization=basic("view")).status == 200
    first = timed_stage.connect()
    for _ in range(3):
        assert first.request("DESCRIBE", Authorization=basic("wrong")).status == 401
    waiting = [timed_stage.connect() for _ in range(4)]
    for peer in waiting:
        peer.send_request("DESCRIBE", Authorization=basic("wrong"))
    timed_stage.settle()
    for key in ("wrong", "api"):
        peer = timed_stage.connect()
        response = peer.request("DESCRIBE", Authorization=basic(key))
        assert (response.status, response.fields["retry-after"]) == (503, ["1"])
        assert peer.has_ended()
    assert timed_stage.connect().request("GET_PARAMETER", Authorization=basic("view")).status == 200
    timed_stage.advance(2.0)
    assert [peer.response().status for peer in waiting] == [401] * 4
    assert timed_stage.connect().request("GET_PARAMETER", Authorization=basic("api")).status == 200


@pytest.mark.parametrize("stage", [{"passwords": ("view",)}], indirect=True)
def test_same_credentials_on_another_connection(stage: Stage) -> None:
    """ExoPlayer, after UDP delivered nothing (androidx/media#522)."""
    first = stage.connect()
    value = credentials(first.request("DESCRIBE"), "DESCRIBE", first.url, "view")
    first.close()
    second = stage.connect()
    with stage.flow():
        assert second.request("DESCRIBE", Authorization=value).status == 200


@pytest.mark.parametrize("stage", [{"passwords": ("view",)}], indirect=True)
def test_credentials_from_before_a_restart(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    peer = stage.connect()
    old = authorization(['Digest realm="camera", nonce="old"'], "DESCRIBE", peer.url, ("any", "view"), 1)
    challenged = peer.request("DESCRIBE", Authorization=old)
    assert challenged.status == 401
    assert ", stale=true, algorithm=MD5" in challenged.fields["www-authenticate"][1]
    assert "wrong key" not in caplog.text


# --- the camera and the encoder -----------------------------------------------------------------------------------


def test_description_after_the_first_frame(stage: Stage) -> None:
    peer = stage.connect()
    peer.send_request("DESCRIBE")
    stage.wait_subscribed()
    stage.video.deliver()
    assert peer.response().status == 200


def test_fail_description_without_a_frame(timed_stage: Stage) -> None:
    timed_stage.camera.state = "recovering"
    peer = timed_stage.connect()
    peer.send_request("DESCRIBE")
    timed_stage.wait_subscribed()
    timed_stage.advance(HandlerLimits().describe_s / 2)
    assert not peer.has_data()
    timed_stage.advance(HandlerLimits().describe_s / 2)
    response = peer.response()
    assert response.status == 503
    assert response["Retry-After"] == "5"
    assert reason(response) == "no frame from the camera within 5 s (it is recovering)"
    timed_stage.wait_idle()


def test_fail_camera(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    stage.camera.error = CameraBusy("the camera is in use by another program")
    response = stage.connect().request("DESCRIBE")
    assert (response.status, reason(response)) == (503, "the camera is in use by another program")
    assert "RTSP client 127.0.0.1 rejected: the camera is in use by another program" in caplog.text


def test_reason_that_is_no_text(stage: Stage) -> None:
    stage.camera.error = CameraBusy("cannot open n\udce9.mp4")
    response = stage.connect().request("DESCRIBE")
    assert (response.status, reason(response)) == (503, "cannot open n?.mp4")


def test_camera_fails_while_a_client_waits(stage: Stage) -> None:
    """The process exits; the clients get the reason before."""
    peer = stage.connect()
    peer.send_request("DESCRIBE")
    stage.wait_subscribed()
    stage.server.refuse_waiting("the camera is missing")
    response = peer.response()
    assert (response.status, reason(response)) == (503, "the camera is missing")
    stage.wait_idle()


def test_set_up_without_description_while_the_camera_fails(stage: Stage) -> None:
    """The camera is opened on another thread: the session ends when that turns out to be impossible."""
    stage.camera.error = CameraBusy("the camera is in use by another program")
    peer = stage.connect()
    assert peer.request("SETUP", Transport=TCP).status == 200
    assert peer.has_ended()
    stage.wait_idle()


def test_fail_encoder(stage: Stage) -> None:
    """All that wait get the reason; later ones try again."""
    stage.video.error = NotSupported("no H.264 encoder is installed")
    peers = [stage.connect() for _ in range(3)]
    for peer in peers:
        peer.send_request("DESCRIBE")
    for peer in peers:
        response = peer.response()
        assert (response.status, reason(response)) == (503, "no H.264 encoder is installed")
    stage.wait_idle()
    stage.video.error = None
    with stage.flow():
        assert peers[0].request("DESCRIBE").status == 200


def test_smaller_stream(timed_stage: Stage) -> None:
    """Its own encoder, subscribed only while it has clients; a client that looks at both uses one."""
    peer = timed_stage.connect()
    url, peer.url = peer.url, peer.url.replace("/cam0", "/sub")
    peer.send_request("DESCRIBE")
    eventually(lambda: timed_stage.sub_video.sinks)
    timed_stage.sub_video.deliver()
    description = peer.response().body
    assert b"b=AS:300\r\n" in description
    assert timed_stage.video.sinks == []
    peer.url = url
    with timed_stage.flow():
        peer.set_up()
        assert peer.request("PLAY").status == 200
        timed_stage.advance(ServerLimits().setup_s + 1.0)  # that of the description
        eventually(lambda: (timed_stage.sub_video.sinks, timed_stage.camera.leases) == ([], 1))
        assert peer.unit().is_keyframe


def test_description_without_set_up(timed_stage: Stage) -> None:
    """A client that only looks at the description releases the camera soon."""
    peer = timed_stage.connect()
    with timed_stage.flow():
        assert peer.request("DESCRIBE").status == 200
        eventually(lambda: timed_stage.camera.leases == 1)
        timed_stage.advance(ServerLimits().setup_s)
        assert timed_stage.camera.leases == 1
        timed_stage.advance(1.0)
        timed_stage.wait_idle()
        assert peer.request("DESCRIBE").status == 200
        peer.set_up()
        assert timed_stage.camera.leases == 1


def test_disconnect_while_waiting_for_the_description(stage: Stage) -> None:
    peer = stage.connect()
    peer.send_request("DESCRIBE")
    stage.wait_subscribed()
    peer.close()
    stage.wait_idle()
