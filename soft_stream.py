#!/usr/bin/env python3
"""Soft Stream: serves a Raspberry Pi camera over HTTP. `--help` lists the settings."""

import sys

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
