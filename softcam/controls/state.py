"""The requested controls as an immutable value, and its JSON form; for any thread. `store` has the file."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from softcam.camera.session.autofocus_cycle import AfState
from softcam.controls.fields import Group, is_number
from softcam.controls.schema import BY_NAME
from softcam.errors import BadValue

_VERSION: Final = 1

Values = Mapping[str, Any]
_NO_VALUES: Final[Values] = MappingProxyType({})

# An automatic that is switched off is frozen at its current values: by group, the field and the value that switch it
# off, and the libcamera values to keep with the number of their elements. They are read from a frame, as nothing else
# reports them.
_FREEZES: Final[Mapping[str, tuple[str, Any, Mapping[str, int]]]] = MappingProxyType(
    {
        "auto_exposure": ("enabled", False, {"ExposureTime": 1, "AnalogueGain": 1}),
        "awb": ("enabled", False, {"ColourGains": 2}),
        "autofocus_mode": ("mode", "manual", {"LensPosition": 1}),
    }
)
_MAXIMUM: Final[Mapping[str, float]] = {
    row.control: row.high for name in ("manual_exposure", "manual_awb", "lens_position") for row in BY_NAME[name].fields
}


@dataclass(frozen=True, slots=True)
class RequestedControls:
    """`groups`: the values that were set, by group and field. `frozen`: the libcamera values of frozen automatics.

    Their values are those of JSON: pairs are lists.
    """

    groups: Mapping[str, Values] = field(default_factory=lambda: _NO_VALUES)
    frozen: Mapping[str, Values] = field(default_factory=lambda: _NO_VALUES)

    @property
    def is_empty(self) -> bool:
        return not self.groups

    def get(self, group: str, name: str) -> Any:
        """The value of a field, or its default."""
        return self.groups.get(group, _NO_VALUES).get(name, BY_NAME[group].row(name).default)

    def has(self, group: str) -> bool:
        return group in self.groups

    def with_values(self, group: Group, values: Values) -> "RequestedControls":
        """A copy with these values set; groups that contradict them are removed.

        Raises BadValue for a combination of values that no camera supports.
        """
        if not values:
            return self
        before = {} if group.replaces else self.groups.get(group.name, _NO_VALUES)
        # Null unsets a field, except where null is a value beside a default.
        kept = {
            name: value
            for name, value in {**before, **values}.items()
            if value is not None or group.row(name).default is not None
        }
        for lower, upper in (("min_exposure_us", "max_exposure_us"), ("min_gain", "max_gain")):
            low, high = kept.get(lower), kept.get(upper)
            if low is not None and high is not None and low > high:
                raise BadValue(f"{lower}: must be at most {upper} ({high:.12g})")
        ended = {group.name, *group.replaces}
        groups = {name: each for name, each in self.groups.items() if name not in ended}
        frozen = {name: each for name, each in self.frozen.items() if name not in ended}
        return RequestedControls({**groups, group.name: kept} if kept else groups, frozen)

    def with_frozen(self, group: str, controls: Values) -> "RequestedControls":
        """A copy with the values at which an automatic is frozen."""
        return RequestedControls(self.groups, {**self.frozen, group: dict(controls)})

    @property
    def pending_freeze(self) -> tuple[str, ...]:
        """The automatics that are switched off and whose values are not known yet."""
        return tuple(
            name
            for name, (field_name, word, _) in _FREEZES.items()
            if name not in self.frozen and self.get(name, field_name) == word
        )

    def frozen_at(self, metadata: Values) -> "RequestedControls":
        """A copy in which pending automatics are frozen at the values of a frame; itself if the frame has none."""
        result = self
        for group in self.pending_freeze:
            values = frozen_values(group, metadata)
            is_moving = group == "autofocus_mode" and metadata.get("AfState") == AfState.SCANNING
            if values is not None and not is_moving:
                result = result.with_frozen(group, values)
        return result

    def to_json(self) -> str:
        return json.dumps({"version": _VERSION, "asked": self.groups, "held": self.frozen}, indent=1, allow_nan=False)

    @staticmethod
    def from_json(text: str) -> tuple["RequestedControls", tuple[str, ...]]:
        """The state, and the errors of the parts that were ignored because they are unknown or not valid (any more).

        Raises ValueError for a text that `to_json` did not write.
        """
        content = json.loads(text)
        if not isinstance(content, dict) or content.get("version") != _VERSION:
            raise ValueError(f"must be a version {_VERSION} state file")
        groups, frozen = content.get("asked"), content.get("held")
        if not isinstance(groups, dict) or not isinstance(frozen, dict):
            raise ValueError("must contain controls")
        requested, errors = parse_groups(groups)
        for name, values in frozen.items():
            if name in requested.pending_freeze and isinstance(values, dict) and frozen_values(name, values) == values:
                requested = requested.with_frozen(name, values)
            elif requested.has(name) or name not in groups:  # otherwise the group's own error says it
                errors.append(f"{name[:40]}: invalid frozen values")
        return requested, tuple(errors)


def parse_groups(groups: Mapping[str, Any]) -> tuple[RequestedControls, list[str]]:
    """The controls by group and field, and the errors of those that are not accepted.

    Sets one group after the other, so that nothing is accepted that a request could not have set.
    """
    requested, errors = RequestedControls(), []
    for name, values in groups.items():
        if name not in BY_NAME:
            errors.append(f"{name[:40]}: unknown control")
            continue
        try:
            after = requested.with_values(BY_NAME[name], BY_NAME[name].parse(values))
        except BadValue as error:
            errors.append(f"{name}: {error}")
            continue
        errors += [f"{each}: contradicts {name}" for each in requested.groups if each not in after.groups]
        requested = after
    return requested, errors


def frozen_values(group: str, reported: Values) -> dict[str, Any] | None:
    """The values at which to freeze an automatic, from a frame's metadata or a file; None if they are incomplete."""
    values: dict[str, Any] = {}
    for name, length in _FREEZES[group][2].items():
        value = reported.get(name)
        numbers: list[Any] = list(value) if isinstance(value, list | tuple) else [value]
        # Exposures, gains and dioptres are not negative; NaN is in no range.
        if len(numbers) != length or not all(is_number(number) and 0 <= number < math.inf for number in numbers):
            return None
        limited = [min(number, _MAXIMUM[name]) for number in numbers]
        values[name] = limited if length > 1 else limited[0]
    return values
