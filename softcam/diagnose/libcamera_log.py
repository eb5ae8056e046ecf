"""The log of libcamera, which it would print in between the report: it goes to a temporary file instead.

libcamera reads the variable when it is loaded (https://libcamera.org/environment_variables.html), so the file has to
exist before the camera is found. Main thread.
"""

import contextlib
import os
import re
import tempfile
from collections.abc import MutableMapping
from pathlib import Path
from typing import Final

from softcam.runtime.log.files import read_tail
from softcam.runtime.log.lines import printable

_VARIABLE: Final = "LIBCAMERA_LOG_FILE"
_MAX_BYTES: Final = 64 * 1024
_MAX_LINES: Final = 200
_PROBLEM: Final = re.compile(r"\b(?:WARN|ERROR|FATAL)\b")


class LibcameraLog:
    """The temporary file, from construction until `close`; a file that the user has chosen stays in use."""

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        self._path: Path | None = None
        if not environ.get(_VARIABLE):
            with contextlib.suppress(OSError):  # no space left: libcamera prints its log
                handle, name = tempfile.mkstemp(prefix="soft-stream-", suffix=".log")
                os.close(handle)
                self._path = Path(name)
                environ[_VARIABLE] = name

    def lines(self) -> list[str]:
        """The newest lines."""
        text = b"" if self._path is None else read_tail(self._path, _MAX_BYTES)
        return [printable(line) for line in text.decode("utf-8", "replace").splitlines()[-_MAX_LINES:] if line]

    def close(self) -> None:
        if self._path is not None:
            self._path.unlink(missing_ok=True)


def problems_in(lines: list[str]) -> list[str]:
    """The lines with warnings and errors."""
    return [line for line in lines if _PROBLEM.search(line)]
