"""What a camera supports, judged by its own control ranges: reasons for rejections, clamping, deviations.

Pure functions over values, for any thread. `mapping` makes libcamera controls of what was requested.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any, Final

from softcam.camera.base import ControlRange, StreamConfig, StreamRequest
from softcam.camera.sensor_modes import FovMode
from softcam.controls.fields import NO_NAMES, Field, Group, is_number
from softcam.controls.schema import GROUPS, NOIR_PRESETS
from softcam.controls.state import RequestedControls, Values

HDR_SINGLE_EXPOSURE: Final = 3  # libcamera's HdrModeEnum
_TOLERANCE: Final = 1.01  # frame durations are whole microseconds, and people round frame rates
_MODES: Final = frozenset(row.control for group in GROUPS for row in group.fields if row.choices) | {"AwbMode"}
_NUMBERS: Final = frozenset(row.control for group in GROUPS for row in group.fields if row.is_numeric)


def unsupported_reason(
    group: Group, values: Values, config: StreamConfig, names: Mapping[str, str] = NO_NAMES
) -> str | None:
    """Why this camera does not support these values, as "field: reason"; None if it does. `names` renames fields."""
    reasons = ((name, _reason(group, group.row(name), value, config)) for name, value in values.items())
    return "; ".join(f"{names.get(name, name)}: {reason}" for name, reason in reasons if reason is not None) or None


def unavailable_reason(group: Group, row: Field, config: StreamConfig) -> str | None:
    """Why this camera does not have this field, whatever its value; None if it has."""
    match row.kind:
        case "choice":
            values: list[Any] = [word for word in row.choices if (group.name, word) != ("hdr", "off")]
        case "boolean":
            values = [True]
        case _:
            missing = _missing_control(group, row, None, config)
            return None if missing is None else f"{row.name}: {missing}"
    reasons = [_reason(group, row, value, config) for value in values]
    return f"{row.name}: {reasons[0]}" if all(reasons) else None


def deviations(
    requested: RequestedControls, stream: StreamRequest, config: StreamConfig
) -> tuple[list[str], list[str]]:
    """The requested controls that an open camera ignores, and those that it limits; each with the reason."""
    ignored, limited = [], []
    if not requested.has("fov_mode") and stream.fov != field_of_view(stream, config):
        ignored.append("fov_mode: this camera does not support ScalerCrop")
    for group in GROUPS:
        for name, reason, nearest in unsupported_values(group, requested.groups.get(group.name, {}), config):
            if nearest is None:
                ignored.append(f"{name}: {reason}")
            else:
                limited.append(f"{name}: {reason}; using {nearest:.12g}")
    return ignored, [*limited, *stream_deviations(requested, config)]


def unsupported_values(group: Group, values: Values, config: StreamConfig) -> Iterator[tuple[str, str, Any]]:
    """The fields whose values this camera does not support, each with the reason and the supported number nearest to
    its value, or None if the field cannot have an effect."""
    for name, value in values.items():
        row = group.row(name)
        if (reason := _reason(group, row, value, config)) is not None:
            nearest = clamped(row.control, value, config)
            yield name, reason, None if nearest == value else nearest


def clamped(control: str, value: Any, config: StreamConfig | None) -> Any:
    """The supported number nearest to `value`, which may have been set before the camera's ranges were known."""
    if config is None or value is None or control not in _NUMBERS or control not in config.controls:
        return value
    if isinstance(value, tuple):
        return tuple(clamped(control, each, config) for each in value)
    low, high = (_number(limit, math.nan) for limit in config.controls[control][:2])
    return type(value)(min(max(value, low), high)) if low < high else value


def is_listed(control: str, value: Any, config: StreamConfig) -> bool:
    """Whether the camera lists this value; False for a mode that was set before its modes were known."""
    if control not in _MODES or control not in config.controls:
        return True
    low, high = (_number(limit, math.nan) for limit in config.controls[control][:2])
    return not (value < low or value > high)


def clamped_fps(fps: float, config: StreamConfig | None) -> float:
    """The supported frame rate nearest to `fps`."""
    lowest, highest = _fps_limits(config)
    # A rate within the tolerance is reported as requested.
    return fps if lowest / _TOLERANCE <= fps <= highest * _TOLERANCE else round(min(max(fps, lowest), highest), 3)


def field_of_view(stream: StreamRequest, config: StreamConfig | None) -> FovMode:
    """What the camera shows: as requested, or all of it if it cannot crop."""
    return stream.fov if config is None or "ScalerCrop" in config.controls else "scale"


def fastest_fps(size: tuple[int, int], fov: FovMode, config: StreamConfig | None) -> float | None:
    """The highest frame rate at which the sensor delivers images of this size; None if it is not known."""
    if config is None:
        return None
    if config.sensor_modes is not None:
        return config.sensor_modes.highest_fps(size, fov)
    highest = _fps_limits(config)[1]
    return None if highest == math.inf else round(highest, 2)


def _fps_limits(config: StreamConfig | None) -> tuple[float, float]:
    limits_us = () if config is None else config.controls.get("FrameDurationLimits", ())[:2]
    shortest_us, longest_us = (_number(each, 0) for each in limits_us or (0, 0))
    return 1e6 / longest_us if longest_us > 0 else 0.0, 1e6 / shortest_us if shortest_us > 0 else math.inf


def stream_deviations(requested: RequestedControls, config: StreamConfig) -> Iterator[str]:
    """Where an open camera's size and frame rate differ from the request, by field; unknown before it is opened."""
    for name, actual in (("width", config.width), ("height", config.height)):
        if requested.get("stream", name) not in (None, actual):
            yield f"{name}: the camera delivers {actual}"
    fps = requested.get("stream", "fps")
    lowest, highest = _fps_limits(config)
    if fps is not None and fps > highest * _TOLERANCE:
        yield f"fps: the camera delivers at most {highest:.3g} in its current mode"
    elif fps is not None and fps < lowest / _TOLERANCE:
        yield f"fps: the camera delivers at least {lowest:.3g} in its current mode"


def field_notes(stream: StreamRequest, config: StreamConfig) -> Iterator[str]:
    """Where the field of view of an open camera differs from the requested one, or costs frame rate or detail."""
    modes, mode = config.sensor_modes, config.sensor_mode
    if modes is None or mode is None:
        return
    if field_of_view(stream, config) == "scale":
        if (share := visible_share(config)) is not None:
            yield f"fps: at this rate the sensor delivers only the middle {share:.0f} % of its width"
    elif config.width > modes.array_size[0] or config.height > modes.array_size[1]:
        yield "fov_mode: the sensor has only {}x{} pixels; they are enlarged".format(*modes.array_size)
    elif not mode.is_one_to_one:
        yield f"fov_mode: the sensor combines pixels in this mode; they are enlarged {1 / mode.density:.2g} times"
    elif not mode.is_fast(stream.fps):
        yield f"fov_mode: the sensor delivers single pixels at up to {mode.fps:g} fps"


def visible_share(config: StreamConfig) -> float | None:
    """The percentage of the sensor's width that its mode delivers; None if that is all, or unknown."""
    modes, mode = config.sensor_modes, config.sensor_mode
    return None if modes is None or mode is None or modes.is_full(mode) else 100 * mode.crop[2] / modes.array_size[0]


def has_single_exposure_hdr(config: StreamConfig) -> bool:
    # The range alone does not prove it: libcamera uses one table of controls for all Raspberry Pis.
    return (
        config.has_hdr_modes
        and "HdrMode" in config.controls
        and _number(config.controls["HdrMode"][1], 0) >= HDR_SINGLE_EXPOSURE
    )


def effective_limits(row: Field, limits: ControlRange | None) -> tuple[float, float]:
    """The intersection of a number's range in the schema and the camera's.

    Gains below the sensor's minimum are accepted, too, and set the minimum.
    """
    low, high = (row.low, row.high) if limits is None else (_number(limits[0], row.low), _number(limits[1], row.high))
    if low >= high:
        return row.low, row.high
    # libcamera reports 0 for a maximum that it does not know.
    least = row.low if row.control == "AnalogueGain" else max(row.low, low)
    return least, min(row.high, high) if high > 0 or row.high <= 0 else row.high


def _reason(group: Group, row: Field, value: Any, config: StreamConfig) -> str | None:
    """Why this camera does not support the value of a field."""
    if value is None:
        return None
    if group.name == "hdr":
        return _hdr_reason(value, config)
    if group.name == "transform" and value and not config.can_flip and (row.name, value) != ("rotation", 90):
        return "this camera cannot mirror or rotate the image"
    reason = _missing_control(group, row, value, config)
    if reason is None and (control := _control_of(group, row, value)) in config.controls:
        return _out_of_range(row, value, config.controls[control])
    return reason


def _control_of(group: Group, row: Field, value: Any) -> str:
    """The libcamera control that the value of a field needs; empty if none."""
    match group.name, row.name:
        case "roi", _:
            return "ScalerCrop"
        case "fov_mode", _:
            return "ScalerCrop" if value == "crop" else ""
        case "autofocus", "trigger":
            return "AfMode" if value else ""
        case "lens_correction", _:
            return row.control if value else ""
        case _, "preset" | "night_awb_preset":
            return "ColourGains" if value in NOIR_PRESETS else "AwbMode"
    return row.control


def _missing_control(group: Group, row: Field, value: Any, config: StreamConfig) -> str | None:
    control = _control_of(group, row, value)
    return None if not control or control in config.controls else f"this camera does not support {control}"


def _out_of_range(row: Field, value: Any, limits: ControlRange) -> str | None:
    if row.kind == "choice":
        low, high = _number(limits[0], -math.inf), _number(limits[1], math.inf)
        supported = [word for word, number in row.choices.items() if low <= number <= high]
        if value not in supported:
            return f"this camera supports {', '.join(supported)}"
    elif row.is_numeric:
        low, high = effective_limits(row, limits)
        if not low <= value <= high:
            return f"this camera supports {low:.12g} to {high:.12g}"
    return None


def _hdr_reason(word: str, config: StreamConfig) -> str | None:
    has_single = has_single_exposure_hdr(config)
    match word:
        case "sensor" if not config.has_sensor_hdr:
            return "this camera does not support sensor (its sensor has no HDR)"
        case "single-exp" if not has_single:
            return "this camera does not support single-exp (single-exposure HDR requires a Raspberry Pi 5)"
        case "auto" if not (has_single or config.has_sensor_hdr):
            return "this camera does not support auto (it has no HDR)"
    return None


def _number(value: Any, default: float) -> float:
    return value if is_number(value) and value == value else default
