"""The values in effect, by the fields of the schema: what was requested unless another control overrides it.

Pure functions over values, for any thread.
"""

import math
from collections.abc import Mapping
from typing import Any

from softcam.camera.base import StreamConfig, StreamRequest
from softcam.camera.session.autofocus_cycle import AfMode
from softcam.controls import capabilities, mapping
from softcam.controls.fields import Field, Group
from softcam.controls.state import RequestedControls


def effective_values(
    group: Group,
    requested: RequestedControls,
    stream: StreamRequest,
    config: StreamConfig | None,
    focus: AfMode | None,
) -> Mapping[str, Any]:
    """The values of a group by field; None if the camera decides. `focus` is the focus mode sent last, None if none.

    `requested` has the night profile applied at night. Values that were set before the camera's ranges were known are
    returned as the camera applies them.
    """
    values = {row.name: _applied(group, row, requested.get(group.name, row.name), config) for row in group.fields}
    match group.name:
        case "auto_exposure":
            return {"enabled": not mapping.is_exposure_fixed(requested)}
        case "awb":
            return {"enabled": not mapping.is_balance_fixed(requested)}
        case "awb_preset" if not requested.has(group.name) and mapping.is_balance_fixed(requested):
            return {"preset": None}
        case "awb_preset":
            return {"preset": requested.get(group.name, "preset")}
        case "manual_exposure" if not requested.has(group.name):
            return dict.fromkeys(values)
        case "autofocus_mode":
            focus = mapping.focus_mode(requested) if focus is None else focus
            return {"mode": None if focus is None else focus.name.lower()}
        case "roi" if (crop := mapping.stream_crop(requested, stream, config)) is not None:
            return crop.shown
        case "fov_mode":
            return {"mode": capabilities.field_of_view(stream, config)}
        case "stream":
            size = stream if config is None else config
            return {"width": size.width, "height": size.height, "fps": capabilities.clamped_fps(stream.fps, config)}
    return values


def frame_limits_us(
    stream: StreamRequest, config: StreamConfig, sent: Mapping[str, Any], metadata: Mapping[str, Any]
) -> tuple[int, int] | None:
    """The limits of the frame duration of an open camera, in microseconds; None if the camera has none.

    `sent` has the libcamera controls that were sent since it was opened; without any, the rate is that of `stream`.
    """
    if "FrameDurationLimits" not in config.controls:
        return None
    period_us = 1e6 / stream.fps
    limits = metadata.get("FrameDurationLimits") or sent.get("FrameDurationLimits") or (period_us, period_us)
    low, high = config.controls["FrameDurationLimits"][:2]
    least, most = (round(min(max(each, low or 0), high or math.inf)) for each in limits)
    return least, most


def exposure_limits_us(
    requested: RequestedControls, config: StreamConfig, frame_us: tuple[int, int] | None
) -> tuple[int, int] | None:
    """The shortest and the longest exposure time now, in microseconds; None if the camera has no exposure control.

    A frame bounds the exposure, and so do the limits of the automatic exposure while it is on.
    """
    if "ExposureTime" not in config.controls:
        return None
    low, high = config.controls["ExposureTime"][:2]
    limits = mapping.exposure_limits(requested, config)
    longest = [each for each in (high, limits.max_exposure_us, None if frame_us is None else frame_us[1]) if each]
    least, most = max(low or 0, limits.min_exposure_us or 0), min(longest, default=0)
    return (min(least, most), most) if most else None


def _applied(group: Group, row: Field, value: Any, config: StreamConfig | None) -> Any:
    """The value that an open camera applies: clamped to its range, or the default if it is not supported."""
    if config is None or value is None:
        return value
    if row.kind == "choice":
        return value if capabilities.unsupported_reason(group, {row.name: value}, config) is None else row.default
    return capabilities.clamped(row.control, value, config)
