"""Snapshots: time of exposure, size, quality, autofocus, errors, and camera JPEGs."""

import io
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from http import HTTPStatus
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image

from softcam.camera.session.autofocus_cycle import AfMode
from softcam.camera.session.manager import SessionLimits, State
from softcam.errors import CameraError, NoPicture
from softcam.imaging import jpeg
from softcam.imaging.exif import exif_segment, with_exif
from softcam.imaging.frame import Frame
from softcam.web.api.media import SnapshotOptions
from softcam.web.http.messages import HttpError
from tests.support.background import Background, eventually, waiters
from tests.support.fakes import AUTOFOCUS, SENSOR_SIZE, SIZE, STEADY, make_frame
from tests.support.web_app import COMMON, Scene, make_camera, size_of, taken_at_s

SOME_MS = 0.01  # the clocks of frames and of Unix time are read one after the other


# Time of exposure


def test_snapshot_opens_camera(flowing: Scene) -> None:
    asked_s = time.monotonic()
    response = flowing.snapshot()
    assert response.status is HTTPStatus.OK
    assert response.content_type == "image/jpeg"
    assert size_of(response) == SIZE
    assert asked_s <= taken_at_s(response) + SOME_MS
    assert flowing.camera.opens == 1


def test_frame_is_exposed_after_request(scene: Scene) -> None:
    with scene.held.open():
        for _ in range(5):  # settled, and one lies there
            scene.camera.emit()
        asking = Background(scene.snapshot)
        eventually(lambda: scene.leases["snapshot"] == 1, "the request")
        asked_s = time.monotonic()
        # Exposed before the request and delivered after it: it does not count.
        scene.camera.emit(began_s=asked_s - 1.0)
        assert not asking.is_over
        scene.camera.emit()
        assert taken_at_s(asking.result()) >= asked_s - SOME_MS


def test_max_age_accepts_older_frame(scene: Scene) -> None:
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


def test_headers(flowing: Scene) -> None:
    response = flowing.snapshot()
    assert COMMON.items() <= response.headers.items()
    assert re.fullmatch(r"\d+\.\d{6}", response.headers["X-Timestamp"])
    assert response.headers["Last-Modified"].endswith(" GMT")


# Size and quality


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
def test_size_of_a_snapshot(flowing: Scene, query: str, size: tuple[int, int], is_still: bool) -> None:
    response = flowing.snapshot(query)
    assert size_of(response) == size
    assert (flowing.camera.count("still") == 1) is is_still


@pytest.mark.parametrize(
    ("query", "size", "is_still"),
    [("", (64, 32), True), ("width=32", (32, 16), False), ("height=16", (32, 16), False), ("full=1", (64, 32), True)],
)
def test_configured_size_of_a_snapshot(query: str, size: tuple[int, int], is_still: bool) -> None:
    with Scene(snapshot_size=(64, 32)) as scene, scene.camera.flowing():
        assert size_of(scene.snapshot(query)) == size
        assert (scene.camera.count("still") == 1) is is_still


def test_full_sensor_aspect_ratio() -> None:
    camera = make_camera()
    camera.config = replace(camera.config, sensor_size=(64, 48))
    with Scene(camera) as scene, camera.flowing():
        for query, size in (("", (64, 48)), ("&width=32", (32, 24)), ("&height=24", (32, 24))):
            assert size_of(scene.snapshot(f"full=1{query}")) == size


def test_size_in_exif(flowing: Scene) -> None:
    exif = Image.open(io.BytesIO(flowing.snapshot("width=16").body)).getexif().get_ifd(ExifTags.IFD.Exif)
    assert (exif[ExifTags.Base.ExifImageWidth], exif[ExifTags.Base.ExifImageHeight]) == (16, 8)


def test_raw_image() -> None:
    camera = make_camera()
    camera.config = replace(camera.config, has_raw=True)
    with Scene(camera) as scene, camera.flowing():
        asked_s = time.monotonic()
        response = scene.snapshot("format=dng")
        assert response.body == b"a raw picture"
        assert response.content_type == "image/x-adobe-dng"
        assert asked_s <= taken_at_s(response) + SOME_MS
        assert re.fullmatch(
            r'attachment; filename="snapshot-\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d\.dng"',
            response.headers["Content-Disposition"],
        )
        assert COMMON.items() <= response.headers.items()


def description_of(picture: bytes) -> str | None:
    """The description, which Pillow reads as Latin-1."""
    text = Image.open(io.BytesIO(picture)).getexif().get(ExifTags.Base.ImageDescription)
    return None if text is None else str(text).encode("latin-1").decode()


def test_name_of_the_camera() -> None:
    for full in (0, 1):
        with Scene(make_camera(), name="Gärten 庭") as scene, scene.camera.flowing():
            response = scene.snapshot(f"full={full}")
            assert description_of(response.body) == "Gärten 庭"
            assert re.fullmatch(
                r"inline; filename=\"Garten-_-2\S+\.jpg\"; filename\*=UTF-8''G%C3%A4rten-%E5%BA%AD-2\S+\.jpg",
                response.headers["Content-Disposition"],
            )


def test_no_name_of_the_camera(flowing: Scene) -> None:
    response = flowing.snapshot()
    assert description_of(response.body) is None
    assert response.headers["Content-Disposition"].startswith('inline; filename="snapshot-2')


def test_quality_of_a_snapshot(flowing: Scene) -> None:
    def tables(picture: bytes) -> list[bytes]:
        return re.findall(rb"\xff\xdb\x00\x43.{65}", picture, re.DOTALL)

    for query, quality in (("", 90), ("quality=90", 90), ("quality=10", 10), ("quality=100", 100)):
        expected = tables(jpeg.encode(make_frame(), None, quality))
        assert expected
        assert tables(flowing.snapshot(query).body) == expected


def test_exif(flowing: Scene) -> None:
    assert flowing.snapshot().body[2:4] == b"\xff\xe1"
    assert b"imx708" not in flowing.snapshot().body
    with Scene(make_camera()) as scene, scene.camera.flowing():
        assert b"imx708" in scene.snapshot().body


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), "much", None])
def test_unknown_metadata(scene: Scene, value: object) -> None:
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
def test_invalid_parameter_is_400(scene: Scene, query: str, name: str) -> None:
    for method in ("GET", "HEAD"):
        with pytest.raises(HttpError, match=f"^{name}: must be ") as caught:
            scene.snapshot(query, method)
        assert caught.value.status is HTTPStatus.BAD_REQUEST
    assert scene.camera.opens == 0


# Autofocus


def triggers(scene: Scene) -> int:
    return sum("AfTrigger" in controls for controls in scene.camera.sent)


@pytest.fixture
def focusing() -> Iterator[Scene]:
    with Scene(make_camera(controls=dict(AUTOFOCUS)), autofocus_timeout_s=30.0) as scene:
        yield scene


def test_autofocus_before_snapshot(focusing: Scene) -> None:
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
        with camera.flowing():
            assert taken_at_s(asking.result()) >= focused_s - SOME_MS


def test_autofocus_budget() -> None:
    camera = make_camera(controls=dict(AUTOFOCUS))
    with Scene(camera, autofocus_timeout_s=30.0, focus_budget_s=0.02) as scene:
        with camera.flowing():  # without any AfState
            assert scene.snapshot().status is HTTPStatus.OK
        assert triggers(scene) == 1


def test_series_focuses_once(focusing: Scene) -> None:
    camera = focusing.camera
    with camera.flowing({**STEADY, "AfState": 2}):
        for _ in range(5):
            focusing.snapshot()
        assert triggers(focusing) == 1
        assert camera.opens == 1
        assert focusing.manager.autofocus.mode is AfMode.CONTINUOUS
        focusing.snapshot("autofocus=1")
        assert triggers(focusing) == 2, "the request asks for it"


def test_series_without_linger_opens_the_camera_once() -> None:
    camera, limits = make_camera(controls=dict(AUTOFOCUS)), SessionLimits(series_s=60.0)
    focused = {**STEADY, "AfState": 2}
    with Scene(camera, linger_s=0.0, session_limits=limits, autofocus_timeout_s=5.0) as scene, camera.flowing(focused):
        for _ in range(5):
            assert scene.snapshot().status is HTTPStatus.OK
        assert (camera.opens, triggers(scene)) == (1, 1)
        assert scene.held.state is State.LINGERING


def test_still_of_a_timelapse_does_not_keep_the_camera_open() -> None:
    with Scene(linger_s=0.0, session_limits=SessionLimits(series_s=60.0)) as scene, scene.camera.flowing():
        scene.media.take_snapshot(SnapshotOptions(), is_of_series=False)
        scene.held.wait_for(State.CLOSED)


def test_focus_starts_with_the_camera(focusing: Scene) -> None:
    """Before the first frame, which a slow camera takes its time for."""
    asked = Background(focusing.snapshot)
    eventually(lambda: triggers(focusing) == 1, "the cycle")
    assert focusing.manager.status().frames == 0
    with focusing.camera.flowing({**STEADY, "AfState": 2}):
        assert asked.result().status is HTTPStatus.OK


def test_first_frame_in_focus_is_used(focusing: Scene) -> None:
    asked = Background(focusing.snapshot)
    eventually(lambda: triggers(focusing) == 1, "the cycle")
    for _ in range(5):
        focusing.camera.emit({**STEADY, "AfState": 1})
    focusing.camera.emit({**STEADY, "AfState": 2})
    assert asked.result().status is HTTPStatus.OK, "without another frame"


@pytest.mark.parametrize("query", ["autofocus=0", "max_age=60", "max_age=60&autofocus=no"])
def test_no_autofocus_if_not_requested(focusing: Scene, query: str) -> None:
    with focusing.camera.flowing():
        focusing.snapshot(query)
    assert triggers(focusing) == 0


def test_no_autofocus_during_stream(focusing: Scene) -> None:
    with focusing.held.open(), focusing.camera.flowing():
        eventually(lambda: triggers(focusing) == 1, "the stream's own cycle")
        focusing.snapshot()
        assert triggers(focusing) == 1


@pytest.mark.parametrize("query", ["", "autofocus=1"])
def test_camera_without_autofocus(flowing: Scene, query: str) -> None:
    assert flowing.snapshot(query).status is HTTPStatus.OK
    assert triggers(flowing) == 0


# Errors and concurrency


def test_timeout_releases_lease(impatient: Scene) -> None:
    with pytest.raises(NoPicture):
        impatient.snapshot()
    assert impatient.leases["snapshot"] == 0


def test_failed_still_releases_lease(flowing: Scene) -> None:
    flowing.camera.fail_next("still", CameraError("no still today"))
    with pytest.raises(CameraError, match="no still today"):
        flowing.snapshot("full=1")
    assert flowing.leases["snapshot"] == 0
    assert flowing.snapshot().status is HTTPStatus.OK


def test_concurrent_stills_share_one() -> None:
    limits = SessionLimits(still_pause_s=3600.0)  # until the test ends it
    with Scene(session_limits=limits) as flowing, flowing.camera.flowing(), flowing.manager.lease("stream"):
        # Streams have their share of time, in which all requests for the next still arrive.
        first = taken_at_s(flowing.snapshot("full=1"))
        waiting = [Background(lambda: flowing.snapshot("full=1")) for _ in range(7)]
        eventually(lambda: flowing.held.waiting_for_jobs() == 7, "that all wait for one")
        flowing.held.end_still_pause()
        others = {response.headers["X-Timestamp"] for response in (still.result() for still in waiting)}
        assert len(others) == 1
        assert float(others.pop()) > first - time.monotonic() + time.time()
        assert flowing.camera.count("still") == 2


def test_encoder_error_releases_lease(flowing: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> bytes:
        raise ValueError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr(jpeg, "encode", fail)
        with pytest.raises(ValueError, match="a bug"):
            flowing.snapshot()
    assert flowing.leases["snapshot"] == 0
    assert flowing.snapshot().status is HTTPStatus.OK


def test_head_takes_no_snapshot(scene: Scene) -> None:
    response = scene.snapshot(method="HEAD")
    assert (response.body, response.content_type) == (b"", "image/jpeg")
    assert COMMON.items() <= response.headers.items()
    assert scene.camera.opens == 0


def test_concurrent_snapshots(flowing: Scene) -> None:
    asking = [Background(flowing.snapshot) for _ in range(20)]
    assert {size_of(call.result()) for call in asking} == {SIZE}


def test_snapshots_that_wait_delay_no_other(scene: Scene) -> None:
    """More than may encode at a time wait until a frame shows a change."""
    with scene.manager.lease("stream"):
        eventually(lambda: scene.camera.is_open)
        for _ in range(6):
            scene.camera.emit()
        scene.manager.set_controls({"ExposureTime": 5000})
        waiting = [Background(scene.snapshot) for _ in range(4)]
        eventually(lambda: waiters(scene.manager.frames._changed) == len(waiting))
        assert size_of(scene.snapshot("max_age=60")) == SIZE
        assert scene.camera.frames_out == 1  # that of the slot
        shows = scene.camera.emit({**STEADY, "ExposureTime": 5000})
        assert {float(call.result().headers["X-Timestamp"]) for call in waiting} == {round(shows.timestamp_s, 6)}


def test_frame_is_dropped_before_the_turn(flowing: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """The camera stopped for a still, for example: the snapshot waits for another frame."""
    newest_frame, dropped = flowing.manager.newest_frame, list[float]()

    def drop_first(began_s: float) -> Frame | None:
        if not dropped:
            dropped.append(began_s)
            return None
        return newest_frame(began_s)

    monkeypatch.setattr(flowing.manager, "newest_frame", drop_first)
    assert taken_at_s(flowing.snapshot()) >= dropped[0] - 0.001


# A camera that delivers JPEGs


def sends_until(scene: Scene, picture: bytes, is_over: Callable[[], bool]) -> bool:
    """A predicate for `eventually`: whether it is over; another frame is sent each time."""
    scene.camera.on_frame(Frame((np.frombuffer(picture, np.uint8),), "MJPEG", *SIZE, metadata=STEADY))
    return is_over()


@pytest.fixture
def whole() -> bytes:
    return jpeg.encode(make_frame(), None, 70)


def test_damaged_jpeg_is_skipped(whole: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    with Scene(make_camera("MJPEG")) as scene:
        is_tried = threading.Event()
        encode = scene.pictures.snapshot

        def note(*wish: Any, **more: Any) -> bytes:
            is_tried.set()
            return encode(*wish, **more)

        monkeypatch.setattr(scene.pictures, "snapshot", note)
        asked = Background(scene.snapshot)
        eventually(lambda: scene.camera.is_open)
        eventually(lambda: sends_until(scene, whole[:-9], is_tried.is_set))
        eventually(lambda: sends_until(scene, whole, lambda: asked.is_over))
        assert asked.result().body == whole


def test_all_jpegs_damaged(whole: bytes) -> None:
    with Scene(make_camera("MJPEG")) as scene:
        asked = Background(scene.snapshot)
        eventually(lambda: scene.camera.is_open)
        eventually(lambda: sends_until(scene, whole[:-9], lambda: asked.is_over))
        with pytest.raises(CameraError, match="damaged"):
            asked.result()


def test_orientation_of_camera_jpeg(whole: bytes) -> None:
    with Scene(make_camera("MJPEG"), controls=SimpleNamespace(orientation=6)) as scene:
        asked = Background(scene.snapshot)
        eventually(lambda: scene.camera.is_open)
        eventually(lambda: sends_until(scene, whole, lambda: asked.is_over))
        picture = Image.open(io.BytesIO(asked.result().body))
    assert picture.getexif()[ExifTags.Base.Orientation] == 6


def test_name_in_jpeg_of_a_camera(whole: bytes) -> None:
    """EXIF that is there already is kept."""
    for picture, name in ((whole, "Door"), (with_exif(whole, exif_segment(description="own")), "own")):
        with Scene(make_camera("MJPEG"), name="Door") as scene:
            asked = Background(scene.snapshot)
            eventually(lambda: scene.camera.is_open)
            eventually(partial(sends_until, scene, picture, partial(getattr, asked, "is_over")))
            assert description_of(asked.result().body) == name
            assert asked.result().body.endswith(whole[2:])
