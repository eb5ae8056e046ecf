"""Sends the requested controls to the camera: after each opening, and whenever the request or the light changes.

Only the difference to what was sent since the opening goes out. One thread sends at a time: a thread that has news
while another one sends leaves them to it, and a request waits for its turn, because it reports the camera's error. The
turn is the only lock that is held while controls are sent; threads of the camera never wait for it.
"""

import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from softcam.camera.base import SessionListener, StreamConfig, StreamRequest
from softcam.camera.session.autofocus_cycle import AfMode
from softcam.camera.session.manager import CameraManager
from softcam.controls import capabilities, mapping
from softcam.controls.day_night import Light
from softcam.controls.exposure_limits import Limits
from softcam.controls.safe_mode import SafeMode
from softcam.errors import CameraError

log = logging.getLogger(__name__)

_SEND_TIMEOUT_S: Final = 5.0  # for another thread's turn; sending does not block


@dataclass(frozen=True, eq=False, slots=True)
class _Opening:
    """An open camera: its configuration, and the controls that were sent from here; `SentControls` has their values."""

    config: StreamConfig
    controlled: frozenset[str] = frozenset()


class ControlSync(SessionListener):
    """The session listener that keeps the camera's controls as requested.

    The camera thread and the camera's frame thread call the `on_…` methods, request threads the others.
    """

    def __init__(self, manager: CameraManager | None, safe_mode: SafeMode, light: Light) -> None:
        """Subscribe to the session; without a `manager` the camera stays closed."""
        self._manager = manager
        self._safe_mode = safe_mode
        self._turn = threading.Lock()  # held while controls are sent
        self._sent_generation = 0  # written within a turn
        # Guards changes of the fields below. Acquired after `SafeMode`'s, which is never acquired while it is held.
        self._lock = threading.Lock()
        self._generation = 0  # counts changes of what is to be sent
        self._opening: _Opening | None = None  # None while the camera is closed
        self._is_starting = False  # until the first frames are settled
        self._last_request: StreamRequest | None = None  # which resulted in `config`
        self.config: StreamConfig | None = None  # the last one while the camera is closed; read without the lock
        # The requested controls that the camera does not apply, with the reason: written within a turn, read without.
        self.not_applied: tuple[str, ...] = ()
        self._light = light
        self.refresh_decisions()
        if manager is not None:
            manager.subscribe(self)

    @property
    def current_config(self) -> StreamConfig | None:
        """As `config`, but None if it is of another request than the current one."""
        with self._lock:
            is_current = self._opening is not None or self._safe_mode.is_opening_of(self._last_request)
            return self.config if is_current else None

    @property
    def rated_config(self) -> StreamConfig | None:
        """As `config`, but None if the frame rates of the current request do not follow from it.

        With sensor modes they follow for every size, unless HDR was switched, which changes the modes.
        """
        with self._lock:
            config, last = self.config, self._last_request
        if config is not None and config.sensor_modes is not None and last is not None:
            return config if last.hdr == self._safe_mode.stream_request().hdr else None
        return self.current_config

    def refresh_decisions(self) -> None:
        """Derive the decisions from a new state or a new opening; `send_changes` sends what follows from them."""
        with self._lock:
            requested = self._safe_mode.requested  # read here, so that the last refresh has the newest state
            self._generation += 1
            self._light.configure(requested)
            limits, least_gain = Limits(), 1.0
            if self._opening is not None and "ExposureTime" in self._opening.config.controls:
                config = self._opening.config
                limits = mapping.exposure_limits(requested, config)
                least_gain = float(config.controls.get("AnalogueGain", (1.0,))[0])
            self._light.set_limits(limits, least_gain)

    def send_changes(self, *, is_strict: bool = False) -> None:
        """Send to an open camera what it has not been sent yet. Raises its CameraError if `is_strict`.

        Otherwise controls that the camera rejects are reported in `not_applied`.
        """
        while is_strict or self._sent_generation != self._generation:
            if not self._turn.acquire(timeout=_SEND_TIMEOUT_S if is_strict else 0):
                if is_strict:
                    raise CameraError("the camera does not accept controls")
                return  # the sending thread checks for news after its turn
            try:
                self._send_once(is_strict=is_strict)
            finally:
                self._turn.release()
            is_strict = False  # news that arrive meanwhile are another caller's

    # --- the camera session -----------------------------------------------------------------------------------

    def on_opening(self) -> None:
        request = self._safe_mode.start_attempt()
        if self._manager is not None:
            self._manager.camera.prepare(request)

    def on_configured(self, config: StreamConfig) -> None:
        with self._lock:
            self._opening, self._is_starting = _Opening(config), True
            self.config, self._last_request = config, self._safe_mode.opened_with
            self._safe_mode.learn_modes(config)
            self._light.reset()
        self.refresh_decisions()
        self.send_changes()

    def on_open_failed(self, error: CameraError) -> bool:
        return self._drop_unconfirmed(f"the camera did not open with these controls: {error}")

    def on_stall(self) -> None:
        self._drop_unconfirmed("the camera delivered no frames with these controls")

    def on_closing(self) -> None:
        with self._lock:
            self._opening = None
            self._light.reset()
        self._safe_mode.end_attempt()

    def on_frame(self, metadata: Mapping[str, Any], *, is_settled: bool) -> None:
        # Both states are read without a lock: a change at this moment is seen with the next frame.
        if not self._safe_mode.is_confirmed:
            self._safe_mode.confirm_state()
        if not is_settled:
            return
        if self._safe_mode.requested.pending_freeze:
            self._freeze(metadata)
        with self._lock:
            is_changed = self._light.process_metadata(metadata, time.monotonic())
            if self._is_starting and self._manager is not None and self._manager.is_settled:
                self._is_starting, is_changed = False, True
            self._generation += is_changed
        if is_changed:
            self.send_changes()

    # --- inside -----------------------------------------------------------------------------------------------

    def _drop_unconfirmed(self, reason: str) -> bool:
        is_dropped = self._safe_mode.drop_unconfirmed(reason)
        if is_dropped:
            self.refresh_decisions()
        return is_dropped

    def _freeze(self, metadata: Mapping[str, Any]) -> None:
        """Freeze the automatics that were switched off, now that a frame has their values."""
        if self._safe_mode.update_state(lambda requested: requested.frozen_at(metadata)):
            self.refresh_decisions()
            self.send_changes()

    def _send_once(self, *, is_strict: bool) -> None:
        """Send the difference. Within a turn."""
        manager = self._manager
        with self._lock:
            self._sent_generation, opening = self._generation, self._opening
            if opening is None or manager is None:
                return
            config, controlled = opening.config, opening.controlled
            requested, stream = self._safe_mode.requested, self._safe_mode.stream_request()
            in_effect = mapping.at_night(requested) if self._light.is_night else requested
            wanted = mapping.camera_controls(in_effect, stream, config, is_starting=self._is_starting)
            wanted |= self._light.controls
            ignored, limited = capabilities.deviations(requested, stream, config)
        wanted = {name: value for name, value in wanted.items() if name in config.controls}
        sent = manager.sent.values
        # A control that was released meanwhile is sent again even if its value is the same, as with the lens position.
        news = {name: value for name, value in wanted.items() if name not in controlled or sent.get(name) != value}
        resets = {name: mapping.reset_value(name, config, stream) for name in controlled - wanted.keys()}
        focus = manager.autofocus
        focus_mode = mapping.focus_mode(requested)
        if focus_mode is AfMode.MANUAL:
            # First, so that no autofocus control follows.
            focus.set_user_mode(focus_mode, has_lens=config.has_autofocus)
        try:
            changes = news | {name: value for name, value in resets.items() if value is not None}
            if changes:
                manager.set_controls(changes)
        except CameraError as error:
            if is_strict:
                raise
            ignored.append(str(error))
        else:
            with self._lock:
                if self._opening is opening:
                    self._opening = replace(opening, controlled=frozenset(wanted))
        if focus_mode is not AfMode.MANUAL and focus.set_user_mode(focus_mode, has_lens=config.has_autofocus):
            if manager.status().is_streaming:
                focus.keep_focused("the stream")
            else:
                focus.refocus()
        before, self.not_applied = self.not_applied, (*ignored, *limited)
        for text, reasons in (("Unsupported controls ignored", ignored), ("Controls limited by the camera", limited)):
            if reasons and before != self.not_applied:
                log.warning("%s: %s", text, "; ".join(reasons))
