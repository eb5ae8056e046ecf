"""A logger for errors that may repeat with every frame: logs at most one line per interval. Any thread may use it."""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

INTERVAL_S: Final = 10.0


class RateLimitedLogger:
    """Passes messages on to `logger` at most once per `interval_s`; each line states how many were suppressed before.

    The first message after construction or `reset()` is logged at once, with its traceback where one is passed; later
    lines have none. All methods may be called by any thread.
    """

    def __init__(
        self,
        logger: logging.Logger,
        interval_s: float = INTERVAL_S,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`interval_s` may be `math.inf`: then one line until `reset()`."""
        self._logger = logger
        self._interval_s = interval_s
        self._clock = clock
        self._lock = threading.Lock()  # guards the fields below
        self._logged_at_s: float | None = None
        self._suppressed = 0

    def error(self, message: str, *args: object, exc_info: BaseException | None = None) -> bool:
        return self.log(logging.ERROR, message, *args, exc_info=exc_info)

    def warning(self, message: str, *args: object, **options: Any) -> bool:
        return self.log(logging.WARNING, message, *args, **options)

    def log(
        self,
        level: int,
        message: str,
        *args: object,
        exc_info: BaseException | None = None,
        extra: Mapping[str, object] | None = None,
    ) -> bool:
        """Log the message unless one was logged within the interval; returns whether it was logged."""
        now_s = self._clock()
        with self._lock:
            is_first = self._logged_at_s is None
            if self._logged_at_s is not None and now_s - self._logged_at_s < self._interval_s:
                self._suppressed += 1
                return False
            self._logged_at_s = now_s
            suppressed, self._suppressed = self._suppressed, 0
        if suppressed:
            message += " (%d more suppressed)"
            args = (*args, suppressed)
        self._logger.log(level, message, *args, exc_info=exc_info if is_first else None, extra=extra)
        return True

    def reset(self) -> None:
        """Log the next message at once: the condition that the previous ones reported is over."""
        with self._lock:
            self._logged_at_s = None
            self._suppressed = 0
