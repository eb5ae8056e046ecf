"""The script that delays repeated restarts: its record, and that it never keeps a portal from starting."""

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.conftest import PROJECT
from tests.support.timeouts import PATIENCE_S

SCRIPT = PROJECT / "systemd" / "restart-backoff.sh"


def run(folder: Path, word: str, result: str = "exit-code", code: str = "exited", status: str = "70") -> str:
    done = subprocess.run(
        ["sh", str(SCRIPT), word],
        env={
            **os.environ,
            "RUNTIME_DIRECTORY": str(folder),
            "SERVICE_RESULT": result,
            "EXIT_CODE": code,
            "EXIT_STATUS": status,
        },
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def count(folder: Path) -> int:
    return int((folder / "restarts").read_text().split()[0])


def test_failures_are_counted_until_a_success(tmp_path: Path) -> None:
    for number in range(3):
        assert run(tmp_path, "start") == ""
        run(tmp_path, "end")
        assert count(tmp_path) == number + 1
    run(tmp_path, "end", "success")
    assert not (tmp_path / "restarts").exists()


@pytest.mark.parametrize("status", ["66", "78", "2"])
def test_failure_that_is_not_retried_is_not_counted(tmp_path: Path, status: str) -> None:
    """The folder stays, and the start by hand that follows must not be delayed."""
    for _ in range(3):
        run(tmp_path, "start")
        run(tmp_path, "end")
    assert count(tmp_path) == 3
    run(tmp_path, "end", status=status)
    assert not (tmp_path / "restarts").exists()


def test_result_is_left_for_the_next_start(tmp_path: Path) -> None:
    run(tmp_path, "end", "watchdog", "dumped", "ABRT")
    assert (tmp_path / "result").read_text() == "watchdog dumped ABRT\n"
    run(tmp_path, "end", "success", "killed", "TERM")
    assert (tmp_path / "result").read_text() == "success killed TERM\n"


@pytest.mark.parametrize("record", ["", "\n", "x y\n", "3\n", "-1 5\n", "1 2 3\n", "7 $(false)\n"])
def test_damaged_record(tmp_path: Path, record: str) -> None:
    (tmp_path / "restarts").write_text(record)
    assert run(tmp_path, "start") in ("", "<5>Failed 3 times within minutes, restarting in 3 s\n")
    run(tmp_path, "end")
    assert count(tmp_path) >= 1


def test_full_disk(tmp_path: Path) -> None:
    (tmp_path / "restarts.new").mkdir()
    (tmp_path / "result.new").mkdir()
    run(tmp_path, "end")
    assert run(tmp_path, "start") == ""


def test_stop_during_the_delay(tmp_path: Path) -> None:
    (tmp_path / "restarts").write_text("9 1\n")
    waiting = subprocess.Popen(
        ["sh", str(SCRIPT), "start"],
        env={**os.environ, "RUNTIME_DIRECTORY": str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert waiting.stdout is not None
        assert "restarting in 29 s" in waiting.stdout.readline()
        began_s = time.monotonic()
        os.killpg(waiting.pid, signal.SIGTERM)  # as systemd does, to the whole group
        assert waiting.wait(PATIENCE_S) == 0
        assert time.monotonic() - began_s < PATIENCE_S
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(waiting.pid, signal.SIGKILL)  # its `sleep` may have started after the signal
        waiting.communicate()
    assert not (tmp_path / "restarts").exists(), "a manual stop clears the record"
