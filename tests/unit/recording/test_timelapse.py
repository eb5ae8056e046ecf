"""The time-lapse recorder with stills from the test: the stills, the MP4 file, and failures."""

import errno
import io
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import av
import pytest
from PIL import Image

from softcam.errors import NoPicture, RecordingError
from softcam.h264.bitrate import fixed_bitrate
from softcam.h264.packet import Packet
from softcam.imaging import jpeg
from softcam.imaging.snapshot import Snapshot
from softcam.recording import base
from softcam.recording.library import MAX_FILE_BYTES, Library
from softcam.recording.mp4_file import Mp4Writer
from softcam.recording.timelapse import RunningTimelapse, TimelapseOptions, TimelapseRecorder
from softcam.runtime.log.events import Event
from tests.support.background import eventually, soon
from tests.support.h264_samples import numbered_frame, play
from tests.support.log_events import logged_events
from tests.support.recordings import contents
from tests.support.timeouts import PATIENCE_S


class Stills:
    """A camera that delivers numbered stills, or an error."""

    def __init__(self) -> None:
        self.size = (64, 48)
        self.taken = 0
        self.fails = False
        self.requested_s: list[float] = []
        self.full_sensor: list[bool] = []
        self.may_deliver = threading.Event()
        self.may_deliver.set()
        self.orientation = 1
        self.clock_error_s = 0.0
        self.is_blocked = False  # a still waits for `may_deliver`

    def take(self, full_sensor: bool) -> Snapshot:
        self.requested_s.append(time.monotonic())
        self.full_sensor.append(full_sensor)
        self.is_blocked = not self.may_deliver.is_set()
        self.may_deliver.wait(PATIENCE_S)
        if self.fails:
            raise NoPicture("the lens is covered")
        picture = jpeg.encode(numbered_frame(self.taken, self.size), None, 95)
        self.taken += 1
        return Snapshot(picture, time.time() + self.clock_error_s)


@contextmanager
def recorder(
    folder: Path,
    max_bytes: int | None = None,
    still_limit_s: float = 60.0,
    max_file_bytes: int = MAX_FILE_BYTES,
    max_stills: int = 1000,
) -> Iterator[tuple[TimelapseRecorder, Stills, Library]]:
    stills, library, crashes = Stills(), Library(folder, max_bytes, max_file_bytes=max_file_bytes), list[str]()
    recorder = TimelapseRecorder(
        library,
        stills.take,
        fixed_bitrate(1_000_000),
        crashes.append,
        lambda: stills.orientation,
        still_limit_s,
        max_stills=max_stills,
    )
    yield recorder, stills, library
    recorder.stop(soon())
    assert crashes == []
    assert recorder.running is None


def running(recorder: TimelapseRecorder) -> RunningTimelapse:
    running = recorder.running
    assert running is not None
    return running


def test_failed_start_is_logged_and_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with recorder(tmp_path) as (lapse, _, library):
        monkeypatch.setattr(library, "require_writable", fail)
        with pytest.raises(RecordingError, match="No space left"):
            lapse.start(TimelapseOptions(1.0))
        assert logged_events(caplog) == [Event.DISK_FULL]
        assert (lapse.running, lapse.last_error) == (None, None)


def test_pause_is_over_with_the_duration(tmp_path: Path) -> None:
    with recorder(tmp_path) as (lapse, stills, _):
        stills.fails = True
        lapse.start(TimelapseOptions(0.1, duration_s=0.35))
        eventually(lambda: lapse.running is None)
        assert stills.requested_s
        assert lapse.last_error is None


def test_hanging_camera_is_reported_and_used_again(tmp_path: Path) -> None:
    with recorder(tmp_path, still_limit_s=0.1) as (lapse, stills, _):
        stills.may_deliver.clear()
        lapse.start(TimelapseOptions(0.02, fps=10))
        eventually(lambda: running(lapse).failures >= 3)
        assert "delivered no still within 0.1 s" in str(lapse.last_error)
        assert len(stills.requested_s) == 1, "a second request while the first one is pending"
        stills.may_deliver.set()
        eventually(lambda: running(lapse).stills >= 1)


def test_start_without_thread_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    with recorder(tmp_path) as (lapse, _, _):
        with monkeypatch.context() as patch:
            patch.setattr(base, "spawn", fail)
            with pytest.raises(RecordingError, match="can't start new thread"):
                lapse.start(TimelapseOptions(1.0))
        assert lapse.running is None
        lapse.start(TimelapseOptions(1.0))


def test_other_orientation_begins_another_file(tmp_path: Path) -> None:
    with recorder(tmp_path) as (lapse, stills, library):
        lapse.start(TimelapseOptions(0.02, fps=10))
        eventually(lambda: running(lapse).stills >= 2)
        stills.orientation = 6
        eventually(lambda: len(library.catalog.entries()) == 2, "another file")
        count = running(lapse).stills
        eventually(lambda: running(lapse).stills > count)
        lapse.stop()
        before, after = reversed(library.catalog.entries())
        assert exif_orientation(library.catalog.thumbnail(before.name)) == 1
        assert exif_orientation(library.catalog.thumbnail(after.name)) == 6
    for name, degrees in ((before.name, 0), (after.name, -90)):
        with av.open(str(tmp_path / name)) as container:
            assert next(container.decode(video=0)).rotation == degrees


def test_clock_set_begins_another_file(tmp_path: Path) -> None:
    with recorder(tmp_path) as (lapse, stills, library):
        stills.clock_error_s = -50 * 365 * 86_400.0
        lapse.start(TimelapseOptions(0.02, fps=10))
        eventually(lambda: running(lapse).stills >= 2)
        stills.clock_error_s = 0.0
        eventually(lambda: len(library.catalog.entries()) == 2, "another file")
        lapse.stop()
        newest, oldest = (entry.name for entry in library.catalog.entries())
    assert oldest < "2000" < newest


def exif_orientation(picture: bytes | None) -> int:
    assert picture is not None
    return int(Image.open(io.BytesIO(picture)).getexif().get(0x0112, 1))


def test_stills_and_video(tmp_path: Path) -> None:
    with recorder(tmp_path) as (lapse, stills, library):
        started = lapse.start(TimelapseOptions(0.02, fps=10))
        assert started.name is not None
        eventually(lambda: running(lapse).stills >= 20)
        (entry,) = library.catalog.entries()
        assert entry.is_running
        ended = lapse.stop()
        assert ended is not None
        (entry,) = library.catalog.entries()
    assert (entry.kind, entry.is_running, entry.has_thumbnail) == ("timelapse", False, True)
    folder = tmp_path / entry.name.removesuffix(".mp4")
    names = sorted(path.name for path in folder.iterdir())
    assert names == [f"{number:06}.jpg" for number in range(1, ended.stills + 1)]
    assert ended.size <= entry.size <= ended.size + 2000  # the index
    seen = play(tmp_path / entry.name)
    assert seen.numbers == [number % 16 for number in range(ended.stills)]
    assert seen.duration_s == pytest.approx(ended.stills / 10, abs=0.01)
    assert entry.duration_s == pytest.approx(seen.duration_s, abs=0.01)
    assert set(stills.full_sensor) == {False}


def test_stills_on_schedule(tmp_path: Path) -> None:
    with recorder(tmp_path) as (lapse, stills, _):
        began_s = time.monotonic()
        lapse.start(TimelapseOptions(0.1))
        eventually(lambda: len(stills.requested_s) >= 6)
    # Late stills are possible on a busy machine, early ones are not.
    for number, requested_s in enumerate(stills.requested_s):
        assert requested_s - began_s >= 0.1 * number


def test_missed_stills_are_skipped(tmp_path: Path) -> None:
    with recorder(tmp_path) as (lapse, stills, _):
        stills.may_deliver.clear()
        lapse_start = threading.Thread(target=lambda: lapse.start(TimelapseOptions(0.01)))
        lapse_start.start()
        eventually(lambda: stills.requested_s)
        until_s = time.monotonic() + 0.3
        eventually(lambda: time.monotonic() > until_s)
        assert len(stills.requested_s) == 1
        stills.may_deliver.set()
        lapse_start.join(PATIENCE_S)
        eventually(lambda: running(lapse).stills >= 2)
        assert running(lapse).stills < 20


def test_failed_still_is_counted_and_the_next_one_follows(tmp_path: Path) -> None:
    with recorder(tmp_path) as (lapse, stills, library):
        stills.fails = True
        started = lapse.start(TimelapseOptions(60.0))  # no second one before the assertion
        assert (started.name, started.stills, started.failures) == (None, 0, 1)
        lapse.stop()
        lapse.start(TimelapseOptions(0.02))
        assert lapse.last_error == "the lens is covered"
        assert library.catalog.entries() == []
        stills.fails = False
        eventually(lambda: running(lapse).stills >= 3)
        stills.fails = True
        eventually(lambda: running(lapse).failures >= 3)
        stills.fails = False
        stills_before = running(lapse).stills
        eventually(lambda: running(lapse).stills > stills_before)


def test_missing_disk_costs_only_stills(tmp_path: Path) -> None:
    folder = tmp_path / "stick"
    with recorder(folder) as (lapse, _, library):
        lapse.start(TimelapseOptions(0.02))
        folder.rename(tmp_path / "away")
        eventually(lambda: running(lapse).failures >= 2)
        assert "No such file" in str(lapse.last_error)
        (tmp_path / "away").rename(folder)
        stills = running(lapse).stills
        eventually(lambda: running(lapse).stills >= stills + 3)
        ended = lapse.stop()
        assert ended is not None
        (entry,) = library.catalog.entries()
        assert len(play(folder / entry.name).numbers) >= ended.stills - 1


def test_new_folder_gets_another_file(tmp_path: Path) -> None:
    folder = tmp_path / "stick"
    with recorder(folder) as (lapse, _, library):
        first = lapse.start(TimelapseOptions(0.02)).name
        eventually(lambda: running(lapse).stills >= 2)
        folder.rename(tmp_path / "away")
        eventually(lambda: running(lapse).failures >= 2)
        folder.mkdir()
        eventually(lambda: list(folder.glob("*.mp4")))  # in the same second it has the same name
        stills = running(lapse).stills
        eventually(lambda: running(lapse).stills >= stills + 3)
        assert lapse.last_error is None
        lapse.stop()
        (entry,) = library.catalog.entries()
        stills = len(play(folder / entry.name).numbers)
    beside = folder / entry.name.removesuffix(".mp4")
    assert sorted(path.name for path in beside.iterdir()) == [f"{number:06}.jpg" for number in range(1, stills + 1)]
    assert {path.name for path in contents(folder)} == {entry.name, beside.name, f".{entry.name}.jpg"}
    assert play(tmp_path / "away" / str(first)).numbers


def test_keyframe_after_failed_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with recorder(tmp_path) as (lapse, _, library):
        lapse.start(TimelapseOptions(0.02))
        add, failed, added = Mp4Writer.add_fragment, list[bool](), list[bool]()

        def fail_once(self: Mp4Writer, packets: Sequence[Packet], last_duration_s: float) -> None:
            if not failed:
                failed.append(True)
                raise OSError(28, "No space left on device")
            added.append(packets[0].is_keyframe)
            add(self, packets, last_duration_s)

        monkeypatch.setattr(Mp4Writer, "add_fragment", fail_once)
        eventually(lambda: len(added) >= 4)
        lapse.stop()
        (entry,) = library.catalog.entries()
        seen = play(tmp_path / entry.name)
    assert added[:2] == [True, False]
    assert seen.duration_s == pytest.approx(len(seen.numbers) / 25, abs=0.01)


def test_stop_does_not_wait_for_a_still(tmp_path: Path) -> None:
    with recorder(tmp_path) as (lapse, stills, library):
        lapse.start(TimelapseOptions(0.02))
        stills.may_deliver.clear()
        eventually(lambda: stills.is_blocked)
        lapse.stop(soon())
        assert lapse.running is None
        assert any(thread.name == "timelapse still" for thread in threading.enumerate())  # it still waits
        (entry,) = library.catalog.entries()
        assert not entry.is_running
        seen = play(tmp_path / entry.name)
        stills.may_deliver.set()
        eventually(lambda: not any(thread.name == "timelapse still" for thread in threading.enumerate()))
        assert play(tmp_path / entry.name).numbers == seen.numbers


def test_start_in_unwritable_folder_is_an_error() -> None:
    with (
        recorder(Path("/proc")) as (lapse, _, _library),
        pytest.raises(RecordingError, match="must be a writable folder with free space, /proc: "),
    ):
        lapse.start(TimelapseOptions())


def test_other_size_is_scaled(tmp_path: Path) -> None:
    with recorder(tmp_path) as (lapse, stills, library):
        lapse.start(TimelapseOptions(0.02, full_sensor=True))
        stills.size = (128, 96)
        before = running(lapse).stills
        eventually(lambda: running(lapse).stills >= before + 3)
        lapse.stop()
        (entry,) = library.catalog.entries()
        seen = play(tmp_path / entry.name)
    assert seen.size == (64, 48)
    assert seen.numbers == [number % 16 for number in range(len(seen.numbers))]
    assert set(stills.full_sensor) == {True}


def test_large_still_is_saved_in_full_and_scaled_for_the_video(tmp_path: Path) -> None:
    with recorder(tmp_path) as (lapse, stills, library):
        stills.size = (2560, 1440)
        lapse.start(TimelapseOptions(0.02))
        eventually(lambda: running(lapse).stills)
        lapse.stop()
        (entry,) = library.catalog.entries()
        first = (tmp_path / entry.name.removesuffix(".mp4") / "000001.jpg").read_bytes()
    assert jpeg.size_of(first) == (2560, 1440)
    assert (entry.width, entry.height) == (1920, 1080)


def test_duration(tmp_path: Path) -> None:
    with recorder(tmp_path) as (lapse, stills, _):
        lapse.start(TimelapseOptions(0.05, duration_s=0.22))
        eventually(lambda: lapse.running is None)
        assert 1 <= len(stills.requested_s) <= 5


def test_second_start_is_an_error(tmp_path: Path) -> None:
    with recorder(tmp_path) as (lapse, _, _library):
        assert lapse.stop() is None
        lapse.start(TimelapseOptions(10.0))
        with pytest.raises(RecordingError, match="already running"):
            lapse.start(TimelapseOptions())


def test_stop_does_not_wait_for_the_interval(tmp_path: Path) -> None:
    with recorder(tmp_path) as (lapse, _, library):
        lapse.start(TimelapseOptions(3600.0))
        lapse.stop(soon())
        assert lapse.running is None
        assert library.catalog.entries()[0].duration_s == pytest.approx(0.04, abs=0.001)


def test_start_on_full_disk_is_an_error(tmp_path: Path) -> None:
    with recorder(tmp_path, 1) as (lapse, _, library):
        _, descriptor = library.create_recording("video", 0.0)  # running, so it cannot be deleted
        os.close(descriptor)
        (tmp_path / "1970-01-01_00-00-00.mp4").write_bytes(b"xx")
        with pytest.raises(RecordingError, match="must be a writable folder with free space, "):
            lapse.start(TimelapseOptions())


def test_another_file_begins_before_the_limit(tmp_path: Path) -> None:
    with recorder(tmp_path, max_file_bytes=10_000) as (lapse, _, library):
        lapse.start(TimelapseOptions(0.02, fps=10))
        eventually(lambda: len(library.catalog.entries()) >= 3, "other files")
        lapse.stop()
        assert lapse.last_error is None
        assert max((tmp_path / entry.name).stat().st_size for entry in library.catalog.entries()) < 10_000 + 2_000


def test_another_file_begins_before_the_folder_of_stills_is_full(tmp_path: Path) -> None:
    """As on FAT32, where a folder has room for 32767 stills."""
    with recorder(tmp_path, max_stills=3) as (lapse, _, library):
        lapse.start(TimelapseOptions(0.02, fps=10))
        eventually(lambda: len(library.catalog.entries()) >= 3, "other files")
        lapse.stop()
        parts = list(reversed(library.catalog.entries()))
        assert lapse.last_error is None
    for part in parts[:-1]:
        stills = sorted(path.name for path in (tmp_path / part.name.removesuffix(".mp4")).iterdir())
        assert stills == ["000001.jpg", "000002.jpg", "000003.jpg"]
        assert len(play(tmp_path / part.name).numbers) == 3


def test_own_earlier_parts_make_room(tmp_path: Path) -> None:
    limit = 40_000
    with recorder(tmp_path, limit) as (lapse, stills, library):
        first = lapse.start(TimelapseOptions(0.01, fps=10)).name
        eventually(lambda: not (tmp_path / str(first)).exists(), "the first part is deleted")
        count, sizes = running(lapse).stills, list[int]()
        while running(lapse).stills <= count + 20:
            sizes.append(library.catalog.used_bytes())
        assert max(sizes) <= limit, "also when another file begins"
        photo = library.add_still(jpeg.encode(numbered_frame(0), None, 95), time.time())
        assert photo.size > 0
        now = running(lapse)
        assert (now.failures, now.paused, lapse.last_error) == (0, None, None)
        assert library.catalog.used_bytes() <= limit
        lapse.stop()
        parts = [entry for entry in library.catalog.entries() if entry.kind == "timelapse"]
        assert len(parts) > 4
        assert max(part.size for part in parts) <= limit / 8 + 2_000, "with the index"
        folders = {path.name for path in tmp_path.iterdir() if path.is_dir()}
        assert folders == {part.name.removesuffix(".mp4") for part in parts}, "deleted with their stills"
    numbers = sorted(number for part in parts for number in play(tmp_path / part.name).numbers)
    newest = range(stills.taken - len(numbers), stills.taken)
    assert numbers == sorted(number % 16 for number in newest), "no still is missing"


def test_recordings_to_keep_leave_small_parts(tmp_path: Path) -> None:
    kept = "2026-11-20_12-00-00.mp4"
    (tmp_path / kept).write_bytes(bytes(100_000))
    with recorder(tmp_path, 130_000) as (lapse, _, library):
        library.mark(kept, is_kept=True)
        first = lapse.start(TimelapseOptions(0.01, fps=10)).name
        eventually(lambda: not (tmp_path / str(first)).exists(), "the first part is deleted")
        assert running(lapse).failures == 0
        assert (tmp_path / kept).exists()
        assert library.catalog.used_bytes() <= 130_000


def test_current_part_makes_room_if_nothing_else_can(tmp_path: Path) -> None:
    """Recordings are marked to keep, or copied in and marked, while it grows."""
    with recorder(tmp_path, 100_000) as (lapse, _, library):
        first = str(lapse.start(TimelapseOptions(0.02, fps=10)).name)
        eventually(lambda: running(lapse).stills >= 6, "more than the next still needs")
        room = 100_000 - library.catalog.used_bytes()
        (tmp_path / ".new").write_bytes(bytes(room))
        (tmp_path / ".2026-11-20_12-00-00.mp4.keep").touch()
        (tmp_path / ".new").rename(tmp_path / "2026-11-20_12-00-00.mp4")
        eventually(lambda: not (tmp_path / first).exists())
        stills = running(lapse).stills
        eventually(lambda: running(lapse).stills >= stills + 3)
        assert running(lapse).failures == 0


def test_pause_of_a_timelapse(tmp_path: Path) -> None:
    with recorder(tmp_path) as (lapse, stills, library):
        name = lapse.start(TimelapseOptions(0.02, fps=10)).name
        eventually(lambda: running(lapse).elapsed_s > 0.1)
        assert (running(lapse).name, running(lapse).paused) == (name, None)
        stills.fails = True
        eventually(lambda: running(lapse).failures >= 2)
        paused = running(lapse)
        assert (paused.name, paused.paused) == (None, "the lens is covered")
        eventually(lambda: running(lapse).failures >= paused.failures + 5)
        assert running(lapse).elapsed_s == paused.elapsed_s, "it counts only what is recorded"
        stills.fails = False
        eventually(lambda: running(lapse).elapsed_s > paused.elapsed_s + 0.05)
        assert (running(lapse).name, running(lapse).paused) == (name, None)
        ended = lapse.stop()
        assert ended is not None
        assert ended.name == name == library.catalog.entries()[0].name


def test_reason_of_a_pause_is_that_of_the_disk(tmp_path: Path) -> None:
    folder = tmp_path / "stick"
    with recorder(folder) as (lapse, _, _library):
        lapse.start(TimelapseOptions(0.02))
        folder.rename(tmp_path / "away")
        eventually(lambda: running(lapse).paused)
        assert running(lapse).paused == "No such file or directory"
        assert lapse.last_error == "the still cannot be written: No such file or directory"


def test_start_follows_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, clock_error_s = time.time, 0.0
    monkeypatch.setattr(time, "time", lambda: now() + clock_error_s)
    with recorder(tmp_path) as (lapse, _, _library):
        before_s, clock_error_s = lapse.start(TimelapseOptions(0.02)).began_s, 50 * 365 * 86_400.0
        assert running(lapse).began_s == pytest.approx(before_s + clock_error_s, abs=0.1)
