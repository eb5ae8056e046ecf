"""A file in the state folder: atomic writes, quarantine, and backup of unreadable files.

One thread at a time calls a `StateFile`: the main thread while it loads, then the writer's. Reading the attributes is
safe from any thread.

- A write replaces the file atomically and is synced, so a crash leaves the old content or the new.
- A file that is damaged is quarantined: moved to `….json.bad`. An earlier quarantined file with another content is
  kept: it is renamed to `….json.bad.1`, or the next free number.
- Parts that this version does not know or accept are ignored, and the whole file is copied to `….json.bad`, so that a
  downgrade loses only what the newer version added.
"""

import contextlib
import itertools
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, TypeVar

from softcam.controls.writer import BackgroundWriter
from softcam.runtime.atomic_file import read_file, replace_file, sync_directory
from softcam.runtime.log.events import Event

log = logging.getLogger(__name__)

_QUARANTINED: Final = Event.STATE_QUARANTINED.extra

T = TypeVar("T")


class StateFile:
    """The base of stores, with one file each; without a `folder` nothing is saved."""

    def __init__(self, folder: Path | None, name: str, content: str, largest: int) -> None:
        """`content` names what is saved, in the plural. A file of more than `largest` bytes is damaged."""
        self._path = None if folder is None else folder / f"{name}.json"
        self.content = content
        self._largest = largest
        self.error: str | None = None  # why the state is not saved
        self.quarantine_reason: str | None = None  # why the saved state, or a part of it, is not used
        self.is_unsaved = False  # the last write failed; another one may succeed
        self._reported: set[str] = set()  # the errors that were logged since the last write that succeeded
        self._has_quarantine = False  # there is a quarantined file; once it is deleted, the reason no longer applies
        self._pending: str | None = None  # why the file has to be quarantined before it is overwritten or deleted
        self._is_readable = True  # unless it could not be read: it may be good

    def refresh_quarantine(self) -> None:
        """Forget `quarantine_reason` if the quarantined file was deleted."""
        with contextlib.suppress(OSError, MemoryError):  # of a broken disk
            if self._has_quarantine and self._path is not None and not _quarantine_path(self._path).exists():
                self._has_quarantine, self.quarantine_reason = False, None

    def _read(self, parse: Callable[[str], T], empty: T) -> T:
        """The parsed file; `empty` if it does not exist or cannot be read, or if it was quarantined.

        `parse` raises ValueError for a damaged file.
        """
        if self._path is None:
            self.error = "no state directory (--state-dir)"
            log.warning("%s will not be saved: %s", self.content.capitalize(), self.error)
            return empty
        path, quarantine = self._path, _quarantine_path(self._path)
        with self._reporting_errors():
            for temporary in path.parent.glob(f".{path.stem}.*"):  # of writes during which a process crashed
                temporary.unlink(missing_ok=True)
        with self._reporting_errors():
            if quarantine.exists():
                self.quarantine_reason = f"{quarantine.name} was quarantined in an earlier run; delete or restore it"
                self._has_quarantine = True
        try:
            content = read_file(path, self._largest)
            if len(content) > self._largest:
                raise ValueError(f"must have at most {self._largest} bytes")
            return parse(content.decode("utf-8"))
        except FileNotFoundError:
            pass
        except (ValueError, RecursionError) as error:  # JSON and UTF-8 errors are ValueErrors
            self._quarantine(f"{path.name}: {error}")
        except (OSError, MemoryError) as error:
            self._pending, self._is_readable = f"{path.name} could not be read ({_reason(error)})", False
            self.is_unsaved = False  # until a change is saved: the next start may be able to read it
            self._report_error(error, "read")
        return empty

    def _report_ignored(self, errors: Sequence[str], *, is_all: bool) -> None:
        """Quarantine the file that was read if it has `errors`; a copy, unless they concern all of it."""
        if not errors or self._path is None:
            return
        reason = "; ".join(errors)
        if is_all:
            self._quarantine(f"{self._path.name}: {reason}")
            return
        log.warning(
            "Some saved %s are invalid and were ignored (original saved as %s): %s",
            self.content,
            _quarantine_path(self._path),
            reason,
            extra=_QUARANTINED,
        )
        self.quarantine_reason = self._pending = f"in part: {reason}"
        with self._reporting_errors():
            self._move_to_quarantine(self._path, is_copied=True)  # the next change rewrites the file
            self._pending = None

    def _write(self, content: bytes | None) -> None:
        """Write the file and sync it to disk, or delete it; `error` is the reason if that fails."""
        if self._replace(content) and not self._has_quarantine:
            self.quarantine_reason = None  # of what was dropped before it was saved: there is no file to be deleted

    def _replace(self, content: bytes | None) -> bool:
        """Quarantine the file if that is pending, then write or delete it; returns False if one of them failed."""
        with self._reporting_errors():
            if self._pending is not None:
                # Copied if there is a replacement, so that there is a file at every moment.
                self._set_aside(self._pending, is_copied=content is not None and self._is_readable)
            if self._path is None:
                return True
            if content is not None:
                replace_file(self._path, content)
            elif self._path.exists():
                self._path.unlink()
                sync_directory(self._path.parent)
            was_unsaved, self.is_unsaved, self.error = self.is_unsaved, False, None
            self._reported.clear()
            if was_unsaved:
                log.info("%s are saved again: %s", self.content.capitalize(), self._path)
            return True
        return False

    def _quarantine(self, reason: str, make_replacement: Callable[[], bytes | None] = lambda: None) -> None:
        """Move the file out of the way and write the replacement instead, if there is one.

        If that fails, the next write does it first.
        """
        self.quarantine_reason = self._pending = reason
        self._replace(make_replacement())

    def _set_aside(self, reason: str, *, is_copied: bool) -> None:
        """Raises OSError."""
        if self._path is not None and self._path.exists():
            self._move_to_quarantine(self._path, is_copied=is_copied)
            self.quarantine_reason = reason
            log.error(
                "Saved %s moved to %s: %s", self.content, _quarantine_path(self._path), reason, extra=_QUARANTINED
            )
        elif self._is_readable:
            log.error("%s dropped: %s", self.content.capitalize(), reason, extra=_QUARANTINED)
        self._pending, self._is_readable = None, True

    def _move_to_quarantine(self, path: Path, *, is_copied: bool = False) -> None:
        """Move the file, or copy it. An earlier quarantined file is not overwritten. Raises OSError."""
        quarantine = _quarantine_path(path)
        if quarantine.exists() and not _is_same(path, quarantine):
            names = (quarantine.with_name(f"{quarantine.name}.{number}") for number in itertools.count(1))
            quarantine.replace(next(name for name in names if not name.exists()))
        if is_copied:
            replace_file(quarantine, read_file(path))
        else:
            path.replace(quarantine)
        self._has_quarantine = True

    @contextlib.contextmanager
    def _reporting_errors(self) -> Iterator[None]:
        try:
            yield
        except (OSError, MemoryError) as error:
            self.is_unsaved = True
            self._report_error(error)

    def _report_error(self, error: OSError | MemoryError, action: str = "save") -> None:
        self.error = f"{self._path}: {_reason(error)}"
        if self.error not in self._reported:  # several files fail for the same reason, and again and again
            self._reported.add(self.error)
            log.warning("Failed to %s %s: %s", action, self.content, self.error)


class FileProblems:
    """Reports what keeps a state from being used or saved. Any thread may call it; does not wait for the disk."""

    def __init__(self, file: StateFile, writer: BackgroundWriter) -> None:
        """`writer` alone calls the methods of the file."""
        self._file = file
        self._writer = writer
        self._check = threading.Event()  # set while none is under way; two at once do no harm
        self._check.set()

    def fields(self) -> dict[str, str | None]:
        """The fields of the status. Whether the quarantined file was deleted is known one call later."""
        if self._file.quarantine_reason is not None and self._check.is_set():
            self._check = self._writer.submit_job(self._file.refresh_quarantine)
        return {
            f"{self._file.content}_set_aside": self._file.quarantine_reason,
            f"{self._file.content}_not_kept": self._not_kept(),
        }

    def note(self) -> str | None:
        """For the response to a change that is in effect: why it is not saved; None if it is."""
        reason = self._not_kept()
        if reason is None:
            return None
        return f"lost with the next restart: {reason}" + ("; saving is retried" if self._file.is_unsaved else "")

    def _not_kept(self) -> str | None:
        error = self._writer.health_error() or self._file.error
        self._writer.ensure_thread()  # after that: what is queued has not been written yet
        return error


def _reason(error: OSError | MemoryError) -> str:
    return "out of memory" if isinstance(error, MemoryError) else error.strerror or str(error)


def _is_same(path: Path, other: Path) -> bool:
    try:
        return read_file(path) == read_file(other)
    except OSError:  # one of them is unreadable
        return False


def _quarantine_path(path: Path) -> Path:
    return path.with_suffix(".json.bad")
