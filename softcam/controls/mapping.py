"""Maps requested controls to libcamera controls and to the request with which the camera is opened.

Pure functions over values. Keys of `ControlPlan.controls` and of the tables below are libcamera names.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Final

from softcam.camera.base import ControlRange, StreamConfig, StreamRequest
from softcam.camera.session.autofocus_cycle import AfMode
from softcam.controls import geometry
from softcam.controls.capabilities import HDR_SINGLE_EXPOSURE, clamped, has_single_exposure_hdr
from softcam.controls.exposure_limits import Limits
from softcam.controls.fields import Group
from softcam.controls.geometry import Crop, Rectangle
from softcam.controls.schema import AWB_MODES, BY_NAME, FLICKER, NOIR_PRESETS
from softcam.controls.state import RequestedControls, Values

_READOUT_US: Final = 1_000  # upper bound of the time a frame needs beyond its exposure
_AF_WINDOWS: Final = 1  # libcamera's AfMeteringEnum

# Values that reset a control for which the camera reports no usable default: 0 returns an exposure time or a gain to
# the automatic, and 1 is the fast noise reduction, Picamera2's default for video.
_RESETS: Final[Mapping[str, Any]] = {
    "AeEnable": True,
    "ExposureTime": 0,
    "AnalogueGain": 0.0,
    "AwbEnable": True,
    # Not omitted: after a still the camera is sent all of its controls again, in no particular order, and gains other
    # than 0 would switch the automatic off.
    "ColourGains": (0.0, 0.0),
    "AwbMode": 0,
    "AfMetering": 0,
    "NoiseReductionMode": 1,
    "AeFlickerMode": 0,
    "LensDewarpEnable": True,
}
# Controls without a default to return to; another control makes them ineffective.
_NO_RESET: Final = frozenset({"AfWindows", "AeFlickerPeriod", "LensPosition", "AfMode"})
# Fields that the night profile overrides, as (group, field), and the field of the profile that does.
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
    """Everything to configure in a camera; `focus` is None if no focus mode was requested."""

    stream: StreamRequest
    controls: Mapping[str, Any]
    focus: AfMode | None
    limits: Limits


def stream_request(requested: RequestedControls, configured: StreamRequest) -> StreamRequest:
    """The request with which to open the camera: the configured one, overridden by the requested controls."""
    hflip, vflip = geometry.camera_flips(
        requested.get("transform", "hflip"), requested.get("transform", "vflip"), requested.get("transform", "rotation")
    )
    return replace(
        configured,
        width=requested.get("stream", "width") or configured.width,
        height=requested.get("stream", "height") or configured.height,
        fps=requested.get("stream", "fps") or configured.fps,
        hflip=hflip,
        vflip=vflip,
        hdr=requested.get("hdr", "mode") if requested.get("hdr", "mode") in ("sensor", "auto") else "off",
    )


def build_plan(
    requested: RequestedControls, configured: StreamRequest, config: StreamConfig | None, *, is_night: bool
) -> ControlPlan:
    """The plan for a camera with this configuration; without one, the controls that depend on it are omitted."""
    stream = stream_request(requested, configured)
    controls = {
        name: clamped(name, value, config) for name, value in _controls(requested, stream, config, is_night=is_night)
    }
    return ControlPlan(stream, controls, focus_mode(requested), _limits(requested, config))


def _limits(requested: RequestedControls, config: StreamConfig | None) -> Limits:
    if is_exposure_fixed(requested):
        return Limits()
    group = BY_NAME["exposure_limits"]
    values = requested.groups.get(group.name, {})
    return Limits(**{name: clamped(group.row(name).control, value, config) for name, value in values.items()})


def focus_mode(requested: RequestedControls) -> AfMode | None:
    """The requested focus mode; None if there is none."""
    if requested.has("lens_position"):
        return AfMode.MANUAL
    word = requested.get("autofocus_mode", "mode")
    return None if word is None else AfMode[word.upper()]


def is_exposure_fixed(requested: RequestedControls) -> bool:
    """Whether automatic exposure is off."""
    return requested.has("manual_exposure") or not requested.get("auto_exposure", "enabled")


def is_balance_fixed(requested: RequestedControls, *, is_night: bool = False) -> bool:
    """Whether automatic white balance is off."""
    preset = awb_preset(requested, is_night=is_night)
    if preset is not None:
        return preset in NOIR_PRESETS
    return requested.has("manual_awb") or not requested.get("awb", "enabled")


def awb_preset(requested: RequestedControls, *, is_night: bool) -> str | None:
    """The white balance preset in effect; the one of the night profile takes precedence. None if there is none."""
    at_night: str | None = requested.get("day_night_mode", "night_awb_preset") if is_night else None
    by_day: str | None = requested.groups["awb_preset"]["preset"] if requested.has("awb_preset") else None
    return at_night or by_day


def _controls(
    requested: RequestedControls, stream: StreamRequest, config: StreamConfig | None, *, is_night: bool
) -> Iterator[tuple[str, Any]]:
    """Pairs of name and value; a later one overrides an earlier one."""
    for name in _ONE_TO_ONE:
        yield from _plain(BY_NAME[name], requested.groups.get(name, {}))
    flicker = requested.groups.get("image_processing", {}).get("flicker")
    if flicker is not None and FLICKER[flicker][1] is not None:
        yield "AeFlickerPeriod", FLICKER[flicker][1]
    yield from _exposure(requested, stream, config)
    yield from _balance(requested, is_night=is_night)
    yield from _focus(requested)
    if is_night:
        saturation = requested.get("day_night_mode", "night_saturation")
        exposure_value = requested.get("day_night_mode", "night_exposure_value")
        if saturation is not None:
            yield "Saturation", saturation
        if exposure_value is not None:
            yield "ExposureValue", exposure_value
    if config is not None and has_single_exposure_hdr(config):
        hdr = requested.get("hdr", "mode")
        if hdr == "single-exp" or (hdr == "auto" and not config.has_sensor_hdr):
            yield "HdrMode", HDR_SINGLE_EXPOSURE
    yield from _regions(requested, config)


def _plain(group: Group, values: Values) -> Iterator[tuple[str, Any]]:
    """Fields that map to one control each."""
    for row in group.fields:
        if row.control is not None and row.name in values:
            value = values[row.name]
            yield row.control, row.choices[value] if row.kind == "choice" else value


def _exposure(
    requested: RequestedControls, stream: StreamRequest, config: StreamConfig | None
) -> Iterator[tuple[str, Any]]:
    if requested.has("manual_exposure"):
        yield "AeEnable", False
        yield "ExposureTime", requested.get("manual_exposure", "exposure_us")
        yield "AnalogueGain", requested.get("manual_exposure", "gain")
    elif not requested.get("auto_exposure", "enabled") and "auto_exposure" in requested.frozen:
        yield "AeEnable", False
        yield from requested.frozen["auto_exposure"].items()
    duration_us = frame_duration_us(requested, stream, config)
    if duration_us is not None:
        yield "FrameDurationLimits", (duration_us, duration_us)


def frame_duration_us(requested: RequestedControls, stream: StreamRequest, config: StreamConfig | None) -> int | None:
    """The frame duration that a requested exposure time longer than a frame needs; None if the frame rate suffices.

    The frame duration bounds the exposure time, so a longer exposure lowers the frame rate.
    """
    if requested.has("manual_exposure"):
        exposure_us = requested.get("manual_exposure", "exposure_us")
    elif not requested.get("auto_exposure", "enabled"):
        exposure_us = requested.frozen.get("auto_exposure", {}).get("ExposureTime", 0)
    else:
        exposure_us = requested.get("exposure_limits", "min_exposure_us") or 0
    duration_us = int(clamped("ExposureTime", exposure_us, config)) + _READOUT_US
    if duration_us <= round(1e6 / stream.fps):
        return None
    limits = None if config is None else config.controls.get("FrameDurationLimits")
    if limits is not None and isinstance(limits[1], int) and limits[1] > 0:
        duration_us = min(duration_us, limits[1])
    return duration_us


def limits_notes(requested: RequestedControls, stream: StreamRequest, config: StreamConfig | None) -> Iterator[str]:
    """The notes in the answer to a change of the exposure limits."""
    if is_exposure_fixed(requested):
        yield "the exposure is fixed; the limits apply once it is automatic again"
        return
    duration_us = frame_duration_us(requested, stream, config)
    if duration_us is not None:
        yield f"min_exposure_us: the frame rate is reduced to {1e6 / duration_us:.3g} fps"
    longest_us = (duration_us or round(1e6 / stream.fps)) - _READOUT_US
    max_exposure_us = requested.get("exposure_limits", "max_exposure_us")
    if max_exposure_us is not None and max_exposure_us > longest_us:
        yield f"max_exposure_us: the frame rate limits the exposure time to {longest_us}"


def night_notes(group: Group, values: Values, requested: RequestedControls) -> Iterator[str]:
    """The notes in the answer to a change at night: fields that the night profile overrides."""
    for name in values:
        night_field = NIGHT_FIELDS.get((group.name, name))
        value = None if night_field is None else requested.get("day_night_mode", night_field)
        if value is not None:
            word = value if isinstance(value, str) else f"{value:g}"
            yield f"{name}: overridden at night by {night_field}, which is {word}"


def _balance(requested: RequestedControls, *, is_night: bool) -> Iterator[tuple[str, Any]]:
    preset = awb_preset(requested, is_night=is_night)
    if preset is not None and preset in NOIR_PRESETS:
        yield "AwbEnable", False
        yield "ColourGains", NOIR_PRESETS[preset]
    elif preset is not None:
        yield "AwbEnable", True
        yield "AwbMode", AWB_MODES[preset]
    elif requested.has("manual_awb"):
        yield "AwbEnable", False
        yield "ColourGains", (requested.get("manual_awb", "red_gain"), requested.get("manual_awb", "blue_gain"))
    elif not requested.get("awb", "enabled") and "awb" in requested.frozen:
        yield "AwbEnable", False
        yield from ((name, tuple(value)) for name, value in requested.frozen["awb"].items())


def _focus(requested: RequestedControls) -> Iterator[tuple[str, Any]]:
    yield from _plain(
        BY_NAME["autofocus"], {"speed": requested.get("autofocus", "speed")} if requested.has("autofocus") else {}
    )
    mode = focus_mode(requested)
    if mode is AfMode.MANUAL:
        yield "AfMode", int(AfMode.MANUAL)
    if requested.has("lens_position"):
        yield "LensPosition", requested.get("lens_position", "position")
    elif mode is AfMode.MANUAL:
        yield from requested.frozen.get("autofocus_mode", {}).items()


def _regions(requested: RequestedControls, config: StreamConfig | None) -> Iterator[tuple[str, Any]]:
    """The crop, and the focus window inside it."""
    crop = stream_crop(requested, config)
    if crop is not None:
        yield "ScalerCrop", crop.pixels
    window = requested.get("autofocus", "window")
    view = None if config is None else _full_view(config)
    if window is not None and view is not None:
        yield "AfMetering", _AF_WINDOWS
        yield "AfWindows", [geometry.focus_window(window, view if crop is None else crop.pixels)]


def stream_crop(requested: RequestedControls, config: StreamConfig | None) -> Crop | None:
    """The zoom of the stream in sensor pixels; None without zoom or without a known configuration."""
    if config is None or not requested.has("roi") or "ScalerCrop" not in config.controls:
        return None
    smallest, largest, _ = config.controls["ScalerCrop"]
    return geometry.zoom_crop(
        requested.groups["roi"], tuple(largest), (smallest[2], smallest[3]), (config.width, config.height)
    )


@dataclass(frozen=True, slots=True)
class StillView:
    """A `StillControls`: crops a still to a part of the scene, in the still's own shape; `part` None is all of it.

    The pixels depend on the still's sensor mode, which differs from the stream's.
    """

    part: Values | None

    def __call__(self, ranges: Mapping[str, ControlRange], size: tuple[int, int]) -> dict[str, Any]:
        if "ScalerCrop" not in ranges:
            return {}
        smallest, largest, _ = ranges["ScalerCrop"]
        if self.part is None:
            return {"ScalerCrop": geometry.full_view(tuple(largest), size)}
        return {"ScalerCrop": geometry.zoom_crop(self.part, tuple(largest), (smallest[2], smallest[3]), size).pixels}


def still_view(requested: RequestedControls, *, is_whole: bool) -> StillView:
    """The view of a still: the zoom, or everything if the still is of the whole sensor."""
    return StillView(None if is_whole or not requested.has("roi") else requested.groups["roi"])


def _full_view(config: StreamConfig) -> Rectangle | None:
    limits = config.controls.get("ScalerCrop")
    return None if limits is None else geometry.full_view(tuple(limits[1]), (config.width, config.height))


def reset_value(name: str, config: StreamConfig, stream: StreamRequest) -> Any:
    """The value that returns a control to the camera's default; None if nothing has to be sent."""
    if name in _NO_RESET:
        return None
    if name in _RESETS:
        return _RESETS[name]
    if name == "FrameDurationLimits":
        period_us = round(1e6 / stream.fps)
        return period_us, period_us
    if name == "ScalerCrop":
        return _full_view(config)
    return config.controls[name][2]
