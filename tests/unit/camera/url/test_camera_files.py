"""The URL camera with files and pipes: frame rate, loops, damaged and missing files."""

import itertools
import os
import threading
from pathlib import Path

import pytest

from softcam.camera.base import StreamRequest
from softcam.camera.url import reader
from softcam.errors import CameraError, CameraMissing
from tests.support.background import eventually
from tests.support.motion_pictures import grey_rgb, jpeg_of, write_jpegs, write_movie, write_unknown
from tests.support.timeouts import TIMEOUT_FACTOR
from tests.support.url_client import FPS, FrameRecorder, MakeCamera, Recorded, open_with


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi", "a.h264"])
def test_file_loops_at_its_frame_rate(tmp_path: Path, make_camera: MakeCamera, name: str) -> None:
    path = write_movie(tmp_path / name, [grey_rgb(n) for n in range(8)], FPS)
    recorder = open_with(make_camera(path))
    frames = recorder.wait(25)
    assert [each.number for each in frames[:24]] == [0, 1, 2, 3, 4, 5, 6, 7] * 3
    _check_pace(recorder.began_s, frames, 1 / 25 if name == "a.h264" else 1 / FPS)  # no timestamps: 25 fps


@pytest.mark.parametrize("name", ["a.avi", "a.mjpeg", "a.mkv"])
def test_jpegs_of_file_are_unchanged(tmp_path: Path, make_camera: MakeCamera, name: str) -> None:
    jpegs = [jpeg_of(grey_rgb(n)) for n in range(6)]
    recorder = open_with(make_camera(write_jpegs(tmp_path / name, jpegs, 25)), keeps_data=True)
    frames = recorder.wait(19)
    assert [each.data for each in frames[:18]] == jpegs * 3
    assert {(each.size, each.pixel_format) for each in frames} == {((64, 48), "MJPEG")}
    _check_pace(recorder.began_s, frames, 1 / 25)


def _check_pace(began_s: float, frames: list[Recorded], step_s: float) -> None:
    """Check the average: a busy machine delays some frames, also the first one, and not the next ones."""
    assert frames[-1].received_s - began_s >= (len(frames) - 1) * step_s * 0.95
    gaps = sorted(after.received_s - before.received_s for before, after in itertools.pairwise(frames))
    assert gaps[len(gaps) // 2] == pytest.approx(step_s, rel=0.5)


def test_decimation_of_file(tmp_path: Path, make_camera: MakeCamera) -> None:
    path = write_movie(tmp_path / "a.mp4", [grey_rgb(n) for n in range(16)], FPS)
    frames = open_with(make_camera(path, StreamRequest(640, 480, FPS / 4))).wait(9)
    steps = [(after.number - before.number) % 16 for before, after in itertools.pairwise(frames)]
    # Every fourth on a quiet machine; on a busy one the clock of the file is reset, and the next frame follows at once.
    assert 2 < sum(steps) / len(steps) < 5
    assert frames[-1].metadata["FrameDuration"] == pytest.approx(4e6 / FPS, rel=0.5)


def test_file_with_single_image(tmp_path: Path, make_camera: MakeCamera) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg_of(grey_rgb(5)))
    recorder = open_with(make_camera(tmp_path / "a.jpg"))
    assert {each.number for each in recorder.wait(3)} == {5}


def test_no_leak_in_loop(tmp_path: Path, make_camera: MakeCamera) -> None:
    path = write_jpegs(tmp_path / "a.mjpeg", [jpeg_of(grey_rgb(n)) for n in range(2)], 25)  # is reopened each time
    recorder = open_with(make_camera(path))
    recorder.wait(4)
    before = len(list(Path("/proc/self/fd").iterdir()))
    recorder.wait(40)
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 1
    assert [thread.name for thread in threading.enumerate()].count("url-camera") == 1


def test_file_name_with_colon(tmp_path: Path, make_camera: MakeCamera, monkeypatch: pytest.MonkeyPatch) -> None:
    write_movie(tmp_path / "plain.mp4", [grey_rgb(2)] * 3, FPS).rename(tmp_path / "at 10:15.mp4")
    monkeypatch.chdir(tmp_path)
    assert open_with(make_camera("at 10:15.mp4")).wait(1)[0].number == 2


def test_pipe(tmp_path: Path, make_camera: MakeCamera) -> None:
    os.mkfifo(tmp_path / "pipe")
    camera = make_camera(
        tmp_path / "pipe", read_timeout_s=2.0 * TIMEOUT_FACTOR
    )  # a writer may be slow on a busy machine
    recorder = open_with(camera)
    eventually(
        lambda: camera.disconnect_reason is not None and camera.disconnect_reason.endswith("no data"),
        "a timeout",
    )
    movie = write_movie(tmp_path / "a.ts", [grey_rgb(n) for n in range(16)], FPS).read_bytes()
    for _ in range(2):  # the writer may return
        before = len(recorder.frames)
        with (tmp_path / "pipe").open("wb") as pipe:
            pipe.write(movie)
        eventually(lambda: len(recorder.frames) > before, "its images")  # noqa: B023 - waited for here
        # Until then the reader has the pipe open, and would lose what a second writer sends.
        eventually(
            lambda: camera.disconnect_reason is not None and camera.disconnect_reason.endswith("end of stream"),
            "its end",
        )
    camera.close()


def test_pipe_without_video_is_an_error(tmp_path: Path, make_camera: MakeCamera) -> None:
    os.mkfifo(tmp_path / "pipe")
    camera = make_camera(tmp_path / "pipe", read_timeout_s=0.3)
    camera.open(lambda frame: frame.release())
    for _ in range(10):
        with (tmp_path / "pipe").open("wb") as pipe:
            pipe.write(b"no video at all" * 100)
    eventually(lambda: "Invalid data" in (camera.disconnect_reason or ""), "the reason")
    camera.close()
    eventually(lambda: not [each for each in Path("/proc/self/fd").iterdir() if each.resolve() == tmp_path / "pipe"])


def test_missing_file_is_an_error(tmp_path: Path, make_camera: MakeCamera) -> None:
    camera = make_camera(tmp_path / "none.mp4")
    assert not camera.is_present()
    with pytest.raises(CameraMissing, match=r"none\.mp4 is missing"):
        camera.open(FrameRecorder())


def test_file_without_video_is_retried(tmp_path: Path, make_camera: MakeCamera) -> None:
    path = tmp_path / "a.mp4"
    path.write_text("no video")
    camera = make_camera(path)
    recorder = open_with(camera)
    assert camera.disconnect_reason == f"{path}: Invalid data found when processing input"
    with pytest.raises(CameraError, match="Invalid data"):
        camera.still(None)
    path.write_bytes(write_movie(tmp_path / "b.mp4", [grey_rgb(2)] * 3, FPS).read_bytes())
    assert recorder.wait(1)[0].number == 2
    eventually(lambda: camera.disconnect_reason is None)


def test_unsupported_video_format_is_an_error(
    tmp_path: Path, make_camera: MakeCamera, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_unknown(tmp_path / "a.mp4")
    camera = make_camera(path)
    open_with(camera)
    assert camera.disconnect_reason == f"{path}: FFmpeg does not support its video format"
    assert "Traceback" not in caplog.text


def test_start_without_thread_is_an_error(
    tmp_path: Path, make_camera: MakeCamera, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    camera = make_camera(write_movie(tmp_path / "a.mp4", [grey_rgb(0)] * 3, FPS))
    with monkeypatch.context() as patch:
        patch.setattr(reader, "spawn", fail)
        with pytest.raises(CameraError, match="can't start new thread"):
            camera.open(FrameRecorder())
    camera.close()
    assert open_with(camera).wait(1)


def test_damaged_image_in_file(tmp_path: Path, make_camera: MakeCamera) -> None:
    jpegs = [jpeg_of(grey_rgb(n)) for n in range(4)]
    jpegs[2] = jpegs[2][: len(jpegs[2]) // 2]
    recorder = open_with(make_camera(write_jpegs(tmp_path / "a.avi", jpegs, 25)))
    assert [each.number for each in recorder.wait(6)[:6]] == [0, 1, 3, 0, 1, 3]
