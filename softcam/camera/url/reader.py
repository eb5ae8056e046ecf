"""The thread of a URL camera: connects, reads, keeps the frame rate of a file, and reconnects.

Each `Reader` has one thread "url-camera" from `start` on. FFmpeg cannot be interrupted: a thread that is to stop while
it is blocked there ends by itself, at worst some seconds later, and delivers no frames until then.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, Protocol

from softcam.camera.base import OnFrame, StreamConfig, StreamRequest
from softcam.camera.session.frame_rate import FrameDecimator
from softcam.camera.url.source import Size, Source, SourceImage, covering, fitted
from softcam.errors import CameraError, without_stack
from softcam.imaging.frame import Frame
from softcam.runtime.log_limit import RateLimitedLogger
from softcam.runtime.threads import spawn

log = logging.getLogger(__name__)

# Before the next attempt, by the number of failed ones. Short, so that a camera that is back is soon available.
_RETRY_PAUSES_S: Final = (0.25, 0.5, 1.0, 2.0, 3.0)
_STABLE_S: Final = 2.0  # a connection that lasted so long was not a failed attempt
_DAMAGED_TIMEOUT_S: Final = 10.0  # after so long without a decodable image the source is reopened
_MAX_LAG_S: Final = 0.5  # behind the frame rate of a file: then the clock is reset instead of skipping frames
_SINGLE_IMAGE_S: Final = 0.5  # between two repetitions of a file with a single image
_MAX_STEP_S: Final = 5.0  # between two images of a file; more is a discontinuity of its clock
_MAX_DURATION_S: Final = 1.0  # of a frame in the metadata; the watchdog adds a multiple of it to its timeout


class ImageSource(Protocol):
    """An open source that yields images as they arrive, None for damaged ones, until its end."""

    def images(self) -> Iterator[SourceImage | None]: ...

    def close(self) -> None: ...


@dataclass(eq=False, slots=True)
class _StillJob:
    """A requested still of about this size, None for the source's own; the reader's lock guards the result."""

    size: Size | None
    result: Frame | CameraError | None = field(default=None, init=False)

    def finish(self, result: Frame | CameraError) -> None:
        self.result = result


class Reader:
    """Reads the source for one opening of the camera."""

    def __init__(
        self,
        name: str,
        open_source: Callable[[Callable[[float], bool]], ImageSource],
        request: StreamRequest,
        on_frame: OnFrame,
        config: StreamConfig,
        on_disconnect: Callable[[], None],
    ) -> None:
        """`open_source(pause)` connects; `pause(seconds)` sleeps, and returns True once the reader is to stop.

        `config` is the configuration until the first frame; `on_disconnect` is called after each disconnect.
        """
        self._name = name
        self._open_source = open_source
        self._most = (request.width, request.height)
        self.on_frame = on_frame
        self._on_disconnect = on_disconnect
        self._thread: threading.Thread | None = None  # used by the thread that opens and closes the camera
        self._changed = threading.Condition(threading.Lock())  # guards changes of the fields down to the next comment
        self._is_stopping = False
        self._is_cancelled = False
        self._failures = 0
        self._still: _StillJob | None = None
        # Written by the thread, read by any: single values.
        self.config = config
        self._connecting = f"{name}: connecting"
        self.disconnect_reason: str | None = self._connecting
        # The thread's own.
        self._errors = RateLimitedLogger(log)
        self._disconnects = RateLimitedLogger(log)  # a source may disconnect several times per second
        self._sequence = 0
        self._decimator = FrameDecimator(request.fps)
        self._delivered_s: float | None = None  # when the last frame was delivered
        self._is_disconnect_logged = False
        self._connected_s: float | None = None  # when this connection delivered its first frame

    def start(self, on_crash: Callable[[str], None]) -> None:
        self._thread = spawn("url-camera", self._run, on_crash)

    def stop(self, timeout_s: float) -> None:
        """Stop delivering frames, and wait so long for the thread to end."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(timeout_s)

    def cancel_open(self) -> None:
        """Let `wait_first_frame` return."""
        with self._changed:
            self._is_cancelled = True
            self._changed.notify_all()

    def wait_first_frame(self, timeout_s: float) -> None:
        """Wait until the first frame was delivered, an attempt has failed, or `cancel_open`; at most so long."""
        with self._changed:
            self._changed.wait_for(
                lambda: self.disconnect_reason is None or self._failures or self._is_cancelled, timeout_s
            )

    def still(self, size: Size | None, timeout_s: float) -> Frame:
        """The next image at about `size`, None for the source's own. Raises CameraError."""
        job = _StillJob(size)
        with self._changed:
            self._still = job
            self._changed.wait_for(lambda: job.result is not None, timeout_s)
            self._still = None
        if isinstance(job.result, Frame):
            return job.result
        raise job.result or CameraError(self.disconnect_reason or f"{self._name} delivered no image in time")

    @property
    def has_delivered(self) -> bool:
        return self._sequence > 0

    # --- the thread -------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._is_stopping:
            try:
                reason = self._read_connection()
            except CameraError as error:
                reason = str(error)
            except Exception as error:  # noqa: BLE001 - the thread's edge: an unexpected error is like a disconnect
                self._errors.error("Failed to read %s", self._name, exc_info=error)
                reason = "unexpected error"
            self._handle_disconnect(reason)

    def _read_connection(self) -> str:
        """Connect and read until the connection ends; returns the reason. Raises CameraError."""
        source = self._open_source(self._pause)
        if self.disconnect_reason == self._connecting:
            self.disconnect_reason = f"{self._name}: connected, no image yet"
        try:
            live = ((image, time.monotonic()) for image in source.images())
            damaged_since_s = time.monotonic()
            images = self._read_paced(source) if isinstance(source, Source) and source.is_paced else live
            for image, due_s in images:
                if self._is_stopping:
                    return "stopping"
                now_s = time.monotonic()
                if image is not None and self._process(image, due_s):
                    damaged_since_s = now_s
                elif now_s - damaged_since_s > _DAMAGED_TIMEOUT_S:
                    return "images cannot be decoded"
            return "end of stream"
        finally:
            source.close()

    def _read_paced(self, source: Source) -> Iterator[tuple[SourceImage | None, float]]:
        """Yield each image when it is due, and restart at the end of the source."""
        due_s = time.monotonic()
        step_s = 0.0  # before the very first image
        while True:
            before_s: float | None = None
            count = 0
            for image in source.images():
                if image is None:
                    yield None, due_s
                    continue
                if before_s is not None and image.time_s is not None:
                    elapsed_s = image.time_s - before_s
                    step_s = elapsed_s if 0 <= elapsed_s <= _MAX_STEP_S else source.interval_s
                if image.time_s is not None:
                    before_s = image.time_s
                due_s += step_s
                step_s = step_s or source.interval_s
                count += 1
                now_s = time.monotonic()
                if due_s < now_s - _MAX_LAG_S:
                    due_s = now_s
                if self._pause(max(0.0, due_s - now_s)):
                    return
                yield image, due_s
            if not source.is_endless:
                return
            if not count:
                raise CameraError("contains no image")
            if count == 1:
                step_s = _SINGLE_IMAGE_S
            source.rewind()

    def _process(self, image: SourceImage, due_s: float) -> bool:
        """Deliver an image that is due or requested as a still; False for a damaged one."""
        still = self._still
        if not self._decimator.should_pass(due_s) and still is None:
            return True
        began_s = time.monotonic()
        duration_s = None if self._delivered_s is None else min(began_s - self._delivered_s, _MAX_DURATION_S)
        try:
            if still is not None:
                self._finish_still(still, image, began_s)
            frame = image.frame(_smaller(image.size, self._most, fitted), self._sequence, began_s, duration_s)
        except CameraError as error:
            log.debug("Source %s: %s", self._name, error)
            return False
        self._sequence += 1
        self._delivered_s = began_s
        self._update_config(frame, image.size)
        if self._is_stopping:
            return True
        self.on_frame(frame)
        if self.disconnect_reason is not None:
            self._handle_connect()  # after the frame, so that one is available then
        return True

    def _finish_still(self, job: _StillJob, image: SourceImage, began_s: float) -> None:
        result: Frame | CameraError
        try:
            result = image.frame(_smaller(image.size, job.size, covering), self._sequence, began_s, None)
        except CameraError as error:
            result = without_stack(error)
        with self._changed:
            job.finish(result)
            if self._still is job:
                self._still = None
            self._changed.notify_all()

    def _update_config(self, frame: Frame, source_size: Size) -> None:
        stream = (frame.width, frame.height, frame.pixel_format)
        config = StreamConfig(*stream, source_size, can_flip=False)
        if config != self.config:
            log.info("Source %s delivers %dx%d, streamed as %dx%d %s", self._name, *source_size, *stream)
            self.config = config

    def _handle_connect(self) -> None:
        if self._is_disconnect_logged:
            log.info("Source %s reconnected", self._name)
        self._is_disconnect_logged = False
        self._connected_s = time.monotonic()
        with self._changed:
            self.disconnect_reason = None
            self._changed.notify_all()

    def _handle_disconnect(self, reason: str) -> None:
        """Report that the connection has ended, and wait before the next attempt."""
        if self._is_stopping:
            return
        now_s = time.monotonic()
        was_stable = self._connected_s is not None and now_s - self._connected_s >= _STABLE_S
        self._connected_s = self._delivered_s = None
        with self._changed:
            if was_stable:
                self._failures = 0
            pause_s = _RETRY_PAUSES_S[min(self._failures, len(_RETRY_PAUSES_S) - 1)]
            self._failures += 1
            self.disconnect_reason = f"{self._name}: {reason}"
            self._changed.notify_all()
        if not self._is_disconnect_logged:
            line = "Source %s disconnected: %s; reconnecting"
            self._is_disconnect_logged = self._disconnects.warning(line, self._name, reason)
        self._on_disconnect()
        self._pause(pause_s)

    def _pause(self, timeout_s: float) -> bool:
        """Sleep so long, or until the reader is to stop; returns whether it is."""
        with self._changed:
            return self._changed.wait_for(lambda: self._is_stopping, timeout_s)


def _smaller(size: Size, limit: Size | None, scale: Callable[[Size, Size], Size]) -> Size | None:
    """The size to scale to; None if the image can be used as it is, so that a JPEG need not be decoded."""
    if limit is None:
        return None
    new = scale(size, limit)
    return None if size[0] - new[0] < 2 and size[1] - new[1] < 2 else new
