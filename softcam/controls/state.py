"""What was asked of the camera, and its file: written as a whole or not at all, set aside when it does harm.

`Asked` is a value; `Store` owns one file. No camera and no thread here; `camera/steering.py` calls, one thread at
a time.

A file that cannot be read, or that keeps the camera from starting, is renamed to `….bad` and never used again. That is
known for sure only where an opening fails; where it hangs or kills the process, the trial mark tells: a second file,
made before a state is tried for the first time in a process and removed when frames have come. A process that finds
two of them left behind starts without the state.
"""

import json
import logging
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from softcam.controls.table import BY_NAME, BadValue, Group

log = logging.getLogger(__name__)

_VERSION: Final = 1
_TRIALS: Final = 2  # a power cut during one opening says nothing against the state; twice in a row it does
_LARGEST: Final = 64 * 1024  # bytes; the whole table is below a tenth of it

Values = Mapping[str, Any]
_NOTHING: Final[Values] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Asked:
    """By group and field what was set, and by group the libcamera values in which an automatic was stopped."""

    groups: Mapping[str, Values] = field(default_factory=lambda: MappingProxyType({}))
    held: Mapping[str, Values] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def is_empty(self) -> bool:
        return not self.groups

    def get(self, group: str, name: str) -> Any:
        """A field as it was set, or its default."""
        values = self.groups.get(group, _NOTHING)
        return values[name] if name in values else BY_NAME[group].row(name).default

    def has(self, group: str) -> bool:
        return group in self.groups

    def with_values(self, group: Group, values: Values) -> "Asked":
        """Set on top of what was set, and instead of the groups that contradict it."""
        gone = {*group.replaces}
        before = {} if group.replaces else dict(self.groups.get(group.name, _NOTHING))
        groups = {name: held for name, held in self.groups.items() if name not in gone}
        groups[group.name] = {**before, **values}
        held = {name: kept for name, kept in self.held.items() if name not in gone and name != group.name}
        return Asked(groups, held)

    def with_held(self, group: str, controls: Values) -> "Asked":
        """The values in which an automatic was stopped, so that it can be stopped there again."""
        return Asked(self.groups, {**self.held, group: dict(controls)})

    def to_json(self) -> str:
        return json.dumps({"version": _VERSION, "asked": self.groups, "held": self.held}, indent=1, allow_nan=False)

    @staticmethod
    def from_json(text: str) -> "Asked":
        """Raises ValueError for what `to_json` did not write, or what the table no longer allows."""
        content = json.loads(text)
        if not isinstance(content, dict) or content.get("version") != _VERSION:
            raise ValueError(f"is not version {_VERSION} of the state")
        groups, held = content.get("asked"), content.get("held")
        if not isinstance(groups, dict) or not isinstance(held, dict):
            raise ValueError("has no controls in it")
        checked = {}
        for name, values in groups.items():
            if name not in BY_NAME:
                raise ValueError(f"{name}: no such control")
            try:
                checked[name] = BY_NAME[name].parse(values)
            except BadValue as error:
                raise ValueError(f"{name}: {error}") from error
        for name, values in held.items():
            if name not in checked or not isinstance(values, dict):
                raise ValueError(f"{name}: holds what was not asked")
        return Asked(checked, held)


class Store:
    """The file of one camera's state; `folder` None keeps nothing."""

    def __init__(self, folder: Path | None, name: str) -> None:
        self._path = None if folder is None else folder / f"{name}.json"
        self.trouble: str | None = None  # why the state is not kept, for the status
        self.set_aside_because: str | None = None

    def load(self) -> Asked:
        """What was kept; nothing where there is no file, or a bad one, which is set aside."""
        if self._path is None:
            self.trouble = "there is no state directory (--state-dir)"
            log.warning("Controls are not kept: %s", self.trouble)
            return Asked()
        try:
            if self._path.stat().st_size > _LARGEST:
                raise ValueError("is too large")
            asked = Asked.from_json(self._path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return Asked()
        except (ValueError, RecursionError) as error:  # JSON's and UTF-8's errors are ValueErrors
            self.set_aside(f"{self._path.name} {error}")
            return Asked()
        except OSError as error:
            self._tell(error)
            return Asked()
        if self._trials() >= _TRIALS:
            self.set_aside("the camera did not start with it")
            return Asked()
        return asked

    def save(self, asked: Asked) -> bool:
        """Write it through to the disk; False where that fails, which `trouble` then tells."""
        if self._path is None:
            return False
        try:
            if asked.is_empty:
                self._path.unlink(missing_ok=True)
            else:
                self._write(self._path, asked.to_json())
            _mark_of(self._path).unlink(missing_ok=True)
        except OSError as error:
            self._tell(error)
            return False
        self.trouble = None
        return True

    def set_aside(self, reason: str) -> None:
        """Never use this state again; it stays beside for its owner to look at."""
        self.set_aside_because = reason
        if self._path is None:
            log.error("The saved controls are set aside: %s", reason)
            return
        aside = self._path.with_suffix(".json.bad")
        log.error("The saved controls are set aside as %s: %s", aside, reason)
        try:
            self._path.replace(aside)
            _mark_of(self._path).unlink(missing_ok=True)
        except FileNotFoundError:
            log.debug("There was no file to set aside")
        except OSError as error:
            self._tell(error)

    def begin_trial(self) -> None:
        """The state is about to be tried on the camera."""
        self._note(str(self._trials() + 1))

    def end_trial(self) -> None:
        """Frames have come with it."""
        self._note(None)

    def _trials(self) -> int:
        try:
            return 0 if self._path is None else int(_mark_of(self._path).read_text(encoding="ascii")[:4])
        except (OSError, ValueError):
            return 0

    def _note(self, text: str | None) -> None:
        if self._path is None:
            return
        try:
            if text is None:
                _mark_of(self._path).unlink(missing_ok=True)
            else:
                self._write(_mark_of(self._path), text)
        except OSError as error:
            self._tell(error)

    def _write(self, path: Path, text: str) -> None:
        """A new file that takes the old one's place at once: a crash leaves the one or the other, and never a part."""
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
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _tell(self, error: OSError) -> None:
        self.trouble = f"{error.filename or self._path}: {error.strerror or error}"
        log.warning("Controls are not kept: %s", self.trouble)


def _mark_of(path: Path) -> Path:
    return path.with_suffix(".trial")
