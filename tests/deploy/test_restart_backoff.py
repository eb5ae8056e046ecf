"""The shell script that lets restarts wait, by itself: what it writes down, and that nothing keeps a portal down."""

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.conftest import PROJECT

SCRIPT = PROJECT / "systemd" / "restart-backoff.sh"


def run(folder: Path, word: str, result: str = "exit-code") -> str:
    done = subprocess.run(
        ["sh", str(SCRIPT), word],
        env={**os.environ, "RUNTIME_DIRECTORY": str(folder), "SERVICE_RESULT": result},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def count(folder: Path) -> int:
    return int((folder / "restarts").read_text().split()[0])


def test_failures_are_counted_and_a_good_end_forgets_them(tmp_path: Path) -> None:
    for number in range(3):
        assert run(tmp_path, "start") == ""
        run(tmp_path, "end")
        assert count(tmp_path) == number + 1
    run(tmp_path, "end", "success")
    assert not (tmp_path / "restarts").exists()


@pytest.mark.parametrize("account", ["", "\n", "x y\n", "3\n", "-1 5\n", "1 2 3\n", "7 $(false)\n"])
def test_a_damaged_account_is_a_new_one(tmp_path: Path, account: str) -> None:
    (tmp_path / "restarts").write_text(account)
    assert run(tmp_path, "start") in ("", "<5>Failed 3 times within minutes, restarting in 3 s\n")
    run(tmp_path, "end")
    assert count(tmp_path) >= 1


def test_no_room_to_write_is_no_reason_to_stay_down(tmp_path: Path) -> None:
    (tmp_path / "restarts.new").mkdir()
    run(tmp_path, "end")
    assert run(tmp_path, "start") == ""


def test_who_stops_it_while_it_waits_is_obeyed_at_once(tmp_path: Path) -> None:
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
        os.killpg(waiting.pid, signal.SIGTERM)  # as systemd does: everyone in the group
        assert waiting.wait(20) == 0
        assert time.monotonic() - began_s < 20
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(waiting.pid, signal.SIGKILL)  # its sleep may have begun after the signal
        waiting.communicate()
    assert not (tmp_path / "restarts").exists(), "by hand: the account is cleared"
