"""The shared H.264 encoder: encodes each frame once for all sinks, and runs only while there is a sink.

The thread exists from the first subscription to the last unsubscription. It takes the newest frame whenever the
camera has delivered one: an encoder that falls behind skips frames, so the age of packets does not grow. The encoding
is done by a `Backend`, libx264 or hardware; a frame of another size or format opens a new one. Sinks are called on this
thread.
"""

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Literal

from softcam.errors import CameraError
from softcam.h264 import x264
from softcam.h264.backend import Backend, BackendLost, BackendName, OpenBackend
from softcam.h264.bitrate import Bitrate
from softcam.h264.packet import Packet, PacketSink, VideoFormat
from softcam.h264.timing import Pacer, is_gap
from softcam.imaging.frame import Frame, NewestFrame, PixelFormat
from softcam.runtime.deadline import Deadline
from softcam.runtime.log_limit import RateLimitedLogger
from softcam.runtime.threads import spawn

log = logging.getLogger(__name__)

KEYFRAME_S: Final = 2.0  # longest interval between keyframes: how long a decoder shows the effect of a loss
_MIN_KEYFRAME_S: Final = 0.25  # between requested keyframes: they are several times larger and would cost quality
_MAX_FAILURES: Final = 3  # in a row: then the backend is at fault, not the frames, and is reopened
_POLL_S: Final = 0.1
_RATE_WINDOW_S: Final = 2.0
_STALL_LIMIT_S: Final = 10.0  # an encoder without progress for so long, while frames arrive, hangs


@dataclass(frozen=True, slots=True)
class VideoStatus:
    """A snapshot of the encoder's state.

    `encoded` and `skipped` count frames since the start of the process. `bitrate` is measured, `target_bitrate` is what
    the backend is set to, both in bits per second. Bitrates, format and backend are None while the encoder does not
    run.
    """

    fmt: VideoFormat | None
    backend: BackendName | None
    sinks: int
    encoded: int
    skipped: int
    keyframes: int
    bitrate: float | None
    target_bitrate: int | None
    last_error: str | None


# What the thread does next if it does not encode a frame; `release` means the camera's memory.
_Step = Literal["deliver packets", "release", "end"]
_Config = tuple[tuple[int, int], PixelFormat, float]  # size, format, frames per second: fixed for a backend's lifetime


@dataclass(eq=False, slots=True)
class _EncoderRun:
    """A backend, the configuration of its frames, and the format of its packets since the first keyframe."""

    backend: Backend
    config: _Config
    fmt: VideoFormat | None = field(default=None, init=False)

    def update_format(self, latest: VideoFormat | None) -> None:
        """Read the format at a keyframe; an equal one is the same object as `latest`: then sinks need no new format."""
        fmt = VideoFormat(*self.backend.size, self.config[2], *self.backend.parameter_sets)
        if fmt != latest:
            log.info("Encoding H.264: %dx%d, %d bit/s", fmt.width, fmt.height, self.backend.bitrate)
        self.fmt = latest if fmt == latest else fmt


class VideoEncoder:
    """Owns its thread. The camera's thread calls `on_frame`; all other methods may be called by any thread."""

    def __init__(
        self,
        frames: NewestFrame,
        fps: Callable[[], float],
        bitrate: Bitrate,
        on_crash: Callable[[str], None],
        *,
        require: Callable[[], None] = x264.require_libx264,
        open_backend: OpenBackend = x264.X264,
        max_fps: float = math.inf,
        thread_name: str = "h264",
        stall_limit_s: float = _STALL_LIMIT_S,
    ) -> None:
        """`fps` returns the frame rate of the camera's stream, and is called for every frame.

        `require` raises NotSupported where this machine cannot encode; its first call may take a second.

        Above `max_fps`, frames are left out evenly.
        """
        self._frames = frames
        self._fps = fps
        self.bitrate = bitrate
        self._on_crash = on_crash
        self.require = require
        self._open_backend = open_backend
        self._max_fps = max_fps
        self._thread_name = thread_name
        self._stall_limit_s = stall_limit_s

        self._changed = threading.Condition(threading.Lock())  # guards the fields down to the next comment
        self._sinks: dict[PacketSink, VideoFormat | None] = {}  # with the format that was passed to each last
        self._thread: threading.Thread | None = None
        self._is_stopping = False
        self._is_keyframe_requested = False
        self._has_new_sink = False  # its keyframe ignores the minimum distance
        self._arrived = 0  # frames since the thread last read the slot
        self._is_camera_stopping = False
        self._format: VideoFormat | None = None
        self._backend_name: BackendName | None = None  # of the last packet
        self._target_bitrate: int | None = None
        self._encoded = 0
        self._skipped = 0
        self._keyframes = 0
        self._sent: deque[tuple[float, int]] = deque()  # time, bytes
        self._last_error: str | None = None
        self._progress_s = 0.0

        # Owned by the thread; where one ends while the next starts, the lock orders them.
        self._last_began_s = 0.0
        self._pacer = Pacer(max_fps)
        self._delta_s = 0.0  # between the exposures of the last two frames that were taken
        self._last_delta_s = 0.0  # of the frame before
        self._keyframe_s = 0.0  # exposure of the last keyframe, or of the frame submitted as the next one
        self._errors = RateLimitedLogger(log)  # a camera may deliver damaged frames at its full rate
        frames.subscribe(self.on_frame, self.on_frames_cleared)

    # --- any thread -------------------------------------------------------------------------------------------

    def subscribe(self, sink: PacketSink) -> None:
        """See `VideoSource`. Raises NotSupported, and CameraError where the thread cannot be started."""
        self.require()
        with self._changed:
            if self._is_stopping or sink in self._sinks:
                return
            self._sinks[sink] = None
            self._has_new_sink = True
            if self._thread is None:
                self._arrived = 0
                self._is_camera_stopping = False
                self._progress_s = time.monotonic()
                try:
                    self._thread = spawn(self._thread_name, self._run, self._on_crash)
                except RuntimeError as error:  # no memory, or too many threads
                    del self._sinks[sink]
                    raise CameraError(f"the H.264 encoder cannot be started: {error}") from error
            self._changed.notify_all()

    def unsubscribe(self, sink: PacketSink) -> None:
        with self._changed:
            self._sinks.pop(sink, None)
            self._changed.notify_all()

    def request_keyframe(self) -> None:
        with self._changed:
            self._is_keyframe_requested = True

    def on_frame(self) -> None:
        """There is a new frame in the slot."""
        if self._thread is None:  # read without the lock: a thread that starts now reads the slot by itself
            return
        with self._changed:
            self._arrived += 1
            self._changed.notify()

    def on_frames_cleared(self) -> None:
        """The slot was cleared: the camera may be about to stop and needs its memory back. Does not block."""
        with self._changed:
            self._is_camera_stopping = True
            self._changed.notify()

    def status(self) -> VideoStatus:
        with self._changed:
            is_running = self._thread is not None
            return VideoStatus(
                self._format if is_running else None,
                self._backend_name if is_running else None,
                len(self._sinks),
                self._encoded,
                self._skipped,
                self._keyframes,
                self._rate(time.monotonic()) if is_running else None,
                self._target_bitrate if is_running else None,
                self._last_error,
            )

    def health_error(self) -> str | None:
        """A fault that does not recover by itself; None if there is none."""
        with self._changed:
            stalled_s = time.monotonic() - self._progress_s
            if self._thread is None or self._arrived < 2 or stalled_s <= self._stall_limit_s:
                return None
            return f"frames arrive, but the H.264 encoder has accepted none for {stalled_s:.0f} s"

    def stop(self, deadline: Deadline) -> None:
        """End the thread; sinks receive no more packets. Waits until the deadline."""
        with self._changed:
            self._is_stopping = True
            self._sinks.clear()
            thread = self._thread
            self._changed.notify_all()
        if thread is not None:
            thread.join(deadline.remaining_s)

    def _rate(self, now_s: float) -> float:
        sent = self._sent
        while sent and sent[0][0] < now_s - _RATE_WINDOW_S:
            sent.popleft()
        return 8 * sum(size for _, size in sent) / _RATE_WINDOW_S

    # --- the thread -------------------------------------------------------------------------------------------

    def _run(self) -> None:
        run: _EncoderRun | None = None
        failures = 0
        try:
            while (step := self._wait_for_step(run)) != "end":
                must_close = step == "release"
                try:
                    if isinstance(step, Frame):
                        run = self._get_run(step, run)
                        run.backend.send_frame(step, is_keyframe=self._is_keyframe_due(step.began_s, run.config[2]))
                    while run is not None and not must_close and (packet := run.backend.receive_packet()) is not None:
                        self._publish(run, packet)
                    if not must_close:
                        failures = 0
                except BackendLost:
                    must_close = True
                    self._keyframe_s = 0.0
                except Exception as error:  # noqa: BLE001 - the thread survives a bad frame: the next one may be good
                    self._report_error(error)
                    self._keyframe_s = 0.0  # the frame may have been the keyframe
                    failures += 1
                    must_close = failures >= _MAX_FAILURES
                finally:
                    if isinstance(step, Frame):
                        step.release()
                if must_close and run is not None:
                    run.backend.close()
                    run = None
        finally:
            if run is not None:
                run.backend.close()

    def _wait_for_step(self, run: _EncoderRun | None) -> Frame | _Step:
        """Sleep until there is a newer frame, which is returned held, or another step to do."""
        backend = None if run is None else run.backend
        with self._changed:
            while True:
                if not self._sinks:
                    # Under the lock: a sink that subscribes from now on finds no thread, and starts one.
                    self._thread = None
                    self._sent.clear()
                    return "end"
                was_stopping, self._is_camera_stopping = self._is_camera_stopping, False
                if was_stopping and backend is not None and backend.is_keeping_buffers:
                    return "release"
                if backend is not None and backend.has_output():
                    return "deliver packets"
                if backend is None or not backend.is_full:
                    self._progress_s = time.monotonic()
                    frame = self._frames.held(newer_than_s=max(self._last_began_s, self._pacer.not_before_s))
                    if frame is not None:
                        self._pacer.select(frame.began_s)
                        if not self._pacer.is_limiting:
                            self._skipped += max(0, self._arrived - 1)
                        self._arrived = min(self._arrived, 1) - 1  # -1: read from the slot before its notification
                        self._delta_s = frame.began_s - self._last_began_s
                        self._last_began_s = frame.began_s  # never taken again, whether it can be encoded or not
                        return frame
                    self._arrived = min(self._arrived, 0)
                # A backend that hangs with the camera's memory leaves the camera without frames, which would wake us.
                self._changed.wait(_POLL_S if backend is not None and backend.is_busy else None)

    def _wake(self) -> None:
        """The backend has finished a packet; called by any thread."""
        with self._changed:
            self._changed.notify()

    def _get_run(self, frame: Frame, run: _EncoderRun | None) -> _EncoderRun:
        """The current run, or a new one if the frame's configuration differs. Raises CameraError."""
        config = (frame.size, frame.pixel_format, min(self._fps(), self._max_fps))
        if run is not None and run.config == config:
            return run
        size, _, fps = config
        fresh = _EncoderRun(self._open_backend(*config, self.bitrate(size, fps), self._wake), config)
        if run is not None:
            run.backend.close()
        return fresh

    def _publish(self, run: _EncoderRun, packet: Packet) -> None:
        """Deliver the packet to all sinks; packets before the run's first keyframe are dropped."""
        if packet.is_keyframe:
            run.update_format(self._format)
        if run.fmt is None:
            return
        now_s = time.monotonic()
        with self._changed:
            self._format = run.fmt
            self._backend_name = run.backend.name
            self._target_bitrate = run.backend.bitrate
            self._encoded += 1
            self._last_error = None
            self._sent.append((now_s, len(packet.data)))
            self._rate(now_s)
            if packet.is_keyframe:
                self._keyframes += 1
                self._keyframe_s = max(self._keyframe_s, packet.began_s)
            sinks = tuple(self._sinks.items())
        for sink, sink_fmt in sinks:
            is_first = sink_fmt is not run.fmt
            if packet.is_keyframe or not is_first:
                self._deliver(sink, run.fmt if is_first else None, packet)

    def _is_keyframe_due(self, began_s: float, fps: float) -> bool:
        since_s = began_s - self._keyframe_s
        is_after_gap = is_gap(self._delta_s, self._last_delta_s, fps)
        self._last_delta_s = self._delta_s
        with self._changed:
            is_requested = self._has_new_sink or (self._is_keyframe_requested and since_s >= _MIN_KEYFRAME_S)
            is_due = is_requested or is_after_gap or since_s >= KEYFRAME_S
            if is_due:
                self._is_keyframe_requested = self._has_new_sink = False
        if is_due:
            self._keyframe_s = began_s
        return is_due

    def _deliver(self, sink: PacketSink, fmt: VideoFormat | None, packet: Packet) -> None:
        """Deliver the packet to a sink, after `fmt` if it is the sink's first of this format."""
        try:
            if fmt is not None:
                with self._changed:
                    if sink in self._sinks:
                        self._sinks[sink] = fmt
                # A new sink knows no earlier frame: the next one is judged as if there had been none.
                self._last_delta_s = 0.0
                sink.on_format(fmt)
            sink.on_packet(packet)
        except Exception:  # the other sinks must still receive theirs
            log.exception("Packet sink %s unsubscribed: it raised an exception", type(sink).__name__)
            self.unsubscribe(sink)

    def _report_error(self, error: Exception) -> None:
        with self._changed:
            self._last_error = str(error)
        details = None if isinstance(error, CameraError) else error
        self._errors.error("Failed to encode frame as H.264: %s", error, exc_info=details)
