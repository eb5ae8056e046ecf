"""The status of the camera and the readiness of the portal. Runs on the request threads."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

from softcam import __version__
from softcam.camera.models import is_wide
from softcam.camera.session.manager import LEASE_KINDS, CameraManager, SessionStatus, State
from softcam.controls import capabilities, mapping
from softcam.controls.controller import ControlManager
from softcam.web.api.control_values import VALUES_SHAPE, control_values
from softcam.web.api.h264_stream import H264_SHAPE
from softcam.web.api.json_schema import (
    BOOLEAN,
    INTEGER,
    NUMBER,
    STATUS_OK,
    STRING,
    UNIX_TIME,
    Schema,
    json_ok,
    note,
    nullable,
    record,
)
from softcam.web.api.presets import PRESETS_SHAPE
from softcam.web.api.problems import CODES, Check, current
from softcam.web.api.publishing import STREAMING_SHAPE
from softcam.web.api.recording_docs import RECORDING_SHAPE
from softcam.web.api.rtsp import RTSP_SHAPE
from softcam.web.http.messages import CAMERA_DISABLED, AnyResponse, Request, json_response
from softcam.web.http.router import Doc, Route

_UNAVAILABLE: Final = frozenset({State.RECOVERING, State.MISSING})
# The status of a disabled camera.
_NO_LEASES: Final = dict.fromkeys(LEASE_KINDS, 0)
_DISABLED: Final = SessionStatus(State.CLOSED, None, None, _NO_LEASES, CAMERA_DISABLED, 0, 0, 0, None)

# Field of the status, libcamera's metadata name, and the number of significant decimals.
_FROM_METADATA: Final[tuple[tuple[str, str, int], ...]] = (
    ("lux", "Lux", 1),
    ("exposure_us", "ExposureTime", 0),
    ("analogue_gain", "AnalogueGain", 3),
    ("digital_gain", "DigitalGain", 3),
    ("colour_temperature", "ColourTemperature", 0),
    ("lens_position", "LensPosition", 2),
    ("focus_fom", "FocusFoM", 0),
    ("frame_duration_us", "FrameDuration", 0),
    ("sensor_temperature_c", "SensorTemperature", 1),
)

_HELD_BY: Final = {"kind": {"enum": list(LEASE_KINDS)}, "count": INTEGER, "since": UNIX_TIME}
_HOOK: Final = {
    "name": STRING,
    "calls": INTEGER,
    "failures": INTEGER,
    "skipped": INTEGER | note("frames skipped while it was busy"),
    "last_error": nullable("string"),
}
_HOOK_NOTE: Final = note("the function called with each frame; null if none is configured")
STATUS_SCHEMA: Final = record(
    {
        **STATUS_OK,  # whenever there is a response: `state` is that of the camera
        "state": {"enum": [state.value for state in State]},
        "backend": nullable("string"),
        "name": STRING | note("as set, or the model of the camera"),
        "camera": nullable("string"),
        "socket_path": nullable("string") | note("of the GStreamer pipeline that delivers the images"),
        "socket_exists": nullable("boolean"),
        "available": BOOLEAN,
        "viewers": INTEGER,
        "width": nullable("integer"),
        "height": nullable("integer"),
        "pixel_format": nullable("string"),
        "fps": nullable("number"),
        "is_wide_camera": nullable("boolean") | note("null if the model is unknown"),
        "sensor_mode_width": nullable("integer") | note("null while it is closed, and for cameras without modes"),
        "sensor_mode_height": nullable("integer"),
        "last_error": nullable("string"),
        "restarts": INTEGER,
        "opens": INTEGER,
        "held_by": {"type": "array", "items": record(_HELD_BY)},
        "frames": INTEGER,
        "pictures_encoded": INTEGER,
        "uptime_s": NUMBER,
        "version": STRING,
        **{field: nullable("number" if decimals else "integer") for field, _, decimals in _FROM_METADATA},
        "auto_exposure": nullable("boolean"),
        "awb_enabled": nullable("boolean"),
        "autofocus": nullable("boolean"),
        "autofocus_mode": {"enum": ["manual", "auto", "continuous", None]},
        "colour_gains": nullable("array"),
        "sensor_black_levels": nullable("array"),
        **H264_SHAPE,
        **STREAMING_SHAPE,
        **RTSP_SHAPE,
        **RECORDING_SHAPE,
        "hook": record(_HOOK) | nullable("object") | _HOOK_NOTE,
        "hdr_mode": {"enum": ["off", "auto", "sensor", "single-exp", None]},
        "lens_correction_enabled": nullable("boolean"),
        "roi": nullable("object"),
        "fov_mode": {"enum": ["scale", "crop"]},
        "transform": nullable("object"),
        "scene_mode": {"enum": ["day", "low_light", "night", None]},
        "day_night_mode": {"enum": ["auto", "day", "night", None]},
        "day_night_threshold_lux": nullable("number"),
        **VALUES_SHAPE,
        "controls_set_aside": nullable("string") | note("why saved controls were quarantined"),
        "controls_not_kept": nullable("string") | note("why controls are not saved"),
        "controls_not_applied": {"type": "array", "items": STRING},
        **PRESETS_SHAPE,
    }
)
_PROBLEMS: Final[Schema] = {"type": "array", "items": {"enum": [*CODES]}}
_HEALTH: Final = {
    "status": {"enum": ["healthy", "unhealthy"]},
    "problems": _PROBLEMS | note("what a person should look at; the first is in detail"),
    "camera_configured": BOOLEAN,
    "streaming_active": BOOLEAN,
    "recording_active": BOOLEAN,
    "recording_interrupted": nullable("number")
    | note("Unix time at which the end of the portal interrupted a recording; it is resumed if it is active"),
    "recording_error": nullable("string") | note("why something is not recorded"),
    "version": STRING,
}
_HEALTH_SCHEMA: Final = record(_HEALTH) | {"properties": _HEALTH | {"detail": STRING}}
_STATUS_PATHS: Final = ("/v1/camera/status", "/camera/status", "/api/camera/status", "/status")
_STATUS_DOC: Final = Doc("Status of the camera", "camera", json_ok(STATUS_SCHEMA))
_HEALTH_DOC: Final = Doc(
    "Readiness",
    "camera",
    {status: {"application/json": _HEALTH_SCHEMA} for status in (HTTPStatus.OK, HTTPStatus.SERVICE_UNAVAILABLE)},
)


@dataclass(frozen=True, slots=True)
class StatusApi:
    """Handles `/health` and the status.

    `manager` is None if the camera is disabled. `encoded` returns the number of JPEGs encoded for streams. Each of
    `sections` returns the status fields of another component; `recording` returns that of the recordings, if any.
    `socket_path` is that of a camera that is the socket of another program. `checks` report the problems of everything
    but the camera.
    """

    manager: CameraManager | None
    control_manager: ControlManager
    viewers: Callable[[], int]
    encoded: Callable[[], int]
    has_autofocus: bool
    sections: Sequence[Callable[[], Mapping[str, Any]]] = ()
    recording: Callable[[], Mapping[str, Any] | None] = lambda: None
    socket_path: Path | None = None
    checks: Sequence[Check] = ()
    began_s: float = field(default_factory=time.monotonic)

    def routes(self) -> list[Route]:
        return [
            Route(_STATUS_PATHS, self.status, doc=_STATUS_DOC),
            Route(("/health",), self.health, is_public=True, doc=_HEALTH_DOC),
        ]

    def health(self, _request: Request) -> AnyResponse:
        """200 if there is nothing that a person should look at, else 503."""
        status = self._session_status()
        problems = self.problems()
        content: dict[str, Any] = {
            "status": "unhealthy" if problems else "healthy",
            "problems": problems,
            "camera_configured": self.manager is not None,
            "streaming_active": status.is_streaming,
            **_recording_health(self.recording() or {}),
            "version": __version__,
        }
        if problems:
            content["detail"] = (status.last_error if problems[0] == "camera" else None) or CODES[problems[0]]
        return json_response(content, HTTPStatus.SERVICE_UNAVAILABLE if problems else HTTPStatus.OK)

    def problems(self) -> list[str]:
        """The codes of what a person should look at now, as in `softcam.web.api.problems`; empty if all is well."""
        return current((self._check_camera, *self.checks))

    def _check_camera(self) -> Sequence[str]:
        return [] if self.manager is None or self._is_available(self._session_status()) else ["camera"]

    def status(self, _request: Request) -> AnyResponse:
        return json_response(self.content())

    def content(self) -> dict[str, Any]:
        """The fields of the status; null where a value is unknown, for example while the camera is closed."""
        manager, status = self.manager, self._session_status()
        content: dict[str, Any] = {
            "status": "ok",
            "state": status.state,
            "backend": None if manager is None else manager.camera.backend,
            "camera": None if manager is None else manager.camera.name,
            "socket_path": None if self.socket_path is None else str(self.socket_path),
            "socket_exists": None if self.socket_path is None else self.socket_path.is_socket(),
            "available": self._is_available(status),
            "viewers": self.viewers(),
            **{name: getattr(status.config, name, None) for name in ("width", "height", "pixel_format")},
            "fps": status.fps,
            "last_error": status.last_error,
            "restarts": status.restarts,
            "opens": status.opens,
            "held_by": [
                {"kind": kind, "count": status.leases[kind], "since": round(since_s, 3)}
                for kind, since_s in sorted(status.held_since.items())
            ],
            "frames": status.frames,
            "pictures_encoded": self.encoded(),
            "uptime_s": round(time.monotonic() - self.began_s, 1),
            "version": __version__,
            **self._sensor_fields(status),
            **self._metadata_fields(status),
        }
        content |= self._control_fields(content["lux"])
        content |= control_values(status, self.control_manager, {} if manager is None else manager.sent.values)
        for section in self.sections:
            content |= section()
        return content | {"recording": self.recording()}

    def _session_status(self) -> SessionStatus:
        return _DISABLED if self.manager is None else self.manager.status()

    def _is_available(self, status: SessionStatus) -> bool:
        """Whether a client can expect frames: the camera is neither recovering nor missing, and has not failed."""
        return self.manager is not None and status.state not in _UNAVAILABLE and self.manager.health_error() is None

    def _sensor_fields(self, status: SessionStatus) -> Mapping[str, Any]:
        model = None if self.manager is None else self.manager.camera.model
        mode = None if status.config is None else status.config.sensor_mode
        return {
            "is_wide_camera": None if model is None else is_wide(model),
            "sensor_mode_width": None if mode is None else mode.size[0],
            "sensor_mode_height": None if mode is None else mode.size[1],
        }

    def _metadata_fields(self, status: SessionStatus) -> Mapping[str, Any]:
        """What the newest frame was taken with."""
        metadata = status.metadata or {}
        has_autofocus = status.config is not None and "AfMode" in status.config.controls
        af_mode = None if self.manager is None else self.manager.autofocus.mode
        if af_mode is None:
            af_mode = mapping.focus_mode(self.control_manager.requested)  # the mode that is sent when the camera opens
        return {
            **{field: _number(metadata.get(name), decimals) for field, name, decimals in _FROM_METADATA},
            "autofocus": self.has_autofocus if has_autofocus else None,
            "autofocus_mode": None if af_mode is None else af_mode.name.lower(),
            "colour_gains": _numbers(metadata.get("ColourGains"), 3),
            "sensor_black_levels": _numbers(metadata.get("SensorBlackLevels"), 0),
        }

    def _control_fields(self, lux: float | None) -> Mapping[str, Any]:
        """The requested controls, and why some of them are not in effect."""
        manager = self.control_manager
        requested, config = manager.requested, manager.config
        controls = {} if config is None else config.controls
        crop = mapping.stream_crop(requested, manager.stream_request, manager.current_config)
        knows_exposure = "AeEnable" in controls or requested.has("auto_exposure") or requested.has("manual_exposure")
        knows_balance = "AwbEnable" in controls or any(map(requested.has, ("awb", "manual_awb", "awb_preset")))
        knows_lens = "LensDewarpEnable" in controls or (config is None and requested.has("lens_correction"))
        is_balance_fixed = mapping.is_balance_fixed(manager.in_effect)
        return {
            "auto_exposure": not mapping.is_exposure_fixed(requested) if knows_exposure else None,
            "awb_enabled": not is_balance_fixed if knows_balance else None,
            "hdr_mode": requested.get("hdr", "mode"),
            "lens_correction_enabled": requested.get("lens_correction", "enabled") if knows_lens else None,
            "roi": None if crop is None else dict(crop.shown),
            "fov_mode": capabilities.field_of_view(manager.stream_request, config),
            "transform": {name: requested.get("transform", name) for name in ("hflip", "vflip", "rotation")},
            "scene_mode": manager.scene(lux),
            "day_night_mode": requested.get("day_night_mode", "mode"),
            "day_night_threshold_lux": requested.get("day_night_mode", "threshold_lux"),
            **manager.problems(),
        }


def _recording_health(recording: Mapping[str, Any]) -> Mapping[str, Any]:
    running = [each for each in map(recording.get, ("video", "timelapse")) if each is not None]
    cut_short = recording.get("cut_short", {}).values()
    interrupted = [moment for moment in (*(each["interrupted"] for each in running), *cut_short) if moment is not None]
    return {
        "recording_active": bool(running),
        "recording_interrupted": max(interrupted, default=None),
        "recording_error": recording.get("last_error"),
    }


def _numbers(values: Any, decimals: int) -> list[float | int | None] | None:
    return [_number(value, decimals) for value in values] if isinstance(values, list | tuple) else None


def _number(value: Any, decimals: int) -> float | int | None:
    """The rounded value; None if it is not finite: libcamera reports NaN and infinity for unknown values."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return round(value, decimals) if decimals else round(value)
