"""Shutdown reasons reach the main thread, from other threads and from signals."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

from softcam.errors import CameraStuck
from softcam.runtime.shutdown import ShutdownSignal
from tests.support.timeouts import PATIENCE_S

PROJECT = Path(__file__).resolve().parents[3]

# The main thread blocks the signal, so another thread handles it.
_PROGRAM = """
import signal, sys, threading
from softcam.runtime.shutdown import ShutdownSignal
from tests.support.timeouts import PATIENCE_S

shutdown = ShutdownSignal()
shutdown.install_handlers([signal.SIGTERM])
started = threading.Event()
def other():
    started.set()
    threading.Event().wait()
threading.Thread(target=other, daemon=True).start()
started.wait()
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
print("waits", flush=True)
print(shutdown.wait().name, flush=True)
"""


def test_reasons_are_returned_in_order() -> None:
    shutdown = ShutdownSignal()
    first, second = CameraStuck("first"), CameraStuck("second")
    shutdown.request(first)
    shutdown.request(second)
    assert [shutdown.wait(0), shutdown.wait(0), shutdown.wait(0)] == [first, second, None]


def test_request_wakes_waiting_thread() -> None:
    shutdown = ShutdownSignal()
    reason = CameraStuck("stuck")
    thread = threading.Thread(target=shutdown.request, args=(reason,))
    thread.start()
    assert shutdown.wait(PATIENCE_S) is reason
    thread.join()


def test_full_pipe_does_not_block() -> None:
    shutdown = ShutdownSignal()
    for _ in range(100_000):
        shutdown.request(CameraStuck("again"))
    assert shutdown.wait(0) is not None


def test_signal_handled_by_another_thread_wakes_main_thread() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _PROGRAM],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waits\n"
        process.send_signal(signal.SIGTERM)
        try:
            answer, _ = process.communicate(timeout=PATIENCE_S)
        finally:
            process.kill()
        assert answer == "SIGTERM\n"
