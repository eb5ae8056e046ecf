"""Process health for the systemd watchdog, and the process status in one line.

The components are checked from outside: the camera session by its own error, the JPEG encoders by what they deliver,
the event loop by the duration of its turns, and the HTTP server by a real request. A component that hangs in a lock
also hangs the check, which counts as a failure: see `softcam.runtime.systemd.Watch`, whose thread runs the checks.
"""

import errno
import re
import socket
import time
from collections.abc import Callable
from typing import Final

from softcam.camera.session.manager import CameraManager, SessionStatus, State
from softcam.runtime.address import reachable_host
from softcam.streaming.mjpeg import Activity
from softcam.web.http.errors import BUSY_RESPONSE

# A component that had to work and did nothing for this long hangs. Far above what a loaded Pi Zero needs.
STALL_LIMIT_S: Final = 10.0
# The server had no thread left at every check: some are reserved for short requests, so by then they do not work but
# hang. Above the longest limit of a request, which is that of opening the camera.
_BUSY_LIMIT_S: Final = 60.0
_ANSWER_TIMEOUT_S: Final = 5.0
_MAX_ANSWER_BYTES: Final = 4096  # /health needs a tenth
_NETWORK_DOWN: Final = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL, errno.ENETDOWN})
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.1 [1-5]\d\d [^\r\n]*\r\n")
_FPS_STEP: Final = 0.5  # smaller changes are not worth a message to systemd
_REQUEST: Final = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"

Address = tuple[str, int]


def probe_server(address: Address, timeout_s: float = _ANSWER_TIMEOUT_S) -> bytes:
    """Request /health and return the whole response. Raises OSError, which includes TimeoutError."""
    deadline_s = time.monotonic() + timeout_s
    answer = b""
    with socket.create_connection((reachable_host(address[0]), address[1]), timeout_s) as connection:
        try:
            connection.sendall(_REQUEST)
            while len(answer) < _MAX_ANSWER_BYTES and (left_s := deadline_s - time.monotonic()) > 0:
                connection.settimeout(left_s)
                received = connection.recv(_MAX_ANSWER_BYTES)
                if not received:
                    break
                answer += received
        except ConnectionError:
            # A busy server rejects the connection without reading the request, so the kernel resets it after the
            # response.
            if not answer:
                raise
    return answer


class Health:
    """Judges the signs of life of the components."""

    def __init__(
        self,
        manager: CameraManager | None,
        viewers: Callable[[], int],
        activity: Callable[[], Activity],
        loop_busy_s: Callable[[], float],
        *,
        probe: Callable[[Address], bytes] = probe_server,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`manager` is None if the camera is disabled.

        `activity` returns what MJPEG clients are sent, `loop_busy_s` for how long the event loop has not paused.
        """
        self._manager = manager
        self._viewers = viewers
        self._activity = activity
        self._loop_busy_s = loop_busy_s
        self._probe = probe
        self._clock = clock
        # Of the checking thread only:
        self._busy_since_s: float | None = None
        self._reported_fps = 0.0

    def status_line(self) -> str:
        """The status for `systemctl status`: `closed`, `open, 3 clients, 29.9 fps`, `restarting: no frame for 10 s`."""
        if self._manager is None:
            return "camera disabled"
        status = self._manager.status()
        match status.state:
            case State.OPEN | State.LINGERING:
                count = self._viewers()
                clients = {0: "no clients", 1: "1 client"}.get(count, f"{count} clients")
                return f"open, {clients}, {self._steady_fps(status):.1f} fps"
            case State.RECOVERING:
                return f"restarting: {status.last_error}"
            case State.MISSING:
                return f"missing: {status.last_error}"
            case state:
                return str(state)

    def health_error(self, address: Address) -> str | None:
        """An error that no component recovers from by itself; None if there is none.

        `address` is where the server listens. May take as long as its response.
        """
        now_s = self._clock()
        if self._manager is not None and (error := self._manager.health_error()) is not None:
            return error
        return self.stall_error() or self._server_error(now_s, address)

    def stall_error(self) -> str | None:
        """Why the event loop or the JPEG encoders hang; None if they do not. Any thread may call it."""
        return self._loop_error() or self._encoder_error(self._clock())

    def _steady_fps(self, status: SessionStatus) -> float:
        fps = status.fps or 0.0
        if abs(fps - self._reported_fps) >= _FPS_STEP:
            self._reported_fps = fps
        return self._reported_fps

    def _loop_error(self) -> str | None:
        busy_s = self._loop_busy_s()
        return None if busy_s <= STALL_LIMIT_S else f"the event loop has not finished its turn for {busy_s:.0f} s"

    def _encoder_error(self, now_s: float) -> str | None:
        status = None if self._manager is None else self._manager.status()
        if status is None or status.state is not State.OPEN or not status.fps or status.fps < 1 / STALL_LIMIT_S:
            return None
        activity = self._activity()
        if not any(channel.due_s <= now_s - STALL_LIMIT_S for channel in activity.channels):
            return None  # no clients, or only clients with a low frame rate
        stalled_s = now_s - max(activity.encoded_s, activity.channels_since_s)
        return None if stalled_s <= STALL_LIMIT_S else f"frames arrive, but no JPEG was encoded for {stalled_s:.0f} s"

    def _server_error(self, now_s: float, address: Address) -> str | None:
        """Send a request as a client would; any valid response shows that requests are read and answered.

        A response that rejects the connection only shows that all are in use: an error only if that lasts.
        """
        try:
            answer = self._probe(address)
        except OSError as error:
            # A cable was unplugged, and with it the one address that the server listens on disappeared. That is not the
            # portal's fault: it records and publishes on, and is reachable again when the address is back.
            return None if error.errno in _NETWORK_DOWN else f"the server does not answer: {error}"
        if answer != BUSY_RESPONSE:
            self._busy_since_s = None
            return None if _STATUS_LINE.match(answer) else "the server closes connections without a response"
        if self._busy_since_s is None:
            self._busy_since_s = now_s
        busy_s = now_s - self._busy_since_s
        return None if busy_s <= _BUSY_LIMIT_S else f"the server has had no free thread for {busy_s:.0f} s"
