"""What the camera is and can do: `/v1/camera/capabilities`, with the fields of Pi Camera Service 2.2 to 2.7.

Runs on the request threads. All values are those that the camera reports, of its last opening while it is closed; only
the field of view is a published figure. A camera that was never opened by this process is opened once, as for a
snapshot, since libcamera reports nothing but the model of a closed one.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Final

from softcam.camera.base import Remote, StreamConfig
from softcam.camera.models import horizontal_field_degrees, is_wide
from softcam.camera.sensor_modes import FovMode, SensorMode, SensorModes, Size
from softcam.camera.session.lease import LeaseKind
from softcam.camera.session.manager import CameraManager
from softcam.controls import capabilities
from softcam.controls.controller import ControlManager
from softcam.controls.fields import is_number
from softcam.controls.schema import AWB_MODES, BY_NAME
from softcam.web.api.json_schema import INTEGER, NUMBER, STATUS_OK, STRING, json_ok, note, nullable, record
from softcam.web.http.messages import AnyResponse, Request, json_response
from softcam.web.http.router import Doc, Route

_PATHS: Final = ("/v1/camera/capabilities", "/camera/capabilities")
# Sizes that people know by name; a camera supports every other one up to that of its sensor, too.
_NAMED_SIZES: Final = (
    ((640, 480), "VGA"),
    ((1280, 720), "720p"),
    ((1920, 1080), "1080p"),
    ((2560, 1440), "1440p"),
    ((3840, 2160), "4K"),
)
_LARGEST_SIDE: Final = 4096  # of the resolution route

# Names of features, and the libcamera control that each needs.
_FEATURES: Final = (
    ("auto_exposure", "AeEnable"),
    ("manual_exposure", "ExposureTime"),
    ("auto_white_balance", "AwbEnable"),
    ("manual_white_balance", "ColourGains"),
    ("exposure_value_compensation", "ExposureValue"),
    ("noise_reduction", "NoiseReductionMode"),
    ("ae_constraint_modes", "AeConstraintMode"),
    ("ae_exposure_modes", "AeExposureMode"),
    ("awb_modes", "AwbMode"),
    ("image_processing", "Brightness"),
    ("roi_digital_zoom", "ScalerCrop"),
    ("exposure_limits", "ExposureTime"),
    ("autofocus", "AfMode"),
    ("lens_position_control", "LensPosition"),
    ("autofocus_trigger", "AfTrigger"),
    ("lens_correction", "LensDewarpEnable"),
    ("fov_mode", "ScalerCrop"),
)
# Fields with the modes that the camera lists: the group, its field, and the words that are libcamera's own.
_MODES: Final = (
    ("supported_noise_reduction_modes", "image_processing", "noise_reduction", None),
    ("supported_ae_constraint_modes", "ae_constraint_mode", "mode", None),
    ("supported_ae_exposure_modes", "ae_exposure_mode", "mode", None),
    ("supported_awb_modes", "awb_preset", "preset", AWB_MODES),
)
_RANGES: Final = (
    ("exposure_limits_us", "ExposureTime"),
    ("gain_limits", "AnalogueGain"),
    ("lens_position_limits", "LensPosition"),
    ("exposure_value_range", "ExposureValue"),
)

_SIZE: Final = {"width": INTEGER, "height": INTEGER}
_RANGE: Final = record({"min": NUMBER, "max": NUMBER}) | nullable("object") | note("null if the camera has none")
_MODE: Final = {
    **_SIZE,
    "max_fps": NUMBER,
    "bit_depth": INTEGER,
    "crop": record({"x": INTEGER, "y": INTEGER, **_SIZE}) | note("the part of the sensor that it reads"),
    "description": STRING,
}
_SCHEMA: Final = record(
    {
        **STATUS_OK,
        "sensor_model": nullable("string"),
        "sensor_resolution": record(_SIZE) | nullable("object"),
        "supported_resolutions": {"type": "array", "items": record({**_SIZE, "label": STRING})}
        | note("named sizes up to that of the sensor; any other is supported, too"),
        **{field: _RANGE for field, _ in _RANGES},
        **{field: {"type": "array", "items": STRING} for field, *_ in _MODES},
        "features": {"type": "array", "items": STRING},
        "current_framerate": nullable("number"),
        "framerate_limits_by_resolution": {
            "type": "array",
            "items": record({**_SIZE, "label": STRING, "max_fps": nullable("number")}),
        },
        "max_framerate_for_current_resolution": nullable("number"),
        "is_wide_camera": nullable("boolean"),
        "field_of_view_degrees": nullable("number")
        | note("of the whole sensor, horizontally, as published for the module; null if it depends on the lens"),
        "sensor_modes": {"type": ["object", "null"], "additionalProperties": record(_MODE)},
        "recommended_resolutions": {
            "type": "array",
            "items": record(
                {
                    **_SIZE,
                    "label": STRING,
                    "max_fps": NUMBER,
                    "sensor_mode": STRING,
                    "fov": STRING,
                }
            ),
        },
    }
)
_DOC: Final = Doc(
    "Capabilities of the camera",
    "camera",
    json_ok(_SCHEMA),
    "As the camera reports them. The first request opens a camera that was never opened before; later ones do not.",
    errors=(503,),
)


@dataclass(frozen=True, slots=True)
class CapabilitiesApi:
    """Handles `/v1/camera/capabilities`. `open_camera` holds the camera open within its block."""

    manager: CameraManager | None
    control_manager: ControlManager
    open_camera: Callable[[LeaseKind], AbstractContextManager[CameraManager]]

    def routes(self) -> list[Route]:
        return [Route(_PATHS, self.get, doc=_DOC)]

    def get(self, _request: Request) -> AnyResponse:
        """Raises the CameraError of a camera that has to be opened and does not open."""
        camera = None if self.manager is None else self.manager.camera
        # Another program's camera has no controls to report, and may take any time to connect.
        if camera is not None and self.control_manager.config is None and not isinstance(camera, Remote):
            with self.open_camera("snapshot"):
                pass
        return json_response(self.content(None if camera is None else camera.model))

    def content(self, model: str | None) -> Mapping[str, Any]:
        manager = self.control_manager
        config, current, stream = manager.config, manager.current_config, manager.stream_request
        stream_size = stream if current is None else current
        fov = capabilities.field_of_view(stream, config)
        size = stream_size.width, stream_size.height
        return {
            "status": "ok",
            **describe_camera(model, config, fov),
            "current_framerate": None if self.manager is None else manager.stream_fps,
            "max_framerate_for_current_resolution": capabilities.fastest_fps(size, fov, manager.rated_config),
        }


def describe_camera(model: str | None, config: StreamConfig | None, fov: FovMode = "scale") -> Mapping[str, Any]:
    """The fields that do not depend on the stream; `config` is that of an opening, None if there was none.

    Frame rates and recommendations are those with the current field of view.
    """
    controls = {} if config is None else config.controls
    modes = None if config is None else config.sensor_modes
    sizes = [] if config is None else [*_supported_sizes(config)]
    field_degrees = None if model is None else horizontal_field_degrees(model)
    return {
        "sensor_model": model,
        "sensor_resolution": None if config is None else _size(config.sensor_size),
        "supported_resolutions": [{**_size(size), "label": label} for size, label in sizes],
        **{field: _range(controls.get(control)) for field, control in _RANGES},
        **{field: _listed_modes(config, *row) for field, *row in _MODES},
        "features": [] if config is None else [*_features(config)],
        "framerate_limits_by_resolution": [
            {**_size(size), "label": label, "max_fps": capabilities.fastest_fps(size, fov, config)}
            for size, label in sizes
        ],
        "is_wide_camera": None if model is None else is_wide(model),
        "field_of_view_degrees": field_degrees,
        "sensor_modes": None if modes is None else {name: _mode(modes, each) for name, each in named_modes(modes)},
        "recommended_resolutions": [] if modes is None else [*_recommended(modes, sizes, field_degrees, fov)],
    }


def named_modes(modes: SensorModes) -> list[tuple[str, SensorMode]]:
    """The modes by name, as other services count them: the largest is `mode_0`."""
    ordered = sorted(modes.modes, key=lambda mode: (mode.area, mode.bit_depth), reverse=True)
    return [(f"mode_{number}", mode) for number, mode in enumerate(ordered)]


def _supported_sizes(config: StreamConfig) -> Iterator[tuple[Size, str]]:
    width, height = config.sensor_size
    return ((size, label) for size, label in _NAMED_SIZES if size[0] <= width and size[1] <= height)


def _listed_modes(config: StreamConfig | None, group_name: str, name: str, own: tuple[str, ...] | None) -> list[str]:
    if config is None:
        return []
    group = BY_NAME[group_name]
    words = own or group.row(name).choices
    return [word for word in words if capabilities.unsupported_reason(group, {name: word}, config) is None]


def _features(config: StreamConfig) -> Iterator[str]:
    yield from (name for name, control in _FEATURES if control in config.controls)
    if config.has_sensor_hdr or capabilities.has_single_exposure_hdr(config):
        yield "hdr"
    if config.can_flip:
        yield "transform"
    if config.has_raw:
        yield "raw_snapshots"


def _recommended(
    modes: SensorModes, sizes: Iterable[tuple[Size, str]], field_degrees: float | None, fov_mode: FovMode
) -> Iterator[Mapping[str, Any]]:
    """The modes' own sizes, which need no scaling, and the named ones with the whole field of view.

    With `crop` no size needs scaling: the named ones, with what they show.
    """
    names = {mode: name for name, mode in named_modes(modes)}
    whole = "full" if field_degrees is None else f"full, {field_degrees:g}°"
    own = {mode.size: mode for mode in reversed(names) if mode in modes.scaled and max(mode.size) <= _LARGEST_SIDE}
    if fov_mode == "crop":
        own = {}
    entries = [(size, f"native size of {names[mode]}", mode) for size, mode in own.items()]
    entries += [(size, label, modes.choose_mode(size, 0, fov_mode)) for size, label in sizes if size not in own]
    for size, label, mode in sorted(entries, key=lambda entry: not modes.is_full(entry[2])):
        columns = size[0] if fov_mode == "crop" else mode.crop[2]
        is_whole = modes.is_full(mode) if fov_mode == "scale" else columns == modes.array_size[0]
        fov = whole if is_whole else f"middle, {100 * columns / modes.array_size[0]:.0f} % of the width"
        yield {**_size(size), "label": label, "max_fps": mode.fps, "sensor_mode": names[mode], "fov": fov}


def _mode(modes: SensorModes, mode: SensorMode) -> Mapping[str, Any]:
    x, y, width, height = mode.crop
    return {
        **_size(mode.size),
        "max_fps": mode.fps,
        "bit_depth": mode.bit_depth,
        "crop": {"x": x, "y": y, "width": width, "height": height},
        "description": _describe_mode(modes, mode),
    }


def _describe_mode(modes: SensorModes, mode: SensorMode) -> str:
    extent = "whole sensor" if modes.is_full(mode) else "middle of the sensor"
    across, down = (round(mode.crop[2 + side] / mode.size[side]) for side in (0, 1))
    return f"{extent}, {'one to one' if across == down == 1 else f'{across}x{down} pixels combined'}"


def _size(size: Size) -> Mapping[str, int]:
    return {"width": size[0], "height": size[1]}


def _range(limits: Any) -> Mapping[str, float] | None:
    if limits is None:
        return None
    low, high = limits[:2]
    # libcamera reports 0 for a maximum that it does not know.
    return {"min": low, "max": high} if is_number(low) and is_number(high) and low < high else None
