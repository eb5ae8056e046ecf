"""Whether the whole portal is well, asked from outside its parts, and how it is in one line. For systemd's watchdog.

Every part has its say: the holder of the camera, the encoders by what they deliver, the fan-out by its ticks, and the
server by an answer to a request like everyone's. A part that hangs in a lock hangs the question too, and that counts as
well: see `softcam.runtime.systemd.Watch`. The questions come on that thread, what parts tell comes on theirs.
"""

import contextlib
import errno
import re
import socket
import time
from collections.abc import Callable, Iterable
from typing import Final

from softcam.camera.session.manager import CameraManager, SessionStatus, State
from softcam.streaming.jpeg_encoder import Channel
from softcam.web.http.errors import BUSY_RESPONSE

# A part that did nothing for so long, though it had to, hangs. Far above what a loaded Pi Zero needs.
_STILL_LIMIT_S: Final = 10.0
_ANSWER_LIMIT_S: Final = 5.0
# A server that is full to its last thread, at every question: some are kept for requests that take a moment, so by then
# they do not work but hang. Above the longest limit of a request, that of a camera's opening.
_FULL_LIMIT_S: Final = 60.0
_LONGEST_ANSWER: Final = 4096  # bytes; /health needs a tenth
_NETWORK_AWAY: Final = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL, errno.ENETDOWN})
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.1 [1-5]\d\d [^\r\n]*\r\n")
_FPS_STEP: Final = 0.5  # smaller changes are not worth a message to systemd

_REQUEST: Final = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


class Health:
    """Gathers what the parts tell, and judges."""

    def __init__(self, manager: CameraManager | None, viewers: Callable[[], int]) -> None:
        """`manager` is None where the camera is switched off; `viewers` counts those of the fan-out."""
        self._manager = manager
        self._viewers = viewers
        # Each written by one thread and read by the watch: single values, replaced whole.
        self._channels: tuple[Channel, ...] = ()
        self._channels_since_s = 0.0
        self._ticked_s = 0.0
        self._delivered_s = 0.0
        # Of the watch alone.
        self._watched_since_s: float | None = None
        self._full_since_s: float | None = None
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
        if self._manager is None:
            return "the camera is switched off"
        status = self._manager.status()
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
        if self._manager is not None and (trouble := self._manager.health_error()) is not None:
            return trouble
        return self._fan_out_trouble(now_s) or self._encoder_trouble(now_s) or self._server_trouble(now_s, address)

    def _steady_fps(self, status: SessionStatus) -> float:
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
        status = None if self._manager is None else self._manager.status()
        if status is None or status.state is not State.OPEN or not status.fps or status.fps < 1 / _STILL_LIMIT_S:
            return None
        if not any(channel.due_s <= now_s - _STILL_LIMIT_S for channel in self._channels):
            return None  # nobody watches, or all who do want a picture now and then
        still_s = now_s - max(self._delivered_s, self._channels_since_s)
        return None if still_s <= _STILL_LIMIT_S else f"frames come, and none was encoded for {still_s:.0f} s"

    def _server_trouble(self, now_s: float, address: tuple[str, int]) -> str | None:
        """Ask as anyone would; an answer, whatever it is, shows that requests are read and answered.

        That there is no room for a request shows only that connections are taken: no trouble while it may pass.
        """
        try:
            answer = _ask(address)
        except OSError as error:
            # A cable was pulled, and with it the one address that the portal listens on went: no fault of the portal's,
            # which records and publishes on, and is heard again when the address is back.
            return None if error.errno in _NETWORK_AWAY else f"the server does not answer: {error}"
        if answer != BUSY_RESPONSE:
            self._full_since_s = None
            return None if _STATUS_LINE.match(answer) else "the server closes connections without an answer"
        if self._full_since_s is None:
            self._full_since_s = now_s
        full_s = now_s - self._full_since_s
        return None if full_s <= _FULL_LIMIT_S else f"the server has had no thread for a request for {full_s:.0f} s"


def _ask(address: tuple[str, int]) -> bytes:
    """All that the server answers, to its end. Raises OSError, TimeoutError among them."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address[0], address[0])
    deadline_s = time.monotonic() + _ANSWER_LIMIT_S
    answer = b""
    with contextlib.closing(socket.create_connection((host, address[1]), _ANSWER_LIMIT_S)) as connection:
        try:
            connection.sendall(_REQUEST)
            while len(answer) < _LONGEST_ANSWER and (left_s := deadline_s - time.monotonic()) > 0:
                connection.settimeout(left_s)
                received = connection.recv(_LONGEST_ANSWER)
                if not received:
                    break
                answer += received
        except ConnectionError:
            # Sent away unread, as a full server does, and the kernel resets the connection behind the answer.
            if not answer:
                raise
    return answer
