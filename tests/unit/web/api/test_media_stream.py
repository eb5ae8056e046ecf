"""The MJPEG stream: parameters and slots; and both handlers over real sockets."""

import re
import socket
import threading
import time
from dataclasses import replace
from http import HTTPStatus

import pytest

from softcam.camera.session.manager import State
from softcam.errors import CameraMissing, NoPicture
from softcam.imaging import jpeg
from softcam.imaging.frame import NewestFrame
from softcam.net.event_loop import EventLoop
from softcam.streaming.clients import StreamClient
from softcam.streaming.fanout import FanOut
from softcam.streaming.jpeg_encoder import JpegEncoderPool, JpegVariant
from softcam.web.api.media import MediaApi, MediaDefaults
from softcam.web.http.messages import HttpError, Response, StreamingResponse
from tests.support.background import Background, eventually, soon
from tests.support.fakes import AUTOFOCUS, SIZE, STEADY, make_frame
from tests.support.raw_http import Client, Site, make_request
from tests.support.timeouts import PATIENCE_S
from tests.support.web_app import COMMON, IMPATIENT, Scene, make_camera, make_controls

STREAM_PATHS = (
    *("/stream.mjpg", "/stream", "/?action=stream", "/api/camera/stream", "/?action=stream?nonce=1"),
    *("/stream/", "/?action=stream_0", "/?action=stream/", "/webcam/?action=stream", "/webcam/stream"),
)
SNAPSHOT_PATHS = (
    *("/snapshot.jpg", "/snapshot", "/frame", "/?action=snapshot", "/api/camera/frame"),
    *("/snapshot/", "/?action=snapshot_0", "/?action=snapshot/", "/webcam/?action=snapshot", "/webcam/snapshot.jpg"),
)


# Parameters


class Audience:
    """Replaces the fan-out."""

    def __init__(self) -> None:
        self.viewers: list[StreamClient] = []

    def add_client(self, viewer: StreamClient) -> None:
        self.viewers.append(viewer)


def stream(scene: Scene, query: str = "") -> StreamingResponse:
    response = scene.media.stream(make_request(f"/stream.mjpg?{query}"))
    assert isinstance(response, StreamingResponse)
    return response


def test_stream_begins_with_settled_frame() -> None:
    with Scene(stream_hold_s=PATIENCE_S) as scene:
        asked = Background(lambda: stream(scene))
        eventually(lambda: scene.camera.is_open)
        for exposure_us in (100, 200, 400, 800):
            scene.camera.emit({**STEADY, "ExposureTime": exposure_us})
        assert not asked.is_over
        for _ in range(4):
            scene.camera.emit()
        asked.result().cancel()


def test_stream_waits_for_focus() -> None:
    with Scene(make_camera(controls=dict(AUTOFOCUS)), autofocus_timeout_s=30.0, stream_hold_s=PATIENCE_S) as scene:
        asked = Background(lambda: stream(scene))
        eventually(lambda: scene.camera.is_open)
        for _ in range(6):
            scene.camera.emit({**STEADY, "AfState": 1})
        assert not asked.is_over
        scene.camera.emit({**STEADY, "AfState": 2})
        asked.result().cancel()


def test_hold_is_limited() -> None:
    with Scene(stream_hold_s=0.02) as scene:
        asked = Background(lambda: stream(scene))
        eventually(lambda: scene.camera.is_open)
        scene.camera.emit()
        asked.result().cancel()


def start(response: StreamingResponse) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        response.start(ours)


@pytest.mark.parametrize(
    ("query", "key", "interval_s"),
    [
        ("", JpegVariant(0, 80), 0.0),
        ("quality=80", JpegVariant(0, 80), 0.0),
        ("quality=1", JpegVariant(0, 1), 0.0),
        ("fps=10", JpegVariant(0, 80), 0.1),
        ("fps=0.5&quality=60", JpegVariant(0, 60), 2.0),
        ("width=16", JpegVariant(16, 80), 0.0),
        ("width=17", JpegVariant(16, 80), 0.0),
        ("width=32", JpegVariant(0, 80), 0.0),  # the camera's own, and so is everything above it
        ("width=8192", JpegVariant(0, 80), 0.0),
        ("nonce=1&cacheBust=2", JpegVariant(0, 80), 0.0),
    ],
)
def test_parameters_select_variant_and_interval(query: str, key: JpegVariant, interval_s: float) -> None:
    audience = Audience()
    with Scene(fanout=audience) as scene, scene.camera.flowing():
        response = stream(scene, query)
        assert response.content_type == "multipart/x-mixed-replace;boundary=frame"
        assert COMMON.items() <= response.headers.items()
        start(response)
        (viewer,) = audience.viewers
        assert (viewer.source, viewer.interval_s, viewer.address) == (key, interval_s, "192.0.2.1")
        assert scene.leases["stream"] == 1
        viewer.on_disconnect()
        assert scene.leases["stream"] == 0


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("application/octet-stream", "application/octet-stream"),  # the page, for WebKit
        ("*/*", "multipart/x-mixed-replace;boundary=frame"),
        ("image/webp,*/*;q=0.8", "multipart/x-mixed-replace;boundary=frame"),
    ],
)
def test_requested_type(accept: str, content_type: str) -> None:
    with Scene(fanout=Audience()) as scene, scene.camera.flowing():
        response = scene.media.stream(make_request("/stream.mjpg", headers={"Accept": accept}))
        assert isinstance(response, StreamingResponse)
        assert response.content_type == content_type
        response.cancel()


@pytest.mark.parametrize(("query", "is_asked"), [("", False), ("quality=80", True), ("quality=10", True)])
def test_explicit_quality_matters_for_camera_jpegs_only(query: str, is_asked: bool) -> None:
    audience = Audience()
    with Scene(make_camera("MJPEG"), fanout=audience) as scene, scene.camera.flowing():
        start(stream(scene, query))
        variant = audience.viewers[0].source
        assert isinstance(variant, JpegVariant)
        assert variant.quality_is_explicit is is_asked
        audience.viewers[0].on_disconnect()


@pytest.mark.parametrize(
    ("query", "name"),
    [("quality=0", "quality"), ("fps=0", "fps"), ("fps=1001", "fps"), ("fps=x", "fps"), ("width=8", "width")],
)
def test_invalid_parameter_opens_no_camera(scene: Scene, query: str, name: str) -> None:
    with pytest.raises(HttpError, match=f"^{name}: must be ") as caught:
        stream(scene, query)
    assert caught.value.status is HTTPStatus.BAD_REQUEST
    assert scene.camera.opens == 0


# Slots


def test_client_limit() -> None:
    with Scene(max_clients=2) as scene, scene.camera.flowing():
        first, second = stream(scene), stream(scene)
        with pytest.raises(
            HttpError, match=r"client limit reached \(2\); disconnect a client, or raise --max-clients"
        ) as caught:
            stream(scene)
        assert caught.value.status is HTTPStatus.SERVICE_UNAVAILABLE
        assert int(caught.value.headers["Retry-After"]) > 0
        assert scene.leases["stream"] == 2
        first.cancel()  # the client left before its header was sent
        third = stream(scene)
        second.cancel()
        third.cancel()
        assert scene.leases["stream"] == 0


def test_share_of_an_address() -> None:
    """A proxy on this machine has no limit; its clients count by their addresses."""
    with Scene(max_clients=8, max_clients_per_address=2) as scene, scene.camera.flowing():
        streams = [stream(scene), stream(scene)]
        reason = r"streams of this address: must be at most 2; disconnect one, or raise --max-clients-per-address"
        with pytest.raises(HttpError, match=reason) as caught:
            stream(scene)
        assert (caught.value.status, caught.value.headers) == (HTTPStatus.SERVICE_UNAVAILABLE, {"Retry-After": "5"})
        for client in ("192.0.2.2", "127.0.0.1", "127.0.0.1", "127.0.0.1"):
            other = scene.media.stream(replace(make_request("/stream.mjpg"), client=client))
            assert isinstance(other, StreamingResponse)
            streams.append(other)
        streams.pop(0).cancel()
        streams.append(stream(scene))
        assert scene.leases["stream"] == 6
        scene.media.reserve_stream()[1]()  # one of several clients, such as HLS
        for each in streams:
            each.cancel()


def test_reconnecting_client_waits_for_its_own_slot() -> None:
    with Scene(max_clients=1, slot_wait_s=PATIENCE_S) as scene, scene.camera.flowing():
        first = stream(scene)
        again = Background(lambda: stream(scene))
        time.sleep(0.1)
        assert not again.is_over
        first.cancel()  # its end is noticed after the new request
        again.result().cancel()


def test_head_reports_client_limit_without_a_slot() -> None:
    with Scene(max_clients=1) as scene, scene.camera.flowing():
        head = make_request("/stream.mjpg", method="HEAD")
        assert isinstance(scene.media.stream(head), Response)
        only = stream(scene)
        with pytest.raises(HttpError, match="client limit reached"):
            scene.media.stream(head)
        only.cancel()
        assert isinstance(scene.media.stream(head), Response)


def test_client_limit_is_atomic() -> None:
    with Scene(max_clients=5) as scene, scene.camera.flowing():
        start = threading.Barrier(20)

        def come() -> StreamingResponse | None:
            start.wait()
            try:
                return stream(scene)
            except HttpError:
                return None

        answers = [call.result() for call in [Background(come) for _ in range(20)]]
        let_in = [answer for answer in answers if answer is not None]
        assert len(let_in) == 5
        for answer in let_in:
            answer.cancel()


def test_slot_released_on_timeout() -> None:
    with Scene(max_clients=1, **IMPATIENT) as scene:
        for _ in range(3):
            with pytest.raises(NoPicture):
                stream(scene)


def test_slot_released_if_camera_is_missing() -> None:
    with Scene(max_clients=1) as scene:
        scene.camera.is_there = False
        for _ in range(3):
            with pytest.raises(CameraMissing):
                stream(scene)
        scene.held.take_failure()


def test_head_opens_no_stream(scene: Scene) -> None:
    response = scene.media.stream(make_request("/stream", method="HEAD"))
    assert isinstance(response, Response)
    assert response.content_type == "multipart/x-mixed-replace;boundary=frame"
    assert scene.camera.opens == 0


# A disabled camera


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_camera_disabled(method: str) -> None:
    pictures = JpegEncoderPool(NewestFrame(), SIZE)
    loop = EventLoop("event-loop", lambda _: None)
    fan = FanOut(loop, pictures.set_channels, lambda: None)
    media = MediaApi(None, make_controls(), pictures, fan, MediaDefaults(80, None, 90, 0.0, 1, 1))
    for handle in (media.stream, media.snapshot):
        with pytest.raises(HttpError, match="disabled"):
            handle(make_request("/", method=method))
    loop.stop(soon())


# Over the wire


def read_first_picture(client: Client, path: str) -> bytes:
    client.send(f"GET {path} HTTP/1.1\r\nHost: camera\r\n\r\n".encode())
    status, _, headers = client.reply_head()
    assert status == 200
    assert headers["Content-Type"] == "multipart/x-mixed-replace;boundary=frame"
    assert COMMON.items() <= headers.items()
    assert client.read(9) == b"--frame\r\n"
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += client.read(1)
    found = re.fullmatch(
        rb"Content-Type: image/jpeg\r\nContent-Length: (\d+)\r\nX-Timestamp: (\d+\.\d{6})\r\n\r\n", head
    )
    assert found, head
    assert abs(float(found[2]) - time.time()) < 60.0
    picture = client.read(int(found[1]))
    assert client.read(11) == b"\r\n--frame\r\n"
    return picture


def test_stream_paths() -> None:
    with Scene(linger_s=0.0) as scene, Site(scene.routes()) as site, scene.camera.flowing():
        for path in STREAM_PATHS:
            with site.client() as client:
                assert jpeg.size_of(read_first_picture(client, path)) == SIZE
                assert site.ask(path, method="HEAD").status == 200
                assert site.ask(path, method="POST").status == 405
        eventually(lambda: scene.fan.client_count == 0)
        eventually(lambda: scene.held.state is State.CLOSED, "the camera closes without clients")


def test_snapshot_paths(flowing: Scene) -> None:
    with Site(flowing.routes()) as site:
        for path in SNAPSHOT_PATHS:
            reply = site.ask(path)
            assert (reply.status, reply.headers["Content-Type"]) == (200, "image/jpeg")
            assert jpeg.size_of(reply.body) == SIZE
            assert COMMON.items() <= reply.headers.items()
            assert site.ask(path, method="HEAD").headers["Content-Type"] == "image/jpeg"
            assert site.ask(path, method="DELETE").headers["Allow"] == "GET, HEAD, OPTIONS"


def test_stream_parameters(flowing: Scene) -> None:
    with Site(flowing.routes()) as site, site.client() as client:
        picture = read_first_picture(client, "/api/camera/stream?quality=60&fps=10&width=16")
        assert picture == jpeg.encode(make_frame(), (16, 8), 60)
        client.socket.close()
        eventually(lambda: flowing.fan.client_count == 0)


def test_no_frame_is_503(impatient: Scene) -> None:
    with Site(impatient.routes()) as site:
        for path in (*STREAM_PATHS, *SNAPSHOT_PATHS):
            reply = site.ask(path)
            assert reply.status == 503
            assert "no frame from the camera in time" in reply.detail
            assert int(reply.headers["Retry-After"]) > 0


def test_invalid_parameter_is_400(scene: Scene) -> None:
    with Site(scene.routes()) as site:
        reply = site.ask("/api/camera/frame?quality=500")
        assert (reply.status, reply.detail) == (400, "quality: must be an integer from 1 to 100")


def test_disconnect_while_camera_opens() -> None:
    with Scene(linger_s=0.0) as scene, Site(scene.routes()) as site:
        scene.camera.block("open")
        for path in ("/stream", "/snapshot"):
            with site.client() as client:
                client.send(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                eventually(lambda: sum(scene.leases.values()) > 0)
        scene.camera.unblock()
        with scene.camera.flowing():
            eventually(lambda: sum(scene.leases.values()) == 0, "that both are gone")
            eventually(lambda: scene.held.state is State.CLOSED)
