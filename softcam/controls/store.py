"""The state file of one camera's controls, and the attempt mark. `state_file` has the writes and the quarantine.

A file that keeps the camera from starting is quarantined, too. The attempt mark `….trial` holds the state with which
the camera is being opened. If the process hangs or crashes meanwhile, the mark remains, and the next process
quarantines a file with the same state.
"""

import contextlib
from pathlib import Path
from typing import Final

from softcam.controls.state import RequestedControls
from softcam.controls.state_file import StateFile
from softcam.runtime.atomic_file import read_file, replace_file, sync_directory

_LARGEST: Final = 64 * 1024  # bytes; a file with every control is below a tenth of it
_EMPTY: Final = RequestedControls()
_NOTHING: Final[tuple[RequestedControls, tuple[str, ...]]] = (_EMPTY, ())


class Store(StateFile):
    """One camera's state file; without a `folder` nothing is saved."""

    def __init__(self, folder: Path | None, name: str) -> None:
        super().__init__(folder, name, "controls", _LARGEST)

    def load(self) -> RequestedControls:
        """The saved state; an empty one if the file does not exist, or if the file was quarantined."""
        requested, errors = self._read(RequestedControls.from_json, _NOTHING)
        if self._path is None or not self._is_readable:
            return requested
        if not requested.is_empty and requested == self._attempted(self._path):
            self.quarantine("the process hung or crashed while it opened the camera with these controls")
            return _EMPTY
        self.end_attempt()
        self._report_ignored(errors, is_all=requested.is_empty)
        return requested

    def save(self, requested: RequestedControls) -> None:
        """Write the state and sync it to disk; `error` is the reason if that fails."""
        self._write(_content(requested))

    def quarantine(self, reason: str, replacement: RequestedControls = _EMPTY) -> None:
        """Move the file out of the way and save `replacement` instead; ends the attempt.

        If the file cannot be moved, the mark remains, so that the next process does not use the file either.
        """
        self._quarantine(reason, lambda: _content(replacement))
        if self._pending is None:
            self.end_attempt()

    def start_attempt(self, requested: RequestedControls) -> None:
        """Write the attempt mark: the camera is about to be opened with this state for the first time."""
        if self._path is not None:
            with self._reporting_errors():
                replace_file(_mark_path(self._path), requested.to_json().encode())

    def end_attempt(self) -> None:
        """Remove the attempt mark: the process neither hung nor crashed."""
        if self._path is not None:
            with self._reporting_errors(), contextlib.suppress(FileNotFoundError, NotADirectoryError):
                _mark_path(self._path).unlink()
                sync_directory(self._path.parent)  # a mark that a power cut brings back would count against the state

    @staticmethod
    def _attempted(path: Path) -> RequestedControls | None:
        """The state of the mark that an earlier process left; it may be a change that it had not saved yet."""
        try:
            return RequestedControls.from_json(read_file(_mark_path(path), _LARGEST).decode("utf-8"))[0]
        except (OSError, MemoryError, ValueError, RecursionError):
            return None


def _content(requested: RequestedControls) -> bytes | None:
    """The file's content; None for the empty state, which needs no file."""
    return None if requested.is_empty else requested.to_json().encode()


def _mark_path(path: Path) -> Path:
    return path.with_suffix(".trial")
