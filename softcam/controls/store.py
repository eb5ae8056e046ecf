"""The state file of one camera: atomic writes, quarantine, backup of unreadable files, and the attempt mark.

One thread at a time calls a `Store`: the main thread while it loads, then the writer's. Reading the attributes and
properties is safe from any thread.

- A write replaces the file atomically and is synced, so a crash leaves the old content or the new.
- A file that is damaged, or that keeps the camera from starting, is quarantined: moved to `….json.bad`.
- Parts that this version does not know or accept are ignored, and the whole file is copied to `….json.bad`, so that a
  downgrade loses only what the newer version added.
- The attempt mark `….trial` holds the state with which the camera is being opened. If the process hangs or crashes
  meanwhile, the mark remains, and the next process quarantines a file with the same state.
"""

import contextlib
import logging
import os
import tempfile
from pathlib import Path
from typing import Final

from softcam.controls.state import RequestedControls

log = logging.getLogger(__name__)

_LARGEST: Final = 64 * 1024  # bytes; a file with every control is below a tenth of it


class Store:
    """One camera's state file; without a `folder` nothing is saved."""

    def __init__(self, folder: Path | None, name: str) -> None:
        self._path = None if folder is None else folder / f"{name}.json"
        self.error: str | None = None  # why the state is not saved
        self._reason: str | None = None  # why a state was quarantined
        self._has_quarantine = False  # there is a quarantined file; once it is deleted, the reason no longer applies
        self._read_error: str | None = None  # why the file could not be read; it is not overwritten then

    @property
    def quarantine_reason(self) -> str | None:
        """Why the saved state, or a part of it, is not used; None once the quarantined file was deleted."""
        if self._has_quarantine and self._path is not None and not _quarantine_path(self._path).exists():
            return None
        return self._reason

    def load(self) -> RequestedControls:
        """The saved state; an empty one if the file does not exist, or if the file was quarantined."""
        if self._path is None:
            self.error = "no state directory (--state-dir)"
            log.warning("Controls will not be saved: %s", self.error)
            return RequestedControls()
        self._remove_temporary_files(self._path)
        quarantine = _quarantine_path(self._path)
        if quarantine.exists():
            self._reason = f"{quarantine.name} was quarantined in an earlier run; delete or restore it"
            self._has_quarantine = True
        try:
            if self._path.stat().st_size > _LARGEST:
                raise ValueError("is too large")
            text = self._path.read_text(encoding="utf-8")
            requested, errors = RequestedControls.from_json(text)
        except FileNotFoundError:
            self.end_attempt()
            return RequestedControls()
        except (ValueError, RecursionError) as error:  # JSON and UTF-8 errors are ValueErrors
            self.quarantine(f"{self._path.name} {error}")
            return RequestedControls()
        except OSError as error:
            self._read_error = f"{self._path.name} could not be read ({error.strerror or error})"
            self._report_error(error)
            return RequestedControls()
        if self._was_interrupted(self._path, requested):
            self.quarantine("the process hung or crashed while it opened the camera with these controls")
            return RequestedControls()
        self.end_attempt()
        if errors and requested.is_empty:
            self.quarantine(f"{self._path.name} {'; '.join(errors)}")
        elif errors:
            self._drop_invalid(self._path, text, "; ".join(errors))
        return requested

    def save(self, requested: RequestedControls) -> bool:
        """Write the state and sync it to disk; returns False if that fails, with the reason in `error`."""
        if self._path is None:
            return False
        try:
            self._backup_unreadable(self._path)
            if not requested.is_empty:
                self._write(self._path, requested.to_json())
            elif self._path.exists():
                self._path.unlink()
                _sync_directory(self._path.parent)
        except OSError as error:
            self._report_error(error)
            return False
        self.error = None
        return True

    def quarantine(self, reason: str, replacement: RequestedControls | None = None) -> None:
        """Move the file out of the way and save `replacement` instead; ends the attempt."""
        self._reason, self._has_quarantine = reason, False
        if self._path is None:
            log.error("Controls dropped: %s", reason)
            return
        quarantine = _quarantine_path(self._path)
        try:
            if replacement is None or replacement.is_empty:
                self._path.replace(quarantine)
            else:
                # A copy, so that there is a file at every moment.
                self._write(quarantine, self._path.read_text(encoding="utf-8"))
                self._write(self._path, replacement.to_json())
            self._has_quarantine = True
            log.error("Saved controls moved to %s: %s", quarantine, reason)
        except FileNotFoundError:
            log.error("Controls dropped: %s", reason)
        except OSError as error:
            self._report_error(error)
        self.end_attempt()

    def start_attempt(self, requested: RequestedControls) -> None:
        """Write the attempt mark: the camera is about to be opened with this state for the first time."""
        if self._path is None:
            return
        try:
            self._write(_mark_path(self._path), requested.to_json())
        except OSError as error:
            self._report_error(error)

    def end_attempt(self) -> None:
        """Remove the attempt mark: the process neither hung nor crashed."""
        if self._path is None:
            return
        try:
            _mark_path(self._path).unlink()
            _sync_directory(self._path.parent)  # a mark that a power cut brings back would count against the state
        except FileNotFoundError:
            pass
        except OSError as error:
            self._report_error(error)

    @staticmethod
    def _was_interrupted(path: Path, requested: RequestedControls) -> bool:
        """Whether an earlier process left a mark of this state, and not of a change that it had not saved yet."""
        try:
            return RequestedControls.from_json(_mark_path(path).read_text(encoding="utf-8"))[0] == requested
        except (OSError, ValueError, RecursionError):
            return False

    def _backup_unreadable(self, path: Path) -> None:
        """Keep a file that could not be read, which may be good, from being overwritten. Raises OSError."""
        if self._read_error is None:
            return
        with contextlib.suppress(FileNotFoundError):
            path.replace(_quarantine_path(path))
            self._reason, self._has_quarantine = self._read_error, True
            log.error("Saved controls moved to %s: %s", _quarantine_path(path), self._read_error)
        self._read_error = None

    def _drop_invalid(self, path: Path, text: str, reason: str) -> None:
        """Keep a copy of a file of which parts are ignored, as the next change rewrites the file."""
        quarantine = _quarantine_path(path)
        self._reason, self._has_quarantine = f"in part: {reason}", False
        log.warning("Some saved controls are invalid and were ignored (original saved as %s): %s", quarantine, reason)
        try:
            self._write(quarantine, text)
            self._has_quarantine = True
        except OSError as error:
            self._report_error(error)

    def _remove_temporary_files(self, file: Path) -> None:
        """Remove what crashes during a write left behind."""
        for path in (file, _mark_path(file)):
            for temporary in file.parent.glob(f".{path.name}.*"):
                try:
                    temporary.unlink(missing_ok=True)
                except OSError as error:
                    self._report_error(error)

    def _write(self, path: Path, text: str) -> None:
        """Replace a file atomically and sync it."""
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        _sync_directory(path.parent)

    def _report_error(self, error: OSError) -> None:
        self.error = f"{error.filename or self._path}: {error.strerror or error}"
        log.warning("Failed to save controls: %s", self.error)


def _quarantine_path(path: Path) -> Path:
    return path.with_suffix(".json.bad")


def _mark_path(path: Path) -> Path:
    return path.with_suffix(".trial")


def _sync_directory(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
