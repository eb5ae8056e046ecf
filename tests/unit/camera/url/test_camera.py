"""The camera that another program owns: files, a server of JPEGs, and what becomes of them."""

import itertools
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import simplejpeg

from softcam.camera.base import Remote, StreamRequest
from softcam.camera.url import reader
from softcam.camera.url.camera import UrlCamera
from softcam.camera.url.source import covering, fitted, size_of_jpeg
from softcam.errors import CameraError, CameraMissing, NotSupported
from softcam.imaging.frame import Frame
from tests.support.fakes import eventually
from tests.support.motion_pictures import (
    MjpegServer,
    grey_rgb,
    jpeg_of,
    number_in,
    planes_of,
    send_part,
    smooth_rgb,
    write_jpegs,
    write_movie,
    write_unknown,
)

WISH = StreamRequest(640, 480, 100)
FPS = 20
PATIENCE_S = 20.0


@dataclass(frozen=True)
class Got:
    """What was seen of a frame, which was given back."""

    came_s: float
    number: int
    size: tuple[int, int]
    pixel_format: str
    data: bytes
    metadata: dict[str, int]


class Taker:
    """Takes frames, and lets a test wait for so many."""

    def __init__(self, *, keeps_data: bool = False) -> None:
        self._changed = threading.Condition()
        self._keeps_data = keeps_data
        self.began_s = time.monotonic()  # before the camera is opened
        self.got: list[Got] = []

    def __call__(self, frame: Frame) -> None:
        data = frame.planes[0].tobytes() if self._keeps_data else b""
        got = Got(time.monotonic(), number_in(frame), frame.size, frame.pixel_format, data, dict(frame.metadata))
        frame.release()
        with self._changed:
            self.got.append(got)
            self._changed.notify_all()

    def wait(self, count: int) -> list[Got]:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.got) >= count, PATIENCE_S), f"{len(self.got)} frames came"
            return list(self.got)

    def wait_more(self, count: int) -> list[Got]:
        before = len(self.got)
        return self.wait(before + count)[before:]


Open = Callable[..., UrlCamera]


@pytest.fixture
def camera_of() -> Iterator[Open]:
    """`camera_of(address, wish)`: closed at the end, with no thread left behind."""
    made: list[UrlCamera] = []

    def make(address: object, wish: StreamRequest = WISH) -> UrlCamera:
        made.append(UrlCamera(str(address), wish))
        return made[-1]

    yield make
    for camera in made:
        camera.close()
    eventually(lambda: not [thread for thread in threading.enumerate() if thread.name == "url-camera"], "no reader")


def open_with(camera: UrlCamera, *, keeps_data: bool = False) -> Taker:
    taker = Taker(keeps_data=keeps_data)
    camera.open(taker)
    return taker


def first_frame(camera: UrlCamera) -> Frame:
    """Held for the caller."""
    frames: list[Frame] = []
    came = threading.Event()

    def take(frame: Frame) -> None:
        if frames:
            frame.release()
            return
        frames.append(frame)
        came.set()

    camera.open(take)
    assert came.wait(PATIENCE_S)
    return frames[0]


# --- colours and sizes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_full", [False, True], ids=["limited", "full"])
@pytest.mark.parametrize("is_bt709", [False, True], ids=["bt601", "bt709"])
def test_colours_are_those_of_the_source(tmp_path: Path, camera_of: Open, is_bt709: bool, is_full: bool) -> None:
    rgb = smooth_rgb((320, 240))
    path = write_movie(tmp_path / "smooth.mp4", [rgb] * 3, FPS, is_bt709=is_bt709, is_full=is_full)
    _check_colours(camera_of(path), rgb)


@pytest.mark.parametrize(("size", "is_bt709"), [((320, 240), False), ((1280, 720), True)])
def test_colours_that_nobody_named_go_by_the_size(
    tmp_path: Path, camera_of: Open, size: tuple[int, int], is_bt709: bool
) -> None:
    rgb = smooth_rgb(size)
    path = write_movie(tmp_path / "smooth.mp4", [rgb] * 3, FPS, is_bt709=is_bt709, is_told=False)
    _check_colours(camera_of(path, StreamRequest(1280, 720, FPS)), rgb)


def test_colours_of_a_lossless_picture(tmp_path: Path, camera_of: Open) -> None:
    import av

    rgb = smooth_rgb((320, 240))
    picture = av.VideoFrame.from_ndarray(rgb, format="rgb24")
    with av.open(str(tmp_path / "smooth.png"), "w", format="image2") as target:
        stream = target.add_stream("png", rate=1)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "rgb24"
        target.mux(stream.encode(picture))
        target.mux(stream.encode(None))
    _check_colours(camera_of(tmp_path / "smooth.png"), rgb)


def test_colours_of_a_jpeg_that_is_made_smaller(tmp_path: Path, camera_of: Open) -> None:
    rgb = smooth_rgb((640, 480))
    path = write_jpegs(tmp_path / "smooth.avi", [jpeg_of(rgb, 98)] * 3, FPS)
    _check_colours(camera_of(path, StreamRequest(320, 240, FPS)), smooth_rgb((320, 240)))


def _check_colours(camera: UrlCamera, rgb: np.ndarray) -> None:
    frame = first_frame(camera)
    try:
        assert frame.pixel_format == "YUV420"
        assert frame.size == rgb.shape[1::-1]
        for plane, expected in zip(frame.planes, planes_of(rgb), strict=True):
            off = np.abs(plane - expected)
            assert off.mean() < 1.5
            assert np.percentile(off, 99) <= 3
    finally:
        frame.release()


@pytest.mark.parametrize(
    ("size", "most", "expected"),
    [
        ((640, 360), (1536, 864), (640, 360)),
        ((1920, 1080), (1536, 864), (1536, 864)),
        ((1920, 1080), (640, 640), (640, 360)),
        ((480, 640), (640, 480), (360, 480)),
        ((641, 361), (1536, 864), (640, 360)),
        ((1000, 3), (100, 100), (100, 2)),
        ((4000, 3000), (1536, 864), (1152, 864)),
    ],
)
def test_fitted(size: tuple[int, int], most: tuple[int, int], expected: tuple[int, int]) -> None:
    assert fitted(size, most) == expected


@pytest.mark.parametrize(
    ("size", "least", "expected"),
    [
        ((320, 180), (240, 134), (240, 136)),
        ((640, 480), (400, 400), (534, 400)),
        ((640, 480), (640, 480), (640, 480)),
        ((640, 480), (9000, 10), (640, 480)),
        ((641, 361), (641, 361), (641, 361)),
        ((4608, 2592), (1536, 864), (1536, 864)),
    ],
)
def test_covering(size: tuple[int, int], least: tuple[int, int], expected: tuple[int, int]) -> None:
    assert covering(size, least) == expected


def test_stream_and_still_of_a_large_source(tmp_path: Path, camera_of: Open) -> None:
    camera = camera_of(
        write_movie(tmp_path / "a.mp4", [grey_rgb(3, (640, 480))] * 10, FPS), StreamRequest(320, 320, FPS)
    )
    mode = camera.open(Taker())
    assert (mode.width, mode.height, mode.sensor_size) == (320, 240, (640, 480))
    assert not mode.can_flip
    assert mode.controls == {}
    for wanted, size in (
        (None, (640, 480)),
        ((400, 400), (534, 400)),
        ((400, 300), (400, 300)),
        ((9000, 9000), (640, 480)),
    ):
        still = camera.still(wanted)
        assert still.size == size
        assert number_in(still) == 3
        still.release()


# --- files --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi", "a.h264"])
def test_a_file_loops_at_its_own_pace(tmp_path: Path, camera_of: Open, name: str) -> None:
    path = write_movie(tmp_path / name, [grey_rgb(n) for n in range(8)], FPS)
    taker = open_with(camera_of(path))
    got = taker.wait(25)
    assert [each.number for each in got[:24]] == [0, 1, 2, 3, 4, 5, 6, 7] * 3
    _check_pace(taker.began_s, got, 1 / 25 if name == "a.h264" else 1 / FPS)  # which tells no time, and gets the usual


@pytest.mark.parametrize("name", ["a.avi", "a.mjpeg", "a.mkv"])
def test_jpegs_of_a_file_are_passed_on_as_they_are(tmp_path: Path, camera_of: Open, name: str) -> None:
    jpegs = [jpeg_of(grey_rgb(n)) for n in range(6)]
    taker = open_with(camera_of(write_jpegs(tmp_path / name, jpegs, 25)), keeps_data=True)
    got = taker.wait(19)
    assert [each.data for each in got[:18]] == jpegs * 3
    assert {(each.size, each.pixel_format) for each in got} == {((64, 48), "MJPEG")}
    _check_pace(taker.began_s, got, 1 / 25)


def _check_pace(began_s: float, got: list[Got], step_s: float) -> None:
    """On average; a machine that is busy makes some frames late, the first one too, and the next ones are not."""
    assert got[-1].came_s - began_s >= (len(got) - 1) * step_s * 0.95
    gaps = sorted(after.came_s - before.came_s for before, after in itertools.pairwise(got))
    assert gaps[len(gaps) // 2] == pytest.approx(step_s, rel=0.5)


def test_a_faster_file_is_thinned_out(tmp_path: Path, camera_of: Open) -> None:
    path = write_movie(tmp_path / "a.mp4", [grey_rgb(n) for n in range(16)], FPS)
    got = open_with(camera_of(path, StreamRequest(640, 480, FPS / 4))).wait(9)
    steps = [(after.number - before.number) % 16 for before, after in itertools.pairwise(got)]
    assert sum(steps) / len(steps) == pytest.approx(4, rel=0.2)
    assert got[-1].metadata["FrameDuration"] == pytest.approx(4e6 / FPS, rel=0.5)


def test_a_file_that_is_one_picture_is_shown_again_and_again(tmp_path: Path, camera_of: Open) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg_of(grey_rgb(5)))
    taker = open_with(camera_of(tmp_path / "a.jpg"))
    assert {each.number for each in taker.wait(3)} == {5}


def test_a_long_loop_leaves_nothing_behind(tmp_path: Path, camera_of: Open) -> None:
    path = write_jpegs(tmp_path / "a.mjpeg", [jpeg_of(grey_rgb(n)) for n in range(2)], 25)  # is opened anew each time
    taker = open_with(camera_of(path))
    taker.wait(4)
    before = len(list(Path("/proc/self/fd").iterdir()))
    taker.wait(40)
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 1
    assert [thread.name for thread in threading.enumerate()].count("url-camera") == 1


def test_a_name_with_a_colon_is_a_file(tmp_path: Path, camera_of: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    write_movie(tmp_path / "plain.mp4", [grey_rgb(2)] * 3, FPS).rename(tmp_path / "at 10:15.mp4")
    monkeypatch.chdir(tmp_path)
    assert open_with(camera_of("at 10:15.mp4")).wait(1)[0].number == 2


def test_a_pipe_is_waited_for_and_read_as_it_comes(
    tmp_path: Path, camera_of: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("softcam.camera.url.source._READ_LIMIT_S", 0.3)
    os.mkfifo(tmp_path / "pipe")
    camera = camera_of(tmp_path / "pipe")
    taker = open_with(camera)
    eventually(
        lambda: camera.disconnect_reason is not None and camera.disconnect_reason.endswith("nobody writes into it"),
        "a deadline",
    )
    monkeypatch.setattr("softcam.camera.url.source._READ_LIMIT_S", 4.0)  # who writes may be slow on a busy machine
    movie = write_movie(tmp_path / "a.ts", [grey_rgb(n) for n in range(16)], FPS).read_bytes()
    for _ in range(2):  # who closed it may come again
        before = len(taker.got)
        with (tmp_path / "pipe").open("wb") as pipe:
            pipe.write(movie)
        eventually(lambda: len(taker.got) > before, "its pictures")  # noqa: B023 - waited for here
        # Until then the reader has the pipe open, and what a second one writes goes with it.
        eventually(
            lambda: camera.disconnect_reason is not None and camera.disconnect_reason.endswith("it has ended"),
            "its end",
        )
    camera.close()


def test_fail_a_pipe_of_something_else(tmp_path: Path, camera_of: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("softcam.camera.url.source._READ_LIMIT_S", 0.3)
    os.mkfifo(tmp_path / "pipe")
    camera = camera_of(tmp_path / "pipe")
    camera.open(lambda frame: frame.release())
    for _ in range(10):
        with (tmp_path / "pipe").open("wb") as pipe:
            pipe.write(b"no video at all" * 100)
    eventually(lambda: "Invalid data" in (camera.disconnect_reason or ""), "the reason")
    camera.close()
    eventually(lambda: not [each for each in Path("/proc/self/fd").iterdir() if each.resolve() == tmp_path / "pipe"])


def test_fail_a_file_that_is_not_there(tmp_path: Path, camera_of: Open) -> None:
    camera = camera_of(tmp_path / "none.mp4")
    assert not camera.is_present()
    with pytest.raises(CameraMissing, match=r"none\.mp4 is missing"):
        camera.open(Taker())


def test_fail_a_file_without_video_says_why_and_is_tried_on(tmp_path: Path, camera_of: Open) -> None:
    path = tmp_path / "a.mp4"
    path.write_text("no video")
    camera = camera_of(path)
    taker = open_with(camera)
    assert camera.disconnect_reason == f"{path}: Invalid data found when processing input"
    with pytest.raises(CameraError, match="Invalid data"):
        camera.still(None)
    path.write_bytes(write_movie(tmp_path / "b.mp4", [grey_rgb(2)] * 3, FPS).read_bytes())
    assert taker.wait(1)[0].number == 2
    eventually(lambda: camera.disconnect_reason is None)


def test_fail_what_nobody_can_decode_says_why(
    tmp_path: Path, camera_of: Open, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_unknown(tmp_path / "a.mp4")
    camera = camera_of(path)
    open_with(camera)
    assert camera.disconnect_reason == f"{path}: its video is of a kind that FFmpeg does not know"
    assert "Traceback" not in caplog.text


def test_fail_to_open_where_no_thread_can_be_had(
    tmp_path: Path, camera_of: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    camera = camera_of(write_movie(tmp_path / "a.mp4", [grey_rgb(0)] * 3, FPS))
    with monkeypatch.context() as patch:
        patch.setattr(reader, "spawn", fail)
        with pytest.raises(CameraError, match="can't start new thread"):
            camera.open(Taker())
    camera.close()
    assert open_with(camera).wait(1)


def test_a_damaged_file_shows_what_is_well(tmp_path: Path, camera_of: Open) -> None:
    jpegs = [jpeg_of(grey_rgb(n)) for n in range(4)]
    jpegs[2] = jpegs[2][: len(jpegs[2]) // 2]
    taker = open_with(camera_of(write_jpegs(tmp_path / "a.avi", jpegs, 25)))
    assert [each.number for each in taker.wait(6)[:6]] == [0, 1, 3, 0, 1, 3]


# --- what it cannot do --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wish", [StreamRequest(64, 48, 5, hflip=True), StreamRequest(64, 48, 5, hdr="sensor")])
def test_fail_a_wish_beyond_it(tmp_path: Path, camera_of: Open, wish: StreamRequest) -> None:
    camera = camera_of(write_movie(tmp_path / "a.mp4", [grey_rgb(0)] * 3, FPS))
    camera.prepare(wish)
    with pytest.raises(NotSupported):
        camera.open(Taker())
    camera.prepare(WISH)
    open_with(camera).wait(1)


def test_fail_controls_and_raw_pictures(tmp_path: Path, camera_of: Open) -> None:
    camera = camera_of(write_movie(tmp_path / "a.mp4", [grey_rgb(0)] * 3, FPS))
    camera.set_controls({"ExposureTime": 1})  # closed: does nothing
    open_with(camera).wait(1)
    with pytest.raises(NotSupported, match="takes no controls: ExposureTime"):
        camera.set_controls({"ExposureTime": 1})
    camera.set_controls({})
    with pytest.raises(NotSupported, match="no raw"):
        camera.raw_still()


def test_fail_a_still_of_a_closed_camera(tmp_path: Path, camera_of: Open) -> None:
    with pytest.raises(CameraError, match="is closed"):
        camera_of(tmp_path).still(None)


def test_it_is_a_remote_camera_and_tells_no_secret(camera_of: Open) -> None:
    camera = camera_of("rtsp://admin:secret@127.0.0.1:1/cam?token=secret")
    assert isinstance(camera, Remote)
    assert camera.is_present()
    assert camera.name == "rtsp://127.0.0.1:1/cam"
    assert camera.backend == "url"
    camera.open(Taker())
    eventually(lambda: camera.disconnect_reason != "rtsp://127.0.0.1:1/cam: connecting")
    assert camera.disconnect_reason == "rtsp://127.0.0.1:1/cam: Connection refused"


# --- a server of JPEGs --------------------------------------------------------------------------------------------


def endless(jpegs: list[bytes], step_s: float = 0.02) -> Callable[[socket.socket], None]:
    def serve(connection: socket.socket) -> None:
        number = 0
        while True:
            send_part(connection, jpegs[number % len(jpegs)])
            number += 1
            time.sleep(step_s)

    return serve


def test_jpegs_of_a_server_are_passed_on_as_they_are(camera_of: Open) -> None:
    jpegs = [jpeg_of(grey_rgb(n)) for n in range(6)]
    with MjpegServer(endless(jpegs)) as server:
        taker = open_with(camera_of(server.url), keeps_data=True)
        got = taker.wait(30)
        assert {each.data for each in got} <= set(jpegs)
        steps = [(after.number - before.number) % 6 for before, after in itertools.pairwise(got)]
        assert steps.count(1) > len(steps) / 2  # of those that come all at once, the first counts


def test_a_faster_server_is_thinned_out(camera_of: Open) -> None:
    with MjpegServer(endless([jpeg_of(grey_rgb(n)) for n in range(16)], 0.01)) as server:
        got = open_with(camera_of(server.url, StreamRequest(640, 480, 10))).wait(20)
        assert got[-1].came_s - got[0].came_s >= 17 * 0.09  # the first two may come as one


def test_damaged_parts_are_left_out(camera_of: Open) -> None:
    whole = jpeg_of(grey_rgb(1))
    jpegs = [whole, whole[:200], b"no JPEG at all", jpeg_of(grey_rgb(2)), b"\xff\xd8\xff\xd9"]
    with MjpegServer(endless(jpegs)) as server:
        got = open_with(camera_of(server.url)).wait(12)
        assert {each.number for each in got} == {1, 2}


def test_a_server_that_comes_back_maybe_with_another_picture(camera_of: Open) -> None:
    told: list[str | None] = []
    with MjpegServer(endless([jpeg_of(grey_rgb(1))])) as server:
        camera = camera_of(server.url)
        camera.on_disconnect(lambda: told.append(camera.disconnect_reason))
        taker = open_with(camera)
        taker.wait(3)
        assert camera.disconnect_reason is None
        server.stop()
        eventually(lambda: camera.disconnect_reason is not None)
        assert told
        server.serve = endless([jpeg_of(grey_rgb(7, (128, 96)))])
        server.start()
        eventually(lambda: camera.disconnect_reason is None)
        got = taker.wait_more(2)
        assert {(each.number, each.size) for each in got} == {(7, (128, 96))}
        assert (camera.config.width, camera.config.height, camera.config.sensor_size) == (128, 96, (128, 96))


def test_a_server_that_is_away_at_first(camera_of: Open) -> None:
    with MjpegServer(endless([jpeg_of(grey_rgb(1))])) as server:
        server.stop()
        camera = camera_of(server.url)
        taker = Taker()
        mode = camera.open(taker)
        assert (mode.width, mode.height, mode.pixel_format) == (640, 480, "YUV420")
        assert camera.disconnect_reason == f"{server.url}: Connection refused"
        server.start()
        taker.wait(2)
        assert (camera.config.width, camera.config.height, camera.config.pixel_format) == (64, 48, "MJPEG")


def test_a_server_that_hangs_is_left_and_asked_anew(camera_of: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("softcam.camera.url.source._READ_LIMIT_S", 0.5)
    over = threading.Event()

    def serve_one(connection: socket.socket) -> None:
        for _ in range(3):
            send_part(connection, jpeg_of(grey_rgb(server.connections)))
        over.wait(PATIENCE_S)

    with MjpegServer(serve_one) as server:
        camera = camera_of(server.url)
        taker = open_with(camera)
        eventually(lambda: 2 in {each.number for each in taker.got}, "a second connection")
        assert 1 in {each.number for each in taker.got}
        eventually(lambda: camera.disconnect_reason == f"{server.url}: it does not answer")
        over.set()


def test_restart_connects_anew_and_close_does_not_wait_for_a_server_that_hangs(camera_of: Open) -> None:
    over = threading.Event()

    def serve_some(connection: socket.socket) -> None:
        for _ in range(3):
            send_part(connection, jpeg_of(grey_rgb(server.connections)))
        over.wait(PATIENCE_S)

    with MjpegServer(serve_some) as server:
        camera = camera_of(server.url)
        taker = open_with(camera)
        taker.wait(1)
        camera.restart()
        eventually(lambda: 2 in {each.number for each in taker.got}, "a second connection")
        began_s = time.monotonic()
        camera.close()
        assert time.monotonic() - began_s < 3
        assert camera.disconnect_reason is None
        count = len(taker.got)
        over.set()
    eventually(lambda: not [thread for thread in threading.enumerate() if thread.name == "url-camera"], "no reader")
    assert len(taker.got) == count


def test_the_wish_of_the_next_opening_counts(camera_of: Open) -> None:
    with MjpegServer(endless([jpeg_of(grey_rgb(1, (320, 240)))])) as server:
        camera = camera_of(server.url)
        assert (camera.open(Taker()).width, camera.config.pixel_format) == (320, "MJPEG")
        camera.close()
        camera.prepare(StreamRequest(160, 160, 50))
        assert (camera.open(Taker()).width, camera.config.pixel_format) == (160, "YUV420")


# --- JPEG headers -------------------------------------------------------------------------------------------------


def test_size_of_jpeg() -> None:
    jpeg = jpeg_of(grey_rgb(1, (66, 34)))
    assert size_of_jpeg(jpeg) == (66, 34)
    assert size_of_jpeg(jpeg + bytes(100)) == (66, 34)
    assert simplejpeg.decode_jpeg_header(jpeg)[:2] == (34, 66)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xd8",
        b"\xff\xd8\xff\xd9",
        b"\x89PNG",
        b"\xff\xd8\xff\xda\x00\x02\xff\xd9",
        b"\xff\xd8" + b"\xff" * 99,
    ],
)
def test_fail_size_of_what_is_no_jpeg(data: bytes) -> None:
    assert size_of_jpeg(data) is None


def test_fail_size_of_a_jpeg_that_was_cut() -> None:
    jpeg = jpeg_of(smooth_rgb((64, 48)))
    assert [cut for cut in range(0, len(jpeg) - 1, 7) if size_of_jpeg(jpeg[:cut]) is not None] == []
