"""What counts now, in the words of the table: what was set, unless something else that was set rules it out.

Pure functions over values: no camera, no clock, no thread.
"""

from collections.abc import Mapping
from typing import Any

from softcam.camera.base import StreamConfig, StreamRequest
from softcam.camera.session.autofocus_cycle import AfMode
from softcam.controls import capabilities, mapping
from softcam.controls.schema import AWB_MODES, Field, Group
from softcam.controls.state import RequestedControls


def values_of(
    group: Group,
    asked: RequestedControls,
    wish: StreamRequest,
    mode: StreamConfig | None,
    focus: AfMode | None,
    *,
    is_night: bool,
) -> Mapping[str, Any]:
    """By field; None is for what is left to the camera. `focus` is who moves the lens, as far as it was told.

    What was set before anything was known of the camera is told as the camera then took it.
    """
    values = {row.name: _taken(group, row, asked.get(group.name, row.name), mode) for row in group.fields}
    match group.name:
        case "auto_exposure":
            return {"enabled": not mapping.is_exposure_fixed(asked)}
        case "awb":
            return {"enabled": not mapping.is_balance_fixed(asked, is_night=is_night)}
        case "awb_preset":
            preset = mapping.awb_preset(asked, is_night=is_night)
            is_fixed = preset is None and mapping.is_balance_fixed(asked, is_night=is_night)
            return {"preset": None if is_fixed else preset or next(iter(AWB_MODES))}
        case "manual_exposure" if not asked.has(group.name):
            return dict.fromkeys(values)
        case "manual_awb" if mapping.awb_preset(asked, is_night=is_night) is not None:
            return dict.fromkeys(values)
        case "autofocus_mode":
            focus = mapping.focus_mode(asked) if focus is None else focus
            return {"mode": None if focus is None else focus.name.lower()}
        case "image_processing" if is_night:
            told = {name: field for (of, name), field in mapping.NIGHT_FIELDS.items() if of == group.name}
            at_night = {name: asked.get("day_night_mode", field) for name, field in told.items()}
            return values | {
                name: _taken(group, group.row(name), value, mode)
                for name, value in at_night.items()
                if value is not None
            }
        case "roi":
            crop = mapping.crop_of(asked, mode)
            return values if crop is None else crop.shown
        case "stream":
            size = wish if mode is None else mode
            return {"width": size.width, "height": size.height, "fps": capabilities.fitted_fps(wish.fps, mode)}
    return values


def _taken(group: Group, row: Field, value: Any, mode: StreamConfig | None) -> Any:
    """What an open camera makes of a value that it has not, or that is beyond its range."""
    if mode is None or value is None:
        return value
    if row.kind == "choice":
        return value if capabilities.refusal(group, {row.name: value}, mode) is None else row.default
    return capabilities.fitted(row.control, value, mode)
