"""The application: builds all components from the settings, starts and stops them in order. Runs on the main thread.

Four builders assemble the components, bottom up; `Application.start` walks one ordered list forward, `Application.stop`
walks it backward. Only this module and `softcam.app` use the settings; components get plain arguments.
"""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from softcam.camera.base import Camera, SessionListener, StreamRequest
from softcam.camera.picamera.h264_encoder import EncoderFactory
from softcam.camera.session.manager import CameraManager, SessionState
from softcam.camera.url.source import socket_path_of
from softcam.config.settings import Settings
from softcam.controls.controller import ControlManager
from softcam.controls.store import Store
from softcam.controls.writer import BackgroundWriter
from softcam.errors import CameraBusy, CameraMissing, CameraStuck
from softcam.h264.encoder import VideoEncoder
from softcam.health import Health
from softcam.imaging.frame import NewestFrame
from softcam.imaging.snapshot import Snapshot
from softcam.recording import thumbnail as thumbnails
from softcam.recording.journal import Journal
from softcam.recording.library import Library
from softcam.recording.recorder import VideoRecorder
from softcam.recording.service import RecordingService, automatic_options
from softcam.recording.timelapse import TimelapseRecorder
from softcam.rtsp.publisher import Publisher
from softcam.runtime import memory
from softcam.runtime.deadline import Deadline
from softcam.runtime.shutdown import ShutdownSignal
from softcam.runtime.threads import spawn
from softcam.streaming.fmp4_channel import Fmp4Stream
from softcam.streaming.hook import Hook, load_hook
from softcam.streaming.jpeg_encoder import JpegEncoderPool
from softcam.streaming.mjpeg import MjpegStream
from softcam.web.api.cameras import CameraList
from softcam.web.api.controls import ControlApi
from softcam.web.api.h264_stream import H264StreamApi
from softcam.web.api.media import MediaApi, MediaDefaults, SnapshotOptions
from softcam.web.api.metrics import metrics_routes
from softcam.web.api.openapi import openapi_routes
from softcam.web.api.publishing import PublishingApi
from softcam.web.api.recordings import RecordingsApi
from softcam.web.api.status import StatusApi
from softcam.web.http.auth import AccessControl
from softcam.web.http.csrf import CsrfGuard
from softcam.web.http.listen import listen, log_listening
from softcam.web.http.router import Router
from softcam.web.http.server import PortalServer
from softcam.web.pages import page_routes
from softcam.web.webrtc import webrtc_routes

log = logging.getLogger(__name__)

# Limits of the components that must not use up the time for stopping; the camera is the slowest and gets the rest.
_FAN_OUT_TIMEOUT_S: Final = 0.5
_HOOK_TIMEOUT_S: Final = 0.2  # it may be in a function that does not return
_RECORDERS_TIMEOUT_S: Final = 1.5  # to write the index to a slow card; a file without one is recovered later
_PUBLISHER_TIMEOUT_S: Final = 0.4  # a healthy server needs none of it; a name lookup could take minutes
_ANSWER_TIMEOUT_S: Final = 0.5  # for pending requests to get their error response, which they do at once


@dataclass(frozen=True, slots=True)
class _Component:
    """An entry of the ordered list; `stop` gets a deadline (monotonic clock) and returns False for what hangs."""

    start: Callable[[], object]
    stop: Callable[[float], bool | None]
    stop_timeout_s: float = math.inf


class Application:
    """All components of a running portal."""

    def __init__(self, settings: Settings, shutdown: ShutdownSignal) -> None:
        """Build everything. Raises CameraMissing, and ConfigurationError for a hook that cannot be loaded."""
        self._settings = settings
        self._shutdown = shutdown
        self._build_camera()
        self._build_media()
        self._build_outputs()
        self._build_web()
        self._components = self._component_list()
        self._started: list[_Component] = []

    def _build_camera(self) -> None:
        settings = self._settings
        request = StreamRequest(settings.width, settings.height, settings.fps)
        self._camera, self._number = _choose_camera(settings, request, self.on_fatal)
        self._manager: CameraManager | None = None
        if self._camera is not None:
            session = SessionState(
                self._camera,
                linger_s=settings.linger_s,
                watchdog_timeout_s=settings.watchdog_timeout_s,
                on_failure=self._shutdown.request,
            )
            self._manager = CameraManager(
                session, autofocus_timeout_s=settings.autofocus_timeout_s, has_autofocus=settings.autofocus
            )
        self._state_folder = None if settings.state_dir is None else Path(settings.state_dir)
        kind = "pattern" if settings.is_pattern else "cam" if settings.url is None else "url"
        self._state_name = f"{kind}{'' if settings.is_pattern else self._number}"
        store = Store(self._state_folder, f"controls-{self._state_name}")
        self._controls = ControlManager(self._manager, request, store, BackgroundWriter(self.on_fatal))

    def _build_media(self) -> None:
        """From frames to JPEGs, H.264 and the fan-out."""
        settings, manager, controls = self._settings, self._manager, self._controls
        frames = NewestFrame() if manager is None else manager.frames
        self._hook: Hook | None = None
        if settings.hook is not None:
            function = load_hook(settings.hook, settings.origins["hook"])
            self._hook = Hook(settings.hook, function, frames, lambda: self._server.url.rstrip("/"))
            frames = self._hook.frames
        self._jpegs = JpegEncoderPool(frames, (settings.width, settings.height))
        # The hardware encoder reads the buffers of the camera.
        has_buffers = self._camera is not None and self._camera.backend == "picamera2" and self._hook is None
        encoders = EncoderFactory() if has_buffers else EncoderFactory(find=lambda: None)
        self._video = VideoEncoder(
            frames,
            lambda: controls.stream_request.fps,
            settings.bitrate,
            self.on_fatal,
            require=encoders.require,
            open_backend=encoders.open,
        )
        self._mjpeg = MjpegStream(
            self._jpegs,
            lambda: controls.orientation,
            lambda: None if manager is None else manager.recovery_reason,
            self.on_fatal,
        )
        self._fanout = self._mjpeg.fanout
        self._fmp4 = Fmp4Stream(self._video, self._fanout.notify)
        self.health = Health(manager, lambda: self._fanout.client_count, self._mjpeg.activity)
        if manager is not None:
            manager.subscribe(_MemoryRelease(self._jpegs))
        size, snapshot_size = (settings.width, settings.height), (settings.snapshot_width, settings.snapshot_height)
        defaults = MediaDefaults(
            quality=settings.quality,
            snapshot_size=None if snapshot_size == size else snapshot_size,
            snapshot_quality=settings.snapshot_quality,
            autofocus_timeout_s=settings.autofocus_timeout_s if settings.autofocus else 0.0,
            max_clients=settings.max_clients,
        )
        self._media = MediaApi(manager, controls, self._jpegs, self._fanout, defaults)

    def _build_outputs(self) -> None:
        """The RTSP publisher and the recorders."""
        settings, manager, controls = self._settings, self._manager, self._controls
        self._publisher: Publisher | None = None
        if manager is not None and settings.rtsp_url is not None:
            self._publisher = Publisher(settings.rtsp_url, self._video, manager, self.on_fatal)
        self._recorders: RecordingService | None = None
        if settings.recordings is None:
            return
        library = Library(Path(settings.recordings), settings.recordings_max_bytes)
        state = self._state_folder
        journal = Journal(None if state is None else state / f"recordings-{self._state_name}.json")
        preroll_s = settings.recordings_preroll_s
        video = timelapse = None
        if manager is not None:
            frames = manager.frames

            def orientation() -> int:
                return controls.orientation

            def thumbnail() -> bytes | None:
                return thumbnails.of_newest(frames, orientation())

            def still(full_sensor: bool) -> Snapshot:
                return self._media.take_snapshot(SnapshotOptions(full_sensor=full_sensor))

            video = VideoRecorder(
                self._video, manager, library, preroll_s, thumbnail, self.on_fatal, orientation, journal=journal
            )
            timelapse = TimelapseRecorder(library, still, settings.bitrate, self.on_fatal, orientation, journal=journal)
        autostart = automatic_options(settings.recordings_autostart)
        self._recorders = RecordingService(library, preroll_s, video, timelapse, autostart, journal)

    def _build_web(self) -> None:
        settings, manager, media = self._settings, self._manager, self._media
        h264 = H264StreamApi(media, self._video, self._fmp4)
        publishing = PublishingApi(self._publisher, has_camera=manager is not None)
        recordings = RecordingsApi(self._recorders, media)
        status = StatusApi(
            manager,
            self._controls,
            lambda: self._fanout.client_count,
            lambda: self._jpegs.encoded_count,
            settings.autofocus,
            [h264.status, publishing.status, self._hook_status],
            recordings.status,
            None if settings.url is None else socket_path_of(settings.url),
        )
        controls = ControlApi(manager, self._controls, media, settings.autofocus_timeout_s)
        cameras = CameraList(settings.neighbours, settings.port_for(self._number))
        routes = [*page_routes(cameras.image_origins), *webrtc_routes(settings.webrtc_url)]
        routes += metrics_routes(status.content)
        for api in (media, status, h264, publishing, recordings, controls, cameras):
            routes += api.routes()
        access = AccessControl(settings.api_key, settings.view_key, CsrfGuard(settings.host_names or ()))
        router = Router([*routes, *openapi_routes(routes, has_key=access.requires_key)])
        self._make_server = partial(
            PortalServer, settings.host, settings.port_for(self._number), router, access, settings.max_clients
        )
        self._has_key = access.requires_key
        self._bound_server: PortalServer | None = None

    def _component_list(self) -> list[_Component]:
        """All components in the order in which they start; they stop in reverse."""
        # The socket is bound first, and closed when every request has its response.
        components = [_Component(self._bind, self._close_server, _ANSWER_TIMEOUT_S)]
        if (manager := self._manager) is not None:
            components.append(_Component(manager.start, self._stop_camera))
        components.append(_Component(_nothing, self._video.stop))
        components.append(_Component(self._mjpeg.start, self._jpegs.stop))
        if (hook := self._hook) is not None:
            components.append(_Component(lambda: hook.start(self.on_fatal), hook.stop, _HOOK_TIMEOUT_S))
        components.append(_Component(_nothing, self._fanout.stop, _FAN_OUT_TIMEOUT_S))
        if (recorders := self._recorders) is not None:
            components.append(_Component(lambda: recorders.open(self.on_fatal), recorders.close, _RECORDERS_TIMEOUT_S))
        if (publisher := self._publisher) is not None:
            start = publisher.start if self._settings.rtsp_autostart else _nothing
            components.append(_Component(start, self._stop_publisher, _PUBLISHER_TIMEOUT_S))
        components.append(_Component(self._serve, self._reject_requests))
        return components

    def start(self) -> None:
        """Start the components in order. If one fails, `stop` stops those before it.

        Raises AddressNotReady or ConfigurationError where the address cannot be bound, StoppedWhileStarting.
        """
        for component in self._components:
            component.start()
            self._started.append(component)

    def stop(self, deadline: Deadline) -> bool:
        """Stop the started components in reverse order; False if one failed, or the camera did not close in time."""
        is_stopped = True
        while self._started:
            component = self._started.pop()
            try:
                is_stopped &= component.stop(deadline.within(component.stop_timeout_s).at_s) is not False
            except Exception:  # the others still have data to save and a camera to close
                log.exception("Component failed to stop")
                is_stopped = False
        return is_stopped

    def on_fatal(self, reason: str) -> None:
        """Shut down with EXIT_STUCK: a thread crashed or a component hangs. Any thread may call it."""
        self._shutdown.request(CameraStuck(reason))

    @property
    def _server(self) -> PortalServer:
        """The server; available once the application was started."""
        if self._bound_server is None:
            raise RuntimeError("the application was not started")
        return self._bound_server

    def health_error(self) -> str | None:
        """An error that will not resolve by itself; None while the portal is healthy."""
        address = self._server.server_name, self._server.server_port
        return self.health.health_error(address) or self._video.health_error()

    def show_exit_reason(self, reason: CameraMissing | CameraBusy) -> None:
        """Show stream clients why the portal exits."""
        title = "CAMERA MISSING" if isinstance(reason, CameraMissing) else "CAMERA BUSY"
        self._jpegs.show_notice([title, str(reason)])

    def wait_answered(self) -> None:
        """Give pending requests the time for their error responses."""
        self._server.connections.wait_answered(Deadline.after(_ANSWER_TIMEOUT_S).at_s)

    def _hook_status(self) -> dict[str, Any]:
        return {"hook": None if self._hook is None else self._hook.status()}

    # --- starting and stopping single components --------------------------------------------------------------

    def _bind(self) -> None:
        settings = self._settings
        address = f"host {settings.host}, port {settings.port_for(self._number)}"
        self._bound_server = listen(self._make_server, address, self._shutdown)

    def _serve(self) -> None:
        spawn("server", self._server.serve, self.on_fatal)
        log_listening(self._server.url, self._server.server_name, has_key=self._has_key)

    def _stop_publisher(self, deadline_s: float) -> None:
        if self._publisher is not None:
            self._publisher.stop()
            self._publisher.wait_stopped(deadline_s)

    def _stop_camera(self, deadline_s: float) -> bool:
        if self._manager is None:
            return True
        self._manager.stop()
        is_closed = self._manager.join(deadline_s)
        if not is_closed:
            log.error("Camera did not close in time")
        return is_closed

    def _reject_requests(self, deadline_s: float) -> None:  # noqa: ARG002 - does not wait
        self._server.stop()
        if self._manager is not None:
            self._manager.stop()  # early, since it is the slowest; requests that wait for a frame get their response

    def _close_server(self, deadline_s: float) -> None:
        self._server.connections.wait_answered(deadline_s)
        self._server.changes.log_pending()
        self._server.server_close()


class _MemoryRelease(SessionListener):
    """Frees what snapshots left behind each time the camera was closed."""

    def __init__(self, jpegs: JpegEncoderPool) -> None:
        self._jpegs = jpegs

    def on_closed(self) -> None:
        self._jpegs.clear_snapshots()
        memory.release_unused()


def _nothing() -> None:
    """For components that start by themselves when they are needed."""


def _choose_camera(
    settings: Settings, request: StreamRequest, on_crash: Callable[[str], None]
) -> tuple[Camera | None, int]:
    """The camera, None where it is disabled, and its number. Raises CameraMissing."""
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
