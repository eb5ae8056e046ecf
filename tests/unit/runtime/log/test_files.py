"""`LogFiles`: lines survive the process, in two bounded files that may contain anything."""

import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

import pytest

from softcam.runtime.log.files import LogFiles, merge, read_tail
from softcam.runtime.log.lines import LogLine, encode, make_line
from tests.support.timeouts import PATIENCE_S


def line(number: int, message: str = "Camera open") -> LogLine:
    return make_line(number, 1, 1_700_000_000.25, 20, "softcam", "camera", message)


@contextmanager
def opened(folder: Path, file_bytes: int = 4096) -> Iterator[LogFiles]:
    with closing(LogFiles(folder, "log", file_bytes)) as files:
        yield files


def numbers(folder: Path, file_bytes: int = 4096) -> list[int]:
    with opened(folder, file_bytes) as files:
        return [each.id for each in files.earlier]


def test_lines_are_there_afterwards(tmp_path: Path) -> None:
    with opened(tmp_path / "new") as files:
        assert files.earlier == []
        files.append([line(1), line(2, "ünï")])
        files.append([line(3)])
    with opened(tmp_path / "new") as files:
        assert files.earlier == [line(1), line(2, "ünï"), line(3)]
        files.append([line(4)])
    assert numbers(tmp_path / "new") == [1, 2, 3, 4]


def test_only_the_owner_can_read(tmp_path: Path) -> None:
    (tmp_path / "log.1").touch(0o644)
    before = os.umask(0)
    try:
        with opened(tmp_path / "folder"), opened(tmp_path):
            pass
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*")}
    assert modes == {"folder": 0o700, "log.0": 0o600, "log.1": 0o600}


def test_two_files_take_turns(tmp_path: Path) -> None:
    size = len(encode([line(1)]))
    with opened(tmp_path, 10 * size) as files:
        for number in range(1, 100):
            files.append([line(number)])
            assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 20 * size
    found = numbers(tmp_path, 10 * size)
    assert found == list(range(found[0], 100))
    assert len(found) >= 10
    with opened(tmp_path, 10 * size) as files:  # continues where it was
        files.append([line(100)])
    assert numbers(tmp_path, 10 * size)[-2:] == [99, 100]


def test_line_longer_than_a_file(tmp_path: Path) -> None:
    with opened(tmp_path, 1000) as files:
        files.append([line(1, "x" * 1500)])
        files.append([line(2)])
    assert numbers(tmp_path, 1000) == [2]


def test_killed_process_has_lost_nothing(tmp_path: Path) -> None:
    program = """
import os, signal, sys
from pathlib import Path
from softcam.runtime.log.files import LogFiles
from softcam.runtime.log.lines import make_line
files = LogFiles(Path(sys.argv[1]), "log")
for number in range(1, 501):
    files.append([make_line(number, 1, 0.0, 20, "a", "b", "c")])
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], timeout=PATIENCE_S)
    assert done.returncode == -9
    assert numbers(tmp_path, 1 << 20) == list(range(1, 501))


def test_incomplete_last_line(tmp_path: Path) -> None:
    (tmp_path / "log.0").write_bytes(encode([line(1), line(2)])[:-5])
    with opened(tmp_path) as files:
        files.append([line(3)])
    assert numbers(tmp_path) == [1, 3]


@pytest.mark.parametrize("content", [b"", b"\0" * 5000, b"\xff" * 100, os.urandom(3000), b"[1]\n" * 5000, b"{" * 9000])
def test_foreign_content(tmp_path: Path, content: bytes) -> None:
    for name in ("log.0", "log.1"):
        (tmp_path / name).write_bytes(content)
    with opened(tmp_path) as files:
        assert files.earlier == []
        files.append([line(1)])
        files.append([line(2)])
    assert numbers(tmp_path) == [1, 2]


@pytest.mark.parametrize("kind", ["folder", "pipe", "link"])
def test_something_else_of_that_name(
    tmp_path: Path, kind: str, no_leaks: Callable[[], AbstractContextManager[None]]
) -> None:
    path = tmp_path / "log.1"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(tmp_path / "elsewhere")
    with no_leaks(), pytest.raises(OSError, match=r"log\.1"):
        LogFiles(tmp_path, "log")
    assert not (tmp_path / "elsewhere").exists()


def test_files_are_used_by_one_process(tmp_path: Path) -> None:
    with opened(tmp_path), pytest.raises(BlockingIOError):
        LogFiles(tmp_path, "log")
    assert numbers(tmp_path) == []


def test_full_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwrite
    with opened(tmp_path) as files:
        files.append([line(1)])
        monkeypatch.setattr(os, "pwrite", lambda fd, content, at: real(fd, content[:20], at))  # no space for the rest
        files.append([line(2)])

        def fail(*_: object) -> int:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "pwrite", fail)
        with pytest.raises(OSError, match="No space"):
            files.append([line(3)])
        monkeypatch.setattr(os, "pwrite", real)
        files.append([line(4)])
        files.append([line(5)])
    assert numbers(tmp_path) == [1, 2, 3, 4, 5]


def test_file_system_that_stays_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits for space is bounded, and the newest lines are those that are kept."""
    real = os.pwrite
    with opened(tmp_path) as files:
        monkeypatch.setattr(os, "pwrite", lambda fd, content, at: 0)
        for number in range(1, 500):
            files.append([line(number)])
        monkeypatch.setattr(os, "pwrite", real)
        files.append([line(500)])
    kept = numbers(tmp_path)
    assert 1 < kept[0] < 500
    assert kept == list(range(kept[0], 501))
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 4096


def test_tail_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "copy"
    assert read_tail(path, 100) == b""
    path.write_bytes(b"0123456789")
    assert read_tail(path, 4) == b"6789"
    assert read_tail(path, 100) == b"0123456789"
    assert read_tail(tmp_path, 100) == b""
    os.mkfifo(tmp_path / "pipe")
    assert read_tail(tmp_path / "pipe", 100) == b""
    (tmp_path / "link").symlink_to(path)
    assert read_tail(tmp_path / "link", 100) == b""


def test_merge() -> None:
    older, newer = [line(1), line(2), line(3)], [line(3), line(4)]
    assert [each.id for each in merge(older, newer)] == [1, 2, 3, 4]
    assert merge(older, []) == older
    assert merge([], newer) == newer
