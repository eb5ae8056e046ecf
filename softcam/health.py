"""Whether the whole portal is well, asked from outside its parts, and how it is in one line. For systemd's watchdog.

Every part has its say: the holder of the camera, the encoders by what they deliver, the fan-out by its ticks, and the
server by an answer to a request like everyone's. A part that hangs in a lock hangs the question too, and that counts as
well: see `softcam.systemd.Watch`. The questions come on that thread, what parts tell comes on theirs.
"""

import contextlib
import socket
import time
from collections.abc import Callable, Iterable
from typing import Final

from softcam.camera.holder import CameraHolder, HolderStatus, State
from softcam.pictures import Channel

# A part that did nothing for so long, though it had to, hangs. Far above what a loaded Pi Zero needs.
_STILL_LIMIT_S: Final = 10.0
_ANSWER_LIMIT_S: Final = 5.0
_FPS_STEP: Final = 0.5  # smaller changes are not worth a message to systemd

_REQUEST: Final = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


class Health:
    """Gathers what the parts tell, and judges."""

    def __init__(self, holder: CameraHolder | None, viewers: Callable[[], int]) -> None:
        """`holder` is None where the camera is switched off; `viewers` counts those of the fan-out."""
        self._holder = holder
        self._viewers = viewers
        # Each written by one thread and read by the watch: single values, replaced whole.
        self._channels: tuple[Channel, ...] = ()
        self._channels_since_s = 0.0
        self._ticked_s = 0.0
        self._delivered_s = 0.0
        # Of the watch alone.
        self._watched_since_s: float | None = None
        self._fps_said = 0.0

    # --- what the parts tell ----------------------------------------------------------------------------------

    def channels_changed(self, channels: Iterable[Channel]) -> None:
        """The fan-out has other channels now."""
        self._channels = tuple(channels)
        self._channels_since_s = time.monotonic()

    def ticked(self) -> None:
        """The fan-out goes round; it says so about once a second while somebody watches."""
        self._ticked_s = time.monotonic()

    def delivered(self) -> None:
        """An encoder has finished a picture."""
        self._delivered_s = time.monotonic()

    # --- what systemd is told ---------------------------------------------------------------------------------

    def status_line(self) -> str:
        """How it is, for people: `closed`, `open, 3 viewers, 29.9 fps`, `restarting: no frame for 10 s`."""
        if self._holder is None:
            return "the camera is switched off"
        status = self._holder.status()
        match status.state:
            case State.OPEN | State.LINGERING:
                viewers = self._viewers()
                watching = {0: "nobody watches", 1: "1 viewer"}.get(viewers, f"{viewers} viewers")
                return f"open, {watching}, {self._steady_fps(status):.1f} fps"
            case State.RECOVERING:
                return f"restarting: {status.last_error}"
            case State.MISSING:
                return f"missing: {status.last_error}"
            case state:
                return str(state)

    def trouble(self, address: tuple[str, int]) -> str | None:
        """What is wrong, where no part will put it right by itself; None where all is well.

        `address` is where the portal listens. May take as long as the answer to a request may.
        """
        now_s = time.monotonic()
        if self._holder is not None and (trouble := self._holder.trouble()) is not None:
            return trouble
        return self._fan_out_trouble(now_s) or self._encoder_trouble(now_s) or _server_trouble(address)

    def _steady_fps(self, status: HolderStatus) -> float:
        fps = status.fps or 0.0
        if abs(fps - self._fps_said) >= _FPS_STEP:
            self._fps_said = fps
        return self._fps_said

    def _fan_out_trouble(self, now_s: float) -> str | None:
        if not self._viewers():
            self._watched_since_s = None
            return None
        if self._watched_since_s is None:
            self._watched_since_s = now_s
        still_s = now_s - max(self._watched_since_s, self._ticked_s)
        return None if still_s <= _STILL_LIMIT_S else f"the fan-out has not gone round for {still_s:.0f} s"

    def _encoder_trouble(self, now_s: float) -> str | None:
        status = None if self._holder is None else self._holder.status()
        if status is None or status.state is not State.OPEN or not status.fps or status.fps < 1 / _STILL_LIMIT_S:
            return None
        if not any(channel.due_s <= now_s - _STILL_LIMIT_S for channel in self._channels):
            return None  # nobody watches, or all who do want a picture now and then
        still_s = now_s - max(self._delivered_s, self._channels_since_s)
        return None if still_s <= _STILL_LIMIT_S else f"frames come, and none was encoded for {still_s:.0f} s"


def _server_trouble(address: tuple[str, int]) -> str | None:
    """Ask as anyone would; any answer shows that connections are taken and requests are read and answered."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address[0], address[0])
    try:
        with contextlib.closing(socket.create_connection((host, address[1]), _ANSWER_LIMIT_S)) as connection:
            connection.sendall(_REQUEST)
            if not connection.recv(1):
                return "the server closes connections without an answer"
    except OSError as error:
        return f"the server does not answer: {error}"
    return None
