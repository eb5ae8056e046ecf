"""The HTTP API of the controls, of holding the camera open, and of snapshots in JSON. Runs on request threads."""

import base64
import contextlib
import math
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any, Final, get_args

from softcam.camera.base import StreamConfig
from softcam.camera.sensor_modes import FovMode
from softcam.camera.session.autofocus_cycle import AfMode
from softcam.camera.session.manager import CameraManager, Lease, LeaseKind, State
from softcam.controls import capabilities, mapping
from softcam.controls.controller import ChangeResult, ControlManager
from softcam.controls.effective import effective_values
from softcam.controls.fields import NO_NAMES, Field, Group, Kind
from softcam.controls.schema import BY_NAME, GROUPS
from softcam.imaging.jpeg import size_of
from softcam.web.api.json_schema import (
    BOOLEAN,
    INTEGER,
    NOTE,
    NUMBER,
    STATUS_OK,
    STRING,
    Schema,
    json_ok,
    note,
    nullable,
    record,
    with_note,
)
from softcam.web.api.media import SIZE_LIMITS, MediaApi, SnapshotOptions
from softcam.web.api.presets import APPLIED_SHAPE, PRESET, PresetsApi
from softcam.web.http import body
from softcam.web.http.messages import AnyResponse, Request, camera_disabled, json_response
from softcam.web.http.router import Doc, Route

_READY_TIMEOUT_S: Final = 30.0  # above the session's own limits for opening
_MIN_AUTOFOCUS_S: Final = 2.0  # for a requested cycle, whatever the configuration says
_OUTCOME_MARGIN_S: Final = 1.0  # so that the cycle's own timeout ends it first

SNAPSHOT: Final = Group(
    "snapshot",
    "A snapshot in JSON, Base64-encoded.",
    (
        Field("width", "integer", "rounded down to an even number; alone, it keeps the aspect ratio", **SIZE_LIMITS),
        Field("height", "integer", "rounded down to an even number; alone, it keeps the aspect ratio", **SIZE_LIMITS),
        Field("autofocus_trigger", "boolean", "run autofocus first"),
        Field("quality", "integer", "JPEG quality", None, 1, 100),
        Field("max_age", "number", "maximum age of the frame", None, 0, 3600, "seconds"),
        Field("full", "boolean", "full-resolution image of the whole sensor"),
    ),
    is_optional=True,
)  # fmt: skip

_HOLD: Final = record({**STATUS_OK, "held": BOOLEAN, "state": {"enum": [state.value for state in State]}})
_IMAGE: Final = {"type": "string", "contentEncoding": "base64", "contentMediaType": "image/jpeg"}
_SNAPSHOT: Final = record({**STATUS_OK, "image_base64": _IMAGE, "width": INTEGER, "height": INTEGER})
_FIELD: Final = record(
    {
        "type": {"enum": list(get_args(Kind))},
        "help": STRING,
        "unit": nullable("string"),
        "control": nullable("string") | note("name of the libcamera control"),
        "minimum": nullable("number"),
        "maximum": nullable("number"),
        "usual": nullable("array") | {"items": NUMBER} | note("range for a slider"),
        "choices": nullable("array") | {"items": STRING},
        "nullable": BOOLEAN,
        "required": BOOLEAN,
        "default": note("value in effect until one is set"),
        "value": note("value in effect; null if the camera decides"),
        "is_set": BOOLEAN | note("whether it was set; another control may override it"),
        "available": nullable("boolean") | note("null before the camera is first opened"),
        "reason": nullable("string") | note("why it is not available"),
    }
)
_GROUP: Final = record(
    {
        "help": STRING,
        "path": STRING,
        "restarts": BOOLEAN | note("whether a change may restart the stream"),
        "fields": {"type": "object", "additionalProperties": _FIELD},
    }
)
_CONTROLS: Final = record(
    {
        "controls": {"type": "object", "additionalProperties": _GROUP},
        "controls_set_aside": nullable("string"),
        "controls_not_kept": nullable("string"),
        "controls_not_applied": {"type": "array", "items": STRING},
    }
)
FOCUS_FIELDS: Final = {
    "focused": nullable("boolean") | note("with trigger; null if autofocus timed out"),
    "lens_position": nullable("number") | note("with trigger; in dioptres"),
}
_FOV_DESCRIPTIONS: Final[Mapping[FovMode, str]] = {
    "scale": "the whole field of view at every size",
    "crop": "the middle of the sensor, one pixel of it for each pixel of the image",
}
_NOT_YET_APPLIED: Final = {"note": "applied when the camera opens"}
# Fields of the response to a change beside those that were set.
_RESULT_FIELDS: Final[Mapping[str, Mapping[str, Any]]] = {
    "autofocus": FOCUS_FIELDS,
    "fov_mode": {"description": STRING},
}

_CONTROLS_PATHS: Final = ("/v1/camera/controls", "/camera/controls")
CONTROL_ERRORS: Final = (400, 409, 503)
_LIST_DOC: Final = Doc("List all controls", "controls", json_ok(_CONTROLS))
_RESET_DOC: Final = Doc("Reset all controls", "controls", json_ok(_CONTROLS), errors=CONTROL_ERRORS)
_FOV_ANSWER: Final = {
    "mode": {"enum": list(_FOV_DESCRIPTIONS)},
    "description": STRING | note("what the stream shows now: a high frame rate may leave only the sensor's middle"),
}
_FOV_DOC: Final = Doc(
    "Field of view in effect",
    "controls",
    json_ok(record({**STATUS_OK, **_FOV_ANSWER, **NOTE})),
)
_STARTED: Final = {**_HOLD, "properties": {**_HOLD["properties"], **APPLIED_SHAPE}}
_START_DOC: Final = Doc(
    "Open the camera and hold it open",
    "camera",
    json_ok(_STARTED),
    "With a preset, applies it first; the camera is not opened if that is not possible.",
    parameters=(PRESET,),
    errors=(400, 404, 503),
)
_RELEASE: Final = "The camera closes once it has no other clients."
_STOP_DOC: Final = Doc("Release the camera held by start", "camera", json_ok(_HOLD), _RELEASE, errors=(400, 503))
_SNAPSHOT_DOC: Final = Doc(
    "A snapshot in JSON",
    "pictures",
    json_ok(_SNAPSHOT),
    body=SNAPSHOT.schema(),
    is_body_required=False,
    errors=(400, 503),
)


class ControlApi:
    """The handlers of `/v1/camera/NAME`, `/v1/camera/controls`, `/camera/start`, `/camera/stop` and JSON snapshots."""

    def __init__(
        self,
        manager: CameraManager | None,
        control_manager: ControlManager,
        media: MediaApi,
        autofocus_timeout_s: float,
        presets: PresetsApi,
    ) -> None:
        """`manager` is None if the camera is disabled; controls are then saved as for a closed camera."""
        self._manager = manager
        self._control_manager = control_manager
        self._media = media
        self._presets = presets
        self._autofocus_timeout_s = max(autofocus_timeout_s, _MIN_AUTOFOCUS_S) + _OUTCOME_MARGIN_S
        self._lock = threading.Lock()  # guards changes of the fields below; each may be read without it
        self._hold: Lease | None = None
        self._stops = 0  # counts `stop`, which also ends a `start` in progress

    def routes(self) -> list[Route]:
        return [
            *(
                Route(control_paths(group), partial(self.set, group), "POST", is_repeated=True, doc=_control_doc(group))
                for group in GROUPS
            ),
            Route(control_paths(BY_NAME["fov_mode"]), self.fov_mode, doc=_FOV_DOC),
            Route(control_paths(SNAPSHOT), self.snapshot, "POST", is_read_only=True, doc=_SNAPSHOT_DOC),
            Route(_CONTROLS_PATHS, self.list_controls, doc=_LIST_DOC),
            Route(_CONTROLS_PATHS, self.reset, "DELETE", doc=_RESET_DOC),
            Route(("/camera/start", "/v1/camera/start"), self.start, "POST", doc=_START_DOC),
            Route(("/camera/stop", "/v1/camera/stop"), self.stop, "POST", doc=_STOP_DOC),
        ]

    def set(self, group: Group, request: Request) -> AnyResponse:
        """Set the values of one group."""
        values = body.read(request, group)
        return json_response({**group.answer(values), **self.change(group, values)})

    def change(
        self,
        group: Group,
        values: Mapping[str, Any],
        names: Mapping[str, str] = NO_NAMES,
        autofocus_timeout_s: float = math.inf,
    ) -> Mapping[str, Any]:
        """Set values; returns the fields of the response beside them: what became of the request, and why.

        `names` renames fields in errors and notes. A requested autofocus cycle is waited for until its own timeout, or
        until that of the request, which includes opening the camera.
        """
        return self.add_unsaved_note(self._change(group, values, names, autofocus_timeout_s))

    def add_unsaved_note(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """These fields of the response to a change; if the controls are not saved, the note says why."""
        return with_note(fields, self._control_manager.unsaved_note())

    def _change(
        self, group: Group, values: Mapping[str, Any], names: Mapping[str, str], autofocus_timeout_s: float
    ) -> Mapping[str, Any]:
        if group.name == "autofocus" and values.get("trigger"):
            return self._run_autofocus(group, values, names, autofocus_timeout_s)
        manager = self._control_manager
        result = manager.change(group, values, names)
        notes: Iterable[str]
        match group.name:
            case "manual_exposure":
                return {"gain": result.requested.get("manual_exposure", "gain")}
            case "roi":
                crop = mapping.stream_crop(result.requested, result.stream, result.config)
                if crop is None:
                    return _NOT_YET_APPLIED
                return {**crop.shown, "note": ", ".join(crop.notes) or None}
            case "exposure_limits":
                notes = mapping.limits_notes(result.requested, result.stream, manager.config)
            case "stream":
                return stream_note(result)
            case "fov_mode":
                mode = result.stream.fov  # also if the request returned to the configured one
                return {"mode": mode, "description": _shown(mode, result.config), **stream_note(result)}
            case _:
                notes = [*mapping.night_notes(group, values, result.requested, names)] if manager.is_night else []
                if not notes:
                    return {}  # programs expect exactly the fields that were set
        return {"note": "; ".join(notes) or None}

    def snapshot(self, request: Request) -> AnyResponse:
        """Take one snapshot, Base64-encoded."""
        snapshot = self._media.take_snapshot(SnapshotOptions.of(body.read(request, SNAPSHOT)))
        width, height = size_of(snapshot.jpeg)
        text = base64.b64encode(snapshot.jpeg).decode("ascii")
        return json_response({"status": "ok", "image_base64": text, "width": width, "height": height})

    def list_controls(self, _request: Request) -> AnyResponse:
        """All controls with range, default and value."""
        focus = None if self._manager is None else self._manager.autofocus.mode
        controls = {group.name: _describe_group(group, self._control_manager, focus) for group in GROUPS}
        return json_response({"controls": controls} | self._control_manager.problems())

    def fov_mode(self, _request: Request) -> AnyResponse:
        """The field of view in effect."""
        manager = self._control_manager
        stream, config = manager.stream_request, manager.current_config
        mode = capabilities.field_of_view(stream, manager.config)
        notes = [] if config is None else capabilities.field_notes(stream, config)
        fields = {"mode": mode, "description": _shown(mode, config), "note": "; ".join(notes) or None}
        return json_response({"status": "ok", **fields})

    def reset(self, request: Request) -> AnyResponse:
        """Reset all controls to their defaults."""
        body.read(request, body.NO_FIELDS)
        self._control_manager.reset()
        return self.list_controls(request)

    def start(self, request: Request) -> AnyResponse:
        """Hold the camera open until `stop`; returns once it delivers frames. A preset is applied first."""
        body.read(request, body.NO_FIELDS)
        manager = self._enabled_manager()
        stops = self._stops
        name = PRESET.read(request.query)
        preset = None if name is None else self._presets.library.apply(name).preset
        # Each request has its own lease, so that one that fails does not release what another one waits for.
        with contextlib.ExitStack() as leases:
            lease = leases.enter_context(manager.lease("hold"))
            manager.wait_ready(time.monotonic() + _READY_TIMEOUT_S)
            with self._lock:
                if self._hold is None and stops == self._stops:
                    self._hold = lease
                    leases.pop_all()
        return self._hold_answer({} if preset is None else self._presets.describe_applied(preset))

    def stop(self, request: Request) -> AnyResponse:
        """Release the lease of `start`, and no other."""
        body.read(request, body.NO_FIELDS)
        with self._lock:
            hold, self._hold = self._hold, None
            self._stops += 1
        if hold is not None:
            hold.release()
        return self._hold_answer({})

    def _hold_answer(self, more: Mapping[str, Any]) -> AnyResponse:
        state = State.CLOSED if self._manager is None else self._manager.status().state
        return json_response({"status": "ok", "held": self._hold is not None, "state": state, **more})

    @contextlib.contextmanager
    def open_camera(self, kind: LeaseKind, deadline_s: float = math.inf) -> Iterator[CameraManager]:
        """Hold the camera open within the block, which starts once it delivers frames.

        Raises NoPicture if it delivers none by the deadline (monotonic clock).
        """
        manager = self._enabled_manager()
        with manager.lease(kind):
            manager.wait_ready(min(deadline_s, time.monotonic() + _READY_TIMEOUT_S))
            yield manager

    def _enabled_manager(self) -> CameraManager:
        if self._manager is None:
            raise camera_disabled()
        return self._manager

    def _run_autofocus(
        self, group: Group, values: Mapping[str, Any], names: Mapping[str, str], timeout_s: float
    ) -> dict[str, Any]:
        """Apply the change and run a cycle. Before the camera is first opened, its support of autofocus is unknown."""
        deadline_s = time.monotonic() + timeout_s
        with self.open_camera("snapshot", deadline_s) as manager:
            self._control_manager.change(group, values, names, deadline_s=deadline_s)
            cycle_deadline_s = time.monotonic() + self._autofocus_timeout_s
            outcome = manager.autofocus.focus_on_request(min(cycle_deadline_s, deadline_s))
        if outcome is None:
            return {"focused": None, "lens_position": None}
        position = outcome.lens_position
        return {"focused": outcome.is_focused, "lens_position": None if position is None else round(position, 2)}


def _shown(mode: FovMode, config: StreamConfig | None) -> str:
    """What the stream shows with this field of view and configuration, None for one that is not known."""
    share = None if config is None or mode == "crop" else capabilities.visible_share(config)
    return _FOV_DESCRIPTIONS[mode] if share is None else f"the middle {share:.0f} % of the sensor's width"


def stream_note(result: ChangeResult) -> Mapping[str, Any]:
    """The note of the response to a change of size, frame rate or field of view."""
    if result.config is None:
        return _NOT_YET_APPLIED
    deviations = capabilities.stream_deviations(result.requested, result.config)
    return {"note": "; ".join([*deviations, *capabilities.field_notes(result.stream, result.config)]) or None}


def control_paths(group: Group) -> tuple[str, str]:
    """The paths under which a group is set."""
    return f"/v1/camera/{group.name}", f"/camera/{group.name}"


def answer_fields(group: Group, names: Iterable[str]) -> Mapping[str, Schema]:
    """The JSON Schemas of fields in the response to a change; defaults and examples are those of requests."""
    of_requests = ("default", "examples")
    schemas = {
        name: {key: each for key, each in group.row(name).schema().items() if key not in of_requests} for name in names
    }
    return {group.answers.get(name, name): schema for name, schema in schemas.items()}


def _control_doc(group: Group) -> Doc:
    fields = answer_fields(group, [row.name for row in group.fields])
    result = record({**STATUS_OK, **fields, **_RESULT_FIELDS.get(group.name, {}), **NOTE}) | {"required": ["status"]}
    summary = group.help.partition(".")[0].partition(":")[0]
    return Doc(summary, "controls", json_ok(result), group.help, body=group.schema(), errors=CONTROL_ERRORS)


def _describe_group(group: Group, manager: ControlManager, focus: AfMode | None) -> dict[str, Any]:
    requested, config = manager.requested, manager.config
    # These depend on the shape of the next image, which is known only if the last opening had the same request.
    known = manager.current_config if group.name in ("stream", "roi") else config
    values = effective_values(group, manager.in_effect, manager.stream_request, known, focus)
    set_values = requested.groups.get(group.name, {})
    fields = {
        row.name: _describe_field(group, row, config) | {"value": values[row.name], "is_set": row.name in set_values}
        for row in group.fields
    }
    return {"help": group.help, "path": control_paths(group)[0], "restarts": group.has_restart, "fields": fields}


def _describe_field(group: Group, row: Field, config: StreamConfig | None) -> dict[str, Any]:
    limits = None if config is None else config.controls.get(row.control)
    low, high = capabilities.effective_limits(row, limits)
    default, choices, reason = row.default, list(row.choices), None
    if row.is_numeric and default is not None:
        default = min(max(default, low), high)
    if config is not None:
        reason = capabilities.unavailable_reason(group, row, config)
        supported = (
            word for word in choices if capabilities.unsupported_reason(group, {row.name: word}, config) is None
        )
        choices = list(supported) or choices
    return {
        "type": row.kind,
        "help": row.help,
        "unit": row.unit or None,
        "control": row.control or None,
        "minimum": low if row.is_numeric else None,
        "maximum": high if row.is_numeric else None,
        "usual": row.usual,
        "choices": choices or None,
        "nullable": row.is_nullable,
        "required": row.is_required,
        "default": default,
        "available": None if config is None else reason is None,
        "reason": reason,
    }
