"""Maps requested controls to libcamera controls and to the request with which the camera is opened.

Pure functions over values, for any thread. Keys of `camera_controls` and of the tables below are libcamera names.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Final

from softcam.camera.base import ControlRange, StreamConfig, StreamRequest
from softcam.camera.session.autofocus_cycle import AfMode
from softcam.controls import geometry
from softcam.controls.capabilities import HDR_SINGLE_EXPOSURE, clamped, has_single_exposure_hdr, is_listed
from softcam.controls.exposure_limits import Limits
from softcam.controls.fields import NO_NAMES, Group
from softcam.controls.geometry import Crop, Size
from softcam.controls.schema import AWB_MODES, BY_NAME, NOIR_PRESETS
from softcam.controls.state import RequestedControls, Values

_READOUT_US: Final = 1_000  # upper bound of the time a frame needs beyond its exposure
_START_FRAME_US: Final = 50_000  # until a camera is settled
_FLICKER_US: Final = {"50hz": 10_000, "60hz": 8_333}  # AeFlickerPeriod: a lamp flickers twice in each mains period
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
    "AeExposureMode": 0,
    "AeConstraintMode": 0,
    "AfMetering": 0,
    "NoiseReductionMode": 1,
    "AeFlickerMode": 0,
    "LensDewarpEnable": True,
    # No default to return to; another control makes them ineffective.
    **dict.fromkeys(("AfWindows", "AeFlickerPeriod", "LensPosition", "AfMode")),
}
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
_ONE_TO_ONE: Final = (
    "image_processing",
    "ae_exposure_mode",
    "ae_constraint_mode",
    "autofocus",
    "autofocus_range",
    "lens_correction",
)
_WHOLE: Final = MappingProxyType({"x": 0.0, "y": 0.0, "width": 1.0, "height": 1.0})


def at_night(requested: RequestedControls) -> RequestedControls:
    """The request as the night profile changes it."""
    for (name, field), night_field in NIGHT_FIELDS.items():
        value = requested.get("day_night_mode", night_field)
        if value is not None and name not in BY_NAME["awb_preset"].replaces:
            requested = requested.with_values(BY_NAME[name], {field: value})
    return requested


def stream_request(requested: RequestedControls, configured: StreamRequest) -> StreamRequest:
    """The request with which to open the camera: the configured one, overridden by the requested controls."""
    hflip, vflip = geometry.camera_flips(*(requested.get("transform", each) for each in ("hflip", "vflip", "rotation")))
    hdr = requested.get("hdr", "mode")
    return replace(
        configured,
        width=requested.get("stream", "width") or configured.width,
        height=requested.get("stream", "height") or configured.height,
        fps=requested.get("stream", "fps") or configured.fps,
        hflip=hflip,
        vflip=vflip,
        hdr=hdr if hdr in ("sensor", "auto") else "off",  # the single-exposure HDR is a control
        fov=requested.get("fov_mode", "mode") or configured.fov,
    )


def is_same_opening(before: StreamRequest, after: StreamRequest, config: StreamConfig | None) -> bool:
    """Whether a camera opened with `before` needs no reopening for `after`; `config` is that of its last opening.

    The field of view is a control of the open camera, unless it needs another sensor mode.
    """
    if before == after:
        return True
    if config is None or replace(before, fov=after.fov) != after:
        return False
    size, modes = (after.width, after.height), config.sensor_modes
    return modes is None or len({modes.choose_mode(size, after.fps, each.fov) for each in (before, after)}) == 1


def exposure_limits(requested: RequestedControls, config: StreamConfig) -> Limits:
    """The limits of the automatic exposure, within the camera's range; none while the exposure is fixed."""
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


def is_balance_fixed(requested: RequestedControls) -> bool:
    """Whether automatic white balance is off."""
    if requested.has("awb_preset"):
        return requested.get("awb_preset", "preset") in NOIR_PRESETS
    return requested.has("manual_awb") or not requested.get("awb", "enabled")


def camera_controls(
    requested: RequestedControls, stream: StreamRequest, config: StreamConfig, *, is_starting: bool = False
) -> dict[str, Any]:
    """The controls that a camera with this configuration is to have in effect, clamped to its ranges.

    While it `is_starting`, a camera with a low frame rate delivers frames as fast as the exposure allows, up to 20 fps:
    exposure, colours and focus settle frame by frame.
    """
    controls = {name: value for name, value in _controls(requested, stream, config) if is_listed(name, value, config)}
    period_us = round(1e6 / stream.fps)
    if is_starting and period_us > _START_FRAME_US:
        controls.setdefault("FrameDurationLimits", (_START_FRAME_US, period_us))
    return {name: clamped(name, value, config) for name, value in controls.items()}


def _controls(requested: RequestedControls, stream: StreamRequest, config: StreamConfig) -> Iterator[tuple[str, Any]]:
    for name in _ONE_TO_ONE:
        values = requested.groups.get(name, {})
        for row in BY_NAME[name].fields:
            if row.control and row.kind != "window" and row.name in values:
                value = values[row.name]
                yield row.control, row.choices[value] if row.kind == "choice" else value
    if (flicker := requested.get("image_processing", "flicker")) in _FLICKER_US:
        yield "AeFlickerPeriod", _FLICKER_US[flicker]
    yield from _exposure(requested, stream, config)
    yield from _balance(requested)
    if (mode := focus_mode(requested)) is AfMode.MANUAL:
        yield "AfMode", int(mode)
        yield from requested.frozen.get("autofocus_mode", {}).items()
    if requested.has("lens_position"):
        yield "LensPosition", requested.get("lens_position", "position")
    hdr = requested.get("hdr", "mode")
    if has_single_exposure_hdr(config) and (hdr == "single-exp" or (hdr == "auto" and not config.has_sensor_hdr)):
        yield "HdrMode", HDR_SINGLE_EXPOSURE
    crop = _stream_crop(requested.groups.get("roi"), stream, config)
    if crop is not None and (requested.has("roi") or stream.fov == "crop"):
        yield "ScalerCrop", crop.pixels
    window = requested.get("autofocus", "window")
    if crop is not None and window is not None:
        yield "AfMetering", _AF_WINDOWS
        yield "AfWindows", [geometry.focus_window(window, crop.pixels)]


def _exposure(requested: RequestedControls, stream: StreamRequest, config: StreamConfig) -> Iterator[tuple[str, Any]]:
    if requested.has("manual_exposure"):
        yield "AeEnable", False
        yield "ExposureTime", requested.get("manual_exposure", "exposure_us")
        yield "AnalogueGain", requested.get("manual_exposure", "gain")
    elif "auto_exposure" in requested.frozen:
        yield "AeEnable", False
        yield from requested.frozen["auto_exposure"].items()
    duration_us = frame_duration_us(requested, stream, config)
    if duration_us is not None:
        yield "FrameDurationLimits", (duration_us, duration_us)


def _balance(requested: RequestedControls) -> Iterator[tuple[str, Any]]:
    preset = requested.get("awb_preset", "preset") if requested.has("awb_preset") else None
    gains: tuple[float, ...] | None = None if preset is None else NOIR_PRESETS.get(preset)
    if requested.has("manual_awb"):
        gains = requested.get("manual_awb", "red_gain"), requested.get("manual_awb", "blue_gain")
    elif "awb" in requested.frozen:
        gains = tuple(requested.frozen["awb"]["ColourGains"])
    if gains is not None:
        yield "AwbEnable", False
        yield "ColourGains", gains
    elif preset is not None:
        yield "AwbEnable", True
        yield "AwbMode", AWB_MODES.index(preset)


def frame_duration_us(requested: RequestedControls, stream: StreamRequest, config: StreamConfig | None) -> int | None:
    """The frame duration that a requested exposure time longer than a frame needs; None if the frame rate suffices.

    The frame duration bounds the exposure time, so a longer exposure lowers the frame rate.
    """
    if is_exposure_fixed(requested):
        frozen = requested.frozen.get("auto_exposure", {})
        exposure_us = requested.get("manual_exposure", "exposure_us") or frozen.get("ExposureTime", 0)
    else:
        exposure_us = requested.get("exposure_limits", "min_exposure_us") or 0
    duration_us = int(clamped("ExposureTime", exposure_us, config)) + _READOUT_US
    if duration_us <= round(1e6 / stream.fps):
        return None
    limits = None if config is None else config.controls.get("FrameDurationLimits")
    if limits is not None and isinstance(limits[1], int) and limits[1] > 0:
        duration_us = min(duration_us, limits[1])
    return duration_us


def exposure_notes(requested: RequestedControls, stream: StreamRequest, config: StreamConfig | None) -> Iterator[str]:
    """The notes on a fixed exposure."""
    duration_us = frame_duration_us(requested, stream, config)
    if requested.has("manual_exposure") and duration_us is not None:
        yield f"exposure_us: the frame rate is reduced to {1e6 / duration_us:.3g} fps"


def limits_notes(requested: RequestedControls, stream: StreamRequest, config: StreamConfig | None) -> Iterator[str]:
    """The notes in the response to a change of the exposure limits."""
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


def night_notes(
    group: Group, values: Values, requested: RequestedControls, names: Mapping[str, str] = NO_NAMES
) -> Iterator[str]:
    """The notes in the response to a change at night: fields that the night profile overrides, renamed by `names`."""
    for name in values:
        night_field = NIGHT_FIELDS.get((group.name, name))
        value = None if night_field is None else requested.get("day_night_mode", night_field)
        if value is not None:
            word = value if isinstance(value, str) else f"{value:g}"
            yield f"{names.get(name, name)}: overridden at night by {night_field}, which is {word}"


def stream_crop(requested: RequestedControls, stream: StreamRequest, config: StreamConfig | None) -> Crop | None:
    """The zoom of the stream in sensor pixels; None without zoom or without a known configuration."""
    if config is None or not requested.has("roi"):
        return None
    return _stream_crop(requested.groups["roi"], stream, config)


def _stream_crop(part: Values | None, stream: StreamRequest, config: StreamConfig) -> Crop | None:
    size = config.width, config.height
    return _crop(part, config.controls, size, size if stream.fov == "crop" else None)


def _crop(
    part: Values | None, ranges: Mapping[str, ControlRange], size: Size, middle: Size | None = None
) -> Crop | None:
    """The crop that shows `part`, None for all, in an image of this size; None for a camera that cannot crop.

    Only the `middle` pixels of the sensor are shown, or its whole field of view.
    """
    if "ScalerCrop" not in ranges:
        return None
    smallest, largest, _ = ranges["ScalerCrop"]
    seen = tuple(largest) if middle is None else geometry.middle_part(tuple(largest), middle)
    return geometry.zoom_crop(part or _WHOLE, seen, (smallest[2], smallest[3]), size)


@dataclass(frozen=True, slots=True)
class StillView:
    """A `StillControls`: crops a still to a part of the scene, in the still's own shape; `part` None is all of it.

    The pixels depend on the still's sensor mode, which differs from the stream's. `middle` is the size of the sensor's
    part that the stream shows, None if that is the whole field of view.
    """

    part: Values | None
    middle: Size | None = None

    def __call__(self, ranges: Mapping[str, ControlRange], size: Size) -> dict[str, Any]:
        crop = _crop(self.part, ranges, size, self.middle)
        return {} if crop is None else {"ScalerCrop": crop.pixels}


def reset_value(name: str, config: StreamConfig, stream: StreamRequest) -> Any:
    """The value that returns a control to the camera's default; None if nothing has to be sent."""
    if name in _RESETS:
        return _RESETS[name]
    if name == "FrameDurationLimits":
        period_us = round(1e6 / stream.fps)
        return period_us, period_us
    if name == "ScalerCrop":
        crop = _stream_crop(None, stream, config)
        return None if crop is None else crop.pixels
    return config.controls[name][2]
