"""The log of accepted changes: which client changed what. Any thread may call."""

import json
import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final
from urllib.parse import unquote

from softcam.web.http.messages import Request

log = logging.getLogger(__name__)

_INTERVAL_S: Final = 1.0
_MAX_TARGETS: Final = 256
_MAX_BODY: Final = 200  # characters


class ChangeLog:
    """Logs one line per change. Of repeated changes, as by a slider, one per interval, and always the last one.

    The server calls `log_pending` when a connection is quiet for the interval, and when it ends.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()  # guards the fields below, and the order of the lines
        self._logged_s: dict[tuple[str, str], float] = {}  # by client and path, of repeated changes
        self._pending: dict[tuple[str, str], str] = {}  # the last change, if it was not logged yet

    def log_change(self, request: Request, *, is_repeated: bool = False) -> None:
        """Log a request that was accepted. Its body contains no secret: only controls and options are set over HTTP."""
        # Without escapes, in which the log would not recognise a secret that a client nevertheless sent.
        body = " ".join(_unescape(request.body).split())[:_MAX_BODY]
        text = "".join(filter(str.isprintable, f"{request.method} {unquote(request.path)} {body}".strip()))
        with self._lock:
            target = request.client, request.path
            self._pending.pop(target, None)
            if not is_repeated:
                self._log_pending()
            elif self._clock() - self._logged_s.get(target, -_INTERVAL_S) < _INTERVAL_S:
                self._pending[target] = text
                return
            self._log(target, text)

    def log_pending(self) -> None:
        """Log the last ones of repeated changes."""
        with self._lock:
            self._log_pending()

    def _log_pending(self) -> None:
        for target, text in self._pending.items():
            self._log(target, text)
        self._pending.clear()

    def _log(self, target: tuple[str, str], text: str) -> None:
        if len(self._logged_s) >= _MAX_TARGETS:
            self._logged_s.clear()
        self._logged_s[target] = self._clock()
        log.info("Client %s made a change: %s", target[0], text)


def _unescape(body: bytes) -> str:
    if b"\\u" in body:
        with suppress(ValueError):
            return json.dumps(json.loads(body), ensure_ascii=False)
    return body.decode("utf-8", "replace")
