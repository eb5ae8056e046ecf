"""Brings what was asked to the camera, and keeps it there: after every opening, and by day and by night.

A `ControlManager` is the holder's desk. Threads of requests call `change`, `reset` and what looks; the holder's
camera thread and the camera's frame thread call what `SessionListener` has. No lock is held while controls are sent
or the camera is reopened, but `_changing`, which only keeps two changes from mixing and which no thread of the camera
ever takes. One thread sends at a time: whoever comes meanwhile leaves what is new to it, or waits for its turn where
the answer is wanted.
A state is proven when frames have come with it. One that is not gives way to the last that was, or where there was none
since the process began, to none, when the camera does not open with it or gives no frames. When frames come without it,
it was the state, and its file is set aside; a camera that gives none without it either says nothing against the state.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

from softcam.camera.base import StreamConfig, StreamRequest
from softcam.camera.session.autofocus_cycle import AfMode, FocusOutcome
from softcam.camera.session.manager import CameraManager, State
from softcam.controls import capabilities, geometry, mapping
from softcam.controls.day_night import Light, Scene
from softcam.controls.exposure_limits import Limits
from softcam.controls.schema import BadValue, Group
from softcam.controls.state import RequestedControls, Store, contradiction, held_values
from softcam.controls.writer import BackgroundWriter
from softcam.errors import CameraError, NotSupported

log = logging.getLogger(__name__)

_REOPEN_LIMIT_S: Final = 40.0  # closing and opening have their own, shorter limits; this one is above both
_TURN_LIMIT_S: Final = 10.0  # for the change before: most open the camera again at the worst, within some seconds
_SEND_LIMIT_S: Final = 5.0  # for another thread's controls, of which sending does not block
_RUNNING: Final = frozenset({State.OPENING, State.OPEN, State.LINGERING, State.RECOVERING})
_AF_SCANNING: Final = 1  # of libcamera's AfStateEnum


@dataclass(frozen=True, slots=True)
class _Standing:
    """What is asked, and whether it works: frames came with it, or with `fallback` before it."""

    asked: RequestedControls
    is_proven: bool
    fallback: RequestedControls | None = None

    def followed_by(self, asked: RequestedControls, *, is_proven: bool) -> "_Standing":
        return _Standing(asked, is_proven, None if is_proven else self.asked if self.is_proven else self.fallback)


class ControlManager:
    """What one camera is told beyond being open."""

    def __init__(self, manager: CameraManager | None, configured: StreamRequest, store: Store) -> None:
        """Loads what was kept; becomes the holder's desk.

        `manager` is None where the camera is switched off: then all is as with one that stays closed.
        """
        self._held = manager
        self._configured = configured
        self._store = store
        self._changing = threading.Lock()  # one change at a time; guards nothing that the camera's threads look at
        self._keeper = BackgroundWriter()  # which alone calls the store, but for what only looks
        self._lock = threading.Lock()  # guards the fields down to the end
        self._idle = threading.Condition(self._lock)  # nobody sends
        self._is_sending = False
        asked = store.load()
        self._standing = _Standing(asked, asked.is_empty)
        self._before: _Standing | None = None  # to go back to while a change is being tried
        self._is_on_trial = False
        self._suspicion = store.suspicion  # why a state is not used, until its file is set aside
        # The opening, until frames have come in a later one.
        self._suspected_in = None if store.suspicion is None else 0
        self._opening = 0  # counts them: what one was sent, the next does not know
        self._mode: StreamConfig | None = None
        self._last_mode: StreamConfig | None = None  # of the last opening: what is known while the camera is closed
        self._last_wish: StreamRequest | None = None  # what it came of
        self._opened_with: StreamRequest | None = None
        self._tried_with: StreamRequest | None = None  # the same, also when it is closed again
        self._sent: dict[str, Any] = {}
        self._lacking: tuple[str, ...] = ()
        self._light = Light()
        self._generation = 0  # of what is wanted
        self._asks_to_hold: tuple[str, ...] = ()  # automatics that were stopped where nothing was known of their values
        self._look_again()
        if manager is not None:
            manager.subscribe(self)

    # --- threads of requests ----------------------------------------------------------------------------------

    @property
    def asked(self) -> RequestedControls:
        with self._lock:
            return self._standing.asked

    @property
    def mode(self) -> StreamConfig | None:
        """The camera's mode, or its last one while it is closed; None where it was never open."""
        with self._lock:
            return self._mode or self._last_mode

    @property
    def given(self) -> StreamConfig | None:
        """What the camera made of the size and rate that count now; None where it has yet to be opened with them."""
        with self._lock:
            is_known = self._last_wish == mapping.wish_for(self._standing.asked, self._configured)
            return self._mode or (self._last_mode if is_known else None)

    @property
    def wish(self) -> StreamRequest:
        """What the open camera was asked for, or would be."""
        with self._lock:
            return self._opened_with or mapping.wish_for(self._standing.asked, self._configured)

    @property
    def is_night(self) -> bool:
        with self._lock:
            return self._light.is_night

    @property
    def orientation(self) -> int:
        """EXIF's, for every picture."""
        return geometry.exif_orientation(self.asked.get("transform", "rotation"))

    def scene(self, lux: float | None) -> Scene | None:
        with self._lock:
            return self._light.scene(lux)

    def troubles(self) -> dict[str, Any]:
        """For the status: what is not as it was asked, and why."""
        with self._lock:
            suspicion, lacking = self._suspicion, self._lacking
        return {
            "controls_set_aside": suspicion or self._store.set_aside_because,
            "controls_not_kept": self._keeper.trouble or self._store.trouble,
            "controls_not_applied": list(lacking),
        }

    def change(self, group: Group, values: Mapping[str, Any]) -> None:
        """Set these checked values, all or none; returns when the camera has them, or at once where it is closed.

        An autofocus cycle that is asked for with them is judged here, and begun by `focus_now`.

        Raises BadValue for what contradicts itself, NotSupported for what this camera lacks, and the CameraError that
        kept it from opening with them.
        """
        kept = {name: value for name, value in values.items() if (group.name, name) != ("autofocus", "trigger")}

        def follow(asked: RequestedControls) -> RequestedControls:
            if group.name == "autofocus" and values.get("trigger") and mapping.focus_mode(asked) is AfMode.MANUAL:
                raise NotSupported("trigger: the focus is set by hand; set autofocus_mode to auto or continuous first")
            asked = asked.with_values(group, kept) if kept else asked
            if (fault := contradiction(asked)) is not None:
                raise BadValue(fault)
            return asked

        with self._turn():
            mode = self.mode
            if mode is not None and (reason := capabilities.refusal(group, values, mode)) is not None:
                raise NotSupported(reason)
            self._put(follow)

    def reset(self) -> None:
        """Back to the defaults, all of it."""
        with self._turn():
            self._put(lambda _: RequestedControls())

    def focus_now(self, timeout_s: float) -> FocusOutcome | None:
        """One autofocus cycle; None where it cannot be, be it that the focus is set by hand, or no end was seen."""
        return self._manager.focus.trigger(time.monotonic() + timeout_s)

    def still_view(self, *, is_whole: bool) -> mapping.StillView:
        """What a still is told alone: to show the zoom in its own shape, or none of it where it is the whole sensor."""
        return mapping.still_view(self.asked, is_whole=is_whole)

    # --- the holder's desk ------------------------------------------------------------------------------------

    def on_opening(self) -> None:
        with self._lock:
            wish = mapping.wish_for(self._standing.asked, self._configured)
            self._opened_with = self._tried_with = wish
            is_first_try = not self._standing.is_proven and not self._is_on_trial
            self._is_on_trial = not self._standing.is_proven
            is_without = self._opening == self._suspected_in == 0
        if is_first_try:
            self._keeper.do(self._store.begin_trial)
        elif is_without:
            self._keeper.do(self._store.end_trial)  # if this ends the process as well, it was not the state
        self._manager.camera.prepare(wish)

    def on_configured(self, config: StreamConfig) -> None:
        with self._lock:
            self._mode = self._last_mode = config
            self._last_wish = self._opened_with
            self._sent = {}
            self._opening += 1
            self._light.begin()
            self._look_again()
        self._send()

    def on_open_failed(self, error: CameraError) -> bool:
        return self._take_back(f"the camera does not open with it: {error}", is_change_told=True)

    def on_stall(self) -> None:
        self._take_back("the camera gives no frames with it", is_change_told=False)

    def on_closing(self) -> None:
        with self._lock:
            self._mode = None
            self._opened_with = None
            self._sent = {}
            self._light.begin()
            was_on_trial, self._is_on_trial = self._is_on_trial, False
        # Whoever closes in order neither hung nor died of the state; what else speaks against it is told by itself.
        # Waited for, since the process may end next.
        if was_on_trial:
            self._keeper.do(self._store.end_trial)

    def on_closed(self) -> None: ...

    def on_frame(self, metadata: Mapping[str, Any], *, is_settled: bool) -> None:
        # A harmless race: each is looked at once more with the next frame.
        if not self._standing.is_proven or self._suspected_in is not None:
            self._prove()
        if not is_settled:
            return
        if self._asks_to_hold:
            self._hold(metadata)
        with self._lock:
            is_changed = self._light.step(metadata, time.monotonic())
            self._generation += is_changed
        if is_changed:
            self._send()

    # --- inside -----------------------------------------------------------------------------------------------

    @property
    def _manager(self) -> CameraManager:
        """For what is only done with an open camera."""
        if self._held is None:
            raise CameraError("the camera is switched off (CAMERA_ENABLED=0)")
        return self._held

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """One change at a time. Raises CameraError where the one before takes too long."""
        if not self._changing.acquire(timeout=_TURN_LIMIT_S):
            raise CameraError("another change is still being made; try again")
        try:
            yield
        finally:
            self._changing.release()

    def _put(self, follow: Callable[[RequestedControls], RequestedControls]) -> None:
        """Take a new state over, and tell the camera; back to the one before where that fails. Within a turn."""
        with self._lock:
            before = self._standing
            asked = follow(before.asked)
            if asked is before.asked:
                return
            is_running = self._opened_with is not None and self._manager.status_state in _RUNNING
            is_to_reopen = is_running and mapping.wish_for(asked, self._configured) != self._opened_with
            # What takes effect at an opening is proven by one; the rest by being taken.
            is_proven = asked.is_empty or (is_running and not is_to_reopen and before.is_proven)
            self._standing = before.followed_by(asked, is_proven=is_proven)
            self._before = before
            self._look_again()
        try:
            if is_to_reopen:
                with self._manager.lease("hold"):
                    self._manager.reopen(time.monotonic() + _REOPEN_LIMIT_S)
            else:
                self._send(is_strict=True)
        except CameraError:
            with self._lock:
                if self._before is not None:  # otherwise a thread of the camera took more back
                    self._standing, self._before = self._before, None
                self._look_again()
            self._send()
            raise
        with self._lock:
            is_taken_back, self._before = self._before is None, None
        if is_taken_back:
            raise CameraError("taken back: the camera gives no frames with it")
        self._keeper.do(self._save)

    def _take_back(self, reason: str, *, is_change_told: bool) -> bool:
        """What is asked does harm: back to what worked; False where nothing speaks against it.

        `is_change_told`: a change that is being tried is answered with the trouble, and need not be told otherwise.
        """
        with self._lock:
            before = self._before
            is_tried = self._is_tried()
            is_change = before is not None and is_tried and is_change_told
            suspect = self._standing if before is None or is_tried else before
            if before is not None and is_change:
                self._standing = before
            elif suspect.is_proven:
                return False
            else:
                self._standing = _Standing(suspect.fallback or RequestedControls(), is_proven=True)
            self._before = None
            self._is_on_trial = False  # the mark stays: a camera that is stuck until the process ends tells no more
            self._look_again()
            if not is_change:
                if not self._standing.asked.is_empty:
                    reason += "; what worked before is used"
                self._suspicion, self._suspected_in = reason, self._opening
        if not is_change:
            log.warning("What is set is not used: %s", reason)
        return True

    def _is_tried(self) -> bool:
        """Whether the camera was opened with what is asked: a change that waits for its turn neither works nor harms.

        The caller holds the lock.
        """
        return mapping.wish_for(self._standing.asked, self._configured) == self._tried_with

    def _plan(self) -> mapping.ControlPlan:
        """The caller holds the lock."""
        return mapping.plan(self._standing.asked, self._configured, self._mode, is_night=self._light.is_night)

    def _look_again(self) -> None:
        """What follows from a new state or a new opening. The caller holds the lock, or is alone."""
        self._generation += 1
        asked = self._standing.asked
        self._light.ask(asked)
        mode = self._mode
        if mode is None or "ExposureTime" not in mode.controls:
            self._light.limit(Limits(), 1.0)
        else:
            limits = mapping.plan(asked, self._configured, mode, is_night=False).limits
            self._light.limit(limits, float(mode.controls.get("AnalogueGain", (1.0, 1.0, 1.0))[0]))
        self._asks_to_hold = asked.to_hold

    def _send(self, *, is_strict: bool = False) -> None:
        """Tell an open camera what it does not know yet. Raises CameraError where `is_strict` and it does not take it.

        Otherwise what it lacks is left out and told in the status.
        """
        with self._lock:
            if self._is_sending and not is_strict:
                return  # who sends looks once more before it ends
            if not self._idle.wait_for(lambda: not self._is_sending, _SEND_LIMIT_S):
                raise CameraError("the camera takes no controls")
            self._is_sending = True
        is_last = False
        try:
            while not is_last:
                is_last = self._send_once(is_strict=is_strict)
                is_strict = False
        finally:
            if not is_last:
                self._stop_sending()

    def _send_once(self, *, is_strict: bool) -> bool:
        """The end of sending where True; False where what is wanted changed meanwhile, so that there is more to send.

        Not so strict then: only the first is what the caller answers for.
        """
        with self._lock:
            generation, opening = self._generation, self._opening
            plan, mode, sent = self._plan(), self._mode, dict(self._sent)
            wanted = {**plan.controls, **self._light.controls}
            if mode is None:
                self._end_sending()
                return True
            lacking = capabilities.not_applied(self._standing.asked, mode)
        wanted = {name: value for name, value in wanted.items() if name in mode.controls}
        news = {name: value for name, value in wanted.items() if name not in sent or sent[name] != value}
        given_back = sent.keys() - wanted.keys()
        resets = {name: mapping.reset_value(name, mode, plan.wish) for name in given_back if name in mode.controls}
        focus = self._manager.focus
        if plan.focus is AfMode.MANUAL:
            focus.prefer(plan.focus, has_lens=mode.has_autofocus)  # first, so that nothing comes behind it
        try:
            told = news | {name: value for name, value in resets.items() if value is not None}
            if told:
                self._manager.set_controls(told)
        except CameraError as error:
            if is_strict:
                raise
            lacking = (*lacking, str(error))
        else:
            with self._lock:
                if opening == self._opening:
                    self._sent.update(news)
                    # Also what has no value to go back to: it is news when it is set again.
                    for name in given_back:
                        self._sent.pop(name, None)
        if plan.focus is not AfMode.MANUAL and focus.prefer(plan.focus, has_lens=mode.has_autofocus):
            if self._manager.status().is_streaming:
                focus.stream_started()
            else:
                focus.look_again()
        with self._lock:
            is_news = lacking != self._lacking
            self._lacking = lacking
            is_last = generation == self._generation
            if is_last:
                self._end_sending()
        if is_news and lacking:
            log.warning("Not applied: %s", "; ".join(lacking))
        return is_last

    def _stop_sending(self) -> None:
        with self._lock:
            self._end_sending()

    def _end_sending(self) -> None:
        """The caller holds the lock, and has just seen that there is nothing more to send, or failed."""
        self._is_sending = False
        self._idle.notify_all()

    def _prove(self) -> None:
        was_on_trial = False
        with self._lock:
            is_the_states_fault = self._suspected_in is not None and self._opening > self._suspected_in
            if is_the_states_fault:
                self._suspected_in = None
            if not self._standing.is_proven and self._is_tried():
                self._standing = _Standing(self._standing.asked, is_proven=True)
                was_on_trial, self._is_on_trial = self._is_on_trial, False
        # A card takes its time to write, and frames do not wait for it.
        if is_the_states_fault:
            self._keeper.put(self._set_aside)
        if was_on_trial:
            self._keeper.put(self._store.end_trial)

    def _set_aside(self) -> None:
        """On the keeper's thread, as what follows."""
        with self._lock:
            reason, instead = self._suspicion, (self._before or self._standing).asked
        if reason is not None:
            self._store.set_aside(reason, instead)
            with self._lock:
                self._suspicion = self._suspected_in = None

    def _hold(self, metadata: Mapping[str, Any]) -> None:
        """An automatic was stopped: keep the values of this moment, now that there are some."""
        is_lens_moving = metadata.get("AfState") == _AF_SCANNING
        is_news = False
        with self._lock:
            for group in self._asks_to_hold:
                values = held_values(group, metadata)
                if values is None or (is_lens_moving and "LensPosition" in values):
                    continue
                asked = self._standing.asked.with_held(group, values)
                self._standing = replace(self._standing, asked=asked)
                is_news = True
            if is_news:
                self._look_again()
        if is_news:
            self._send()
            self._keeper.put(self._save)  # see `_prove`

    def _save(self) -> None:
        self._set_aside()  # what is written now takes its place
        with self._lock:
            # A change that is being tried is not to be found by the next process before it has worked.
            asked = (self._before or self._standing).asked
        self._store.save(asked)
