"""A user's function between the camera and the streams: it sees each frame as an array, and may give another.

The thread `hook` takes the newest frame whenever the camera gave one, calls the function, and puts what is to be shown
into a slot of its own, from which JPEGs and H.264 are made; snapshots are the camera's own. The function gets a copy,
and what is in that slot is one, so that a slow function keeps none of the camera's few buffers.

Nothing that the function does ends the stream. It fails or gives something that is no picture: the frame is shown as it
was. It is slow: frames that come meanwhile are left out, and after `_PATIENCE_S` they are shown without it, until a
call takes less than that: where each takes longer, the stream would otherwise stand still again and again. All of that
is counted, and logged once, not with every frame.
"""

import importlib
import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np

from softcam.errors import CameraError, ConfigurationError
from softcam.imaging.frame import Frame, NewestFrame, copy_of
from softcam.imaging.rgb import Rgb, frame_of, rgb_of, shape_fault
from softcam.runtime.pyav import import_pyav
from softcam.runtime.threads import spawn

log = logging.getLogger(__name__)

HookFunction = Callable[[Rgb, Mapping[str, Any]], Any]

# A picture that stands still for longer is taken for a fault of the camera.
_PATIENCE_S: Final = 1.0
_COMPLAINT_PAUSE_S: Final = 10.0  # a function that fails does so with every frame
_LONGEST_REASON: Final = 200  # characters


def load_hook(name: str) -> HookFunction:
    """The function that `module:function` names, from where Python finds modules: the folder of soft_stream.py,
    PYTHONPATH. Raises ConfigurationError, whatever goes wrong in it."""
    module_name, _, function_name = name.partition(":")
    try:
        import_pyav("a hook")
        found = getattr(importlib.import_module(module_name), function_name)
    except BaseException as error:  # it is somebody else's code: all that can go wrong there is a bad setting here
        log.debug("The hook cannot be loaded", exc_info=True)
        raise ConfigurationError([f"hook {name}: {_words_of(error)}"]) from error
    if not callable(found):
        raise ConfigurationError([f"hook {name}: it is no function"])
    hook: HookFunction = found
    return hook


class Hook:
    """Owns the thread `hook`. The camera's thread calls `on_frame`; both threads notify the subscribers of `frames`."""

    def __init__(self, name: str, function: HookFunction, source: NewestFrame) -> None:
        self.frames = NewestFrame()
        self.portal = ""  # the portal's own address, for the function; set before the first frame
        self._name = name
        self._function = function
        self._source = source
        self._changed = threading.Condition(threading.Lock())  # guards the fields below
        self._is_stopping = False
        self._clearings = 0  # of the source: what the function still has from before is not shown any more
        self._seen_s = 0.0  # of the frame that the function had last, or has
        self._shown_s = 0.0  # of the newest frame in the slot
        self._busy_since_s: float | None = None
        self._is_passed_by = False  # the last call took too long, or this one does
        self._calls = 0
        self._failures = 0
        self._unsaid = 0  # failures that were not logged yet
        self._say_at_s = 0.0
        self._skipped = 0
        self._last_error: str | None = None
        self._thread: threading.Thread | None = None  # of the thread that starts and stops the parts
        source.subscribe(self.on_frame, self._clear)

    def start(self, on_crash: Callable[[str], None]) -> None:
        self._thread = spawn("hook", self._run, on_crash)

    def status(self) -> dict[str, Any]:
        """For the status: how often it was called, failed, and was passed by or too slow for a frame."""
        with self._changed:
            return {
                "name": self._name,
                "calls": self._calls,
                "failures": self._failures,
                "skipped": self._skipped,
                "last_error": self._last_error,
            }

    def on_frame(self) -> None:
        """There is a new frame in the source."""
        with self._changed:
            busy_s = 0.0 if self._busy_since_s is None else time.monotonic() - self._busy_since_s
            if busy_s:
                self._skipped += 1
            is_news = busy_s > _PATIENCE_S and not self._is_passed_by
            if is_news:
                self._is_passed_by = True
                self._last_error = f"it has taken more than {_PATIENCE_S:g} s"
            is_passed_by = self._is_passed_by
            clearings = self._clearings
            self._changed.notify()
        if is_news:
            log.warning("Hook %s has taken more than %g s; frames are shown without it", self._name, _PATIENCE_S)
        if is_passed_by:
            self._pass_by(clearings)

    def stop(self, deadline_s: float) -> None:
        """End the thread; waits until the deadline (monotonic clock), not for a function that does not come back."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(max(0.0, deadline_s - time.monotonic()))
        self.frames.clear()

    # --- inside -----------------------------------------------------------------------------------------------

    def _clear(self) -> None:
        """The camera stops, or its frames have become old: no frame that was shown counts any more."""
        with self._changed:
            self._clearings += 1
            self._seen_s = self._shown_s = 0.0
        self.frames.clear()

    def _pass_by(self, clearings: int) -> None:
        frame = self._source.held()
        if frame is None:
            return
        try:
            shown = copy_of(frame)
        finally:
            frame.release()
        self._show(shown, clearings)

    def _show(self, frame: Frame, clearings: int) -> None:
        with self._changed:
            if clearings != self._clearings or frame.began_s <= self._shown_s:
                return  # the camera stopped meanwhile, or a newer frame was shown without the function
            self._shown_s = frame.began_s
            self.frames.put(frame)
        self.frames.notify()

    def _run(self) -> None:
        while (taken := self._take()) is not None:
            frame, clearings = taken
            try:
                shown = copy_of(frame)
            finally:
                frame.release()
            try:
                shown = self._apply(shown)
            except CameraError as error:
                self._fail(str(error), error)
            except BaseException as error:  # noqa: BLE001 - whatever it is, somebody else's code may not end the stream
                self._fail(_words_of(error), error)
            if self._is_back():
                log.info("Hook %s has come back", self._name)
            self._show(shown, clearings)

    def _is_back(self) -> bool:
        """The function is done with a frame; whether frames go by it again."""
        with self._changed:
            busy_since_s, self._busy_since_s = self._busy_since_s, None
            took_s = 0.0 if busy_since_s is None else time.monotonic() - busy_since_s
            was_passed_by, self._is_passed_by = self._is_passed_by, self._is_passed_by and took_s > _PATIENCE_S
            return was_passed_by and not self._is_passed_by

    def _take(self) -> tuple[Frame, int] | None:
        """Sleep until there is a frame that the function has not seen; held. None at the end."""
        with self._changed:
            while not self._is_stopping:
                # Not held first: that could be its last hold, to be given back under our lock.
                frame = self._source.wait(lambda newest: newest.began_s > self._seen_s, deadline_s=0.0)
                if frame is not None:
                    self._seen_s = frame.began_s
                    self._busy_since_s = time.monotonic()
                    self._calls += 1
                    return frame, self._clearings
                self._changed.wait()
            return None

    def _apply(self, frame: Frame) -> Frame:
        """What is to be shown in place of a frame.

        Raises CameraError for one that cannot be read, or not be shown, and whatever the function, or what it gave,
        raises.
        """
        rgb = rgb_of(frame)
        metadata = {
            **frame.metadata,
            "timestamp": frame.timestamp_s,
            "sequence": frame.sequence,
            "portal": self.portal,
        }
        given = self._function(rgb, metadata)
        if given is None:
            return frame
        if isinstance(given, np.ndarray):
            given = np.asarray(given)  # no class of its own, with words of its own
        fault = shape_fault(given, frame.size)
        if fault is not None:
            raise fault
        return frame_of(given, frame)

    def _fail(self, reason: str, error: BaseException) -> None:
        """Count it, and say it: of many in a row the first, with its traceback, and then their number."""
        now_s = time.monotonic()
        with self._changed:
            self._failures += 1
            self._unsaid += 1
            self._last_error = reason
            if now_s < self._say_at_s:
                return
            unsaid, self._unsaid = self._unsaid, 0
            is_first = self._failures == unsaid
            self._say_at_s = now_s + _COMPLAINT_PAUSE_S
        log.error(
            "Hook %s failed %d times, and its frames are shown as they were: %s",
            self._name,
            unsaid,
            reason,
            exc_info=error if is_first else None,
        )


def _words_of(error: BaseException) -> str:
    """In one line, even of an error that cannot say itself."""
    try:
        text = str(error)
    except BaseException:  # noqa: BLE001 - a stranger's class
        text = ""
    return f"{type(error).__name__}: {' '.join(text.split())}"[:_LONGEST_REASON]
