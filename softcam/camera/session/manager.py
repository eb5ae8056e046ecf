"""Opens the camera while somebody holds a lease on it, closes it when nobody has for a while, and brings it back.

One thread, `camera`, makes every call that may block or hang (open, restart, still, close); everyone else takes a
lease and waits for frames. While the camera is closed the thread sleeps without a timeout.

    CLOSED -> OPENING -> OPEN <-> LINGERING -> CLOSING -> CLOSED
                          |^
                       RECOVERING        MISSING (the end: a fresh process starts when the camera is back)

When no frame comes while somebody watches, the stream is restarted; when that does not help, the camera is closed and
opened again; when that does not help either, or a call hangs, the trouble is told to `on_failure`, once, and the
process is expected to end: only a fresh one can free a camera that hangs in the kernel (picamera2 #1264, #1065).
A camera that belongs to another program or machine (`remote`) is waited for instead, for as long as somebody wants it.

Longer than other modules, because all of it turns about one state under one lock; what needs neither is beside it:
`leases` (its words), `orders` (stills that wait), `watchdog` (what a silence calls for), `pace`, `changes`,
`first_frames`, `focus`.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

from softcam.camera.base import (
    Camera,
    RawStill,
    Remote,
    SessionListener,
    StillControls,
    StreamConfig,
    no_controls,
)
from softcam.camera.session.autofocus import Focus
from softcam.camera.session.control_latency import ControlLatency
from softcam.camera.session.frame_rate import FrameRateMeter
from softcam.camera.session.jobs import JobQueue
from softcam.camera.session.lease import LEASE_KINDS, STREAMS, Lease, LeaseKind, SessionStatus, State
from softcam.camera.session.settling import Settling
from softcam.camera.session.watchdog import MOST_TRIES, Watchdog
from softcam.errors import CameraBusy, CameraError, CameraMissing, CameraStuck, NoPicture
from softcam.imaging.frame import Frame, NewestFrame
from softcam.runtime.threads import spawn

__all__ = ["LEASE_KINDS", "CameraManager", "Lease", "LeaseKind", "SessionStatus", "State"]

log = logging.getLogger(__name__)

_OVERSLEPT_S: Final = 1.5  # no load makes a thread that late, but SIGSTOP does
_ABSENCE_S: Final = 2.0  # a remote camera that is back sooner was hardly away
_FRESH_S: Final = 1.0  # a frame of this age, beyond what the camera takes for one, is no live picture
_CHANGE_LIMIT_S: Final = 2.0  # a slow camera takes longer to show a change than anybody wants to wait for it
# A restart of the stream is over by then. For what takes longer, who wants one picture asks again.
_RECOVERY_LIMIT_S: Final = 3.0

# How long a call into the camera may take before the process is given up. Generous: a Pi Zero opens in some seconds,
# and libcamera's own timeouts lie below.
_OPEN_LIMIT_S: Final = 20.0
_RESTART_LIMIT_S: Final = 10.0
_STILL_LIMIT_S: Final = 15.0
_CLOSE_LIMIT_S: Final = 10.0

_RUNNING: Final = frozenset({State.OPEN, State.LINGERING, State.RECOVERING})


class CameraManager:
    """Owns one camera. `frames` holds its newest frame and notifies its subscribers on the camera's frame thread."""

    def __init__(
        self,
        camera: Camera,
        *,
        linger_s: float,
        watchdog_timeout_s: float,
        autofocus_timeout_s: float,
        has_autofocus: bool,
        on_failure: Callable[[CameraError], None],
    ) -> None:
        """Without `has_autofocus` the lens moves only for a user who says so. `watchdog_timeout_s` 0 is no watchdog."""
        self.camera = camera
        self._remote = camera if isinstance(camera, Remote) else None
        self.frames = NewestFrame()
        self.focus = Focus(camera.set_controls, autofocus_timeout_s)
        self._pace = FrameRateMeter()
        self._changes = ControlLatency()
        self._first_frames = Settling(self._changes)
        self._listeners: tuple[SessionListener, ...] = ()  # complete before the first lease
        self._linger_s = linger_s
        self._has_autofocus = has_autofocus
        self._on_failure = on_failure

        self._changed = threading.Condition()  # guards the fields down to the next comment
        self._state = State.CLOSED
        self._leases: set[Lease] = set()
        self._linger_until_s = 0.0
        self._orders = JobQueue()
        self._mode: StreamConfig | None = None
        self._failure: CameraError | None = None  # the end, be it that the portal stops
        self._last_error: str | None = None
        self._restarts = 0
        self._opens = 0
        self._recovering_from_s = 0.0
        self._watchdog = Watchdog(watchdog_timeout_s, self._pace)

        # Without the lock: single values, read one frame late at worst. The camera thread alone writes these, while it
        # opens or when it looks for frames anew:
        self._epoch = 0  # frames of an earlier opening are given straight back
        self._is_deaf = False  # frames are not wanted for a moment
        # The camera's frame thread alone writes these, but for the beginning of an opening:
        self._has_lost_frame = False
        self._arrived_s = 0.0  # when the frame in the slot came
        self._awaits_frame = False  # set by the camera thread, taken back by the frame that it waits for

        if self._remote is not None:
            self._remote.on_disconnect(self._look_again)
        self._thread = spawn("camera", self._run, self._die)

    # --- what everyone may call -------------------------------------------------------------------------------

    def lease(self, kind: LeaseKind) -> Lease:
        """Ask for an open camera; returns at once. Raises the CameraError that ended the camera."""
        lease = Lease(kind, self._release)
        with self._changed:
            self._raise_failure()
            is_first_stream = kind in STREAMS and not self._has_stream() and self._state in _RUNNING
            self._leases.add(lease)
            if self._state is State.LINGERING:
                # At once, for who asks next. A silence that began while nobody was there counts: who asks again and
                # again, with pauses in between, would never see the camera brought back.
                self._state = State.OPEN
            self._changed.notify_all()
        if is_first_stream:
            self.focus.stream_started()
        return lease

    def subscribe(self, listener: SessionListener) -> None:
        """Add a listener, before the first lease; listeners are notified in the order of subscription."""
        self._listeners = (*self._listeners, listener)

    def wait_ready(self, deadline_s: float, max_age_s: float = 0.0) -> StreamConfig:
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

        frame = self._wait(is_live, deadline_s, self._is_beyond_waiting)
        if frame is not None:
            frame.release()
        with self._changed:
            self._raise_failure()
            if self._mode is not None and (frame is not None or self._state is State.RECOVERING):
                return self._mode
            raise NoPicture(f"no picture from the camera in time (it is {self._state})")

    def wait_frame(self, began_after_s: float, deadline_s: float) -> Frame:
        """The first frame of a settled camera whose exposure began after that moment, held for the caller.

        It shows what had been set by then. Raises the CameraError that ended the camera, or NoPicture at the deadline,
        sooner where the camera is being brought back; both moments on the monotonic clock.
        """
        shows = self._changes.visible_since(began_after_s)
        shows_from_s = time.monotonic() + _CHANGE_LIMIT_S + self._pace.pipeline_s

        def is_wanted(newest: Frame) -> bool:
            if not self._first_frames.are_over or newest.began_s < began_after_s:
                return False
            return shows(newest.metadata) or time.monotonic() >= shows_from_s

        frame = self._wait(is_wanted, deadline_s, lambda: self._failure is not None, self._cut_while_recovering_s)
        if frame is not None:
            return frame
        with self._changed:
            self._raise_failure()
            because = f": {self._last_error}" if self._state is State.RECOVERING else ""
            raise NoPicture(f"no picture from the camera in time (it is {self._state}{because})")

    def still(
        self, size: tuple[int, int] | None, deadline_s: float, controls_for: StillControls = no_controls
    ) -> Frame:
        """A still in a mode of its own, while the stream pauses; None is the whole sensor. The frame is the caller's.

        `controls_for` is as in `Camera.still`. Who asks for the same still before it is begun, with equal controls,
        gets the same one. The caller holds a lease on an open camera. Raises CameraError, or NoPicture at the deadline.
        """

        def take() -> Frame:
            with self._guard("taking a still", _STILL_LIMIT_S):
                return self.camera.still(size, controls_for)

        frame: Frame = self._have_done(("still", size, controls_for), partial(self._pause_for, take), deadline_s)
        return frame

    def raw_still(self, deadline_s: float) -> RawStill:
        """The sensor's own picture as a DNG file; otherwise as `still`. Raises NotSupported too."""

        def take() -> RawStill:
            with self._guard("taking a raw still", _STILL_LIMIT_S):
                return self.camera.raw_still()

        picture: RawStill = self._have_done(("raw still",), partial(self._pause_for, take), deadline_s)
        return picture

    def reopen(self, deadline_s: float) -> None:
        """Close an open camera and open it again with what the desk now wants; viewers stay and wait.

        The caller holds a lease. Raises CameraError: what the desk took back because the camera refused it.
        """
        self._have_done(("reopening",), self._reopen, deadline_s, is_still=False)

    def _have_done(
        self, key: tuple[Any, ...], run: Callable[[], Any], deadline_s: float, *, is_still: bool = True
    ) -> Any:
        with self._changed:
            self._raise_failure()
            order = self._orders.join(key, run, is_still=is_still)
            self._changed.notify_all()
            pipeline_s = 0.0
            while not order.is_done and self._failure is None:
                pipeline_s = max(pipeline_s, self._pace.pipeline_s)  # as in `_wait`
                left_s = deadline_s + pipeline_s - time.monotonic()
                if left_s <= 0:
                    break
                self._changed.wait(left_s)
            if order.is_done:
                return order.outcome()
            self._orders.leave(order)
            self._raise_failure()
            raise NoPicture(f"the camera did not get to it in time: {key[0]} (it is {self._state})")

    def set_controls(self, controls: Mapping[str, Any]) -> None:
        """Send libcamera controls with the next frame; does nothing while the camera is closed. Raises NotSupported.

        An exposure time goes this way and not straight to the camera, for it is no stall when the next frame takes
        as long as was asked for.
        """
        self.camera.set_controls(controls)
        self._pace.expect(controls)
        self._changes.sent(controls, time.monotonic())

    def status(self) -> SessionStatus:
        """What is going on, for people and programs."""
        newest = self.frames.held()
        metadata = None
        if newest is not None:
            metadata = newest.metadata
            newest.release()
        with self._changed:
            leases: dict[LeaseKind, int] = dict.fromkeys(LEASE_KINDS, 0)
            held_since: dict[LeaseKind, float] = {}
            for lease in self._leases:
                leases[lease.kind] += 1
                held_since[lease.kind] = min(lease.since_s, held_since.get(lease.kind, lease.since_s))
            return SessionStatus(
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
            if not self._leases or not self._watchdog.timeout_s:
                return None
            if self._state not in _RUNNING or self._absence() is not None:
                return None  # a call that takes too long is told by its guard
            # The longest way back: a silence noticed, a restart that was no use, a reopening, and a silence again.
            allowed_s = 2 * self._watchdog.timeout_s + _RESTART_LIMIT_S + _CLOSE_LIMIT_S + _OPEN_LIMIT_S
            silence_s = self._watchdog.silence_s(time.monotonic()) - self._pace.pipeline_s
            return f"no frame for {silence_s:.0f} s" if silence_s > allowed_s else None

    @property
    def recovery_reason(self) -> str | None:
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
        if self._remote is not None:
            self._remote.cancel_open()

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
                if self._state is State.OPEN:
                    self._state = State.LINGERING
                self._linger_until_s = time.monotonic() + self._linger_s
                self._changed.notify_all()

    def _has_stream(self) -> bool:
        return any(lease.kind in STREAMS for lease in self._leases)

    def _raise_failure(self) -> None:
        if self._failure is not None:
            # A new object: several threads raise it, and each adds its own traceback.
            raise type(self._failure)(str(self._failure)) from self._failure

    def _is_beyond_waiting(self) -> bool:
        # Without the lock, which the camera's thread may hold while it wakes us: single reads of current values.
        return self._failure is not None or self._state is State.RECOVERING

    def _cut_while_recovering_s(self, deadline_s: float) -> float:
        # Without the lock, as in `_is_beyond_waiting`.
        if self._state is State.RECOVERING:
            return min(deadline_s, self._recovering_from_s + _RECOVERY_LIMIT_S)
        return deadline_s

    def _wait(
        self,
        is_wanted: Callable[[Frame], bool],
        deadline_s: float,
        until: Callable[[], bool],
        cut_s: Callable[[float], float] = lambda deadline_s: deadline_s,
    ) -> Frame | None:
        """As `NewestFrame.wait`, where a long exposure makes nobody late; `cut_s` may bring the deadline forward."""
        pipeline_s = self._pace.pipeline_s  # the longest of this wait: frames may become longer and shorter meanwhile
        while True:
            at_s = cut_s(deadline_s) + pipeline_s

            def is_over(at_s: float = at_s, pipeline_s: float = pipeline_s) -> bool:
                return until() or cut_s(deadline_s) + pipeline_s < at_s

            frame = self.frames.wait(is_wanted, at_s, is_over)
            pipeline_s = max(pipeline_s, self._pace.pipeline_s)
            if frame is not None or until() or time.monotonic() >= cut_s(deadline_s) + pipeline_s:
                return frame

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
                    self._watchdog.excuse(time.monotonic())

    def _decide(self, now_s: float) -> tuple[Callable[[], None] | None, float | None]:
        """The next step, or none and the moment to look again; None is not before something changes."""
        if self._state is State.CLOSED:
            if self._failure is not None:
                return self._leave, None
            return (self._open, None) if self._leases else (None, None)
        if self._failure is not None:
            return self._close, None
        if self._leases:
            step, wake_at_s = self._decide_watchdog(now_s)
            due_s = self._orders.due_s
            if step is None and due_s is not None and self._state is State.OPEN:
                if now_s >= due_s:
                    return self._obey, None
                wake_at_s = min(wake_at_s or due_s, due_s)
            return step, wake_at_s
        if self._state is State.OPEN:
            self._state = State.LINGERING
        # Nobody watches: a camera that hangs is not brought back for nobody, it is closed.
        if self._state is State.RECOVERING or now_s >= self._linger_until_s:
            return self._close, None
        return None, self._linger_until_s

    def _decide_watchdog(self, now_s: float) -> tuple[Callable[[], None] | None, float | None]:
        disconnect_reason = self._absence()
        act_s = self._watchdog.act_s()
        if disconnect_reason is None and act_s is not None and now_s >= act_s:
            return partial(self._recover, self._watchdog.silence_s(now_s)), None
        if self._watchdog.has_heard and self._state is State.RECOVERING:
            # Viewers see the camera at once; the tries are forgotten when it has lasted.
            self._state = State.OPEN
            if self._remote is not None:
                self._last_error = None  # it comes and goes; of a camera of ours, what made it restart stays told
            log.info("Frames come again")
        self._watchdog.forget(now_s)
        if disconnect_reason is not None:
            if self._state is State.RECOVERING:
                self._last_error = disconnect_reason
                return None, None  # a frame wakes us, and so does another reason
            act_s = now_s - self._watchdog.silence_s(now_s) + _ABSENCE_S
            if now_s >= act_s:
                return self._await_return, None
        return None, act_s

    def _leave(self) -> None:
        """A mark for the end of the thread; never called."""

    def _open(self) -> None:
        self._change(State.OPENING)
        self._open_camera(State.OPEN)

    def _open_camera(self, then: State) -> CameraError | None:
        """Open it, without what was set last where it refuses that: what it said to it, None where all is well."""
        try:
            self._open_once(then)
        except (CameraMissing, CameraBusy, CameraStuck):
            raise
        except CameraError as error:
            # A list, not a generator: every listener is notified.
            if not any([listener.on_open_failed(error) for listener in self._listeners]):  # noqa: C419
                raise
            refused = error
        else:
            return None
        log.warning("The camera did not open (%s); trying without what was set last", refused)
        self._open_once(then)
        return refused

    def _open_once(self, then: State) -> None:
        self._epoch += 1
        self._first_frames.begin()
        self._has_lost_frame = False
        self._pace.begin()
        began_s = time.monotonic()
        with self._guard("opening the camera", _OPEN_LIMIT_S):
            if not self.camera.is_present():
                raise CameraMissing(f"camera {self.camera.name} is missing")
            for listener in self._listeners:
                listener.on_opening()
            try:
                mode = self.camera.open(partial(self._take_frame, self._epoch), self._tell)
            except CameraError:
                self._tell_closed()
                raise
        disconnect_reason = self._absence()
        with self._changed:
            self._mode = mode
            self._state = then if disconnect_reason is None else State.RECOVERING
            if self._remote is not None:
                self._last_error = disconnect_reason
            if disconnect_reason is not None:
                self._recovering_from_s = time.monotonic()
            self._opens += 1
            self._expect_frames()
            has_stream = self._has_stream()
        self.frames.wake()
        log.info(
            "Camera open after %.2f s: %s, streaming %dx%d %s",
            time.monotonic() - began_s,
            self.camera.name,
            mode.width,
            mode.height,
            mode.pixel_format,
        )
        if has_stream:
            self.focus.stream_started()

    def _tell(self, mode: StreamConfig) -> None:
        """The camera is about to start: what is wanted of it counts from the first frame."""
        self.focus.camera_opened(self._has_autofocus and mode.has_autofocus)
        for listener in self._listeners:
            listener.on_configured(mode)
        self._changes.begin()

    def _notify_stall(self) -> None:
        for listener in self._listeners:
            listener.on_stall()

    def _tell_closed(self) -> None:
        self.focus.camera_closed()
        for listener in self._listeners:
            listener.on_closing()

    def _close(self) -> None:
        with self._changed:
            silence_s = None if self._absence() is not None else self._watchdog.count_opening(time.monotonic())
            tries = self._watchdog.tries
            if silence_s is not None:
                self._last_error = f"no frame for {silence_s:.0f} s"
        if silence_s is not None:
            log.warning("No frame for %.1f s, and nobody watches: closing the camera", silence_s)
        if tries:
            self._notify_stall()  # as in `_recover`, which nobody stayed for
        self._shut()
        if tries > MOST_TRIES:
            raise CameraStuck("no frame in several openings, one after the other")

    def _shut(self) -> None:
        self._change(State.CLOSING)
        self._close_camera()
        with self._changed:
            self._state = State.CLOSED
            self._mode = None
        for listener in self._listeners:
            listener.on_closed()
        log.info("Camera closed")

    def _close_camera(self) -> None:
        self._epoch += 1
        self._tell_closed()
        with self._without_frames(), self._guard("closing the camera", _CLOSE_LIMIT_S):
            self.camera.close()

    def _recover(self, silence_s: float) -> None:
        """The next try against a camera that went silent: restart the stream, then reopen, then give up."""
        self.frames.clear()  # what was seen before the silence is no picture of now, for nobody
        with self._changed:
            # Another's camera is asked anew again and again: a fresh process of ours would not better it.
            tries = self._watchdog.tries = 1 if self._remote is not None else self._watchdog.tries + 1
            if self._state is not State.RECOVERING:
                self._recovering_from_s = time.monotonic()
            self._state = State.RECOVERING
            self._last_error = f"no frame for {silence_s:.0f} s"
            if tries <= MOST_TRIES:
                self._restarts += 1
        self.frames.wake()
        with self._guard("looking for the camera", _OPEN_LIMIT_S):
            is_present = self.camera.is_present()
        if not is_present:
            raise CameraMissing(f"camera {self.camera.name} is gone: no frame for {silence_s:.0f} s")
        if tries > MOST_TRIES:
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
                    self._watchdog.tries = MOST_TRIES
                    self._restarts += 1
            else:
                self._pace.forget_rate()
                with self._changed:
                    self._expect_frames()
                return
        if not self._is_unwanted():
            log.warning("Closing the camera and opening it again")
            self._notify_stall()
            self._close_camera()
            if not self._is_unwanted():
                self._open_camera(State.RECOVERING)
                return
        self._shut()

    def _await_return(self) -> None:
        """Viewers are told that the camera is away. It looks for itself, and needs nothing from us."""
        with self._guard("looking for the camera", _OPEN_LIMIT_S):
            is_present = self.camera.is_present()
        if not is_present:
            raise CameraMissing(f"camera {self.camera.name} is gone")
        self.frames.clear()
        with self._changed:
            disconnect_reason = self._absence()
            if disconnect_reason is None:
                return
            self._state = State.RECOVERING
            self._recovering_from_s = time.monotonic()
            self._last_error = disconnect_reason
            self._restarts += 1
            self._expect_frames()
        self.frames.wake()
        log.warning("The camera is waited for: %s", disconnect_reason)

    def _absence(self) -> str | None:
        """Why a remote camera is not there; None where it is, and of every other camera."""
        return None if self._remote is None else self._remote.disconnect_reason

    def _is_unwanted(self) -> bool:
        """Whether everyone left while the camera was being brought back."""
        with self._changed:
            return not self._leases or self._failure is not None

    def _expect_frames(self) -> None:
        """From now on the watchdog counts anew; the first frame wakes the camera thread."""
        self._watchdog.begin(time.monotonic())
        self._awaits_frame = True

    def _obey(self) -> None:
        """Carry the next order out, and tell who waits for it."""
        with self._changed:
            order = self._orders.begin()
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
                self._watchdog.excuse(now_s)
            pause_s = now_s - began_s if self._has_stream() else None
            is_taken = self._orders.end(order, result, error, pause_s=pause_s)
            self._changed.notify_all()
        if isinstance(result, Frame) and not is_taken:
            result.release()

    def _pause_for(self, take: Callable[[], Any]) -> Any:
        with self._without_frames():
            return take()

    def _reopen(self) -> None:
        log.info("Opening the camera again, as what was set needs it")
        self._change(State.OPENING)
        try:
            self._close_camera()
            refused = self._open_camera(State.OPEN)
        except CameraError as error:
            # No stream is left that could go on: the end, as where the first opening fails.
            self._fail(error)
            self._let_go()
            raise  # who waits for it must not read a success
        if refused is not None:
            raise refused

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
        self._changes.count()
        if self._remote is not None:
            self._follow_mode(self._remote)
        self.frames.put(frame)
        if epoch != self._epoch or self._is_deaf:
            # The camera began to stop since we looked, and waits for its buffers. It is told first and cleared after
            # (`_without_frames`), here it is the other way round: one of the two sees the frame.
            self.frames.clear()
            return
        self.frames.notify()
        self._pace.count(frame.metadata, now_s)
        # A frame from before it was waited for does not count: `Watchdog.has_heard` would not take it either.
        if self._awaits_frame and now_s > self._watchdog.due_from_s:
            self._awaits_frame = False
            with self._changed:
                self._changed.notify_all()

    def _follow_mode(self, remote: Remote) -> None:
        """What comes back may have another picture than what went."""
        mode = remote.config
        if self._mode is None or self._mode is mode:
            return
        with self._changed:
            if self._mode is not None:
                self._mode = mode

    def _look_again(self) -> None:
        """A remote camera has gone, or is away for another reason."""
        with self._changed:
            self._changed.notify_all()

    def _read_metadata(self, frame: Frame, now_s: float) -> None:
        is_settled = self._first_frames.are_at_rest(frame.metadata, now_s)
        self.focus.step(frame)
        for listener in self._listeners:
            listener.on_frame(frame.metadata, is_settled=is_settled)
        self._first_frames.judge(frame.metadata, time.monotonic())
