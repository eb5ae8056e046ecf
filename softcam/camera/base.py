"""What the holder asks of a camera. No camera lives here, and no thread.

Every method is called by the holder's one camera thread, but `set_controls` and `is_present`, which any thread may
call. A call may take long or hang: the holder watches it from outside.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from softcam.frames import Frame, PixelFormat

OnFrame = Callable[[Frame], None]
ControlRange = tuple[Any, Any, Any]  # (minimum, maximum, default); the default may be None, as in Picamera2


@dataclass(frozen=True, slots=True)
class StreamWish:
    """What is asked of the camera; it may give something near."""

    width: int
    height: int
    fps: float


@dataclass(frozen=True, slots=True)
class StreamMode:
    """What the camera gives since it was opened: the negotiated main stream and what can be controlled.

    `controls` is `{libcamera name: (min, max, default)}`; `sensor_size` is (width, height) of the largest still.
    """

    width: int
    height: int
    pixel_format: PixelFormat
    sensor_size: tuple[int, int]
    controls: Mapping[str, ControlRange] = field(default_factory=dict)
    properties: Mapping[str, Any] = field(default_factory=dict)

    @property
    def has_autofocus(self) -> bool:
        """Only some cameras can focus: the Camera Module 3 can, the HQ camera and the v2 cannot."""
        return "AfMode" in self.controls


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

    def open(self, on_frame: OnFrame) -> StreamMode:
        """Open, configure and start; frames then reach `on_frame` from the camera's own thread.

        `on_frame` takes over one hold on each frame. Raises CameraMissing, CameraBusy or CameraError, and leaves
        nothing open behind when it does.
        """

    def restart(self) -> None:
        """Stop the stream and start it again without closing the camera. Raises CameraError."""

    def still(self, size: tuple[int, int] | None) -> Frame:
        """Pause the stream and take one picture of about `size`, None for the whole sensor; the stream then goes on.

        The frame is the caller's, and lies in memory of its own. Raises CameraError; the stream goes on all the same
        where it can.
        """

    def set_controls(self, controls: Mapping[str, Any]) -> None:
        """Send libcamera controls with the next frame; enumerations as plain integers. Does nothing while closed.

        Does not block, and may be called from within `on_frame`. Raises NotSupported for a control that is not in
        `StreamMode.controls`.
        """

    def close(self) -> None:
        """Stop and give the camera free; harmless when it is closed. No `on_frame` comes after it."""
