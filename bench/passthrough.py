"""Runs the portal with a camera that delivers JPEGs, as USB cameras do: it plays a reel.

    passthrough.py REEL FLAG…

With BENCH_BUSY=1 a second thread of the interpreter computes in pure Python most of the time.

This portal does the same work as the other servers, with the same bytes and stamps, and without an encoder that would
hide the cost and latency of its fan-out. Everything but the camera is the real portal, started by its `main` with the
given flags; the reel replaces the pattern camera.
"""

import itertools
import os
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from reel import read_reel

PROJECT = Path(__file__).resolve().parent.parent
STAMP_AT = slice(14, 22)  # the position of the time in a JPEG, see reel.h
BUSY_VARIABLE = "BENCH_BUSY"
BUSY_S, PAUSE_S = 0.028, 0.005  # of the 33 ms between two frames at 30 fps


class ReelCamera:
    """Delivers the JPEGs of the reel from a dedicated thread while it is open."""

    backend = "pattern"
    name = model = "a reel"
    reel = Path()

    def __init__(self, request: Any, **_: object) -> None:
        self._request = request
        self._pictures = read_reel(self.reel)
        self._has_ended = threading.Event()
        self._thread: threading.Thread | None = None

    def prepare(self, request: Any) -> None:
        self._request = request

    def is_present(self) -> bool:
        return True

    def open(self, on_frame: Any, *_: Any) -> Any:
        from softcam.camera.base import StreamConfig

        size = self._request.width, self._request.height
        self._has_ended.clear()
        self._thread = threading.Thread(target=self._play, args=(on_frame, size), name="reel", daemon=True)
        self._thread.start()
        return StreamConfig(*size, "MJPEG", size)

    def _play(self, on_frame: Any, size: tuple[int, int]) -> None:
        from softcam.imaging.frame import Frame

        due_s = time.monotonic()
        for number, picture in enumerate(itertools.cycle(self._pictures)):
            due_s += 1 / self._request.fps
            if self._has_ended.wait(max(0.0, due_s - time.monotonic())):
                return
            stamped = bytearray(picture)
            stamped[STAMP_AT] = time.monotonic_ns().to_bytes(8, "little")
            on_frame(Frame((np.frombuffer(stamped, np.uint8),), "MJPEG", *size, sequence=number))

    def restart(self) -> None:
        return

    def set_controls(self, controls: Mapping[str, Any]) -> None:  # noqa: ARG002  (named by the protocol)
        return

    def close(self) -> None:
        self._has_ended.set()
        if self._thread is not None:
            self._thread.join()


def _compute() -> None:
    """Compute in pure Python most of the time, like an expensive frame hook."""
    while True:
        until_s = time.monotonic() + BUSY_S
        total = 0
        while time.monotonic() < until_s:
            for number in range(1000):
                total += number * number
        time.sleep(PAUSE_S)


def main() -> int:
    if os.environ.get(BUSY_VARIABLE):
        threading.Thread(target=_compute, name="busy", daemon=True).start()
    ReelCamera.reel = Path(sys.argv[1])
    sys.path.insert(0, str(PROJECT))
    from softcam.camera.pattern import camera

    camera.PatternCamera = ReelCamera  # type: ignore[assignment,misc]
    # Imported after the replacement, so that every import of the camera gets the reel.
    from softcam import app

    return app.main(sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
