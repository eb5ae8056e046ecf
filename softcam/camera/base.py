"""What the holder asks of a camera. No camera lives here, and no thread.

Every method is called by the holder's one camera thread, but `set_controls` and `is_present`, which any thread may
call. A call may take long or hang: the holder watches it from outside.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

from softcam.errors import CameraError
from softcam.imaging.frame import Frame, PixelFormat

OnFrame = Callable[[Frame], None]
HdrMode = Literal["off", "auto", "sensor"]  # auto takes the sensor's HDR where there is one
ControlRange = tuple[Any, Any, Any]  # (minimum, maximum, default); the default may be None, as in Picamera2
# What a still alone is told, by the ranges of its own mode, and its size (width, height) in pixels.
StillControls = Callable[[Mapping[str, ControlRange], tuple[int, int]], Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class StreamRequest:
    """What is asked of the camera; it may give something near."""

    width: int
    height: int
    fps: float
    hflip: bool = False
    vflip: bool = False
    hdr: HdrMode = "off"


@dataclass(frozen=True, slots=True)
class StreamConfig:
    """What the camera gives since it was opened: the negotiated main stream and what can be controlled.

    `controls` is `{libcamera name: (min, max, default)}`; `sensor_size` is (width, height) of the largest still.
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
    has_hdr_modes: bool = False  # libcamera lists HdrMode everywhere; only a Pi 5's processor has them all

    @property
    def has_autofocus(self) -> bool:
        """Only some cameras can focus: the Camera Module 3 can, the HQ camera and the v2 cannot."""
        return "AfMode" in self.controls


OnConfigured = Callable[[StreamConfig], None]


def nothing_to_tell(_mode: StreamConfig) -> None:
    """An `OnConfigured` of who wants nothing."""


def no_controls(_ranges: Mapping[str, ControlRange], _size: tuple[int, int]) -> Mapping[str, Any]:
    """The `StillControls` of a still like any other."""
    return {}


@dataclass(frozen=True, slots=True)
class RawPicture:
    """A DNG file, and when its exposure began, in Unix time."""

    dng: bytes
    timestamp_s: float


class SessionListener(Protocol):
    """Observer of a camera session; see `CameraManager.subscribe`.

    The camera thread calls everything except `on_frame`. No lock of the session is held meanwhile.
    """

    def on_opening(self) -> None:
        """The camera is about to be opened; the listener may call `Camera.prepare`."""

    def on_configured(self, config: StreamConfig) -> None:
        """The camera is configured and about to start; controls sent now apply from its first frame.

        If the start fails, `on_closing` and then `on_open_failed` follow.
        """

    def on_open_failed(self, error: CameraError) -> bool:
        """The camera failed to open. Returns True if the listener reverted something, so that a retry makes sense."""

    def on_stall(self) -> None:
        """The camera delivered no frames for too long and is about to be reopened, or was closed because of that."""

    def on_frame(self, metadata: Mapping[str, Any], *, is_settled: bool) -> None:
        """Called for each frame on the camera's frame thread; must be quick."""

    def on_closing(self) -> None:
        """The camera is about to be closed, also for a reopening, or failed to start."""

    def on_closed(self) -> None:
        """The camera was closed because it has no leases left; not called for a reopening."""


class NullListener:
    """A `SessionListener` that ignores every event; base class for listeners of a few events."""

    def on_opening(self) -> None: ...

    def on_configured(self, config: StreamConfig) -> None: ...

    def on_open_failed(self, error: CameraError) -> bool:  # noqa: ARG002 - the protocol's signature
        return False

    def on_stall(self) -> None: ...

    def on_frame(self, metadata: Mapping[str, Any], *, is_settled: bool) -> None: ...

    def on_closing(self) -> None: ...

    def on_closed(self) -> None: ...


class Camera(Protocol):
    """One camera, closed at first; `open` and `close` may alternate for as long as the process lives."""

    @property
    def backend(self) -> str:
        """The kind, as the status says it: `picamera2`, `pattern`."""

    @property
    def name(self) -> str:
        """For people: the model and where it is, in one line."""

    def is_present(self) -> bool:
        """Whether the camera is there; opens nothing."""

    def prepare(self, wish: StreamRequest) -> None:
        """What counts from the next `open` on."""

    def open(self, on_frame: OnFrame, on_configured: OnConfigured = nothing_to_tell) -> StreamConfig:
        """Open, configure and start; frames then reach `on_frame` from the camera's own thread.

        `on_configured` is told the mode before the start, and may `set_controls`. `on_frame` takes over one hold on
        each frame. Raises CameraMissing, CameraBusy or CameraError, NotSupported for a wish that it cannot fulfil, and
        leaves nothing open behind when it does.
        """

    def restart(self) -> None:
        """Stop the stream and start it again without closing the camera. Raises CameraError."""

    def still(self, size: tuple[int, int] | None, controls_for: StillControls = no_controls) -> Frame:
        """Pause the stream and take one picture of about `size`, None for the whole sensor; the stream then goes on.

        What `controls_for` gives counts for this picture alone; it is asked once the still is configured. The frame is
        the caller's, and lies in memory of its own. Raises CameraError; the stream goes on all the same where it can.
        """

    def raw_still(self) -> RawPicture:
        """As `still`, of the whole sensor before any processing. Raises NotSupported where it has no such picture."""

    def set_controls(self, controls: Mapping[str, Any]) -> None:
        """Send libcamera controls with the next frame; enumerations as plain integers. Does nothing while closed.

        Does not block, and may be called from within `on_frame`. Raises NotSupported for a control that is not in
        `StreamConfig.controls`.
        """

    def close(self) -> None:
        """Stop and give the camera free; harmless when it is closed. No `on_frame` comes after it."""


@runtime_checkable
class Remote(Protocol):
    """Any thread may ask."""

    @property
    def disconnect_reason(self) -> str | None:
        """Why there are no frames now, in a line for people and without secrets; None while they come."""

    @property
    def mode(self) -> StreamConfig:
        """As `open` gave it, but for what has changed since; replaced before the first frame that differs."""

    def give_up(self) -> None:
        """The portal ends: an `open` that waits for a picture waits no longer."""

    def on_disconnect(self, told: Callable[[], None]) -> None:
        """`told` is called whenever it goes, on the camera's own thread."""
