"""The one table of controls: what may be set, by which JSON names, within which limits, and what it is for.

Validation, `/v1/camera/controls`, the API's description, the page's sliders and the README's table come from it. The
limits here are those that hold for any camera; a camera's own narrower ones are judged where it is known (`merge`).
Nothing changes after the import, so any thread may look.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final, Literal

Kind = Literal["boolean", "integer", "number", "choice", "window"]

# White balance by hand for cameras without an infrared filter: red and blue gain. Starting points, for the light and
# the sensor differ: under infrared alone all colours of the mosaic see about the same, so the gains are close to one.
NOIR_PRESETS: Final[Mapping[str, tuple[float, float]]] = MappingProxyType(
    {"daylight_noir": (1.5, 1.6), "ir_850nm": (1.05, 1.15), "ir_940nm": (1.0, 1.0), "indoor_noir": (1.3, 2.4)}
)
# libcamera's AwbModeEnum.
AWB_MODES: Final[Mapping[str, int]] = MappingProxyType(
    {"auto": 0, "incandescent": 1, "tungsten": 2, "fluorescent": 3, "indoor": 4, "daylight": 5, "cloudy": 6}
)
# libcamera's AeFlickerModeEnum and, in microseconds, AeFlickerPeriod: a lamp flickers twice in each period.
FLICKER: Final[Mapping[str, tuple[int, int | None]]] = MappingProxyType(
    {"off": (0, None), "50hz": (1, 10_000), "60hz": (1, 8_333), "auto": (2, None)}
)
_AF_MODES: Final = MappingProxyType({"manual": 0, "auto": 1, "continuous": 2})
_WINDOW_SIDES: Final = ("x", "y", "width", "height")
_SMALLEST_PART: Final = 0.01  # of the picture's side; less is below what any sensor can crop to
_FARTHEST_EDGE: Final = 1 - _SMALLEST_PART  # a window that begins beyond it lies outside of the picture


class BadValue(ValueError):
    """A body breaks the table's rules; the message has every fault, by field and rule."""


@dataclass(frozen=True, slots=True)
class Field:
    """One value: a row of the table.

    `low` and `high` are inclusive. `choices` is word to libcamera's number, where the control is that number alone.
    `control` is libcamera's name, None where there is none or more than one. `usual` is the range that a slider shows.
    A field with a `default` of None is off until it is set; `is_nullable` lets it be switched off again. `high_of` says
    what of the configuration sets `high`, where it does.
    """

    name: str
    kind: Kind
    help: str
    default: Any = None
    low: float | None = None
    high: float | None = None
    unit: str = ""
    control: str | None = None
    choices: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    usual: tuple[float, float] | None = None
    multiple: int = 1
    is_required: bool = False
    is_nullable: bool = False
    high_of: str = ""

    @property
    def rule(self) -> str:
        """What completes "wants …"."""
        tail = " or null" if self.is_nullable else ""
        match self.kind:
            case "boolean":
                return f"true or false{tail}"
            case "choice":
                return f"one of {', '.join(self.choices)}{tail}"
            case "window":
                return (
                    "an object with x, y, width and height, fractions of the picture from 0 to 1, "
                    f"x and y at most {_FARTHEST_EDGE:g}{tail}"
                )
        number = "a whole number" if self.kind == "integer" else "a number"
        if self.multiple > 1:
            number = f"a multiple of {self.multiple}"
        why = f", which {self.high_of} sets" if self.high_of else ""
        return f"{number} from {self.low:.12g} to {self.high:.12g}{why}{tail}"

    def parse(self, value: Any) -> Any:
        """The value in its own type. Raises ValueError with the rule."""
        if value is None and self.is_nullable:
            return None
        match self.kind:
            case "boolean":
                if isinstance(value, bool):
                    return value
            case "choice":
                if isinstance(value, str) and value in self.choices:
                    return value
            case "window":
                return self._parse_window(value)
            case "integer" | "number":
                return self._parse_number(value)
        raise ValueError(self.rule)

    def _parse_number(self, value: Any) -> int | float:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        # Compared before any conversion: a huge integer overflows a float, and "not a number" is within no limits.
        low = -math.inf if self.low is None else self.low
        high = math.inf if self.high is None else self.high
        if not is_number or not low <= value <= high:
            raise ValueError(self.rule)
        if self.kind == "integer" and (value != int(value) or value % self.multiple):
            raise ValueError(self.rule)
        return int(value) if self.kind == "integer" else float(value)

    def _parse_window(self, value: Any) -> dict[str, float]:
        if not isinstance(value, Mapping) or set(value) != set(_WINDOW_SIDES):
            raise ValueError(self.rule)
        try:
            parts = {side: _window_side(side).parse(value[side]) for side in _WINDOW_SIDES}
        except ValueError as error:  # it tells of a number, and not of which
            raise ValueError(self.rule) from error
        return {side: float(part) for side, part in parts.items()}

    def schema(self) -> dict[str, Any]:
        """The field in JSON Schema."""
        schema: dict[str, Any] = {"type": self.kind}
        match self.kind:
            case "choice":
                schema = {"type": "string", "enum": list(self.choices)}
            case "window":
                sides = {side: _window_side(side).schema() for side in _WINDOW_SIDES}
                schema = {
                    "type": "object",
                    "properties": sides,
                    "required": list(_WINDOW_SIDES),
                    "additionalProperties": False,
                }
            case "integer" | "number":
                schema |= {"minimum": self.low, "maximum": self.high}
                if self.multiple > 1:
                    schema["multipleOf"] = self.multiple
        if self.is_nullable:
            schema["type"] = [schema["type"], "null"]
            if "enum" in schema:
                schema["enum"] = [*schema["enum"], None]
        if self.default is not None:
            schema["default"] = self.default
        unit = f" ({self.unit})" if self.unit else ""
        return schema | {"description": f"{self.help}{unit}"}

    def answer_schema(self) -> dict[str, Any]:
        """The field as it is told back, in JSON Schema: without the default, which is no part of an answer."""
        return {name: value for name, value in self.schema().items() if name != "default"}


@dataclass(frozen=True, slots=True)
class Group:
    """What is set with one request: `POST /v1/camera/NAME`.

    Setting it forgets the groups in `replaces`, which would contradict it. `answers` renames fields in the answer.
    `restarts`: a change may restart the stream.
    """

    name: str
    help: str
    fields: tuple[Field, ...]
    replaces: tuple[str, ...] = ()
    answers: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    restarts: bool = False
    is_optional: bool = False  # an empty body is one, too

    @property
    def paths(self) -> tuple[str, str]:
        return f"/v1/camera/{self.name}", f"/camera/{self.name}"

    def row(self, name: str) -> Field:
        """A field that is there for sure."""
        return next(each for each in self.fields if each.name == name)

    def field_named(self, name: str) -> Field | None:
        return next((each for each in self.fields if each.name == name), None)

    def parse(self, body: Any) -> dict[str, Any]:
        """The values of a request's body, checked one by one. Raises BadValue with every fault."""
        if not isinstance(body, Mapping):
            raise BadValue(f"wants a JSON object with {self._names()}")
        faults = [
            f"{name[:60]!r}: no such field; there are {self._names()}"
            for name in body
            if self.field_named(name) is None
        ]
        values: dict[str, Any] = {}
        for each in self.fields:
            if each.name not in body:
                if each.is_required:
                    faults.append(f"{each.name}: is missing; wants {each.rule}")
                continue
            try:
                values[each.name] = each.parse(body[each.name])
            except ValueError as error:
                faults.append(f"{each.name}: wants {error}")
        if not faults and not values and not self.is_optional:
            faults.append(f"wants at least one of {self._names()}")
        if faults:
            raise BadValue("; ".join(faults))
        return values

    def schema(self) -> dict[str, Any]:
        """The body in JSON Schema."""
        required = [each.name for each in self.fields if each.is_required]
        schema: dict[str, Any] = {
            "type": "object",
            "properties": {each.name: each.schema() for each in self.fields},
            "additionalProperties": False,
        }
        if required:
            return schema | {"required": required}
        return schema if self.is_optional else schema | {"minProperties": 1}

    def answer(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """What a change is answered with, as the services before us did."""
        return {"status": "ok"} | {self.answers.get(name, name): value for name, value in values.items()}

    def _names(self) -> str:
        return ", ".join(each.name for each in self.fields) or "none"


def markdown_table() -> str:
    """The README's table of controls: what to post to, its fields, what it does."""
    lines = ["| `/v1/camera/…` | fields | what it does |", "|---|---|---|"]
    for group in GROUPS:
        fields = ", ".join(f"`{row.name}`" if row.is_required else f"[`{row.name}`]" for row in group.fields)
        lines.append(f"| `{group.name}` | {fields} | {group.help} |")
    return "\n".join(lines) + "\n"


def fraction(name: str, help_: str, default: float | None = None, *, is_required: bool = False) -> Field:
    """A part of the picture's width or height."""
    low = _SMALLEST_PART if name in ("width", "height") else 0.0
    return Field(name, "number", help_, default, low, 1.0, is_required=is_required)


def _window_side(side: str) -> Field:
    row = fraction(side, f"{side} of the window")
    return replace(row, high=_FARTHEST_EDGE) if side in ("x", "y") else row


def _choice(name: str, help_: str, choices: Mapping[str, int] | tuple[str, ...], **more: Any) -> Field:
    numbered = choices if isinstance(choices, Mapping) else {word: place for place, word in enumerate(choices)}
    return Field(name, "choice", help_, choices=MappingProxyType(dict(numbered)), **more)


_LONGEST_EXPOSURE_US: Final = 1_000_000_000
_LARGEST_GAIN: Final = 64.0
_ENABLED: Final = "enabled"
_PRESETS: Final = (*NOIR_PRESETS, *AWB_MODES)

GROUPS: Final[tuple[Group, ...]] = (
    Group(
        "auto_exposure", "Automatic exposure on, or held as it is now.",
        (Field(_ENABLED, "boolean", "off holds the exposure and gain of this moment", True, control="AeEnable",
               is_required=True),),
        replaces=("manual_exposure",), answers={_ENABLED: "auto_exposure"},
    ),
    Group(
        "manual_exposure", "Exposure time and gain by hand. A time longer than a frame makes the frame rate fall.",
        (
            Field("exposure_us", "integer", "exposure time", None, 1, _LONGEST_EXPOSURE_US, "µs", "ExposureTime",
                  usual=(100, 100_000), is_required=True),
            Field("gain", "number", "analogue gain; 1.0 where it is left out", 1.0, 0.1, _LARGEST_GAIN, "times",
                  "AnalogueGain", usual=(1, 16)),
        ),
        replaces=("auto_exposure",),
    ),
    Group(
        "exposure_limits", "How far the automatic exposure may go; null lifts a limit.",
        (
            Field("min_exposure_us", "integer", "shortest exposure time; one beyond the frame slows the stream",
                  None, 1, _LONGEST_EXPOSURE_US, "µs", "ExposureTime", usual=(100, 100_000), is_nullable=True),
            Field("max_exposure_us", "integer", "longest exposure time; the frame rate does not fall for it",
                  None, 1, _LONGEST_EXPOSURE_US, "µs", "ExposureTime", usual=(100, 100_000), is_nullable=True),
            Field("min_gain", "number", "smallest analogue gain", None, 1.0, _LARGEST_GAIN, "times", "AnalogueGain",
                  usual=(1, 16), is_nullable=True),
            Field("max_gain", "number", "largest analogue gain", None, 1.0, _LARGEST_GAIN, "times", "AnalogueGain",
                  usual=(1, 16), is_nullable=True),
        ),
    ),
    Group(
        "awb", "Automatic white balance on, or held as it is now.",
        (Field(_ENABLED, "boolean", "off holds the colours of this moment", True, control="AwbEnable",
               is_required=True),),
        replaces=("manual_awb", "awb_preset"), answers={_ENABLED: "awb_enabled"},
    ),
    Group(
        "manual_awb", "White balance by hand.",
        (
            Field("red_gain", "number", "gain of red", None, 0.1, 32.0, "times", "ColourGains", usual=(0.5, 5),
                  is_required=True),
            Field("blue_gain", "number", "gain of blue", None, 0.1, 32.0, "times", "ColourGains", usual=(0.5, 5),
                  is_required=True),
        ),
        replaces=("awb", "awb_preset"),
    ),
    Group(
        "awb_preset", "White balance for a kind of light: fixed gains for cameras without an infrared filter, "
        "or one of libcamera's ranges for the automatic.",
        (_choice("preset", "the light", _PRESETS, default="auto", is_required=True),),
        replaces=("awb", "manual_awb"),
    ),
    Group(
        "autofocus", "Focus once now, and how and where autofocus looks.",
        (
            Field("trigger", "boolean", "run one autofocus cycle now and wait for its end", None),
            _choice("speed", "how fast the lens moves", {"normal": 0, "fast": 1}, default="normal", control="AfSpeed"),
            Field("window", "window", "the part of the picture to focus on, moved along with the zoom and cut at "
                  "the picture's edge; null is the middle", None, control="AfWindows", is_nullable=True),
        ),
    ),
    Group(
        "autofocus_mode", "Who moves the lens: nobody (manual), single cycles (auto), or the camera (continuous).",
        (_choice("mode", "manual leaves the lens where it is", _AF_MODES, control="AfMode", is_required=True),),
        replaces=("lens_position",),
    ),
    Group(
        "lens_position", "Focus by hand; the mode becomes manual.",
        (Field("position", "number", "0 is infinity, 2 half a metre, 10 ten centimetres", None, 0.0, 15.0, "dioptres",
               "LensPosition", is_required=True),),
        replaces=("autofocus_mode",),
    ),
    Group(
        "autofocus_range", "How near autofocus looks.",
        (_choice("range_mode", "the distances that are searched", {"normal": 0, "macro": 1, "full": 2},
                 default="normal", control="AfRange", is_required=True),),
    ),
    Group(
        "image_processing", "How the picture is developed. Fields that are left out stay as they are.",
        (
            Field("brightness", "number", "0 is as it is", 0.0, -1.0, 1.0, control="Brightness"),
            Field("contrast", "number", "1 is as it is", 1.0, 0.0, 32.0, control="Contrast", usual=(0, 2)),
            Field("saturation", "number", "1 is as it is, 0 is grey", 1.0, 0.0, 32.0, control="Saturation",
                  usual=(0, 2)),
            Field("sharpness", "number", "1 is usual, 0 is none", 1.0, 0.0, 16.0, control="Sharpness"),
            _choice("noise_reduction", "the more, the slower", ("off", "fast", "high_quality", "minimal", "zsl"),
                    default="fast", control="NoiseReductionMode"),
            Field("exposure_value", "number", "how much brighter than the automatic thinks right", 0.0, -8.0, 8.0,
                  "EV", "ExposureValue", usual=(-3, 3)),
            _choice("metering", "which part decides the exposure", ("centre", "spot", "matrix"), default="centre",
                    control="AeMeteringMode"),
            _choice("flicker", "exposure times that lamps on this mains do not flicker with",
                    {word: mode for word, (mode, _) in FLICKER.items()}, default="off", control="AeFlickerMode"),
        ),
    ),
    Group(
        "hdr", "More contrast than one exposure holds. sensor: the Camera Module 3's own, at half resolution; "
        "single-exp: by the processor of a Pi 5; auto: the best that there is.",
        (_choice("mode", "off, or who does it", ("off", "auto", "sensor", "single-exp"), default="off",
                 is_required=True),),
        restarts=True,
    ),
    Group(
        "roi", "Digital zoom: the part of the whole picture that is shown. The aspect ratio is kept: the part grows to "
        "the stream's, and is moved to lie within the picture.",
        tuple(
            fraction(side, help_, default, is_required=True)
            for side, help_, default in (
                ("x", "left edge, 0 to 1 of the whole picture's width", 0.0),
                ("y", "top edge, 0 to 1 of the whole picture's height", 0.0),
                ("width", "width, 1 is the whole", 1.0),
                ("height", "height, 1 is the whole", 1.0),
            )
        ),
    ),
    Group(
        "lens_correction", "Straightens what a wide lens bends, where the camera's processor can.",
        (Field(_ENABLED, "boolean", "whether to straighten", True, control="LensDewarpEnable", is_required=True),),
        answers={_ENABLED: "lens_correction_enabled"},
    ),
    Group(
        "transform", "Turn and mirror. 180° and mirroring are done by the camera; 90° and 270° are told in the EXIF "
        "orientation of every picture, which viewers honour.",
        (
            Field("hflip", "boolean", "mirror left and right", False),
            Field("vflip", "boolean", "mirror top and bottom", False),
            Field("rotation", "integer", "clockwise", 0, 0, 270, "degrees", multiple=90),
        ),
        restarts=True,
    ),
    Group(
        "day_night_mode", "A profile for the night, by hand or when it gets dark.",
        (
            _choice("mode", "auto follows the light", ("auto", "day", "night"), default="day"),
            Field("threshold_lux", "number", "below it is night", 10.0, 0.1, 10_000.0, "lux", usual=(1, 100)),
            Field("hysteresis", "number", "it is day again above so many times the threshold", 2.0, 1.0, 10.0, "times"),
            Field("night_saturation", "number", "saturation at night; null leaves it", 0.0, 0.0, 32.0,
                  control="Saturation", usual=(0, 2), is_nullable=True),
            _choice("night_awb_preset", "white balance at night; null leaves it", _PRESETS, is_nullable=True),
            Field("night_exposure_value", "number", "exposure value at night; null leaves it", None, -8.0, 8.0, "EV",
                  "ExposureValue", usual=(-3, 3), is_nullable=True),
        ),
    ),
    Group(
        "stream", "Size and rate of the stream, in place of those in the configuration.",
        (
            Field("width", "integer", "width; null takes it back", None, 64, 8192, "pixels", multiple=2,
                  is_nullable=True),
            Field("height", "integer", "height; null takes it back", None, 64, 8192, "pixels", multiple=2,
                  is_nullable=True),
            Field("fps", "number", "frames in a second; null takes it back", None, 0.1, 240.0, "1/s", is_nullable=True),
        ),
        restarts=True,
    ),
)  # fmt: skip

BY_NAME: Final[Mapping[str, Group]] = MappingProxyType({group.name: group for group in GROUPS})
