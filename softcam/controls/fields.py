"""Fields and groups of fields of a JSON body: types, limits, validation, JSON Schema.

Immutable, so any thread may read them.
"""

import contextlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Literal, TypeGuard

from softcam.errors import BadValue

Kind = Literal["boolean", "integer", "number", "choice", "window"]

NO_NAMES: Final[Mapping[str, str]] = MappingProxyType({})  # for texts that name fields as the table does
_SMALLEST_PART: Final = 0.01  # of the image's side; no sensor can crop to less
_FARTHEST_EDGE: Final = 1 - _SMALLEST_PART  # a window that starts beyond it lies outside the image


def is_number(value: Any) -> TypeGuard[int | float]:
    """Whether it is a number of JSON or Python, and not a boolean; NaN is one."""
    return isinstance(value, int | float) and not isinstance(value, bool)


@dataclass(frozen=True, slots=True)
class Field:
    """One value: a row of the table.

    `low` and `high` are inclusive, unless `is_low_excluded`. `choices` maps each word to libcamera's number, if the
    control is that number alone. `control` is libcamera's name, empty if there is none or more than one. `usual` is the
    range of a slider. A field with a `default` of None is unset at first; `is_nullable` allows it to be unset again.
    `high_of` is the setting that determines `high`, if one does. `example` is a value for descriptions of requests.
    """

    name: str
    kind: Kind
    help: str
    default: Any = None
    low: float = -math.inf
    high: float = math.inf
    unit: str = ""
    control: str = ""
    choices: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    usual: tuple[float, float] | None = None
    multiple: int = 1
    is_required: bool = False
    is_nullable: bool = False
    is_low_excluded: bool = False
    high_of: str = ""
    example: Any = None

    @property
    def is_numeric(self) -> bool:
        return self.kind in ("integer", "number")

    @property
    def rule(self) -> str:
        """The text that follows "must be "."""
        tail = " or null" if self.is_nullable else ""
        match self.kind:
            case "boolean":
                return f"true or false{tail}"
            case "choice":
                return f"one of {', '.join(self.choices)}{tail}"
            case "window":
                sides = f"x and y from 0 to {_FARTHEST_EDGE:g}, width and height from {_SMALLEST_PART:g} to 1"
                return f"an object with the fractions {sides}{tail}"
        number = "an integer" if self.kind == "integer" else "a number"
        if self.multiple > 1:
            number = "an even integer" if self.multiple == 2 else f"a multiple of {self.multiple}"
        low, high = f"{self.low:.12g}", f"{self.high:.12g}"
        span = f"above {low}, at most {high}" if self.is_low_excluded else f"from {low} to {high}"
        why = f" (set by {self.high_of})" if self.high_of else ""
        return f"{number} {span}{why}{tail}"

    def parse(self, value: Any) -> Any:
        """The value in the field's type. Raises ValueError with the rule."""
        if value is None and self.is_nullable:
            return None
        match self.kind:
            case "boolean" if isinstance(value, bool):
                return value
            case "choice" if isinstance(value, str) and value in self.choices:
                return value
            case "window" if isinstance(value, Mapping) and value.keys() == _WINDOW.keys():
                with contextlib.suppress(ValueError):  # its rule is of a number and does not name the side
                    return {side: row.parse(value[side]) for side, row in _WINDOW.items()}
            # Compared before any conversion: a huge integer overflows a float. NaN is in no range.
            case "number" if is_number(value) and self._contains(value):
                return float(value)
            case "integer" if is_number(value) and self._contains(value) and value % self.multiple == 0:
                return int(value)
        raise ValueError(self.rule)

    def _contains(self, value: float) -> bool:
        return self.low <= value <= self.high and not (self.is_low_excluded and value == self.low)

    def schema(self) -> dict[str, Any]:
        """The field's JSON Schema."""
        schema: dict[str, Any] = {"type": self.kind}
        match self.kind:
            case "choice":
                schema = {"type": "string", "enum": list(self.choices)}
            case "window":
                sides = {side: row.schema() for side, row in _WINDOW.items()}
                schema = {"type": "object", "properties": sides, "required": list(sides), "additionalProperties": False}
            case "integer" | "number":
                schema |= {"exclusiveMinimum" if self.is_low_excluded else "minimum": self.low, "maximum": self.high}
                if self.multiple > 1:
                    schema["multipleOf"] = self.multiple
        if self.is_nullable:
            schema["type"] = [schema["type"], "null"]
            if "enum" in schema:
                schema["enum"] = [*schema["enum"], None]
        if self.default is not None:
            schema["default"] = self.default
        if self.example is not None:
            schema["examples"] = [self.example]
        unit = f" ({self.unit})" if self.unit else ""
        return schema | {"description": f"{self.help}{unit}"}


@dataclass(frozen=True, slots=True)
class Group:
    """The values that are set together, by one request.

    Setting it removes the groups in `replaces`, which would contradict it. `answers` renames fields in the answer.
    `has_restart`: a change may restart the stream. `is_optional`: the body may be empty.
    """

    name: str
    help: str
    fields: tuple[Field, ...]
    replaces: tuple[str, ...] = ()
    answers: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    has_restart: bool = False
    is_optional: bool = False

    def row(self, name: str) -> Field:
        """The field with this name, which must exist."""
        return next(each for each in self.fields if each.name == name)

    def parse(self, body: Any) -> dict[str, Any]:
        """The values of a request's body. Raises BadValue with every error."""
        if not isinstance(body, Mapping):
            raise BadValue(f"body: must be a JSON object with {self._names()}")
        known = {each.name for each in self.fields}
        errors = [
            f"{name[:60]!r}: unknown field; the body may have {self._names()}" for name in body if name not in known
        ]
        values: dict[str, Any] = {}
        for each in self.fields:
            if each.name in body:
                try:
                    values[each.name] = each.parse(body[each.name])
                except ValueError as error:
                    errors.append(f"{each.name}: must be {error}")
            elif each.is_required:
                errors.append(f"{each.name}: must be {each.rule} (missing)")
        if not errors and not values and not self.is_optional:
            errors.append(f"body: must have at least one of {self._names()}")
        if errors:
            raise BadValue("; ".join(errors))
        return values

    def schema(self) -> dict[str, Any]:
        """The JSON Schema of the body."""
        required = [each.name for each in self.fields if each.is_required]
        fields = {each.name: each.schema() for each in self.fields}
        schema: dict[str, Any] = {"type": "object", "properties": fields, "additionalProperties": False}
        if required:
            return schema | {"required": required}
        return schema if self.is_optional else schema | {"minProperties": 1}

    def answer(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The response to a change; its form is that of the services that this one replaces."""
        return {"status": "ok"} | {self.answers.get(name, name): value for name, value in values.items()}

    def _names(self) -> str:
        return ", ".join(each.name for each in self.fields) or "no fields"


def fraction(
    name: str, help_: str, default: float | None = None, high: float = 1.0, example: float | None = None
) -> Field:
    """A required fraction of the image's width or height."""
    low = _SMALLEST_PART if name in ("width", "height") else 0.0
    return Field(name, "number", help_, default, low, high, is_required=True, example=example)


def choice(name: str, help_: str, choices: Mapping[str, int] | tuple[str, ...], **more: Any) -> Field:
    """A choice of words, which are numbered in order or mapped to libcamera's numbers."""
    numbered = choices if isinstance(choices, Mapping) else {word: index for index, word in enumerate(choices)}
    return Field(name, "choice", help_, choices=MappingProxyType(dict(numbered)), **more)


_WINDOW: Final = {
    side: fraction(side, f"{side} of the window, as a fraction of the image", high=high)
    for side, high in (("x", _FARTHEST_EDGE), ("y", _FARTHEST_EDGE), ("width", 1.0), ("height", 1.0))
}
