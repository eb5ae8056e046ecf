"""The application: starts and stops the components of a portal in order. Runs on the main thread.

The builders of `softcam.components` assemble the components; `Application.start` walks one ordered list forward,
`Application.stop` walks it backward.
"""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from softcam.components.camera import build_camera
from softcam.components.media import build_media
from softcam.components.outputs import build_outputs
from softcam.components.web import build_web
from softcam.config.settings import Settings
from softcam.errors import CameraBusy, CameraMissing, CameraStuck
from softcam.health import Health
from softcam.rtsp.server.server import RtspServer, listening_socket
from softcam.runtime.deadline import Deadline
from softcam.runtime.log.memory import LogMemory
from softcam.runtime.shutdown import ShutdownSignal
from softcam.runtime.threads import spawn
from softcam.web.http.listen import listen, log_listening
from softcam.web.http.server import PortalServer

log = logging.getLogger(__name__)

# Limits of the components that must not use up the time for stopping; the camera is the slowest and gets the rest.
_EVENT_LOOP_TIMEOUT_S: Final = 0.5
_HOOK_TIMEOUT_S: Final = 0.2  # it may be in a function that does not return
_RECORDERS_TIMEOUT_S: Final = 1.5  # to write the index to a slow card; a file without one is recovered later
_PUBLISHER_TIMEOUT_S: Final = 0.4  # a healthy server needs none of it; a name lookup could take minutes
_STATE_TIMEOUT_S: Final = 0.5  # nothing is left to be saved, unless the disk is full or does not respond
_ANSWER_TIMEOUT_S: Final = 0.5  # for pending requests to get their error response, which they do at once


@dataclass(frozen=True, slots=True)
class _Component:
    """An entry of the ordered list; `stop` returns False for what hangs at the deadline."""

    start: Callable[[], object]
    stop: Callable[[Deadline], bool | None]
    stop_timeout_s: float = math.inf


class Application:
    """All components of a running portal."""

    def __init__(self, settings: Settings, shutdown: ShutdownSignal, log_memory: LogMemory) -> None:
        """Build everything. Raises CameraMissing, and ConfigurationError for a hook that cannot be loaded.

        `log_memory` is what the API shows.
        """
        self._settings = settings
        self._shutdown = shutdown
        self._camera = build_camera(settings, shutdown.request, self.on_fatal)
        self._media = build_media(settings, self._camera, lambda: self._server.url.rstrip("/"), self.on_fatal)
        self._outputs = build_outputs(settings, self._camera, self._media, self.on_fatal)
        self._web = build_web(
            settings, self._camera, self._media, self._outputs, self.viewer_count, log_memory, self.stall_error
        )
        self._bound_server: PortalServer | None = None
        media = self._media
        self.health = Health(self._camera.manager, self.viewer_count, media.mjpeg.activity, lambda: media.loop.busy_s)
        self._components = self._component_list()
        self._started: list[_Component] = []

    def _component_list(self) -> list[_Component]:
        """All components in the order in which they start; they stop in reverse."""
        # The socket is bound first, and closed when every request has its response.
        components = [_Component(_nothing, self._camera.state_writer.close, _STATE_TIMEOUT_S)]
        components += [_Component(self._bind, self._close_server, _ANSWER_TIMEOUT_S)]
        if (manager := self._camera.manager) is not None:
            components.append(_Component(manager.start, self._stop_camera))
        components.append(_Component(_nothing, self._media.video.stop))
        if (substream := self._media.substream) is not None:
            components.append(_Component(_nothing, substream.stop))
        components.append(_Component(self._media.mjpeg.start, self._media.mjpeg.stop))
        if (hook := self._media.hook) is not None:
            components.append(_Component(lambda: hook.start(self.on_fatal), hook.stop, _HOOK_TIMEOUT_S))
        components.append(_Component(self._media.loop.start, self._media.loop.stop, _EVENT_LOOP_TIMEOUT_S))
        if (rtsp := self._outputs.rtsp) is not None:
            components.append(_Component(lambda: self._start_rtsp(rtsp), _nothing_to_stop))
        if (recorders := self._outputs.recorders) is not None:
            components.append(_Component(lambda: recorders.open(self.on_fatal), recorders.close, _RECORDERS_TIMEOUT_S))
        if (publisher := self._outputs.publisher) is not None:
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
                is_stopped &= component.stop(deadline.within(component.stop_timeout_s)) is not False
            except Exception:  # the others still have data to save and a camera to close
                log.exception("Component failed to stop")
                is_stopped = False
        return is_stopped

    def on_fatal(self, reason: str) -> None:
        """Shut down with EXIT_STUCK: a thread crashed or a component hangs. Any thread may call it."""
        self._shutdown.request(CameraStuck(reason))

    def viewer_count(self) -> int:
        """Viewers of all streams. Any thread may call it."""
        media, rtsp = self._media, self._outputs.rtsp
        count = media.mjpeg.fanout.client_count + media.hls.viewer_count
        return count if rtsp is None else count + rtsp.viewer_count

    @property
    def _server(self) -> PortalServer:
        """The server; available once the application was started."""
        if self._bound_server is None:
            raise RuntimeError("the application was not started")
        return self._bound_server

    def health_error(self) -> str | None:
        """An error that will not resolve by itself; None while the portal is healthy."""
        address = self._server.server_name, self._server.server_port
        return self.health.health_error(address) or self._video_error()

    def stall_error(self) -> str | None:
        """Why a part of the portal hangs; None if none does. Any thread may call it; it does not wait."""
        return self.health.stall_error() or self._video_error()

    def _video_error(self) -> str | None:
        encoders = [each for each in (self._media.video, self._media.substream) if each is not None]
        return next((error for encoder in encoders if (error := encoder.health_error()) is not None), None)

    def show_exit_reason(self, reason: CameraMissing | CameraBusy) -> None:
        """Show stream clients why the portal exits."""
        title = "CAMERA MISSING" if isinstance(reason, CameraMissing) else "CAMERA BUSY"
        self._media.jpegs.show_notice([title, str(reason)])
        if (rtsp := self._outputs.rtsp) is not None:
            rtsp.refuse_waiting(str(reason))

    def wait_answered(self) -> None:
        """Give pending requests the time for their error responses."""
        self._server.connections.wait_answered(Deadline.after(_ANSWER_TIMEOUT_S))

    # --- starting and stopping single components --------------------------------------------------------------

    def _bind(self) -> None:
        self._bound_server = listen(self._web.make_server, self._web.address, self._shutdown)

    def _start_rtsp(self, server: RtspServer) -> None:
        """Closed by the event loop, on which it runs."""
        host, port = self._settings.rtsp_host or self._settings.host, self._settings.rtsp_port or 0
        address = f"rtsp_host {host}, rtsp_port {port}"
        listener = listen(
            partial(listening_socket, host, port), address, self._shutdown, settings=("rtsp_host", "rtsp_port")
        )
        log_listening(server.start(listener), listener.getsockname()[0], has_key=self._web.has_key, can_change=False)

    def _serve(self) -> None:
        spawn("server", self._server.serve, self.on_fatal)
        log_listening(self._server.url, self._server.server_name, has_key=self._web.has_key)

    def _stop_publisher(self, deadline: Deadline) -> None:
        if (publisher := self._outputs.publisher) is not None:
            publisher.stop()
            publisher.wait_stopped(deadline.at_s)

    def _stop_camera(self, deadline: Deadline) -> bool:
        if (manager := self._camera.manager) is None:
            return True
        manager.stop()
        is_closed = manager.wait_until_closed(deadline)
        if not is_closed:
            log.error("Camera did not close in time")
        return is_closed

    def _reject_requests(self, deadline: Deadline) -> None:  # noqa: ARG002 - does not wait
        self._server.stop()
        if (manager := self._camera.manager) is not None:
            manager.stop()  # early, since it is the slowest; requests that wait for a frame get their response

    def _close_server(self, deadline: Deadline) -> None:
        self._server.connections.wait_answered(deadline)
        self._server.changes.log_pending()
        self._server.server_close()


def _nothing() -> None:
    """For components that start by themselves when they are needed."""


def _nothing_to_stop(deadline: Deadline) -> None:
    """For components that another one stops."""
