"""Reports a call into the camera that hangs; the thread that hangs cannot."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from softcam.camera.session.frame_rate import FrameRateMeter
from softcam.errors import CameraError, CameraStuck


class HangGuard:
    """Limits the time of calls into the camera, with a timer thread for each."""

    def __init__(self, on_hang: Callable[[CameraError], None], frame_rate: FrameRateMeter) -> None:
        """`on_hang` is called on the timer's thread, with a CameraStuck."""
        self._on_hang = on_hang
        self._frame_rate = frame_rate

    @contextmanager
    def limit(self, call: str, limit_s: float) -> Iterator[None]:
        """Call `on_hang` if the block takes longer than `limit_s`; `call` names it, as in "closing the camera"."""
        limit_s += self._frame_rate.pipeline_s  # it may wait for the frame that is being exposed
        error = CameraStuck(f"{call} takes more than {limit_s:.0f} s: the camera hangs")
        timer = threading.Timer(limit_s, self._on_hang, [error])
        timer.name = "camera-guard"
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
