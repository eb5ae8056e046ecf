"""What a camera supports, judged by its own control ranges: reasons for rejections, clamping, deviations.

Pure functions over values, for any thread. `mapping` makes libcamera controls of what was requested.
"""

import math
from collections.abc import Iterator
from typing import Any, Final

from softcam.camera.base import ControlRange, StreamConfig
from softcam.controls.fields import Field, Group, is_number
from softcam.controls.schema import GROUPS, NOIR_PRESETS
from softcam.controls.state import RequestedControls, Values

HDR_SINGLE_EXPOSURE: Final = 3  # libcamera's HdrModeEnum
_TOLERANCE: Final = 1.01  # frame durations are whole microseconds, and people round frame rates
_NUMBERS: Final = frozenset(row.control for group in GROUPS for row in group.fields if row.is_numeric)


def unsupported_reason(group: Group, values: Values, config: StreamConfig) -> str | None:
    """Why this camera does not support these values, as "field: reason"; None if it does."""
    reasons = (_reason(group, group.row(name), value, config) for name, value in values.items())
    return "; ".join(reason for reason in reasons if reason is not None) or None


def unavailable_reason(group: Group, row: Field, config: StreamConfig) -> str | None:
    """Why this camera does not have this field, whatever its value; None if it has."""
    match row.kind:
        case "choice":
            values: list[Any] = [word for word in row.choices if (group.name, word) != ("hdr", "off")]
        case "boolean":
            values = [True]
        case _:
            return _missing_control(group, row, None, config)
    reasons = [_reason(group, row, value, config) for value in values]
    return reasons[0] if all(reasons) else None


def deviations(requested: RequestedControls, config: StreamConfig) -> tuple[list[str], list[str]]:
    """The requested controls that an open camera ignores, and those that it limits; each with the reason."""
    ignored, limited = [], []
    for group in GROUPS:
        for name, value in requested.groups.get(group.name, {}).items():
            row = group.row(name)
            if (reason := _reason(group, row, value, config)) is not None:
                nearest = clamped(row.control, value, config)
                if nearest == value:
                    ignored.append(reason)
                else:
                    limited.append(f"{reason}; using {nearest:.12g}")
    return ignored, [*limited, *stream_deviations(requested, config)]


def clamped(control: str, value: Any, config: StreamConfig | None) -> Any:
    """The supported number nearest to `value`, which may have been set before the camera's ranges were known."""
    if config is None or value is None or control not in _NUMBERS or control not in config.controls:
        return value
    if isinstance(value, tuple):
        return tuple(clamped(control, each, config) for each in value)
    low, high = (_number(limit, math.nan) for limit in config.controls[control][:2])
    return type(value)(min(max(value, low), high)) if low < high else value


def clamped_fps(fps: float, config: StreamConfig | None) -> float:
    """The supported frame rate nearest to `fps`."""
    lowest, highest = _fps_limits(config)
    # A rate within the tolerance is reported as requested.
    return fps if lowest / _TOLERANCE <= fps <= highest * _TOLERANCE else round(min(max(fps, lowest), highest), 3)


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
    """Why this camera does not support the value of a field, as "field: reason"."""
    if value is None:
        return None
    if group.name == "hdr":
        return _hdr_reason(value, config)
    if group.name == "transform" and value and not config.can_flip and (row.name, value) != ("rotation", 90):
        return f"{row.name}: this camera cannot mirror or rotate the image"
    reason = _missing_control(group, row, value, config)
    if reason is None and row.control in config.controls:
        return _out_of_range(row, value, config.controls[row.control])
    return reason


def _missing_control(group: Group, row: Field, value: Any, config: StreamConfig) -> str | None:
    control = row.control
    match group.name, row.name:
        case "roi", _:
            control = "ScalerCrop"
        case "autofocus", "trigger":
            control = "AfMode" if value else ""
        case "lens_correction", _:
            control = row.control if value else ""
        case _, "preset" | "night_awb_preset":
            control = "ColourGains" if value in NOIR_PRESETS else "AwbMode"
    return None if not control or control in config.controls else f"{row.name}: this camera does not support {control}"


def _out_of_range(row: Field, value: Any, limits: ControlRange) -> str | None:
    if row.kind == "choice":
        low, high = _number(limits[0], -math.inf), _number(limits[1], math.inf)
        supported = [word for word, number in row.choices.items() if low <= number <= high]
        if value not in supported:
            return f"{row.name}: this camera supports {', '.join(supported)}"
    elif row.is_numeric:
        low, high = effective_limits(row, limits)
        if not low <= value <= high:
            return f"{row.name}: this camera supports {low:.12g} to {high:.12g}"
    return None


def _hdr_reason(word: str, config: StreamConfig) -> str | None:
    has_single = has_single_exposure_hdr(config)
    match word:
        case "sensor" if not config.has_sensor_hdr:
            return "mode: this camera does not support sensor (its sensor has no HDR)"
        case "single-exp" if not has_single:
            return "mode: this camera does not support single-exp (single-exposure HDR requires a Raspberry Pi 5)"
        case "auto" if not (has_single or config.has_sensor_hdr):
            return "mode: this camera does not support auto (it has no HDR)"
    return None


def _number(value: Any, default: float) -> float:
    return value if is_number(value) and value == value else default
