"""The camera that is checked, in a session as the portal's, and what is observed of its frames.

`CheckedCamera` is used by one check at a time, on the check's thread; the main thread closes it. `FrameObserver` is
filled by the camera's threads.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from softcam.camera.base import Remote, SessionListener, StreamConfig
from softcam.camera.session.manager import CameraManager, Lease
from softcam.controls.controller import ControlManager
from softcam.errors import CameraError, NoPicture
from softcam.h264.encoder import VideoEncoder
from softcam.runtime.deadline import Deadline

_MAX_FRAMES: Final = 10_000  # that are remembered: more than any check waits for
_CLOSE_TIMEOUT_S: Final = 15.0  # above the session's own limit
_ENCODER_TIMEOUT_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class SeenFrame:
    """When a frame arrived and when its exposure began, on the monotonic clock, and its metadata."""

    arrived_s: float
    began_s: float
    metadata: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class CheckedParts:
    """What is checked; nothing is started yet. `has_hardware_encoder` may take a second, for it imports Picamera2."""

    manager: CameraManager
    controls: ControlManager
    video: VideoEncoder
    has_hardware_encoder: Callable[[], bool]


class SourceUnavailable(CameraError):
    """The source that the camera's images come from is disconnected."""


class FrameObserver(SessionListener):
    """Remembers the frames since the last `restart`, and counts how often the camera was closed."""

    def __init__(self, manager: CameraManager) -> None:
        self._manager = manager
        self._changed = threading.Condition(threading.Lock())  # guards the fields below
        self._frames: list[SeenFrame] = []
        self._closed = 0
        self._has_ended = False
        manager.subscribe(self)
        manager.frames.subscribe(self._on_frame)

    def restart(self) -> None:
        """Forget the frames so far."""
        with self._changed:
            self._frames = []

    @property
    def frames(self) -> Sequence[SeenFrame]:
        with self._changed:
            return self._frames[:]

    @property
    def closed(self) -> int:
        with self._changed:
            return self._closed

    def wait_for_frames(self, is_enough: Callable[[Sequence[SeenFrame]], bool], deadline: Deadline) -> bool:
        """Wait until the frames since `restart` are enough; False at the deadline, or when the session has ended."""
        with self._changed:
            self._changed.wait_for(lambda: self._has_ended or is_enough(self._frames), deadline.remaining_s)
            return is_enough(self._frames)

    def wait_closed(self, count: int, deadline: Deadline) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._has_ended or self._closed >= count, deadline.remaining_s)
            return self._closed >= count

    def end(self) -> None:
        """The session has ended: nothing is waited for any more."""
        with self._changed:
            self._has_ended = True
            self._changed.notify_all()

    def on_closed(self) -> None:
        with self._changed:
            self._closed += 1
            self._changed.notify_all()

    def _on_frame(self) -> None:
        """A new frame is in the slot, on the camera's frame thread."""
        arrived_s = time.monotonic()
        frame = self._manager.frames.held()
        if frame is None:
            return
        seen = SeenFrame(arrived_s, frame.began_s, frame.metadata)
        frame.release()
        with self._changed:
            if len(self._frames) < _MAX_FRAMES:
                self._frames.append(seen)
            self._changed.notify_all()


class CheckedCamera:
    """The session of the camera, once it was connected."""

    def __init__(self, connect: Callable[[Callable[[CameraError], None]], CheckedParts] | None) -> None:
        """`connect` finds the camera and opens nothing; its argument is called if the session fails. None: disabled."""
        self._connect = connect
        self._changed = threading.Lock()  # guards the fields below
        self._parts: CheckedParts | None = None
        self._observer: FrameObserver | None = None
        self._is_closing = False
        self._failure: CameraError | None = None
        # Of the thread of the current check:
        self._lease: Lease | None = None
        self._has_streamed = False

    @property
    def is_enabled(self) -> bool:
        return self._connect is not None

    @property
    def error(self) -> str | None:
        """Why there is no open camera to check; None if there is one."""
        if self._connect is None:
            return "the camera is disabled in the settings"
        # Known here before it is reported to `_on_failure`.
        if self._parts is not None and (failure := self._parts.manager.health_error()) is not None:
            return failure
        return None if self._has_streamed else "the camera delivers no frames"

    @property
    def parts(self) -> CheckedParts:
        if self._parts is None:
            raise CameraError("the camera is not connected")
        return self._parts

    @property
    def manager(self) -> CameraManager:
        return self.parts.manager

    @property
    def observer(self) -> FrameObserver:
        if self._observer is None:
            raise CameraError("the camera is not connected")
        return self._observer

    @property
    def config(self) -> StreamConfig:
        """The configuration of the open camera."""
        config = self.manager.status().config
        if config is None:
            raise CameraError("the camera is closed")
        return config

    def connect(self) -> None:
        """Find the camera and start its session. Raises PortalError."""
        if self._connect is None:
            raise CameraError("the camera is disabled in the settings")
        parts = self._connect(self._on_failure)
        with self._changed:
            if self._is_closing:  # the diagnosis ended meanwhile
                raise CameraError("the diagnosis has ended")
            self._parts, self._observer = parts, FrameObserver(parts.manager)
            parts.manager.start()

    def open(self, deadline: Deadline) -> float:
        """Open the camera for a stream; returns after how many seconds it delivered a frame. Raises CameraError."""
        self.observer.restart()
        began_s = time.monotonic()
        self._lease = self.manager.lease("stream")
        self.manager.wait_ready(deadline.at_s)
        self._raise_if_disconnected()
        if not self.observer.wait_for_frames(bool, deadline):
            self._raise_failure()
            raise NoPicture("the camera was opened, but delivered no frame in time")
        self._has_streamed = True
        return self.observer.frames[0].arrived_s - began_s

    def wait_frames(self, count: int, timeout_s: float) -> Sequence[SeenFrame]:
        """The next `count` frames. Raises CameraError if they do not arrive in time."""
        self.observer.restart()
        return self.wait_until(lambda frames: len(frames) >= count, Deadline.after(timeout_s + self.manager.pipeline_s))

    def wait_until(self, is_enough: Callable[[Sequence[SeenFrame]], bool], deadline: Deadline) -> Sequence[SeenFrame]:
        """The frames since the last restart of the observer, once they are enough. Raises CameraError."""
        if not self.observer.wait_for_frames(is_enough, deadline):
            self._raise_failure()
            raise NoPicture(f"only {len(self.observer.frames)} frames arrived in time")
        return self.observer.frames

    def release(self) -> bool:
        """Release the camera and wait until it is closed; False if it was not closed in time. Raises CameraError."""
        lease, self._lease = self._lease, None
        if lease is None:
            return True
        closed = self.observer.closed
        lease.release()
        if self.observer.wait_closed(closed + 1, Deadline.after(_CLOSE_TIMEOUT_S)):
            return True
        self._raise_failure()
        return False

    def close(self, deadline: Deadline) -> bool:
        """End the session; False if the camera is still open at the deadline. Called by the main thread."""
        with self._changed:
            self._is_closing = True
            parts = self._parts
        if parts is None:
            return True
        parts.video.stop(deadline.within(_ENCODER_TIMEOUT_S))
        parts.manager.stop()
        return parts.manager.wait_until_closed(deadline)

    def _on_failure(self, error: CameraError) -> None:
        """The session has ended, on any thread."""
        self._failure = error
        self.observer.end()

    def _raise_if_disconnected(self) -> None:
        """A source of another program or machine would be waited for until it is back."""
        camera = self.manager.camera
        reason = camera.disconnect_reason if isinstance(camera, Remote) else None
        if reason is not None:
            raise SourceUnavailable(f"no image from {reason}")

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise type(self._failure)(str(self._failure)) from self._failure
