"""Drives autofocus cycles on an open camera: begins them, steps them with every frame, wakes who waits for the outcome.

Any thread may begin or wait; the camera's frame thread steps. What is decided is sent before anyone else decides:
otherwise the end of a cycle could send its continuous focus behind the manual focus that a user just set.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from softcam.camera.session.autofocus_cycle import AfMode, FocusCycle, FocusOutcome
from softcam.errors import CameraError
from softcam.imaging.frame import Frame

log = logging.getLogger(__name__)

_LEAST_ORDERED_S: Final = 2.0  # for a cycle that a user wants, also where the configuration has autofocus off


class Focus:
    """Autofocus of one camera: one cycle at a time, whoever asks while one runs shares its outcome."""

    def __init__(self, send: Callable[[Mapping[str, Any]], None], timeout_s: float) -> None:
        self._send = send
        self._timeout_s = timeout_s
        # Held from a decision until it was sent, which does not block (`Camera.set_controls`). Taken first.
        self._order = threading.Lock()
        self._changed = threading.Condition(threading.Lock())  # guards all fields below
        self._is_able = False
        self._is_able_by_default = False
        self._asked_mode: AfMode | None = None  # by a user; None leaves it to the streams
        self._cycle: FocusCycle | None = None
        self._resting_mode = AfMode.AUTO
        self._mode: AfMode | None = None  # what was sent last
        self._last: FocusOutcome | None = None

    @property
    def last_outcome(self) -> FocusOutcome | None:
        """How the newest finished cycle ended since the camera was opened."""
        with self._changed:
            return self._last

    @property
    def mode(self) -> AfMode | None:
        """The mode that the camera was told last, which libcamera does not tell back; None where it was told none."""
        with self._changed:
            return self._mode

    def camera_opened(self, is_able: bool) -> None:
        """A fresh camera: whatever ran before is over."""
        with self._changed:
            self._is_able = self._is_able_by_default = is_able
            self._cycle = None
            self._last = None
            self._resting_mode = AfMode.AUTO
            self._mode = None
            self._changed.notify_all()

    def camera_closed(self) -> None:
        self.camera_opened(is_able=False)

    def stream_started(self) -> None:
        """One full cycle, then continuous focus for as long as the camera stays open, unless a user wants otherwise."""
        with self._changed:
            if self._asked_mode is not AfMode.AUTO:
                self._resting_mode = AfMode.CONTINUOUS
        self._begin("the stream")

    def prefer(self, mode: AfMode | None, *, has_lens: bool) -> bool:
        """What a user wants: MANUAL no cycles, AUTO no continuous focus, CONTINUOUS always; None as streams need it.

        On an open camera it counts at once; AfMode MANUAL is sent by whoever sends the lens' position with it, after
        this: from here on nothing else is sent. True where this opening had a user's mode that is given up: the lens
        is then to be looked after anew.
        """
        with self._order:
            with self._changed:
                before, self._asked_mode = self._asked_mode, mode
                is_automatic = mode in (AfMode.AUTO, AfMode.CONTINUOUS)
                self._is_able = has_lens and mode is not AfMode.MANUAL and (is_automatic or self._is_able_by_default)
                # After an opening the camera is as streams need it, whatever a user wanted of the one before.
                if mode is None and (before is None or self._mode is None):
                    return False
                self._resting_mode = AfMode.AUTO if mode is None else mode
                if has_lens:
                    self._mode = self._resting_mode
                is_cut = self._cycle is not None and mode is AfMode.MANUAL
                if is_cut:
                    self._cycle = None
                    self._changed.notify_all()
                is_to_send = has_lens and mode is not AfMode.MANUAL and self._cycle is None
            if is_to_send:
                self._tell({"AfMode": int(AfMode.AUTO if mode is None else mode)})
        return mode is None

    def look_again(self) -> None:
        """A cycle that nobody waits for: the lens was set by hand until now."""
        self._begin("a lens that was set by hand")

    def trigger(self, deadline_s: float) -> FocusOutcome | None:
        """One cycle because a user says so, also where the configuration has none; as `acquire` otherwise."""
        return self._wait(self._begin("a user", is_ordered=True), deadline_s)

    def acquire(self, deadline_s: float) -> FocusOutcome | None:
        """One single acquisition before a still; blocks until its outcome or the deadline (monotonic clock).

        None when the camera has no autofocus or the time was over first; the cycle then goes on by itself.
        """
        return self._wait(self._begin("a snapshot"), deadline_s)

    def _wait(self, cycle: FocusCycle | None, deadline_s: float) -> FocusOutcome | None:
        if cycle is None:
            return None
        with self._changed:
            while self._cycle is cycle:
                left_s = deadline_s - time.monotonic()
                if left_s <= 0:
                    log.info("Autofocus cycle for %s is not over yet; it is not waited for", cycle.purpose)
                    return None
                self._changed.wait(left_s)
            return cycle.outcome  # None when the camera was closed meanwhile, or refused

    def step(self, frame: Frame) -> None:
        """Look at a frame's metadata; called by the camera's frame thread."""
        # A harmless race: a cycle begun at this moment is stepped from the next frame on.
        if self._cycle is None:
            return
        with self._order:
            with self._changed:
                cycle = self._cycle
                outcome = None if cycle is None else cycle.step(frame.metadata, time.monotonic())
                if outcome is None:
                    return
                resting_mode = self._resting_mode
            # Sent before the cycle is over for those who wait, so that no picture taken on the outcome is disturbed.
            if resting_mode is AfMode.CONTINUOUS:
                self._tell({"AfMode": int(AfMode.CONTINUOUS)})
            with self._changed:
                if self._cycle is cycle:  # not closed meanwhile
                    self._cycle = None
                    self._last = outcome
                    self._mode = resting_mode
                self._changed.notify_all()
        _log_outcome(outcome)

    def _begin(self, purpose: str, *, is_ordered: bool = False) -> FocusCycle | None:
        """The cycle that runs now, a new one or one that ran already; None where there can be none."""
        with self._order:
            with self._changed:
                if not (self._is_able or is_ordered) or self._asked_mode is AfMode.MANUAL:
                    return None
                if self._cycle is not None:
                    return self._cycle
                timeout_s = max(self._timeout_s, _LEAST_ORDERED_S) if is_ordered else self._timeout_s
                cycle = self._cycle = FocusCycle(purpose, time.monotonic(), timeout_s)
                self._mode = AfMode.AUTO
            log.info("Autofocus cycle for %s begins", purpose)
            if self._tell(cycle.controls()):
                return cycle
            with self._changed:
                if self._cycle is cycle:
                    self._cycle = None
                    self._changed.notify_all()
            return None

    def _tell(self, controls: Mapping[str, Any]) -> bool:
        """Send, and say whether the camera took it; one that refuses still gives pictures."""
        try:
            self._send(controls)
        except CameraError as error:
            log.warning("Autofocus: %s", error)
            return False
        return True


def _log_outcome(outcome: FocusOutcome) -> None:
    level = logging.INFO if outcome.is_focused else logging.WARNING
    where = "" if outcome.lens_position is None else f", lens at {outcome.lens_position:.2f} dioptres"
    log.log(level, "Autofocus cycle for %s %s after %.2f s%s", outcome.purpose, outcome.verdict, outcome.took_s, where)
