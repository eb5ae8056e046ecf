"""The one H.264 encoder, for all who want packets; it runs only while somebody does.

The thread `h264` exists from the first sink's joining to the last one's leaving. It takes the newest frame whenever the
camera gave one: an encoder that is late leaves frames out, and their age does not grow. What encodes is a `Backend`,
libx264 or hardware; a frame of another size or format begins a new run of it. Sinks are called on this thread.
"""

import enum
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from softcam.errors import CameraError
from softcam.h264 import x264
from softcam.h264.backend import Backend, BackendLost, BackendName, OpenBackend, open_x264
from softcam.h264.packet import Packet, PacketSink, VideoFormat
from softcam.h264.timing import is_gap
from softcam.imaging.frame import Frame, NewestFrame, PixelFormat
from softcam.runtime.threads import spawn

log = logging.getLogger(__name__)

KEYFRAME_S: Final = 2.0  # without being asked: how long a decoder that lost something shows it
_KEYFRAME_PAUSE_S: Final = 0.25  # a keyframe is some times as large as others; more often, pictures would get worse
_MOST_FAILURES: Final = 3  # one after another: then it is not the frames, and the backend is opened anew
_LOOK_S: Final = 0.1
_RATE_WINDOW_S: Final = 2.0
_COMPLAINT_PAUSE_S: Final = 10.0  # a camera that gives damaged frames does so at its full rate
_STILL_LIMIT_S: Final = 10.0  # an encoder that gave nothing for so long, while frames came, hangs


@dataclass(frozen=True, slots=True)
class VideoStatus:
    """A look at the encoder. `encoded` and `skipped` count frames since the portal started; `bitrate` is measured, in
    bits a second; that, the format and the backend are None while it does not run."""

    fmt: VideoFormat | None
    backend: BackendName | None
    sinks: int
    encoded: int
    skipped: int
    keyframes: int
    bitrate: float | None
    last_error: str | None


@dataclass(eq=False, slots=True)
class _Place:
    """A sink, and the run of which it was told; the thread alone changes that."""

    sink: PacketSink
    fmt: VideoFormat | None = None


class _Step(enum.Enum):
    """What the thread has to do beside encoding a frame."""

    PACKETS = enum.auto()  # hand them on
    LET_GO = enum.auto()  # of the camera's memory
    END = enum.auto()


_PACKETS: Final = _Step.PACKETS
_LET_GO: Final = _Step.LET_GO
_END: Final = _Step.END

_Looks = tuple[tuple[int, int], PixelFormat, float]  # size, format, frames a second: what a run cannot change


@dataclass(eq=False, slots=True)
class _Run:
    """A backend, what its frames look like, and what its packets do since the first keyframe."""

    backend: Backend
    looks: _Looks
    fmt: VideoFormat | None = None


class VideoEncoder:
    """Owns the thread `h264`. `on_frame` is called by the camera's thread, everything else by any."""

    def __init__(
        self,
        frames: NewestFrame,
        fps: Callable[[], float],
        bitrate: int,
        on_crash: Callable[[str], None],
        *,
        require: Callable[[], None] = x264.require_pyav,
        open_backend: OpenBackend = open_x264,
    ) -> None:
        """`fps` gives what the camera was asked for, and is called for every frame; `bitrate` is in bits a second;
        `require` raises NotSupported where the backend cannot be had."""
        self._frames = frames
        self._fps = fps
        self._bitrate = bitrate
        self._on_crash = on_crash
        self._require = require
        self._open_backend = open_backend

        self._changed = threading.Condition(threading.Lock())  # guards the fields down to the next comment
        self._places: dict[PacketSink, _Place] = {}
        self._thread: threading.Thread | None = None
        self._is_stopping = False
        self._wants_keyframe = False
        self._has_newcomer = False  # gets a keyframe whenever the last one was
        self._came = 0  # frames since the thread looked last
        self._is_camera_stopping = False
        self._format: VideoFormat | None = None
        self._backend_name: BackendName | None = None  # of what gave the last packet
        self._encoded = 0
        self._skipped = 0
        self._keyframes = 0
        self._sent: deque[tuple[float, int]] = deque()  # when, bytes
        self._last_error: str | None = None
        self._progress_s = 0.0

        # The thread's own; where one ends while the next begins, they follow one another under the lock.
        self._last_began_s = 0.0
        self._delta_s = 0.0  # between the exposures of the frame that was taken last and the one before
        self._last_delta_s = 0.0  # of the frame before
        self._keyframe_s = 0.0  # of the exposure of the last keyframe, or of the frame that is to be the next one
        self._failures = 0
        self._complain_at_s = 0.0
        frames.subscribe(self.on_frame, self.on_frames_cleared)

    # --- what everyone may call -------------------------------------------------------------------------------

    def require(self) -> None:
        """Raises NotSupported where this machine cannot encode; the first time may take a second."""
        self._require()

    def subscribe(self, sink: PacketSink) -> None:
        """From now on the sink gets packets, from a keyframe on, which is made at once. Raises NotSupported,
        and CameraError where no thread can be had: then it is not in."""
        self._require()
        with self._changed:
            if self._is_stopping or sink in self._places:
                return
            self._places[sink] = _Place(sink)
            self._has_newcomer = True
            if self._thread is None:
                self._came = 0
                self._is_camera_stopping = False
                self._progress_s = time.monotonic()
                try:
                    self._thread = spawn("h264", self._run, self._on_crash)
                except RuntimeError as error:  # no memory, or too many threads
                    del self._places[sink]
                    raise CameraError(f"nothing can be encoded as H.264: {error}") from error
            self._changed.notify_all()

    def unsubscribe(self, sink: PacketSink) -> None:
        """It gets no more; a call that is under way may still come to its end. Harmless where it is not in."""
        with self._changed:
            if self._places.pop(sink, None) is not None:
                self._changed.notify_all()

    def request_keyframe(self) -> None:
        """Make the next frame a keyframe, unless there was one a moment ago: then the first after that moment."""
        with self._changed:
            self._wants_keyframe = True

    def on_frame(self) -> None:
        """There is a new frame in the slot."""
        if self._thread is None:  # read without the lock: a thread that starts now looks into the slot by itself
            return
        with self._changed:
            self._came += 1
            self._changed.notify()

    def on_frames_cleared(self) -> None:
        """The slot was cleared: the camera may be about to stop, and wants its memory back. Does not wait."""
        with self._changed:
            self._is_camera_stopping = True
            self._changed.notify()

    def status(self) -> VideoStatus:
        with self._changed:
            is_running = self._thread is not None
            return VideoStatus(
                self._format if is_running else None,
                self._backend_name if is_running else None,
                len(self._places),
                self._encoded,
                self._skipped,
                self._keyframes,
                self._rate(time.monotonic()) if is_running else None,
                self._last_error,
            )

    def health_error(self) -> str | None:
        """What is wrong and will not right itself; None while all is well."""
        with self._changed:
            still_s = time.monotonic() - self._progress_s
            if self._thread is None or self._came < 2 or still_s <= _STILL_LIMIT_S:
                return None
            return f"frames come, and the H.264 encoder has taken none for {still_s:.0f} s"

    def stop(self, deadline_s: float) -> None:
        """End the thread; sinks get no more. Waits until the deadline (monotonic clock)."""
        with self._changed:
            self._is_stopping = True
            self._places.clear()
            thread = self._thread
            self._changed.notify_all()
        if thread is not None:
            thread.join(max(0.0, deadline_s - time.monotonic()))

    def _rate(self, now_s: float) -> float:
        sent = self._sent
        while sent and sent[0][0] < now_s - _RATE_WINDOW_S:
            sent.popleft()
        return 8 * sum(size for _, size in sent) / _RATE_WINDOW_S

    # --- the thread -------------------------------------------------------------------------------------------

    def _run(self) -> None:
        run: _Run | None = None
        failures = 0
        try:
            while (step := self._next_step(run)) is not _END:
                if step is _LET_GO:
                    self._end(run)
                    run = None
                    continue
                try:
                    if isinstance(step, Frame):
                        run = self._run_for(step, run)
                        self._put(run, step)
                    while run is not None and (packet := run.backend.receive_packet()) is not None:
                        self._hand_on(run, packet)
                    failures = 0
                except BackendLost:
                    self._end(run)
                    run = None
                    self._keyframe_s = 0.0
                except Exception as error:  # noqa: BLE001 - one bad frame ends no thread: the next one may be well
                    self._complain(error)
                    self._keyframe_s = 0.0  # it may have been to be one
                    failures += 1
                    if failures >= _MOST_FAILURES:
                        self._end(run)
                        run = None
                finally:
                    if isinstance(step, Frame):
                        step.release()
        finally:
            self._end(run)

    def _end(self, run: _Run | None) -> None:
        if run is not None:
            run.backend.close()

    def _next_step(self, run: _Run | None) -> Frame | _Step:
        """Sleep until there is a newer frame, which is held, or something else to do."""
        backend = None if run is None else run.backend
        with self._changed:
            while True:
                if not self._places:
                    # Here, under the lock: who joins from now on finds no thread, and starts one.
                    self._thread = None
                    self._sent.clear()
                    return _END
                was_stopping, self._is_camera_stopping = self._is_camera_stopping, False
                if was_stopping and backend is not None and backend.keeps_buffers:
                    return _LET_GO
                if backend is not None and backend.has_output():
                    return _PACKETS
                if backend is None or not backend.is_full:
                    self._progress_s = time.monotonic()
                    frame = self._frames.wait(lambda newest: newest.began_s > self._last_began_s, deadline_s=0.0)
                    if frame is not None:
                        self._skipped += max(0, self._came - 1)
                        self._came = min(self._came, 1) - 1  # below 0: it was in the slot, and not told yet
                        self._delta_s = frame.began_s - self._last_began_s
                        self._last_began_s = frame.began_s  # whatever becomes of it, it is not taken again
                        return frame
                    self._came = min(self._came, 0)
                # A backend that hangs with the camera's memory leaves it without frames, which would wake us.
                self._changed.wait(_LOOK_S if backend is not None and backend.is_busy else None)

    def _wake(self) -> None:
        """A packet is done that was under way; on any thread."""
        with self._changed:
            self._changed.notify()

    def _run_for(self, frame: Frame, run: _Run | None) -> _Run:
        """The run that goes on, or a new one where it has to be. Raises CameraError."""
        looks = (frame.size, frame.pixel_format, self._fps())
        if run is not None and run.looks == looks:
            return run
        fresh = _Run(self._open_backend(*looks, self._bitrate, self._wake), looks)
        self._end(run)
        return fresh

    def _put(self, run: _Run, frame: Frame) -> None:
        """Raises CameraError."""
        is_keyframe = self._is_keyframe_due(frame.began_s, run.looks[2])
        self._last_delta_s = self._delta_s
        run.backend.send_frame(frame, is_keyframe=is_keyframe)

    def _hand_on(self, run: _Run, packet: Packet) -> None:
        """Give it to everyone; what comes before the run's first keyframe to nobody."""
        if packet.is_keyframe:
            run.fmt = self._format_of(run)
        if run.fmt is None:
            return
        now_s = time.monotonic()
        with self._changed:
            self._format = run.fmt
            self._backend_name = run.backend.name
            self._encoded += 1
            self._last_error = None
            self._sent.append((now_s, len(packet.data)))
            self._rate(now_s)
            if packet.is_keyframe:
                self._keyframes += 1
                self._keyframe_s = max(self._keyframe_s, packet.began_s)
            places = tuple(self._places.values())
        for place in places:
            if self._give(place, run.fmt, packet):
                # Who begins knows of no frame before this one: the next is judged as if there had been none.
                self._last_delta_s = 0.0

    def _format_of(self, run: _Run) -> VideoFormat:
        """The same object as long as nothing changes, in another run too: sinks need not begin anew."""
        fmt = VideoFormat(*run.backend.size, run.looks[2], *run.backend.parameter_sets)
        if fmt == self._format:
            return self._format
        log.info("H.264: %dx%d, %d bits a second", fmt.width, fmt.height, self._bitrate)
        return fmt

    def _is_keyframe_due(self, began_s: float, fps: float) -> bool:
        since_s = began_s - self._keyframe_s
        is_after_gap = is_gap(self._delta_s, self._last_delta_s, fps)
        with self._changed:
            is_asked = self._has_newcomer or (self._wants_keyframe and since_s >= _KEYFRAME_PAUSE_S)
            is_due = is_asked or is_after_gap or since_s >= KEYFRAME_S
            if is_due:
                self._wants_keyframe = self._has_newcomer = False
        if is_due:
            self._keyframe_s = began_s
        return is_due

    def _give(self, place: _Place, fmt: VideoFormat, packet: Packet) -> bool:
        """Hand the packet on; whether it is the first one for this sink."""
        is_first = place.fmt is not fmt
        if is_first and not packet.is_keyframe:
            return False
        try:
            if is_first:
                place.fmt = fmt
                place.sink.on_format(fmt)
            place.sink.on_packet(packet)
        except Exception:  # one that takes packets must not cost the others theirs
            log.exception("%s cannot take packets, and gets no more", type(place.sink).__name__)
            self.unsubscribe(place.sink)
        return is_first

    def _complain(self, error: Exception) -> None:
        """Log a frame that could not be encoded; of many in a row, the first and then their number."""
        now_s = time.monotonic()
        with self._changed:
            self._last_error = str(error)
        self._failures += 1
        if now_s < self._complain_at_s:
            return
        failures, self._failures = self._failures, 0
        self._complain_at_s = now_s + _COMPLAINT_PAUSE_S
        details = None if isinstance(error, CameraError) else error
        log.error("%d frames could not be encoded as H.264: %s", failures, error, exc_info=details)
