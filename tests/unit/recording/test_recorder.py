"""The video recorder with packets from the test: files, segments, pre-roll, and errors of the camera."""

import logging
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import av
import pytest

from softcam.errors import CameraError, RecordingError
from softcam.recording import base
from softcam.recording.journal import Journal, Origin, restore
from softcam.recording.library import Library
from softcam.recording.recorder import RecorderLimits
from softcam.recording.video_run import RecordingOptions
from softcam.runtime.deadline import Deadline
from tests.support.background import Background, eventually, soon, soon_s
from tests.support.h264_samples import FPS, play
from tests.support.recording_studio import PICTURE, numbers_from, running_name, running_status, studio
from tests.support.recordings import contents
from tests.support.timeouts import PATIENCE_S


def test_recording_plays_with_every_frame(tmp_path: Path) -> None:
    with studio(tmp_path) as s:
        s.start()
        running = running_status(s)
        assert running.name is not None
        assert running.segments == 1
        s.source.give(45)
        s.stop()
        assert s.recorder.running is None
        (entry,) = s.library.catalog.entries()
        (seen,) = s.videos()
    assert seen.numbers == numbers_from(0, 65)
    assert seen.times == pytest.approx([number / FPS for number in range(65)], abs=0.001)
    assert seen.duration_s == pytest.approx(65 / FPS, abs=0.01)
    assert (entry.name, entry.kind, entry.is_running) == (running.name, "video", False)
    assert entry.duration_s == pytest.approx(65 / FPS, abs=0.01)
    assert (entry.width, entry.height) == seen.size == (64, 48)
    assert entry.size == (tmp_path / entry.name).stat().st_size
    assert s.library.catalog.thumbnail(entry.name) == PICTURE


def test_other_orientation_begins_another_file(tmp_path: Path) -> None:
    with studio(tmp_path) as s:
        s.start()
        s.orientation = 6
        s.source.give(int(3 * FPS))
        eventually(lambda: s.segments == 2, "another file")
        s.stop()
        assert s.numbers() == numbers_from(0, len(s.numbers())), "no frame is lost"
        before, after = (s.library.folder / entry.name for entry in reversed(s.library.catalog.entries()))
    for path, degrees in ((before, 0), (after, -90)):
        with av.open(str(path)) as container:
            assert next(container.decode(video=0)).rotation == degrees


def test_interrupted_file_plays_and_is_recovered(tmp_path: Path) -> None:
    with studio(tmp_path / "one") as s:
        s.start()
        s.source.give(60)
        running = running_status(s)
        name = str(running.name)
        file, whole = s.library.catalog.open_recording(name)
        file.close()
        eventually(lambda: _whole(s.library, name) > whole, "another fragment")
        cut = Library(tmp_path / "two", None)
        content = (s.library.folder / name).read_bytes()
        (cut.folder / name).write_bytes(content[: _whole(s.library, name)] + b"\0\0\1\0moof and no more")
        s.stop()
    (entry,) = cut.catalog.entries()
    assert not entry.is_running
    seen = play(cut.folder / name)
    assert entry.duration_s == pytest.approx(len(seen.numbers) / FPS, abs=0.05)
    assert cut.recover() == 1
    assert cut.recover() == 0
    again = play(cut.folder / name)
    assert again.numbers == seen.numbers == numbers_from(0, len(seen.numbers))
    assert again.duration_s == pytest.approx(len(seen.numbers) / FPS, abs=0.01)


def _whole(library: Library, name: str) -> int:
    file, whole = library.catalog.open_recording(name)
    file.close()
    return whole


def test_segments_without_gap(tmp_path: Path) -> None:
    with studio(tmp_path) as s:
        s.start(segment_s=1.5)
        for _ in range(8):
            s.source.give(10)
        s.stop()
        videos = s.videos()
        assert s.numbers() == numbers_from(0, 100)
    assert len(videos) >= 3
    for video in videos[:-1]:
        assert 1.5 <= video.duration_s <= 2.6
        assert video.duration_s == pytest.approx(len(video.numbers) / FPS, abs=0.01)


def test_segment_requests_keyframe(tmp_path: Path) -> None:
    with studio(tmp_path) as s:
        s.start(segment_s=1.2)
        s.source.give(10)  # 1.5 s, and no keyframe before 2 s
        eventually(lambda: s.source.wanted)
        s.source.give(20)
        s.stop()
        first, *_ = s.videos()
        assert s.numbers() == numbers_from(0, 50)
    assert len(first.numbers) == 30
    assert s.source.wanted == 1


def test_preroll(tmp_path: Path) -> None:
    with studio(tmp_path, preroll_s=2.0) as s:
        assert s.held.manager.status().leases["recording"] == 1  # also while nothing is recorded
        s.source.began_s -= 10.0
        s.source.give(200)  # the last ten seconds
        s.start()
        s.source.give(20)
        s.stop()
        (seen,) = s.videos()
        assert len(s.source.sinks) == 1
        before = len(seen.numbers) - 40
        # From the keyframe at or before the start; there is one in each second.
        assert 2.0 * FPS <= before + 1 <= 3.1 * FPS
        assert seen.numbers == numbers_from(200 - before, len(seen.numbers))
        # The pre-roll starts again after the recording.
        s.source.give(30)
        s.start(preroll_s=0.0)
        s.stop()
        assert len(s.videos()) == 2


def test_next_recording_begins_where_the_last_one_ended(tmp_path: Path) -> None:
    with studio(tmp_path, preroll_s=5.0) as s:
        s.start()
        s.source.give(10)
        s.stop()
        s.source.give(7)  # the first one is the keyframe that stopping requested
        s.start()
        s.stop()
        first, second = s.videos()
        count = len(first.numbers) + len(second.numbers)
        assert first.numbers + second.numbers == numbers_from(0, count)
        assert count == s.source.given


def test_recording_that_starts_again_before_the_next_frame(tmp_path: Path) -> None:
    with studio(tmp_path, preroll_s=5.0) as s:
        s.start()
        s.source.give(10)
        s.stop()
        s.start()
        s.stop()
        first, second = s.videos()
        assert first.numbers == numbers_from(0, 30)
        assert second.numbers == numbers_from(20, 30), "from the last keyframe"


def test_clock_set_during_a_recording_begins_another_file(tmp_path: Path) -> None:
    with studio(tmp_path) as s:
        s.source.clock_error_s = -50 * 365 * 86_400.0
        s.start()
        s.source.give(10)
        s.source.clock_error_s = 0.0
        s.source.give(40)
        eventually(lambda: s.segments == 2, "another file")
        s.stop()
        newest, oldest = (entry.name for entry in s.library.catalog.entries())
        videos = [play(tmp_path / name) for name in (oldest, newest)]
    assert oldest < "2000" < newest
    assert [number for video in videos for number in video.numbers] == numbers_from(0, 70)
    assert len(videos[0].numbers) <= 50


def test_start_follows_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in the journal, from which the next start resumes the recording."""
    now, clock_error_s = time.time, 0.0
    monkeypatch.setattr(time, "time", lambda: now() + clock_error_s)
    with studio(tmp_path / "folder", journal=tmp_path / "journal.json") as s:
        s.start()
        running = running_status(s)
        before_s, clock_error_s = running.began_s, 50 * 365 * 86_400.0
        running = running_status(s)
        assert running.began_s == pytest.approx(before_s + clock_error_s, abs=0.1)
        assert running.began_s == running_status(s).began_s, "it changes only with the clock"
        s.source.clock_error_s = 10.0  # another file
        s.source.give(40)
        eventually(lambda: s.segments == 2)
        eventually(
            lambda: [entry.began_s for entry in Journal(tmp_path / "journal.json").load().values()] == [running.began_s]
        )


def test_elapsed_time_is_what_was_recorded(tmp_path: Path) -> None:
    with studio(tmp_path, preroll_s=5.0) as s:
        s.source.began_s -= 10.0
        s.source.give(195)
        s.start(segment_s=2.0)
        before_s = running_status(s).elapsed_s
        assert before_s <= 1.5, "without the pre-roll"
        s.source.give(100)  # in several files
        eventually(lambda: running_status(s).elapsed_s > before_s + 3.0)
        ended = s.recorder.stop(soon())
        assert ended is not None
        recorded_s = sum(video.duration_s for video in s.videos())
        assert ended.segments > 1
    assert recorded_s - 7.5 < ended.elapsed_s < recorded_s


def test_pause_without_frames(tmp_path: Path) -> None:
    """The camera is away, as a network camera may be for hours."""
    with studio(tmp_path, limits=RecorderLimits(silence_s=0.3, sync_s=0.0)) as s:
        s.start()
        # On a busy machine it may also pause before it has written all frames.
        eventually(lambda: (now := running_status(s)).paused and now.elapsed_s > 0.9)
        running = running_status(s)
        assert (running.name, running.paused) == (None, "no frames from the camera")
        assert s.recorder.last_error == running.paused
        assert running.elapsed_s == pytest.approx(1.0, abs=0.1)
        s.source.give(1)
        eventually(lambda: s.recorder.queued_bytes == 0 and running_status(s).elapsed_s > running.elapsed_s)
        s.stop()


def test_pause_is_reported_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What is on the disk is synced meanwhile, which is not a sign that it records again."""
    limits = RecorderLimits(flush_s=0.01, silence_s=0.1, sync_s=0.0)
    with studio(tmp_path, limits=limits) as s:
        s.start()
        eventually(lambda: running_status(s).paused)
        for _ in range(20):
            assert running_status(s).paused == s.recorder.last_error == "no frames from the camera"
            time.sleep(0.01)
        s.stop()
    assert caplog.text.count("no frames from the camera") == 1


def test_pause_is_over_with_the_duration(tmp_path: Path) -> None:
    with studio(tmp_path, limits=RecorderLimits(silence_s=0.1)) as s:
        s.start(duration_s=1.5)
        eventually(lambda: s.recorder.last_error == "no frames from the camera")
        eventually(lambda: s.recorder.running is None)
        assert s.recorder.last_error is None


def test_recording_without_preroll_on_request(tmp_path: Path) -> None:
    with studio(tmp_path, preroll_s=5.0) as s:
        s.source.began_s -= 10.0
        s.source.give(195)  # the last keyframe was 15 frames ago
        s.start(preroll_s=0.0)
        eventually(lambda: s.source.wanted)
        s.source.give(5)
        s.stop()
        (seen,) = s.videos()
        count = len(seen.numbers)
        assert seen.numbers == numbers_from(s.source.given - count, count)
        assert 5 <= count <= s.source.given - 195


def test_no_subscription_without_preroll(tmp_path: Path) -> None:
    with studio(tmp_path) as s:
        assert s.source.sinks == []
        assert not any(s.held.manager.status().leases.values())


def test_duration_is_exact(tmp_path: Path) -> None:
    with studio(tmp_path) as s:
        s.start(duration_s=2.0)
        s.source.give(100)
        eventually(lambda: s.recorder.running is None)
        (seen,) = s.videos()
    assert abs(len(seen.numbers) - 2 * FPS) <= FPS / 2  # the source starts a moment before the recording


def test_duration_ends_without_frames(tmp_path: Path) -> None:
    with studio(tmp_path) as s:
        s.start(duration_s=1.1)
        eventually(lambda: s.recorder.running is None)
        assert len(s.videos()) == 1


def test_other_size_begins_another_file(tmp_path: Path) -> None:
    with studio(tmp_path) as s:
        s.start()
        s.source.resize((96, 64))
        s.source.give(20)
        s.stop()
        assert [video.size for video in s.videos()] == [(64, 48), (96, 64)]
        assert s.numbers() == numbers_from(0, 40)


def test_short_gap_is_kept_and_long_gap_begins_another_file(tmp_path: Path) -> None:
    with studio(tmp_path) as s:
        s.start()
        s.source.give(20, after_s=3.0)
        s.source.request_keyframe()
        s.source.give(20, after_s=60.0)
        s.stop()
        short, after = s.videos()
        assert s.numbers() == numbers_from(0, 60)
    assert short.times[20] - short.times[19] == pytest.approx(3.05, abs=0.01)
    assert short.duration_s == pytest.approx(5.0, abs=0.1)
    assert after.times[0] == 0.0


def test_second_start_is_an_error(tmp_path: Path) -> None:
    with studio(tmp_path) as s:
        assert s.recorder.stop() is None
        s.start()
        with pytest.raises(RecordingError, match="already running"):
            s.recorder.start(RecordingOptions())
        s.stop()
        s.start()
        s.stop()
        assert len(s.videos()) == 2


def test_start_without_camera_is_an_error(tmp_path: Path) -> None:
    with studio(tmp_path) as s:
        s.held.camera.fail_next("open", CameraError("no such luck"))
        with pytest.raises(CameraError):
            s.recorder.start(RecordingOptions())
        assert s.recorder.running is None
        assert s.held.take_failure()


def test_start_without_thread_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    with studio(tmp_path) as s:
        with monkeypatch.context() as patch:
            patch.setattr(base, "spawn", fail)
            with pytest.raises(RecordingError, match="can't start new thread"):
                s.recorder.start(RecordingOptions())
        assert s.recorder.running is None
        s.start()
        s.stop()
        assert len(s.videos()) == 1


def test_stop_while_the_camera_opens(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with studio(tmp_path) as s:
        s.held.camera.block("open")
        start = Background(lambda: s.recorder.start(RecordingOptions()))
        s.held.camera.wait_inside("open")
        assert s.recorder.stop(Deadline.after(0.0)) is not None, "returns at the deadline"
        is_waiting = threading.Event()

        def clock() -> float:
            is_waiting.set()
            return time.monotonic()

        stop = Background(lambda: s.recorder.stop(Deadline(soon_s(), clock)))
        assert is_waiting.wait(PATIENCE_S)
        s.held.camera.unblock("open")
        with pytest.raises(RecordingError, match="stopped before it started"):
            start.result()
        status = stop.result()
        assert (status.name, status.segments) == (None, 0)
        assert (s.recorder.running, s.recorder.last_error, s.source.sinks) == (None, None, [])
        assert not [line for line in caplog.messages if line.startswith("Video recording")]
        s.start()
        s.stop()
        assert len(s.videos()) == 1


def test_20_recordings_leak_nothing(tmp_path: Path, no_leaks: Callable[..., AbstractContextManager[None]]) -> None:
    with studio(tmp_path) as s, no_leaks():
        for _ in range(20):
            s.start()
            s.stop()
        assert len(s.library.catalog.entries()) == 20
        for entry in s.library.catalog.entries():
            s.library.delete_recording(entry.name)
    assert contents(tmp_path) == []


def test_resumed_recording_ends_with_its_duration(tmp_path: Path) -> None:
    with studio(tmp_path) as s:
        origin = Origin(1000.0, s.source.began_s - 58.0, interrupted_s=1057.0, recorded_s=50.0)
        s.start(origin, duration_s=60.0)
        running = running_status(s)
        assert (running.began_s, running.interrupted_s) == (1000.0, 1057.0)
        assert 50.0 <= running.elapsed_s < 57.0, "without the interruption"
        s.source.give(int(5 * FPS))
        eventually(lambda: s.recorder.running is None)
        (seen,) = s.videos()
    assert seen.duration_s == pytest.approx(2.0, abs=1.5 / FPS)


def test_journal_keeps_what_was_not_stopped(tmp_path: Path) -> None:
    with studio(tmp_path / "folder", journal=tmp_path / "journal.json") as s:
        s.start(segment_s=60.0)
        s.stop()
        assert Journal(tmp_path / "journal.json").load() == {}
        s.start(segment_s=60.0)
        name = running_name(s)
    (entry,) = Journal(tmp_path / "journal.json").load().values()
    options = restore(RecordingOptions, entry.options)
    assert (entry.name, options.segment_s, entry.is_automatic) == (name, 60.0, False)
