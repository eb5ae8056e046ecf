"""From what was asked to what a camera is told: libcamera's controls, what counts at its opening, and what it lacks.

Pure functions over values: no camera, no clock, no thread. Names on the left of a mapping are libcamera's.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from softcam.camera.base import ControlRange, StreamMode, StreamWish
from softcam.controls import geometry
from softcam.controls.autofocus import AfMode
from softcam.controls.geometry import Crop, Rectangle
from softcam.controls.limits import Limits
from softcam.controls.state import Asked, Values
from softcam.controls.table import AWB_MODES, BY_NAME, FLICKER, NOIR_PRESETS, Field, Group

HDR_SINGLE_EXPOSURE: Final = 3  # of libcamera's HdrModeEnum
_READOUT_US: Final = 1_000  # what a frame takes beyond its exposure, generously
_AF_WINDOWS: Final = 1  # of libcamera's AfMeteringEnum

# What gives a control back when nothing asks for it any more, where the camera tells no default of use: 0 hands an
# exposure or a gain back to the automatic, and Picamera2 takes the fast noise reduction for video.
_RESETS: Final[Mapping[str, Any]] = {
    "AeEnable": True,
    "ExposureTime": 0,
    "AnalogueGain": 0.0,
    "AwbEnable": True,
    "AwbMode": 0,
    "AfMetering": 0,
    "NoiseReductionMode": 1,
    "AeFlickerMode": 0,
    "LensDewarpEnable": True,
}
# Controls that have no value to go back to: another one makes them mean nothing.
_NO_RESET: Final = frozenset({"ColourGains", "AfWindows", "AeFlickerPeriod", "LensPosition", "AfMode"})
_ONE_TO_ONE: Final = ("image_processing", "autofocus_range", "lens_correction")


@dataclass(frozen=True, slots=True)
class Plan:
    """What a camera is to be told. `focus` is None where nobody asked; `orientation` is EXIF's."""

    wish: StreamWish
    controls: Mapping[str, Any]
    focus: AfMode | None
    limits: Limits
    orientation: int


def wish_for(asked: Asked, configured: StreamWish) -> StreamWish:
    """What counts when the camera is opened."""
    hflip, vflip = geometry.camera_flips(
        asked.get("transform", "hflip"), asked.get("transform", "vflip"), asked.get("transform", "rotation")
    )
    return replace(
        configured,
        width=asked.get("stream", "width") or configured.width,
        height=asked.get("stream", "height") or configured.height,
        fps=asked.get("stream", "fps") or configured.fps,
        hflip=hflip,
        vflip=vflip,
        hdr=asked.get("hdr", "mode") if asked.get("hdr", "mode") in ("sensor", "auto") else "off",
    )


def plan(asked: Asked, configured: StreamWish, mode: StreamMode | None, *, is_night: bool) -> Plan:
    """All of it, for a camera in this mode; where none is known, without what depends on one."""
    wish = wish_for(asked, configured)
    controls = dict(_controls(asked, wish, mode, is_night=is_night))
    return Plan(
        wish,
        controls,
        focus_mode(asked),
        Limits() if is_exposure_fixed(asked) else Limits(**asked.groups.get("exposure_limits", {})),
        geometry.exif_orientation(asked.get("transform", "rotation")),
    )


def focus_mode(asked: Asked) -> AfMode | None:
    """Who moves the lens; None where nobody has said."""
    if asked.has("lens_position"):
        return AfMode.MANUAL
    word = asked.get("autofocus_mode", "mode")
    return None if word is None else AfMode[word.upper()]


def is_exposure_fixed(asked: Asked) -> bool:
    return asked.has("manual_exposure") or not asked.get("auto_exposure", "enabled")


def is_balance_fixed(asked: Asked, *, is_night: bool = False) -> bool:
    preset = _awb_preset(asked, is_night=is_night)
    if preset is not None:
        return preset in NOIR_PRESETS
    return asked.has("manual_awb") or not asked.get("awb", "enabled")


def _awb_preset(asked: Asked, *, is_night: bool) -> str | None:
    at_night: str | None = asked.get("day_night_mode", "night_awb_preset") if is_night else None
    by_hand: str | None = asked.groups["awb_preset"]["preset"] if asked.has("awb_preset") else None
    return at_night or by_hand


def _controls(asked: Asked, wish: StreamWish, mode: StreamMode | None, *, is_night: bool) -> Iterator[tuple[str, Any]]:
    for name in _ONE_TO_ONE:
        yield from _plain(BY_NAME[name], asked.groups.get(name, {}))
    flicker = asked.groups.get("image_processing", {}).get("flicker")
    if flicker is not None and FLICKER[flicker][1] is not None:
        yield "AeFlickerPeriod", FLICKER[flicker][1]
    yield from _exposure(asked, wish, mode)
    yield from _balance(asked, is_night=is_night)
    yield from _focus(asked)
    if is_night:
        saturation = asked.get("day_night_mode", "night_saturation")
        exposure_value = asked.get("day_night_mode", "night_exposure_value")
        if saturation is not None:
            yield "Saturation", saturation
        if exposure_value is not None:
            yield "ExposureValue", exposure_value
    hdr = asked.get("hdr", "mode")
    if hdr == "single-exp" or (hdr == "auto" and mode is not None and not mode.has_sensor_hdr):
        yield "HdrMode", HDR_SINGLE_EXPOSURE
    yield from _places(asked, mode)


def _plain(group: Group, values: Values) -> Iterator[tuple[str, Any]]:
    """Fields that are one control each."""
    for row in group.fields:
        if row.control is not None and row.name in values:
            value = values[row.name]
            yield row.control, row.choices[value] if row.kind == "choice" else value


def _exposure(asked: Asked, wish: StreamWish, mode: StreamMode | None) -> Iterator[tuple[str, Any]]:
    if asked.has("manual_exposure"):
        exposure_us = asked.get("manual_exposure", "exposure_us")
        yield "AeEnable", False
        yield "ExposureTime", exposure_us
        yield "AnalogueGain", asked.get("manual_exposure", "gain")
        period_us = round(1e6 / wish.fps)
        if exposure_us + _READOUT_US > period_us:
            # The frame's duration bounds the exposure, so the frames have to come more slowly.
            duration_us = exposure_us + _READOUT_US
            limits = None if mode is None else mode.controls.get("FrameDurationLimits")
            if limits is not None and isinstance(limits[1], int) and limits[1] > 0:
                duration_us = min(duration_us, limits[1])
            yield "FrameDurationLimits", (duration_us, duration_us)
    elif not asked.get("auto_exposure", "enabled") and "auto_exposure" in asked.held:
        yield "AeEnable", False
        yield from asked.held["auto_exposure"].items()


def _balance(asked: Asked, *, is_night: bool) -> Iterator[tuple[str, Any]]:
    preset = _awb_preset(asked, is_night=is_night)
    if preset is not None and preset in NOIR_PRESETS:
        yield "AwbEnable", False
        yield "ColourGains", NOIR_PRESETS[preset]
    elif preset is not None:
        yield "AwbEnable", True
        yield "AwbMode", AWB_MODES[preset]
    elif asked.has("manual_awb"):
        yield "AwbEnable", False
        yield "ColourGains", (asked.get("manual_awb", "red_gain"), asked.get("manual_awb", "blue_gain"))
    elif not asked.get("awb", "enabled") and "awb" in asked.held:
        yield "AwbEnable", False
        yield from ((name, tuple(value)) for name, value in asked.held["awb"].items())


def _focus(asked: Asked) -> Iterator[tuple[str, Any]]:
    yield from _plain(
        BY_NAME["autofocus"], {"speed": asked.get("autofocus", "speed")} if asked.has("autofocus") else {}
    )
    mode = focus_mode(asked)
    if mode is AfMode.MANUAL:
        yield "AfMode", int(AfMode.MANUAL)
    if asked.has("lens_position"):
        yield "LensPosition", asked.get("lens_position", "position")


def _places(asked: Asked, mode: StreamMode | None) -> Iterator[tuple[str, Any]]:
    """The crop, and the focus window, which lies in it."""
    crop = crop_of(asked, mode)
    if crop is not None:
        yield "ScalerCrop", crop.pixels
    window = asked.get("autofocus", "window")
    view = None if mode is None else _view(mode, (mode.width, mode.height))
    if window is not None and view is not None:
        yield "AfMetering", _AF_WINDOWS
        yield "AfWindows", [geometry.window_for(window, view if crop is None else crop.pixels)]


def crop_of(asked: Asked, mode: StreamMode | None, size: tuple[int, int] | None = None) -> Crop | None:
    """The zoom in sensor pixels, for a picture of `size` or the stream's; None without zoom, or without a camera."""
    if mode is None or not asked.has("roi") or "ScalerCrop" not in mode.controls:
        return None
    least, most, _ = mode.controls["ScalerCrop"]
    return geometry.crop_for(asked.groups["roi"], tuple(most), (least[2], least[3]), size or (mode.width, mode.height))


def still_controls(asked: Asked, mode: StreamMode, size: tuple[int, int] | None) -> dict[str, Any]:
    """What counts for a still alone: the zoom in its own shape, and none for the whole sensor (`size` None)."""
    if not asked.has("roi") or "ScalerCrop" not in mode.controls:
        return {}
    if size is None:
        view = _view(mode, mode.sensor_size)
        return {} if view is None else {"ScalerCrop": view}
    crop = crop_of(asked, mode, size)
    return {} if crop is None else {"ScalerCrop": crop.pixels}


def _view(mode: StreamMode, size: tuple[int, int]) -> Rectangle | None:
    limits = mode.controls.get("ScalerCrop")
    return None if limits is None else geometry.whole_view(tuple(limits[1]), size)


def reset_value(name: str, mode: StreamMode, wish: StreamWish) -> Any:
    """What gives a control back to the camera; None where nothing has to be sent."""
    if name in _NO_RESET:
        return None
    if name in _RESETS:
        return _RESETS[name]
    if name == "FrameDurationLimits":
        period_us = round(1e6 / wish.fps)
        return period_us, period_us
    if name == "ScalerCrop":
        return _view(mode, (mode.width, mode.height))
    return mode.controls[name][2]


def contradiction(asked: Asked) -> str | None:
    """What no camera could do, by field and rule; None where all goes together."""
    limits = asked.groups.get("exposure_limits", {})
    for least, most in (("min_exposure_us", "max_exposure_us"), ("min_gain", "max_gain")):
        low, high = limits.get(least), limits.get(most)
        if low is not None and high is not None and low > high:
            return f"{least}: wants to be at most {most}, which is {high:.12g}"
    return None


# --- what a camera lacks ---------------------------------------------------------------------------------------------


def lacks(group: Group, values: Values, mode: StreamMode) -> str | None:
    """Why this camera cannot do what was asked, by field and reason; None where it can."""
    faults = [fault for name, value in values.items() if (fault := _lack(group, name, value, mode)) is not None]
    return "; ".join(faults) if faults else None


def _lack(group: Group, name: str, value: Any, mode: StreamMode) -> str | None:
    row = group.field_named(name)
    if row is None or value is None:
        return None
    if group.name == "hdr":
        return _lack_of_hdr(value, mode)
    if group.name == "roi":
        return _lack_of_control("ScalerCrop", mode)
    if group.name == "transform" and value and not mode.can_flip and (name != "rotation" or value != 90):
        return f"{name}: this camera cannot mirror or turn its picture"
    if (group.name, name) == ("autofocus", "trigger"):
        return _lack_of_control("AfMode", mode) if value else None
    if (group.name, name) == ("lens_correction", "enabled") and not value:
        return None
    if name in ("preset", "night_awb_preset"):
        return _lack_of_control("ColourGains" if value in NOIR_PRESETS else "AwbMode", mode)
    if row.control is None:
        return None
    reason = _lack_of_control(row.control, mode)
    return reason if reason is not None else beyond(row, value, mode.controls[row.control])


def _lack_of_control(name: str, mode: StreamMode) -> str | None:
    return None if name in mode.controls else f"this camera has no {name}"


def _lack_of_hdr(word: str, mode: StreamMode) -> str | None:
    has_single = "HdrMode" in mode.controls and _number(mode.controls["HdrMode"][1], 0) >= HDR_SINGLE_EXPOSURE
    match word:
        case "sensor" if not mode.has_sensor_hdr:
            return "mode sensor: this camera's sensor has no HDR"
        case "single-exp" if not has_single:
            return "mode single-exp: this camera has no HDR of single exposures, which takes a Raspberry Pi 5"
        case "auto" if not (has_single or mode.has_sensor_hdr):
            return "mode auto: this camera has no HDR"
    return None


def beyond(row: Field, value: Any, limits: ControlRange) -> str | None:
    """Whether a value is beyond this camera's own range, in words."""
    low, high = limits_of(row, limits)
    if row.kind == "choice":
        number = row.choices[value]
        there = [word for word, each in row.choices.items() if low is None or high is None or low <= each <= high]
        return None if value in there else f"{row.name}: this camera has {', '.join(there)}; {value} is {number}"
    if low is None or high is None or not isinstance(value, int | float) or isinstance(value, bool):
        return None
    # A gain below the sensor's least is what people ask for who want the least.
    if low <= value <= high or (row.control == "AnalogueGain" and value <= high):
        return None
    return f"{row.name}: this camera takes {low:.12g} to {high:.12g}"


def limits_of(row: Field, limits: ControlRange | None) -> tuple[float | None, float | None]:
    """The narrower of the table's range and the camera's, where both are numbers."""
    if limits is None or row.kind in ("boolean", "window"):
        return row.low, row.high
    low, high = _number(limits[0], row.low), _number(limits[1], row.high)
    if row.kind == "choice" or row.low is None or row.high is None:
        return low, high
    if low is None or high is None or low >= high:
        return row.low, row.high
    # libcamera says 0 where it has no bound to tell.
    return max(row.low, low), min(row.high, high) if high > 0 or row.high <= 0 else row.high


def _number(value: Any, otherwise: Any) -> Any:
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and value == value
    return value if is_number else otherwise


def reason_against(group: Group, row: Field, mode: StreamMode) -> str | None:
    """Why this camera has not this field at all, whatever its value; None where it has."""
    match row.kind:
        case "choice":
            words = [word for word in row.choices if word != "off"] if group.name == "hdr" else list(row.choices)
            reasons = [_lack(group, row.name, word, mode) for word in words]
            return reasons[0] if all(reasons) else None
        case "boolean":
            return _lack(group, row.name, True, mode)
    if group.name == "roi":
        return _lack_of_control("ScalerCrop", mode)
    return None if row.control is None else _lack_of_control(row.control, mode)
