"""The state file of one camera: atomic writes, quarantine, backup of unreadable files, and the attempt mark.

One thread at a time calls a `Store`: the main thread while it loads, then the writer's. Reading the attributes is
safe from any thread.

- A write replaces the file atomically and is synced, so a crash leaves the old content or the new.
- A file that is damaged, or that keeps the camera from starting, is quarantined: moved to `….json.bad`. An earlier
  quarantined file with another content is kept: it is renamed to `….json.bad.1`, or the next free number.
- Parts that this version does not know or accept are ignored, and the whole file is copied to `….json.bad`, so that a
  downgrade loses only what the newer version added.
- The attempt mark `….trial` holds the state with which the camera is being opened. If the process hangs or crashes
  meanwhile, the mark remains, and the next process quarantines a file with the same state.
"""

import contextlib
import itertools
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from softcam.controls.state import RequestedControls
from softcam.runtime.atomic_file import replace_file, sync_directory

log = logging.getLogger(__name__)

_LARGEST: Final = 64 * 1024  # bytes; a file with every control is below a tenth of it
_EMPTY: Final = RequestedControls()


class Store:
    """One camera's state file; without a `folder` nothing is saved."""

    def __init__(self, folder: Path | None, name: str) -> None:
        self._path = None if folder is None else folder / f"{name}.json"
        self.error: str | None = None  # why the state is not saved
        self.quarantine_reason: str | None = None  # why the saved state, or a part of it, is not used
        self._has_quarantine = False  # there is a quarantined file; once it is deleted, the reason no longer applies
        self._read_error: str | None = None  # why the file could not be read; it is not overwritten then

    def refresh_quarantine(self) -> None:
        """Forget `quarantine_reason` if the quarantined file was deleted."""
        with contextlib.suppress(OSError):  # of a broken disk
            if self._has_quarantine and self._path is not None and not _quarantine_path(self._path).exists():
                self.quarantine_reason = None

    def load(self) -> RequestedControls:
        """The saved state; an empty one if the file does not exist, or if the file was quarantined."""
        if self._path is None:
            self.error = "no state directory (--state-dir)"
            log.warning("Controls will not be saved: %s", self.error)
            return _EMPTY
        path, quarantine = self._path, _quarantine_path(self._path)
        for temporary in path.parent.glob(f".{path.stem}.*"):  # of writes during which a process crashed
            with self._reporting_errors():
                temporary.unlink(missing_ok=True)
        with self._reporting_errors():
            if quarantine.exists():
                self.quarantine_reason = f"{quarantine.name} was quarantined in an earlier run; delete or restore it"
                self._has_quarantine = True
        requested, errors = _EMPTY, tuple[str, ...]()
        try:
            if path.stat().st_size > _LARGEST:
                raise ValueError(f"must have at most {_LARGEST} bytes")
            requested, errors = RequestedControls.from_json(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            pass
        except (ValueError, RecursionError) as error:  # JSON and UTF-8 errors are ValueErrors
            self.quarantine(f"{path.name}: {error}")
            return requested
        except OSError as error:
            self._read_error = f"{path.name} could not be read ({error.strerror or error})"
            self._report_error(error, "read")
            return requested
        if not requested.is_empty and requested == self._attempted(path):
            self.quarantine("the process hung or crashed while it opened the camera with these controls")
            return _EMPTY
        self.end_attempt()
        reason = "; ".join(errors)
        if errors and requested.is_empty:
            self.quarantine(f"{path.name}: {reason}")
        elif errors:
            log.warning(
                "Some saved controls are invalid and were ignored (original saved as %s): %s", quarantine, reason
            )
            self.quarantine_reason = f"in part: {reason}"
            with self._reporting_errors():
                self._move_to_quarantine(path, is_copied=True)  # the next change rewrites the file
        return requested

    def save(self, requested: RequestedControls) -> None:
        """Write the state and sync it to disk; `error` is the reason if that fails."""
        if self._path is None:
            return
        with self._reporting_errors():
            if self._read_error is not None and self._path.exists():  # it may be good
                self._move_to_quarantine(self._path)
                self.quarantine_reason = self._read_error
                log.error("Saved controls moved to %s: %s", _quarantine_path(self._path), self._read_error)
            self._read_error = None
            if not requested.is_empty:
                replace_file(self._path, requested.to_json().encode())
            elif self._path.exists():
                self._path.unlink()
                sync_directory(self._path.parent)
            self.error = None

    def quarantine(self, reason: str, replacement: RequestedControls = _EMPTY) -> None:
        """Move the file out of the way and save `replacement` instead; ends the attempt."""
        self.quarantine_reason, self._has_quarantine = reason, False
        with self._reporting_errors():
            if self._path is None or not self._path.exists():
                log.error("Controls dropped: %s", reason)
            else:
                # Copied if there is a replacement, so that there is a file at every moment.
                self._move_to_quarantine(self._path, is_copied=not replacement.is_empty)
                if not replacement.is_empty:
                    replace_file(self._path, replacement.to_json().encode())
                log.error("Saved controls moved to %s: %s", _quarantine_path(self._path), reason)
        self.end_attempt()

    def start_attempt(self, requested: RequestedControls) -> None:
        """Write the attempt mark: the camera is about to be opened with this state for the first time."""
        if self._path is not None:
            with self._reporting_errors():
                replace_file(_mark_path(self._path), requested.to_json().encode())

    def end_attempt(self) -> None:
        """Remove the attempt mark: the process neither hung nor crashed."""
        if self._path is not None:
            with self._reporting_errors(), contextlib.suppress(FileNotFoundError):
                _mark_path(self._path).unlink()
                sync_directory(self._path.parent)  # a mark that a power cut brings back would count against the state

    @staticmethod
    def _attempted(path: Path) -> RequestedControls | None:
        """The state of the mark that an earlier process left; it may be a change that it had not saved yet."""
        try:
            return RequestedControls.from_json(_mark_path(path).read_text(encoding="utf-8"))[0]
        except (OSError, ValueError, RecursionError):
            return None

    def _move_to_quarantine(self, path: Path, *, is_copied: bool = False) -> None:
        """Move the file, or copy it. An earlier quarantined file is not overwritten. Raises OSError."""
        quarantine = _quarantine_path(path)
        if quarantine.exists() and not _is_same(path, quarantine):
            names = (quarantine.with_name(f"{quarantine.name}.{number}") for number in itertools.count(1))
            quarantine.replace(next(name for name in names if not name.exists()))
        if is_copied:
            replace_file(quarantine, path.read_bytes())
        else:
            path.replace(quarantine)
        self._has_quarantine = True

    @contextlib.contextmanager
    def _reporting_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._report_error(error)

    def _report_error(self, error: OSError, action: str = "save") -> None:
        before, self.error = self.error, f"{self._path}: {error.strerror or error}"
        if self.error != before:  # mark and file fail for the same reason
            log.warning("Failed to %s controls: %s", action, self.error)


def _is_same(path: Path, other: Path) -> bool:
    try:
        return path.read_bytes() == other.read_bytes()
    except OSError:  # one of them is unreadable
        return False


def _quarantine_path(path: Path) -> Path:
    return path.with_suffix(".json.bad")


def _mark_path(path: Path) -> Path:
    return path.with_suffix(".trial")
