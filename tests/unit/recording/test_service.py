"""What the recording service starts by itself: interrupted recordings, and the automatic one."""

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from softcam.errors import NotSupported
from softcam.h264.bitrate import fixed_bitrate
from softcam.imaging import jpeg
from softcam.imaging.snapshot import Snapshot
from softcam.recording import timelapse
from softcam.recording.journal import Entry, Journal
from softcam.recording.library import Library
from softcam.recording.service import RecordingService, automatic_options
from softcam.recording.timelapse import RunningTimelapse, TimelapseOptions, TimelapseRecorder
from softcam.runtime.log.events import Event
from tests.support.background import eventually, soon
from tests.support.h264_samples import numbered_frame
from tests.support.log_events import logged_events

OPTIONS = TimelapseOptions(interval_s=0.05, duration_s=3600.0, fps=10)


@contextmanager
def service(
    tmp_path: Path, autostart: TimelapseOptions | None = None, name: str = "folder"
) -> Iterator[TimelapseRecorder]:
    """A process with a time-lapse recorder, from its start to its end."""
    picture = jpeg.encode(numbered_frame(0, (64, 48)), None, 95)
    library, journal, crashes = Library(tmp_path / name, None), Journal(tmp_path / "journal.json"), list[str]()
    timelapse = TimelapseRecorder(
        library,
        lambda _: Snapshot(picture, time.time()),
        fixed_bitrate(1_000_000),
        crashes.append,
        lambda: 1,
        journal=journal,
    )
    service = RecordingService(library, 0.0, None, timelapse, autostart, journal)
    service.open(crashes.append)
    yield timelapse
    service.close(soon())
    assert crashes == []


def running(recorder: TimelapseRecorder) -> RunningTimelapse:
    running = recorder.running
    assert running is not None
    return running


def test_end_of_the_process_is_resumed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    with service(tmp_path) as recorder:
        began_s = recorder.start(OPTIONS).began_s
        eventually(lambda: running(recorder).stills >= 2)
        recorded_s = running(recorder).elapsed_s
    ended_s = time.time()
    for _ in range(2):  # also the end of the second process
        with service(tmp_path) as recorder:
            eventually(lambda: recorder.running is not None and running(recorder).stills >= 2)
            again = running(recorder)
        assert again.began_s == began_s
        assert again.interval_s == OPTIONS.interval_s
        assert again.interrupted_s == pytest.approx(ended_s, abs=1.0)
        assert recorded_s - 0.1 <= again.elapsed_s <= time.time() - began_s, "without the interruption"
        recorded_s = again.elapsed_s
        ended_s = time.time()
    assert "Time-lapse resumed: a still every 0.05 s; interrupted at 2" in caplog.text


def test_crash_is_resumed(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    name = "2026-11-20_23-15-02_timelapse.mp4"
    (folder / name).write_bytes(b"half a file")
    saved_s = time.time() - 100.0
    options = {"interval_s": 0.05, "duration_s": 200.0, "fps": 10.0, "full_sensor": False}
    Journal(tmp_path / "journal.json").save("time-lapse", Entry(options, saved_s, 0.0, saved_s, False, name))
    with service(tmp_path) as recorder:
        eventually(lambda: recorder.running is not None)
        again = running(recorder)
    assert again.interrupted_s == pytest.approx((folder / name).stat().st_mtime, abs=0.001)
    assert again.elapsed_s == pytest.approx(time.time() - saved_s, abs=5.0)


def test_clock_that_is_set_between_two_processes_ends_no_recording(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with service(tmp_path) as recorder:
        recorder.start(OPTIONS)
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + 365 * 86_400)
    with service(tmp_path) as recorder:
        eventually(lambda: recorder.running is not None)
        assert running(recorder).elapsed_s < 600.0, "of an hour"


def test_stopped_recording_is_not_resumed(tmp_path: Path) -> None:
    with service(tmp_path) as recorder:
        recorder.start(OPTIONS)
        recorder.stop()
    assert Journal(tmp_path / "journal.json").load() == {}


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"duration_s": 50.0}, "its duration is over"),
        ({"colour": "red"}, "unexpected keyword"),
        ({"duration_s": "50"}, "duration_s: unexpected value '50'"),
        ({"interval_s": None}, "not supported between"),
        ({"full_sensor": 1}, "full_sensor: unexpected value 1"),
        ({"interval_s": 0}, "must be positive"),
        ({"fps": 1e300}, "fps: must be from 0 to 1e+11"),
        ([1.0], "must be a mapping"),
        (None, "must be a mapping"),
    ],
)
def test_not_resumed(options: object, reason: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    saved_s = time.time() - 100.0
    Journal(tmp_path / "journal.json").save("time-lapse", Entry(options, saved_s, 0.0, saved_s, False, None))
    with service(tmp_path) as recorder:
        eventually(lambda: Journal(tmp_path / "journal.json").load() == {})
        assert recorder.running is None
        assert recorder.cut_short_s == saved_s
        recorder.start(TimelapseOptions(interval_s=0.05))
        assert recorder.cut_short_s is None, "another one was requested"
        recorder.stop()
    assert "and is not resumed: " in caplog.text
    assert reason in caplog.text
    assert logged_events(caplog) == [Event.RECORDING_INTERRUPTED]


def test_failed_start_cuts_a_recording_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise NotSupported("no encoder")

    saved_s = time.time() - 100.0
    options = {"interval_s": 0.05}
    Journal(tmp_path / "journal.json").save("time-lapse", Entry(options, saved_s, 0.0, saved_s, False, None))
    monkeypatch.setattr(timelapse, "require_libx264", fail)
    with service(tmp_path) as recorder:
        eventually(lambda: recorder.cut_short_s is not None)
        assert recorder.cut_short_s == saved_s


def test_automatic_recording_does_not_hide_the_one_that_was_cut_short(tmp_path: Path) -> None:
    saved_s = time.time() - 100.0
    options = {"duration_s": 50.0}
    Journal(tmp_path / "journal.json").save("time-lapse", Entry(options, saved_s, 0.0, saved_s, False, None))
    with service(tmp_path, TimelapseOptions(interval_s=0.05)) as recorder:
        eventually(lambda: recorder.running is not None)
        assert recorder.cut_short_s == saved_s


def test_automatic_recording(tmp_path: Path) -> None:
    automatic = TimelapseOptions(interval_s=0.05)
    for _ in range(2):  # also after it was stopped by hand
        with service(tmp_path, automatic) as recorder:
            eventually(lambda: recorder.running is not None)
            assert running(recorder).interrupted_s is None
            recorder.stop()
    with service(tmp_path, automatic) as recorder:
        eventually(lambda: recorder.running is not None)
    with service(tmp_path, TimelapseOptions(interval_s=30.0)) as recorder:
        eventually(lambda: recorder.running is not None)
        assert running(recorder).interval_s == 30.0, "the setting has precedence"
        assert running(recorder).interrupted_s is not None
    with service(tmp_path):
        eventually(lambda: Journal(tmp_path / "journal.json").load() == {}, "no longer automatic")


def test_disk_that_is_absent_at_the_start(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_text("no folder yet")
    with service(tmp_path, TimelapseOptions(interval_s=0.05), "disk") as recorder:
        eventually(lambda: recorder.last_error is not None)
        disk.unlink()
        disk.mkdir()
        eventually(lambda: recorder.last_error is None)
        assert running(recorder).stills >= 1


class LoadingJournal(Journal):
    """Keeps which thread loaded it."""

    loaders: tuple[threading.Thread, ...] = ()

    def load(self) -> Mapping[str, Entry]:
        self.loaders += (threading.current_thread(),)
        return super().load()


def test_journal_is_loaded_before_it_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "journal.json"
    other = Entry({}, 1.0, 1.0, 1.0, is_automatic=False, name=None)
    Journal(path).save("another kind", other)
    journal, crashes = LoadingJournal(path), list[str]()
    RecordingService(Library(tmp_path / "folder", None), 0.0, journal=journal).open(crashes.append)
    assert journal.loaders == (threading.current_thread(),)
    journal.save("time-lapse", replace(other, began_s=2.0))
    assert Journal(path).load() == {"another kind": other, "time-lapse": replace(other, began_s=2.0)}
    assert crashes == []


def test_missing_folder_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "folder"
    folder.write_text("a file in place of the folder")
    with service(tmp_path):
        eventually(lambda: "recording-recovery" not in [thread.name for thread in threading.enumerate()])
    (line,) = caplog.messages
    assert line.startswith(f"Recordings folder {folder} is not available: ")


def test_automatic_options() -> None:
    assert automatic_options("off") is None
    assert automatic_options("timelapse") == TimelapseOptions()
    assert automatic_options("timelapse:2.5") == TimelapseOptions(2.5)
