"""The video recorder with packets from the test: files, segments, pre-roll, and errors of disk and camera."""

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import av
import pytest

from softcam.errors import CameraError, RecordingError
from softcam.recording import base
from softcam.recording.library import Library
from softcam.recording.recorder import RecorderLimits, RecordingOptions, VideoRecorder
from tests.support.fakes import PATIENCE_S, Background, SessionRig, eventually, soon_s
from tests.support.h264_samples import FPS, FakeSource, Seen, play

PICTURE = b"a thumbnail"


class Studio:
    """A recorder with a source of packets and a camera that delivers frames by itself."""

    def __init__(
        self, folder: Path, held: SessionRig, preroll_s: float, max_bytes: int | None, limits: RecorderLimits
    ) -> None:
        self.library = Library(folder, max_bytes)
        self.source = FakeSource()
        self.crashes: list[str] = []
        self.held = held
        self.orientation = 1
        self.recorder = VideoRecorder(
            self.source,
            held.manager,
            self.library,
            preroll_s,
            lambda: PICTURE,
            self.crashes.append,
            lambda: self.orientation,
            limits,
        )
        self.recorder.open()

    def start(self, **options: float) -> None:
        """Start a recording and send its first second."""
        # A running encoder delivers packets while `start` waits for the first file.
        started = Background(lambda: self.recorder.start(RecordingOptions(**options)))
        eventually(lambda: self.source.sinks or started.is_over)
        eventually(lambda: self.recorder.running is not None or started.is_over)
        self.source.give(int(FPS))
        started.result()

    def stop(self) -> None:
        self.recorder.stop(soon_s())

    @property
    def segments(self) -> int:
        running = self.recorder.running
        return 0 if running is None else running.segments

    def videos(self) -> list[Seen]:
        """The content of all files, the oldest first."""
        return [play(self.library.folder / entry.name) for entry in reversed(self.library.entries())]

    def numbers(self) -> list[int]:
        return [number for video in self.videos() for number in video.numbers]


@contextmanager
def studio(
    folder: Path, *, preroll_s: float = 0.0, max_bytes: int | None = None, limits: RecorderLimits | None = None
) -> Iterator[Studio]:
    with SessionRig() as held, held.camera.flowing():
        studio = Studio(folder, held, preroll_s, max_bytes, limits or RecorderLimits())
        yield studio
        studio.recorder.close(soon_s())
        assert not any(held.manager.status().leases.values())
        assert studio.source.sinks == []
        assert studio.crashes == []


def numbers_from(first: int, count: int) -> list[int]:
    return [number % 16 for number in range(first, first + count)]


def test_recording_plays_with_every_frame(tmp_path: Path) -> None:
    with studio(tmp_path) as s:
        s.start()
        running = s.recorder.running
        assert running is not None
        assert running.name is not None
        assert running.segments == 1
        s.source.give(45)
        s.stop()
        assert s.recorder.running is None
        (entry,) = s.library.entries()
        (seen,) = s.videos()
    assert seen.numbers == numbers_from(0, 65)
    assert seen.times == pytest.approx([number / FPS for number in range(65)], abs=0.001)
    assert seen.duration_s == pytest.approx(65 / FPS, abs=0.01)
    assert (entry.name, entry.kind, entry.is_running) == (running.name, "video", False)
    assert entry.duration_s == pytest.approx(65 / FPS, abs=0.01)
    assert (entry.width, entry.height) == seen.size == (64, 48)
    assert entry.size == (tmp_path / entry.name).stat().st_size
    assert s.library.thumbnail(entry.name) == PICTURE


def test_other_orientation_begins_another_file(tmp_path: Path) -> None:
    with studio(tmp_path) as s:
        s.start()
        s.orientation = 6
        s.source.give(int(3 * FPS))
        eventually(lambda: s.segments == 2, "another file")
        s.stop()
        assert s.numbers() == numbers_from(0, len(s.numbers())), "no frame is lost"
        before, after = (s.library.folder / entry.name for entry in reversed(s.library.entries()))
    for path, degrees in ((before, 0), (after, -90)):
        with av.open(str(path)) as container:
            assert next(container.decode(video=0)).rotation == degrees


def test_interrupted_file_plays_and_is_recovered(tmp_path: Path) -> None:
    with studio(tmp_path / "one") as s:
        s.start()
        s.source.give(60)
        running = s.recorder.running
        assert running is not None
        name = str(running.name)
        file, whole = s.library.open(name)
        file.close()
        eventually(lambda: _whole(s.library, name) > whole, "another fragment")
        cut = Library(tmp_path / "two", None)
        content = (s.library.folder / name).read_bytes()
        (cut.folder / name).write_bytes(content[: _whole(s.library, name)] + b"\0\0\1\0moof and no more")
        s.stop()
    (entry,) = cut.entries()
    assert not entry.is_running
    seen = play(cut.folder / name)
    assert entry.duration_s == pytest.approx(len(seen.numbers) / FPS, abs=0.05)
    assert cut.recover() == 1
    assert cut.recover() == 0
    again = play(cut.folder / name)
    assert again.numbers == seen.numbers == numbers_from(0, len(seen.numbers))
    assert again.duration_s == pytest.approx(len(seen.numbers) / FPS, abs=0.01)


def _whole(library: Library, name: str) -> int:
    file, whole = library.open(name)
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


def test_fail_to_start_twice(tmp_path: Path) -> None:
    with studio(tmp_path) as s:
        assert s.recorder.stop() is None
        s.start()
        with pytest.raises(RecordingError, match="already running"):
            s.recorder.start(RecordingOptions())
        s.stop()
        s.start()
        s.stop()
        assert len(s.videos()) == 2


def test_fail_to_start_without_camera(tmp_path: Path) -> None:
    with studio(tmp_path) as s:
        s.held.camera.fail_next("open", CameraError("no such luck"))
        with pytest.raises(CameraError):
            s.recorder.start(RecordingOptions())
        assert s.recorder.running is None
        assert s.held.take_failure()


def test_folder_is_removed_and_returns(tmp_path: Path) -> None:
    folder = tmp_path / "stick"
    with studio(folder, limits=RecorderLimits(retry_s=0.0)) as s:
        s.start(segment_s=1.0)
        eventually(lambda: (s.library.entries()[0].duration_s or 0.0) > 0.99)
        folder.rename(tmp_path / "away")
        s.source.give(40)  # the next file cannot be created
        eventually(lambda: s.recorder.last_error)
        assert s.recorder.running is not None
        assert "No such file" in str(s.recorder.last_error)
        (tmp_path / "away").rename(folder)
        s.source.give(40)
        eventually(lambda: s.segments > 1)
        s.stop()
        videos = s.videos()
    assert len(videos) >= 2
    assert videos[0].numbers[:20] == numbers_from(0, 20)


def test_deleted_file_is_followed_by_another(tmp_path: Path) -> None:
    with studio(tmp_path) as s:
        s.start()
        first = running_name(s)
        (tmp_path / first).unlink()

        def send_until(done: Callable[[], bool]) -> None:
            def is_done() -> bool:
                s.source.give(1)
                return done()

            eventually(is_done)

        errors = set[str | None]()

        def is_followed() -> bool:
            errors.add(s.recorder.last_error)
            return s.segments > 1

        send_until(is_followed)
        errors.add(s.recorder.last_error)
        assert any("was removed" in str(error) for error in errors)
        send_until(lambda: s.recorder.last_error is None)  # recording again
        s.stop()
        (seen,) = s.videos()
        assert seen.numbers == numbers_from(seen.numbers[0], len(seen.numbers))


def running_name(s: Studio) -> str:
    running = s.recorder.running
    assert running is not None
    assert running.name is not None
    return running.name


def test_failed_write_leaves_whole_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk accepts half of a fragment and is full."""
    with studio(tmp_path, limits=RecorderLimits(retry_s=3600.0)) as s:
        s.start()
        write, is_full = os.pwrite, threading.Event()

        def pwrite(descriptor: int, data: bytes, at: int) -> int:
            if is_full.is_set():
                raise OSError(28, "No space left on device")
            if at > 3000:
                is_full.set()
                return write(descriptor, data[:100], at)
            return write(descriptor, data, at)

        monkeypatch.setattr(os, "pwrite", pwrite)
        s.source.give(200)
        eventually(lambda: s.recorder.last_error)
        assert "No space left" in str(s.recorder.last_error)
        assert s.recorder.running is not None  # it waits for space
        s.stop()
        (seen,) = s.videos()
        assert seen.numbers == numbers_from(0, len(seen.numbers))
        monkeypatch.undo()
        assert s.library.recover() == 1
        assert s.videos()[0].numbers == seen.numbers


def test_fail_to_start_without_folder(tmp_path: Path) -> None:
    with studio(tmp_path / "folder") as s:
        shutil.rmtree(tmp_path / "folder")
        with pytest.raises(RecordingError, match="cannot record: No such file"):
            s.recorder.start(RecordingOptions())
        assert s.recorder.running is None


class SmallDisk:
    """A disk of `size` bytes, used by the files of a folder and by `others`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path, size: int) -> None:
        self.others = 0
        self.size = size
        self._folder = folder
        monkeypatch.setattr(os, "statvfs", lambda _: self)
        self.f_frsize = 1

    @property
    def f_blocks(self) -> int:
        return self.size

    @property
    def f_bavail(self) -> int:
        return self.size - self.others - self.used

    @property
    def used(self) -> int:
        return sum(path.stat().st_size for path in self._folder.iterdir())


def test_full_disk_creates_no_empty_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The disk has a little space, as after a recording stopped because it was full."""
    disk = SmallDisk(monkeypatch, tmp_path, 20_000_000)
    caplog.set_level("INFO")
    with studio(tmp_path, limits=RecorderLimits(retry_s=0.0, flush_s=0.02)) as s:
        s.start()
        name = running_name(s)
        disk.others = 19_000_000 - disk.used - 10  # the reserve and ten bytes are free
        for _ in range(20):  # a keyframe in each
            s.source.give(20)
            eventually(lambda: s.recorder.queued_bytes == 0)
        assert "the disk is full" in str(s.recorder.last_error)
        assert (running_name(s), s.segments) == (name, 1)
        disk.others = 0
        s.source.give(40)
        eventually(lambda: s.segments == 2)
        s.stop()
        assert len(s.videos()) == 2
    assert sum(entry.getMessage().startswith("Recording 2") for entry in caplog.records) == 2


def test_files_are_small_on_disk_smaller_than_quota(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    SmallDisk(monkeypatch, tmp_path, 45_000)
    with studio(tmp_path, max_bytes=10**9, limits=RecorderLimits(flush_s=0.02)) as s:
        s.start()
        for _ in range(40):
            s.source.give(20)
            eventually(lambda: s.recorder.queued_bytes == 0)
            assert s.recorder.last_error is None
        s.stop()
        sizes = [entry.size for entry in s.library.entries()]
        assert sum(sizes) > 20_000, "most of the space is used"
        assert len(sizes) > 2
        numbers = s.numbers()
    assert numbers == numbers_from(numbers[0], len(numbers)), "no frame is lost"


def test_fail_to_start_without_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_fail_to_start_in_unwritable_folder() -> None:
    with studio(Path("/proc")) as s:
        with pytest.raises(RecordingError, match="cannot record: "):
            s.recorder.start(RecordingOptions())
        assert s.recorder.running is None


def test_files_are_small_with_small_quota(tmp_path: Path) -> None:
    with studio(tmp_path, max_bytes=40_000) as s:
        s.start()
        for _ in range(20):
            s.source.give(20)
            eventually(lambda: s.recorder.queued_bytes == 0)
        s.stop()
        sizes = [entry.size for entry in s.library.entries()]
        assert len(sizes) > 2
        assert sum(sizes) <= 40_000 + max(sizes)
        assert s.recorder.running is None


def test_hanging_disk_drops_frames_and_keeps_memory_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with studio(tmp_path, limits=RecorderLimits(max_bytes=20_000)) as s:
        s.start()
        sync, may_continue = os.fdatasync, threading.Event()

        def fdatasync(descriptor: int) -> None:
            may_continue.wait(10)
            sync(descriptor)

        monkeypatch.setattr(os, "fdatasync", fdatasync)
        while s.recorder.last_error is None:
            s.source.give(1)
            assert s.source.given < 100_000
        assert "too slow" in s.recorder.last_error
        assert s.recorder.queued_bytes < 30_000
        may_continue.set()
        eventually(lambda: s.recorder.queued_bytes == 0)
        s.source.give(40)
        s.stop()
        assert s.videos()


def test_stop_with_hanging_disk_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with studio(tmp_path, limits=RecorderLimits(stop_s=0.05, sync_s=0.0)) as s:
        s.start()
        sync, may_continue, waits = os.fdatasync, threading.Event(), threading.Event()

        def fdatasync(descriptor: int) -> None:
            waits.set()
            may_continue.wait(PATIENCE_S)
            sync(descriptor)

        monkeypatch.setattr(os, "fdatasync", fdatasync)
        s.source.give(20)
        assert waits.wait(PATIENCE_S)
        assert s.recorder.stop() is not None
        assert s.recorder.running is not None, "it is still ending"
        may_continue.set()
        eventually(lambda: s.recorder.running is None)


def test_20_recordings_leak_nothing(tmp_path: Path, no_leaks: Callable[..., AbstractContextManager[None]]) -> None:
    with studio(tmp_path) as s, no_leaks():
        for _ in range(20):
            s.start()
            s.stop()
        assert len(s.library.entries()) == 20
        for entry in s.library.entries():
            s.library.delete(entry.name)
    assert list(tmp_path.iterdir()) == []
