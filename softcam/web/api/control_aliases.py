"""The HTTP API for controls under the names of other camera services; `softcam.controls.aliases` has these names.

Runs on request threads. Nothing is stored here.
"""

import contextlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from softcam.controls.aliases import ALIASES, AUTOFOCUS_TRIGGER, FRAME_RATE, RESOLUTION, Alias
from softcam.controls.controller import ControlManager
from softcam.web.api.controls import (
    CONTROL_ERRORS,
    FOCUS_FIELDS,
    ControlApi,
    answer_fields,
    control_paths,
    stream_note,
)
from softcam.web.api.json_schema import (
    BOOLEAN,
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
from softcam.web.http import body
from softcam.web.http.messages import AnyResponse, Request, json_response
from softcam.web.http.router import Doc, Route

_TRIGGER_TIMEOUT_S: Final = 4.0  # for the response; the scripts of other services allow 5 s
_RATE: Final = {
    "requested_framerate": NUMBER,
    "applied_framerate": NUMBER | note("of a source with its own rate: at most this, until its rate is known"),
    "max_framerate_for_resolution": nullable("number")
    | note("the measured rate of a source with its own rate; null if unknown, or if the camera has no such limit"),
    "resolution": STRING | note("WIDTHxHEIGHT"),
    "clamped": BOOLEAN,
}


class AliasApi:
    """Handles the routes of `ALIASES`."""

    def __init__(
        self,
        control_manager: ControlManager,
        controls: ControlApi,
        stop_publishing: Callable[[], None],
        trigger_timeout_s: float = _TRIGGER_TIMEOUT_S,
    ) -> None:
        """`trigger_timeout_s` is how long `autofocus_trigger` may take, with the opening of a closed camera."""
        self._trigger_timeout_s = trigger_timeout_s
        self._control_manager = control_manager
        self._controls = controls
        self._stop_publishing = stop_publishing

    def routes(self) -> list[Route]:
        handlers = {RESOLUTION.body.name: self.set_resolution, FRAME_RATE.body.name: self.set_frame_rate}
        return [
            Route(
                control_paths(alias.body),
                handlers.get(alias.body.name, partial(self.set, alias)),
                "POST",
                is_repeated=True,
                doc=_doc(alias),
            )
            for alias in ALIASES
        ]

    def set(self, alias: Alias, request: Request) -> AnyResponse:
        """Set the values of a group."""
        values = body.read(request, alias.body)
        result = self._controls.change(alias.target, alias.values(values), alias.names, self._trigger_timeout_s)
        return json_response({"status": "ok", **values, **result})

    def set_resolution(self, request: Request) -> AnyResponse:
        """Set the size of the stream; the response has the size that the camera delivers, if it is open."""
        values = body.read(request, RESOLUTION.body)
        result = self._control_manager.change(
            RESOLUTION.target, RESOLUTION.values(values), RESOLUTION.names, fov=values.get("fov_mode")
        )
        self._stop_unless_restarted(values)
        width, height = result.size
        fields = {"status": "ok", "width": width, "height": height, **stream_note(result)}
        return json_response(self._controls.add_unsaved_note(fields))

    def set_frame_rate(self, request: Request) -> AnyResponse:
        """Set the frame rate, clamped to what the sensor reaches at this size; opens a camera that is not known yet."""
        values = body.read(request, FRAME_RATE.body)
        requested_fps = values["framerate"]
        is_known = self._control_manager.knows_frame_rates
        with contextlib.nullcontext() if is_known else self._controls.open_camera("hold"):
            rate = self._control_manager.set_frame_rate(requested_fps)
        self._stop_unless_restarted(values)
        fields = {
            "status": "ok",
            "requested_framerate": requested_fps,
            "applied_framerate": rate.fps,
            "max_framerate_for_resolution": rate.highest_fps,
            "resolution": "{}x{}".format(*rate.result.size),
            "clamped": rate.fps != requested_fps,
            **stream_note(rate.result),
        }
        if rate.limit_fps is not None:
            reason = f"framerate: the source decides its own rate, of which at most {rate.limit_fps:g} fps are shown"
            fields = with_note(fields, reason)
        return json_response(self._controls.add_unsaved_note(fields))

    def _stop_unless_restarted(self, values: Mapping[str, Any]) -> None:
        if not values.get("restart_streaming", True):
            self._stop_publishing()


def _doc(alias: Alias) -> Doc:
    group = alias.body
    required = ["status", *(name for name in alias.fields if alias is not FRAME_RATE)]
    answer: dict[str, Schema] = {**STATUS_OK, **answer_fields(group, alias.fields), **NOTE}
    if alias is AUTOFOCUS_TRIGGER:
        answer = {**STATUS_OK, **FOCUS_FIELDS, **NOTE}
        required = [*STATUS_OK, *FOCUS_FIELDS]
    elif alias is FRAME_RATE:
        answer = {**STATUS_OK, **_RATE, **NOTE}
        required = list(answer)
    names = " and ".join(f"`{name}`" for name in (*alias.fields.values(), *alias.constants))
    return Doc(
        group.help.partition(".")[0].partition(";")[0],
        "controls",
        json_ok(record(answer) | {"required": required}),
        f"{group.help} Another name of {names} of `{alias.target.name}`.",
        body=group.schema() if group.fields else None,
        is_body_required=not group.is_optional,
        errors=CONTROL_ERRORS,
    )
