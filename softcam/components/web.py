"""Builds the HTTP server with its APIs. Runs on the main thread."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from softcam.camera.url.source import socket_path_of
from softcam.components.camera import CameraParts
from softcam.components.media import MediaParts
from softcam.components.outputs import OutputParts
from softcam.config.settings import Settings
from softcam.runtime.log.memory import LogMemory
from softcam.runtime.systemd import runtime_folder
from softcam.system.instances import EnabledInstances, own_instance
from softcam.system.monitor import SystemMonitor
from softcam.web.api.cameras import CamerasApi
from softcam.web.api.capabilities import CapabilitiesApi
from softcam.web.api.control_aliases import AliasApi
from softcam.web.api.controls import ControlApi
from softcam.web.api.h264_stream import H264StreamApi
from softcam.web.api.hls import HlsApi
from softcam.web.api.logs import live_logs
from softcam.web.api.metrics import metrics_routes
from softcam.web.api.openapi import openapi_routes
from softcam.web.api.presets import PresetsApi
from softcam.web.api.problems import (
    Check,
    check_hook,
    check_publishing,
    check_recording,
    check_saved,
    check_stuck,
)
from softcam.web.api.publishing import PublishingApi
from softcam.web.api.recordings import RecordingsApi
from softcam.web.api.rtsp import rtsp_status
from softcam.web.api.status import StatusApi
from softcam.web.api.system import SystemApi
from softcam.web.http.auth import AccessControl
from softcam.web.http.cors import AllowedOrigins
from softcam.web.http.csrf import CsrfGuard
from softcam.web.http.delayed import DelayedResponses
from softcam.web.http.downloads import file_stem
from softcam.web.http.router import Router
from softcam.web.http.server import PortalServer
from softcam.web.pages import page_routes
from softcam.web.webrtc import webrtc_routes


@dataclass(frozen=True, slots=True)
class WebParts:
    """The HTTP server with all routes: `make_server` binds it to the address that `address` describes in messages."""

    make_server: Callable[[], PortalServer]
    address: str
    has_key: bool


def build_web(
    settings: Settings,
    source: CameraParts,
    media: MediaParts,
    outputs: OutputParts,
    viewer_count: Callable[[], int],
    log_memory: LogMemory,
    stall_error: Callable[[], str | None],
) -> WebParts:
    """The APIs with their routes, access control, and the server, which binds its address when it is made.

    `viewer_count` returns that of all streams; `log_memory` is what the API shows; `stall_error` returns why a part of
    the portal hangs, or None.
    """
    manager, hook, jpegs = source.manager, media.hook, media.jpegs

    def stream_format() -> tuple[tuple[int, int], float]:
        size = source.controls.current_config or source.controls.stream_request
        return (size.width, size.height), source.controls.stream_fps

    h264 = H264StreamApi(media.api, media.video, media.fmp4, media.substream, media.fmp4_substream, stream_format)
    publishing = PublishingApi(outputs.publisher, has_camera=manager is not None)
    recordings = RecordingsApi(outputs.recorders, media.api, settings.name)
    presets = PresetsApi(source.presets, settings.name or source.state_name)
    status = StatusApi(
        manager,
        source.controls,
        viewer_count,
        lambda: jpegs.encoded_count,
        settings.autofocus,
        [
            h264.status,
            publishing.status,
            lambda: rtsp_status(outputs.rtsp),
            lambda: {"name": source.name},
            lambda: {"hook": None if hook is None else hook.status()},
            presets.status,
        ],
        recordings.status,
        None if settings.url is None else socket_path_of(settings.url),
        tuple(_checks(source, media, outputs, recordings, stall_error)),
    )
    controls = ControlApi(manager, source.controls, media.api, settings.autofocus_timeout_s, presets)
    aliases = AliasApi(source.controls, controls, publishing.stop_publishing)
    capabilities = CapabilitiesApi(manager, source.controls, controls.open_camera)
    cameras = CamerasApi(_cameras_of(settings), settings.port_for(source.number))
    routes = page_routes(cameras.image_origins, title=source.name, file_stem=file_stem(settings.name))
    routes += webrtc_routes(settings.webrtc_url, title=source.name)
    folder = Path(settings.recordings or source.state_folder or "/")
    machine = SystemMonitor(folder, media.loop, runtime_folder(os.environ))
    system = SystemApi(machine, has_quota=settings.recordings_max_bytes is not None)
    routes += metrics_routes(status.content, status.problems, machine.state, settings.recordings_max_bytes)
    hls_api = HlsApi(media.api, media.hls, media.video.require)
    logs = live_logs(log_memory, media.loop, f"camera-soft-cam@{source.number}")
    apis = (
        media.api,
        status,
        capabilities,
        controls,
        aliases,
        presets,
        h264,
        hls_api,
        publishing,
        recordings,
        cameras,
        system,
        logs,
    )
    for api in apis:
        routes += api.routes()
    guard = CsrfGuard(
        settings.host_names or (), allowed_origins=AllowedOrigins(frozenset(settings.allowed_origins or ()))
    )
    access = AccessControl(settings.api_key, settings.view_key, guard, media.brake.check)
    router = Router([*routes, *openapi_routes(routes, has_key=access.requires_key)])
    port = settings.port_for(source.number)
    delayed = DelayedResponses(media.loop)
    limits = settings.max_clients, settings.max_clients_per_address
    make_server = partial(PortalServer, settings.host, port, router, access, *limits, delayed=delayed)
    return WebParts(make_server, f"host {settings.host}, port {port}", access.requires_key)


def _checks(
    source: CameraParts,
    media: MediaParts,
    outputs: OutputParts,
    recordings: RecordingsApi,
    stall_error: Callable[[], str | None],
) -> Iterator[Check]:
    """The checks for what is configured."""
    yield check_stuck(stall_error)
    yield check_recording(recordings.status)
    if (publisher := outputs.publisher) is not None:
        yield check_publishing(lambda: publisher.status().state)
    if (hook := media.hook) is not None:
        yield check_hook(lambda: hook.is_failing)
    if source.state_folder is not None:  # without one, nothing is to be saved
        yield check_saved(source.controls.problems)
        yield check_saved(source.presets.problems)


def _cameras_of(settings: Settings) -> Callable[[], Sequence[tuple[str, int | str]]]:
    """The cameras of this machine: as configured; else, for a portal that systemd started, the enabled instances."""
    own = own_instance()
    if own is None or settings.origins["neighbours"] != "default":
        return lambda: settings.neighbours
    instances = EnabledInstances()
    return lambda: settings.cameras_among({own, *instances.numbers()})
