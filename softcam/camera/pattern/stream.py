"""The pattern camera's stream: its thread, its buffers and its frame rate.

One thread named "pattern" runs from `start` to `stop`, and alone uses the sensor, the buffers' content and the active
faults. It keeps to the monotonic clock: frames start whole frame durations apart, and those for which there was no
buffer or no time are skipped and never made up for.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from softcam.camera.base import OnFrame, StreamRequest
from softcam.camera.pattern.faults import Faults
from softcam.camera.pattern.renderer import Background, Buffer
from softcam.camera.pattern.sensor import Scene, Sensor, Shot
from softcam.errors import CameraError, CameraStuck
from softcam.imaging.frame import Frame

log = logging.getLogger(__name__)

BUFFERS: Final = 6  # as libcamera allocates for a video configuration
CONTROL_DELAY: Final = 2  # frames from `send` to the first frame with the control
_FAULT_CHECK_S: Final = 0.2

_USUAL_SCENE: Final = Scene()
_DARK_LUX: Final = 1.0
_NEAR_DIOPTRES: Final = 3.2


class _BufferPool:
    """A fixed number of buffers; any thread may release one."""

    def __init__(self, width: int, height: int, on_release: Callable[[], None]) -> None:
        self._lock = threading.Lock()  # guards _free
        self._free = [Buffer(width, height) for _ in range(BUFFERS)]
        self._on_release = on_release

    def acquire(self) -> Buffer | None:
        with self._lock:
            return self._free.pop() if self._free else None

    def has_free(self) -> bool:
        with self._lock:
            return bool(self._free)

    def release(self, buffer: Buffer) -> None:
        with self._lock:
            self._free.append(buffer)
        self._on_release()


@dataclass(eq=False, slots=True)
class _StillJob:
    """A requested still; the stream's lock guards the frame."""

    size: tuple[int, int]
    controls: Mapping[str, Any]
    frame: Frame | None = None


class PatternStream:
    """The state from an open to a close; the stream may stop and start again in between."""

    def __init__(
        self,
        request: StreamRequest,
        on_frame: OnFrame,
        faults: Faults,
        *,
        stop_timeout_s: float,
        still_timeout_s: float,
    ) -> None:
        """`request` has a size that the sensor supports; a still's timeout does not include its exposure."""
        self._on_frame = on_frame
        self._faults = faults
        self._stop_timeout_s = stop_timeout_s
        self._still_timeout_s = still_timeout_s
        # Guards the four below; notified when the thread has work and when it has done it.
        self._changed = threading.Condition(threading.Lock())
        self._thread: threading.Thread | None = None
        self._is_stopping = False
        self._controls: dict[str, Any] = {}  # sent, and not read by the thread yet
        self._still: _StillJob | None = None
        # The thread's own; `start` uses them before it runs.
        self._sensor = Sensor(
            request.width,
            request.height,
            request.fps,
            hflip=request.hflip,
            vflip=request.vflip,
            is_hdr=request.hdr != "off",
        )
        self._size = (request.width, request.height)
        self._background: Background | None = None  # the stream's last one
        self._pool = _BufferPool(request.width, request.height, self._wake)
        self._sequence = 0
        self._delayed: deque[dict[str, Any]] = deque()
        self._scene = _USUAL_SCENE
        self._hangs_now = False  # while a fault is set
        self._hangs_until_start = False
        self._fault_check_s = 0.0
        # Written by the thread, read by `still` for its timeout, where an outdated value does no harm.
        self._frame_s = 0.0

    def start(self) -> None:
        """Start the thread; all controls sent so far apply from the first frame."""
        self._is_stopping = False
        with self._changed:
            controls, self._controls = self._controls, {}
        while self._delayed:
            self._sensor.apply(self._delayed.popleft())
        self._sensor.apply(controls)
        self._hangs_until_start = False
        self._fault_check_s = 0.0
        self._thread = threading.Thread(target=self._run, name="pattern", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread; raises CameraStuck when it does not stop, which only a blocked `on_frame` can cause."""
        with self._changed:
            thread = self._thread
            self._is_stopping = True
            self._changed.notify_all()
        if thread is None:
            return
        thread.join(self._stop_timeout_s)
        if thread.is_alive():
            raise CameraStuck(f"the pattern camera did not stop within {self._stop_timeout_s:.0f} s")
        self._thread = None

    def send(self, controls: Mapping[str, Any]) -> None:
        """Queue normalised controls for the next frame that is started; any thread may call this."""
        with self._changed:
            self._controls.update(controls)

    def still(self, size: tuple[int, int], controls: Mapping[str, Any]) -> Frame:
        """See `Camera.still`, with normalised controls.

        The frame that is being exposed is dropped, as in a change of the sensor's mode.
        """
        job = _StillJob(size, controls)
        with self._changed:
            if self._thread is None or self._is_stopping:
                raise CameraError("the pattern camera is stopped and cannot capture a still")
            self._still = job
            self._changed.notify_all()
            self._changed.wait_for(
                lambda: job.frame is not None or self._is_stopping, self._still_timeout_s + 2 * self._frame_s
            )
            self._still = None
            if job.frame is None:
                raise CameraError("the pattern camera did not capture the still in time")
            return job.frame

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    # From here on: the pattern thread

    def _run(self) -> None:
        try:
            due_s = time.monotonic()
            while not self._is_stopping:
                self._check_faults()
                due_s = self._capture_or_wait(due_s)
        except Exception:
            # As with libcamera, a camera that fails just delivers no more frames; the session's watchdog notices.
            log.exception("Pattern camera failed")

    def _capture_or_wait(self, due_s: float) -> float:
        """Capture a frame or a still, or wait for a reason to; returns when the next frame is due."""
        if self._hangs_now or self._hangs_until_start:
            self._wait(_FAULT_CHECK_S, lambda: False)
        elif self._still is not None and self._still.frame is None:
            self._capture_still(self._still)
        else:
            buffer = self._pool.acquire()
            if buffer is not None:
                return self._capture_frame(buffer, due_s)
            self._wait(_FAULT_CHECK_S, lambda: self._has_still_job() or self._pool.has_free())
        return max(due_s, time.monotonic())

    def _capture_frame(self, buffer: Buffer, began_s: float) -> float:
        shot = self._shoot(None)
        exposure_s, frame_s = shot.exposure_us / 1e6, shot.frame_duration_us / 1e6
        self._frame_s = frame_s
        if self._background is None or self._background.look != shot.look:
            self._background = Background(*self._size, shot.look)
        # Drawn during its exposure, so that it is delivered on time.
        buffer.draw(self._background, self._sequence, _unix_s(began_s))
        if self._wait(began_s + exposure_s - time.monotonic(), self._has_still_job):
            self._pool.release(buffer)
            return began_s
        self._on_frame(self._make_frame(buffer, shot, began_s, lambda: self._pool.release(buffer)))
        self._sequence += 1
        late_s = time.monotonic() - began_s - frame_s
        skipped = int(late_s / frame_s) if late_s > 0 else 0
        return began_s + frame_s * (1 + skipped)

    def _capture_still(self, job: _StillJob) -> None:
        began_s = time.monotonic()
        shot = self._shoot(job.size, job.controls)
        buffer = Buffer(*job.size)
        buffer.draw(Background(*job.size, shot.look), self._sequence, _unix_s(began_s))
        self._wait(began_s + shot.exposure_us / 1e6 - time.monotonic(), lambda: False)
        frame = self._make_frame(buffer, shot, began_s, None)
        with self._changed:
            job.frame = frame
            self._changed.notify_all()

    def _shoot(self, size: tuple[int, int] | None, controls: Mapping[str, Any] | None = None) -> Shot:
        with self._changed:
            sent, self._controls = self._controls, {}
        self._delayed.append(sent)
        if len(self._delayed) >= CONTROL_DELAY:
            self._sensor.apply(self._delayed.popleft())
        return self._sensor.shoot(self._scene, size, (controls or {}).get("ScalerCrop"))

    def _make_frame(self, buffer: Buffer, shot: Shot, began_s: float, give_back: Callable[[], None] | None) -> Frame:
        height, width = buffer.planes[0].shape
        metadata = {**shot.metadata, "SensorTimestamp": round(began_s * 1e9)}
        return Frame(
            buffer.planes,
            "YUV420",
            width,
            height,
            sequence=self._sequence,
            began_s=began_s,
            metadata=metadata,
            on_release=give_back,
        )

    def _has_still_job(self) -> bool:
        return self._still is not None and self._still.frame is None

    def _wait(self, timeout_s: float, is_over: Callable[[], bool]) -> bool:
        """Wait until `is_over`, called under the lock, or the stream is to stop; False after the timeout."""
        with self._changed:
            return self._changed.wait_for(lambda: self._is_stopping or is_over(), max(0.0, timeout_s))

    def _check_faults(self) -> None:
        now_s = time.monotonic()
        if now_s < self._fault_check_s:
            return
        self._fault_check_s = now_s + _FAULT_CHECK_S
        words = self._faults.words()
        self._hangs_now = "hang" in words
        if self._faults.is_new_hang_once(words) or "missing" in words:
            self._hangs_until_start = True
        self._scene = Scene(
            lux=_DARK_LUX if "dark" in words else _USUAL_SCENE.lux,
            wall_dioptres=_NEAR_DIOPTRES if "near" in words else _USUAL_SCENE.wall_dioptres,
            focus="never" if "no-focus" in words else "endless" if "endless-focus" in words else "sharp",
        )


def _unix_s(monotonic_s: float) -> float:
    return time.time() - time.monotonic() + monotonic_s
