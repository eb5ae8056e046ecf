"""Opens the camera while somebody holds a lease on it, closes it when nobody has for a while, and brings it back.

One thread, `camera`, makes every call that may block or hang (open, restart, still, close); everyone else takes a
lease and waits for frames. While the camera is closed the thread sleeps without a timeout.

    CLOSED -> OPENING -> OPEN <-> LINGERING -> CLOSING -> CLOSED
                          |^
                       RECOVERING        MISSING (the end: a fresh process starts when the camera is back)

When no frame comes while somebody watches, the stream is restarted; when that does not help, the camera is closed and
opened again; when that does not help either, or a call hangs, the trouble is told to `on_failure`, once, and the
process is expected to end: only a fresh one can free a camera that hangs in the kernel (picamera2 #1264, #1065).
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import Any, Final, Literal, Self

from softcam.camera.base import Camera, Desk, IdleDesk, StreamMode
from softcam.camera.focus import Focus
from softcam.camera.pace import Pace
from softcam.controls.settling import Settling
from softcam.errors import CameraBusy, CameraError, CameraMissing, CameraStuck, NoPicture
from softcam.frames import Frame, NewestFrame
from softcam.workers import start_worker

log = logging.getLogger(__name__)

LeaseKind = Literal["stream", "snapshot", "hold"]

_MOST_TRIES: Final = 2  # a restart of the stream, a reopening
_OVERSLEPT_S: Final = 1.5  # no load makes a thread that late, but SIGSTOP does
_FRESH_S: Final = 1.0  # a frame of this age, beyond what the camera takes for one, is no live picture
_STILL_PAUSE_S: Final = 0.5  # at least so long do streams run between two stills
_MOST_ORDERS: Final = 8  # different stills that may wait; one more would not be in time

# How long a call into the camera may take before the process is given up. Generous: a Pi Zero opens in some seconds,
# and libcamera's own timeouts lie below.
_OPEN_LIMIT_S: Final = 20.0
_RESTART_LIMIT_S: Final = 10.0
_STILL_LIMIT_S: Final = 15.0
_CLOSE_LIMIT_S: Final = 10.0


class State(StrEnum):
    """What the camera is doing, in the words of the status."""

    CLOSED = "closed"
    OPENING = "opening"
    OPEN = "open"
    LINGERING = "lingering"
    CLOSING = "closing"
    RECOVERING = "recovering"
    MISSING = "missing"


_RUNNING: Final = frozenset({State.OPEN, State.LINGERING, State.RECOVERING})


@dataclass(frozen=True, slots=True)
class HolderStatus:
    """A look at the holder; `fps` is measured, `mode` None while the camera is closed."""

    state: State
    mode: StreamMode | None
    fps: float | None
    leases: Mapping[LeaseKind, int]
    last_error: str | None
    restarts: int
    opens: int
    frames: int
    metadata: Mapping[str, Any] | None
    held_since: Mapping[LeaseKind, float] = field(default_factory=dict)  # Unix time of the oldest lease


@dataclass(slots=True, eq=False)
class Lease:
    """The right to an open camera; `release()` gives it back, any number of times."""

    kind: LeaseKind
    _give_back: Callable[["Lease"], None] = field(repr=False)
    since_s: float = field(default_factory=time.time)  # Unix time, for people

    def release(self) -> None:
        self._give_back(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.release()


@dataclass(slots=True, eq=False)
class _Order:
    """Something that the camera thread is to do between two frames, and threads wait for; the holder's lock guards it.

    Orders with the same `key` that have not begun are one. A frame that comes out is held once for each who waits.
    """

    key: tuple[Any, ...]
    run: Callable[[], Any]
    waiting: int = 0
    result: Any = None
    error: CameraError | None = None
    is_done: bool = False


class CameraHolder:
    """Owns one camera. `frames` holds its newest frame; `on_frame` is told after each one, on the camera's thread."""

    def __init__(
        self,
        camera: Camera,
        *,
        linger_s: float,
        watchdog_timeout_s: float,
        autofocus_timeout_s: float | None,
        on_failure: Callable[[CameraError], None],
    ) -> None:
        """`autofocus_timeout_s` None switches autofocus off, `watchdog_timeout_s` 0 the watchdog."""
        self.camera = camera
        self.frames = NewestFrame()
        self.focus = Focus(camera.set_controls, autofocus_timeout_s or 0.0)
        self._pace = Pace()
        self.desk: Desk = IdleDesk()  # set before the first lease
        self.on_frame: Callable[[], None] = _nothing
        self.on_closed: Callable[[], None] = _nothing  # on the camera thread, each time the camera was closed
        self._linger_s = linger_s
        self._watchdog_timeout_s = watchdog_timeout_s
        self._has_autofocus = autofocus_timeout_s is not None
        self._on_failure = on_failure

        self._changed = threading.Condition()  # guards the fields down to the next comment
        self._state = State.CLOSED
        self._leases: set[Lease] = set()
        self._linger_until_s = 0.0
        self._orders: deque[_Order] = deque()
        self._mode: StreamMode | None = None
        self._failure: CameraError | None = None  # the end, be it that the portal stops
        self._last_error: str | None = None
        self._restarts = 0
        self._opens = 0
        self._tries = 0  # what was already tried against the present silence: 1 restart, 2 reopen
        self._frames_due_from_s = 0.0  # the silence is counted from here, or from the last frame
        self._tried_s = 0.0  # when the camera was opened or brought back last
        self._orders_from_s = 0.0  # so that stills leave the streams their share of time

        # Without the lock: single values, read one frame late at worst. The camera thread alone writes these, while it
        # opens or when it looks for frames anew:
        self._epoch = 0  # frames of an earlier opening are given straight back
        self._is_deaf = False  # frames are not wanted for a moment
        # The camera's frame thread alone writes these, but for the beginning of an opening:
        self._has_lost_frame = False
        self._arrived_s = 0.0  # when the frame in the slot came
        self._settling: Settling | None = None
        self._is_settled = False
        self._awaits_frame = False  # set by the camera thread, taken back by the frame that it waits for

        self._thread = start_worker("camera", self._run, self._die)

    # --- what everyone may call -------------------------------------------------------------------------------

    def lease(self, kind: LeaseKind) -> Lease:
        """Ask for an open camera; returns at once. Raises the CameraError that ended the camera."""
        lease = Lease(kind, self._release)
        with self._changed:
            self._raise_failure()
            is_first_stream = kind == "stream" and not self._has_stream() and self._state in _RUNNING
            self._leases.add(lease)
            self._changed.notify_all()
        if is_first_stream:
            self.focus.stream_started()
        return lease

    def wait_ready(self, deadline_s: float, max_age_s: float = 0.0) -> StreamMode:
        """Wait until the open camera gives frames, or is being brought back; the caller holds a lease.

        `max_age_s` lets a frame of that age pass, where it is more than that of a live picture.

        Raises the CameraError that ended the camera, or NoPicture at the deadline (monotonic clock).
        """

        # A frame may come before open() has returned; only then is known what was negotiated.
        # A frame that is left over from before a silence would pass for live. Judged by when it came: a long exposure
        # began long ago.
        def is_live(_: Frame) -> bool:
            fresh_s = max(_FRESH_S + self._pace.pipeline_s, max_age_s)
            return self._mode is not None and time.monotonic() - self._arrived_s <= fresh_s

        frame = self.frames.wait(is_live, deadline_s, until=self._is_beyond_waiting)
        if frame is not None:
            frame.release()
        with self._changed:
            self._raise_failure()
            if self._mode is not None and (frame is not None or self._state is State.RECOVERING):
                return self._mode
            raise NoPicture(f"no picture from the camera in time (it is {self._state})")

    def wait_frame(self, began_after_s: float, deadline_s: float) -> Frame:
        """The first frame of a settled camera whose exposure began after that moment, held for the caller.

        Raises the CameraError that ended the camera, or NoPicture at the deadline; both on the monotonic clock.
        """
        frame = self.frames.wait(
            lambda newest: self._is_settled and newest.began_s >= began_after_s,
            deadline_s,
            until=lambda: self._failure is not None,
        )
        if frame is not None:
            return frame
        with self._changed:
            self._raise_failure()
            raise NoPicture(f"no picture from the camera in time (it is {self._state})")

    def still(
        self, size: tuple[int, int] | None, deadline_s: float, controls: Mapping[str, Any] | None = None
    ) -> Frame:
        """A still in a mode of its own, while the stream pauses; None is the whole sensor. The frame is the caller's.

        `controls` count for this still alone. Who asks for the same still before it is begun gets the same one. The
        caller holds a lease on an open camera. Raises CameraError, or NoPicture at the deadline.
        """
        more = [controls] if controls else []

        def take() -> Frame:
            with self._guard("taking a still", _STILL_LIMIT_S):
                return self.camera.still(size, *more)

        key = ("still", size, repr(controls) if controls else "")
        frame: Frame = self._have_done(key, partial(self._pause_for, take), deadline_s)
        return frame

    def raw_still(self, deadline_s: float) -> bytes:
        """The sensor's own picture as a DNG file; otherwise as `still`. Raises NotSupported too."""

        def take() -> bytes:
            with self._guard("taking a raw still", _STILL_LIMIT_S):
                return self.camera.raw_still()

        picture: bytes = self._have_done(("raw",), partial(self._pause_for, take), deadline_s)
        return picture

    def reopen(self, deadline_s: float) -> None:
        """Close an open camera and open it again with what the desk now wants; viewers stay and wait.

        The caller holds a lease. Raises CameraError: what the desk took back because the camera refused it.
        """
        self._have_done(("reopen",), self._reopen, deadline_s)

    def _have_done(self, key: tuple[Any, ...], run: Callable[[], Any], deadline_s: float) -> Any:
        with self._changed:
            self._raise_failure()
            order = next((each for each in self._orders if each.key == key), None)
            if order is None:
                if len(self._orders) >= _MOST_ORDERS:
                    raise NoPicture("too many stills of different kinds are wanted at once")
                order = _Order(key, run)
                self._orders.append(order)
            order.waiting += 1
            self._changed.notify_all()
            self._changed.wait_for(
                lambda: order.is_done or self._failure is not None, max(0.0, deadline_s - time.monotonic())
            )
            if order.error is not None:
                raise type(order.error)(str(order.error)) from order.error
            if order.is_done:
                return order.result
            order.waiting -= 1
            if not order.waiting and order in self._orders:
                self._orders.remove(order)
            self._raise_failure()
            raise NoPicture(f"the camera did not get to it in time: {key[0]} (it is {self._state})")

    def set_controls(self, controls: Mapping[str, Any]) -> None:
        """Send libcamera controls with the next frame; does nothing while the camera is closed. Raises NotSupported.

        An exposure time goes this way and not straight to the camera, for it is no stall when the next frame takes
        as long as was asked for.
        """
        self.camera.set_controls(controls)
        self._pace.expect(controls)

    def status(self) -> HolderStatus:
        """What is going on, for people and programs."""
        newest = self.frames.held()
        metadata = None
        if newest is not None:
            metadata = newest.metadata
            newest.release()
        with self._changed:
            leases: dict[LeaseKind, int] = {"stream": 0, "snapshot": 0, "hold": 0}
            held_since: dict[LeaseKind, float] = {}
            for lease in self._leases:
                leases[lease.kind] += 1
                held_since[lease.kind] = min(lease.since_s, held_since.get(lease.kind, lease.since_s))
            return HolderStatus(
                self._state,
                self._mode,
                self._pace.fps(time.monotonic()) if self._state in _RUNNING else None,
                leases,
                self._last_error,
                self._restarts,
                self._opens,
                self._pace.frames,
                metadata,
                held_since,
            )

    @property
    def status_state(self) -> State:
        """What it is doing now."""
        return self._state  # a single value: read without the lock

    def trouble(self) -> str | None:
        """What is wrong beyond what is being recovered from in time; None while all is well."""
        with self._changed:
            if self._failure is not None:
                return f"the camera is given up: {self._failure}"
            if not self._thread.is_alive():
                return "the camera thread has ended"
            if not self._leases or not self._watchdog_timeout_s:
                return None
            if self._state not in _RUNNING:
                return None  # a call that takes too long is told by its guard
            # The longest way back: a silence noticed, a restart that was no use, a reopening, and a silence again.
            allowed_s = 2 * self._watchdog_timeout_s + _RESTART_LIMIT_S + _CLOSE_LIMIT_S + _OPEN_LIMIT_S
            since_s = max(self._frames_due_from_s, self._pace.last_frame_s)
            silence_s = time.monotonic() - since_s - self._pace.pipeline_s
            return f"no frame for {silence_s:.0f} s" if silence_s > allowed_s else None

    @property
    def recovering_because(self) -> str | None:
        """Why viewers see a placeholder now; None when they see the camera."""
        with self._changed:
            return self._last_error if self._state is State.RECOVERING else None

    def stop(self) -> None:
        """Close the camera and end the thread; does not wait for it: see `join`."""
        with self._changed:
            if self._failure is None:
                self._failure = CameraError("the portal is stopping")
            self._changed.notify_all()
        self.frames.wake()

    def join(self, deadline_s: float) -> bool:
        """Wait for the thread after `stop`; False when the camera hangs and still is not closed."""
        self._thread.join(max(0.0, deadline_s - time.monotonic()))
        return not self._thread.is_alive()

    # --- leases and waiting -----------------------------------------------------------------------------------

    def _release(self, lease: Lease) -> None:
        with self._changed:
            if lease not in self._leases:
                return
            self._leases.remove(lease)
            if not self._leases:
                self._linger_until_s = time.monotonic() + self._linger_s
                self._changed.notify_all()

    def _has_stream(self) -> bool:
        return any(lease.kind == "stream" for lease in self._leases)

    def _raise_failure(self) -> None:
        if self._failure is not None:
            # A new object: several threads raise it, and each adds its own traceback.
            raise type(self._failure)(str(self._failure)) from self._failure

    def _is_beyond_waiting(self) -> bool:
        # Without the lock, which the camera's thread may hold while it wakes us: single reads of current values.
        return self._failure is not None or self._state is State.RECOVERING

    def _fail(self, error: CameraError) -> None:
        """End the camera's life in this process; the first failure counts."""
        with self._changed:
            if self._failure is not None:
                return
            self._failure = error
            self._last_error = str(error)
            if isinstance(error, CameraMissing):
                self._state = State.MISSING
            self._changed.notify_all()
        self.frames.wake()
        log.error("%s", error)
        self._on_failure(error)

    # --- the camera thread ------------------------------------------------------------------------------------

    def _run(self) -> None:
        while (step := self._next_step()) is not None:
            try:
                step()
            except CameraError as error:
                self._fail(error)
                self._let_go()
                return

    def _die(self, reason: str) -> None:
        self._fail(CameraStuck(reason))
        self._let_go()

    def _let_go(self) -> None:
        """Close what may still be open, so that the process can end in order; a hang is survived by `join`."""
        try:
            self._close_camera()
        except CameraError as error:
            log.warning("Closing the camera failed (%s)", error)
        with self._changed:
            self._mode = None
            if self._state is not State.MISSING:
                self._state = State.CLOSED

    def _next_step(self) -> Callable[[], None] | None:
        """Sleep until there is something to do; None ends the thread."""
        with self._changed:
            while True:
                now_s = time.monotonic()
                step, wake_at_s = self._decide(now_s)
                if step is not None:
                    return None if step == self._leave else step
                self._changed.wait(None if wake_at_s is None else max(0.0, wake_at_s - now_s))
                if wake_at_s is not None and time.monotonic() - wake_at_s > _OVERSLEPT_S:
                    # The process itself was stopped, or the machine slept: that is no silence of the camera.
                    self._frames_due_from_s = time.monotonic()

    def _decide(self, now_s: float) -> tuple[Callable[[], None] | None, float | None]:
        """The next step, or none and the moment to look again; None is not before something changes."""
        if self._state is State.CLOSED:
            if self._failure is not None:
                return self._leave, None
            return (self._open, None) if self._leases else (None, None)
        if self._failure is not None:
            return self._close, None
        if self._leases:
            if self._state is State.LINGERING:
                # A silence that began while nobody was there counts: who asks again and again, with pauses in between,
                # would never see the camera brought back.
                self._state = State.OPEN
            step, wake_at_s = self._decide_watchdog(now_s)
            if step is None and self._orders and self._state is State.OPEN:
                if now_s >= self._orders_from_s:
                    return self._obey, None
                wake_at_s = min(wake_at_s or self._orders_from_s, self._orders_from_s)
            return step, wake_at_s
        if self._state is State.OPEN:
            self._state = State.LINGERING
        # Nobody watches: a camera that hangs is not brought back for nobody, it is closed.
        if self._state is State.RECOVERING or now_s >= self._linger_until_s:
            return self._close, None
        return None, self._linger_until_s

    def _decide_watchdog(self, now_s: float) -> tuple[Callable[[], None] | None, float | None]:
        if not self._watchdog_timeout_s:
            self._settle_recovery(now_s)
            return None, None
        allowed_s = self._watchdog_timeout_s + self._pace.pipeline_s
        heard_s = max(self._frames_due_from_s, self._pace.last_frame_s)
        if now_s - heard_s >= allowed_s:
            return partial(self._recover, now_s - heard_s), None
        self._settle_recovery(now_s)
        return None, heard_s + allowed_s

    def _settle_recovery(self, now_s: float) -> None:
        """Frames came again: viewers see the camera at once; the tries are forgotten when it has lasted."""
        if self._pace.last_frame_s > self._frames_due_from_s:
            if self._state is State.RECOVERING:
                self._state = State.OPEN
                log.info("Frames come again")
            # Not by the clock of the silence, which every good still sets anew.
            if self._tries and now_s - self._tried_s >= self._watchdog_timeout_s:
                self._tries = 0

    def _leave(self) -> None:
        """A mark for the end of the thread; never called."""

    def _open(self) -> None:
        self._change(State.OPENING)
        began_s = time.monotonic()
        mode = self._open_camera(State.OPEN)
        log.info(
            "Camera open after %.2f s: %s, streaming %dx%d %s",
            time.monotonic() - began_s,
            self.camera.name,
            mode.width,
            mode.height,
            mode.pixel_format,
        )

    def _open_camera(self, then: State) -> StreamMode:
        try:
            return self._open_once(then)
        except (CameraMissing, CameraBusy, CameraStuck):
            raise
        except CameraError as error:
            if not self.desk.refused(error):
                raise
            log.warning("The camera did not open (%s); trying without what was set last", error)
        return self._open_once(then)

    def _open_once(self, then: State) -> StreamMode:
        self._epoch += 1
        self._settling, self._is_settled = None, False
        self._has_lost_frame = False
        self._pace.begin()
        with self._guard("opening the camera", _OPEN_LIMIT_S):
            if not self.camera.is_present():
                raise CameraMissing(f"camera {self.camera.name} is missing")
            self.desk.before_open()
            mode = self.camera.open(partial(self._take_frame, self._epoch))
        self.focus.camera_opened(self._has_autofocus and mode.has_autofocus)
        self.desk.opened(mode)
        with self._changed:
            self._mode = mode
            self._state = then
            self._opens += 1
            self._expect_frames()
            has_stream = self._has_stream()
        self.frames.wake()
        if has_stream:
            self.focus.stream_started()
        return mode

    def _close(self) -> None:
        tries = self._count_silent_opening()
        self._shut()
        if tries > _MOST_TRIES:
            raise CameraStuck("no frame in several openings, one after the other")

    def _shut(self) -> None:
        self._change(State.CLOSING)
        self._close_camera()
        with self._changed:
            self._state = State.CLOSED
            self._mode = None
        self.on_closed()
        log.info("Camera closed")

    def _count_silent_opening(self) -> int:
        """The tries so far. An opening that was silent to its end counts as one: the next is the next try.

        So a camera that hangs for good is given up even where each visitor leaves before the watchdog acts.
        """
        with self._changed:
            silence_s = time.monotonic() - self._frames_due_from_s
            if self._pace.last_frame_s > self._frames_due_from_s:
                self._tries = 0
            elif self._watchdog_timeout_s and silence_s >= self._watchdog_timeout_s + self._pace.pipeline_s:
                self._tries += 1
                self._last_error = f"no frame for {silence_s:.0f} s"
                log.warning("No frame for %.1f s, and nobody watches: closing the camera", silence_s)
            return self._tries

    def _close_camera(self) -> None:
        self._epoch += 1
        self.focus.camera_closed()
        self.desk.closed()
        with self._without_frames(), self._guard("closing the camera", _CLOSE_LIMIT_S):
            self.camera.close()

    def _recover(self, silence_s: float) -> None:
        """The next try against a camera that went silent: restart the stream, then reopen, then give up."""
        self.frames.clear()  # what was seen before the silence is no picture of now, for nobody
        with self._changed:
            self._tries += 1
            tries = self._tries
            self._state = State.RECOVERING
            self._last_error = f"no frame for {silence_s:.0f} s"
            if tries <= _MOST_TRIES:
                self._restarts += 1
        self.frames.wake()
        with self._guard("looking for the camera", _OPEN_LIMIT_S):
            is_present = self.camera.is_present()
        if not is_present:
            raise CameraMissing(f"camera {self.camera.name} is gone: no frame for {silence_s:.0f} s")
        if tries > _MOST_TRIES:
            raise CameraStuck(f"no frame for {silence_s:.0f} s, after a restart of the stream and a reopening")
        if tries == 1:
            log.warning("No frame for %.1f s: restarting the stream", silence_s)
            try:
                with self._without_frames(), self._guard("restarting the stream", _RESTART_LIMIT_S):
                    self.camera.restart()
            except CameraError as error:
                log.warning("Restarting the stream failed (%s)", error)
                with self._changed:
                    self._last_error = f"restarting the stream failed: {error}"
                    self._tries = 2
                    self._restarts += 1
            else:
                self._pace.forget_rate()
                with self._changed:
                    self._expect_frames()
                return
        if not self._is_unwanted():
            log.warning("Closing the camera and opening it again")
            self.desk.went_silent()
            self._close_camera()
            if not self._is_unwanted():
                self._open_camera(State.RECOVERING)
                return
        self._shut()

    def _is_unwanted(self) -> bool:
        """Whether everyone left while the camera was being brought back."""
        with self._changed:
            return not self._leases or self._failure is not None

    def _expect_frames(self) -> None:
        """From now on the watchdog counts anew; the first frame wakes the camera thread."""
        self._frames_due_from_s = self._tried_s = time.monotonic()
        self._awaits_frame = True

    def _obey(self) -> None:
        """Carry the next order out, and tell who waits for it."""
        with self._changed:
            order = self._orders.popleft()
        result, error = None, None
        began_s = time.monotonic()
        try:
            result = order.run()
        except CameraError as trouble:
            log.warning("No %s: %s", order.key[0], trouble)
            error = trouble
        with self._changed:
            now_s = time.monotonic()
            if error is None:  # as good as a frame of the stream; a still that failed hides no silence
                self._frames_due_from_s = now_s
            if self._has_stream():
                # Half of the time at the most: streams stand still meanwhile.
                self._orders_from_s = now_s + max(_STILL_PAUSE_S, now_s - began_s)
            order.result, order.error, order.is_done = result, error, True
            waiting = order.waiting
            if isinstance(result, Frame):
                for _ in range(waiting - 1):
                    result.hold()
            self._changed.notify_all()
        if isinstance(result, Frame) and not waiting:
            result.release()

    def _pause_for(self, take: Callable[[], Any]) -> Any:
        with self._without_frames():
            return take()

    def _reopen(self) -> None:
        log.info("Opening the camera again, as what was set needs it")
        self._change(State.OPENING)
        refused: list[CameraError] = []
        try:
            self._close_camera()
            try:
                self._open_once(State.OPEN)
            except (CameraMissing, CameraBusy, CameraStuck):
                raise
            except CameraError as error:
                if not self.desk.refused(error):
                    raise
                refused.append(error)
                self._open_once(State.OPEN)
        except CameraError as error:
            # No stream is left that could go on: the end, as where the first opening fails.
            self._fail(error)
            self._let_go()
            return
        if refused:
            raise refused[0]

    @contextmanager
    def _without_frames(self) -> Iterator[None]:
        """Hold no frame meanwhile: a camera that stops wants all its buffers back."""
        self._is_deaf = True
        self.frames.clear()
        try:
            yield
        finally:
            self._is_deaf = False

    def _change(self, state: State) -> None:
        with self._changed:
            self._state = state

    @contextmanager
    def _guard(self, what: str, limit_s: float) -> Iterator[None]:
        """Tell when a call into the camera hangs: the thread that hangs cannot."""
        limit_s += self._pace.pipeline_s  # it may wait for the frame that is being exposed
        late = CameraStuck(f"{what} takes more than {limit_s:.0f} s: the camera hangs")
        timer = threading.Timer(limit_s, self._fail, [late])
        timer.name = "camera-guard"
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    # --- the camera's frame thread ----------------------------------------------------------------------------

    def _take_frame(self, epoch: int, frame: Frame) -> None:
        try:
            self._take(epoch, frame)
        except Exception:  # the edge of the camera's own thread, which would end, and nobody would be told
            # A frame that is lost was none: the watchdog finds it missing when the next ones are lost as well.
            if not self._has_lost_frame:
                self._has_lost_frame = True
                log.exception("A frame was lost; more of them until the camera is opened again are not told")

    def _take(self, epoch: int, frame: Frame) -> None:
        if epoch != self._epoch or self._is_deaf:
            frame.release()
            return
        now_s = time.monotonic()
        try:
            self._read_metadata(frame, now_s)
        except Exception:
            frame.release()
            raise
        self._arrived_s = now_s
        self.frames.put(frame)
        if epoch != self._epoch or self._is_deaf:
            # The camera began to stop since we looked, and waits for its buffers. It is told first and cleared after
            # (`_without_frames`), here it is the other way round: one of the two sees the frame.
            self.frames.clear()
            return
        self.on_frame()
        self._pace.count(frame.metadata, now_s)
        # A frame from before it was waited for does not count: `_settle_recovery` would not take it either.
        if self._awaits_frame and now_s > self._frames_due_from_s:
            self._awaits_frame = False
            with self._changed:
                self._changed.notify_all()

    def _read_metadata(self, frame: Frame, now_s: float) -> None:
        if not self._is_settled:
            if self._settling is None:
                self._settling = Settling(now_s)
            self._is_settled = self._settling.step(frame.metadata, now_s)
        self.focus.step(frame)
        self.desk.frame_came(frame.metadata, is_settled=self._is_settled)


def _nothing() -> None:
    """Nobody wants to be told."""
