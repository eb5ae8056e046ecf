"""The table of controls: names, types, limits and help texts.

Validation, `/v1/camera/controls`, the OpenAPI description, the page's sliders and the table in `docs/controls.md` are
derived from it. The limits here hold for any camera; `capabilities` checks a camera's own, narrower ones. Immutable, so
any thread may read it.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from softcam.controls.fields import Field, Group, choice, fraction

# Red and blue gain of fixed white balance for cameras without an infrared filter. Starting points, as lamps and sensors
# differ: under infrared light alone all colours of the mosaic respond about equally, so the gains are close to one.
NOIR_PRESETS: Final[Mapping[str, tuple[float, float]]] = MappingProxyType(
    {"daylight_noir": (1.5, 1.6), "ir_850nm": (1.05, 1.15), "ir_940nm": (1.0, 1.0), "indoor_noir": (1.3, 2.4)}
)
# The order of libcamera's AwbModeEnum; "custom" is a mode of the user's own tuning file.
AWB_MODES: Final = ("auto", "incandescent", "tungsten", "fluorescent", "indoor", "daylight", "cloudy", "custom")
# By libcamera's number; fixed gains have none, and 0 is in the range of every camera.
_PRESETS: Final = {**dict.fromkeys(NOIR_PRESETS, 0), **{word: number for number, word in enumerate(AWB_MODES)}}


def _exposure_us(name: str, help_: str, **more: Any) -> Field:
    return Field(name, "integer", help_, None, 1, 1_000_000_000, "µs", "ExposureTime", usual=(100, 100_000), **more)


def _gain(name: str, help_: str, default: float | None = None, low: float = 1.0, **more: Any) -> Field:
    return Field(name, "number", help_, default, low, 64.0, "times", "AnalogueGain", usual=(1, 16), **more)


def _colour_gain(name: str, help_: str, example: float) -> Field:
    usual = (0.5, 5)
    return Field(
        name, "number", help_, None, 0.1, 32.0, "times", "ColourGains", usual=usual, is_required=True, example=example
    )


def _enabled(help_: str, control: str) -> Field:
    return Field("enabled", "boolean", help_, True, control=control, is_required=True)


GROUPS: Final[tuple[Group, ...]] = (
    Group(
        "auto_exposure", "Automatic exposure on, or frozen at its current values.",
        (_enabled("off freezes exposure time and gain at their current values", "AeEnable"),),
        replaces=("manual_exposure",), answers={"enabled": "auto_exposure"},
    ),
    Group(
        "manual_exposure", "Fixed exposure time and gain. An exposure time longer than a frame reduces the frame rate.",
        (
            _exposure_us("exposure_us", "exposure time", is_required=True, example=20_000),
            _gain("gain", "analogue gain, at least the sensor's minimum; 1.0 if omitted", 1.0, 0.1, example=2.0),
        ),
        replaces=("auto_exposure",),
    ),
    Group(
        "exposure_limits", "Limits of the automatic exposure; null removes a limit.",
        (
            _exposure_us("min_exposure_us", "minimum exposure time; reduces the frame rate if longer than a frame",
                         is_nullable=True),
            _exposure_us("max_exposure_us", "maximum exposure time; does not reduce the frame rate", is_nullable=True,
                         example=20_000),
            _gain("min_gain", "minimum analogue gain", is_nullable=True),
            _gain("max_gain", "maximum analogue gain", is_nullable=True),
        ),
    ),
    Group(
        "ae_exposure_mode", "Balance of the automatic exposure between exposure time and gain.",
        (choice("mode", "short: shorter times, more gain; long: longer times, less gain; custom: of your tuning file",
                ("normal", "short", "long", "custom"), default="normal", control="AeExposureMode", is_required=True),),
    ),
    Group(
        "ae_constraint_mode", "What the automatic exposure protects: highlights or shadows.",
        (choice("mode", "highlight: bright parts of the image; shadows: dark ones; custom: of your tuning file",
                ("normal", "highlight", "shadows", "custom"), default="normal", control="AeConstraintMode",
                is_required=True),),
    ),
    Group(
        "awb", "Automatic white balance on, or frozen at its current values.",
        (_enabled("off freezes the colour gains at their current values", "AwbEnable"),),
        replaces=("manual_awb", "awb_preset"), answers={"enabled": "awb_enabled"},
    ),
    Group(
        "manual_awb", "Fixed white balance.",
        (_colour_gain("red_gain", "red gain", 1.5), _colour_gain("blue_gain", "blue gain", 1.8)),
        replaces=("awb", "awb_preset"),
    ),
    Group(
        "awb_preset", "White balance preset: fixed gains for cameras without an infrared filter, or a range of "
        "colour temperatures for the automatic white balance.",
        (choice("preset", "light source", _PRESETS, default="auto", is_required=True),),
        replaces=("awb", "manual_awb"),
    ),
    Group(
        "autofocus", "Run autofocus once; autofocus speed and window.",
        (
            Field("trigger", "boolean", "run one autofocus cycle and wait for its result", None),
            choice("speed", "autofocus speed", ("normal", "fast"), default="normal", control="AfSpeed"),
            Field("window", "window", "part of the image to focus on, relative to the zoomed image and cropped to it; "
                  "null is the centre", None, control="AfWindows", is_nullable=True),
        ),
    ),
    Group(
        "autofocus_mode", "Focus mode: manual, auto (single cycles) or continuous.",
        (choice("mode", "manual keeps the lens where it is", ("manual", "auto", "continuous"), control="AfMode",
                is_required=True, example="continuous"),),
        replaces=("lens_position",),
    ),
    Group(
        "lens_position", "Manual focus; sets the focus mode to manual.",
        (Field("position", "number", "0 is infinity, 2 is half a metre, 10 is ten centimetres", None, 0.0, 15.0,
               "dioptres", "LensPosition", is_required=True, example=2.0),),
        replaces=("autofocus_mode",),
    ),
    Group(
        "autofocus_range", "Focus range of autofocus.",
        (choice("range_mode", "distances to search", ("normal", "macro", "full"),
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
            choice("noise_reduction", "stronger noise reduction is slower",
                    ("off", "fast", "high_quality", "minimal", "zsl"), default="fast", control="NoiseReductionMode"),
            Field("exposure_value", "number", "exposure compensation of the automatic exposure", 0.0, -8.0, 8.0,
                  "EV", "ExposureValue", usual=(-3, 3)),
            choice("metering", "exposure metering mode", ("centre", "spot", "matrix"), default="centre",
                    control="AeMeteringMode"),
            choice("flicker", "flicker avoidance, by mains frequency", {"off": 0, "50hz": 1, "60hz": 1, "auto": 2},
                   default="off", control="AeFlickerMode"),
        ),
    ),
    Group(
        "hdr", "High dynamic range. sensor: HDR of the Camera Module 3's sensor, at half resolution; "
        "single-exp: single-exposure HDR of a Raspberry Pi 5; auto: the best one available.",
        (choice("mode", "HDR mode", ("off", "auto", "sensor", "single-exp"), default="off", is_required=True),),
        has_restart=True,
    ),
    Group(
        "roi", "Digital zoom: the part of the unzoomed image to show. The part is enlarged to the aspect ratio of the "
        "stream, and moved to lie within the image.",
        (
            fraction("x", "left edge, as a fraction of the image width", 0.0, example=0.25),
            fraction("y", "top edge, as a fraction of the image height", 0.0, example=0.25),
            fraction("width", "width, as a fraction of the image width", 1.0, example=0.5),
            fraction("height", "height, as a fraction of the image height", 1.0, example=0.5),
        ),
    ),
    Group(
        "fov_mode", "Field of view. scale: the whole field of view at every size; crop: the middle of the sensor, one "
        "pixel of it for each pixel of the image, as with a longer lens.",
        (choice("mode", "scale: whole field of view; crop: middle of the sensor; null returns to the configured one",
                ("scale", "crop"), is_required=True, is_nullable=True),),
        has_restart=True,
    ),
    Group(
        "lens_correction", "Lens distortion correction, if the camera supports it.",
        (_enabled("correct lens distortion", "LensDewarpEnable"),), answers={"enabled": "lens_correction_enabled"},
    ),
    Group(
        "transform", "Rotate and flip. The camera flips the image and rotates it by 180°; 90° and 270° are set as the "
        "EXIF orientation of every image, which viewers apply.",
        (
            Field("hflip", "boolean", "flip horizontally", False),
            Field("vflip", "boolean", "flip vertically", False),
            Field("rotation", "integer", "clockwise", 0, 0, 270, "degrees", multiple=90),
        ),
        has_restart=True,
    ),
    Group(
        "day_night_mode", "Night profile, switched manually or by the measured light.",
        (
            choice("mode", "auto switches by the measured light", ("auto", "day", "night"), default="day"),
            Field("threshold_lux", "number", "night begins below this light", 10.0, 0.1, 10_000.0, "lux",
                  usual=(1, 100)),
            Field("hysteresis", "number", "day begins above this multiple of the threshold", 2.0, 1.0, 10.0, "times"),
            Field("night_saturation", "number", "saturation at night; null keeps that of the day", 0.0, 0.0, 32.0,
                  control="Saturation", usual=(0, 2), is_nullable=True),
            choice("night_awb_preset", "white balance preset at night; null keeps the white balance of the day",
                    _PRESETS, is_nullable=True),
            Field("night_exposure_value", "number", "exposure compensation at night; null keeps that of the day", None,
                  -8.0, 8.0, "EV", "ExposureValue", usual=(-3, 3), is_nullable=True),
        ),
    ),
    Group(
        "stream", "Size and frame rate of the stream; override the configuration.",
        (
            Field("width", "integer", "width; null returns to the configured one", None, 64, 8192, "pixels", multiple=2,
                  is_nullable=True, example=1280),
            Field("height", "integer", "height; null returns to the configured one", None, 64, 8192, "pixels",
                  multiple=2, is_nullable=True, example=720),
            Field("fps", "number", "frame rate; null returns to the configured one", None, 0.1, 240.0, "1/s",
                  is_nullable=True, example=30.0),
        ),
        has_restart=True,
    ),
)  # fmt: skip

BY_NAME: Final[Mapping[str, Group]] = MappingProxyType({group.name: group for group in GROUPS})


def markdown_table() -> str:
    """The table in `docs/controls.md`: path, fields, help."""
    lines = ["| `/v1/camera/…` | fields | description |", "|---|---|---|"]
    for group in GROUPS:
        fields = ", ".join(f"`{row.name}`" if row.is_required else f"[`{row.name}`]" for row in group.fields)
        lines.append(f"| `{group.name}` | {fields} | {group.help} |")
    return "\n".join(lines) + "\n"
