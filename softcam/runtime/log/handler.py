"""The logging handler that passes all lines of the log on as printable text without secrets. Any thread.

It never blocks and never raises: a caller may hold any lock, and cannot do anything about a log that fails.
"""

import logging
from collections.abc import Callable

from softcam.runtime.log.lines import MAX_NAME, messages_of, printable
from softcam.runtime.redact import Redactor

# Of a record: time (Unix), level, logger, thread, and messages.
OnLines = Callable[[float, int, str, str, list[str]], object]


class LogHandler(logging.Handler):
    """Calls `on_lines` for each record, one record after the other."""

    def __init__(self, on_lines: OnLines) -> None:
        super().__init__()
        self._on_lines = on_lines
        # The lock of the base class guards these. It is reentrant: a destructor that logs may run within `emit`.
        self._is_emitting = False
        self._nested: list[logging.LogRecord] = []
        self._redact = Redactor()

    def hide(self, redact: Redactor) -> None:
        """Remove these secrets from all lines from now on."""
        self._redact = redact

    def emit(self, record: logging.LogRecord) -> None:
        self._nested.append(record)
        if self._is_emitting:
            return
        self._is_emitting = True
        try:
            while self._nested:
                self._pass_on(self._nested.pop(0))
        finally:
            self._is_emitting = False

    def _pass_on(self, record: logging.LogRecord) -> None:
        try:
            redact = self._redact
            messages = [printable(redact(message)) for message in messages_of(record)]
            logger, thread = (printable(name or "", MAX_NAME) for name in (record.name, record.threadName))
            self._on_lines(record.created, max(1, record.levelno), logger, thread, messages)
        except Exception:  # noqa: BLE001, S110 - the log would be the place to report it
            pass
