"""The fields of the status with the values that some controls have now. Pure functions, on request threads."""

import math
from collections.abc import Mapping
from typing import Any, Final

from softcam.camera.session.manager import SessionStatus
from softcam.controls.controller import ControlManager
from softcam.controls.effective import effective_values, exposure_limits_us, frame_limits_us
from softcam.controls.fields import Field
from softcam.controls.schema import BY_NAME
from softcam.web.api.json_schema import INTEGER, Schema, note, nullable, record

# Field of the status, and the group and the field of the control.
_CONTROLS: Final = (
    ("exposure_value", "image_processing", "exposure_value"),
    ("noise_reduction_mode", "image_processing", "noise_reduction"),
    ("ae_constraint_mode", "ae_constraint_mode", "mode"),
    ("ae_exposure_mode", "ae_exposure_mode", "mode"),
)
_RANGE: Final = record({"min": INTEGER, "max": INTEGER}) | nullable("object")


def _schema(row: Field) -> Schema:
    return {"enum": [*row.choices, None]} if row.choices else nullable("number")


VALUES_SHAPE: Final[Mapping[str, Schema]] = {
    **{field: _schema(BY_NAME[group].row(name)) for field, group, name in _CONTROLS},
    "current_limits": record(
        {
            "frame_duration_us": _RANGE,
            "effective_exposure_limit_us": _RANGE | note("by the sensor, the frame duration and `exposure_limits`"),
        }
    )
    | note("null while the camera is closed"),
}


def control_values(status: SessionStatus, manager: ControlManager, sent: Mapping[str, Any]) -> Mapping[str, Any]:
    """The fields: as the newest frame reports them, or else as they were set; null where unknown or not supported.

    `sent` has the libcamera controls that were sent since the camera was opened.
    """
    metadata = status.metadata or {}
    return {
        **{field: _value(group, name, status, manager) for field, group, name in _CONTROLS},
        "current_limits": _limits(status, manager, sent, metadata),
    }


def _value(group_name: str, name: str, status: SessionStatus, manager: ControlManager) -> Any:
    group = BY_NAME[group_name]
    row = group.row(name)
    config = status.config or manager.config
    set_values = manager.requested.groups.get(group_name, {})
    if row.control not in config.controls if config is not None else name not in set_values:
        return None
    reported = (status.metadata or {}).get(row.control)
    if not isinstance(reported, int | float) or not math.isfinite(reported):
        return effective_values(group, manager.in_effect, manager.stream_request, config, None)[name]
    if row.choices:
        return next((word for word, number in row.choices.items() if number == reported), None)
    return round(reported, 3)


def _limits(
    status: SessionStatus, manager: ControlManager, sent: Mapping[str, Any], metadata: Mapping[str, Any]
) -> Mapping[str, Any]:
    frame_us = exposure_us = None
    if status.config is not None:
        frame_us = frame_limits_us(manager.stream_request, status.config, sent, metadata)
        exposure_us = exposure_limits_us(manager.requested, status.config, frame_us)
    return {"frame_duration_us": _range(frame_us), "effective_exposure_limit_us": _range(exposure_us)}


def _range(limits: tuple[int, int] | None) -> Mapping[str, int] | None:
    return None if limits is None else {"min": limits[0], "max": limits[1]}
