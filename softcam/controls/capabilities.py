"""What a camera lacks of what was asked, and what it does instead: by its own ranges, in words for people.

Pure functions over values: no camera, no clock, no thread. What a camera is told is `merge`'s.
"""

import math
from collections.abc import Iterator
from typing import Any, Final

from softcam.camera.base import ControlRange, StreamConfig
from softcam.controls.schema import GROUPS, NOIR_PRESETS, Field, Group
from softcam.controls.state import RequestedControls, Values

HDR_SINGLE_EXPOSURE: Final = 3  # of libcamera's HdrModeEnum
_CLOSE: Final = 1.01  # rates are told in whole microseconds, and rounded by people
_NUMBERS: Final = frozenset(
    row.control for group in GROUPS for row in group.fields if row.kind in ("integer", "number")
)


def refusal(group: Group, values: Values, mode: StreamConfig) -> str | None:
    """Why this camera cannot do what was asked, by field and reason; None where it can."""
    faults = [fault for name, value in values.items() if (fault := _lack(group, name, value, mode)) is not None]
    return "; ".join(faults) if faults else None


def not_applied(asked: RequestedControls, mode: StreamConfig) -> tuple[str, ...]:
    """What of all that was asked an open camera does not do, by field and reason, and what it does instead."""
    faults = (
        f"{fault}{_instead(group, name, value, mode)}"
        for group in GROUPS
        for name, value in asked.groups.get(group.name, {}).items()
        if (fault := _lack(group, name, value, mode)) is not None
    )
    return tuple(dict.fromkeys([*faults, *shortfall(asked, mode)]))


def _instead(group: Group, name: str, value: Any, mode: StreamConfig) -> str:
    row = group.row(name)
    nearest = fitted(row.control, value, mode)
    return "" if nearest == value else f"; {nearest:.12g} is used"


def fitted(control: str | None, value: Any, mode: StreamConfig | None) -> Any:
    """The number nearest to `value` that the camera takes: it may have been set when nothing was known of it."""
    if mode is None or control is None or value is None or control not in _NUMBERS or control not in mode.controls:
        return value
    if isinstance(value, tuple):
        return tuple(fitted(control, each, mode) for each in value)
    low, high = (_number(limit, None) for limit in mode.controls[control][:2])
    return value if low is None or high is None or low >= high else type(value)(min(max(value, low), high))


def fitted_fps(fps: float, mode: StreamConfig | None) -> float:
    """The rate nearest to `fps` that the camera gives as it is."""
    shortest_us, longest_us = frame_limits_us(mode)
    most = 1e6 / shortest_us if shortest_us > 0 else math.inf
    least = 1e6 / longest_us if longest_us > 0 else 0.0
    # What is as good as it stays as it was asked.
    return fps if least / _CLOSE <= fps <= most * _CLOSE else round(min(max(fps, least), most), 3)


def frame_limits_us(mode: StreamConfig | None) -> tuple[float, float]:
    """How long a frame takes at least and at most; 0 is not known."""
    if mode is None or "FrameDurationLimits" not in mode.controls:
        return 0.0, 0.0
    shortest_us, longest_us = (float(_number(each, 0)) for each in mode.controls["FrameDurationLimits"][:2])
    return shortest_us, longest_us


def shortfall(asked: RequestedControls, mode: StreamConfig) -> Iterator[str]:
    """What of the stream's size and rate an open camera does not give, by field; it cannot be known before."""
    for name, given in (("width", mode.width), ("height", mode.height)):
        wanted = asked.get("stream", name)
        if wanted is not None and wanted != given:
            yield f"{name}: the camera gives {given}"
    fps = asked.get("stream", "fps")
    if fps is None:
        return
    shortest_us, longest_us = frame_limits_us(mode)
    if shortest_us > 0 and fps > 1e6 / shortest_us * _CLOSE:
        yield f"fps: the camera gives {1e6 / shortest_us:.3g} at the most, as it is"
    elif longest_us > 0 and fps < 1e6 / longest_us / _CLOSE:
        yield f"fps: the camera gives {1e6 / longest_us:.3g} at the least, as it is"


def _lack(group: Group, name: str, value: Any, mode: StreamConfig) -> str | None:
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


def _lack_of_control(name: str, mode: StreamConfig) -> str | None:
    return None if name in mode.controls else f"this camera has no {name}"


def has_single_hdr(mode: StreamConfig) -> bool:
    # The range alone says nothing: libcamera has one table of controls for all Raspberry Pis.
    return (
        mode.has_hdr_modes
        and "HdrMode" in mode.controls
        and _number(mode.controls["HdrMode"][1], 0) >= HDR_SINGLE_EXPOSURE
    )


def _lack_of_hdr(word: str, mode: StreamConfig) -> str | None:
    has_single = has_single_hdr(mode)
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


def reason_against(group: Group, row: Field, mode: StreamConfig) -> str | None:
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
