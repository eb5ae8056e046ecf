"""The log of accepted changes: which client changed what. Any thread may call."""

import logging
from typing import Final

from softcam.runtime.log_limit import RateLimitedLogger
from softcam.web.http.messages import Request

log = logging.getLogger(__name__)

_MAX_LOGGERS: Final = 256
_MAX_BODY: Final = 200  # characters


class ChangeLog:
    """Logs one line per change. Rate-limited for each client and path: a client may drag a slider."""

    def __init__(self) -> None:
        self._loggers: dict[tuple[str, str], RateLimitedLogger] = {}  # single operations only, which are atomic

    def log_change(self, request: Request) -> None:
        """Log a request that was accepted. Its body contains no secret: only controls and options are set over HTTP."""
        target = f"{request.method} {request.path}"
        if len(self._loggers) >= _MAX_LOGGERS:
            self._loggers.clear()
        logger = self._loggers.setdefault((request.client, target), RateLimitedLogger(log))
        body = " ".join(request.body.decode("utf-8", "replace").split())[:_MAX_BODY]
        text = "".join(filter(str.isprintable, f"{target} {body}".strip()))
        logger.log(logging.INFO, "Client %s: %s", request.client, text)
