"""The wait for an emulated machine, which goes by its progress, and the hash under which its report is kept."""

import subprocess
from pathlib import Path

import pytest

from tests.deploy.virtual import hash_tree, wait_while_growing


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
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/file").write_text("a")
    hashes = [hash_tree(tmp_path), hash_tree(tmp_path, b"part")]
    (tmp_path / "folder/file").write_text("b")
    hashes.append(hash_tree(tmp_path))
    (tmp_path / "folder/file").rename(tmp_path / "file")
    hashes.append(hash_tree(tmp_path))
    assert len({*hashes}) == 4
    assert hash_tree(tmp_path) == hashes[-1]
