"""The video recorder on disks that are full, slow, small or gone."""

import contextlib
import errno
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from softcam.errors import RecordingError
from softcam.recording import base
from softcam.recording.journal import Origin
from softcam.recording.library import Library
from softcam.recording.recorder import RecorderLimits
from softcam.recording.video_run import RecordingOptions
from softcam.runtime.log.events import Event
from tests.support.background import eventually, soon
from tests.support.h264_samples import FPS
from tests.support.log_events import logged_events
from tests.support.recording_studio import Studio, numbers_from, running_name, running_status, studio
from tests.support.timeouts import PATIENCE_S


def test_folder_is_removed_and_returns(tmp_path: Path) -> None:
    folder = tmp_path / "stick"
    with studio(folder, limits=RecorderLimits(retry_s=0.0)) as s:
        s.start(segment_s=1.0)
        eventually(lambda: (s.library.catalog.entries()[0].duration_s or 0.0) > 0.99)
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


def test_failed_write_leaves_whole_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
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
        assert logged_events(caplog) == [Event.DISK_FULL]
        assert s.recorder.running is not None  # it waits for space
        s.stop()
        assert s.recorder.last_error is None
        (seen,) = s.videos()
        assert seen.numbers == numbers_from(0, len(seen.numbers))
        monkeypatch.undo()
        assert s.library.recover() == 1
        assert s.videos()[0].numbers == seen.numbers


def test_start_without_folder_is_an_error(tmp_path: Path) -> None:
    with studio(tmp_path / "folder") as s:
        shutil.rmtree(tmp_path / "folder")
        with pytest.raises(
            RecordingError, match=r"^recordings: must be a writable folder with free space, .*/folder: No such file"
        ):
            s.recorder.start(RecordingOptions())
        assert s.recorder.running is None


@pytest.mark.parametrize(
    ("code", "event"), [(errno.ENOSPC, Event.DISK_FULL), (errno.EROFS, Event.RECORDING_FAILED)], ids=["full", "other"]
)
def test_failed_start_is_logged_and_over(
    code: int, event: Event, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The client gets the error; the status would show it until the next start."""

    def fail() -> None:
        raise OSError(code, os.strerror(code))

    with studio(tmp_path) as s:
        monkeypatch.setattr(s.library, "require_writable", fail)
        with pytest.raises(RecordingError, match=os.strerror(code)):
            s.recorder.start(RecordingOptions())
        assert logged_events(caplog) == [event]
        assert s.recorder.last_error is None


def test_failed_automatic_start_is_an_error_until_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    with studio(tmp_path) as s:
        monkeypatch.setattr(base, "spawn", fail)
        with pytest.raises(RecordingError, match="can't start new thread"):
            s.recorder.start(RecordingOptions(), Origin(is_automatic=True))
        assert s.recorder.last_error is not None
        assert s.recorder.stop(soon(), is_interrupted=True) is None
        assert s.recorder.last_error is not None, "it is still requested"
        assert s.recorder.stop(soon()) is None
        assert s.recorder.last_error is None


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
        used = 0
        for path in self._folder.iterdir():
            with contextlib.suppress(FileNotFoundError):  # renamed meanwhile
                used += path.stat().st_size
        return used


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
        assert s.recorder.last_error == "recording paused, retrying: the disk is full, 0 MB free"
        running = running_status(s)
        assert (running.name, running.segments, running.paused) == (None, 1, "the disk is full, 0 MB free")
        assert running.elapsed_s == pytest.approx(s.library.catalog.entry(name).duration_s, abs=0.1)
        disk.others = 0
        s.source.give(40)
        eventually(lambda: s.segments == 2)
        eventually(lambda: running_name(s) != name)
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
        sizes = [entry.size for entry in s.library.catalog.entries()]
        assert sum(sizes) > 20_000, "most of the space is used"
        assert len(sizes) > 2
        numbers = s.numbers()
    assert numbers == numbers_from(numbers[0], len(numbers)), "no frame is lost"


def test_files_are_small_beside_recordings_that_are_kept(tmp_path: Path) -> None:
    """They cannot make room, so they do not count."""
    (tmp_path / "2026-11-20_12-00-00.mp4").write_bytes(bytes(960_000))
    Library(tmp_path, None).mark("2026-11-20_12-00-00.mp4", is_kept=True)
    with studio(tmp_path, max_bytes=1_000_000, limits=RecorderLimits(flush_s=0.02, sync_s=0.0)) as s:
        sizes = sizes_of_many_batches(s)
        assert s.recorder.last_error is None
        assert sum(sizes) <= 1_000_000
        assert len(sizes) > 3
        assert (tmp_path / "2026-11-20_12-00-00.mp4").exists()


def test_start_in_unwritable_folder_is_an_error() -> None:
    with studio(Path("/proc")) as s:
        with pytest.raises(RecordingError, match="must be a writable folder with free space, /proc: "):
            s.recorder.start(RecordingOptions())
        assert s.recorder.running is None


def sizes_of_many_batches(s: Studio) -> list[int]:
    """Record 420 frames in batches that are written one after the other; the sizes of the files."""
    s.start()
    for _ in range(20):
        s.source.give(20)
        eventually(lambda: s.recorder.queued_bytes == 0)
    s.stop()
    return [entry.size for entry in s.library.catalog.entries()]


def test_files_are_small_with_small_quota(tmp_path: Path) -> None:
    with studio(tmp_path, max_bytes=40_000, limits=RecorderLimits(flush_s=0.02)) as s:
        sizes = sizes_of_many_batches(s)
        assert len(sizes) > 2
        assert sum(sizes) <= 40_000 + max(sizes)
        assert s.recorder.running is None


def test_another_file_begins_before_the_limit(tmp_path: Path) -> None:
    """As on FAT32, which limits files to 4 GiB."""
    with studio(tmp_path, max_file_bytes=5_000, limits=RecorderLimits(flush_s=0.02)) as s:
        sizes = sizes_of_many_batches(s)
        assert len(sizes) > 3
        assert max(sizes) < 10_000
        assert s.numbers() == numbers_from(0, 420), "no frame is lost"


def test_limit_of_the_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lower one than expected, as on FAT16: from the second file on no frame is lost."""
    write, size = os.pwrite, 15_000  # so that the tenth that is kept free has room for several batches

    def pwrite(descriptor: int, data: bytes, at: int) -> int:
        if at >= size:
            raise OSError(errno.EFBIG, "File too large")
        return write(descriptor, data[: size - at], at)

    monkeypatch.setattr(os, "pwrite", pwrite)
    with studio(tmp_path, limits=RecorderLimits(flush_s=0.02)) as s:
        s.start()
        frames = int(FPS)
        while s.segments < 5:
            s.source.give(4)
            frames += 4
            eventually(lambda: s.recorder.queued_bytes == 0)
            assert s.recorder.last_error is None
        s.stop()
        first, second, *others = s.videos()
    assert len(others) == 3
    numbers = [number for video in (second, *others) for number in video.numbers]
    assert numbers == numbers_from(second.numbers[0], len(numbers)), "no frame is lost"
    assert len(first.numbers) + len(numbers) > frames - 2 * FPS


def test_hanging_disk_drops_frames_and_keeps_memory_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with studio(tmp_path, limits=RecorderLimits(max_bytes=20_000)) as s:
        s.start()
        sync, may_continue = os.fdatasync, threading.Event()

        def fdatasync(descriptor: int) -> None:
            may_continue.wait(PATIENCE_S)
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
