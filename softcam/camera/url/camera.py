"""A camera that another program owns: a stream of a server, a file that begins again at its end, a V4L2 device.

It is opened like every other, gives frames no larger than was wished, and never ends the portal by being away: while
somebody wants it, it is tried again and again, and `disconnect_reason` says why it is not there. Only a file or a
device that does not exist is missing. Nothing can be set. The thread is `url_reader`'s, PyAV is `url_source`'s.
"""

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from softcam.camera.base import (
    OnConfigured,
    OnFrame,
    RawStill,
    StillControls,
    StreamConfig,
    StreamRequest,
    ignore_config,
    no_controls,
)
from softcam.camera.url.reader import Reader, config_of
from softcam.camera.url.source import Source, path_of, require_pyav
from softcam.errors import CameraError, CameraMissing, NotSupported
from softcam.imaging.frame import Frame
from softcam.runtime.redact import display_url

log = logging.getLogger(__name__)

# For the first picture, so that its size is known when the camera is open. A camera of RTSP sends a keyframe every one
# or two seconds; who needs longer is shown when it comes.
_FIRST_LIMIT_S: Final = 5.0
_STILL_LIMIT_S: Final = 5.0
_STOP_WAIT_S: Final = 0.5  # a reader that is in FFmpeg ends later, by itself


class UrlCamera:
    """Implements `softcam.camera.base.Camera` and `softcam.camera.base.Remote`."""

    backend = "url"

    def __init__(self, address: str, request: StreamRequest) -> None:
        """Opens nothing. Raises CameraMissing where PyAV is not there."""
        require_pyav()
        self._address = address
        self._path = path_of(address)
        self._request = request
        self.name = display_url(address)
        self._on_disconnect: Callable[[], None] = _nothing
        self._is_cancelled = False  # a single value, never taken back
        # Written by the camera thread, read by any: references, replaced as a whole.
        self._reader: Reader | None = None
        self._known: StreamConfig | None = None  # of the last opening in which a picture came

    @property
    def disconnect_reason(self) -> str | None:
        reader = self._reader
        return None if reader is None else reader.disconnect_reason

    @property
    def config(self) -> StreamConfig:
        reader = self._reader
        return self._expected() if reader is None else reader.config

    def on_disconnect(self, callback: Callable[[], None]) -> None:
        self._on_disconnect = callback

    def cancel_open(self) -> None:
        self._is_cancelled = True
        reader = self._reader
        if reader is not None:
            reader.cancel_open()

    def prepare(self, request: StreamRequest) -> None:
        self._request = request

    def is_present(self) -> bool:
        """False only for a file or a device that does not exist: what is elsewhere may come at any time."""
        return self._path is None or self._path.exists()

    def open(self, on_frame: OnFrame, on_configured: OnConfigured = ignore_config) -> StreamConfig:
        """See `Camera.open`; where the source is away it is open all the same, and `disconnect_reason` says so."""
        if self._reader is not None:
            raise CameraError(f"camera {self.name} is open already")
        if self._request.hflip or self._request.vflip:
            raise NotSupported(f"camera {self.name} cannot mirror or turn its picture")
        if self._request.hdr == "sensor":
            raise NotSupported(f"camera {self.name} has no HDR of its sensor")
        if not self.is_present():
            raise CameraMissing(f"camera {self.name} is missing")
        self._start(on_frame)
        reader = self._opened()
        reader.wait_first(0.0 if self._is_cancelled else _FIRST_LIMIT_S)
        try:
            on_configured(reader.config)
        except CameraError:
            self.close()
            raise
        return reader.config

    def restart(self) -> None:
        """Leave the source and connect anew; `disconnect_reason` tells until a frame has come."""
        reader = self._opened()
        self._stop()
        self._start(reader.on_frame)

    def still(self, size: tuple[int, int] | None, _controls_for: StillControls = no_controls) -> Frame:
        """The source's next picture, of its own size or so small that it still covers `size`; the stream goes on."""
        return self._opened().still(size, _STILL_LIMIT_S)

    def raw_still(self) -> RawStill:
        raise NotSupported(f"camera {self.name} gives no raw pictures")

    def set_controls(self, controls: Mapping[str, Any]) -> None:
        if self._reader is not None and controls:
            raise NotSupported(f"camera {self.name} takes no controls: {', '.join(sorted(controls))}")

    def close(self) -> None:
        self._stop()

    def _start(self, on_frame: OnFrame) -> None:
        request = self._request
        open_source = partial(Source, self._address, request)
        self._reader = Reader(self.name, open_source, request, on_frame, self._expected(), self._tell)
        try:
            self._reader.start()
        except RuntimeError as error:  # no memory, or too many threads
            self._reader = None
            raise CameraError(f"camera {self.name} cannot be read: {error}") from error

    def _stop(self) -> None:
        reader = self._reader
        if reader is None:
            return
        reader.stop(_STOP_WAIT_S)
        if reader.has_given:
            self._known = reader.config
        self._reader = None

    def _opened(self) -> Reader:
        if self._reader is None:
            raise CameraError(f"camera {self.name} is closed")
        return self._reader

    def _expected(self) -> StreamConfig:
        """What was there before; where nothing was, what is wished."""
        known, request = self._known, self._request
        if known is None:
            return config_of(request.width, request.height, "YUV420", (request.width, request.height))
        return known

    def _tell(self) -> None:
        self._on_disconnect()


def _nothing() -> None:
    """Nobody wants to be told."""
