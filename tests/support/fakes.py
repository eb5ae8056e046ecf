"""A fake camera whose calls a test can block, fail and count, and a camera session around it.

`FakeCamera` implements `softcam.camera.base.Camera` and has no thread: the thread that calls `emit` delivers a frame.
It checks the protocol itself: what a session must never do (open twice, use a closed camera) is added to `faults`.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self

import numpy as np

from softcam.camera.base import (
    ControlRange,
    OnConfigured,
    OnFrame,
    RawStill,
    StillControls,
    StreamConfig,
    StreamRequest,
    ignore_config,
    no_controls,
)
from softcam.camera.session.decision import SessionSnapshot, Step, Wait, decide
from softcam.camera.session.manager import CameraManager, Lease, SessionLimits, State
from softcam.camera.session.state import SessionState
from softcam.errors import CameraError
from softcam.imaging.frame import Frame
from tests.support.background import Flow, eventually, soon
from tests.support.timeouts import PATIENCE_S

SIZE = (32, 16)
SENSOR_SIZE = (64, 32)
FRAME_S = 0.01
AUTOFOCUS: Mapping[str, ControlRange] = {"AfMode": (0, 2, 0), "AfTrigger": (0, 1, 0)}
STEADY = {"ExposureTime": 1000, "AnalogueGain": 1.0, "FrameDuration": 2000}


def make_frame(
    metadata: Mapping[str, Any] | None = None,
    *,
    size: tuple[int, int] = SIZE,
    began_s: float | None = None,
    on_release: Callable[[], None] | None = None,
) -> Frame:
    """A grey YUV420 frame."""
    width, height = size
    luma = np.full((height, width), 128, np.uint8)
    chroma = np.full(((height + 1) // 2, (width + 1) // 2), 128, np.uint8)
    return Frame(
        (luma, chroma, chroma),
        "YUV420",
        width,
        height,
        metadata={} if metadata is None else metadata,
        began_s=time.monotonic() if began_s is None else began_s,
        on_release=on_release,
    )


class FakeCamera:
    """A camera that a test controls."""

    backend = "fake"
    name = "Fake camera"
    model: str | None = "imx708"

    def __init__(self, controls: Mapping[str, ControlRange] | None = None) -> None:
        self.config = StreamConfig(*SIZE, "YUV420", SENSOR_SIZE, controls or {})
        self._changed = threading.Condition()  # guards everything below
        self.is_there = True
        self.is_open = False
        self.calls: list[str] = []
        self.sent: list[Mapping[str, Any]] = []
        self.still_sent: list[Mapping[str, Any]] = []  # for each still only
        self.control_error: CameraError | None = None
        self.faults: list[str] = []
        self.frames_out = 0
        self.stills_out = 0
        self.opens = 0
        self._on_frame: OnFrame | None = None
        self._blocked: set[str] = set()
        self._inside: list[str] = []
        self._errors: dict[str, list[BaseException]] = {}

    # For tests

    def block(self, call: str) -> None:
        """From now on `call` (open, restart, still, close) blocks inside the camera, until `unblock`."""
        with self._changed:
            self._blocked.add(call)

    def unblock(self, *calls: str) -> None:
        """Let these calls continue, or all calls."""
        with self._changed:
            self._blocked.difference_update(calls or tuple(self._blocked))
            self._changed.notify_all()

    def fail_next(self, call: str, error: BaseException) -> None:
        """The next `call` raises `error`."""
        with self._changed:
            self._errors.setdefault(call, []).append(error)

    def wait_inside(self, call: str) -> None:
        """Wait until a thread is in `call`."""
        with self._changed:
            assert self._changed.wait_for(lambda: call in self._inside, PATIENCE_S), f"nobody called {call}"

    def count(self, call: str) -> int:
        with self._changed:
            return self.calls.count(call)

    @property
    def callback(self) -> OnFrame | None:
        """That of the present opening; a test may keep it, to deliver a frame too late. None while closed."""
        with self._changed:
            return self._on_frame

    @property
    def on_frame(self) -> OnFrame:
        """The callback of a camera that is open."""
        callback = self.callback
        assert callback is not None, "the camera is closed"
        return callback

    def is_blocked(self) -> bool:
        """Whether a thread is in a call that blocks."""
        with self._changed:
            return not self._blocked.isdisjoint(self._inside)

    def emit(
        self, metadata: Mapping[str, Any] | None = None, *, to: OnFrame | None = None, began_s: float | None = None
    ) -> Frame:
        """Deliver one frame on this thread, as a camera's own thread would; it may be released by the return."""
        with self._changed:
            on_frame = to or self.on_frame
            self.frames_out += 1
        frame = make_frame(
            STEADY if metadata is None else metadata, began_s=began_s, on_release=self._on_frame_released
        )
        on_frame(frame)
        return frame

    def emit_if_open(self, metadata: Mapping[str, Any] | None = None) -> None:
        with self._changed:
            is_streaming = self._on_frame is not None and not self._inside
        if is_streaming:
            self.emit(metadata)

    @contextmanager
    def flowing(self, metadata: Mapping[str, Any] | None = None) -> Iterator[None]:
        """Deliver frames from another thread while the camera is open and no call is inside it."""
        is_over = threading.Event()

        def flow() -> None:
            while not is_over.wait(FRAME_S):
                self.emit_if_open(metadata)

        with Flow(flow, is_over):
            yield

    # The protocol

    def is_present(self) -> bool:
        return self.is_there

    def prepare(self, request: StreamRequest) -> None:
        """The test sets `config`."""

    def open(self, on_frame: OnFrame, on_configured: OnConfigured = ignore_config) -> StreamConfig:
        with self._changed:
            if self.is_open:
                self.faults.append("opened twice")
            self._on_frame = on_frame  # frames may arrive before open() returns
        on_configured(self.config)
        try:
            self.enter("open")
        except BaseException:
            with self._changed:
                self._on_frame = None
            raise
        with self._changed:
            self.is_open = True
            self.opens += 1
        return self.config

    def restart(self) -> None:
        self._check_open("restart")
        self.enter("restart")

    def still(self, size: tuple[int, int] | None, controls_for: StillControls = no_controls) -> Frame:
        self._check_open("still")
        self.still_sent.append(controls_for(self.config.controls, size or self.config.sensor_size))
        self.enter("still")
        with self._changed:
            self.stills_out += 1
        return make_frame(size=size or self.config.sensor_size, on_release=self._on_still_released)

    def raw_still(self) -> RawStill:
        self._check_open("raw_still")
        self.enter("raw_still")
        return RawStill(b"a raw picture", time.time())

    def set_controls(self, controls: Mapping[str, Any]) -> None:
        if self.control_error is not None:
            raise self.control_error
        with self._changed:
            self.sent.append(dict(controls))

    def close(self) -> None:
        self.enter("close")
        with self._changed:
            self.is_open = False
            self._on_frame = None

    # Inside

    def enter(self, call: str) -> None:
        """A thread is in `call`: it is counted, blocks and fails as the test has asked for."""
        with self._changed:
            self.calls.append(call)
            self._inside.append(call)
            self._changed.notify_all()
            assert self._changed.wait_for(lambda: call not in self._blocked, PATIENCE_S), f"{call} was never unblocked"
            self._inside.remove(call)
            errors = self._errors.get(call)
            if errors:
                raise errors.pop(0)

    def _check_open(self, call: str) -> None:
        with self._changed:
            if not self.is_open:
                self.faults.append(f"{call} of a closed camera")

    def _on_frame_released(self) -> None:
        with self._changed:
            self.frames_out -= 1

    def _on_still_released(self) -> None:
        with self._changed:
            self.stills_out -= 1


def limited(call: str, limit_s: float) -> SessionLimits:
    """Limits of which that of one `call` into the camera is `limit_s`."""
    limits: Any = {f"{call}_s": limit_s}
    return SessionLimits(**limits)


class SessionRig:
    """A camera session of a `FakeCamera`; the end of the block stops it and checks that nothing is left."""

    def __init__(
        self,
        camera: FakeCamera | None = None,
        *,
        linger_s: float = 60.0,
        watchdog_timeout_s: float = 0.0,
        autofocus_timeout_s: float | None = None,
        limits: SessionLimits | None = None,
    ) -> None:
        self.camera = camera or FakeCamera()
        self.failures: list[CameraError] = []  # a test that expects one removes it
        self.session = SessionState(
            self.camera,
            linger_s=linger_s,
            watchdog_timeout_s=watchdog_timeout_s,
            on_failure=self.failures.append,
            limits=limits,
        )
        self.manager = CameraManager(
            self.session,
            autofocus_timeout_s=autofocus_timeout_s or 5.0,
            has_autofocus=autofocus_timeout_s is not None,
        )
        self.manager.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc_info: object) -> None:
        self.camera.unblock()
        self.manager.stop()
        has_ended = self.manager.wait_until_closed(soon())
        if kind is None:
            assert has_ended
            self.check_end()

    def check_end(self) -> None:
        assert self.camera.faults == []
        assert not self.camera.is_open
        assert self.camera.frames_out == 0
        assert self.camera.stills_out == 0
        assert self.failures == []

    @property
    def state(self) -> State:
        return self.manager.status().state

    def decision(self, later_s: float) -> Step | Wait:
        """What the camera thread would do if nothing happened for `later_s`."""
        with self.session.changed:
            return decide(SessionSnapshot.of(self.session), time.monotonic() + later_s)

    def end_still_pause(self) -> None:
        """As if the pause between two stills were over."""
        with self.session.changed:
            self.session.jobs.start_pause(-self.session.limits.still_pause_s, 0.0)
        self.session.wake()

    def pass_time(self, elapsed_s: float) -> None:
        """Move everything that the watchdog remembers into the past."""
        watchdog = self.session.watchdog
        with self.session.changed:
            due_from_s = watchdog.due_from_s
            watchdog.start_silence(watchdog.calm_at_s - watchdog.timeout_s - elapsed_s)
            watchdog.excuse_silence(due_from_s - elapsed_s)
            self.session.frame_rate.last_frame_s -= elapsed_s

    def fall_silent(self) -> None:
        """As if no frame had arrived for a second more than the watchdog allows."""
        self.pass_time(self.session.watchdog.timeout_s + self.session.frame_rate.pipeline_s + 1.0)
        self.session.wake()

    def end_linger(self) -> None:
        """As if the linger time were over."""
        with self.session.changed:
            lease = Lease("hold", lambda _: None)
            self.session.add_lease(lease)
            self.session.remove_lease(lease, -self.session.linger_s)
        self.session.wake()

    def stall(self) -> None:
        """Fall silent, and return when the stream was restarted."""
        restarts = self.camera.count("restart")
        self.fall_silent()
        eventually(lambda: self.camera.count("restart") > restarts, "a restart")
        eventually(lambda: isinstance(self.decision(0), Wait), "its end")

    def waiting_for_jobs(self) -> int:
        """How many threads wait for a job that was not started yet."""
        with self.session.changed:
            return self.session.jobs.waiting

    def wait_for(self, state: State) -> None:
        eventually(lambda: self.state is state, f"state {state}")

    def open(self) -> Lease:
        """A lease on an open camera that has delivered a frame."""
        lease = self.manager.lease("stream")
        self.wait_for(State.OPEN)
        self.camera.emit()
        return lease

    def take_failure(self) -> CameraError:
        """Remove and return the reported failure, which has to be the only one."""
        eventually(lambda: self.failures, "a failure")
        return self.failures.pop()
