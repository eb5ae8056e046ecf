"""A whole portal behind a fake camera: manager, encoders, fan-out and the product's routes, without a process."""

import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Self

from softcam.camera.base import StreamConfig, StreamRequest
from softcam.camera.session.lease import LeaseKind
from softcam.camera.session.manager import CameraManager, SessionLimits
from softcam.controls.controller import ControlManager
from softcam.controls.preset_library import PresetLibrary
from softcam.controls.preset_store import PresetStore
from softcam.controls.store import Store
from softcam.controls.writer import BackgroundWriter
from softcam.imaging import jpeg
from softcam.imaging.frame import PixelFormat
from softcam.net.event_loop import EventLoop
from softcam.streaming.jpeg_encoder import JpegEncoderPool, Size
from softcam.streaming.mjpeg import MjpegStream
from softcam.web.api.media import MediaApi, MediaDefaults
from softcam.web.api.presets import PresetsApi
from softcam.web.api.publishing import PublishingApi
from softcam.web.api.status import StatusApi
from softcam.web.http.messages import Response
from softcam.web.http.router import Route
from softcam.web.pages import page_routes
from tests.support.background import eventually, soon
from tests.support.fakes import SENSOR_SIZE, SIZE, FakeCamera, SessionRig
from tests.support.raw_http import make_request

# Headers of every stream and snapshot.
COMMON = {
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",
    "Access-Control-Allow-Origin": "*",
    "Cross-Origin-Resource-Policy": "cross-origin",
    "Referrer-Policy": "no-referrer",
}
# Limits of a portal whose requests time out soon.
IMPATIENT: Mapping[str, Any] = {"snapshot_timeout_s": 0.05, "stream_timeout_s": 0.05}


class Scene:
    """Leaving the block stops the components, and checks that every lease was released."""

    def __init__(
        self,
        camera: FakeCamera | None = None,
        *,
        max_clients: int = 8,
        max_clients_per_address: int = 8,
        snapshot_size: Size | None = None,
        autofocus_timeout_s: float | None = None,
        linger_s: float = 60.0,
        watchdog_timeout_s: float = 0.0,
        session_limits: SessionLimits | None = None,
        fanout: Any = None,
        controls: Any = None,
        folder: Path | None = None,
        **limits: Any,
    ) -> None:
        """`fanout` and `controls` replace those of the media handlers; `limits` are further fields of MediaDefaults.

        Controls and presets are saved in `folder`.
        """
        self.held = SessionRig(
            camera,
            linger_s=linger_s,
            watchdog_timeout_s=watchdog_timeout_s,
            autofocus_timeout_s=autofocus_timeout_s,
            limits=session_limits,
        )
        self.camera = self.held.camera
        self.manager = self.held.manager
        self.deaths: list[str] = []
        self.pictures = JpegEncoderPool(self.manager.frames, SIZE)
        self.loop = EventLoop("event-loop", self.deaths.append)
        self.mjpeg = MjpegStream(self.loop, self.pictures, lambda: 1, lambda: None, self.deaths.append)
        self.loop.start()
        self.mjpeg.start()
        self.fan = self.mjpeg.fanout
        defaults = MediaDefaults(
            quality=80,
            snapshot_size=snapshot_size,
            snapshot_quality=90,
            autofocus_timeout_s=autofocus_timeout_s or 0.0,
            max_clients=max_clients,
            max_clients_per_address=max_clients_per_address,
            **limits,
        )
        self.control_manager = controls or make_controls(self.manager, folder)
        self.media = MediaApi(self.manager, self.control_manager, self.pictures, fanout or self.fan, defaults)
        self.presets = make_presets(self.control_manager, folder)
        self.api = StatusApi(
            self.manager,
            self.control_manager,
            lambda: self.fan.client_count,
            lambda: self.pictures.encoded_count,
            autofocus_timeout_s is not None,
            [PublishingApi(None, has_camera=True).status, self.presets.status],
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc_info: object) -> None:
        self.loop.stop(soon())
        self.pictures.stop(soon())
        if kind is None:
            eventually(lambda: not any(self.leases.values()), "all leases released")
        self.held.__exit__(kind, *exc_info)
        assert self.deaths == []

    @property
    def leases(self) -> Mapping[LeaseKind, int]:
        return self.manager.status().leases

    def routes(self) -> list[Route]:
        return [*page_routes(), *self.media.routes(), *self.api.routes()]

    def snapshot(self, query: str = "", method: str = "GET") -> Response:
        answer = self.media.snapshot(make_request(f"/snapshot.jpg?{query}", method=method))
        assert isinstance(answer, Response)
        return answer


def make_controls(manager: CameraManager | None = None, folder: Path | None = None) -> ControlManager:
    """Controls that are saved in `folder`; without a manager, those of a disabled camera."""
    return ControlManager(
        manager, StreamRequest(*SIZE, 20.0), Store(folder, "cam0"), BackgroundWriter(list[str]().append, retry_s=0.05)
    )


def make_presets(controls: ControlManager, folder: Path | None = None) -> PresetsApi:
    """Presets that are saved in `folder`."""
    library = PresetLibrary(
        controls, PresetStore(folder, "presets"), BackgroundWriter(list[str]().append, retry_s=0.05)
    )
    return PresetsApi(library, "Front door")


def make_camera(
    pixel_format: PixelFormat = "YUV420", controls: Mapping[str, tuple[int, int, int]] | None = None
) -> FakeCamera:
    camera = FakeCamera(controls)
    camera.config = StreamConfig(*SIZE, pixel_format, SENSOR_SIZE, controls or {}, {"Model": "imx708"})
    return camera


def size_of(response: Response) -> Size:
    return jpeg.size_of(response.body)


def taken_at_s(response: Response) -> float:
    """When it was exposed, on the monotonic clock; both headers agree."""
    timestamp_s = float(response.headers["X-Timestamp"])
    assert parsedate_to_datetime(response.headers["Last-Modified"]).timestamp() == int(timestamp_s)
    return timestamp_s - time.time() + time.monotonic()
