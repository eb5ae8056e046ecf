"""Interrupted files, those of other portals in the same folder, and files that vanish while they are written."""

import errno
import fcntl
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from softcam.errors import NoRecording, RecordingError
from softcam.recording.library import Library
from softcam.recording.mp4_file import Mp4Writer
from tests.support.h264_samples import FPS, play
from tests.support.recordings import LONG_AGO_S, STILL, contents, interrupt, open_video, packets


@pytest.mark.parametrize("missing", [0, 1, 100, 3000])
def test_interrupted_file_is_recovered(missing: int, tmp_path: Path) -> None:
    library = Library(tmp_path, None)
    video = open_video(library)
    interrupt(video, library)
    path = tmp_path / video.name
    os.truncate(path, path.stat().st_size - missing)
    (entry,) = library.catalog.entries()
    assert not entry.is_running
    assert entry.duration_s == pytest.approx(
        2.0 if not missing else 1.5 if missing < 3000 else entry.duration_s, abs=0.01
    )
    assert library.recover() == 1
    (recovered,) = library.catalog.entries()
    seen = play(path)
    assert recovered.duration_s == pytest.approx(entry.duration_s, abs=0.001)
    assert seen.duration_s == pytest.approx(recovered.duration_s, abs=0.01)
    assert len(seen.numbers) == pytest.approx(seen.duration_s * FPS)
    assert library.recover() == 0


def test_recovery_on_a_disk_without_room_for_the_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = Library(tmp_path, None)
    (tmp_path / library.add_still(STILL, LONG_AGO_S).name).unlink()  # its line is to be removed
    video = open_video(library)
    interrupt(video, library)
    lines = (tmp_path / ".order").read_text()

    def fail(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    assert library.recover() == 1
    assert (tmp_path / ".order").read_text() == lines
    monkeypatch.undo()
    assert library.recover() == 0
    assert (tmp_path / ".order").read_text() == f"{video.name}\n"


@pytest.mark.parametrize("damaged", [2, 4])
def test_fragments_before_a_damaged_one_are_recovered(damaged: int, tmp_path: Path) -> None:
    library = Library(tmp_path, None)
    video = open_video(library)
    interrupt(video, library)
    path = tmp_path / video.name
    content = bytearray(path.read_bytes())
    at = -1
    for _ in range(damaged):
        at = content.index(b"moof", at + 1)
    content[at + 20 : at + 80] = bytes(60)
    path.write_bytes(content)
    duration_s = pytest.approx(0.5 * (damaged - 1), abs=0.01)
    assert library.catalog.entries()[0].duration_s == duration_s
    file, whole = library.catalog.open_recording(video.name)
    file.close()
    assert whole == at - 4
    assert library.recover() == 1
    assert library.catalog.entries()[0].duration_s == duration_s
    assert play(path).duration_s == duration_s


def test_interruption_at_any_byte(tmp_path: Path) -> None:
    """The frames of whole fragments are readable, and recovery does not fail."""
    library = Library(tmp_path, None)
    video = open_video(library, count=20)
    interrupt(video, library)
    path = tmp_path / video.name
    content = path.read_bytes()
    lengths = set()
    for end in range(0, len(content), 41):
        path.write_bytes(content[:end])
        library.recover()
        duration_s = library.catalog.entry(video.name).duration_s if path.exists() else None
        lengths.add(None if duration_s is None else round(duration_s, 2))
        if duration_s is not None:
            assert len(play(path).numbers) == round(duration_s * FPS)
    assert lengths == {None, 0.5}, "a file without a whole fragment is removed"


def test_locked_file_of_another_portal(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Two portals may record to one folder."""
    program = (
        "import fcntl, os, sys\n"
        "file = open(sys.argv[1], 'r+b')\n"
        "fcntl.flock(file, fcntl.LOCK_EX)\n"
        "print('locked', flush=True)\n"
        "sys.stdin.read()\n"
    )
    library = Library(tmp_path, 10)
    video = open_video(library)
    interrupt(video, library)
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / video.name)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"locked\n"
        assert library.catalog.entries()[0].is_running
        assert library.recover() == 0
        assert caplog.text == ""
        with pytest.raises(RecordingError):
            library.delete_recording(video.name)
        with pytest.raises(OSError, match="no older recording"):
            library.enforce_quota()
        other.communicate(b"")
    assert not library.catalog.entries()[0].is_running
    library.enforce_quota()
    assert library.catalog.entries() == []


def test_new_file_is_locked_while_others_check_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library, other = Library(tmp_path, None), Library(tmp_path, None)
    flock, asked = fcntl.flock, list[int]()

    def looked_at(file: Any, operation: int) -> None:
        asked.append(operation)
        if len(asked) == 1:
            assert [entry.is_running for entry in library.catalog.entries()] == [True]
            assert len(asked) == 1  # our own list does not try the lock
            raise BlockingIOError  # as if another portal did
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", looked_at)
    name, descriptor = library.create_recording("video", LONG_AGO_S)
    monkeypatch.undo()
    assert [entry.is_running for entry in other.catalog.entries()] == [True]
    os.close(descriptor)
    library.close_recording(name)


def test_removed_running_file_is_detected(tmp_path: Path) -> None:
    folder = tmp_path / "stick"
    library = Library(folder, None)
    video = open_video(library)
    library.require_present(video.name)
    folder.rename(tmp_path / "away")
    with pytest.raises(FileNotFoundError, match="No such file"):
        library.require_present(video.name)
    folder.mkdir()
    with pytest.raises(FileNotFoundError, match="was removed"):
        library.require_present(video.name)
    (folder / video.name).write_bytes(b"another one")
    with pytest.raises(FileNotFoundError, match="was removed"):
        library.require_present(video.name)
    video.close()
    assert (folder / video.name).read_bytes() == b"another one"


CUT = STILL[:-10]
HEADLESS = STILL[:200]


def test_empty_files_are_removed_and_cut_photos_completed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As a power cut leaves files that were not synced."""
    library = Library(tmp_path, None)
    whole, cut, headless, empty = (library.add_still(STILL, LONG_AGO_S + at_s, STILL).name for at_s in range(4))
    (tmp_path / cut).write_bytes(CUT)
    (tmp_path / headless).write_bytes(HEADLESS)
    (tmp_path / empty).write_bytes(b"")
    for name in ("2026-11-20_23-15-09.mp4", "2026-11-20_23-15-09_timelapse.mp4"):
        (tmp_path / name).touch()
    with pytest.raises(NoRecording, match="empty"):
        library.catalog.open_recording(empty)
    with caplog.at_level(logging.INFO):
        assert library.recover() == 1
    assert f"Completed a cut image: {cut}" in caplog.messages
    assert f"Removed an empty image: {empty}" in caplog.messages
    assert [entry.name for entry in library.catalog.entries()] == [cut, whole]
    assert not (tmp_path / f".{empty}.jpg").exists(), "its thumbnail"
    assert (tmp_path / whole).read_bytes() == STILL
    assert Image.open(tmp_path / cut).convert("L").size == (32, 16)  # decodes
    assert library.recover() == 0


def test_stills_of_an_interrupted_timelapse(tmp_path: Path) -> None:
    library = Library(tmp_path, None)
    fmt, taken = packets(1)
    lapse = Mp4Writer(library, "timelapse", fmt, LONG_AGO_S, taken[0].began_s)
    lapse.add_fragment(taken, 0.04)
    for number in (1, 2, 3):
        library.add_to_timelapse(lapse.name, number, STILL)
    interrupt(lapse, library)
    folder = tmp_path / lapse.name.removesuffix(".mp4")
    (folder / "000002.jpg").write_bytes(CUT)
    (folder / "000003.jpg").write_bytes(b"")
    (folder / ".000004.jpg").write_bytes(CUT)
    assert library.recover() == 1
    assert sorted(path.name for path in folder.iterdir()) == ["000001.jpg", "000002.jpg"]
    assert (folder / "000002.jpg").read_bytes() == CUT + b"\xff\xd9"


@pytest.mark.parametrize("content", [b"", CUT])
def test_damaged_thumbnail_is_not_served_and_removed(content: bytes, tmp_path: Path) -> None:
    library = Library(tmp_path, None)
    name = library.add_still(STILL, LONG_AGO_S, STILL).name
    assert library.catalog.thumbnail(name) == STILL
    thumbnail = tmp_path / f".{name}.jpg"
    thumbnail.write_bytes(content)
    (tmp_path / f".{thumbnail.name}").write_bytes(CUT)  # another one that was being written
    with pytest.raises(NoRecording):
        library.catalog.thumbnail(name)
    library.recover()
    assert [path.name for path in contents(tmp_path)] == [name]


def test_recovery_leaves_files_of_others(tmp_path: Path) -> None:
    library = Library(tmp_path, None)
    kept = {
        "2026-11-20_23-15-02.jpg": b"\x89PNG of another program",
        "2026-11-20_23-15-03.jpg": STILL + bytes(100),  # padded
        "2026-11-20_23-15-02.mp4": bytes(5000),
        ".hidden.jpg": b"",
        "holiday.jpg": b"",
    }
    for name, content in kept.items():
        (tmp_path / name).write_bytes(content)
    assert library.recover() == 0
    assert {path.name: path.read_bytes() for path in contents(tmp_path)} == kept


def test_new_file_that_another_portal_removes_is_created_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A portal that starts finds it empty before it is locked."""
    library, other = Library(tmp_path, None), Library(tmp_path, None)
    flock = fcntl.flock

    def recover_first(file: Any, operation: int) -> None:
        monkeypatch.undo()
        assert other.recover() == 0
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", recover_first)
    name, descriptor = library.create_recording("video", LONG_AGO_S)
    library.require_present(name)
    assert other.catalog.entries()[0].is_running
    os.close(descriptor)
    library.close_recording(name)
    assert contents(tmp_path) == []


def test_name_that_another_portal_uses_again_is_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It removes the new file, as above, and starts a recording in the same second."""
    library, other = Library(tmp_path, None), Library(tmp_path, None)
    flock = fcntl.flock
    others = list[tuple[str, int]]()

    def recover_and_record(file: Any, operation: int) -> None:
        monkeypatch.undo()
        assert other.recover() == 0
        others.append(other.create_recording("video", LONG_AGO_S))
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", recover_and_record)
    name, descriptor = library.create_recording("video", LONG_AGO_S)
    ((others_name, others_descriptor),) = others
    other.require_present(others_name)
    library.require_present(name)
    assert name != others_name
    for portal, its_name, its_descriptor in (library, name, descriptor), (other, others_name, others_descriptor):
        os.close(its_descriptor)
        portal.close_recording(its_name)
    assert contents(tmp_path) == []


def test_interrupted_file_has_an_index_for_players(tmp_path: Path) -> None:
    library = Library(tmp_path, None)
    video = open_video(library)
    interrupt(video, library)
    file, view = library.catalog.open_view(video.name)
    with file:
        content = view.head + file.read()[len(view.head) :] + view.tail
    assert library.recover() == 1
    assert content == (tmp_path / video.name).read_bytes()
