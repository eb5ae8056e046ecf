"""The roof: puts the parts together, waits for the end, takes them apart in order, and knows the exit code.

The only module that sees the whole settings, and the only one that sets logging up. Runs on the main thread.
"""

import contextlib
import errno
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, TypedDict

from softcam.camera.base import Camera, NullListener, StreamRequest
from softcam.camera.picamera.h264_encoder import EncoderFactory
from softcam.camera.session.manager import CameraManager
from softcam.config.settings import Settings, describe, load
from softcam.controls.controller import ControlManager
from softcam.controls.store import Store
from softcam.errors import (
    EXIT_OK,
    EXIT_STUCK,
    AddressNotReady,
    CameraBusy,
    CameraMissing,
    CameraStuck,
    ConfigurationError,
    PortalError,
)
from softcam.h264.backend import OpenBackend
from softcam.h264.encoder import VideoEncoder
from softcam.health import Health
from softcam.imaging.exif import with_orientation
from softcam.imaging.frame import NewestFrame
from softcam.recording import thumbnail as thumbnails
from softcam.recording.library import Library
from softcam.recording.recorder import VideoRecorder
from softcam.recording.service import RecordingService
from softcam.recording.timelapse import Still, TimelapseRecorder
from softcam.rtsp.publisher import Publisher
from softcam.runtime import memory
from softcam.runtime.shutdown import ShutdownSignal
from softcam.runtime.systemd import JournalFormatter, Notifier, Watch, is_journal
from softcam.runtime.threads import spawn
from softcam.streaming.clients import JpegChannel
from softcam.streaming.fanout import FanOut
from softcam.streaming.fmp4_channel import Fmp4Stream
from softcam.streaming.hook import Hook, load_hook
from softcam.streaming.jpeg_encoder import JpegEncoderPool, JpegVariant
from softcam.web.api.cameras import CAMERAS_DOC, CameraList
from softcam.web.api.controls import ControlApi
from softcam.web.api.h264_stream import H264StreamApi
from softcam.web.api.media import SNAPSHOT_DOC, STREAM_DOC, MediaApi, MediaDefaults, SnapshotOptions
from softcam.web.api.metrics import METRICS_DOC, Metrics
from softcam.web.api.openapi import openapi_routes
from softcam.web.api.publishing import Streaming
from softcam.web.api.recordings import RecordingsApi, take_still
from softcam.web.api.status import HEALTH_DOC, STATUS_DOC, StatusApi
from softcam.web.http.auth import AccessControl
from softcam.web.http.csrf import CsrfGuard
from softcam.web.http.router import Route, Router
from softcam.web.http.server import PortalServer
from softcam.web.pages import page_routes
from softcam.web.webrtc import webrtc_routes

log = logging.getLogger("softcam")

# From the wish to end to the end: three seconds in all, and most of them for the camera, which is slowest to stop.
_STOP_LIMIT_S: Final = 2.5
_FAN_OUT_LIMIT_S: Final = 0.5
_HOOK_LIMIT_S: Final = 0.2  # it may be in a function that does not come back
_RECORDER_LIMIT_S: Final = 1.5  # for files' shutdown to reach a slow card; what has none is mended at the next start
_PUBLISHER_LIMIT_S: Final = 0.4  # a server that is well needs none of it; a name that is looked up could need minutes
_ANSWER_LIMIT_S: Final = 0.5  # for waiting requests to hear why there is no picture; they hear it at once
_FAREWELL_S: Final = 1.5  # a page asks once in a second, and so hears why the portal leaves

# An address may come late: the network's at boot, or the port of an instance that is just ending.
_LISTEN_LIMIT_S: Final = 5.0
_LISTEN_PAUSE_S: Final = 0.25
# What no waiting will change: a low port without the right to it, no IPv6 in this kernel, an address that is none.
_NEVER_OURS: Final = frozenset({errno.EACCES, errno.EPERM, errno.EAFNOSUPPORT, errno.EINVAL})

# How long a busy Python thread may keep the others from the interpreter; a picture passes three threads on its way.
_SWITCH_INTERVAL_S: Final = 0.0005


def main(argv: Sequence[str] | None = None) -> int:
    """Run the portal, or one of its commands; the exit code as `errors` has it."""
    try:
        settings = load(sys.argv[1:] if argv is None else argv, os.environ)
    except ConfigurationError as error:
        # Logging is set up from the settings, so not yet.
        priority = "<3>" if is_journal(sys.stderr, os.environ) else ""
        for fault in error.faults:
            print(f"{priority}soft_stream.py: {fault}", file=sys.stderr)
        Notifier(os.environ).send(STATUS=error)
        return error.exit_code
    _set_up_logging(settings.log_level)
    for warning in settings.warnings:
        log.warning("%s", warning)
    try:
        match settings.command:
            case "check":
                if settings.hook is not None:
                    load_hook(settings.hook)  # whether it can be loaded is a part of the configuration
                print(describe(settings))
                return EXIT_OK
            case "list-cameras":
                return _list_cameras()
            case "run":
                return _run(settings)
    except PortalError as error:
        log.error("%s", error)
        Notifier(os.environ).send(STATUS=error)
        return error.exit_code


def _list_cameras() -> int:
    print("pattern  the embedded test picture, always there")
    from softcam.camera.picamera.camera import list_cameras

    for entry in list_cameras():
        print(f"{entry.number:<8} {entry.model}  {entry.id}")
    return EXIT_OK


def _run(settings: Settings) -> int:
    memory.use_single_arena()
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    # Signals are heard from here on: one that comes while the parts are put together counts as well.
    shutdown = ShutdownSignal()
    shutdown.install_handlers([signal.SIGTERM, signal.SIGINT])
    try:
        parts = Application(settings, shutdown)
    except _StoppedEarly as stopped:
        log.info("Stopping: %s", stopped)
        log.info("Stopped")
        return EXIT_OK
    log.info("Listening on %s", parts.server.url)
    watch = Watch(Notifier(os.environ), parts.health.status_line, parts.trouble)
    watch.start(parts.die)
    end = shutdown.wait()
    watch.stop(str(end) if isinstance(end, PortalError) else "stopping")
    if isinstance(end, PortalError):
        if isinstance(end, CameraMissing | CameraBusy):
            parts.say_why(end)
            shutdown.wait(_FAREWELL_S)
        parts.server.wait_answered(time.monotonic() + _ANSWER_LIMIT_S)
        code = end.exit_code
    else:
        log.info("Stopping: %s", end and end.name)
        code = EXIT_OK
    if not parts.stop(time.monotonic() + _STOP_LIMIT_S):
        log.error("Camera did not close in time; forcing exit")
        _leave_at_once(code or EXIT_STUCK)
    log.info("Stopped")
    if threading.active_count() > 1:
        # In FFmpeg or in somebody else's hook, from which nobody can call it back. It would come out of there while the
        # interpreter is taken apart, and may crash it.
        _leave_at_once(code)
    return code


def _leave_at_once(code: int) -> None:
    """End the process past every thread that hangs; Python's own way out would wait for the camera, or trip over it."""
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # closed when the process was started
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
    os._exit(code)


class Application:
    """The parts of a running portal, and the order in which they stop."""

    def __init__(self, settings: Settings, shutdown: ShutdownSignal) -> None:
        camera, number = _choose_camera(settings)
        size = (settings.width, settings.height)
        snapshot_size = (settings.snapshot_width, settings.snapshot_height)

        def die(reason: str) -> None:
            shutdown.request(CameraStuck(reason))

        self.die = die
        self.manager: CameraManager | None = None
        if camera is not None:
            self.manager = CameraManager(
                camera,
                linger_s=settings.linger_s,
                watchdog_timeout_s=settings.watchdog_timeout_s,
                autofocus_timeout_s=settings.autofocus_timeout_s,
                has_autofocus=settings.autofocus,
                on_failure=shutdown.request,
            )
        folder = None if settings.state_dir is None else Path(settings.state_dir)
        kind = "pattern" if settings.is_pattern else f"cam{number}" if settings.url is None else f"url{number}"
        self.control_manager = ControlManager(self.manager, _wish(settings), Store(folder, f"controls-{kind}"))
        frames = NewestFrame() if self.manager is None else self.manager.frames
        self.hook: Hook | None = None
        if settings.hook is not None:
            self.hook = Hook(settings.hook, load_hook(settings.hook), frames)
            frames = self.hook.frames
        self.pictures = JpegEncoderPool(frames, size)
        control_manager = self.control_manager
        self.video = VideoEncoder(
            frames,
            lambda: control_manager.stream_request.fps,
            settings.bitrate,
            die,
            **_backends(settings, camera),
        )
        self.publisher: Publisher | None = None
        if self.manager is not None and settings.rtsp_url is not None:
            self.publisher = Publisher(settings.rtsp_url, self.video, self.manager, die)
        streaming = Streaming(self.publisher, has_camera=self.manager is not None)
        self.fanout = FanOut(self._want, self._tick, die)
        movie = Fmp4Stream(self.video)
        movie.feed = partial(self.fanout.feed, movie)
        self.health = Health(self.manager, lambda: self.fanout.viewers)
        self.pictures.start(self._deliver, die)
        if self.hook is not None:
            self.hook.start(die)
        if self.manager is not None:
            self.manager.subscribe(_MemoryRelease(self.pictures))
        defaults = MediaDefaults(
            quality=settings.quality,
            snapshot_size=None if snapshot_size == size else snapshot_size,
            snapshot_quality=settings.snapshot_quality,
            autofocus_timeout_s=settings.autofocus_timeout_s if settings.autofocus else 0.0,
            max_clients=settings.max_clients,
        )
        media = MediaApi(self.manager, self.pictures, self.fanout, defaults, self.control_manager)
        movies = H264StreamApi(media, self.video, movie, self.fanout)
        self.recorders = self._recorders(settings, media)
        recordings = RecordingsApi(self.recorders, media)
        viewers, encoded = (lambda: self.fanout.viewers), (lambda: self.pictures.encoded)
        api = StatusApi(
            self.manager,
            viewers,
            encoded,
            settings.autofocus,
            self.control_manager,
            [movies.status, streaming.status, recordings.status, self._hook_status],
        )
        controls = ControlApi(self.manager, self.control_manager, media, settings.autofocus_timeout_s)
        access = AccessControl(settings.api_key, settings.view_key, CsrfGuard(settings.host_names or ()))
        neighbours = CameraList(settings.neighbours, settings.port_for(number))
        routes = [*page_routes(neighbours.image_origins), *webrtc_routes(settings.webrtc_url)]
        routes += [
            *_routes(media, api),
            *movies.routes(),
            *streaming.routes(),
            *recordings.routes(),
            *controls.routes(),
        ]
        routes.append(Route(("/v1/cameras",), neighbours.answer, doc=CAMERAS_DOC))
        table = Router([*routes, *openapi_routes(routes, has_key=access.requires_key)])
        host, port = settings.host, settings.port_for(number)
        self.server = _listen(
            lambda: PortalServer(host, port, table, access, settings.max_clients), f"host {host}, port {port}", shutdown
        )
        if self.hook is not None:
            self.hook.portal = self.server.url.rstrip("/")
        self._server_thread = spawn("server", self.server.serve, die)
        if self.publisher is not None and settings.rtsp_autostart:
            self.publisher.start()
        if self.recorders is not None:
            self.recorders.open(die)

    def _recorders(self, settings: Settings, media: MediaApi) -> RecordingService | None:
        if settings.recordings is None:
            return None
        library = Library(Path(settings.recordings), settings.recordings_max_bytes)
        preroll_s = settings.recordings_preroll_s
        if self.manager is None:
            return RecordingService(library, preroll_s)
        frames, control_manager = self.manager.frames, self.control_manager

        def orientation() -> int:
            return control_manager.orientation

        def thumbnail() -> bytes | None:
            return thumbnails.of_newest(frames, orientation())

        video = VideoRecorder(self.video, self.manager, library, preroll_s, thumbnail, self.die, orientation)

        def take(full_sensor: bool) -> Still:
            return take_still(media, SnapshotOptions(full_sensor=full_sensor))

        timelapse = TimelapseRecorder(library, take, settings.bitrate, self.die, orientation)
        return RecordingService(library, preroll_s, video, timelapse)

    def trouble(self) -> str | None:
        """What is wrong and will not right itself; None where the whole portal is well."""
        return self.health.health_error((self.server.server_name, self.server.server_port)) or self.video.health_error()

    def _hook_status(self) -> dict[str, Any]:
        return {"hook": None if self.hook is None else self.hook.status()}

    def _want(self, channels: tuple[JpegChannel, ...]) -> None:
        self.health.report_channels(channels)
        self.pictures.want(channels)

    def _deliver(self, key: JpegVariant, jpeg: bytes, *, timestamp_s: float, made_s: float) -> None:
        self.health.report_encoded()
        jpeg = with_orientation(jpeg, self.control_manager.orientation)
        self.fanout.deliver(key, jpeg, timestamp_s=timestamp_s, made_s=made_s)

    def _tick(self) -> None:
        self.health.report_tick()
        reason = None if self.manager is None else self.manager.recovery_reason
        if reason is not None:
            self.pictures.show(["THE CAMERA IS BEING BROUGHT BACK", reason])

    def say_why(self, end: CameraMissing | CameraBusy) -> None:
        """The last picture that viewers see tells why there are no more."""
        what = "THE CAMERA IS MISSING" if isinstance(end, CameraMissing) else "THE CAMERA IS BUSY"
        self.pictures.show([what, str(end)])

    def stop(self, deadline_s: float) -> bool:
        """No new requests, no viewers, no encodes, no camera; False when the camera hangs."""
        self.server.stop()
        if self.manager is not None:
            self.manager.stop()  # at once, since it is the slowest, and whoever waits for a picture hears of the end
        if self.publisher is not None:
            self.publisher.stop()
            self.publisher.join(min(deadline_s, time.monotonic() + _PUBLISHER_LIMIT_S))
        if self.recorders is not None:
            self.recorders.close(min(deadline_s, time.monotonic() + _RECORDER_LIMIT_S))
        self.fanout.stop(min(deadline_s, time.monotonic() + _FAN_OUT_LIMIT_S))
        if self.hook is not None:
            self.hook.stop(min(deadline_s, time.monotonic() + _HOOK_LIMIT_S))
        self.pictures.stop(deadline_s)
        self.video.stop(deadline_s)
        is_closed = self.manager is None or self.manager.join(deadline_s)
        self.server.wait_answered(min(deadline_s, time.monotonic() + _ANSWER_LIMIT_S))
        self.server.server_close()
        return is_closed


class _MemoryRelease(NullListener):
    """Frees what snapshots left behind each time the camera was closed."""

    def __init__(self, pictures: JpegEncoderPool) -> None:
        self._pictures = pictures

    def on_closed(self) -> None:
        self._pictures.forget()
        memory.release_unused()


class _StoppedEarly(Exception):
    """A signal, which the message names, came while the portal did not listen yet."""


def _listen(make: Callable[[], PortalServer], address: str, shutdown: ShutdownSignal) -> PortalServer:
    """The server, as soon as the address can be had. Raises ConfigurationError where it never can, AddressNotReady
    after some seconds, _StoppedEarly."""
    deadline_s = time.monotonic() + _LISTEN_LIMIT_S
    has_waited = False
    while True:
        try:
            return make()
        except UnicodeError as error:  # of a name that can be none, as `a..b`
            raise ConfigurationError([f"{address}: {error}"]) from error
        except OSError as error:
            trouble = f"{address}: {error.strerror or error}"
            if error.errno in _NEVER_OURS and not isinstance(error, socket.gaierror):
                raise ConfigurationError([trouble]) from error
            if time.monotonic() >= deadline_s:
                raise AddressNotReady(trouble) from error
        if not has_waited:
            log.warning("%s; trying again for %.0f s", trouble, _LISTEN_LIMIT_S)
            has_waited = True
        end = shutdown.wait(_LISTEN_PAUSE_S)
        if isinstance(end, PortalError):
            raise end
        if end is not None:
            raise _StoppedEarly(end.name)


def _choose_camera(settings: Settings) -> tuple[Camera | None, int]:
    """The camera, None where it is switched off, and its number. Raises CameraMissing."""
    number = settings.camera_number
    if not settings.enabled:
        return None, number or 0
    wish = _wish(settings)
    if settings.is_pattern:
        from softcam.camera.pattern.camera import PatternCamera

        faults = None if settings.pattern_faults is None else Path(settings.pattern_faults)
        camera: Camera = PatternCamera(wish, faults_file=faults)
    elif settings.url is not None:
        from softcam.camera.url.camera import UrlCamera

        camera = UrlCamera(settings.url, wish)
    else:
        from softcam.camera.picamera.camera import PicameraCamera

        picamera = PicameraCamera(
            number,
            settings.camera_id,
            wish,
            tuning_file=settings.tuning_file,
            noir_model=settings.camera_model,
            is_noir=settings.is_noir,
        )
        camera, number = picamera, picamera.number if number is None else number
    if not camera.is_present():
        raise CameraMissing(f"camera {camera.name} is missing")
    return camera, number or 0


class _Backends(TypedDict, total=False):
    require: Callable[[], None]
    open_backend: OpenBackend


def _backends(settings: Settings, camera: Camera | None) -> _Backends:
    """What encodes H.264 where it is not libx264 alone: hardware gets pictures out of the camera's own memory."""
    if camera is None or camera.backend != "picamera2" or settings.hook is not None:
        return {}
    hardware = EncoderFactory()
    return {"require": hardware.require, "open_backend": hardware.open}


def _wish(settings: Settings) -> StreamRequest:
    return StreamRequest(settings.width, settings.height, settings.fps)


def _routes(media: MediaApi, api: StatusApi) -> list[Route]:
    snapshots = ("/snapshot.jpg", "/snapshot", "/frame", "/?action=snapshot", "/api/camera/frame")
    return [
        Route(("/stream.mjpg", "/stream", "/?action=stream", "/api/camera/stream"), media.stream, doc=STREAM_DOC),
        Route(snapshots, media.snapshot, doc=SNAPSHOT_DOC),
        Route(("/v1/camera/status", "/camera/status", "/api/camera/status"), api.status, doc=STATUS_DOC),
        Route(("/health",), api.health, is_public=True, doc=HEALTH_DOC),
        Route(("/metrics",), Metrics(api.content).answer, doc=METRICS_DOC),
    ]


def _set_up_logging(level: str) -> None:
    handler = logging.StreamHandler(sys.stderr)
    if is_journal(sys.stderr, os.environ):
        handler.setFormatter(JournalFormatter())
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(handlers=[handler], level=level)
    # Picamera2 tells every step of its own at INFO.
    logging.getLogger("picamera2").setLevel(max(logging.getLogger().level, logging.WARNING))
