"""The current state of the controls, and the rule for one that keeps the camera from starting.

A state is *confirmed* once frames arrive after the camera was opened with it. **A state not yet confirmed is dropped
and quarantined when the camera does not start with it**: when the camera fails to open, when it delivers no frames, or
when the process hangs or crashes meanwhile, which the next process recognizes by the mark in the store. The last state
that this process confirmed is used instead, or the defaults. A confirmed state is never dropped.

Request threads change the state; the camera thread reports openings, the camera's frame thread the first frame.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from softcam.camera.base import StreamConfig, StreamRequest
from softcam.controls.mapping import is_same_opening, stream_request
from softcam.controls.state import RequestedControls
from softcam.controls.store import Store
from softcam.controls.writer import BackgroundWriter

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Revision:
    requested: RequestedControls
    is_confirmed: bool


class SafeMode:
    """Owns the state of one camera's controls. Any thread may call it; no lock is held while the disk is written.

    A change is in progress between `start_change` and `accept_change` or `revert_change`, one at a time. It is saved
    once it is accepted, so a process that crashes meanwhile starts again with the state before.
    """

    def __init__(self, configured: StreamRequest, store: Store, writer: BackgroundWriter) -> None:
        self._configured = configured
        self._store = store
        self._writer = writer  # alone calls the store after the loading
        requested = store.load()
        self._lock = threading.Lock()  # guards changes of the fields below; each may be read without it
        self._current = _Revision(requested, requested.is_empty)
        self._previous: _Revision | None = None  # while a change is in progress
        self._fallback = RequestedControls()  # the last confirmed state of this process
        self._config: StreamConfig | None = None  # of the last opening
        self.opened_with: StreamRequest | None = None  # None while the camera is closed
        self._attempted: StreamRequest | None = None  # of the last opening, also after the closing
        self._has_mark = False
        if store.is_unsaved:  # a step of the loading failed
            writer.submit_job(self._save)

    @property
    def requested(self) -> RequestedControls:
        return self._current.requested

    @property
    def is_confirmed(self) -> bool:
        return self._current.is_confirmed

    def stream_request(self) -> StreamRequest:
        """The request of the current state, with which the camera would be opened now."""
        return stream_request(self._current.requested, self._configured)

    def learn_modes(self, config: StreamConfig) -> None:
        """The camera is configured: from now on it is known which requests have the same sensor mode."""
        self._config = config

    def is_opening_of(self, request: StreamRequest | None) -> bool:
        """Whether a camera that was opened with `request` needs no reopening for the current state."""
        return request is not None and is_same_opening(request, self.stream_request(), self._config)

    # --- changes ----------------------------------------------------------------------------------------------

    def start_change(self, change: Callable[[RequestedControls], RequestedControls]) -> bool | None:
        """Make the result of `change` current; returns whether the camera must be reopened, None if nothing changed."""
        with self._lock:
            before = self._current
            requested = change(before.requested)
            if requested is before.requested:
                return None
            request, opened_with = stream_request(requested, self._configured), self.opened_with
            needs_reopening = opened_with is not None and not is_same_opening(opened_with, request, self._config)
            # What the running camera accepts without being reopened does not keep it from starting.
            is_applied = self.opened_with is not None and not needs_reopening and before.is_confirmed
            self._previous = before
            self._current = _Revision(requested, requested.is_empty or is_applied)
            if before.is_confirmed:
                self._fallback = before.requested
        return needs_reopening

    def accept_change(self) -> bool:
        """Save the change; returns False if it was reverted because the camera delivered no frames with it."""
        with self._lock:
            is_reverted, self._previous = self._previous is None, None
        if not is_reverted:
            self._writer.run_job(self._save)
        return not is_reverted

    def revert_change(self) -> None:
        """Return to the state before the change, unless that has happened already."""
        with self._lock:
            if self._previous is not None:
                self._current, self._previous = self._previous, None

    def update_state(self, change: Callable[[RequestedControls], RequestedControls]) -> bool:
        """Replace the current state by an equivalent one and save it; returns whether it differs. Does not wait."""
        with self._lock:
            before = self._current
            requested = change(before.requested)
            if requested is before.requested:
                return False
            self._current = _Revision(requested, before.is_confirmed)
        self._writer.submit_job(self._save)
        return True

    # --- the camera starts, or does not -----------------------------------------------------------------------

    def start_attempt(self) -> StreamRequest:
        """The camera is about to be opened: returns the request. Writes the mark if the state is not confirmed."""
        with self._lock:
            current = self._current
            self.opened_with = self._attempted = request = self.stream_request()
            self._has_mark |= not current.is_confirmed
        if not current.is_confirmed:
            self._writer.run_job(partial(self._update_mark, partial(self._store.start_attempt, current.requested)))
        return request

    def confirm_state(self) -> None:
        """A frame has arrived. Does not wait for the disk."""
        with self._lock:
            if self._current.is_confirmed or not self._is_attempted():
                return
            self._current = _Revision(self._current.requested, is_confirmed=True)
            has_mark, self._has_mark = self._has_mark, False
        if has_mark:
            self._writer.submit_job(partial(self._update_mark, self._store.end_attempt))

    def end_attempt(self) -> None:
        """The camera is being closed. Waits until the mark is removed, as the process may exit next."""
        with self._lock:
            self.opened_with = None
            has_mark, self._has_mark = self._has_mark, False
        if has_mark:
            self._writer.run_job(partial(self._update_mark, self._store.end_attempt))

    def drop_unconfirmed(self, reason: str) -> bool:
        """The camera does not start: revert to the previous state. Returns False if the state is confirmed."""
        with self._lock:
            is_attempted = self._is_attempted()
            if self._previous is not None and is_attempted:
                # The change was not saved, and its request reports the error.
                self._current, self._previous = self._previous, None
                return True
            suspect = self._previous or self._current
            if suspect.is_confirmed:
                return False
            fallback = self._fallback
            self._current, self._previous = _Revision(fallback, is_confirmed=True), None
            self._has_mark = False
        if not fallback.is_empty:
            reason += "; the previous controls are used"
        log.warning("Reverted to previous controls: %s", reason)
        self._writer.run_job(partial(self._update_mark, partial(self._store.quarantine, reason, fallback)))
        return True

    def _is_attempted(self) -> bool:
        """Whether the camera was opened with the current state, not before it. The caller holds the lock."""
        return self.is_opening_of(self._attempted)

    # --- the writer's thread ----------------------------------------------------------------------------------

    def _save(self) -> bool:
        """Returns False if it has to be tried again."""
        with self._lock:
            requested = (self._previous or self._current).requested  # not a change in progress
            has_mark = self._has_mark
        self._store.save(requested)
        if not has_mark and not self._store.is_unsaved:  # it is still there if it could not be removed
            self._store.end_attempt()
        return not self._store.is_unsaved

    def _update_mark(self, update: Callable[[], None]) -> None:
        """If the disk does not permit it, the state is saved again as soon as it does, without an outdated mark."""
        is_done = False
        try:
            update()
            is_done = not self._store.is_unsaved
        except Exception:  # not for the writer: it would run an outdated update again
            log.exception("Failed to save state")
        if not is_done:
            self._writer.submit_job(self._save)
