"""The stream and the snapshot: what may be asked for, what comes, and that nothing is kept when it goes wrong."""

import io
import re
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http import HTTPStatus
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image

from softcam.camera.session.manager import SessionLimits, State
from softcam.errors import CameraError, CameraMissing, NoPicture
from softcam.imaging import jpeg
from softcam.imaging.frame import Frame, NewestFrame
from softcam.streaming.fanout import FanOut, StreamClient
from softcam.streaming.jpeg_encoder import JpegEncoderPool, JpegVariant
from softcam.web.api.media import MediaApi, MediaDefaults
from softcam.web.http.messages import HttpError, Response, StreamingResponse
from tests.support.fakes import (
    AUTOFOCUS,
    SENSOR_SIZE,
    SIZE,
    STEADY,
    Background,
    eventually,
    make_frame,
    soon_s,
    waiters,
)
from tests.support.raw_http import Client, Site, make_request
from tests.support.web_app import Scene, make_camera, size_of, taken_at_s

STREAM_PATHS = ("/stream.mjpg", "/stream", "/?action=stream", "/api/camera/stream", "/?action=stream?nonce=1")
SNAPSHOT_PATHS = ("/snapshot.jpg", "/snapshot", "/frame", "/?action=snapshot", "/api/camera/frame")
COMMON = {"Cache-Control": "no-store", "X-Accel-Buffering": "no", "Access-Control-Allow-Origin": "*"}
SOME_MS = 0.01  # the clocks of frames and of Unix time are read one after the other


@pytest.fixture
def scene() -> Iterator[Scene]:
    with Scene() as scene:
        yield scene


@pytest.fixture
def flowing(scene: Scene) -> Iterator[Scene]:
    """Frames come by themselves."""
    with scene.camera.flowing():
        yield scene


IMPATIENT = {"snapshot_timeout_s": 0.05, "stream_timeout_s": 0.05}


@pytest.fixture
def impatient() -> Iterator[Scene]:
    with Scene(**IMPATIENT) as scene:
        yield scene


# Snapshots: which moment


def test_a_snapshot_opens_the_camera(flowing: Scene) -> None:
    asked_s = time.monotonic()
    response = flowing.snapshot()
    assert response.status is HTTPStatus.OK
    assert response.content_type == "image/jpeg"
    assert size_of(response) == SIZE
    assert asked_s <= taken_at_s(response) + SOME_MS
    assert flowing.camera.opens == 1


def test_a_snapshot_is_exposed_after_the_request(scene: Scene) -> None:
    with scene.held.open():
        for _ in range(5):  # settled, and one lies there
            scene.camera.emit()
        asking = Background(scene.snapshot)
        eventually(lambda: waiters(scene.manager.frames._changed) == 1, "that it waits")
        asked_s = time.monotonic()
        # Exposed before the request and delivered after it: it does not count.
        scene.camera.emit(began_s=asked_s - 1.0)
        eventually(lambda: waiters(scene.manager.frames._changed) == 1)
        assert not asking.is_over
        scene.camera.emit()
        assert taken_at_s(asking.result()) >= asked_s - SOME_MS


def test_max_age_allows_an_older_one(scene: Scene) -> None:
    with scene.held.open():
        for _ in range(5):
            scene.camera.emit()
        before_s = time.monotonic()
        assert taken_at_s(scene.snapshot("max_age=60")) <= before_s + SOME_MS


def test_max_age_rejects_older_frame(impatient: Scene) -> None:
    with impatient.held.open():
        impatient.camera.emit(began_s=time.monotonic() - 100.0)
        with pytest.raises(NoPicture):
            impatient.snapshot("max_age=60")


def test_the_headers_of_a_snapshot(flowing: Scene) -> None:
    response = flowing.snapshot()
    assert COMMON.items() <= response.headers.items()
    assert re.fullmatch(r"\d+\.\d{6}", response.headers["X-Timestamp"])
    assert response.headers["Last-Modified"].endswith(" GMT")


# Snapshots: which size and quality


@pytest.mark.parametrize(
    ("query", "size", "is_still"),
    [
        ("", SIZE, False),
        ("width=16", (16, 8), False),
        ("height=16", SIZE, False),
        ("width=17", (16, 8), False),
        ("width=16&height=16", (16, 16), False),
        ("width=32&height=16", SIZE, False),
        ("width=34", (34, 16), True),
        ("width=64", SENSOR_SIZE, True),
        ("height=32", SENSOR_SIZE, True),
        ("width=8192", SENSOR_SIZE, True),
        ("width=8192&height=4096", SENSOR_SIZE, True),
        ("width=16&height=8192", (2, 32), True),  # nothing is left of it, and yet it is a picture
        ("full=1", SENSOR_SIZE, True),
        ("full=yes&width=32", SIZE, True),
        ("full=1&width=16&height=16", (16, 16), True),
        ("full=0", SIZE, False),
        ("timestamp=1&bypassCache=2&cacheBust=3", SIZE, False),
    ],
)
def test_ok_sizes(flowing: Scene, query: str, size: tuple[int, int], is_still: bool) -> None:
    response = flowing.snapshot(query)
    assert size_of(response) == size
    assert (flowing.camera.count("still") == 1) is is_still


@pytest.mark.parametrize(
    ("query", "size", "is_still"),
    [("", (64, 32), True), ("width=32", (32, 16), False), ("height=16", (32, 16), False), ("full=1", (64, 32), True)],
)
def test_ok_a_configured_size(query: str, size: tuple[int, int], is_still: bool) -> None:
    with Scene(snapshot_size=(64, 32)) as scene, scene.camera.flowing():
        assert size_of(scene.snapshot(query)) == size
        assert (scene.camera.count("still") == 1) is is_still


def test_the_whole_sensor_has_its_own_shape() -> None:
    camera = make_camera()
    camera.config = replace(camera.config, sensor_size=(64, 48))
    with Scene(camera) as scene, camera.flowing():
        for query, size in (("", (64, 48)), ("&width=32", (32, 24)), ("&height=24", (32, 24))):
            assert size_of(scene.snapshot(f"full=1{query}")) == size


def test_the_size_stands_in_the_picture(flowing: Scene) -> None:
    exif = Image.open(io.BytesIO(flowing.snapshot("width=16").body)).getexif().get_ifd(ExifTags.IFD.Exif)
    assert (exif[ExifTags.Base.ExifImageWidth], exif[ExifTags.Base.ExifImageHeight]) == (16, 8)


def test_a_raw_picture_tells_when_it_was_taken() -> None:
    camera = make_camera()
    camera.config = replace(camera.config, has_raw=True)
    with Scene(camera) as scene, camera.flowing():
        asked_s = time.monotonic()
        response = scene.snapshot("format=dng")
        assert response.body == b"a raw picture"
        assert response.content_type == "image/x-adobe-dng"
        assert asked_s <= taken_at_s(response) + SOME_MS
        assert response.headers["Content-Disposition"] == 'attachment; filename="snapshot.dng"'
        assert COMMON.items() <= response.headers.items()


def test_ok_quality(flowing: Scene) -> None:
    def tables(picture: bytes) -> list[bytes]:
        return re.findall(rb"\xff\xdb\x00\x43.{65}", picture, re.DOTALL)

    for query, quality in (("", 90), ("quality=90", 90), ("quality=10", 10), ("quality=100", 100)):
        expected = tables(jpeg.encode(make_frame(), None, quality))
        assert expected
        assert tables(flowing.snapshot(query).body) == expected


def test_a_snapshot_tells_how_it_was_taken(flowing: Scene) -> None:
    assert flowing.snapshot().body[2:4] == b"\xff\xe1"
    assert b"imx708" not in flowing.snapshot().body
    with Scene(make_camera()) as scene, scene.camera.flowing():
        assert b"imx708" in scene.snapshot().body


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), "much", None])
def test_what_the_camera_does_not_know_spoils_no_snapshot(scene: Scene, value: object) -> None:
    with scene.held.open():
        for _ in range(4):
            scene.camera.emit()
        frame = scene.camera.emit({**STEADY, "AnalogueGain": value, "LensPosition": value})
        assert frame.metadata["LensPosition"] is value
        assert size_of(scene.snapshot("max_age=60")) == SIZE


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("quality=0", "quality"),
        ("quality=101", "quality"),
        ("quality=high", "quality"),
        ("quality=", "quality"),
        ("width=15", "width"),
        ("width=8193", "width"),
        ("height=0", "height"),
        ("width=16&height=x", "height"),
        ("max_age=-1", "max_age"),
        ("max_age=3601", "max_age"),
        ("max_age=nan", "max_age"),
        ("autofocus=maybe", "autofocus"),
        ("full=2", "full"),
    ],
)
def test_fail_malformed_parameters(scene: Scene, query: str, name: str) -> None:
    for method in ("GET", "HEAD"):
        with pytest.raises(HttpError, match=f"^{name} '.*: must be ") as caught:
            scene.snapshot(query, method)
        assert caught.value.status is HTTPStatus.BAD_REQUEST
    assert scene.camera.opens == 0


# Snapshots: autofocus


def triggers(scene: Scene) -> int:
    return sum("AfTrigger" in controls for controls in scene.camera.sent)


@pytest.fixture
def focusing() -> Iterator[Scene]:
    with Scene(make_camera(controls=dict(AUTOFOCUS)), autofocus_timeout_s=30.0) as scene:
        yield scene


def test_a_snapshot_focuses_first_and_is_taken_afterwards(focusing: Scene) -> None:
    camera = focusing.camera
    with focusing.manager.lease("hold"):
        focusing.held.wait_for(State.OPEN)
        for _ in range(5):
            camera.emit()
        asking = Background(lambda: focusing.snapshot("autofocus=1"))
        eventually(lambda: triggers(focusing) == 1, "the cycle")
        camera.emit({**STEADY, "AfState": 1})
        assert not asking.is_over
        camera.emit({**STEADY, "AfState": 2})
        focused_s = time.monotonic()
        eventually(lambda: waiters(focusing.manager.frames._changed) == 1)
        camera.emit({**STEADY, "AfState": 2})
        assert taken_at_s(asking.result()) >= focused_s - SOME_MS


def test_autofocus_budget() -> None:
    camera = make_camera(controls=dict(AUTOFOCUS))
    with Scene(camera, autofocus_timeout_s=30.0, focus_budget_s=0.02) as scene:
        with camera.flowing():  # without any AfState
            assert scene.snapshot().status is HTTPStatus.OK
        assert triggers(scene) == 1


@pytest.mark.parametrize("query", ["autofocus=0", "max_age=60", "max_age=60&autofocus=no"])
def test_who_does_not_want_the_lens_does_not_wait_for_it(focusing: Scene, query: str) -> None:
    with focusing.camera.flowing():
        focusing.snapshot(query)
    assert triggers(focusing) == 0


def test_a_running_stream_is_left_in_peace(focusing: Scene) -> None:
    with focusing.held.open(), focusing.camera.flowing():
        eventually(lambda: triggers(focusing) == 1, "the stream's own cycle")
        focusing.snapshot()
        assert triggers(focusing) == 1


@pytest.mark.parametrize("query", ["", "autofocus=1"])
def test_a_camera_without_a_lens_to_move_gives_its_picture(flowing: Scene, query: str) -> None:
    assert flowing.snapshot(query).status is HTTPStatus.OK
    assert triggers(flowing) == 0


# Snapshots: trouble


def test_timeout_releases_lease(impatient: Scene) -> None:
    with pytest.raises(NoPicture):
        impatient.snapshot()
    assert impatient.leases["snapshot"] == 0


def test_a_still_that_fails_leaves_nothing(flowing: Scene) -> None:
    flowing.camera.fail_next("still", CameraError("no still today"))
    with pytest.raises(CameraError, match="no still today"):
        flowing.snapshot("full=1")
    assert flowing.leases["snapshot"] == 0
    assert flowing.snapshot().status is HTTPStatus.OK


def test_stills_of_one_moment_are_one() -> None:
    limits = SessionLimits(still_pause_s=3600.0)  # until the test ends it
    with Scene(session_limits=limits) as flowing, flowing.camera.flowing(), flowing.manager.lease("stream"):
        # Streams have their share of time, in which all requests for the next still arrive.
        first = taken_at_s(flowing.snapshot("full=1"))
        waiting = [Background(lambda: flowing.snapshot("full=1")) for _ in range(7)]
        session = flowing.held.session
        eventually(lambda: session.jobs.waiting == 7, "that all wait for one")
        with session.changed:
            session.jobs._not_before_s = 0.0
            session.changed.notify_all()
        others = {response.headers["X-Timestamp"] for response in (still.result() for still in waiting)}
        assert len(others) == 1
        assert float(others.pop()) > first - time.monotonic() + time.time()
        assert flowing.camera.count("still") == 2


def test_an_encoder_that_fails_leaves_nothing(flowing: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> bytes:
        raise ValueError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr(jpeg, "encode", fail)
        with pytest.raises(ValueError, match="a bug"):
            flowing.snapshot()
    assert flowing.leases["snapshot"] == 0
    assert flowing.snapshot().status is HTTPStatus.OK


def test_head_takes_no_picture(scene: Scene) -> None:
    response = scene.snapshot(method="HEAD")
    assert (response.body, response.content_type) == (b"", "image/jpeg")
    assert COMMON.items() <= response.headers.items()
    assert scene.camera.opens == 0


def test_many_at_once_get_their_pictures(flowing: Scene) -> None:
    asking = [Background(flowing.snapshot) for _ in range(20)]
    assert {size_of(call.result()) for call in asking} == {SIZE}


# Streams: the wish


class Audience:
    """In the place of the fan-out."""

    def __init__(self) -> None:
        self.viewers: list[StreamClient] = []

    def add(self, viewer: StreamClient) -> None:
        self.viewers.append(viewer)


@pytest.fixture
def audience(flowing: Scene) -> Audience:
    audience = Audience()
    flowing.media._fanout = audience  # type: ignore[assignment]
    return audience


def hand_over(scene: Scene, query: str = "") -> StreamingResponse:
    answer = scene.media.stream(make_request(f"/stream.mjpg?{query}"))
    assert isinstance(answer, StreamingResponse)
    return answer


def take(answer: StreamingResponse) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        answer.start(ours)


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
def test_ok_wishes(flowing: Scene, audience: Audience, query: str, key: JpegVariant, interval_s: float) -> None:
    answer = hand_over(flowing, query)
    assert answer.content_type == "multipart/x-mixed-replace;boundary=frame"
    assert COMMON.items() <= answer.headers.items()
    take(answer)
    (viewer,) = audience.viewers
    assert (viewer.source, viewer.interval_s, viewer.address) == (key, interval_s, "192.0.2.1")
    assert flowing.leases["stream"] == 1
    viewer.on_disconnect()
    assert flowing.leases["stream"] == 0


@pytest.mark.parametrize(("query", "is_asked"), [("", False), ("quality=80", True), ("quality=10", True)])
def test_only_a_camera_s_own_jpegs_tell_a_wish_from_the_usual(query: str, is_asked: bool) -> None:
    with Scene(make_camera("MJPEG")) as scene, scene.camera.flowing():
        audience = Audience()
        scene.media._fanout = audience  # type: ignore[assignment]
        take(hand_over(scene, query))
        assert audience.viewers[0].source.quality_is_explicit is is_asked
        audience.viewers[0].on_disconnect()


@pytest.mark.parametrize(
    ("query", "name"),
    [("quality=0", "quality"), ("fps=0", "fps"), ("fps=1001", "fps"), ("fps=x", "fps"), ("width=8", "width")],
)
def test_fail_malformed_wishes(scene: Scene, query: str, name: str) -> None:
    with pytest.raises(HttpError, match=f"^{name} '.*: must be ") as caught:
        hand_over(scene, query)
    assert caught.value.status is HTTPStatus.BAD_REQUEST
    assert scene.camera.opens == 0


# A camera that makes JPEGs by itself


def give_jpeg(scene: Scene, picture: bytes) -> None:
    scene.camera.on_frame(Frame((np.frombuffer(picture, np.uint8),), "MJPEG", *SIZE, metadata=STEADY))


@pytest.fixture
def whole() -> bytes:
    return jpeg.encode(make_frame(), None, 70)


def test_a_damaged_jpeg_is_no_snapshot_but_the_next_one_is(whole: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    with Scene(make_camera("MJPEG")) as scene:
        is_tried = threading.Event()
        encode = scene.pictures.snapshot

        def note(*wish: Any, **more: Any) -> bytes:
            is_tried.set()
            return encode(*wish, **more)

        monkeypatch.setattr(scene.pictures, "snapshot", note)
        asked = Background(scene.snapshot)
        eventually(lambda: scene.camera.is_open)
        eventually(lambda: give_jpeg(scene, whole[:-9]) or is_tried.is_set())
        eventually(lambda: give_jpeg(scene, whole) or asked.is_over)
        assert asked.result().body == whole


def test_a_camera_whose_jpegs_are_all_damaged_has_no_snapshot(whole: bytes) -> None:
    with Scene(make_camera("MJPEG")) as scene:
        asked = Background(scene.snapshot)
        eventually(lambda: scene.camera.is_open)
        eventually(lambda: give_jpeg(scene, whole[:-9]) or asked.is_over)
        with pytest.raises(CameraError, match="damaged"):
            asked.result()


def test_a_camera_s_own_jpeg_tells_how_it_is_turned(whole: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MediaApi, "_orientation", 6)
    with Scene(make_camera("MJPEG")) as scene:
        asked = Background(scene.snapshot)
        eventually(lambda: scene.camera.is_open)
        eventually(lambda: give_jpeg(scene, whole) or asked.is_over)
        picture = Image.open(io.BytesIO(asked.result().body))
    assert picture.getexif()[ExifTags.Base.Orientation] == 6


# Streams: places


def test_places_are_counted_and_given_back() -> None:
    with Scene(max_clients=2) as scene, scene.camera.flowing():
        first, second = hand_over(scene), hand_over(scene)
        with pytest.raises(HttpError, match=r"client limit reached \(2\)") as caught:
            hand_over(scene)
        assert caught.value.status is HTTPStatus.SERVICE_UNAVAILABLE
        assert int(caught.value.headers["Retry-After"]) > 0
        assert scene.leases["stream"] == 2
        first.cancel()  # the client left before its header was sent
        third = hand_over(scene)
        second.cancel()
        third.cancel()
        assert scene.leases["stream"] == 0


def test_the_last_place_goes_to_one_of_many() -> None:
    with Scene(max_clients=5) as scene, scene.camera.flowing():
        start = threading.Barrier(20)

        def come() -> StreamingResponse | None:
            start.wait()
            try:
                return hand_over(scene)
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
                hand_over(scene)


def test_a_camera_that_was_given_up_takes_no_place() -> None:
    with Scene(max_clients=1) as scene:
        scene.camera.is_there = False
        for _ in range(3):
            with pytest.raises(CameraMissing):
                hand_over(scene)
        scene.held.take_failure()


def test_head_watches_nothing(scene: Scene) -> None:
    response = scene.media.stream(make_request("/stream", method="HEAD"))
    assert isinstance(response, Response)
    assert response.content_type == "multipart/x-mixed-replace;boundary=frame"
    assert scene.camera.opens == 0


# A camera that is switched off


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_camera_that_is_switched_off_says_so(method: str) -> None:
    pictures = JpegEncoderPool(NewestFrame(), SIZE)
    fan = FanOut(pictures.set_channels, lambda: None, lambda _: None)
    media = MediaApi(None, pictures, fan, MediaDefaults(80, None, 90, 0.0, 1))
    for handle in (media.stream, media.snapshot):
        with pytest.raises(HttpError, match="disabled"):
            handle(make_request("/", method=method))
    fan.stop(soon_s())


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


def test_every_name_of_the_stream() -> None:
    with Scene(linger_s=0.0) as scene, Site(scene.routes()) as site, scene.camera.flowing():
        for path in STREAM_PATHS:
            with site.client() as client:
                assert jpeg.size_of(read_first_picture(client, path)) == SIZE
                assert site.ask(path, method="HEAD").status == 200
                assert site.ask(path, method="POST").status == 405
        eventually(lambda: scene.fan.client_count == 0)
        eventually(lambda: scene.held.state is State.CLOSED, "that the camera is closed when nobody watches")


def test_every_name_of_the_snapshot(flowing: Scene) -> None:
    with Site(flowing.routes()) as site:
        for path in SNAPSHOT_PATHS:
            reply = site.ask(path)
            assert (reply.status, reply.headers["Content-Type"]) == (200, "image/jpeg")
            assert jpeg.size_of(reply.body) == SIZE
            assert COMMON.items() <= reply.headers.items()
            assert site.ask(path, method="HEAD").headers["Content-Type"] == "image/jpeg"
            assert site.ask(path, method="DELETE").headers["Allow"] == "GET, HEAD, OPTIONS"


def test_parameters_reach_the_stream(flowing: Scene) -> None:
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
            assert "no picture from the camera in time" in reply.detail
            assert int(reply.headers["Retry-After"]) > 0


def test_malformed_values_are_400_by_name(scene: Scene) -> None:
    with Site(scene.routes()) as site:
        reply = site.ask("/api/camera/frame?quality=500")
        assert (reply.status, reply.detail) == (400, "quality '500': must be a whole number from 1 to 100")


def test_a_client_that_leaves_while_the_camera_opens_leaves_nothing() -> None:
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
