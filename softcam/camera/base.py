"""The protocol that every camera implements, and the values that it exchanges with the camera session.

The session's one camera thread calls every method, except `set_controls` and `is_present`, which any thread may call.
A call may take long or hang: the session monitors it from another thread. Nothing here starts a thread.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

from softcam.camera.sensor_modes import FovMode, SensorMode, SensorModes
from softcam.errors import CameraError
from softcam.imaging.frame import Frame, PixelFormat

OnFrame = Callable[[Frame], None]
HdrMode = Literal["off", "auto", "sensor"]  # auto uses the sensor's HDR if it has one
ControlRange = tuple[Any, Any, Any]  # (minimum, maximum, default); the default may be None, as in Picamera2
# Returns the controls of one still, from the ranges of its configuration and its size (width, height) in pixels.
StillControls = Callable[[Mapping[str, ControlRange], tuple[int, int]], Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class StreamRequest:
    """The requested stream; the camera may negotiate a similar one."""

    width: int
    height: int
    fps: float
    hflip: bool = False
    vflip: bool = False
    hdr: HdrMode = "off"
    fov: FovMode = "scale"


@dataclass(frozen=True, slots=True)
class StreamConfig:
    """The negotiated main stream of an open camera, and its capabilities.

    `controls` is `{libcamera name: (min, max, default)}`; `sensor_size` is (width, height) of the largest still.
    `sensor_modes` are the sensor's modes, and `sensor_mode` is the current one; None for a camera without modes.
    """

    width: int
    height: int
    pixel_format: PixelFormat
    sensor_size: tuple[int, int]
    controls: Mapping[str, ControlRange] = field(default_factory=dict)
    properties: Mapping[str, Any] = field(default_factory=dict)
    can_flip: bool = True
    has_sensor_hdr: bool = False
    has_raw: bool = False
    has_hdr_modes: bool = False  # libcamera lists HdrMode on every Pi; only a Pi 5's image processor supports all modes
    sensor_modes: SensorModes | None = None
    sensor_mode: SensorMode | None = None

    @property
    def has_autofocus(self) -> bool:
        """Whether the camera can focus: the Camera Module 3 can, the HQ camera and the Camera Module 2 cannot."""
        return "AfMode" in self.controls


OnConfigured = Callable[[StreamConfig], None]


def ignore_config(_config: StreamConfig) -> None:
    """An `OnConfigured` without effect."""


def no_controls(_ranges: Mapping[str, ControlRange], _size: tuple[int, int]) -> Mapping[str, Any]:
    """The `StillControls` of a still without separate controls."""
    return {}


@dataclass(frozen=True, slots=True)
class RawStill:
    """A DNG file and the Unix time at which its exposure began."""

    dng: bytes
    timestamp_s: float


class SessionListener:
    """Observer of a camera session, see `CameraManager.subscribe`; by itself it ignores every event.

    The camera thread calls everything except `on_frame`. No lock of the session is held meanwhile.
    """

    def on_opening(self) -> None:
        """The camera is about to be opened; the listener may call `Camera.prepare`."""

    def on_configured(self, config: StreamConfig) -> None:
        """The camera is configured and about to start; controls sent now apply from its first frame.

        If the start fails, `on_closing` and then `on_open_failed` follow.
        """

    def on_open_failed(self, error: CameraError) -> bool:  # noqa: ARG002 - for subclasses
        """The camera failed to open. Returns True if the listener reverted something, so that a retry makes sense."""
        return False

    def on_stall(self) -> None:
        """The camera delivered no frames for too long and is about to be reopened, or was closed because of that."""

    def on_frame(self, metadata: Mapping[str, Any], *, is_settled: bool) -> None:
        """Called for each frame on the camera's frame thread; must be quick."""

    def on_closing(self) -> None:
        """The camera is about to be closed, also for a reopening, or failed to start."""

    def on_closed(self) -> None:
        """The camera was closed because it has no leases left; not called for a reopening."""


class Camera(Protocol):
    """One camera, initially closed; it may be opened and closed any number of times."""

    @property
    def backend(self) -> str:
        """The kind of camera for the status: `picamera2`, `pattern` or `url`."""

    @property
    def name(self) -> str:
        """The model and its location for people, in one line."""

    @property
    def model(self) -> str | None:
        """The model of the sensor, such as `imx708_wide`; None if it is unknown."""

    def is_present(self) -> bool:
        """Whether the camera is connected; opens nothing."""

    def prepare(self, request: StreamRequest) -> None:
        """Set the stream to request from the next `open` on."""

    def open(self, on_frame: OnFrame, on_configured: OnConfigured = ignore_config) -> StreamConfig:
        """Open, configure and start the camera, whose own thread then calls `on_frame` with each frame.

        `on_configured` is called with the configuration before the start, and may call `set_controls`. `on_frame` owns
        one hold on each frame. Raises CameraMissing, CameraBusy, CameraError, or NotSupported for a request that the
        camera cannot fulfil; the camera is then closed.
        """

    def restart(self) -> None:
        """Stop the stream and start it again without closing the camera. Raises CameraError."""

    def still(self, size: tuple[int, int] | None, controls_for: StillControls = no_controls) -> Frame:
        """Pause the stream, capture one frame of about `size`, None for the whole sensor, and resume the stream.

        `controls_for` is called once the still is configured, and the controls that it returns apply to this still
        only. The caller owns the frame, which uses memory outside of the camera's buffers. Raises CameraError; the
        stream is resumed even then if possible.
        """

    def raw_still(self) -> RawStill:
        """As `still`, the sensor's whole image before any processing. Raises NotSupported without raw images."""

    def set_controls(self, controls: Mapping[str, Any]) -> None:
        """Send libcamera controls with the next frame; enumerations as plain integers. No effect while closed.

        Does not block, and may be called from within `on_frame`. Raises NotSupported for a control that is not in
        `StreamConfig.controls`.
        """

    def close(self) -> None:
        """Stop and release the camera; no effect while closed. `on_frame` is not called afterwards."""


@runtime_checkable
class Remote(Protocol):
    """A camera that another program owns, and that stays open while it is disconnected. Any thread may call these."""

    @property
    def disconnect_reason(self) -> str | None:
        """Why there are no frames now, one line for people without secrets; None while connected."""

    @property
    def config(self) -> StreamConfig:
        """The current configuration, which may differ from that of `open`; updated before the first frame with it."""

    def cancel_open(self) -> None:
        """Let an `open` that waits for the first frame return at once: the process is exiting."""

    def on_disconnect(self, callback: Callable[[], None]) -> None:
        """Register the callback that the camera's own thread calls on each disconnect; a later one replaces it."""
