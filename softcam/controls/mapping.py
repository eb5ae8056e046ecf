"""From what was asked to what a camera is told: libcamera's controls, and what counts at its opening.

Pure functions over values: no camera, no clock, no thread. Names on the left of a mapping are libcamera's.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Final

from softcam.camera.base import ControlRange, StreamConfig, StreamRequest
from softcam.camera.session.autofocus_cycle import AfMode
from softcam.controls import geometry
from softcam.controls.capabilities import HDR_SINGLE_EXPOSURE, fitted, has_single_hdr
from softcam.controls.exposure_limits import Limits
from softcam.controls.geometry import Crop, Rectangle
from softcam.controls.schema import AWB_MODES, BY_NAME, FLICKER, NOIR_PRESETS, Group
from softcam.controls.state import RequestedControls, Values

_READOUT_US: Final = 1_000  # what a frame takes beyond its exposure, generously
_AF_WINDOWS: Final = 1  # of libcamera's AfMeteringEnum

# What gives a control back when nothing asks for it any more, where the camera tells no default of use: 0 hands an
# exposure or a gain back to the automatic, and Picamera2 takes the fast noise reduction for video.
_RESETS: Final[Mapping[str, Any]] = {
    "AeEnable": True,
    "ExposureTime": 0,
    "AnalogueGain": 0.0,
    "AwbEnable": True,
    # Not left out: a camera is told again after a still what it was told before, in no order, and gains other than 0
    # would switch the automatic off.
    "ColourGains": (0.0, 0.0),
    "AwbMode": 0,
    "AfMetering": 0,
    "NoiseReductionMode": 1,
    "AeFlickerMode": 0,
    "LensDewarpEnable": True,
}
# Controls that have no value to go back to: another one makes them mean nothing.
_NO_RESET: Final = frozenset({"AfWindows", "AeFlickerPeriod", "LensPosition", "AfMode"})
# What the night's profile lies over, by group and field, and by which of its fields.
NIGHT_FIELDS: Final[Mapping[tuple[str, str], str]] = MappingProxyType(
    {
        ("image_processing", "saturation"): "night_saturation",
        ("image_processing", "exposure_value"): "night_exposure_value",
        ("awb", "enabled"): "night_awb_preset",
        ("awb_preset", "preset"): "night_awb_preset",
        ("manual_awb", "red_gain"): "night_awb_preset",
        ("manual_awb", "blue_gain"): "night_awb_preset",
    }
)
_ONE_TO_ONE: Final = ("image_processing", "autofocus_range", "lens_correction")


@dataclass(frozen=True, slots=True)
class ControlPlan:
    """What a camera is to be told. `focus` is None where nobody asked; `orientation` is EXIF's."""

    wish: StreamRequest
    controls: Mapping[str, Any]
    focus: AfMode | None
    limits: Limits
    orientation: int


def wish_for(asked: RequestedControls, configured: StreamRequest) -> StreamRequest:
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


def plan(
    asked: RequestedControls, configured: StreamRequest, mode: StreamConfig | None, *, is_night: bool
) -> ControlPlan:
    """All of it, for a camera in this mode; where none is known, without what depends on one."""
    wish = wish_for(asked, configured)
    controls = {name: fitted(name, value, mode) for name, value in _controls(asked, wish, mode, is_night=is_night)}
    return ControlPlan(
        wish,
        controls,
        focus_mode(asked),
        _limits(asked, mode),
        geometry.exif_orientation(asked.get("transform", "rotation")),
    )


def _limits(asked: RequestedControls, mode: StreamConfig | None) -> Limits:
    if is_exposure_fixed(asked):
        return Limits()
    group = BY_NAME["exposure_limits"]
    values = asked.groups.get(group.name, {})
    return Limits(**{name: fitted(group.row(name).control, value, mode) for name, value in values.items()})


def focus_mode(asked: RequestedControls) -> AfMode | None:
    """Who moves the lens; None where nobody has said."""
    if asked.has("lens_position"):
        return AfMode.MANUAL
    word = asked.get("autofocus_mode", "mode")
    return None if word is None else AfMode[word.upper()]


def is_exposure_fixed(asked: RequestedControls) -> bool:
    return asked.has("manual_exposure") or not asked.get("auto_exposure", "enabled")


def is_balance_fixed(asked: RequestedControls, *, is_night: bool = False) -> bool:
    preset = awb_preset(asked, is_night=is_night)
    if preset is not None:
        return preset in NOIR_PRESETS
    return asked.has("manual_awb") or not asked.get("awb", "enabled")


def awb_preset(asked: RequestedControls, *, is_night: bool) -> str | None:
    """The preset that counts, the night's before the other; None where there is none."""
    at_night: str | None = asked.get("day_night_mode", "night_awb_preset") if is_night else None
    by_hand: str | None = asked.groups["awb_preset"]["preset"] if asked.has("awb_preset") else None
    return at_night or by_hand


def _controls(
    asked: RequestedControls, wish: StreamRequest, mode: StreamConfig | None, *, is_night: bool
) -> Iterator[tuple[str, Any]]:
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
    if mode is not None and has_single_hdr(mode):
        hdr = asked.get("hdr", "mode")
        if hdr == "single-exp" or (hdr == "auto" and not mode.has_sensor_hdr):
            yield "HdrMode", HDR_SINGLE_EXPOSURE
    yield from _places(asked, mode)


def _plain(group: Group, values: Values) -> Iterator[tuple[str, Any]]:
    """Fields that are one control each."""
    for row in group.fields:
        if row.control is not None and row.name in values:
            value = values[row.name]
            yield row.control, row.choices[value] if row.kind == "choice" else value


def _exposure(asked: RequestedControls, wish: StreamRequest, mode: StreamConfig | None) -> Iterator[tuple[str, Any]]:
    if asked.has("manual_exposure"):
        yield "AeEnable", False
        yield "ExposureTime", asked.get("manual_exposure", "exposure_us")
        yield "AnalogueGain", asked.get("manual_exposure", "gain")
    elif not asked.get("auto_exposure", "enabled") and "auto_exposure" in asked.held:
        yield "AeEnable", False
        yield from asked.held["auto_exposure"].items()
    duration_us = frame_duration_us(asked, wish, mode)
    if duration_us is not None:
        yield "FrameDurationLimits", (duration_us, duration_us)


def frame_duration_us(asked: RequestedControls, wish: StreamRequest, mode: StreamConfig | None) -> int | None:
    """How long frames take whose exposure is to be longer than the rate allows; None where it is not.

    A frame's duration bounds the exposure, so the frames have to come more slowly.
    """
    if asked.has("manual_exposure"):
        exposure_us = asked.get("manual_exposure", "exposure_us")
    elif not asked.get("auto_exposure", "enabled"):
        exposure_us = asked.held.get("auto_exposure", {}).get("ExposureTime", 0)
    else:
        exposure_us = asked.get("exposure_limits", "min_exposure_us") or 0
    duration_us = int(fitted("ExposureTime", exposure_us, mode)) + _READOUT_US
    if duration_us <= round(1e6 / wish.fps):
        return None
    limits = None if mode is None else mode.controls.get("FrameDurationLimits")
    if limits is not None and isinstance(limits[1], int) and limits[1] > 0:
        duration_us = min(duration_us, limits[1])
    return duration_us


def limits_notes(asked: RequestedControls, wish: StreamRequest, mode: StreamConfig | None) -> Iterator[str]:
    """What is to be said of exposure limits as they stand."""
    if is_exposure_fixed(asked):
        yield "the exposure is set by hand: the limits count when it is automatic again"
        return
    duration_us = frame_duration_us(asked, wish, mode)
    if duration_us is not None:
        yield f"min_exposure_us: the frames come more slowly, {1e6 / duration_us:.3g} in a second"
    most_us = (duration_us or round(1e6 / wish.fps)) - _READOUT_US
    longest_us = asked.get("exposure_limits", "max_exposure_us")
    if longest_us is not None and longest_us > most_us:
        yield f"max_exposure_us: the frame rate allows {most_us} at the most"


def night_notes(group: Group, values: Values, asked: RequestedControls) -> Iterator[str]:
    """What is to be said at night of what was just set: where the night's profile lies over it, nothing of it shows."""
    for name in values:
        told = NIGHT_FIELDS.get((group.name, name))
        instead = None if told is None else asked.get("day_night_mode", told)
        if instead is not None:
            word = instead if isinstance(instead, str) else f"{instead:g}"
            yield f"{name}: it is night, and {told} counts, which is {word}"


def _balance(asked: RequestedControls, *, is_night: bool) -> Iterator[tuple[str, Any]]:
    preset = awb_preset(asked, is_night=is_night)
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


def _focus(asked: RequestedControls) -> Iterator[tuple[str, Any]]:
    yield from _plain(
        BY_NAME["autofocus"], {"speed": asked.get("autofocus", "speed")} if asked.has("autofocus") else {}
    )
    mode = focus_mode(asked)
    if mode is AfMode.MANUAL:
        yield "AfMode", int(AfMode.MANUAL)
    if asked.has("lens_position"):
        yield "LensPosition", asked.get("lens_position", "position")
    elif mode is AfMode.MANUAL:
        yield from asked.held.get("autofocus_mode", {}).items()


def _places(asked: RequestedControls, mode: StreamConfig | None) -> Iterator[tuple[str, Any]]:
    """The crop, and the focus window, which lies in it."""
    crop = crop_of(asked, mode)
    if crop is not None:
        yield "ScalerCrop", crop.pixels
    window = asked.get("autofocus", "window")
    view = None if mode is None else _view(mode, (mode.width, mode.height))
    if window is not None and view is not None:
        yield "AfMetering", _AF_WINDOWS
        yield "AfWindows", [geometry.window_for(window, view if crop is None else crop.pixels)]


def crop_of(asked: RequestedControls, mode: StreamConfig | None) -> Crop | None:
    """The zoom in sensor pixels, for a picture of the stream; None without zoom, or without a camera."""
    if mode is None or not asked.has("roi") or "ScalerCrop" not in mode.controls:
        return None
    least, most, _ = mode.controls["ScalerCrop"]
    return geometry.crop_for(asked.groups["roi"], tuple(most), (least[2], least[3]), (mode.width, mode.height))


@dataclass(frozen=True, slots=True)
class StillView:
    """The part of the scene that a still shows, in its own shape whatever the stream's; `part` None is all of it.

    Called as a `StillControls`: the pixels follow from the sensor mode that the still has, which is not the stream's.
    """

    part: Values | None

    def __call__(self, ranges: Mapping[str, ControlRange], size: tuple[int, int]) -> dict[str, Any]:
        if "ScalerCrop" not in ranges:
            return {}
        least, most, _ = ranges["ScalerCrop"]
        if self.part is None:
            return {"ScalerCrop": geometry.whole_view(tuple(most), size)}
        return {"ScalerCrop": geometry.crop_for(self.part, tuple(most), (least[2], least[3]), size).pixels}


def still_view(asked: RequestedControls, *, is_whole: bool) -> StillView:
    """What a still shows: the zoom, and none of it in a picture of the whole sensor."""
    return StillView(None if is_whole or not asked.has("roi") else asked.groups["roi"])


def _view(mode: StreamConfig, size: tuple[int, int]) -> Rectangle | None:
    limits = mode.controls.get("ScalerCrop")
    return None if limits is None else geometry.whole_view(tuple(limits[1]), size)


def reset_value(name: str, mode: StreamConfig, wish: StreamRequest) -> Any:
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
