"""Signals: which end the portal, which do not, and when; and a log that nobody reads."""

import os
import pty
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

import pytest

from tests.conftest import PROJECT, Portal
from tests.support.background import eventually
from tests.support.http_client import ask, wait_for_status
from tests.support.timeouts import PATIENCE_S

Start = Callable[..., Portal]

IGNORED = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM, signal.SIGIO, signal.SIGPWR, signal.SIGRTMIN)
COMMAND = [sys.executable, str(PROJECT / "soft_stream.py"), "--camera", "pattern", "--port", "0"]


def blocked(pid: int) -> int:
    """The mask of blocked signals of the main thread."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("SigBlk:")), 16)


def environment(tmp_path: Path) -> dict[str, str]:
    return {**os.environ, "XDG_STATE_HOME": str(tmp_path)}


def test_other_signals_are_ignored(start_portal: Start, tmp_path: Path) -> None:
    portal = start_portal("--recordings", str(tmp_path))
    portal.wait_for_log("Listening")
    assert ask(portal, "/v1/recordings/start", method="POST").status == 200
    for number in IGNORED:
        portal.process.send_signal(number)
    wait_for_status(portal, state="open")
    assert ask(portal, "/v1/recordings/stop", method="POST").status == 200
    portal.process.send_signal(signal.SIGTERM)
    assert portal.wait() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop_while_loading(tmp_path: Path, number: signal.Signals) -> None:
    """As soon as the script runs, a stop is in order, however long the imports still take."""
    for _ in range(3):
        with subprocess.Popen(
            COMMAND, env=environment(tmp_path), stderr=subprocess.PIPE, text=True, cwd=PROJECT
        ) as process:
            eventually(lambda process=process: blocked(process.pid))  # type: ignore[misc]
            process.send_signal(number)
            _, said = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0, said
        assert f"Stopping: {number.name}" in said
        assert said.endswith("Stopped\n")


class InTerminal:
    """A portal in a separate terminal."""

    def __init__(self, tmp_path: Path, *prefix: str) -> None:
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may run under nohup
            os.chdir(PROJECT)
            command = [*prefix, *COMMAND]
            os.execvpe(command[0], command, environment(tmp_path))
        self.exit_code: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self.exit_code is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)

    def wait(self, timeout_s: float) -> int | None:
        """The exit code; None if the process is still running."""
        deadline_s = time.monotonic() + timeout_s
        while self.exit_code is None and time.monotonic() < deadline_s:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            if ended:
                self.exit_code = os.waitstatus_to_exitcode(status)
            time.sleep(0.02)
        return self.exit_code


def wait_for_output(terminal: int, text: str) -> None:
    received = b""
    while text.encode() not in received:
        received += os.read(terminal, 4096)


@pytest.mark.timeout(3 * PATIENCE_S)
def test_closed_terminal_stops_it_in_order(tmp_path: Path) -> None:
    with InTerminal(tmp_path) as portal:
        wait_for_output(portal.terminal, "Listening")
        os.close(portal.terminal)
        assert portal.wait(PATIENCE_S) == 0


@pytest.mark.timeout(3 * PATIENCE_S)
def test_nohup_survives_its_terminal(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with InTerminal(tmp_path, "sh", "-c", f'trap "" HUP; exec "$@" 2>{log}', "sh") as portal:
        eventually(lambda: log.exists() and "Listening" in log.read_text())
        os.close(portal.terminal)
        assert portal.wait(1.0) is None
        os.kill(portal.pid, signal.SIGTERM)
        assert portal.wait(PATIENCE_S) == 0
    assert "Stopping: SIGTERM" in log.read_text()


def test_log_that_nobody_reads(tmp_path: Path) -> None:
    """Neither requests nor the stop wait for the reader of standard error."""
    read_fd, write_fd = os.pipe()
    with subprocess.Popen(
        [*COMMAND, "--log-level", "debug"], env=environment(tmp_path), stderr=write_fd, cwd=PROJECT
    ) as process:
        os.close(write_fd)
        received = b""
        while b"Listening on " not in received or not received.endswith(b"\n"):
            received += os.read(read_fd, 65536)
        url = received.decode().partition("Listening on ")[2].split()[0]
        for number in range(60):  # 120 KB of log; a pipe has room for 64
            run = subprocess.run(
                ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", f"{url}health?{number}/{'x' * 10}"],
                capture_output=True,
                text=True,
                timeout=PATIENCE_S,
                check=True,
            )
            assert run.stdout == "200"
            if number == 0:
                fill(url)
        process.terminate()
        assert process.wait(PATIENCE_S) == 0
    os.close(read_fd)


def fill(url: str) -> None:
    """Requests whose paths in the log are longer than the pipe."""
    for _ in range(12):
        path = "x" * 8000
        run = subprocess.run(["curl", "-s", "-o", "/dev/null", f"{url}{path}"], timeout=PATIENCE_S, check=True)
        assert run.returncode == 0


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_state_file_that_is_no_file(start_portal: Start, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "controls-pattern.json"
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    portal = start_portal("--state-dir", str(tmp_path))
    portal.wait_for_log("controls-pattern.json: must be a regular file")
    portal.wait_for_log("Listening")
    assert ask(portal, "/v1/camera/status").status == 200
    health = ask(portal, "/health")
    assert (health.status, health.json["problems"]) == (503, ["controls_not_kept"])


def test_faults_file_that_is_a_pipe(start_portal: Start, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "faults")
    portal = start_portal("--pattern-faults", str(tmp_path / "faults"))
    assert ask(portal, "/snapshot.jpg").status == 200
    assert portal.stop() == 0


def test_closed_standard_streams(tmp_path: Path) -> None:
    """What a library prints must not reach a socket or a pipe of the portal."""
    command = shlex.join(COMMAND)
    with subprocess.Popen(["sh", "-c", f"exec {command} <&- >&- 2>&-"], env=environment(tmp_path)) as process:
        eventually(lambda: blocked(process.pid))
        eventually(lambda: not blocked(process.pid))  # it has loaded
        assert {str(Path(f"/proc/{process.pid}/fd/{number}").readlink()) for number in range(3)} == {"/dev/null"}
        process.terminate()
    assert process.returncode == 0
