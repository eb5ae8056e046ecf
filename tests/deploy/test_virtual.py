"""The wait for an emulated machine, which goes by its progress, and the hash under which its report is kept."""

import subprocess
from pathlib import Path

import pytest

from tests.deploy.virtual import hash_files, wait_while_growing


def start(log: Path, script: str) -> "subprocess.Popen[bytes]":
    with log.open("w") as file:
        return subprocess.Popen(["sh", "-c", script], stdout=file)


def test_slow_machine_that_makes_progress(tmp_path: Path) -> None:
    process = start(tmp_path / "log", "for n in 1 2 3 4 5 6 7 8; do echo $n; sleep 0.5; done; exit 3")
    assert wait_while_growing(process, tmp_path / "log", 2.5, 0.05) == 3


def test_silent_machine_is_stopped(tmp_path: Path) -> None:
    process = start(tmp_path / "log", "echo started; exec sleep 1000")
    with pytest.raises(AssertionError, match="no output for 1 s; the console: started"):
        wait_while_growing(process, tmp_path / "log", 1.0, 0.05)
    assert process.returncode == -9


def test_hash_of_the_inputs(tmp_path: Path) -> None:
    names = ("folder", "file")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/inner").write_text("a")
    (tmp_path / "file").write_text("a")
    hashes = [hash_files(tmp_path, names), hash_files(tmp_path, names, b"part")]
    (tmp_path / "file").write_text("b")
    hashes.append(hash_files(tmp_path, names))
    (tmp_path / "folder/inner").write_text("b")
    hashes.append(hash_files(tmp_path, names))
    (tmp_path / "folder/inner").rename(tmp_path / "folder/other")
    hashes.append(hash_files(tmp_path, names))
    assert len({*hashes}) == 5
    (tmp_path / "not named").write_text("c")
    assert hash_files(tmp_path, names) == hashes[-1]
    with pytest.raises(FileNotFoundError):  # a list that is out of date
        hash_files(tmp_path, (*names, "moved"))
