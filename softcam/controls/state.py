"""What was asked of the camera, and its file: written as a whole or not at all, set aside when it does harm.

`RequestedControls` is a value; `Store` owns one file. No camera and no thread here; `camera/control_manager.py`
calls, one thread at a time.

A file that cannot be read, or that keeps the camera from starting, is renamed to `….bad` and never used again. That is
known for sure only where the camera starts without it. Where an opening hangs or kills the process, the trial mark
tells: a second file, made before a state is tried for the first time in a process and removed when frames have come, or
when the camera was closed in order. A process that finds two of them left behind starts without the state, which is
set aside when frames come, and is otherwise left in its place for the next process.

A part that this version does not know, or no longer allows, is left out alone, and the file stays beside as `….bad`:
going back to an older version costs what only the newer one has.
"""

import contextlib
import json
import logging
import math
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from softcam.controls.schema import BY_NAME, BadValue, Group

log = logging.getLogger(__name__)

_VERSION: Final = 1
_TRIALS: Final = 2  # a power cut during one opening says nothing against the state; twice in a row it does
_LARGEST: Final = 64 * 1024  # bytes; the whole table is below a tenth of it

Values = Mapping[str, Any]
_NOTHING: Final[Values] = MappingProxyType({})

# An automatic that is stopped stays where it is: the field that stops it, and the libcamera values to keep. They are
# read from a frame, for nothing is known of them before.
_HOLDS: Final[Mapping[str, tuple[str, Any, tuple[str, ...]]]] = MappingProxyType(
    {
        "auto_exposure": ("enabled", False, ("ExposureTime", "AnalogueGain")),
        "awb": ("enabled", False, ("ColourGains",)),
        "autofocus_mode": ("mode", "manual", ("LensPosition",)),
    }
)
_PAIRS: Final = frozenset({"ColourGains"})
_MOST: Final[Mapping[str, float]] = MappingProxyType(
    {
        str(row.control): math.inf if row.high is None else row.high
        for name in ("manual_exposure", "manual_awb", "lens_position")
        for row in BY_NAME[name].fields
    }
)


@dataclass(frozen=True, slots=True)
class RequestedControls:
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

    def with_values(self, group: Group, values: Values) -> "RequestedControls":
        """Set on top of what was set, and instead of the groups that contradict it."""
        gone = {*group.replaces}
        before = {} if group.replaces else dict(self.groups.get(group.name, _NOTHING))
        groups = {name: held for name, held in self.groups.items() if name not in gone}
        set_now = {**before, **values}
        # Null is what counts where nothing was set, but for fields of which the default is a value.
        kept = {name: each for name, each in set_now.items() if each is not None or group.row(name).default is not None}
        if kept:
            groups[group.name] = kept
        else:
            groups.pop(group.name, None)
        held = {name: each for name, each in self.held.items() if name not in gone and name != group.name}
        return RequestedControls(groups, held)

    def with_held(self, group: str, controls: Values) -> "RequestedControls":
        """The values in which an automatic was stopped, so that it can be stopped there again."""
        return RequestedControls(self.groups, {**self.held, group: dict(controls)})

    @property
    def to_hold(self) -> tuple[str, ...]:
        """The automatics that are stopped where nothing is known of their values yet."""
        return tuple(name for name in _HOLDS if self._stops(name) and name not in self.held)

    def _stops(self, group: str) -> bool:
        field_name, word, _ = _HOLDS[group]
        return bool(self.get(group, field_name) == word)

    def to_json(self) -> str:
        return json.dumps({"version": _VERSION, "asked": self.groups, "held": self.held}, indent=1, allow_nan=False)

    @staticmethod
    def from_json(text: str) -> tuple["RequestedControls", tuple[str, ...]]:
        """The state, and what of it is left out, by group and reason: what is not known here, or not allowed any more.

        Raises ValueError for what `to_json` did not write at all.
        """
        content = json.loads(text)
        if not isinstance(content, dict) or content.get("version") != _VERSION:
            raise ValueError(f"is not version {_VERSION} of the state")
        groups, held = content.get("asked"), content.get("held")
        if not isinstance(groups, dict) or not isinstance(held, dict):
            raise ValueError("has no controls in it")
        faults = []
        asked = RequestedControls()
        for name, values in groups.items():
            if name not in BY_NAME:
                faults.append(f"{name[:40]}: no such control")
                continue
            # As if they were set one after the other: nothing is taken that could not have been.
            try:
                after = asked.with_values(BY_NAME[name], BY_NAME[name].parse(values))
                if (fault := contradiction(after)) is not None:
                    raise BadValue(fault)
            except BadValue as error:
                faults.append(f"{name}: {error}")
                continue
            faults += [f"{each}: is contradicted by {name}" for each in asked.groups if each not in after.groups]
            asked = after
        for name, values in held.items():
            kept = held_values(name, values) if name in asked.to_hold and isinstance(values, dict) else None
            if kept is not None and kept == {each: _paired(each, value) for each, value in values.items()}:
                asked = asked.with_held(name, kept)
            elif asked.has(name) or name not in groups:  # otherwise it was told already
                faults.append(f"{name[:40]}: holds what nobody asked for")
        return asked, tuple(faults)


def held_values(group: str, told: Values) -> dict[str, Any] | None:
    """What a frame's metadata, or a file, tells of a stopped automatic; None where it does not tell all of it."""
    if group not in _HOLDS:
        return None
    values = {}
    for name in _HOLDS[group][2]:
        value = told.get(name)
        numbers = value if name in _PAIRS else [value]
        if not isinstance(numbers, list | tuple) or len(numbers) != (2 if name in _PAIRS else 1):
            return None
        if not all(_is_number(number) for number in numbers):
            return None
        within = tuple(min(number, _MOST[name]) for number in numbers)
        values[name] = within if name in _PAIRS else within[0]
    return values


def _paired(name: str, value: Any) -> Any:
    return tuple(value) if name in _PAIRS and isinstance(value, list) else value


def _is_number(value: Any) -> bool:
    # No exposure, gain or dioptre is below 0; and "not a number" is within no limits.
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf


def contradiction(asked: RequestedControls) -> str | None:
    """What no camera could do, by field and rule; None where all goes together."""
    limits = asked.groups.get("exposure_limits", {})
    for least, most in (("min_exposure_us", "max_exposure_us"), ("min_gain", "max_gain")):
        low, high = limits.get(least), limits.get(most)
        if low is not None and high is not None and low > high:
            return f"{least}: wants to be at most {most}, which is {high:.12g}"
    return None


class Store:
    """The file of one camera's state; `folder` None keeps nothing."""

    def __init__(self, folder: Path | None, name: str) -> None:
        self._path = None if folder is None else folder / f"{name}.json"
        self.trouble: str | None = None  # why the state is not kept, for the status
        self.suspicion: str | None = None  # why `load` gave nothing, though the file is good and in its place
        self._reason: str | None = None  # why a state was set aside
        self._is_beside = False  # as a file, with which the reason goes
        self._unread: str | None = None  # why nobody knows what is in the file, which is not written over then

    @property
    def set_aside_because(self) -> str | None:
        """Why a state, or a part of one, is not used; told for as long as its file is there."""
        if self._is_beside and self._path is not None and not _aside_of(self._path).exists():
            return None
        return self._reason

    def load(self) -> RequestedControls:
        """What was kept; nothing where there is no file, or a bad one, which is set aside."""
        if self._path is None:
            self.trouble = "there is no state directory (--state-dir)"
            log.warning("Controls are not kept: %s", self.trouble)
            return RequestedControls()
        self._clear_up(self._path)
        aside = _aside_of(self._path)
        if aside.exists():
            self._reason, self._is_beside = f"{aside.name} was set aside in an earlier run; take it away, or back", True
        try:
            if self._path.stat().st_size > _LARGEST:
                raise ValueError("is too large")
            text = self._path.read_text(encoding="utf-8")
            asked, faults = RequestedControls.from_json(text)
        except FileNotFoundError:
            return RequestedControls()
        except (ValueError, RecursionError) as error:  # JSON's and UTF-8's errors are ValueErrors
            self.set_aside(f"{self._path.name} {error}")
            return RequestedControls()
        except OSError as error:
            self._unread = f"{self._path.name} could not be read ({error.strerror or error})"
            self._tell(error)
            return RequestedControls()
        if self._trials() >= _TRIALS:
            self.suspicion = "the camera did not start with it"
            log.warning("The saved controls are not used: %s", self.suspicion)
            return RequestedControls()
        if faults and asked.is_empty:
            self.set_aside(f"{self._path.name} {'; '.join(faults)}")
        elif faults:
            self._leave_out(self._path, text, "; ".join(faults))
        return asked

    def save(self, asked: RequestedControls) -> bool:
        """Write it through to the disk; False where that fails, which `trouble` then tells."""
        if self._path is None:
            return False
        try:
            self._spare_unread(self._path)
            if not asked.is_empty:
                self._write(self._path, asked.to_json())
            elif self._path.exists():
                self._path.unlink()
                _settle(self._path.parent)
            _mark_of(self._path).unlink(missing_ok=True)
        except OSError as error:
            self._tell(error)
            return False
        self.trouble = None
        return True

    def set_aside(self, reason: str, instead: RequestedControls | None = None) -> None:
        """Never use this state again, but `instead`; it stays beside for its owner to look at."""
        if self._path is None:
            self._reason = reason
            log.error("The controls are set aside: %s", reason)
            return
        aside = _aside_of(self._path)
        is_beside = False
        try:
            if instead is None or instead.is_empty:
                self._path.replace(aside)
            else:
                # A copy, so that at no moment there is no file.
                self._write(aside, self._path.read_text(encoding="utf-8"))
                self._write(self._path, instead.to_json())
            is_beside = True
            _mark_of(self._path).unlink(missing_ok=True)
        except FileNotFoundError:
            log.debug("There was no file to set aside")
        except OSError as error:
            self._tell(error)
        self._reason, self._is_beside = reason, is_beside
        log.error("The saved controls are set aside as %s: %s", aside, reason)

    def _spare_unread(self, path: Path) -> None:
        """What is in the file may be good, and is not lost to the next change. Raises OSError."""
        if self._unread is None:
            return
        with contextlib.suppress(FileNotFoundError):
            path.replace(_aside_of(path))
            self._reason, self._is_beside = self._unread, True
            log.error("The saved controls are set aside as %s: %s", _aside_of(path), self._unread)
        self._unread = None

    def _leave_out(self, path: Path, text: str, reason: str) -> None:
        """Parts are not used; the file as it was stays beside, for the next change writes it anew."""
        aside = _aside_of(path)
        self._reason, self._is_beside = f"in part: {reason}", False
        log.warning("Of the saved controls something is left out, and all of them kept as %s: %s", aside, reason)
        try:
            self._write(aside, text)
            self._is_beside = True
        except OSError as error:
            self._tell(error)

    def _clear_up(self, file: Path) -> None:
        """Take away what crashes while writing left behind."""
        for path in (file, _mark_of(file)):
            for left in file.parent.glob(f".{path.name}.*"):
                try:
                    left.unlink(missing_ok=True)
                except OSError as error:
                    self._tell(error)

    def begin_trial(self) -> None:
        """The state is about to be tried on the camera."""
        self._note(str(self._trials() + 1))

    def end_trial(self) -> None:
        """Frames have come with it, or the camera was closed in order."""
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
        _settle(path.parent)

    def _tell(self, error: OSError) -> None:
        self.trouble = f"{error.filename or self._path}: {error.strerror or error}"
        log.warning("Controls are not kept: %s", self.trouble)


def _aside_of(path: Path) -> Path:
    return path.with_suffix(".json.bad")


def _mark_of(path: Path) -> Path:
    return path.with_suffix(".trial")


def _settle(folder: Path) -> None:
    """Write through what a folder lists."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
