"""The URL camera with servers of JPEGs: reconnecting, timeouts, and what it does not support."""

import itertools
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from queue import Queue

import pytest

from softcam.camera.base import Remote, StreamRequest
from softcam.errors import CameraError, NotSupported
from softcam.imaging.frame import Frame
from tests.support.background import Background, eventually
from tests.support.motion_pictures import MjpegServer, grey_rgb, jpeg_of, send_part, write_movie
from tests.support.timeouts import TIMEOUT_FACTOR
from tests.support.url_client import FPS, PATIENCE_S, REQUEST, FrameRecorder, MakeCamera, open_with


@pytest.mark.parametrize("unsupported", [StreamRequest(64, 48, 5, hflip=True), StreamRequest(64, 48, 5, hdr="sensor")])
def test_unsupported_request_is_rejected(tmp_path: Path, make_camera: MakeCamera, unsupported: StreamRequest) -> None:
    camera = make_camera(write_movie(tmp_path / "a.mp4", [grey_rgb(0)] * 3, FPS))
    camera.prepare(unsupported)
    with pytest.raises(NotSupported):
        camera.open(FrameRecorder())
    camera.prepare(REQUEST)
    open_with(camera).wait(1)


def test_controls_and_raw_still_are_not_supported(tmp_path: Path, make_camera: MakeCamera) -> None:
    camera = make_camera(write_movie(tmp_path / "a.mp4", [grey_rgb(0)] * 3, FPS))
    camera.set_controls({"ExposureTime": 1})  # closed: no effect
    open_with(camera).wait(1)
    with pytest.raises(NotSupported, match="has no controls: ExposureTime"):
        camera.set_controls({"ExposureTime": 1})
    camera.set_controls({})
    with pytest.raises(NotSupported, match="no raw"):
        camera.raw_still()


def test_still_while_closed_is_an_error(tmp_path: Path, make_camera: MakeCamera) -> None:
    with pytest.raises(CameraError, match="is closed"):
        make_camera(tmp_path).still(None)


def test_remote_without_secrets(make_camera: MakeCamera) -> None:
    camera = make_camera("rtsp://admin:secret@127.0.0.1:1/cam?token=secret")
    assert isinstance(camera, Remote)
    assert camera.is_present()
    assert camera.name == "rtsp://127.0.0.1:1/cam"
    assert camera.backend == "url"
    camera.open(FrameRecorder())
    eventually(lambda: camera.disconnect_reason != "rtsp://127.0.0.1:1/cam: connecting")
    assert camera.disconnect_reason == "rtsp://127.0.0.1:1/cam: Connection refused"


def serve_endlessly(jpegs: list[bytes], step_s: float = 0.02) -> Callable[[socket.socket], None]:
    def serve(connection: socket.socket) -> None:
        number = 0
        while True:
            send_part(connection, jpegs[number % len(jpegs)])
            number += 1
            time.sleep(step_s)

    return serve


def test_jpegs_of_server_are_unchanged(make_camera: MakeCamera) -> None:
    jpegs = [jpeg_of(grey_rgb(n)) for n in range(6)]
    with MjpegServer(serve_endlessly(jpegs)) as server:
        recorder = open_with(make_camera(server.url), keeps_data=True)
        frames = recorder.wait(30)
        assert {each.data for each in frames} <= set(jpegs)
        steps = [(after.number - before.number) % 6 for before, after in itertools.pairwise(frames)]
        assert steps.count(1) > len(steps) / 2  # of frames that arrive at once, the first is used


def test_decimation_of_stream(make_camera: MakeCamera) -> None:
    with MjpegServer(serve_endlessly([jpeg_of(grey_rgb(n)) for n in range(16)], 0.01)) as server:
        frames = open_with(make_camera(server.url, StreamRequest(640, 480, 10))).wait(20)
        assert frames[-1].received_s - frames[0].received_s >= 17 * 0.09  # the first two may arrive at once


def test_damaged_parts_are_skipped(make_camera: MakeCamera) -> None:
    whole = jpeg_of(grey_rgb(1))
    jpegs = [whole, whole[:200], b"no JPEG at all", jpeg_of(grey_rgb(2)), b"\xff\xd8\xff\xd9"]
    with MjpegServer(serve_endlessly(jpegs)) as server:
        frames = open_with(make_camera(server.url)).wait(12)
        assert {each.number for each in frames} == {1, 2}


def test_reconnect_with_another_size(make_camera: MakeCamera) -> None:
    reasons: list[str | None] = []
    with MjpegServer(serve_endlessly([jpeg_of(grey_rgb(1))])) as server:
        camera = make_camera(server.url)
        camera.on_disconnect(lambda: reasons.append(camera.disconnect_reason))
        recorder = open_with(camera)
        recorder.wait(3)
        assert camera.disconnect_reason is None
        server.stop()
        eventually(lambda: camera.disconnect_reason is not None)
        assert reasons
        server.serve = serve_endlessly([jpeg_of(grey_rgb(7, (128, 96)))])
        server.start()
        eventually(lambda: camera.disconnect_reason is None)
        frames = recorder.wait_more(2)
        assert {(each.number, each.size) for each in frames} == {(7, (128, 96))}
        assert (camera.config.width, camera.config.height, camera.config.sensor_size) == (128, 96, (128, 96))


def test_server_unavailable_at_first(make_camera: MakeCamera) -> None:
    with MjpegServer(serve_endlessly([jpeg_of(grey_rgb(1))])) as server:
        server.stop()
        camera = make_camera(server.url)
        recorder = FrameRecorder()
        config = camera.open(recorder)
        assert (config.width, config.height, config.pixel_format) == (640, 480, "YUV420")
        assert camera.disconnect_reason == f"{server.url}: Connection refused"
        server.start()
        recorder.wait(2)
        assert (camera.config.width, camera.config.height, camera.config.pixel_format) == (64, 48, "MJPEG")


def test_reconnect_after_read_timeout(make_camera: MakeCamera) -> None:
    over = threading.Event()

    def serve_one(connection: socket.socket) -> None:
        for _ in range(3):
            send_part(connection, jpeg_of(grey_rgb(server.connections)))
        over.wait(PATIENCE_S)

    with MjpegServer(serve_one) as server:
        camera = make_camera(server.url, read_timeout_s=1.0 * TIMEOUT_FACTOR)
        recorder = open_with(camera)
        eventually(lambda: 2 in {each.number for each in recorder.frames}, "a second connection")
        assert 1 in {each.number for each in recorder.frames}
        eventually(lambda: camera.disconnect_reason == f"{server.url}: timed out")
        over.set()


def test_restart_and_close_with_hanging_server(make_camera: MakeCamera) -> None:
    over = threading.Event()

    def serve_some(connection: socket.socket) -> None:
        for _ in range(3):
            send_part(connection, jpeg_of(grey_rgb(server.connections)))
        over.wait(PATIENCE_S)

    with MjpegServer(serve_some) as server:
        camera = make_camera(server.url)
        recorder = open_with(camera)
        recorder.wait(1)
        camera.restart()
        eventually(lambda: 2 in {each.number for each in recorder.frames}, "a second connection")
        began_s = time.monotonic()
        camera.close()
        assert time.monotonic() - began_s < 3
        assert camera.disconnect_reason is None
        count = len(recorder.frames)
        over.set()
    eventually(lambda: not [thread for thread in threading.enumerate() if thread.name == "url-camera"], "no reader")
    assert len(recorder.frames) == count


def test_cancelled_open_returns_before_the_first_frame(make_camera: MakeCamera) -> None:
    asked, over = threading.Event(), threading.Event()

    def hang(_: socket.socket) -> None:
        asked.set()
        over.wait(PATIENCE_S)

    with MjpegServer(hang) as server:
        camera = make_camera(server.url)
        began_s = time.monotonic()
        opening = Background(lambda: camera.open(FrameRecorder()))
        assert asked.wait(PATIENCE_S)
        camera.cancel_open()
        assert opening.result() == camera.config
        assert time.monotonic() - began_s < 5, "its limit for the first frame"
        over.set()


def test_crash_of_the_reader_is_reported(make_camera: MakeCamera) -> None:
    def crash(frame: Frame) -> None:
        frame.release()
        raise SystemExit("broken")

    crashes = Queue[str]()
    with MjpegServer(serve_endlessly([jpeg_of(grey_rgb(1))])) as server:
        camera = make_camera(server.url, on_crash=crashes.put)
        opening = Background(lambda: camera.open(crash))
        assert crashes.get(timeout=PATIENCE_S) == "thread url-camera crashed: SystemExit: broken"
        camera.cancel_open()
        opening.result()


def test_prepare_applies_to_next_open(make_camera: MakeCamera) -> None:
    with MjpegServer(serve_endlessly([jpeg_of(grey_rgb(1, (320, 240)))])) as server:
        camera = make_camera(server.url)
        assert (camera.open(FrameRecorder()).width, camera.config.pixel_format) == (320, "MJPEG")
        camera.close()
        camera.prepare(StreamRequest(160, 160, 50))
        assert (camera.open(FrameRecorder()).width, camera.config.pixel_format) == (160, "YUV420")
