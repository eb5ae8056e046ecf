"""Builds the camera with its session and controls. Runs on the main thread."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from softcam.camera.base import Camera, StreamRequest
from softcam.camera.session.manager import CameraManager, SessionState
from softcam.config.settings import Settings
from softcam.controls.controller import ControlManager
from softcam.controls.preset_library import PresetLibrary
from softcam.controls.preset_store import PresetStore
from softcam.controls.store import Store
from softcam.controls.writer import BackgroundWriter
from softcam.errors import CameraMissing, PortalError

OnCrash = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class CameraParts:
    """The camera, its session, its controls and its presets; `camera` and `manager` are None where it is disabled."""

    camera: Camera | None
    number: int
    name: str  # for people
    manager: CameraManager | None
    controls: ControlManager
    presets: PresetLibrary
    state_folder: Path | None
    state_writer: BackgroundWriter
    state_name: str  # distinguishes the cameras in the names of saved files


def build_camera(settings: Settings, on_failure: Callable[[PortalError], None], on_crash: OnCrash) -> CameraParts:
    """Raises CameraMissing."""
    request = stream_request(settings)
    camera, number = choose_camera(settings, on_crash)
    manager = None if camera is None else build_session(settings, camera, on_failure)
    state_folder = None if settings.state_dir is None else Path(settings.state_dir)
    kind = "pattern" if settings.is_pattern else "cam" if settings.url is None else "url"
    state_name = f"{kind}{'' if settings.is_pattern else number}"
    store = Store(state_folder, f"controls-{state_name}")
    writer = BackgroundWriter(on_crash)
    controls = ControlManager(manager, request, store, writer)
    presets = PresetLibrary(controls, PresetStore(state_folder, f"presets-{state_name}"), writer)
    name = settings.name or (f"Camera {number}" if camera is None else camera.model or camera.name)
    return CameraParts(camera, number, name, manager, controls, presets, state_folder, writer, state_name)


def stream_request(settings: Settings) -> StreamRequest:
    """The configured stream, which controls may override."""
    return StreamRequest(settings.width, settings.height, settings.fps, fov=settings.fov_mode)


def build_session(settings: Settings, camera: Camera, on_failure: Callable[[PortalError], None]) -> CameraManager:
    """The session of a camera; `on_failure` is called with the error that ends it."""
    session = SessionState(
        camera,
        linger_s=settings.linger_s,
        watchdog_timeout_s=settings.watchdog_timeout_s,
        on_failure=on_failure,
    )
    return CameraManager(session, autofocus_timeout_s=settings.autofocus_timeout_s, has_autofocus=settings.autofocus)


def choose_camera(settings: Settings, on_crash: OnCrash) -> tuple[Camera | None, int]:
    """The camera, None where it is disabled, and its number. Raises CameraMissing."""
    request = stream_request(settings)
    number = settings.camera_number
    if not settings.enabled:
        return None, number or 0
    if settings.is_pattern:
        from softcam.camera.pattern.camera import PatternCamera

        faults = None if settings.pattern_faults is None else Path(settings.pattern_faults)
        camera: Camera = PatternCamera(request, faults_file=faults)
    elif settings.url is not None:
        from softcam.camera.url.camera import UrlCamera

        camera = UrlCamera(settings.url, request, on_crash)
    else:
        from softcam.camera.picamera.camera import PicameraCamera

        picamera = PicameraCamera(
            number,
            settings.camera_id,
            request,
            tuning_file=settings.tuning_file,
            noir_model=settings.camera_model,
            is_noir=settings.is_noir,
        )
        camera, number = picamera, picamera.number if number is None else number
    if not camera.is_present():
        raise CameraMissing(f"camera {camera.name} is missing")
    return camera, number or 0
