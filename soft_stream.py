#!/usr/bin/env python3
"""Soft Stream: shows one Raspberry Pi camera to browsers and programs. `--help` tells the settings."""

from softcam.app import main

if __name__ == "__main__":
    raise SystemExit(main())
