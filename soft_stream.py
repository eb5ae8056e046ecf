#!/usr/bin/env python3
"""Soft Stream: shows one Raspberry Pi camera to browsers and programs. `--help` tells the settings."""

import sys

_EX_CONFIG = 78  # as softcam.errors has it, which may be what cannot be imported

try:
    from softcam.app import main
except ModuleNotFoundError as error:
    if error.name not in ("numpy", "simplejpeg"):
        raise
    print(
        f"soft_stream.py: {sys.executable} has no {error.name}: 'make run' sets it up, "
        "or on a Raspberry Pi: sudo apt install python3-picamera2 python3-simplejpeg",
        file=sys.stderr,
    )
    raise SystemExit(_EX_CONFIG) from None

if __name__ == "__main__":
    raise SystemExit(main())
