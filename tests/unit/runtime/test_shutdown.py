"""The main thread hears every reason to end, whichever thread it comes from."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

from softcam.errors import CameraStuck
from softcam.runtime.shutdown import ShutdownSignal

PROJECT = Path(__file__).resolve().parents[3]

# Signals are taken by a thread of the C library's making, never by the main one: that is blocked for them.
_PROGRAM = """
import signal, sys, threading
from softcam.runtime.shutdown import ShutdownSignal

ends = ShutdownSignal()
ends.hear([signal.SIGTERM])
begun = threading.Event()
def other():
    begun.set()
    threading.Event().wait()
threading.Thread(target=other, daemon=True).start()
begun.wait()
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
print("waits", flush=True)
print(ends.wait().name, flush=True)
"""


def test_reasons_come_in_their_order() -> None:
    ends = ShutdownSignal()
    first, second = CameraStuck("first"), CameraStuck("second")
    ends.put(first)
    ends.put(second)
    assert [ends.wait(0), ends.wait(0), ends.wait(0)] == [first, second, None]


def test_another_thread_wakes_the_one_that_waits() -> None:
    ends = ShutdownSignal()
    reason = CameraStuck("stuck")
    thread = threading.Thread(target=ends.put, args=(reason,))
    thread.start()
    assert ends.wait(10) is reason
    thread.join()


def test_many_reasons_fill_no_pipe() -> None:
    ends = ShutdownSignal()
    for _ in range(100_000):
        ends.put(CameraStuck("again"))
    assert ends.wait(0) is not None


def test_a_signal_that_another_thread_takes_wakes_the_main_thread() -> None:
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
            answer, _ = process.communicate(timeout=20)
        finally:
            process.kill()
        assert answer == "SIGTERM\n"
