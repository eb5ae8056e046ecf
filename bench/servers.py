"""Starts and stops the compared servers, each as a separate process on its own loopback port.

Called from run.py's only thread. Each server is a context manager, so that it is stopped after its measurement.
"""

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

BENCH = Path(__file__).resolve().parent
PROJECT = BENCH.parent
START_S = 30.0  # a cold import of the portal on a small machine
STOP_S = 10.0

# A server ends with the run, also if that is killed.
WITH_PARENT = ("setpriv", "--pdeathsig", "KILL") if shutil.which("setpriv") else ()

LISTENING = re.compile(r"Listening on http://[^/\s]+:(\d+)")
NAMES = ("portal", "passthrough", "limit", "ustreamer", "threads")
TITLES = {
    "portal": "Soft Stream",
    "passthrough": "Soft Stream, given JPEGs",
    "limit": "C, one epoll: the limit",
    "ustreamer": "ustreamer",
    "threads": "Python, thread per viewer",
}


@dataclass(frozen=True, slots=True)
class Stage:
    """A frame size and the numbers of clients to measure with it."""

    name: str
    width: int
    height: int
    viewers: tuple[int, ...]
    fps: int = 30
    quality: int = 80


@dataclass(frozen=True, slots=True)
class Running:
    name: str
    pid: int
    port: int
    path: str = "/stream"


class ServerFailed(Exception):
    """A server did not start or ended; the message has the end of its log."""


@contextlib.contextmanager
def start(name: str, stage: Stage, reel: Path, build: Path, *, is_busy: bool = False) -> Iterator[Running]:
    """Run the server `name` on `reel` (`portal`: the pattern camera) during the block. Raises ServerFailed.

    `is_busy` runs a busy Python thread in `passthrough`.
    """
    if name in ("portal", "passthrough"):
        program = (
            [str(BENCH / "passthrough.py"), str(reel)] if name == "passthrough" else [str(PROJECT / "soft_stream.py")]
        )
        with tempfile.TemporaryDirectory() as state:
            environment = {"XDG_STATE_HOME": state, "BENCH_BUSY": "1" if is_busy else ""}
            with run_server(name, _portal_command(program, stage), build, environment=environment) as running:
                yield running
    elif name == "limit":
        with run_server(name, [str(build / "limit"), str(reel), str(stage.fps)], build) as running:
            yield running
    elif name == "threads":
        command = [sys.executable, str(BENCH / "thread_per_viewer.py"), str(reel), str(stage.fps)]
        with run_server(name, command, build) as running:
            yield running
    elif name == "ustreamer":
        port = _free_port()
        environment = {
            "LD_PRELOAD": str(build / "standin.so"),
            "BENCH_REEL": str(reel),
            "BENCH_WIDTH": str(stage.width),
            "BENCH_HEIGHT": str(stage.height),
            "BENCH_FPS": str(stage.fps),
        }
        with run_server(
            name, _ustreamer_command(stage, reel, port), build, environment=environment, port=port
        ) as running:
            yield running
    else:
        raise ServerFailed(f"unknown server: {name}")


def _portal_command(program: Sequence[str], stage: Stage) -> list[str]:
    picture = ["--width", str(stage.width), "--height", str(stage.height), "--fps", str(stage.fps)]
    return [
        *(sys.executable, "-u", *program, "--camera", "pattern", "--port", "0"),
        *(*picture, "--quality", str(stage.quality), "--max-clients", "1000"),
        "--no-autofocus",
    ]


def _ustreamer_command(stage: Stage, reel: Path, port: int) -> list[str]:
    picture = ["--resolution", f"{stage.width}x{stage.height}", "--desired-fps", str(stage.fps)]
    return [
        *("ustreamer", "--device", str(reel), "--format", "MJPEG", "--encoder", "HW", *picture),
        *("--host", "127.0.0.1", "--port", str(port), "--tcp-nodelay"),
    ]


def find_missing(name: str) -> str | None:
    """Return in one line what is missing to start a server, or None."""
    if name == "ustreamer" and shutil.which("ustreamer") is None:
        return "ustreamer is not installed (apt install ustreamer)"
    if name in ("portal", "passthrough") and not (PROJECT / "soft_stream.py").exists():
        return "soft_stream.py not found"
    return None


@contextlib.contextmanager
def run_server(
    name: str, command: list[str], build: Path, *, environment: Mapping[str, str] | None = None, port: int | None = None
) -> Iterator[Running]:
    """Run a server during the block, with its log in the folder `build`; `port` is that of one that does not print it.

    Raises ServerFailed.
    """
    clean = {
        key: value
        for key, value in os.environ.items()
        if not re.match(r"CAMERA_|cam\d+_|NOTIFY_SOCKET|STATE_DIRECTORY", key)
    }
    log = build / f"{name}.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [*WITH_PARENT, *command],
            env=clean | dict(environment or {}),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        port = _wait_for_port(process, log, port)
        yield Running(name, process.pid, port)
    finally:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for_port(process: subprocess.Popen[bytes], log: Path, port: int | None) -> int:
    """Return the port that the server prints, or the given one once it accepts connections."""
    deadline_s = time.monotonic() + START_S
    while time.monotonic() < deadline_s:
        if process.poll() is not None:
            break
        printed = LISTENING.search(log.read_text(errors="replace"))
        if printed is not None:
            return int(printed[1])
        if port is not None:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                return port
        time.sleep(0.02)
    end = log.read_text(errors="replace")[-1500:]
    raise ServerFailed(f"{process.args!r} does not listen (exit {process.poll()}):\n{end}")


def _free_port() -> int:
    """Return a free port for a program that cannot choose one; the start fails if another process binds it first."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
