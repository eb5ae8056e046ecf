"""measure_fps.py as a process: signals, the live line on a terminal, and the rate of a paced stream."""

import contextlib
import json
import os
import pty
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import measure_fps as probe
from tests.support.mjpeg_server import SMALL, Stub, head, part
from tests.support.timeouts import PATIENCE_S

SCRIPT = Path(probe.__file__)


@pytest.mark.measurement
def test_rate_of_steady_stream() -> None:
    sent_s: list[float] = []

    def answer(connection: socket.socket, request: bytes) -> None:
        connection.sendall(head())
        pace = threading.Event()
        for _ in range(20):
            connection.sendall(part(SMALL))
            sent_s.append(time.monotonic())
            pace.wait(0.02)

    with contextlib.closing(Stub(answer)) as stub:
        done = subprocess.run(
            [sys.executable, SCRIPT, stub.url, "--frames", "20", "--json"],
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=True,
        )
    figures = json.loads(done.stdout)
    assert figures["ended"] == "frames"
    rate = 19 / (sent_s[-1] - sent_s[0])
    assert figures["fps"] == pytest.approx(rate, rel=0.3)
    assert figures["gap_median_s"] <= figures["gap_p95_s"] <= figures["gap_longest_s"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("count", [0, 5])
def test_interruption_prints_figures(number: signal.Signals, count: int) -> None:
    begun = threading.Event()

    def answer(connection: socket.socket, request: bytes) -> None:
        connection.sendall(head() + part(SMALL) * count)
        begun.set()
        with contextlib.suppress(ConnectionError):
            connection.recv(1)

    # A terminal as stderr gets the live line, which shows when the frames are counted.
    controller, terminal = pty.openpty()
    with (
        contextlib.closing(Stub(answer)) as stub,
        subprocess.Popen(
            [sys.executable, SCRIPT, stub.url, "--json"], stdout=subprocess.PIPE, stderr=terminal, text=True
        ) as process,
    ):
        os.close(terminal)
        shown = read_until(controller, b"5 frames" if count else b"waiting for frames")
        assert begun.wait(PATIENCE_S)
        process.send_signal(number)
        out, _ = process.communicate(timeout=PATIENCE_S)
    shown += read_until(controller, None)
    os.close(controller)
    if count:
        figures = json.loads(out)
        assert (process.returncode, figures["ended"], figures["frames"]) == (0, "interrupted", 5)
        assert b"fps" in shown
    else:
        assert (process.returncode, out) == (3, "")
        assert b"no JPEG before the interruption" in shown


def read_until(descriptor: int, wanted: bytes | None) -> bytes:
    """Read the terminal's output up to `wanted`, or to its end."""
    shown = b""
    deadline_s = time.monotonic() + PATIENCE_S
    while wanted is None or wanted not in shown:
        ready, _, _ = select.select([descriptor], [], [], max(0, deadline_s - time.monotonic()))
        assert ready, f"{wanted!r} not in {shown!r}"
        try:
            shown += os.read(descriptor, 4096)
        except OSError:  # EIO: the last process has closed the terminal
            assert wanted is None, shown
            break
    return shown
