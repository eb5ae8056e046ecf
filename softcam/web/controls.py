"""What is set over HTTP: controls, the hold on the camera; and the snapshot in JSON. Runs on requests' threads."""

import base64
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from http import HTTPStatus
from typing import Any, Final

from softcam.camera.base import StreamMode
from softcam.camera.holder import CameraHolder, Lease, State
from softcam.camera.steering import Steering
from softcam.controls import merge
from softcam.controls.table import GROUPS, BadValue, Field, Group
from softcam.errors import CameraError, NotSupported
from softcam.web import bodies
from softcam.web.media import LARGEST_PX, SMALLEST_PX, Media, SnapshotWish
from softcam.web.messages import Answer, HttpError, Request, json_response
from softcam.web.routes import Doc, Route

_START_LIMIT_S: Final = 30.0  # opening has its own, shorter limits inside
_LEAST_FOCUS_S: Final = 2.0  # for a cycle that a user wants where the configuration has autofocus off

SNAPSHOT: Final = Group(
    "snapshot",
    "One picture in JSON, as Base64.",
    (
        Field("width", "integer", "width; alone, it keeps the aspect ratio", None, SMALLEST_PX, LARGEST_PX, "pixels"),
        Field("height", "integer", "height; alone, it keeps the aspect ratio", None, SMALLEST_PX, LARGEST_PX, "pixels"),
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
        "value": {"description": "what counts now"},
        "is_set": {"type": "boolean"},
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
        self, holder: CameraHolder | None, steering: Steering | None, media: Media, autofocus_timeout_s: float
    ) -> None:
        """`holder` and `steering` are None where the camera is switched off by configuration."""
        self._holder = holder
        self._steering = steering
        self._media = media
        self._focus_limit_s = max(autofocus_timeout_s, _LEAST_FOCUS_S)
        self._lock = threading.Lock()  # guards _hold
        self._hold: Lease | None = None

    def routes(self) -> list[Route]:
        return [
            *(_route_of(group, partial(self.set, group)) for group in GROUPS),
            Route(
                ("/v1/camera/snapshot", "/camera/snapshot"),
                self.snapshot,
                "POST",
                is_look=True,
                doc=Doc(
                    "A picture in JSON",
                    "pictures",
                    {200: {"application/json": _SNAPSHOT_SCHEMA}},
                    body=SNAPSHOT.schema(),
                    is_body_needed=False,
                    errors=(400, 503),
                ),
            ),
            Route(
                ("/v1/camera/controls", "/camera/controls"),
                self.look,
                doc=Doc("What can be set", "controls", {200: {"application/json": CONTROLS_SCHEMA}}, errors=(503,)),
            ),
            Route(
                ("/v1/camera/controls", "/camera/controls"),
                self.reset,
                "DELETE",
                doc=Doc(
                    "All controls back to their defaults",
                    "controls",
                    {200: {"application/json": CONTROLS_SCHEMA}},
                    errors=(409, 503),
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

    def set(self, group: Group, request: Request) -> Answer:
        """One group of the table."""
        values = bodies.read(request, group)
        holder, steering = self._camera()
        try:
            steering.change(group, values)
        except BadValue as error:
            raise HttpError(HTTPStatus.BAD_REQUEST, str(error)) from error
        answer = group.answer(values)
        if group.name == "manual_exposure":
            answer.setdefault("gain", steering.asked.get("manual_exposure", "gain"))
        if group.name == "roi":
            answer |= self._shown(steering)
        if values.get("trigger") and group.name == "autofocus":
            answer |= self._focus(holder, steering)
        return json_response(answer)

    def snapshot(self, request: Request) -> Answer:
        """One picture as Base64."""
        values = bodies.read(request, SNAPSHOT)
        taken = self._media.take(
            SnapshotWish(
                quality=values.get("quality"),
                width=values.get("width"),
                height=values.get("height"),
                max_age_s=values.get("max_age", 0.0),
                wants_focus=values.get("autofocus_trigger"),
                wants_full=values.get("full", False),
            )
        )
        width, height = taken.size
        text = base64.b64encode(taken.jpeg).decode("ascii")
        return json_response({"status": "ok", "image_base64": text, "width": width, "height": height})

    def look(self, _request: Request) -> Answer:
        """What can be set, with range, default and value."""
        _, steering = self._camera()
        mode = steering.mode
        return json_response(
            {"controls": {group.name: _described(group, steering, mode) for group in GROUPS}} | steering.troubles()
        )

    def reset(self, request: Request) -> Answer:
        """Back to the defaults."""
        bodies.read(request, bodies.NO_FIELDS)
        _, steering = self._camera()
        steering.reset()
        return self.look(request)

    def start(self, request: Request) -> Answer:
        """Hold the camera open until `stop`; answers when it gives pictures."""
        bodies.read(request, bodies.NO_FIELDS)
        holder, _ = self._camera()
        with self._lock:
            is_new = self._hold is None
            if self._hold is None:
                self._hold = holder.lease("hold")
        try:
            holder.wait_ready(time.monotonic() + _START_LIMIT_S)
        except CameraError:
            if is_new:
                self._let_go()
            raise
        return self._held(holder)

    def stop(self, request: Request) -> Answer:
        """Let go of what `start` holds, and of nothing else."""
        bodies.read(request, bodies.NO_FIELDS)
        holder, _ = self._camera()
        self._let_go()
        return self._held(holder)

    def _let_go(self) -> None:
        with self._lock:
            hold, self._hold = self._hold, None
        if hold is not None:
            hold.release()

    def _held(self, holder: CameraHolder) -> Answer:
        with self._lock:
            is_held = self._hold is not None
        return json_response({"status": "ok", "held": is_held, "state": holder.status_state})

    def _camera(self) -> tuple[CameraHolder, Steering]:
        if self._holder is None or self._steering is None:
            raise CameraError("the camera is switched off (CAMERA_ENABLED=0)")
        return self._holder, self._steering

    def _focus(self, holder: CameraHolder, steering: Steering) -> dict[str, Any]:
        deadline_s = time.monotonic() + _START_LIMIT_S
        with holder.lease("snapshot"):
            mode = holder.wait_ready(deadline_s)
            if not mode.has_autofocus:
                raise NotSupported("trigger: this camera has no AfMode")
            outcome = steering.focus_now(self._focus_limit_s)
        if outcome is None:
            return {"focused": None, "lens_position": None}
        position = outcome.lens_position
        return {
            "focused": outcome.is_focused,
            "lens_position": None if position is None else round(float(position), 2),
        }

    def _shown(self, steering: Steering) -> dict[str, Any]:
        """What came of a zoom: the part that is shown, and why it is not the one that was asked."""
        crop = None if steering.mode is None else merge.crop_of(steering.asked, steering.mode)
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


def _route_of(group: Group, handle: Callable[[Request], Answer]) -> Route:
    answers: dict[str, Any] = {group.answers.get(each.name, each.name): {} for each in group.fields}
    schema = {"type": "object", "properties": {**_OK, **answers}, "required": ["status"]}
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


def _described(group: Group, steering: Steering, mode: StreamMode | None) -> dict[str, Any]:
    fields = {each.name: _described_field(group, each, steering, mode) for each in group.fields}
    return {"help": group.help, "path": group.paths[0], "restarts": group.restarts, "fields": fields}


def _described_field(group: Group, row: Field, steering: Steering, mode: StreamMode | None) -> dict[str, Any]:
    asked = steering.asked
    limits = None if mode is None or row.control is None else mode.controls.get(row.control)
    low, high = merge.limits_of(row, limits)
    words = list(row.choices)
    reason = None
    if mode is not None:
        words = [word for word in words if merge.lacks(group, {row.name: word}, mode) is None] or words
        reason = merge.reason_against(group, row, mode)
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
        "value": asked.get(group.name, row.name),
        "is_set": row.name in asked.groups.get(group.name, {}),
        "available": None if mode is None else reason is None,
        "reason": reason,
    }
