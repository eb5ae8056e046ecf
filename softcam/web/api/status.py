"""The status of the camera and the readiness of the portal. Runs on the request threads."""

import time
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

from softcam import __version__
from softcam.camera.session.manager import LEASE_KINDS, CameraManager, SessionStatus, State
from softcam.controls import mapping
from softcam.controls.controller import ControlManager
from softcam.web.api.h264_stream import H264_SHAPE
from softcam.web.api.publishing import STREAMING_SHAPE
from softcam.web.api.recording_docs import RECORDING_SHAPE
from softcam.web.http.messages import AnyResponse, Request, json_response
from softcam.web.http.router import Doc

_UNAVAILABLE: Final = frozenset({State.RECOVERING, State.MISSING})

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


_CONTROL_FIELDS: Final = (
    "auto_exposure",
    "awb_enabled",
    "hdr_mode",
    "lens_correction_enabled",
    "roi",
    "transform",
    "scene_mode",
    "day_night_mode",
    "day_night_threshold_lux",
    "controls_set_aside",
    "controls_not_kept",
)


_HOOK: Final[Mapping[str, Mapping[str, Any]]] = {
    "name": {"type": "string"},
    "calls": {"type": "integer"},
    "failures": {"type": "integer"},
    "skipped": {"type": "integer", "description": "frames skipped while it was busy"},
    "last_error": {"type": ["string", "null"]},
}


def _nullable(kind: str) -> Mapping[str, Any]:
    return {"type": [kind, "null"]}


_SHAPE: Final[Mapping[str, Mapping[str, Any]]] = {
    "state": {"enum": [state.value for state in State]},
    "backend": _nullable("string"),
    "camera": _nullable("string"),
    "available": {"type": "boolean"},
    "viewers": {"type": "integer"},
    "width": _nullable("integer"),
    "height": _nullable("integer"),
    "pixel_format": _nullable("string"),
    "fps": _nullable("number"),
    "last_error": _nullable("string"),
    "restarts": {"type": "integer"},
    "opens": {"type": "integer"},
    "held_by": {
        "type": "array",
        "items": {
            "type": "object",
            "properties": {
                "kind": {"enum": list(LEASE_KINDS)},
                "count": {"type": "integer"},
                "since": {"type": "number", "description": "Unix seconds"},
            },
            "required": ["kind", "count", "since"],
            "additionalProperties": False,
        },
    },
    "frames": {"type": "integer"},
    "pictures_encoded": {"type": "integer"},
    "uptime_s": {"type": "number"},
    "version": {"type": "string"},
    **{field: _nullable("number" if decimals else "integer") for field, _, decimals in _FROM_METADATA},
    "auto_exposure": _nullable("boolean"),
    "awb_enabled": _nullable("boolean"),
    "autofocus": _nullable("boolean"),
    "autofocus_mode": {"enum": ["manual", "auto", "continuous", None]},
    "colour_gains": _nullable("array"),
    "sensor_black_levels": _nullable("array"),
    **H264_SHAPE,
    **STREAMING_SHAPE,
    **RECORDING_SHAPE,
    "hook": {
        "type": ["object", "null"],
        "properties": _HOOK,
        "required": list(_HOOK),
        "additionalProperties": False,
        "description": "the function called with each frame; null if none is configured",
    },
    "hdr_mode": {"enum": ["off", "auto", "sensor", "single-exp", None]},
    "lens_correction_enabled": _nullable("boolean"),
    "roi": _nullable("object"),
    "transform": _nullable("object"),
    "scene_mode": {"enum": ["day", "low_light", "night", None]},
    "day_night_mode": {"enum": ["auto", "day", "night", None]},
    "day_night_threshold_lux": _nullable("number"),
    "controls_set_aside": {**_nullable("string"), "description": "why saved controls were quarantined"},
    "controls_not_kept": {**_nullable("string"), "description": "why controls are not saved"},
    "controls_not_applied": {"type": "array", "items": {"type": "string"}},
}
STATUS_SCHEMA: Final[Mapping[str, Any]] = {
    "type": "object",
    "properties": _SHAPE,
    "required": list(_SHAPE),
    "additionalProperties": False,
}
HEALTH_SCHEMA: Final[Mapping[str, Any]] = {
    "type": "object",
    "properties": {
        "status": {"enum": ["healthy", "unhealthy"]},
        "camera_configured": {"type": "boolean"},
        "streaming_active": {"type": "boolean"},
        "version": {"type": "string"},
        "detail": {"type": ["string", "null"]},
    },
    "required": ["status", "camera_configured", "streaming_active", "version"],
    "additionalProperties": False,
}
STATUS_DOC: Final = Doc("Status of the camera", "camera", {200: {"application/json": STATUS_SCHEMA}})
HEALTH_DOC: Final = Doc(
    "Readiness",
    "camera",
    {status: {"application/json": HEALTH_SCHEMA} for status in (HTTPStatus.OK, HTTPStatus.SERVICE_UNAVAILABLE)},
)


class StatusApi:
    """The handlers of `/health` and the status."""

    def __init__(
        self,
        manager: CameraManager | None,
        viewers: Callable[[], int],
        encoded: Callable[[], int],
        autofocus: bool,
        control_manager: ControlManager | None = None,
        sections: Sequence[Callable[[], Mapping[str, Any]]] = (),
    ) -> None:
        """`manager` is None if the camera is disabled. `encoded` returns the number of JPEGs encoded for streams.

        Each of `sections` returns the status fields of another component.
        """
        self._manager = manager
        self._control_manager = control_manager
        self._sections = sections
        self._viewers = viewers
        self._encoded = encoded
        self._autofocus = autofocus
        self._began_s = time.monotonic()

    def health(self, _request: Request) -> AnyResponse:
        """200 if the camera can deliver frames or is disabled, else 503."""
        status = None if self._manager is None else self._manager.status()
        is_healthy = self._manager is None or status is None or _is_available(self._manager, status)
        content: dict[str, Any] = {
            "status": "healthy" if is_healthy else "unhealthy",
            "camera_configured": status is not None,
            "streaming_active": status is not None and status.is_streaming,
            "version": __version__,
        }
        if status is not None and not is_healthy:
            content["detail"] = status.last_error
        return json_response(content, HTTPStatus.OK if is_healthy else HTTPStatus.SERVICE_UNAVAILABLE)

    def status(self, _request: Request) -> AnyResponse:
        """All fields of the status; null where a value is unknown, for example while the camera is closed."""
        return json_response(self.content())

    def content(self) -> dict[str, Any]:
        """The fields of the status."""
        manager = self._manager
        content: dict[str, Any] = {
            "state": State.CLOSED,
            "backend": None,
            "camera": None,
            "available": False,
            "viewers": self._viewers(),
            "width": None,
            "height": None,
            "pixel_format": None,
            "fps": None,
            "last_error": None,
            "restarts": 0,
            "opens": 0,
            "held_by": [],
            "frames": 0,
            "pictures_encoded": self._encoded(),
            "uptime_s": round(time.monotonic() - self._began_s, 1),
            "version": __version__,
        }
        if manager is None:
            content["last_error"] = "the camera is disabled (CAMERA_ENABLED=0)"
            status = None
        else:
            status = manager.status()
            content |= _camera_fields(manager, status)
        content |= self._metadata_fields(status)
        content |= {"h264": None, "streaming": False, "publishing": None, "hook": None}
        for section in self._sections:
            content |= section()
        return content

    def _metadata_fields(self, status: SessionStatus | None) -> Mapping[str, Any]:
        metadata = {} if status is None or status.metadata is None else status.metadata
        content: dict[str, Any] = {
            field: _number(metadata.get(name), decimals) for field, name, decimals in _FROM_METADATA
        }
        controls: Mapping[str, Any] = {} if status is None or status.config is None else status.config.controls
        af_mode = None if self._manager is None else self._manager.autofocus.mode
        if af_mode is None and self._control_manager is not None:
            af_mode = mapping.focus_mode(self._control_manager.requested)  # the mode that is sent when the camera opens
        return content | {
            "autofocus": self._autofocus if "AfMode" in controls else None,
            "autofocus_mode": None if af_mode is None else af_mode.name.lower(),
            "colour_gains": _numbers(metadata.get("ColourGains"), 3),
            "sensor_black_levels": _numbers(metadata.get("SensorBlackLevels"), 0),
            **self._control_fields(content["lux"], controls),
        }

    def _control_fields(self, lux: float | None, controls: Mapping[str, Any]) -> Mapping[str, Any]:
        """The requested controls, and why some of them are not in effect."""
        control_manager = self._control_manager
        if control_manager is None:
            names = {"auto_exposure": "AeEnable", "awb_enabled": "AwbEnable"}
            automatic = {field: True if name in controls else None for field, name in names.items()}
            return {**dict.fromkeys(_CONTROL_FIELDS), **automatic, "controls_not_applied": []}
        asked, mode = control_manager.requested, control_manager.config
        controls = {} if mode is None else mode.controls
        crop = mapping.stream_crop(asked, control_manager.current_config)
        knows_exposure = "AeEnable" in controls or asked.has("auto_exposure") or asked.has("manual_exposure")
        knows_balance = "AwbEnable" in controls or any(asked.has(n) for n in ("awb", "manual_awb", "awb_preset"))
        knows_lens = "LensDewarpEnable" in controls or (mode is None and asked.has("lens_correction"))
        return {
            "auto_exposure": not mapping.is_exposure_fixed(asked) if knows_exposure else None,
            "awb_enabled": not mapping.is_balance_fixed(asked, is_night=control_manager.is_night)
            if knows_balance
            else None,
            "hdr_mode": asked.get("hdr", "mode"),
            "lens_correction_enabled": asked.get("lens_correction", "enabled") if knows_lens else None,
            "roi": None if crop is None else dict(crop.shown),
            "transform": {name: asked.get("transform", name) for name in ("hflip", "vflip", "rotation")},
            "scene_mode": control_manager.scene(lux),
            "day_night_mode": asked.get("day_night_mode", "mode"),
            "day_night_threshold_lux": asked.get("day_night_mode", "threshold_lux"),
            **control_manager.problems(),
        }


def _camera_fields(manager: CameraManager, status: SessionStatus) -> dict[str, Any]:
    config = status.config
    return {
        "state": status.state,
        "backend": manager.camera.backend,
        "camera": manager.camera.name,
        "available": _is_available(manager, status),
        "width": None if config is None else config.width,
        "height": None if config is None else config.height,
        "pixel_format": None if config is None else config.pixel_format,
        "fps": status.fps,
        "last_error": status.last_error,
        "restarts": status.restarts,
        "opens": status.opens,
        "held_by": [
            {"kind": kind, "count": status.leases[kind], "since": round(since_s, 3)}
            for kind, since_s in sorted(status.held_since.items())
        ],
        "frames": status.frames,
    }


def _is_available(manager: CameraManager, status: SessionStatus) -> bool:
    """Whether a client can expect frames: the camera is neither recovering nor missing, and has not failed."""
    return status.state not in _UNAVAILABLE and manager.health_error() is None


def _numbers(values: Any, decimals: int) -> list[float | int | None] | None:
    return [_number(value, decimals) for value in values] if isinstance(values, list | tuple) else None


def _number(value: Any, decimals: int) -> float | int | None:
    """The rounded value; None if it is not finite: libcamera reports NaN and infinity for unknown values."""
    if not isinstance(value, int | float) or value != value or value in (float("inf"), float("-inf")):
        return None
    return round(value, decimals) if decimals else round(value)
