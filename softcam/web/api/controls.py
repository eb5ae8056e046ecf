"""What is set over HTTP: controls, the hold on the camera; and the snapshot in JSON. Runs on requests' threads."""

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
from softcam.controls.schema import GROUPS, BadValue, Field, Group
from softcam.web.api.media import MAX_SIZE_PX, MIN_SIZE_PX, MediaApi, SnapshotOptions
from softcam.web.http import body
from softcam.web.http.messages import AnyResponse, HttpError, Request, camera_disabled, json_response
from softcam.web.http.router import Doc, Route

_START_LIMIT_S: Final = 30.0  # opening has its own, shorter limits inside
_LEAST_FOCUS_S: Final = 2.0  # as long may a cycle that a user wants take, whatever the configuration says
_VERDICT_S: Final = 1.0  # more, so that a cycle's own end is heard

_ALONE: Final = ", rounded down to an even number; alone, it keeps the aspect ratio"
SNAPSHOT: Final = Group(
    "snapshot",
    "One picture in JSON, as Base64.",
    (
        Field(
            "width",
            "integer",
            "width, made even; alone, it keeps the aspect ratio",
            None,
            MIN_SIZE_PX,
            MAX_SIZE_PX,
            "pixels",
        ),
        Field(
            "height",
            "integer",
            "height, made even; alone, it keeps the aspect ratio",
            None,
            MIN_SIZE_PX,
            MAX_SIZE_PX,
            "pixels",
        ),
        Field("autofocus_trigger", "boolean", "focus first"),
        Field("quality", "integer", "JPEG quality", None, 1, 100),
        Field("max_age", "number", "how old the picture may be", None, 0, 3600, "seconds"),
        Field("full", "boolean", "the whole sensor"),
    ),
    is_optional=True,
)

_OK: Final = {"status": {"const": "ok"}}
_HELD: Final[Mapping[str, Any]] = {
    "type": "object",
    "properties": {**_OK, "held": {"type": "boolean"}, "state": {"enum": [state.value for state in State]}},
    "required": ["status", "held", "state"],
}
_NULLABLE_NUMBER: Final = {"type": ["number", "null"]}
_FIELD_SCHEMA: Final[Mapping[str, Any]] = {
    "type": "object",
    "properties": {
        "type": {"enum": ["boolean", "integer", "number", "choice", "window"]},
        "help": {"type": "string"},
        "unit": {"type": ["string", "null"]},
        "control": {"type": ["string", "null"], "description": "libcamera's name"},
        "minimum": _NULLABLE_NUMBER,
        "maximum": _NULLABLE_NUMBER,
        "usual": {"type": ["array", "null"], "items": {"type": "number"}, "description": "the range for a slider"},
        "choices": {"type": ["array", "null"], "items": {"type": "string"}},
        "nullable": {"type": "boolean"},
        "required": {"type": "boolean"},
        "default": {"description": "what counts until something is set"},
        "value": {"description": "what counts now; null where it is left to the camera"},
        "is_set": {"type": "boolean", "description": "by hand; something else that was set may still rule it out"},
        "available": {"type": ["boolean", "null"], "description": "null before the camera was ever open"},
        "reason": {"type": ["string", "null"], "description": "why it is not available"},
    },
}
_TROUBLES: Final[Mapping[str, Any]] = {
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
        **_TROUBLES,
    },
    "required": ["controls", *_TROUBLES],
}


class ControlApi:
    """Answers for `/v1/camera/NAME`, `/v1/camera/controls`, `/camera/start` and `/camera/stop`."""

    def __init__(
        self,
        manager: CameraManager | None,
        control_manager: ControlManager,
        media: MediaApi,
        autofocus_timeout_s: float,
    ) -> None:
        """`manager` is None where the camera is switched off by configuration; all is kept then as for a closed one."""
        self._manager = manager
        self._control_manager = control_manager
        self._media = media
        self._focus_limit_s = max(autofocus_timeout_s, _LEAST_FOCUS_S) + _VERDICT_S
        self._lock = threading.Lock()  # guards the fields below
        self._hold: Lease | None = None
        self._stops = 0  # counts them: a start that was under way then holds nothing

    def routes(self) -> list[Route]:
        return [
            *(_route_of(group, partial(self.set, group)) for group in GROUPS),
            Route(
                ("/v1/camera/snapshot", "/camera/snapshot"),
                self.snapshot,
                "POST",
                is_read_only=True,
                doc=Doc(
                    "A picture in JSON",
                    "pictures",
                    {200: {"application/json": _SNAPSHOT_SCHEMA}},
                    body=SNAPSHOT.schema(),
                    is_body_required=False,
                    errors=(400, 503),
                ),
            ),
            Route(
                ("/v1/camera/controls", "/camera/controls"),
                self.look,
                doc=Doc("What can be set", "controls", {200: {"application/json": CONTROLS_SCHEMA}}),
            ),
            Route(
                ("/v1/camera/controls", "/camera/controls"),
                self.reset,
                "DELETE",
                doc=Doc(
                    "All controls back to their defaults",
                    "controls",
                    {200: {"application/json": CONTROLS_SCHEMA}},
                    errors=(400, 409, 503),
                ),
            ),
            Route(
                ("/camera/start", "/v1/camera/start"),
                self.start,
                "POST",
                doc=Doc(
                    "Open the camera and hold it open", "camera", {200: {"application/json": _HELD}}, errors=(400, 503)
                ),
            ),
            Route(
                ("/camera/stop", "/v1/camera/stop"),
                self.stop,
                "POST",
                doc=Doc(
                    "Let the camera go that was held by start",
                    "camera",
                    {200: {"application/json": _HELD}},
                    description="It closes when nobody else uses it: viewers keep it open.",
                    errors=(400, 503),
                ),
            ),
        ]

    def set(self, group: Group, request: Request) -> AnyResponse:
        """One group of the table."""
        values = body.read(request, group)
        control_manager = self._control_manager
        answer = group.answer(values)
        try:
            if group.name == "autofocus" and values.get("trigger"):
                answer |= self._focus(self._camera(), control_manager, group, values)
            else:
                control_manager.change(group, values)
        except BadValue as error:
            raise HttpError(HTTPStatus.BAD_REQUEST, str(error)) from error
        match group.name:
            case "manual_exposure":
                answer.setdefault("gain", control_manager.requested.get("manual_exposure", "gain"))
            case "exposure_limits":
                notes = mapping.limits_notes(
                    control_manager.requested, control_manager.stream_request, control_manager.config
                )
                answer["note"] = "; ".join(notes) or None
            case "roi":
                answer |= self._shown(control_manager)
            case "stream":
                given = control_manager.current_config
                lacking = () if given is None else capabilities.stream_deviations(control_manager.requested, given)
                answer["note"] = "; ".join(lacking) or None
            case name if any(name == of for of, _ in mapping.NIGHT_FIELDS):
                said = (
                    "; ".join(mapping.night_notes(group, values, control_manager.requested))
                    if control_manager.is_night
                    else ""
                )
                answer |= {"note": said} if said else {}  # otherwise it is word for word what programs know
        return json_response(answer)

    def snapshot(self, request: Request) -> AnyResponse:
        """One picture as Base64."""
        values = body.read(request, SNAPSHOT)
        taken = self._media.take_snapshot(
            SnapshotOptions(
                quality=values.get("quality"),
                width=values.get("width"),
                height=values.get("height"),
                max_age_s=values.get("max_age", 0.0),
                autofocus=values.get("autofocus_trigger"),
                full_sensor=values.get("full", False),
            )
        )
        width, height = taken.size
        text = base64.b64encode(taken.jpeg).decode("ascii")
        return json_response({"status": "ok", "image_base64": text, "width": width, "height": height})

    def look(self, _request: Request) -> AnyResponse:
        """What can be set, with range, default and value."""
        focus = None if self._manager is None else self._manager.focus.mode
        controls = {group.name: _described(group, self._control_manager, focus) for group in GROUPS}
        return json_response({"controls": controls} | self._control_manager.problems())

    def reset(self, request: Request) -> AnyResponse:
        """Back to the defaults."""
        body.read(request, body.NO_FIELDS)
        self._control_manager.reset()
        return self.look(request)

    def start(self, request: Request) -> AnyResponse:
        """Hold the camera open until `stop`; answers when it gives pictures."""
        body.read(request, body.NO_FIELDS)
        manager = self._camera()
        with self._lock:
            stops = self._stops
        # Each one its own, so that none that fails lets go of what another waits for.
        lease: Lease | None = manager.lease("hold")
        try:
            manager.wait_ready(time.monotonic() + _START_LIMIT_S)
            with self._lock:
                if self._hold is None and stops == self._stops:
                    self._hold, lease = lease, None
        finally:
            if lease is not None:
                lease.release()
        return self._held(manager)

    def stop(self, request: Request) -> AnyResponse:
        """Let go of what `start` holds, and of nothing else."""
        body.read(request, body.NO_FIELDS)
        self._let_go()
        return self._held(self._manager)

    def _let_go(self) -> None:
        with self._lock:
            hold, self._hold = self._hold, None
            self._stops += 1
        if hold is not None:
            hold.release()

    def _held(self, manager: CameraManager | None) -> AnyResponse:
        with self._lock:
            is_held = self._hold is not None
        state = State.CLOSED if manager is None else manager.status_state
        return json_response({"status": "ok", "held": is_held, "state": state})

    def _camera(self) -> CameraManager:
        if self._manager is None:
            raise camera_disabled()
        return self._manager

    def _focus(
        self, manager: CameraManager, control_manager: ControlManager, group: Group, values: Mapping[str, Any]
    ) -> dict[str, Any]:
        """A change with a cycle: the camera is opened first, for only then is known whether it can focus at all."""
        with manager.lease("snapshot"):
            manager.wait_ready(time.monotonic() + _START_LIMIT_S)
            control_manager.change(group, values)
            outcome = control_manager.trigger_autofocus(self._focus_limit_s)
        if outcome is None:
            return {"focused": None, "lens_position": None}
        position = outcome.lens_position
        return {
            "focused": outcome.is_focused,
            "lens_position": None if position is None else round(float(position), 2),
        }

    def _shown(self, control_manager: ControlManager) -> dict[str, Any]:
        """What came of a zoom: the part that is shown, and why it is not the one that was asked."""
        crop = mapping.stream_crop(control_manager.requested, control_manager.current_config)
        if crop is None:
            return {"note": "kept, and fitted to the picture when the camera opens"}
        return {**crop.shown, "note": ", ".join(crop.notes) or None}


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


_NOTE: Final = {"type": ["string", "null"], "description": "what came out otherwise than asked, and why"}
# What the answer to a change tells beyond what was set.
_OUTCOMES: Final[Mapping[str, Mapping[str, Any]]] = {
    "autofocus": {
        "focused": {"type": ["boolean", "null"], "description": "with trigger; null where no end was seen in time"},
        "lens_position": {"type": ["number", "null"], "description": "with trigger; in dioptres"},
    },
    "exposure_limits": {"note": _NOTE},
    "roi": {"note": _NOTE},
    "stream": {"note": _NOTE},
    **{name: {"note": _NOTE} for name, _ in mapping.NIGHT_FIELDS},
}


def _route_of(group: Group, handle: Callable[[Request], AnyResponse]) -> Route:
    answers = {group.answers.get(each.name, each.name): each.answer_schema() for each in group.fields}
    schema = {
        "type": "object",
        "properties": {**_OK, **answers, **_OUTCOMES.get(group.name, {})},
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


def _described(group: Group, control_manager: ControlManager, focus: AfMode | None) -> dict[str, Any]:
    asked, mode = control_manager.requested, control_manager.config
    # The shape of the next picture, on which these hang, is that of the last one only where nothing else is wanted now.
    known = control_manager.current_config if group.name in ("stream", "roi") else mode
    values = effective_values(
        group, asked, control_manager.stream_request, known, focus, is_night=control_manager.is_night
    )
    set_now = asked.groups.get(group.name, {})
    fields = {
        row.name: _described_field(group, row, mode) | {"value": values[row.name], "is_set": row.name in set_now}
        for row in group.fields
    }
    return {"help": group.help, "path": group.paths[0], "restarts": group.restarts, "fields": fields}


def _described_field(group: Group, row: Field, mode: StreamConfig | None) -> dict[str, Any]:
    limits = None if mode is None or row.control is None else mode.controls.get(row.control)
    low, high = capabilities.effective_limits(row, limits)
    words = list(row.choices)
    reason = None
    if mode is not None:
        words = [
            word for word in words if capabilities.unsupported_reason(group, {row.name: word}, mode) is None
        ] or words
        reason = capabilities.unavailable_reason(group, row, mode)
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
        "choices": words or None,
        "nullable": row.is_nullable,
        "required": row.is_required,
        "default": default,
        "available": None if mode is None else reason is None,
        "reason": reason,
    }
