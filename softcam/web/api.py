"""What programs ask: the state of the camera, and whether the portal is well. Runs on the threads of requests."""

import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, Final

from softcam import __version__
from softcam.camera.holder import CameraHolder, HolderStatus, State
from softcam.web.messages import Answer, Request, json_response

_UNWELL: Final = frozenset({State.RECOVERING, State.MISSING})

# Field of the status, libcamera's name for it, and how many decimals mean something.
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


class Api:
    """Answers for `/health` and the status."""

    def __init__(
        self, holder: CameraHolder | None, viewers: Callable[[], int], encoded: Callable[[], int], autofocus: bool
    ) -> None:
        """`holder` is None where the camera is switched off by configuration; `encoded` counts pictures for streams."""
        self._holder = holder
        self._viewers = viewers
        self._encoded = encoded
        self._autofocus = autofocus
        self._began_s = time.monotonic()

    def health(self, _request: Request) -> Answer:
        """200 while the portal can show the camera, 503 while it cannot."""
        status = None if self._holder is None else self._holder.status()
        is_well = self._holder is None or status is None or _is_available(self._holder, status)
        content: dict[str, Any] = {
            "status": "healthy" if is_well else "unhealthy",
            "camera_configured": status is not None,
            "streaming_active": status is not None and status.leases["stream"] > 0,
            "version": __version__,
        }
        if status is not None and not is_well:
            content["detail"] = status.last_error
        return json_response(content, HTTPStatus.OK if is_well else HTTPStatus.SERVICE_UNAVAILABLE)

    def status(self, _request: Request) -> Answer:
        """Everything about the camera; null where it is not known, as while it is closed."""
        holder = self._holder
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
            "frames": 0,
            "pictures_encoded": self._encoded(),
            "uptime_s": round(time.monotonic() - self._began_s, 1),
            "version": __version__,
        }
        if holder is None:
            content["last_error"] = "the camera is switched off (CAMERA_ENABLED=0)"
            status = None
        else:
            status = holder.status()
            content |= _of_camera(holder, status)
        content |= self._of_picture(status)
        return json_response(content)

    def _of_picture(self, status: HolderStatus | None) -> Mapping[str, Any]:
        metadata = {} if status is None or status.metadata is None else status.metadata
        content: dict[str, Any] = {
            field: _number(metadata.get(name), decimals) for field, name, decimals in _FROM_METADATA
        }
        controls = {} if status is None or status.mode is None else status.mode.controls
        af_mode = None if self._holder is None else self._holder.focus.mode
        return content | {
            "auto_exposure": True if "AeEnable" in controls else None,
            "awb_enabled": True if "AwbEnable" in controls else None,
            "autofocus": self._autofocus if "AfMode" in controls else None,
            "autofocus_mode": None if af_mode is None else af_mode.name.lower(),
            "colour_gains": _numbers(metadata.get("ColourGains"), 3),
            "sensor_black_levels": _numbers(metadata.get("SensorBlackLevels"), 0),
            "streaming": False,
            "hdr_mode": None,
            "lens_correction_enabled": None,
            "scene_mode": None,
            "day_night_mode": None,
            "day_night_threshold_lux": None,
        }


def _of_camera(holder: CameraHolder, status: HolderStatus) -> dict[str, Any]:
    mode = status.mode
    return {
        "state": status.state,
        "backend": holder.camera.backend,
        "camera": holder.camera.name,
        "available": _is_available(holder, status),
        "width": None if mode is None else mode.width,
        "height": None if mode is None else mode.height,
        "pixel_format": None if mode is None else mode.pixel_format,
        "fps": status.fps,
        "last_error": status.last_error,
        "restarts": status.restarts,
        "opens": status.opens,
        "frames": status.frames,
    }


def _is_available(holder: CameraHolder, status: HolderStatus) -> bool:
    """Whether who asks for a picture may expect one: the camera is neither away nor given up."""
    return status.state not in _UNWELL and holder.trouble() is None


def _numbers(values: Any, decimals: int) -> list[float | int | None] | None:
    return [_number(value, decimals) for value in values] if isinstance(values, list | tuple) else None


def _number(value: Any, decimals: int) -> float | int | None:
    """A number that JSON can say; libcamera gives NaN and infinity for what it does not know."""
    if not isinstance(value, int | float) or value != value or value in (float("inf"), float("-inf")):
        return None
    return round(value, decimals) if decimals else round(value)
