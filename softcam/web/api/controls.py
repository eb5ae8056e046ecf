"""The HTTP API of the controls, of holding the camera open, and of snapshots in JSON. Runs on request threads."""

import base64
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from http import HTTPStatus
from typing import Any, Final

from softcam.camera.base import StreamConfig
from softcam.camera.session.autofocus_cycle import AfMode
from softcam.camera.session.manager import CameraManager, Lease, State
from softcam.controls import capabilities, mapping
from softcam.controls.controller import ControlManager
from softcam.controls.effective import effective_values
from softcam.controls.fields import BadValue, Field, Group
from softcam.controls.schema import GROUPS
from softcam.web.api.media import MAX_SIZE_PX, MIN_SIZE_PX, MediaApi, SnapshotOptions
from softcam.web.http import body
from softcam.web.http.messages import AnyResponse, HttpError, Request, camera_disabled, json_response
from softcam.web.http.router import Doc, Route

_READY_TIMEOUT_S: Final = 30.0  # above the session's own limits for opening
_MIN_AUTOFOCUS_S: Final = 2.0  # for a requested cycle, whatever the configuration says
_OUTCOME_MARGIN_S: Final = 1.0  # so that the cycle's own timeout ends it first

_CONTROLS_PATHS: Final = ("/v1/camera/controls", "/camera/controls")
SNAPSHOT: Final = Group(
    "snapshot",
    "A snapshot in JSON, Base64-encoded.",
    (
        Field("width", "integer", "rounded down to an even number; alone, it keeps the aspect ratio", None,
              MIN_SIZE_PX, MAX_SIZE_PX, "pixels"),
        Field("height", "integer", "rounded down to an even number; alone, it keeps the aspect ratio", None,
              MIN_SIZE_PX, MAX_SIZE_PX, "pixels"),
        Field("autofocus_trigger", "boolean", "run autofocus first"),
        Field("quality", "integer", "JPEG quality", None, 1, 100),
        Field("max_age", "number", "maximum age of the frame", None, 0, 3600, "seconds"),
        Field("full", "boolean", "full-resolution image of the whole sensor"),
    ),
    is_optional=True,
)  # fmt: skip

_OK: Final = {"status": {"const": "ok"}}
_HOLD_SCHEMA: Final[Mapping[str, Any]] = {
    "type": "object",
    "properties": {**_OK, "held": {"type": "boolean"}, "state": {"enum": [state.value for state in State]}},
    "required": ["status", "held", "state"],
}
_SNAPSHOT_SCHEMA: Final[Mapping[str, Any]] = {
    "type": "object",
    "properties": {
        **_OK,
        "image_base64": {"type": "string", "contentEncoding": "base64", "contentMediaType": "image/jpeg"},
        "width": {"type": "integer"},
        "height": {"type": "integer"},
    },
    "required": ["status", "image_base64", "width", "height"],
}
_NULLABLE_NUMBER: Final = {"type": ["number", "null"]}
_FIELD_SCHEMA: Final[Mapping[str, Any]] = {
    "type": "object",
    "properties": {
        "type": {"enum": ["boolean", "integer", "number", "choice", "window"]},
        "help": {"type": "string"},
        "unit": {"type": ["string", "null"]},
        "control": {"type": ["string", "null"], "description": "name of the libcamera control"},
        "minimum": _NULLABLE_NUMBER,
        "maximum": _NULLABLE_NUMBER,
        "usual": {"type": ["array", "null"], "items": {"type": "number"}, "description": "range for a slider"},
        "choices": {"type": ["array", "null"], "items": {"type": "string"}},
        "nullable": {"type": "boolean"},
        "required": {"type": "boolean"},
        "default": {"description": "value in effect until one is set"},
        "value": {"description": "value in effect; null if the camera decides"},
        "is_set": {"type": "boolean", "description": "whether it was set; another control may override it"},
        "available": {"type": ["boolean", "null"], "description": "null before the camera is first opened"},
        "reason": {"type": ["string", "null"], "description": "why it is not available"},
    },
}
_PROBLEMS_SCHEMA: Final[Mapping[str, Any]] = {
    "controls_set_aside": {"type": ["string", "null"]},
    "controls_not_kept": {"type": ["string", "null"]},
    "controls_not_applied": {"type": "array", "items": {"type": "string"}},
}
CONTROLS_SCHEMA: Final[Mapping[str, Any]] = {
    "type": "object",
    "properties": {
        "controls": {
            "type": "object",
            "additionalProperties": {
                "type": "object",
                "properties": {
                    "help": {"type": "string"},
                    "path": {"type": "string"},
                    "restarts": {"type": "boolean", "description": "whether a change may restart the stream"},
                    "fields": {"type": "object", "additionalProperties": _FIELD_SCHEMA},
                },
                "required": ["help", "path", "restarts", "fields"],
            },
        },
        **_PROBLEMS_SCHEMA,
    },
    "required": ["controls", *_PROBLEMS_SCHEMA],
}
_NOTE: Final = {"type": ["string", "null"], "description": "how the result differs from the request, and why"}
# Fields of the answer to a change beside those that were set.
_RESULT_FIELDS: Final[Mapping[str, Mapping[str, Any]]] = {
    "autofocus": {
        "focused": {"type": ["boolean", "null"], "description": "with trigger; null if autofocus timed out"},
        "lens_position": {"type": ["number", "null"], "description": "with trigger; in dioptres"},
    },
    "exposure_limits": {"note": _NOTE},
    "roi": {"note": _NOTE},
    "stream": {"note": _NOTE},
    **{name: {"note": _NOTE} for name, _ in mapping.NIGHT_FIELDS},
}


class ControlApi:
    """The handlers of `/v1/camera/NAME`, `/v1/camera/controls`, `/camera/start`, `/camera/stop` and JSON snapshots."""

    def __init__(
        self,
        manager: CameraManager | None,
        control_manager: ControlManager,
        media: MediaApi,
        autofocus_timeout_s: float,
    ) -> None:
        """`manager` is None if the camera is disabled; controls are then saved as for a closed camera."""
        self._manager = manager
        self._control_manager = control_manager
        self._media = media
        self._autofocus_timeout_s = max(autofocus_timeout_s, _MIN_AUTOFOCUS_S) + _OUTCOME_MARGIN_S
        self._lock = threading.Lock()  # guards the fields below
        self._hold: Lease | None = None
        self._stops = 0  # counts `stop`, which also ends a `start` in progress

    def routes(self) -> list[Route]:
        controls = {200: {"application/json": CONTROLS_SCHEMA}}
        hold = {200: {"application/json": _HOLD_SCHEMA}}
        return [
            *(_control_route(group, partial(self.set, group)) for group in GROUPS),
            Route(
                ("/v1/camera/snapshot", "/camera/snapshot"),
                self.snapshot,
                "POST",
                is_read_only=True,
                doc=Doc(
                    "A snapshot in JSON",
                    "pictures",
                    {200: {"application/json": _SNAPSHOT_SCHEMA}},
                    body=SNAPSHOT.schema(),
                    is_body_required=False,
                    errors=(400, 503),
                ),
            ),
            Route(_CONTROLS_PATHS, self.list_controls, doc=Doc("List all controls", "controls", controls)),
            Route(
                _CONTROLS_PATHS,
                self.reset,
                "DELETE",
                doc=Doc("Reset all controls", "controls", controls, errors=(400, 409, 503)),
            ),
            Route(
                ("/camera/start", "/v1/camera/start"),
                self.start,
                "POST",
                doc=Doc("Open the camera and hold it open", "camera", hold, errors=(400, 503)),
            ),
            Route(
                ("/camera/stop", "/v1/camera/stop"),
                self.stop,
                "POST",
                doc=Doc(
                    "Release the camera held by start",
                    "camera",
                    hold,
                    description="The camera closes once it has no other clients.",
                    errors=(400, 503),
                ),
            ),
        ]

    def set(self, group: Group, request: Request) -> AnyResponse:
        """Set the values of one group."""
        values = body.read(request, group)
        manager = self._control_manager
        answer = group.answer(values)
        try:
            if group.name == "autofocus" and values.get("trigger"):
                answer |= self._run_autofocus(group, values)
            else:
                manager.change(group, values)
        except BadValue as error:
            raise HttpError(HTTPStatus.BAD_REQUEST, str(error)) from error
        match group.name:
            case "manual_exposure":
                answer.setdefault("gain", manager.requested.get("manual_exposure", "gain"))
            case "exposure_limits":
                notes = mapping.limits_notes(manager.requested, manager.stream_request, manager.config)
                answer["note"] = "; ".join(notes) or None
            case "roi":
                answer |= self._zoom_result()
            case "stream":
                config = manager.current_config
                deviations = () if config is None else capabilities.stream_deviations(manager.requested, config)
                answer["note"] = "; ".join(deviations) or None
            case name if manager.is_night and any(name == of for of, _ in mapping.NIGHT_FIELDS):
                note = "; ".join(mapping.night_notes(group, values, manager.requested))
                answer |= {"note": note} if note else {}  # without a note, programs expect exactly the answer above
        return json_response(answer)

    def snapshot(self, request: Request) -> AnyResponse:
        """Take one snapshot, Base64-encoded."""
        values = body.read(request, SNAPSHOT)
        snapshot = self._media.take_snapshot(
            SnapshotOptions(
                quality=values.get("quality"),
                width=values.get("width"),
                height=values.get("height"),
                max_age_s=values.get("max_age", 0.0),
                autofocus=values.get("autofocus_trigger"),
                full_sensor=values.get("full", False),
            )
        )
        width, height = snapshot.size
        text = base64.b64encode(snapshot.jpeg).decode("ascii")
        return json_response({"status": "ok", "image_base64": text, "width": width, "height": height})

    def list_controls(self, _request: Request) -> AnyResponse:
        """All controls with range, default and value."""
        focus = None if self._manager is None else self._manager.autofocus.mode
        controls = {group.name: _describe_group(group, self._control_manager, focus) for group in GROUPS}
        return json_response({"controls": controls} | self._control_manager.problems())

    def reset(self, request: Request) -> AnyResponse:
        """Reset all controls to their defaults."""
        body.read(request, body.NO_FIELDS)
        self._control_manager.reset()
        return self.list_controls(request)

    def start(self, request: Request) -> AnyResponse:
        """Hold the camera open until `stop`; answers once it delivers frames."""
        body.read(request, body.NO_FIELDS)
        manager = self._enabled_manager()
        with self._lock:
            stops = self._stops
        # Each request has its own lease, so that one that fails does not release what another one waits for.
        lease: Lease | None = manager.lease("hold")
        try:
            manager.wait_ready(time.monotonic() + _READY_TIMEOUT_S)
            with self._lock:
                if self._hold is None and stops == self._stops:
                    self._hold, lease = lease, None
        finally:
            if lease is not None:
                lease.release()
        return self._hold_answer()

    def stop(self, request: Request) -> AnyResponse:
        """Release the lease of `start`, and no other."""
        body.read(request, body.NO_FIELDS)
        with self._lock:
            hold, self._hold = self._hold, None
            self._stops += 1
        if hold is not None:
            hold.release()
        return self._hold_answer()

    def _hold_answer(self) -> AnyResponse:
        with self._lock:
            is_held = self._hold is not None
        state = State.CLOSED if self._manager is None else self._manager.state
        return json_response({"status": "ok", "held": is_held, "state": state})

    def _enabled_manager(self) -> CameraManager:
        if self._manager is None:
            raise camera_disabled()
        return self._manager

    def _run_autofocus(self, group: Group, values: Mapping[str, Any]) -> dict[str, Any]:
        """Apply the change and run a cycle. Before the camera is first opened, its support of autofocus is unknown."""
        manager = self._enabled_manager()
        with manager.lease("snapshot"):
            manager.wait_ready(time.monotonic() + _READY_TIMEOUT_S)
            self._control_manager.change(group, values)
            outcome = self._control_manager.trigger_autofocus(self._autofocus_timeout_s)
        if outcome is None:
            return {"focused": None, "lens_position": None}
        position = outcome.lens_position
        return {
            "focused": outcome.is_focused,
            "lens_position": None if position is None else round(float(position), 2),
        }

    def _zoom_result(self) -> dict[str, Any]:
        """The part of the image that is shown, and why it differs from the request."""
        crop = mapping.stream_crop(self._control_manager.requested, self._control_manager.current_config)
        if crop is None:
            return {"note": "applied when the camera opens"}
        return {**crop.shown, "note": ", ".join(crop.notes) or None}


def _control_route(group: Group, handle: Callable[[Request], AnyResponse]) -> Route:
    fields = {group.answers.get(each.name, each.name): each.answer_schema() for each in group.fields}
    schema = {
        "type": "object",
        "properties": {**_OK, **fields, **_RESULT_FIELDS.get(group.name, {})},
        "required": ["status"],
        "additionalProperties": False,
    }
    return Route(
        group.paths,
        handle,
        "POST",
        doc=Doc(
            group.help.partition(".")[0].partition(":")[0],
            "controls",
            {200: {"application/json": schema}},
            description=group.help,
            body=group.schema(),
            errors=(400, 409, 503),
        ),
    )


def _describe_group(group: Group, manager: ControlManager, focus: AfMode | None) -> dict[str, Any]:
    requested, config = manager.requested, manager.config
    # These depend on the shape of the next image, which is known only if the last opening had the same request.
    known = manager.current_config if group.name in ("stream", "roi") else config
    values = effective_values(group, requested, manager.stream_request, known, focus, is_night=manager.is_night)
    set_values = requested.groups.get(group.name, {})
    fields = {
        row.name: _describe_field(group, row, config) | {"value": values[row.name], "is_set": row.name in set_values}
        for row in group.fields
    }
    return {"help": group.help, "path": group.paths[0], "restarts": group.restarts, "fields": fields}


def _describe_field(group: Group, row: Field, config: StreamConfig | None) -> dict[str, Any]:
    limits = None if config is None or row.control is None else config.controls.get(row.control)
    low, high = capabilities.effective_limits(row, limits)
    choices = list(row.choices)
    reason = None
    if config is not None:
        supported = [
            word for word in choices if capabilities.unsupported_reason(group, {row.name: word}, config) is None
        ]
        choices = supported or choices
        reason = capabilities.unavailable_reason(group, row, config)
    default = row.default
    if limits is not None and isinstance(default, int | float) and not isinstance(default, bool):
        default = min(max(default, low or default), high or default)
    return {
        "type": row.kind,
        "help": row.help,
        "unit": row.unit or None,
        "control": row.control,
        "minimum": None if row.kind == "choice" else low,
        "maximum": None if row.kind == "choice" else high,
        "usual": None if row.usual is None else list(row.usual),
        "choices": choices or None,
        "nullable": row.is_nullable,
        "required": row.is_required,
        "default": default,
        "available": None if config is None else reason is None,
        "reason": reason,
    }
