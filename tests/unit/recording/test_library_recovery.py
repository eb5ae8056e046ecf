"""Interrupted files, those of other portals in the same folder, and files that vanish while they are written."""

import fcntl
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from softcam.errors import RecordingError
from softcam.recording.library import Library
from tests.support.h264_samples import FPS, play
from tests.support.recordings import LONG_AGO_S, interrupt, open_video


@pytest.mark.parametrize("missing", [0, 1, 100, 3000])
def test_interrupted_file_is_recovered(missing: int, tmp_path: Path) -> None:
    library = Library(tmp_path, None)
    video = open_video(library)
    interrupt(video, library)
    path = tmp_path / video.name
    os.truncate(path, path.stat().st_size - missing)
    (entry,) = library.entries()
    assert not entry.is_running
    assert entry.duration_s == pytest.approx(
        2.0 if not missing else 1.5 if missing < 3000 else entry.duration_s, abs=0.01
    )
    assert library.recover() == 1
    (recovered,) = library.entries()
    seen = play(path)
    assert recovered.duration_s == pytest.approx(entry.duration_s, abs=0.001)
    assert seen.duration_s == pytest.approx(recovered.duration_s, abs=0.01)
    assert len(seen.numbers) == pytest.approx(seen.duration_s * FPS)
    assert library.recover() == 0


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
    assert library.entries()[0].duration_s == duration_s
    file, whole = library.open_recording(video.name)
    file.close()
    assert whole == at - 4
    assert library.recover() == 1
    assert library.entries()[0].duration_s == duration_s
    assert play(path).duration_s == duration_s


def test_interruption_at_any_byte(tmp_path: Path) -> None:
    """At any byte: the frames of whole fragments are readable, and recovery does not fail."""
    library = Library(tmp_path, None)
    video = open_video(library, count=20)
    interrupt(video, library)
    path = tmp_path / video.name
    content = path.read_bytes()
    lengths = set()
    for end in range(0, len(content), 41):
        path.write_bytes(content[:end])
        library.recover()
        duration_s = library.entry(video.name).duration_s
        lengths.add(None if duration_s is None else round(duration_s, 2))
        if duration_s:
            assert len(play(path).numbers) == round(duration_s * FPS)
    assert lengths == {None, 0.0, 0.5}


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
        assert library.entries()[0].is_running
        assert library.recover() == 0
        assert caplog.text == ""
        with pytest.raises(RecordingError):
            library.delete_recording(video.name)
        with pytest.raises(OSError, match="no older recording"):
            library.enforce_quota()
        other.communicate(b"")
    assert not library.entries()[0].is_running
    library.enforce_quota()
    assert library.entries() == []


def test_new_file_is_locked_while_others_check_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library, other = Library(tmp_path, None), Library(tmp_path, None)
    flock, asked = fcntl.flock, list[int]()

    def looked_at(file: Any, operation: int) -> None:
        asked.append(operation)
        if len(asked) == 1:
            assert [entry.is_running for entry in library.entries()] == [True]
            assert len(asked) == 1  # our own list does not try the lock
            raise BlockingIOError  # as if another portal did
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", looked_at)
    name, descriptor = library.create_recording("video", LONG_AGO_S)
    monkeypatch.undo()
    assert [entry.is_running for entry in other.entries()] == [True]
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
