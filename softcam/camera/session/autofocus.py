"""Runs autofocus cycles on an open camera: starts them, feeds them the metadata of each frame, reports their outcome.

Any thread may start a cycle or wait for one; the camera's frame thread feeds it. What is decided is sent before another
decision is made: otherwise the end of a cycle could send its continuous focus after the manual focus that a user has
just set.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from softcam.camera.base import SessionListener, StreamConfig
from softcam.camera.session.autofocus_cycle import START_CONTROLS, AfMode, FocusCycle, FocusOutcome
from softcam.camera.session.sent_controls import SentControls
from softcam.errors import CameraError

log = logging.getLogger(__name__)

_MIN_USER_TIMEOUT_S: Final = 2.0  # of a cycle that a user requests, also if autofocus is disabled in the settings
_FOCUS_LASTS_S: Final = 30.0  # in a user's mode AUTO, where nothing follows changes of the scene


class Autofocus(SessionListener):
    """Autofocus of one camera: one cycle at a time, whose outcome is shared by all threads that request one meanwhile.

    Listens to the session; its methods that return an outcome may be called by any thread.
    """

    def __init__(
        self,
        send: Callable[[Mapping[str, Any]], None],
        sent: SentControls,
        timeout_s: float,
        *,
        is_enabled: bool,
        lasts_s: float = _FOCUS_LASTS_S,
    ) -> None:
        """`send` records in `sent` what it sends. Unless `is_enabled`, the lens moves only if a user requests it.

        Without continuous focus, a snapshot within `lasts_s` after a cycle does not focus again.
        """
        self._send = send
        self._sent = sent
        self._timeout_s = timeout_s
        self._is_enabled = is_enabled
        self._lasts_s = lasts_s
        # Held from a decision until it was sent, which does not block (`Camera.set_controls`). Acquired first.
        self._order = threading.Lock()
        self._changed = threading.Condition(threading.Lock())  # guards changes of all fields below
        self._is_open = False
        self._can_focus = False
        self._can_focus_by_default = False
        self._user_mode: AfMode | None = None  # None: as the streams need it
        self._cycle: FocusCycle | None = None
        self._resting_mode = AfMode.AUTO  # after a cycle
        self._ended_s: float | None = None  # the end of the last cycle of this opening; None if the lens was set since

    @property
    def mode(self) -> AfMode | None:
        """The mode that was sent last, which libcamera does not report back; None if none was sent since opening."""
        # A control that is sent to a closed camera has no effect, but is recorded until the next opening.
        mode = self._sent.values.get("AfMode") if self._is_open else None
        return None if mode is None else AfMode(mode)

    @property
    def has_cycle(self) -> bool:
        """Whether a cycle is running."""
        return self._cycle is not None

    # --- the session's listener -------------------------------------------------------------------------------

    def on_configured(self, config: StreamConfig) -> None:
        self._reset(is_open=True, can_focus=self._is_enabled and config.has_autofocus)

    def on_closing(self) -> None:
        self._reset(is_open=False, can_focus=False)

    def on_frame(self, metadata: Mapping[str, Any], *, is_settled: bool) -> None:  # noqa: ARG002 - see SessionListener
        # A harmless race: a cycle that starts at this moment gets its first metadata with the next frame.
        if self._cycle is None:
            return
        with self._order:
            with self._changed:
                cycle = self._cycle
                now_s = time.monotonic()
                outcome = None if cycle is None else cycle.process_frame(metadata, now_s)
                if outcome is None:
                    return
                self._ended_s = now_s
                resting_mode = self._resting_mode
            # Sent before the waiting threads see the outcome, so that it disturbs no image that they take then.
            if resting_mode is AfMode.CONTINUOUS:
                self._try_send({"AfMode": int(AfMode.CONTINUOUS)})
            self._end_cycle(cycle)
        level = logging.INFO if outcome.is_focused else logging.WARNING
        where = "" if outcome.lens_position is None else f", lens at {outcome.lens_position:.2f} dioptres"
        log.log(level, "Autofocus for %s %s after %.2f s%s", outcome.purpose, outcome.verdict, outcome.took_s, where)

    # --- any thread -------------------------------------------------------------------------------------------

    def keep_focused(self, purpose: str) -> None:
        """Start one cycle; then continuous focus for as long as the camera stays open, unless a user set another.

        Does nothing if that was done before in this opening; in a user's mode AUTO, if it was moments ago.
        """
        with self._changed:
            if self._user_mode is not AfMode.AUTO:
                self._resting_mode = AfMode.CONTINUOUS
        self._start_cycle(purpose, is_repeated=False)

    def wait_for_cycle(self, requested_s: float, budget_s: float) -> FocusOutcome | None:
        """Wait for a running cycle until the budget has passed since the request, or since the cycle began if earlier.

        The outcome is as in `focus_once`, and None if there is no cycle.
        """
        cycle = self._cycle
        return None if cycle is None else self._wait(cycle, min(requested_s, cycle.began_s) + budget_s)

    def set_user_mode(self, mode: AfMode | None, *, has_lens: bool) -> bool:
        """Set a user's mode: MANUAL has no cycles, AUTO no continuous focus; None is as the streams need it.

        On an open camera it applies at once, except for MANUAL: the caller sends that together with the lens position,
        after this call, from which on nothing else is sent. True if a user's mode of this opening was given up: the
        lens has to be focused anew.
        """
        with self._order:
            with self._changed:
                before, self._user_mode = self._user_mode, mode
                is_automatic = mode in (AfMode.AUTO, AfMode.CONTINUOUS)
                self._can_focus = has_lens and (is_automatic or (mode is None and self._can_focus_by_default))
                # After an opening the camera is as the streams need it, whatever a user set before.
                if mode is None and (before is None or self.mode is None):
                    return False
                self._resting_mode = AfMode.AUTO if mode is None else mode
                if mode is AfMode.MANUAL:
                    self._cancel_cycle("the focus is manual now")
                    self._ended_s = None
                is_to_send = has_lens and mode is not AfMode.MANUAL and self._cycle is None
            if is_to_send:
                self._try_send({"AfMode": int(AfMode.AUTO if mode is None else mode)})
        return mode is None

    def refocus(self) -> None:
        """Start a cycle that nobody waits for: the lens was set by hand until now."""
        self._start_cycle("a lens that was set by hand")

    def focus_on_request(self, deadline_s: float) -> FocusOutcome | None:
        """One cycle that a user requests, even if autofocus is disabled; otherwise as `focus_once`."""
        return self._wait(self._start_cycle("a user", is_requested=True), deadline_s)

    def focus_once(self, deadline_s: float) -> FocusOutcome | None:
        """One cycle before a still; blocks until its outcome or the deadline (monotonic clock).

        None if the camera has no autofocus, or at the deadline; the cycle then continues by itself.
        """
        return self._wait(self._start_cycle("a snapshot"), deadline_s)

    # --- inside -----------------------------------------------------------------------------------------------

    def _reset(self, *, is_open: bool, can_focus: bool) -> None:
        """Another opening, or none: a cycle of the one before is over."""
        with self._changed:
            self._is_open = is_open
            self._can_focus = self._can_focus_by_default = can_focus
            self._cancel_cycle("the camera is being closed")
            self._resting_mode = AfMode.AUTO
            self._ended_s = None

    def _start_cycle(self, purpose: str, *, is_requested: bool = False, is_repeated: bool = True) -> FocusCycle | None:
        """The running cycle, or a new one; None if there can be none, or unless `is_repeated` if none is needed."""
        with self._order:
            with self._changed:
                if not (self._can_focus or is_requested) or self._user_mode is AfMode.MANUAL:
                    return None
                if self._cycle is not None:
                    return self._cycle
                if not is_repeated and self._is_kept_focused():
                    return None
                timeout_s = max(self._timeout_s, _MIN_USER_TIMEOUT_S) if is_requested else self._timeout_s
                cycle = self._cycle = FocusCycle(purpose, time.monotonic(), timeout_s)
            log.info("Autofocus for %s started", purpose)
            if self._try_send(START_CONTROLS):
                return cycle
            self._end_cycle(cycle)
            return None

    def _is_kept_focused(self) -> bool:
        """Whether nothing would change with another cycle. The caller holds `_changed`."""
        if self._ended_s is None:
            return False
        if self._user_mode is AfMode.AUTO:
            return time.monotonic() < self._ended_s + self._lasts_s
        return self.mode is AfMode.CONTINUOUS

    def _cancel_cycle(self, reason: str) -> None:
        """End a running cycle without an outcome. The caller holds `_changed`."""
        if self._cycle is not None:
            log.info("Autofocus for %s cancelled: %s", self._cycle.purpose, reason)
            self._cycle = None
            self._changed.notify_all()

    def _end_cycle(self, cycle: FocusCycle | None) -> None:
        with self._changed:
            if self._cycle is cycle:  # the camera was not closed meanwhile
                self._cycle = None
                self._changed.notify_all()

    def _wait(self, cycle: FocusCycle | None, deadline_s: float) -> FocusOutcome | None:
        if cycle is None:
            return None
        with self._changed:
            budget_s = deadline_s - time.monotonic()
            if not self._changed.wait_for(lambda: self._cycle is not cycle, max(0.0, budget_s)):
                if budget_s > 0:  # else an earlier snapshot has logged it
                    log.info("Autofocus for %s continues beyond the time budget", cycle.purpose)
                return None
            return cycle.outcome  # None if the camera was closed meanwhile, or refused

    def _try_send(self, controls: Mapping[str, Any]) -> bool:
        """Whether the camera accepted the controls; one that refuses still delivers frames."""
        try:
            self._send(controls)
        except CameraError as error:
            log.warning("Autofocus: %s", error)
            return False
        return True
