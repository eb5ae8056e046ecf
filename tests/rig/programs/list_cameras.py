"""Prints Picamera2's list of cameras as JSON; with `stay`, again at each SIGUSR1 until SIGTERM."""

import json
import signal
import sys

# Blocked before the import, as threads that numpy starts would receive the signals, which would end the process.
signals = {signal.SIGUSR1, signal.SIGTERM}
signal.pthread_sigmask(signal.SIG_BLOCK, signals)

from picamera2 import Picamera2  # noqa: E402

print(json.dumps(Picamera2.global_camera_info()), flush=True)
while "stay" in sys.argv and signal.sigwait(signals) == signal.SIGUSR1:
    print(json.dumps(Picamera2.global_camera_info()), flush=True)
