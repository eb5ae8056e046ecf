"""Each call that may fail, fails in turn: nothing acknowledged is lost, nothing is destroyed, nothing is left open."""

from collections.abc import Callable
from pathlib import Path

import pytest

from softcam.controls.schema import BY_NAME
from softcam.controls.store import Store
from softcam.errors import RecordingError
from softcam.recording.journal import Journal
from softcam.recording.library import Library
from softcam.recording.recorder import RecorderLimits
from tests.support.background import eventually
from tests.support.failing_calls import FailingCalls, failing_calls
from tests.support.h264_samples import play
from tests.support.recording_studio import studio
from tests.support.web_app import make_controls, make_presets
from tests.unit.recording.test_journal import ENTRY

BEFORE = {"position": 1.0}
AFTER = {"position": 2.0}


def each_failure(folder: Path, run: Callable[[Path, int | None], FailingCalls], *, every: int = 1) -> list[str]:
    """Call `run(folder, at)` for each of its calls, or every second, …; returns the names of all calls."""
    names = run(folder / "all", None).calls
    for at, name in [*enumerate(names)][::every]:
        before = open_files()
        run(folder / str(at), at)
        eventually(lambda before=before: open_files() <= before, f"call {at}, {name}")  # type: ignore[misc]
    return names


def open_files() -> int:
    return len([*Path("/proc/self/fd").iterdir()])


def saved_position(folder: Path) -> object:
    return Store(folder, "cam0").load().get("lens_position", "position")


def test_change_of_a_control(tmp_path: Path) -> None:
    def run(folder: Path, at: int | None) -> FailingCalls:
        folder.mkdir()
        controls = make_controls(None, folder)
        controls.change(BY_NAME["lens_position"], BEFORE)
        with failing_calls(at, folder, thread="state-writer") as state:
            controls.change(BY_NAME["lens_position"], AFTER)
            note = controls.unsaved_note()
        if note is None:
            assert saved_position(folder) == 2.0, state.calls[at or 0]
        else:
            assert at is not None
            eventually(lambda: controls.unsaved_note() is None, state.calls[at])
            eventually(lambda: saved_position(folder) == 2.0, state.calls[at])
        assert [path.name for path in folder.iterdir()] == ["cam0.json"], state.calls[at or 0]
        return state

    names = each_failure(tmp_path, run)
    assert {"start of state-writer", "os.open", "write", "os.fsync", "Path.replace"} <= set(names)


def test_disk_that_stays_broken(tmp_path: Path) -> None:
    """From each call on, all fail: what was saved before is still there, or the change."""

    def run(folder: Path, at: int | None) -> FailingCalls:
        folder.mkdir()
        controls = make_controls(None, folder)
        controls.change(BY_NAME["lens_position"], BEFORE)
        with failing_calls(at, folder, thread="state-writer", lasts=True) as state:
            controls.change(BY_NAME["lens_position"], AFTER)
            note = controls.unsaved_note()
        assert saved_position(folder) in ((1.0, 2.0) if note else (2.0,)), state.calls[at or 0]
        eventually(lambda: controls.unsaved_note() is None, "saved again")
        eventually(lambda: saved_position(folder) == 2.0, state.calls[at or 0])
        return state

    each_failure(tmp_path, run)


def test_start_with_a_saved_state(tmp_path: Path) -> None:
    """What cannot be read is used again by the next start, or is in quarantine."""

    def run(folder: Path, at: int | None) -> FailingCalls:
        folder.mkdir()
        make_controls(None, folder).change(BY_NAME["lens_position"], BEFORE)
        content = (folder / "cam0.json").read_bytes()
        with failing_calls(at, folder) as state:
            controls = make_controls(None, folder)
        assert controls.requested.get("lens_position", "position") == 1.0 or controls.problems()["controls_not_kept"]
        controls.change(BY_NAME["roi"], {"x": 0.1, "y": 0.1, "width": 0.5, "height": 0.5})
        assert controls.unsaved_note() is None
        if controls.requested.get("lens_position", "position") is None:
            assert (folder / "cam0.json.bad").read_bytes() == content, state.calls[at or 0]
        return state

    each_failure(tmp_path, run)


def test_preset(tmp_path: Path) -> None:
    def run(folder: Path, at: int | None) -> FailingCalls:
        folder.mkdir()
        library = make_presets(make_controls(None, folder), folder).library
        with failing_calls(at, folder, thread="state-writer") as state:
            library.save("mine")
            note = library.unsaved_note()
        if note is not None:
            eventually(lambda: library.unsaved_note() is None, state.calls[at or 0])
        again = make_presets(make_controls(None, folder), folder).library
        assert "mine" in [preset.name for preset in again.list_all()], state.calls[at or 0]
        return state

    each_failure(tmp_path, run)


def test_recording_to_be_resumed(tmp_path: Path) -> None:
    def run(folder: Path, at: int | None) -> FailingCalls:
        folder.mkdir()
        retries: list[Callable[[], bool]] = []
        journal = Journal(folder / "journal.json", retries.append)
        with failing_calls(at, folder) as state:
            journal.save("video", ENTRY)
            error = journal.error
        assert (error is None) is not bool(retries)
        assert all(retry() for retry in retries)
        assert Journal(folder / "journal.json").load() == {"video": ENTRY}
        return state

    each_failure(tmp_path, run)


def test_photo(tmp_path: Path) -> None:
    """A photo that is acknowledged is listed and complete; one that is not leaves nothing."""
    picture = b"\xff\xd8 a photo \xff\xd9"

    def run(folder: Path, at: int | None) -> FailingCalls:
        folder.mkdir()
        library = Library(folder, 10**9)
        is_acknowledged = False
        with failing_calls(at, folder) as state:
            try:
                name = library.add_still(picture, 1_000_000_000.0, b"\xff\xd8 small \xff\xd9").name
                is_acknowledged = True
            except (OSError, RecordingError):
                assert at is not None
        names = [path.name for path in folder.iterdir() if not path.name.startswith(".")]
        if is_acknowledged:
            assert names == [name], state.calls[at or 0]
            assert (folder / name).read_bytes() == picture
        library.recover()
        library.add_still(picture, 1_000_000_001.0, None)
        found = {name: (folder / name).read_bytes() for name in names}
        assert found == dict.fromkeys(names, picture), state.calls[at or 0]
        return state

    assert "Path.replace" in each_failure(tmp_path, run)


def test_video(tmp_path: Path) -> None:
    """A recording continues, or its start is refused; every file that is left plays, also after the next start."""

    def run(folder: Path, at: int | None) -> FailingCalls:
        folder.mkdir()
        with studio(folder, limits=RecorderLimits(retry_s=0.0), journal=folder / "journal.json") as s:
            with failing_calls(at, folder, thread="recorder") as state:
                try:
                    s.start(segment_s=0.5)
                except RecordingError:
                    assert at is not None
                else:
                    s.source.give(20)
                    s.stop()
            assert s.recorder.running is None
            is_playable = all(video.numbers for video in s.videos())
        library = Library(folder, None)
        library.recover()
        assert all(play(folder / entry.name).numbers for entry in library.catalog.entries())
        assert is_playable or library.catalog.entries() == [], state.calls[at or 0]
        return state

    each_failure(tmp_path, run, every=8)


def test_failing_calls_themselves(tmp_path: Path) -> None:
    def run(folder: Path, at: int | None) -> FailingCalls:
        with failing_calls(at, folder) as state:
            if at is None:
                folder.mkdir()
            else:
                with pytest.raises(OSError, match="Input/output error"):
                    folder.mkdir()
        return state

    assert each_failure(tmp_path, run) == ["Path.mkdir"]
