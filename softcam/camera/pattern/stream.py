"""The pattern camera's stream: its thread, its buffers and its pace.

One thread named "pattern" runs from `start` to `stop`, and alone touches the sensor, the painter and the faults in
force. It keeps to the monotonic clock: frames begin whole frame durations apart, and those that could not be taken,
for want of a buffer or of time, are left out and never made up for.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from softcam.camera.base import OnFrame, StreamRequest
from softcam.camera.pattern.faults import Faults
from softcam.camera.pattern.renderer import Painter
from softcam.camera.pattern.scene import Planes
from softcam.camera.pattern.sensor import Scene, Sensor, Shot
from softcam.errors import CameraError, CameraStuck
from softcam.imaging.frame import Frame

logger = logging.getLogger(__name__)

BUFFERS: Final = 6  # what libcamera gives a video configuration
CONTROL_DELAY: Final = 2  # frames from an order to the first picture that follows it
_STRIDE: Final = 64  # rows of Y are padded as on a Raspberry Pi 5
_FAULT_CHECK_S: Final = 0.2
_STOP_WAIT_S: Final = 5.0  # for the thread to end: it draws a still of the whole sensor in about a second
_STILL_WAIT_S: Final = 10.0  # for a still, beyond its exposure

_USUAL_SCENE: Final = Scene()
_DARK_LUX: Final = 1.0
_NEAR_DIOPTRES: Final = 3.2


class _BufferPool:
    """Memory for so many frames at once; each has it from `take` until it is given back, by any thread."""

    def __init__(self, width: int, height: int, on_return: Callable[[], None]) -> None:
        self._lock = threading.Lock()  # guards _free
        self._free = [_padded_planes(width, height) for _ in range(BUFFERS)]
        self._on_return = on_return

    def take(self) -> Planes | None:
        with self._lock:
            return self._free.pop() if self._free else None

    def has_free(self) -> bool:
        with self._lock:
            return bool(self._free)

    def give_back(self, planes: Planes) -> None:
        with self._lock:
            self._free.append(planes)
        self._on_return()


@dataclass(eq=False, slots=True)
class _StillOrder:
    """A wish for a still; the stream's lock guards the frame."""

    size: tuple[int, int]
    controls: Mapping[str, Any]
    frame: Frame | None = None


class PatternStream:
    """What lives from an open to a close; between them the stream may stop and start again."""

    def __init__(self, wish: StreamRequest, on_frame: OnFrame, faults: Faults) -> None:
        """`wish` has a size that the sensor can give."""
        self._on_frame = on_frame
        self._faults = faults
        # Guards the four below; notified when the thread has something to do, or has done it.
        self._changed = threading.Condition(threading.Lock())
        self._thread: threading.Thread | None = None
        self._is_stopping = False
        self._orders: dict[str, Any] = {}  # controls that the thread has not taken yet
        self._still: _StillOrder | None = None
        # The thread's own; `start` touches them before it runs.
        self._sensor = Sensor(
            wish.width, wish.height, wish.fps, hflip=wish.hflip, vflip=wish.vflip, is_hdr=wish.hdr != "off"
        )
        self._painter = Painter()
        self._still_painter = Painter()
        self._pool = _BufferPool(wish.width, wish.height, self._wake)
        self._sequence = 0
        self._on_way: deque[dict[str, Any]] = deque()
        self._scene = _USUAL_SCENE
        self._hangs_now = False  # while a word stands
        self._hangs_on = False  # until the next start
        self._check_s = 0.0
        # Written by the thread, read by `still` for its deadline, where an old value does no harm.
        self._frame_s = 0.0

    def start(self) -> None:
        """What was sent until now counts from the first frame."""
        self._is_stopping = False
        with self._changed:
            orders, self._orders = self._orders, {}
        while self._on_way:
            self._sensor.apply(self._on_way.popleft())
        self._sensor.apply(orders)
        self._hangs_on = False
        self._check_s = 0.0
        self._thread = threading.Thread(target=self._run, name="pattern", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; raises CameraStuck when it does not end, which only an `on_frame` that is stuck can cause."""
        with self._changed:
            thread = self._thread
            self._is_stopping = True
            self._changed.notify_all()
        if thread is None:
            return
        thread.join(_STOP_WAIT_S)
        if thread.is_alive():
            raise CameraStuck(f"the pattern camera did not stop within {_STOP_WAIT_S:.0f} s")
        self._thread = None

    def send(self, controls: Mapping[str, Any]) -> None:
        """Give normalised controls to the next frame that is begun; any thread may."""
        with self._changed:
            self._orders.update(controls)

    def still(self, size: tuple[int, int], controls: Mapping[str, Any]) -> Frame:
        """See `Camera.still`, with normalised controls.

        The frame that is being exposed is given up, as in a change of the sensor's mode.
        """
        order = _StillOrder(size, controls)
        with self._changed:
            if self._thread is None or self._is_stopping:
                raise CameraError("the pattern camera is stopped and cannot take a still")
            self._still = order
            self._changed.notify_all()
            self._changed.wait_for(
                lambda: order.frame is not None or self._is_stopping, _STILL_WAIT_S + 2 * self._frame_s
            )
            self._still = None
            if order.frame is None:
                raise CameraError("the pattern camera did not take the still in time")
            return order.frame

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    # From here on: the pattern thread

    def _run(self) -> None:
        try:
            due_s = time.monotonic()
            while not self._is_stopping:
                self._look_at_faults()
                due_s = self._step(due_s)
        except Exception:
            # Like libcamera's, a camera that breaks just gives no more frames, and the holder's watchdog sees that.
            logger.exception("the pattern camera broke")

    def _step(self, due_s: float) -> float:
        """Take what is to be taken now, or wait for it; gives when the next frame is due."""
        if self._hangs_now or self._hangs_on:
            self._wait(_FAULT_CHECK_S, lambda: False)
        elif self._still is not None and self._still.frame is None:
            self._take_still(self._still)
        else:
            planes = self._pool.take()
            if planes is not None:
                return self._take_frame(planes, due_s)
            self._wait(_FAULT_CHECK_S, lambda: self._has_still_order() or self._pool.has_free())
        return max(due_s, time.monotonic())

    def _take_frame(self, planes: Planes, began_s: float) -> float:
        shot = self._shoot(None)
        exposure_s, frame_s = shot.exposure_us / 1e6, shot.frame_duration_us / 1e6
        self._frame_s = frame_s
        # Drawn before its exposure has ended, so that it can be handed over on the dot.
        self._painter.paint(planes, shot.look, self._sequence, _unix_s(began_s))
        if self._wait(began_s + exposure_s - time.monotonic(), self._has_still_order):
            self._pool.give_back(planes)
            return began_s
        self._on_frame(self._framed(planes, shot, began_s, lambda: self._pool.give_back(planes)))
        self._sequence += 1
        late_s = time.monotonic() - began_s - frame_s
        left_out = int(late_s / frame_s) if late_s > 0 else 0
        return began_s + frame_s * (1 + left_out)

    def _take_still(self, order: _StillOrder) -> None:
        began_s = time.monotonic()
        shot = self._shoot(order.size, order.controls)
        planes = _padded_planes(*order.size)
        # A painter of its own, so that the stream's keeps its stages. It goes when the camera is closed.
        self._still_painter.paint(planes, shot.look, self._sequence, _unix_s(began_s))
        self._wait(began_s + shot.exposure_us / 1e6 - time.monotonic(), lambda: False)
        frame = self._framed(planes, shot, began_s, None)
        with self._changed:
            order.frame = frame
            self._changed.notify_all()

    def _shoot(self, size: tuple[int, int] | None, controls: Mapping[str, Any] | None = None) -> Shot:
        with self._changed:
            orders, self._orders = self._orders, {}
        self._on_way.append(orders)
        if len(self._on_way) >= CONTROL_DELAY:
            self._sensor.apply(self._on_way.popleft())
        return self._sensor.shoot(self._scene, size, (controls or {}).get("ScalerCrop"))

    def _framed(self, planes: Planes, shot: Shot, began_s: float, give_back: Callable[[], None] | None) -> Frame:
        height, width = planes[0].shape
        metadata = {**shot.metadata, "SensorTimestamp": round(began_s * 1e9)}
        return Frame(
            planes,
            "YUV420",
            width,
            height,
            sequence=self._sequence,
            began_s=began_s,
            metadata=metadata,
            give_back=give_back,
        )

    def _has_still_order(self) -> bool:
        return self._still is not None and self._still.frame is None

    def _wait(self, timeout_s: float, until: Callable[[], bool]) -> bool:
        """Sleep at most so long; True when `until` holds, which is asked under the lock, or the stream is to stop."""
        with self._changed:
            return self._changed.wait_for(lambda: self._is_stopping or until(), max(0.0, timeout_s))

    def _look_at_faults(self) -> None:
        now_s = time.monotonic()
        if now_s < self._check_s:
            return
        self._check_s = now_s + _FAULT_CHECK_S
        words = self._faults.words()
        self._hangs_now = "hang" in words
        if self._faults.begins_hang_once(words) or "missing" in words:
            self._hangs_on = True
        self._scene = Scene(
            lux=_DARK_LUX if "dark" in words else _USUAL_SCENE.lux,
            wall_dioptres=_NEAR_DIOPTRES if "near" in words else _USUAL_SCENE.wall_dioptres,
            focus="never" if "no-focus" in words else "endless" if "endless-focus" in words else "sharp",
        )


def _padded_planes(width: int, height: int) -> Planes:
    """Y, U and V, uninitialised, one behind the other in one block of memory, with rows as a sensor's pipeline pads."""
    stride = -(-width // _STRIDE) * _STRIDE
    block = np.empty(stride * height * 3 // 2, np.uint8)
    y, chroma = block[: stride * height], block[stride * height :]
    u, v = chroma.reshape(2, height // 2, stride // 2)
    return y.reshape(height, stride)[:, :width], u[:, : width // 2], v[:, : width // 2]


def _unix_s(monotonic_s: float) -> float:
    return time.time() - time.monotonic() + monotonic_s
