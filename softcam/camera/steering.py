"""Brings what was asked to the camera, and keeps it there: after every opening, and by day and by night.

A `Steering` is the holder's desk. Threads of requests call `change`, `reset` and what looks; the holder's camera thread
and the camera's frame thread call what `Desk` has. No lock is held while controls are sent or the camera is reopened,
but `_changing`, which only keeps two changes from mixing and which no thread of the camera ever takes.
"""

import logging
import threading
import time
from collections.abc import Mapping
from typing import Any, Final

from softcam.camera.base import StreamMode, StreamWish
from softcam.camera.holder import CameraHolder, State
from softcam.controls import geometry, merge
from softcam.controls.autofocus import FocusOutcome
from softcam.controls.daynight import DayNight, Scene, scene_of
from softcam.controls.limits import Governor
from softcam.controls.state import Asked, Store
from softcam.controls.table import GROUPS, BadValue, Group
from softcam.errors import CameraError, NotSupported
from softcam.workers import start_worker

log = logging.getLogger(__name__)

_REOPEN_LIMIT_S: Final = 40.0  # closing and opening have their own, shorter limits; this one is above both
_RUNNING: Final = frozenset({State.OPENING, State.OPEN, State.LINGERING, State.RECOVERING})
# Where an automatic is stopped while nothing is known of its values: read as soon as it has settled.
_HOLDS: Final[Mapping[str, tuple[str, ...]]] = {
    "auto_exposure": ("ExposureTime", "AnalogueGain"),
    "awb": ("ColourGains",),
}


class Steering:
    """What one camera is told beyond being open."""

    def __init__(self, holder: CameraHolder, configured: StreamWish, store: Store) -> None:
        """Loads what was kept; becomes the holder's desk."""
        self._holder = holder
        self._configured = configured
        self._store = store
        self._changing = threading.Lock()  # one change at a time; guards nothing that the camera's threads look at
        self._lock = threading.Lock()  # guards the fields down to the next comment
        self._asked = store.load()
        self._before: Asked | None = None  # to go back to while a change is being tried
        self._is_proven = self._asked.is_empty  # frames have come with this state
        self._is_on_trial = False
        self._mode: StreamMode | None = None
        self._last_mode: StreamMode | None = None  # of the last opening: what is known while the camera is closed
        self._opened_with: StreamWish | None = None
        self._sent: dict[str, Any] = {}
        self._lacking: tuple[str, ...] = ()
        self._is_night = False
        self._generation = 0  # of what is wanted
        self._day_night = DayNight(10.0, 2.0)
        self._governor: Governor | None = None
        self._asks_to_hold: tuple[str, ...] = ()  # automatics that were stopped where nothing was known of their values
        self._look_again()
        holder.desk = self

    # --- threads of requests ----------------------------------------------------------------------------------

    @property
    def asked(self) -> Asked:
        with self._lock:
            return self._asked

    @property
    def mode(self) -> StreamMode | None:
        """The camera's mode, or its last one while it is closed; None where it was never open."""
        with self._lock:
            return self._mode or self._last_mode

    @property
    def is_night(self) -> bool:
        with self._lock:
            return self._is_night

    @property
    def orientation(self) -> int:
        """EXIF's, for every picture."""
        return geometry.exif_orientation(self.asked.get("transform", "rotation"))

    def scene(self, lux: float | None) -> Scene | None:
        with self._lock:
            return scene_of(lux, self._asked.get("day_night_mode", "threshold_lux"), is_night=self._is_night)

    def troubles(self) -> dict[str, Any]:
        """For the status: what is not as it was asked, and why."""
        with self._lock:
            return {
                "controls_set_aside": self._store.set_aside_because,
                "controls_not_kept": self._store.trouble,
                "controls_not_applied": list(self._lacking),
            }

    def change(self, group: Group, values: Mapping[str, Any]) -> None:
        """Set these checked values, all or none; returns when the camera has them, or at once where it is closed.

        Raises BadValue for what contradicts itself, NotSupported for what this camera lacks, and the CameraError that
        kept it from opening with them.
        """
        kept = {name: value for name, value in values.items() if (group.name, name) != ("autofocus", "trigger")}
        with self._changing:
            mode = self.mode
            if mode is not None and (reason := merge.lacks(group, values, mode)) is not None:
                raise NotSupported(reason)
            if not kept:
                return
            asked = self.asked.with_values(group, kept)
            if (fault := merge.contradiction(asked)) is not None:
                raise BadValue(fault)
            self._put(asked)

    def reset(self) -> None:
        """Back to the defaults, all of it."""
        with self._changing:
            self._put(Asked())

    def focus_now(self, timeout_s: float) -> FocusOutcome | None:
        """One autofocus cycle; None where the camera is closed or its end was not seen. Raises NotSupported."""
        mode = self.mode
        if mode is not None and not mode.has_autofocus:
            raise NotSupported("trigger: this camera has no AfMode")
        if merge.focus_mode(self.asked) is not None and self._plan().controls.get("AfMode") == 0:
            raise NotSupported("trigger: the focus is set by hand; set autofocus_mode to auto or continuous first")
        return self._holder.focus.trigger(time.monotonic() + timeout_s)

    def still_controls(self, size: tuple[int, int] | None) -> dict[str, Any]:
        """What counts for a still of this size alone, None being the whole sensor."""
        with self._lock:
            return {} if self._mode is None else merge.still_controls(self._asked, self._mode, size)

    # --- the holder's desk ------------------------------------------------------------------------------------

    def before_open(self) -> None:
        wish = self._plan().wish
        self._holder.camera.prepare(wish)
        with self._lock:
            self._opened_with = wish
            is_first_try = not self._is_proven and not self._is_on_trial
            self._is_on_trial = not self._is_proven
        if is_first_try:
            self._store.begin_trial()

    def opened(self, mode: StreamMode) -> None:
        with self._lock:
            self._mode = self._last_mode = mode
            self._sent = {}
            self._look_again()
        self._send()

    def refused(self, error: CameraError) -> bool:
        with self._lock:
            if self._before is not None:
                self._asked, self._before = self._before, None
                self._is_proven = True
            elif not self._is_proven:
                self._asked = Asked()
                self._is_proven = True
                self._store.set_aside(f"the camera does not open with it: {error}")
            else:
                return False
            self._is_on_trial = False
            self._look_again()
            return True

    def went_silent(self) -> None:
        with self._lock:
            is_suspect = not self._is_proven and self._before is None
        if is_suspect:
            self.refused(CameraError("no frame came"))

    def closed(self) -> None:
        with self._lock:
            self._mode = None
            self._sent = {}
            self._governor = None

    def frame_came(self, metadata: Mapping[str, Any], *, is_settled: bool) -> None:
        # A harmless race: each is looked at once more with the next frame.
        if not self._is_proven:
            self._prove()
        if not is_settled:
            return
        if self._asks_to_hold:
            self._hold(metadata)
        is_changed = False
        lux = metadata.get("Lux")
        with self._lock:
            if self._asked.get("day_night_mode", "mode") == "auto" and isinstance(lux, int | float):
                was_night, self._is_night = self._is_night, self._day_night.step(lux, time.monotonic())
                if self._is_night != was_night:
                    log.info("%s at %.1f lux", "Night" if self._is_night else "Day", lux)
                    is_changed = True
            if self._governor is not None:
                is_changed |= self._governor.step(metadata)
            self._generation += is_changed
        if is_changed:
            self._send()

    # --- inside -----------------------------------------------------------------------------------------------

    def _put(self, asked: Asked) -> None:
        """Take a new state over, and tell the camera; back to the one before where that fails. Under `_changing`."""
        with self._lock:
            before = self._asked
            is_running = self._holder.status_state in _RUNNING
            wish = merge.wish_for(asked, self._configured)
            is_to_reopen = is_running and wish != (self._opened_with or wish)
            self._asked = asked
            self._before = before if is_to_reopen else None
            # What takes effect at an opening is proven by one; the rest by being taken.
            self._is_proven = asked.is_empty or (is_running and not is_to_reopen and self._is_proven)
            self._look_again()
        try:
            if is_to_reopen:
                with self._holder.lease("hold"):
                    self._holder.reopen(time.monotonic() + _REOPEN_LIMIT_S)
            else:
                self._send(is_strict=True)
        except CameraError:
            with self._lock:
                self._asked, self._before = before, None
                self._is_proven = True
                self._look_again()
            self._send()
            raise
        with self._lock:
            self._before = None
        self._store.save(self.asked)

    def _plan(self) -> merge.Plan:
        with self._lock:
            return merge.plan(self._asked, self._configured, self._mode, is_night=self._is_night)

    def _look_again(self) -> None:
        """What follows from a new state or a new opening. The caller holds the lock, or is alone."""
        self._generation += 1
        asked = self._asked
        threshold_lux, hysteresis = (asked.get("day_night_mode", name) for name in ("threshold_lux", "hysteresis"))
        if (threshold_lux, hysteresis) != (self._day_night.threshold_lux, self._day_night.hysteresis):
            self._day_night = DayNight(threshold_lux, hysteresis)
        word = asked.get("day_night_mode", "mode")
        self._is_night = word == "night" or (word == "auto" and self._day_night.is_night)
        mode = self._mode
        limits = merge.plan(asked, self._configured, mode, is_night=False).limits
        if mode is None or limits.is_none or "ExposureTime" not in mode.controls:
            self._governor = None
        elif self._governor is None or self._governor.limits != limits:
            gain = mode.controls.get("AnalogueGain", (1.0, 1.0, 1.0))[0]
            self._governor = Governor(limits, float(gain))
        self._asks_to_hold = tuple(
            name for name in _HOLDS if asked.get(name, "enabled") is False and name not in asked.held
        )

    def _send(self, *, is_strict: bool = False) -> None:
        """Tell an open camera what it does not know yet. Raises CameraError where `is_strict` and it does not take it.

        Otherwise what it lacks is left out and told in the status.
        """
        while not self._send_once(is_strict=is_strict):
            is_strict = False

    def _send_once(self, *, is_strict: bool) -> bool:
        """False where what is wanted changed meanwhile, so that there is more to send."""
        with self._lock:
            generation = self._generation
            plan = merge.plan(self._asked, self._configured, self._mode, is_night=self._is_night)
            mode, sent = self._mode, dict(self._sent)
            wanted = dict(plan.controls)
            if self._governor is not None:
                wanted |= self._governor.controls
        if mode is None:
            return True
        lacking = self._lacks(mode)
        wanted = {name: value for name, value in wanted.items() if name in mode.controls}
        news = {name: value for name, value in wanted.items() if name not in sent or sent[name] != value}
        resets = {name: merge.reset_value(name, mode, plan.wish) for name in sent.keys() - wanted.keys()}
        news |= {name: value for name, value in resets.items() if value is not None and name in mode.controls}
        try:
            if news:
                self._holder.set_controls(news)
        except CameraError as error:
            if is_strict:
                raise
            lacking = (*lacking, str(error))
        with self._lock:
            for name, value in news.items():
                if name in resets:
                    self._sent.pop(name, None)
                else:
                    self._sent[name] = value
            is_last = generation == self._generation
            is_news = lacking != self._lacking
            self._lacking = lacking
        if is_news and lacking:
            log.warning("Not applied: %s", "; ".join(lacking))
        self._holder.focus.prefer(plan.focus, has_lens=mode.has_autofocus)
        if plan.focus is None and "AfMode" in sent:
            if self._holder.status().leases["stream"]:
                self._holder.focus.stream_started()
            else:
                self._holder.focus.look_again()
        return is_last

    def _lacks(self, mode: StreamMode) -> tuple[str, ...]:
        asked = self.asked
        reasons = (merge.lacks(group, asked.groups[group.name], mode) for group in GROUPS if asked.has(group.name))
        return tuple(reason for reason in reasons if reason is not None)

    def _prove(self) -> None:
        with self._lock:
            self._is_proven = True
            was_on_trial, self._is_on_trial = self._is_on_trial, False
        if was_on_trial:
            self._store.end_trial()

    def _hold(self, metadata: Mapping[str, Any]) -> None:
        """An automatic was stopped: keep the values of this moment, now that there are some."""
        groups, self._asks_to_hold = self._asks_to_hold, ()
        for group in groups:
            values = {name: metadata[name] for name in _HOLDS[group] if name in metadata}
            with self._lock:
                if values and self._asked.get(group, "enabled") is False:
                    self._asked = self._asked.with_held(group, values)
                    self._look_again()
        self._send()
        # On a thread of its own: a card takes its time to write, and frames do not wait for it.
        start_worker("keep-state", self._save, log.error)

    def _save(self) -> None:
        with self._changing:
            self._store.save(self.asked)
