"""A user's function between the camera and the streams: it gets each frame as an array and may return another one.

The thread `hook` calls the function with the latest frame and puts the result into a slot, from which JPEGs and H.264
are made; snapshots bypass the hook. The function gets a copy, and the slot holds copies, so a slow function keeps none
of the camera's few buffers.

Nothing that the function does ends the stream. When it raises, or returns something that is not an image, the frame is
shown unchanged. While it is running new frames are dropped, and after `max_call_s` they bypass it, until a call takes
less than that: otherwise the stream would freeze again and again. All of that is counted, and logged at a limited rate.

What a hook receives and may return is documented in `softcam.hook_api`.
"""

import importlib
import logging
import threading
import time
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from softcam.errors import CameraError, ConfigurationError
from softcam.hook_api import HookFunction
from softcam.imaging.frame import Frame, NewestFrame
from softcam.imaging.rgb import check_shape, frame_of, rgb_of
from softcam.runtime.deadline import Deadline
from softcam.runtime.log_limit import RateLimitedLogger
from softcam.runtime.pyav import import_pyav
from softcam.runtime.threads import spawn

log = logging.getLogger(__name__)

_MAX_CALL_S: Final = 1.0  # an image that freezes for longer looks like a fault of the camera
_MAX_REASON: Final = 200  # characters


def load_hook(name: str, origin: str) -> HookFunction:
    """Import the function `module:function` from Python's path: the folder of soft_stream.py, and PYTHONPATH.

    Raises ConfigurationError for any error in the module; `origin` is the flag or variable with that name.
    """
    module_name, _, function_name = name.partition(":")
    rule = f"{origin} {name!r}: must be a function"
    try:
        import_pyav("a hook")
        found = getattr(importlib.import_module(module_name), function_name)
    except BaseException as error:  # foreign code: any error in it is an invalid setting here
        log.debug("Failed to load the hook", exc_info=True)
        reason = _describe(error)
        if isinstance(error, ModuleNotFoundError):
            reason = f"{error} (searched next to soft_stream.py and in PYTHONPATH)"
        raise ConfigurationError([f"{rule} that Python can import: {reason}"], settings=["hook"]) from error
    if not callable(found):
        raise ConfigurationError([f"{rule}, not {type(found).__name__}"], settings=["hook"])
    hook: HookFunction = found
    return hook


class Hook:
    """Owns the thread `hook`. The camera's thread calls `on_frame`; both threads notify the subscribers of `frames`."""

    def __init__(
        self,
        name: str,
        function: HookFunction,
        source: NewestFrame,
        portal_url: Callable[[], str],
        *,
        max_call_s: float = _MAX_CALL_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`portal_url` returns the URL of the portal, for the metadata; it is called after the first frame."""
        self.frames = NewestFrame()
        self._name = name
        self._function = function
        self._source = source
        self._portal_url = portal_url
        self._max_call_s = max_call_s
        self._clock = clock
        self._errors = RateLimitedLogger(log)  # a function that fails does so with every frame
        self._changed = threading.Condition(threading.Lock())  # guards the fields below
        self._is_stopping = False
        self._clearings = 0  # of the source; a result from before the latest one is dropped
        self._seen_s = 0.0  # exposure of the frame that the function got last
        self._shown_s = 0.0  # exposure of the latest frame in the slot
        self._busy_since_s: float | None = None
        self._is_bypassed = False  # the last call took too long, or the current one does
        self._has_failed = False  # the last call that returned raised
        self._status: dict[str, Any] = {"name": name, "calls": 0, "failures": 0, "skipped": 0, "last_error": None}
        self._thread: threading.Thread | None = None  # used by the thread that starts and stops the components
        source.subscribe(self.on_frame, self._clear)

    def start(self, on_crash: Callable[[str], None]) -> None:
        self._thread = spawn("hook", self._run, on_crash)

    def status(self) -> dict[str, Any]:
        """The fields of `hook` in the status: counts of calls, failures and frames that were skipped."""
        with self._changed:
            return self._status.copy()

    @property
    def is_busy(self) -> bool:
        with self._changed:
            return self._busy_since_s is not None

    @property
    def is_failing(self) -> bool:
        """Whether frames are shown without what the function does to them; not while the camera is closed."""
        with self._changed:
            return self._shown_s > 0.0 and (self._has_failed or self._is_bypassed)

    def on_frame(self) -> None:
        is_newly_bypassed = False
        with self._changed:
            if self._busy_since_s is not None:
                self._status["skipped"] += 1
                is_late = self._clock() - self._busy_since_s > self._max_call_s
                is_newly_bypassed = is_late and not self._is_bypassed
            if is_newly_bypassed:
                self._is_bypassed = True
                self._status["last_error"] = f"a call takes more than {self._max_call_s:g} s"
            is_bypassed, clearings = self._is_bypassed, self._clearings
            self._changed.notify()
        if is_newly_bypassed:
            log.warning("Hook %s takes more than %g s, bypassing it", self._name, self._max_call_s)
        if is_bypassed and (frame := self._source.held()) is not None:
            self._show(_copy_and_release(frame), clearings)

    def stop(self, deadline: Deadline) -> None:
        """End the thread; waits until the deadline, not for a function that does not return."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(deadline.remaining_s)
        self.frames.clear()

    def _clear(self) -> None:
        """The camera stops, or its frames are too old: frames that were shown are no longer valid."""
        with self._changed:
            self._clearings += 1
            self._seen_s = self._shown_s = 0.0
        self.frames.clear()

    def _show(self, frame: Frame, clearings: int) -> None:
        with self._changed:
            if clearings != self._clearings or frame.began_s <= self._shown_s:
                return  # the camera has stopped since, or a newer frame has bypassed the function
            self._shown_s = frame.began_s
            self.frames.put_frame(frame)
        self.frames.notify()

    # --- the hook thread --------------------------------------------------------------------------------------

    def _run(self) -> None:
        while (work := self._wait_for_frame()) is not None:
            frame, clearings = work
            shown = _copy_and_release(frame)
            has_failed = False
            try:
                shown = self._apply(shown)
            except BaseException as error:  # noqa: BLE001 - foreign code: no exception of it may end the stream
                reason = str(error) if isinstance(error, CameraError) else _describe(error)
                has_failed = True
                with self._changed:
                    self._status["failures"] += 1
                    self._status["last_error"] = reason
                self._errors.error("Hook %s failed, passing frames through: %s", self._name, reason, exc_info=error)
            if self._has_recovered(has_failed=has_failed):
                log.info("Hook %s recovered", self._name)
            self._show(shown, clearings)

    def _wait_for_frame(self) -> tuple[Frame, int] | None:
        """Wait for a frame that the function has not seen; returns it held. None at the end."""
        with self._changed:
            while not self._is_stopping:
                if (frame := self._source.held(newer_than_s=self._seen_s)) is not None:
                    self._seen_s = frame.began_s
                    self._busy_since_s = self._clock()
                    self._status["calls"] += 1
                    return frame, self._clearings
                self._changed.wait()
            return None

    def _has_recovered(self, *, has_failed: bool) -> bool:
        """The function returned; whether frames stop bypassing it with this call."""
        with self._changed:
            self._has_failed = has_failed
            busy_since_s, self._busy_since_s = self._busy_since_s, None
            took_s = 0.0 if busy_since_s is None else self._clock() - busy_since_s
            was_bypassed, self._is_bypassed = self._is_bypassed, self._is_bypassed and took_s > self._max_call_s
            return was_bypassed and not self._is_bypassed

    def _apply(self, frame: Frame) -> Frame:
        """The frame to show in place of `frame`.

        Raises CameraError for a frame that cannot be decoded and a result that cannot be shown, and whatever the
        function, or its result, raises.
        """
        metadata = {
            **frame.metadata,
            "timestamp": frame.timestamp_s,
            "sequence": frame.sequence,
            "portal": self._portal_url(),
        }
        result: Any = self._function(rgb_of(frame), metadata)
        if result is None:
            return frame
        if isinstance(result, np.ndarray):
            result = np.asarray(result)  # a subclass may override anything
        check_shape(result, frame.size)
        return frame_of(result, frame)


def _copy_and_release(frame: Frame) -> Frame:
    try:
        return frame.copy()
    finally:
        frame.release()


def _describe(error: BaseException) -> str:
    """Type and message in one line, also of an error whose `__str__` raises."""
    try:
        text = str(error)
    except BaseException:  # noqa: BLE001 - foreign code
        text = ""
    return f"{type(error).__name__}: {' '.join(text.split())}"[:_MAX_REASON]
