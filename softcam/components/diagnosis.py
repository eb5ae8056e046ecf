"""Builds the diagnosis of `--diagnose`. Runs on the main thread, except for `connect`, on the thread of a check."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from softcam.camera.picamera.library import h264_encoder
from softcam.components.camera import build_session, choose_camera, stream_request
from softcam.components.media import build_video
from softcam.config.schema import SAME_AS_STREAM
from softcam.config.settings import Settings, describe, secrets_of
from softcam.controls.controller import ControlManager
from softcam.controls.state import RequestedControls
from softcam.controls.store import Store
from softcam.controls.writer import BackgroundWriter
from softcam.diagnose.camera import CheckedCamera, CheckedParts
from softcam.diagnose.diagnosis import Diagnosis
from softcam.diagnose.libcamera_log import LibcameraLog
from softcam.diagnose.machine import MachineChecks
from softcam.errors import CameraError, CameraStuck, PortalError
from softcam.runtime.log.memory import LogMemory
from softcam.runtime.redact import Redactor, without_secrets


class NoStore(Store):
    """Saved controls are neither used nor changed: the diagnosis is that of the camera."""

    def __init__(self) -> None:
        super().__init__(None, "diagnosis")

    def load(self) -> RequestedControls:
        return RequestedControls()


def build_diagnosis(settings: Settings, log_memory: LogMemory) -> Diagnosis:
    """Nothing is opened yet. The camera closes as soon as a check releases it."""
    folders = {"recordings": settings.recordings, "state_dir": settings.state_dir}
    machine = MachineChecks(
        is_real=settings.enabled and not settings.is_pattern and settings.url is None,
        frame_size=(settings.width, settings.height),
        folders={name: Path(folder) for name, folder in folders.items() if folder is not None},
    )

    def connect(on_failure: Callable[[CameraError], None]) -> CheckedParts:
        return _connect(replace(settings, linger_s=0.0), on_failure)

    defaults = ("  (default)", f"  ({SAME_AS_STREAM})")
    return Diagnosis(
        machine,
        CheckedCamera(connect if settings.enabled else None),
        camera_name=without_secrets(settings.camera),
        quality=settings.quality,
        settings=[line for line in describe(settings).splitlines() if not line.endswith(defaults)],
        redact=Redactor(secrets_of(settings)),
        log_memory=log_memory,
        libcamera_log=LibcameraLog(os.environ),
    )


def _connect(settings: Settings, on_failure: Callable[[CameraError], None]) -> CheckedParts:
    """The camera with the parts of a portal that are checked. Raises CameraMissing, ConfigurationError."""

    def on_error(error: PortalError) -> None:
        on_failure(error if isinstance(error, CameraError) else CameraStuck(str(error)))

    def on_crash(reason: str) -> None:
        on_failure(CameraStuck(reason))

    camera, _ = choose_camera(settings, on_crash)
    if camera is None:
        raise CameraError("the camera is disabled in the settings")
    manager = build_session(settings, camera, on_error)
    controls = ControlManager(manager, stream_request(settings), NoStore(), BackgroundWriter(on_crash))
    has_buffers = camera.backend == "picamera2"
    video = build_video(settings, manager.frames, lambda: controls.stream_fps, on_crash, has_buffers=has_buffers)
    return CheckedParts(manager, controls, video, lambda: has_buffers and h264_encoder() is not None)
