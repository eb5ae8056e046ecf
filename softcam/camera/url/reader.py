"""The thread of a URL camera: connects, reads, keeps a file's pace, and connects again when the source has gone.

One thread "url-camera" for each `Reader`, from `start` on. It cannot be called back from within FFmpeg, so one that was
told to stop while it waits there ends by itself, some seconds later at the worst, and gives no more frames till then.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Protocol

from softcam.camera.base import OnFrame, StreamConfig, StreamRequest
from softcam.camera.session.frame_rate import FrameDecimator
from softcam.camera.url.source import Picture, Size, covering, fitted
from softcam.errors import CameraError
from softcam.imaging.frame import Frame, PixelFormat
from softcam.runtime.threads import spawn

log = logging.getLogger(__name__)

# Until the next try, after so many that failed. No more than this: who waits for a camera wants it as soon as it is up.
_PAUSES_S: Final = (0.25, 0.5, 1.0, 2.0, 3.0)
_LASTED_S: Final = 2.0  # a connection of that length was no failure
_LOG_PAUSE_S: Final = 10.0  # a source may come and go several times in a second
_DAMAGED_LIMIT_S: Final = 10.0  # a source of which no picture can be read for so long is left and opened anew
_LATE_LIMIT_S: Final = 0.5  # behind its own pace: then it is shown slower, and nothing is made up for
_SINGLE_STEP_S: Final = 0.5  # between two showings of a file that is one picture
_LONGEST_STEP_S: Final = 5.0  # between two pictures of a file; more is a jump of its clock
_LONGEST_DURATION_S: Final = 1.0  # what is told of a frame; the watchdog adds some of these to its patience


def config_of(width: int, height: int, pixel_format: PixelFormat, source_size: Size) -> StreamConfig:
    """Of a camera that gives such frames, and can be told nothing."""
    return StreamConfig(width, height, pixel_format, source_size, can_flip=False)


class OpenedSource(Protocol):
    """See `url_source.Source`."""

    is_paced: bool
    is_endless: bool
    interval_s: float

    def pictures(self) -> Iterator[Picture | None]: ...
    def rewind(self) -> None: ...
    def close(self) -> None: ...


@dataclass(eq=False, slots=True)
class _StillOrder:
    """A picture of about this size, None for the source's own; the reader's lock guards all but that."""

    size: Size | None
    frame: Frame | None = None
    error: CameraError | None = None


class Reader:
    """One opening of the camera."""

    def __init__(
        self,
        name: str,
        open_source: Callable[[], OpenedSource],
        request: StreamRequest,
        on_frame: OnFrame,
        mode: StreamConfig,
        told: Callable[[], None],
    ) -> None:
        """`mode` is what is told until the first picture; `told` is called when the source goes."""
        self._name = name
        self._open_source = open_source
        self._request = request
        self.on_frame = on_frame
        self._told = told
        self._changed = threading.Condition(threading.Lock())  # guards the fields down to the next comment
        self._is_stopping = False
        self._failures = 0
        self._still: _StillOrder | None = None
        # Written by the thread, read by any: single values.
        self.config = mode
        self.disconnect_reason: str | None = f"{name}: connecting"
        # The thread's own.
        self._sequence = 0
        self._thinning = FrameDecimator(request.fps)
        self._given_s: float | None = None  # when the last frame was given
        self._is_lost = False  # it was logged that the source is away
        self._log_from_s = 0.0
        self._found_s: float | None = None  # when this connection gave its first frame

    def start(self) -> None:
        self._thread = spawn("url-camera", self._run, log.error)

    def stop(self, wait_s: float) -> None:
        """No more frames; waits so long for the thread's end."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify_all()
        self._thread.join(wait_s)

    def cancel_open(self) -> None:
        """`wait_first` is over."""
        with self._changed:
            self._failures += 1
            self._changed.notify_all()

    def wait_first(self, limit_s: float) -> None:
        """Until the first frame has come, a try has failed, or so long."""
        with self._changed:
            self._changed.wait_for(
                lambda: self.disconnect_reason is None or self._failures or self._is_stopping, limit_s
            )

    def still(self, size: Size | None, limit_s: float) -> Frame:
        """The next picture at about `size`, None for the source's own. Raises CameraError."""
        order = _StillOrder(size)
        with self._changed:
            self._still = order
            self._changed.wait_for(
                lambda: order.frame is not None or order.error is not None or self._is_stopping, limit_s
            )
            self._still = None
            if order.error is not None:
                raise order.error
            if order.frame is None:
                raise CameraError(self.disconnect_reason or f"{self._name} gave no picture in time")
            return order.frame

    @property
    def has_given(self) -> bool:
        """Whether a frame has come at all."""
        return self._sequence > 0

    # --- the thread -------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._is_stopping:
            try:
                reason = self._follow()
            except CameraError as error:
                reason = str(error)
            except Exception:  # the thread's edge: a source that breaks in a new way is one that has gone
                log.exception("Reading %s failed", self._name)
                reason = "reading it failed"
            self._lose(reason)

    def _follow(self) -> str:
        """One connection, to its end; why it ended. Raises CameraError."""
        source = self._open_source()
        try:
            pictures = self._paced(source) if source.is_paced else self._live(source)
            damaged_since_s = time.monotonic()
            for picture, due_s in pictures:
                if self._is_stopping:
                    return "stopping"
                now_s = time.monotonic()
                if picture is not None and self._take(picture, due_s):
                    damaged_since_s = now_s
                elif now_s - damaged_since_s > _DAMAGED_LIMIT_S:
                    return "its pictures cannot be read"
            return "it has ended"
        finally:
            source.close()

    def _live(self, source: OpenedSource) -> Iterator[tuple[Picture | None, float]]:
        for picture in source.pictures():
            yield picture, time.monotonic()

    def _paced(self, source: OpenedSource) -> Iterator[tuple[Picture | None, float]]:
        """Each picture when it is its turn; from the beginning again where the source has an end."""
        due_s = time.monotonic()
        step_s = 0.0  # before the first picture of all
        while True:
            before_s: float | None = None
            count = 0
            for picture in source.pictures():
                if picture is None:
                    yield None, due_s
                    continue
                if before_s is not None and picture.time_s is not None:
                    told_s = picture.time_s - before_s
                    step_s = told_s if 0 <= told_s <= _LONGEST_STEP_S else source.interval_s
                if picture.time_s is not None:
                    before_s = picture.time_s
                due_s += step_s
                step_s = step_s or source.interval_s
                count += 1
                now_s = time.monotonic()
                if due_s < now_s - _LATE_LIMIT_S:
                    due_s = now_s
                with self._changed:
                    if self._changed.wait_for(lambda: self._is_stopping, max(0.0, due_s - now_s)):
                        return
                yield picture, due_s
            if not source.is_endless:
                return
            if not count:
                raise CameraError("there is no picture in it")
            if count == 1:
                step_s = _SINGLE_STEP_S
            source.rewind()

    def _take(self, picture: Picture, due_s: float) -> bool:
        """Give it on where it is wanted; False for one that is damaged."""
        still = self._still
        is_due = self._thinning.should_pass(due_s)
        if still is None and not is_due:
            return True
        most = (self._request.width, self._request.height)
        began_s = time.monotonic()
        duration_s = None if self._given_s is None else min(began_s - self._given_s, _LONGEST_DURATION_S)
        try:
            if still is not None:
                self._take_still(still, picture, began_s)
            frame = picture.frame(_smaller(picture.size, most, fitted), self._sequence, began_s, duration_s)
        except CameraError as error:
            log.debug("%s: %s", self._name, error)
            return False
        self._sequence += 1
        self._given_s = began_s
        self._show_mode(frame, picture.size)
        if self._is_stopping:
            frame.release()
            return True
        self.on_frame(frame)
        if self.disconnect_reason is not None:
            self._find()  # behind the frame: who hears of it finds one
        return True

    def _take_still(self, order: _StillOrder, picture: Picture, began_s: float) -> None:
        frame, error = None, None
        try:
            frame = picture.frame(_smaller(picture.size, order.size, covering), self._sequence, began_s, None)
        except CameraError as trouble:
            error = trouble
        with self._changed:
            if self._still is order:
                self._still = None
                order.frame, order.error = frame, error
                self._changed.notify_all()
            elif frame is not None:
                frame.release()

    def _show_mode(self, frame: Frame, source_size: Size) -> None:
        mode = self.config
        looks = (frame.width, frame.height, frame.pixel_format, source_size)
        if looks != (mode.width, mode.height, mode.pixel_format, mode.sensor_size):
            log.info("%s gives %dx%d, shown as %dx%d %s", self._name, *source_size, *looks[:3])
            self.config = config_of(frame.width, frame.height, frame.pixel_format, source_size)

    def _find(self) -> None:
        if self._is_lost:
            log.info("%s is there again", self._name)
        self._is_lost = False
        self._found_s = time.monotonic()
        with self._changed:
            self.disconnect_reason = None
            self._changed.notify_all()

    def _lose(self, reason: str) -> None:
        """The connection has ended: tell it, and wait for the next try."""
        if self._is_stopping:
            return
        now_s = time.monotonic()
        has_lasted = self._found_s is not None and now_s - self._found_s >= _LASTED_S
        self._found_s = self._given_s = None
        with self._changed:
            if has_lasted:
                self._failures = 0
            pause_s = _PAUSES_S[min(self._failures, len(_PAUSES_S) - 1)]
            self._failures += 1
            self.disconnect_reason = f"{self._name}: {reason}"
            self._changed.notify_all()
        if not self._is_lost and now_s >= self._log_from_s:
            self._is_lost = True
            self._log_from_s = now_s + _LOG_PAUSE_S
            log.warning("%s: %s; it is tried again for as long as somebody wants it", self._name, reason)
        self._told()
        with self._changed:
            self._changed.wait_for(lambda: self._is_stopping, pause_s)


def _smaller(size: Size, wanted: Size | None, by: Callable[[Size, Size], Size]) -> Size | None:
    """`by(size, wanted)`; None where a picture of `size` can stay as it is, which spares a JPEG from being decoded."""
    if wanted is None:
        return None
    new = by(size, wanted)
    return None if size[0] - new[0] < 2 and size[1] - new[1] < 2 else new
