"""Prints Picamera2's list of cameras as JSON, and again at each SIGUSR1, until SIGTERM or, without `stay`, at once."""

import json
import signal
import sys

# Before the import: the threads that numpy starts in it would take the signals, and end the process by them.
signals = {signal.SIGUSR1, signal.SIGTERM}
signal.pthread_sigmask(signal.SIG_BLOCK, signals)

from picamera2 import Picamera2  # noqa: E402

print(json.dumps(Picamera2.global_camera_info()), flush=True)
while "stay" in sys.argv and signal.sigwait(signals) == signal.SIGUSR1:
    print(json.dumps(Picamera2.global_camera_info()), flush=True)
