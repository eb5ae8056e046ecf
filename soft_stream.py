#!/usr/bin/env python3
"""Soft Stream: serves a Raspberry Pi camera over HTTP. `--help` lists the settings."""

import os
import signal
import sys

if __name__ == "__main__":
    # In place of standard streams that are closed: a library that writes to one would write to what is opened next.
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
    # Until the portal can stop in order: a stop that comes while it is still loading would end it like a crash.
    signal.pthread_sigmask(
        signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
    )

_EX_CONFIG = 78  # as in softcam.errors, which may be what cannot be imported

try:
    from softcam.app import main
except ModuleNotFoundError as error:
    if error.name not in ("numpy", "simplejpeg"):
        raise
    print(
        f"soft_stream.py: {sys.executable} has no {error.name}: run 'make run', which installs it, "
        "or on a Raspberry Pi: sudo apt install python3-picamera2 python3-simplejpeg",
        file=sys.stderr,
    )
    raise SystemExit(_EX_CONFIG) from None

if __name__ == "__main__":
    raise SystemExit(main())
