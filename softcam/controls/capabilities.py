"""What a camera supports, judged by its own control ranges: reasons for rejections, clamping, deviations.

Pure functions over values. `mapping` makes libcamera controls of what was requested.
"""

import math
from collections.abc import Iterator
from typing import Any, Final

from softcam.camera.base import ControlRange, StreamConfig
from softcam.controls.fields import Field, Group
from softcam.controls.schema import GROUPS, NOIR_PRESETS
from softcam.controls.state import RequestedControls, Values

HDR_SINGLE_EXPOSURE: Final = 3  # libcamera's HdrModeEnum
_TOLERANCE: Final = 1.01  # frame durations are whole microseconds, and people round frame rates
_NUMBERS: Final = frozenset(
    row.control for group in GROUPS for row in group.fields if row.kind in ("integer", "number")
)


def unsupported_reason(group: Group, values: Values, config: StreamConfig) -> str | None:
    """Why this camera does not support these values, as "field: reason"; None if it does."""
    reasons = [
        reason for name, value in values.items() if (reason := _value_reason(group, name, value, config)) is not None
    ]
    return "; ".join(reasons) if reasons else None


def unavailable_reason(group: Group, row: Field, config: StreamConfig) -> str | None:
    """Why this camera does not have this field, whatever its value; None if it has."""
    match row.kind:
        case "choice":
            words = [word for word in row.choices if word != "off"] if group.name == "hdr" else list(row.choices)
            reasons = [_value_reason(group, row.name, word, config) for word in words]
            return reasons[0] if all(reasons) else None
        case "boolean":
            return _value_reason(group, row.name, True, config)
    if group.name == "roi":
        return _missing_control("ScalerCrop", config)
    return None if row.control is None else _missing_control(row.control, config)


def not_applied(requested: RequestedControls, config: StreamConfig) -> tuple[str, ...]:
    """All requested controls that an open camera does not apply, each with the reason and the value used instead."""
    reasons = (
        f"{reason}{_replacement(group, name, value, config)}"
        for group in GROUPS
        for name, value in requested.groups.get(group.name, {}).items()
        if (reason := _value_reason(group, name, value, config)) is not None
    )
    return tuple(dict.fromkeys([*reasons, *stream_deviations(requested, config)]))


def _replacement(group: Group, name: str, value: Any, config: StreamConfig) -> str:
    nearest = clamped(group.row(name).control, value, config)
    return "" if nearest == value else f"; using {nearest:.12g}"


def clamped(control: str | None, value: Any, config: StreamConfig | None) -> Any:
    """The supported number nearest to `value`, which may have been set before the camera's ranges were known."""
    if config is None or control is None or value is None or control not in _NUMBERS or control not in config.controls:
        return value
    if isinstance(value, tuple):
        return tuple(clamped(control, each, config) for each in value)
    low, high = (_number(limit, None) for limit in config.controls[control][:2])
    return value if low is None or high is None or low >= high else type(value)(min(max(value, low), high))


def clamped_fps(fps: float, config: StreamConfig | None) -> float:
    """The supported frame rate nearest to `fps`."""
    shortest_us, longest_us = frame_limits_us(config)
    highest = 1e6 / shortest_us if shortest_us > 0 else math.inf
    lowest = 1e6 / longest_us if longest_us > 0 else 0.0
    # A rate within the tolerance is reported as requested.
    return fps if lowest / _TOLERANCE <= fps <= highest * _TOLERANCE else round(min(max(fps, lowest), highest), 3)


def frame_limits_us(config: StreamConfig | None) -> tuple[float, float]:
    """The shortest and the longest frame duration; 0 if unknown."""
    if config is None or "FrameDurationLimits" not in config.controls:
        return 0.0, 0.0
    shortest_us, longest_us = (float(_number(each, 0)) for each in config.controls["FrameDurationLimits"][:2])
    return shortest_us, longest_us


def stream_deviations(requested: RequestedControls, config: StreamConfig) -> Iterator[str]:
    """Where an open camera's size and frame rate differ from the request, by field; unknown before it is opened."""
    for name, actual in (("width", config.width), ("height", config.height)):
        value = requested.get("stream", name)
        if value is not None and value != actual:
            yield f"{name}: the camera delivers {actual}"
    fps = requested.get("stream", "fps")
    if fps is None:
        return
    shortest_us, longest_us = frame_limits_us(config)
    if shortest_us > 0 and fps > 1e6 / shortest_us * _TOLERANCE:
        yield f"fps: the camera delivers at most {1e6 / shortest_us:.3g} in its current mode"
    elif longest_us > 0 and fps < 1e6 / longest_us / _TOLERANCE:
        yield f"fps: the camera delivers at least {1e6 / longest_us:.3g} in its current mode"


def has_single_exposure_hdr(config: StreamConfig) -> bool:
    # The range alone does not prove it: libcamera uses one table of controls for all Raspberry Pis.
    return (
        config.has_hdr_modes
        and "HdrMode" in config.controls
        and _number(config.controls["HdrMode"][1], 0) >= HDR_SINGLE_EXPOSURE
    )


def out_of_range(row: Field, value: Any, limits: ControlRange) -> str | None:
    """Why a value is outside this camera's own range; None if it is within."""
    low, high = effective_limits(row, limits)
    if row.kind == "choice":
        number = row.choices[value]
        supported = [word for word, each in row.choices.items() if low is None or high is None or low <= each <= high]
        return (
            None
            if value in supported
            else f"{row.name}: this camera supports {', '.join(supported)}; {value} is {number}"
        )
    if low is None or high is None or not isinstance(value, int | float) or isinstance(value, bool):
        return None
    # A gain below the sensor's minimum is a request for the minimum.
    if low <= value <= high or (row.control == "AnalogueGain" and value <= high):
        return None
    return f"{row.name}: this camera supports {low:.12g} to {high:.12g}"


def effective_limits(row: Field, limits: ControlRange | None) -> tuple[float | None, float | None]:
    """The intersection of the schema's range and the camera's, where both are numbers."""
    if limits is None or row.kind in ("boolean", "window"):
        return row.low, row.high
    low, high = _number(limits[0], row.low), _number(limits[1], row.high)
    if row.kind == "choice" or row.low is None or row.high is None:
        return low, high
    if low is None or high is None or low >= high:
        return row.low, row.high
    # libcamera reports 0 for a maximum that it does not know.
    return max(row.low, low), min(row.high, high) if high > 0 or row.high <= 0 else row.high


def _value_reason(group: Group, name: str, value: Any, config: StreamConfig) -> str | None:
    row = group.field_named(name)
    if row is None or value is None:
        return None
    if group.name == "hdr":
        return _hdr_reason(value, config)
    if group.name == "roi":
        return _missing_control("ScalerCrop", config)
    if group.name == "transform" and value and not config.can_flip and (name != "rotation" or value != 90):
        return f"{name}: this camera cannot mirror or rotate the image"
    if (group.name, name) == ("autofocus", "trigger"):
        return _missing_control("AfMode", config) if value else None
    if (group.name, name) == ("lens_correction", "enabled") and not value:
        return None
    if name in ("preset", "night_awb_preset"):
        return _missing_control("ColourGains" if value in NOIR_PRESETS else "AwbMode", config)
    if row.control is None:
        return None
    reason = _missing_control(row.control, config)
    return reason if reason is not None else out_of_range(row, value, config.controls[row.control])


def _missing_control(name: str, config: StreamConfig) -> str | None:
    return None if name in config.controls else f"this camera does not support {name}"


def _hdr_reason(word: str, config: StreamConfig) -> str | None:
    has_single = has_single_exposure_hdr(config)
    match word:
        case "sensor" if not config.has_sensor_hdr:
            return "mode sensor: this camera's sensor does not support HDR"
        case "single-exp" if not has_single:
            return "mode single-exp: not supported by this camera; single-exposure HDR requires a Raspberry Pi 5"
        case "auto" if not (has_single or config.has_sensor_hdr):
            return "mode auto: this camera does not support HDR"
    return None


def _number(value: Any, default: Any) -> Any:
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and value == value
    return value if is_number else default
