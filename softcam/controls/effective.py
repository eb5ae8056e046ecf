"""The values in effect, by the fields of the schema: what was requested unless another control overrides it.

Pure functions over values, for any thread.
"""

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
        case "roi" if (crop := mapping.stream_crop(requested, config)) is not None:
            return crop.shown
        case "stream":
            size = stream if config is None else config
            return {"width": size.width, "height": size.height, "fps": capabilities.clamped_fps(stream.fps, config)}
    return values


def _applied(group: Group, row: Field, value: Any, config: StreamConfig | None) -> Any:
    """The value that an open camera applies: clamped to its range, or the default if it is not supported."""
    if config is None or value is None:
        return value
    if row.kind == "choice":
        return value if capabilities.unsupported_reason(group, {row.name: value}, config) is None else row.default
    return capabilities.clamped(row.control, value, config)
