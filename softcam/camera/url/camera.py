"""A camera that another program owns: a network stream, a file that restarts at its end, a V4L2 device.

It is opened like any other camera, and its frames are no larger than requested. A disconnected source never ends the
process: while the camera is open, the reader reconnects, and `disconnect_reason` has the reason. Only a file or a
device that does not exist is missing. There are no controls. `reader` has the thread; `http_source` reads JPEGs over
HTTP, `unixfd` the video of a GStreamer pipeline, and `source` everything else, with PyAV.
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
from softcam.camera.url.http_source import open_source
from softcam.camera.url.reader import ImageSource, Reader
from softcam.camera.url.source import READ_TIMEOUT_S, path_of, require_pyav, socket_path_of
from softcam.camera.url.unixfd import UnixFdSource
from softcam.errors import CameraError, CameraMissing, NotSupported
from softcam.imaging.frame import Frame
from softcam.runtime.redact import display_url

log = logging.getLogger(__name__)

# For the first frame, so that the size is known when `open` returns. RTSP cameras send a keyframe every one or two
# seconds; a source that needs longer is opened without it.
_FIRST_FRAME_TIMEOUT_S: Final = 5.0
_STILL_TIMEOUT_S: Final = 5.0
_STOP_TIMEOUT_S: Final = 0.5  # a reader that is blocked in FFmpeg or on a socket ends later, by itself


class UrlCamera:
    """Implements `softcam.camera.base.Camera` and `softcam.camera.base.Remote`."""

    backend = "url"
    model = None

    def __init__(
        self,
        address: str,
        request: StreamRequest,
        on_crash: Callable[[str], None],
        *,
        read_timeout_s: float = READ_TIMEOUT_S,
    ) -> None:
        """Open nothing. Raises CameraMissing without PyAV."""
        require_pyav()
        self._address = address
        self._read_timeout_s = read_timeout_s
        self._path = path_of(address)
        self._socket_path = socket_path_of(address)  # of a GStreamer pipeline, which may create it later
        self._request = request
        self._on_crash = on_crash
        self.name = display_url(address)
        self._on_disconnect: Callable[[], None] = lambda: None
        self._is_cancelled = False  # set once, by any thread
        # Written by the camera thread, read by any: references, replaced as a whole.
        self._reader: Reader | None = None
        self._last_config: StreamConfig | None = None  # of the last opening with a frame

    @property
    def disconnect_reason(self) -> str | None:
        reader = self._reader
        return None if reader is None else reader.disconnect_reason

    @property
    def config(self) -> StreamConfig:
        reader = self._reader
        return self._expected_config() if reader is None else reader.config

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
        """False only for a file or a device that does not exist: a network source may appear at any time."""
        return self._path is None or self._path.exists()

    def open(self, on_frame: OnFrame, on_configured: OnConfigured = ignore_config) -> StreamConfig:
        """See `Camera.open`; a disconnected source is opened, too, and `disconnect_reason` has the reason."""
        if self._reader is not None:
            raise CameraError(f"camera {self.name} is already open")
        if self._request.hflip or self._request.vflip:
            raise NotSupported(f"camera {self.name} cannot mirror or rotate its image")
        if self._request.hdr == "sensor":
            raise NotSupported(f"camera {self.name} has no sensor HDR")
        if not self.is_present():
            raise CameraMissing(f"camera {self.name} is missing")
        self._start(on_frame)
        reader = self._open_reader()
        reader.wait_first_frame(0.0 if self._is_cancelled else _FIRST_FRAME_TIMEOUT_S)
        try:
            on_configured(reader.config)
        except CameraError:
            self.close()
            raise
        return reader.config

    def restart(self) -> None:
        """Reconnect to the source; `disconnect_reason` is set until the first frame."""
        reader = self._open_reader()
        self.close()
        self._start(reader.on_frame)

    def still(self, size: tuple[int, int] | None, _controls_for: StillControls = no_controls) -> Frame:
        """The source's next image, in its size or scaled down to cover `size`; the stream is not interrupted."""
        return self._open_reader().still(size, _STILL_TIMEOUT_S)

    def raw_still(self) -> RawStill:
        raise NotSupported(f"camera {self.name} has no raw images")

    def set_controls(self, controls: Mapping[str, Any]) -> None:
        if self._reader is not None and controls:
            raise NotSupported(f"camera {self.name} has no controls: {', '.join(sorted(controls))}")

    def close(self) -> None:
        reader = self._reader
        if reader is None:
            return
        reader.stop(_STOP_TIMEOUT_S)
        if reader.has_delivered:
            self._last_config = reader.config
        self._reader = None

    def _start(self, on_frame: OnFrame) -> None:
        request = self._request
        config = self._expected_config()
        open_address = partial(self._open_source, request)
        self._reader = Reader(self.name, open_address, request, on_frame, config, lambda: self._on_disconnect())
        try:
            self._reader.start(self._on_crash)
        except RuntimeError as error:  # no memory, or too many threads
            self._reader = None
            raise CameraError(f"camera {self.name} cannot be read: {error}") from error

    def _open_source(self, request: StreamRequest, pause: Callable[[float], bool]) -> ImageSource:
        if self._socket_path is not None:
            return UnixFdSource(self._socket_path, self._read_timeout_s)
        return open_source(self._address, request, self._read_timeout_s, pause)

    def _open_reader(self) -> Reader:
        if self._reader is None:
            raise CameraError(f"camera {self.name} is closed")
        return self._reader

    def _expected_config(self) -> StreamConfig:
        """The configuration of the last opening, or else the requested one."""
        size = (self._request.width, self._request.height)
        return self._last_config or StreamConfig(*size, "YUV420", size, can_flip=False)
