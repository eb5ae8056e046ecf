"""The table of controls: names, types, limits and help texts.

Validation, `/v1/camera/controls`, the OpenAPI description, the page's sliders and the table in the README are derived
from it. The limits here hold for any camera; `capabilities` checks a camera's own, narrower ones. Immutable, so any
thread may read it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final, Literal

Kind = Literal["boolean", "integer", "number", "choice", "window"]

# Red and blue gain of fixed white balance for cameras without an infrared filter. Starting points, as lamps and sensors
# differ: under infrared light alone all colours of the mosaic respond about equally, so the gains are close to one.
NOIR_PRESETS: Final[Mapping[str, tuple[float, float]]] = MappingProxyType(
    {"daylight_noir": (1.5, 1.6), "ir_850nm": (1.05, 1.15), "ir_940nm": (1.0, 1.0), "indoor_noir": (1.3, 2.4)}
)
# libcamera's AwbModeEnum
AWB_MODES: Final[Mapping[str, int]] = MappingProxyType(
    {"auto": 0, "incandescent": 1, "tungsten": 2, "fluorescent": 3, "indoor": 4, "daylight": 5, "cloudy": 6}
)
# libcamera's AeFlickerModeEnum, and AeFlickerPeriod in microseconds: a lamp flickers twice in each mains period.
FLICKER: Final[Mapping[str, tuple[int, int | None]]] = MappingProxyType(
    {"off": (0, None), "50hz": (1, 10_000), "60hz": (1, 8_333), "auto": (2, None)}
)
_AF_MODES: Final = MappingProxyType({"manual": 0, "auto": 1, "continuous": 2})
_WINDOW_SIDES: Final = ("x", "y", "width", "height")
_SMALLEST_PART: Final = 0.01  # of the image's side; no sensor can crop to less
_FARTHEST_EDGE: Final = 1 - _SMALLEST_PART  # a window that starts beyond it lies outside the image


class BadValue(ValueError):
    """A body is invalid; the message has every error as "field: must be …"."""


@dataclass(frozen=True, slots=True)
class Field:
    """One value: a row of the table.

    `low` and `high` are inclusive. `choices` maps each word to libcamera's number, if the control is that number alone.
    `control` is libcamera's name, None if there is none or more than one. `usual` is the range of a slider. A field
    with a `default` of None is unset at first; `is_nullable` allows it to be unset again. `high_of` is the setting that
    determines `high`, if one does.
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
        """The text that follows "must be "."""
        tail = " or null" if self.is_nullable else ""
        match self.kind:
            case "boolean":
                return f"true or false{tail}"
            case "choice":
                return f"one of {', '.join(self.choices)}{tail}"
            case "window":
                return (
                    "an object with x, y, width and height, fractions of the image from 0 to 1, "
                    f"x and y at most {_FARTHEST_EDGE:g}{tail}"
                )
        number = "an integer" if self.kind == "integer" else "a number"
        if self.multiple > 1:
            number = f"a multiple of {self.multiple}"
        why = f" (set by {self.high_of})" if self.high_of else ""
        return f"{number} from {self.low:.12g} to {self.high:.12g}{why}{tail}"

    def parse(self, value: Any) -> Any:
        """The value in the field's type. Raises ValueError with the rule."""
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
        # Compared before any conversion: a huge integer overflows a float. NaN is in no range.
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
        except ValueError as error:  # its rule is of a number and does not name the side
            raise ValueError(self.rule) from error
        return {side: float(part) for side, part in parts.items()}

    def schema(self) -> dict[str, Any]:
        """The field's JSON Schema."""
        schema: dict[str, Any] = {"type": self.kind}
        match self.kind:
            case "choice":
                schema = {"type": "string", "enum": list(self.choices)}
            case "window":
                sides = {side: _window_side(side).schema() for side in _WINDOW_SIDES}
                schema = {"type": "object", "properties": sides, "required": list(sides), "additionalProperties": False}
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
        """The field's JSON Schema in an answer: without the default, which applies to requests only."""
        return {name: value for name, value in self.schema().items() if name != "default"}


@dataclass(frozen=True, slots=True)
class Group:
    """The values of one request: `POST /v1/camera/NAME`.

    Setting it removes the groups in `replaces`, which would contradict it. `answers` renames fields in the answer.
    `restarts`: a change may restart the stream. `is_optional`: the body may be empty.
    """

    name: str
    help: str
    fields: tuple[Field, ...]
    replaces: tuple[str, ...] = ()
    answers: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    restarts: bool = False
    is_optional: bool = False

    @property
    def paths(self) -> tuple[str, str]:
        return f"/v1/camera/{self.name}", f"/camera/{self.name}"

    def row(self, name: str) -> Field:
        """The field with this name, which must exist."""
        return next(each for each in self.fields if each.name == name)

    def field_named(self, name: str) -> Field | None:
        return next((each for each in self.fields if each.name == name), None)

    def parse(self, body: Any) -> dict[str, Any]:
        """The values of a request's body. Raises BadValue with every error."""
        if not isinstance(body, Mapping):
            raise BadValue(f"body: must be a JSON object with {self._names()}")
        errors = [
            f"{name[:60]!r}: unknown field; expected one of {self._names()}"
            for name in body
            if self.field_named(name) is None
        ]
        values: dict[str, Any] = {}
        for each in self.fields:
            if each.name not in body:
                if each.is_required:
                    errors.append(f"{each.name}: is missing; must be {each.rule}")
                continue
            try:
                values[each.name] = each.parse(body[each.name])
            except ValueError as error:
                errors.append(f"{each.name}: must be {error}")
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
        """The answer to a change; its form is that of the services that this one replaces."""
        return {"status": "ok"} | {self.answers.get(name, name): value for name, value in values.items()}

    def _names(self) -> str:
        return ", ".join(each.name for each in self.fields) or "none"


def markdown_table() -> str:
    """The README's table of controls: path, fields, help."""
    lines = ["| `/v1/camera/…` | fields | description |", "|---|---|---|"]
    for group in GROUPS:
        fields = ", ".join(f"`{row.name}`" if row.is_required else f"[`{row.name}`]" for row in group.fields)
        lines.append(f"| `{group.name}` | {fields} | {group.help} |")
    return "\n".join(lines) + "\n"


def fraction(name: str, help_: str, default: float | None = None, *, is_required: bool = False) -> Field:
    """A fraction of the image's width or height."""
    low = _SMALLEST_PART if name in ("width", "height") else 0.0
    return Field(name, "number", help_, default, low, 1.0, is_required=is_required)


def _window_side(side: str) -> Field:
    row = fraction(side, f"{side} of the window, as a fraction of the image")
    return replace(row, high=_FARTHEST_EDGE) if side in ("x", "y") else row


def _choice(name: str, help_: str, choices: Mapping[str, int] | tuple[str, ...], **more: Any) -> Field:
    numbered = choices if isinstance(choices, Mapping) else {word: index for index, word in enumerate(choices)}
    return Field(name, "choice", help_, choices=MappingProxyType(dict(numbered)), **more)


_LONGEST_EXPOSURE_US: Final = 1_000_000_000
_LARGEST_GAIN: Final = 64.0
_ENABLED: Final = "enabled"
_PRESETS: Final = (*NOIR_PRESETS, *AWB_MODES)

GROUPS: Final[tuple[Group, ...]] = (
    Group(
        "auto_exposure", "Automatic exposure on, or frozen at its current values.",
        (Field(_ENABLED, "boolean", "off freezes exposure time and gain at their current values", True,
               control="AeEnable", is_required=True),),
        replaces=("manual_exposure",), answers={_ENABLED: "auto_exposure"},
    ),
    Group(
        "manual_exposure", "Fixed exposure time and gain. An exposure time longer than a frame reduces the frame rate.",
        (
            Field("exposure_us", "integer", "exposure time", None, 1, _LONGEST_EXPOSURE_US, "µs", "ExposureTime",
                  usual=(100, 100_000), is_required=True),
            Field("gain", "number", "analogue gain; 1.0 if omitted", 1.0, 0.1, _LARGEST_GAIN, "times",
                  "AnalogueGain", usual=(1, 16)),
        ),
        replaces=("auto_exposure",),
    ),
    Group(
        "exposure_limits", "Limits of the automatic exposure; null removes a limit.",
        (
            Field("min_exposure_us", "integer", "minimum exposure time; reduces the frame rate if longer than a frame",
                  None, 1, _LONGEST_EXPOSURE_US, "µs", "ExposureTime", usual=(100, 100_000), is_nullable=True),
            Field("max_exposure_us", "integer", "maximum exposure time; does not reduce the frame rate",
                  None, 1, _LONGEST_EXPOSURE_US, "µs", "ExposureTime", usual=(100, 100_000), is_nullable=True),
            Field("min_gain", "number", "minimum analogue gain", None, 1.0, _LARGEST_GAIN, "times", "AnalogueGain",
                  usual=(1, 16), is_nullable=True),
            Field("max_gain", "number", "maximum analogue gain", None, 1.0, _LARGEST_GAIN, "times", "AnalogueGain",
                  usual=(1, 16), is_nullable=True),
        ),
    ),
    Group(
        "awb", "Automatic white balance on, or frozen at its current values.",
        (Field(_ENABLED, "boolean", "off freezes the colour gains at their current values", True, control="AwbEnable",
               is_required=True),),
        replaces=("manual_awb", "awb_preset"), answers={_ENABLED: "awb_enabled"},
    ),
    Group(
        "manual_awb", "Fixed white balance.",
        (
            Field("red_gain", "number", "red gain", None, 0.1, 32.0, "times", "ColourGains", usual=(0.5, 5),
                  is_required=True),
            Field("blue_gain", "number", "blue gain", None, 0.1, 32.0, "times", "ColourGains", usual=(0.5, 5),
                  is_required=True),
        ),
        replaces=("awb", "awb_preset"),
    ),
    Group(
        "awb_preset", "White balance preset: fixed gains for cameras without an infrared filter, or a range of "
        "colour temperatures for the automatic white balance.",
        (_choice("preset", "light source", _PRESETS, default="auto", is_required=True),),
        replaces=("awb", "manual_awb"),
    ),
    Group(
        "autofocus", "Run autofocus once; autofocus speed and window.",
        (
            Field("trigger", "boolean", "run one autofocus cycle and wait for its result", None),
            _choice("speed", "autofocus speed", {"normal": 0, "fast": 1}, default="normal", control="AfSpeed"),
            Field("window", "window", "part of the image to focus on, relative to the zoomed image and cropped to it; "
                  "null is the centre", None, control="AfWindows", is_nullable=True),
        ),
    ),
    Group(
        "autofocus_mode", "Focus mode: manual, auto (single cycles) or continuous.",
        (_choice("mode", "manual keeps the lens where it is", _AF_MODES, control="AfMode", is_required=True),),
        replaces=("lens_position",),
    ),
    Group(
        "lens_position", "Manual focus; sets the focus mode to manual.",
        (Field("position", "number", "0 is infinity, 2 is half a metre, 10 is ten centimetres", None, 0.0, 15.0,
               "dioptres", "LensPosition", is_required=True),),
        replaces=("autofocus_mode",),
    ),
    Group(
        "autofocus_range", "Focus range of autofocus.",
        (_choice("range_mode", "distances to search", {"normal": 0, "macro": 1, "full": 2},
                 default="normal", control="AfRange", is_required=True),),
    ),
    Group(
        "image_processing", "Image processing. Omitted fields are unchanged.",
        (
            Field("brightness", "number", "0 is neutral", 0.0, -1.0, 1.0, control="Brightness"),
            Field("contrast", "number", "1 is neutral", 1.0, 0.0, 32.0, control="Contrast", usual=(0, 2)),
            Field("saturation", "number", "1 is neutral, 0 is monochrome", 1.0, 0.0, 32.0, control="Saturation",
                  usual=(0, 2)),
            Field("sharpness", "number", "1 is normal, 0 is none", 1.0, 0.0, 16.0, control="Sharpness"),
            _choice("noise_reduction", "stronger noise reduction is slower",
                    ("off", "fast", "high_quality", "minimal", "zsl"), default="fast", control="NoiseReductionMode"),
            Field("exposure_value", "number", "exposure compensation of the automatic exposure", 0.0, -8.0, 8.0,
                  "EV", "ExposureValue", usual=(-3, 3)),
            _choice("metering", "exposure metering mode", ("centre", "spot", "matrix"), default="centre",
                    control="AeMeteringMode"),
            _choice("flicker", "flicker avoidance, by mains frequency",
                    {word: mode for word, (mode, _) in FLICKER.items()}, default="off", control="AeFlickerMode"),
        ),
    ),
    Group(
        "hdr", "High dynamic range. sensor: HDR of the Camera Module 3's sensor, at half resolution; "
        "single-exp: single-exposure HDR of a Raspberry Pi 5; auto: the best one available.",
        (_choice("mode", "HDR mode", ("off", "auto", "sensor", "single-exp"), default="off",
                 is_required=True),),
        restarts=True,
    ),
    Group(
        "roi", "Digital zoom: the part of the unzoomed image to show. The part is enlarged to the aspect ratio of the "
        "stream, and moved to lie within the image.",
        tuple(
            fraction(side, help_, default, is_required=True)
            for side, help_, default in (
                ("x", "left edge, as a fraction of the image width", 0.0),
                ("y", "top edge, as a fraction of the image height", 0.0),
                ("width", "width, as a fraction of the image width", 1.0),
                ("height", "height, as a fraction of the image height", 1.0),
            )
        ),
    ),
    Group(
        "lens_correction", "Lens distortion correction, if the camera supports it.",
        (Field(_ENABLED, "boolean", "correct lens distortion", True, control="LensDewarpEnable", is_required=True),),
        answers={_ENABLED: "lens_correction_enabled"},
    ),
    Group(
        "transform", "Rotate and flip. The camera flips the image and rotates it by 180°; 90° and 270° are set as the "
        "EXIF orientation of every image, which viewers apply.",
        (
            Field("hflip", "boolean", "flip horizontally", False),
            Field("vflip", "boolean", "flip vertically", False),
            Field("rotation", "integer", "clockwise", 0, 0, 270, "degrees", multiple=90),
        ),
        restarts=True,
    ),
    Group(
        "day_night_mode", "Night profile, switched manually or by the measured light.",
        (
            _choice("mode", "auto switches by the measured light", ("auto", "day", "night"), default="day"),
            Field("threshold_lux", "number", "night begins below this light", 10.0, 0.1, 10_000.0, "lux",
                  usual=(1, 100)),
            Field("hysteresis", "number", "day begins above this multiple of the threshold", 2.0, 1.0, 10.0, "times"),
            Field("night_saturation", "number", "saturation at night; null keeps that of the day", 0.0, 0.0, 32.0,
                  control="Saturation", usual=(0, 2), is_nullable=True),
            _choice("night_awb_preset", "white balance preset at night; null keeps the white balance of the day",
                    _PRESETS, is_nullable=True),
            Field("night_exposure_value", "number", "exposure compensation at night; null keeps that of the day", None,
                  -8.0, 8.0, "EV", "ExposureValue", usual=(-3, 3), is_nullable=True),
        ),
    ),
    Group(
        "stream", "Size and frame rate of the stream; override the configuration.",
        (
            Field("width", "integer", "width; null returns to the configured one", None, 64, 8192, "pixels", multiple=2,
                  is_nullable=True),
            Field("height", "integer", "height; null returns to the configured one", None, 64, 8192, "pixels",
                  multiple=2, is_nullable=True),
            Field("fps", "number", "frame rate; null returns to the configured one", None, 0.1, 240.0, "1/s",
                  is_nullable=True),
        ),
        restarts=True,
    ),
)  # fmt: skip

BY_NAME: Final[Mapping[str, Group]] = MappingProxyType({group.name: group for group in GROUPS})
