"""The pattern camera's stream: its thread, its buffers and its frame rate.

One thread named "pattern" runs from `start` to `stop`, except during a still, and alone uses the sensor and what is in
the buffers. It keeps to the monotonic clock: frames start whole frame durations apart, and those for which there was no
buffer or no time are skipped and never made up for.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from softcam.camera.base import OnFrame, StreamRequest
from softcam.camera.pattern.faults import POLL_S, Faults
from softcam.camera.pattern.renderer import Planes, allocate, draw_background, draw_frame
from softcam.camera.pattern.sensor import Look, Scene, Sensor, Shot
from softcam.camera.sensor_modes import Rectangle, SensorMode
from softcam.errors import CameraError, CameraStuck
from softcam.imaging.frame import Frame

log = logging.getLogger(__name__)

BUFFERS: Final = 6  # as libcamera allocates for a video configuration
_CHANGES: Final[Mapping[str, Any]] = {  # of the scene, by the faults
    "dark": {"lux": 1.0},
    "near": {"wall_dioptres": 3.2},
    "no-focus": {"focus": "never"},
    "endless-focus": {"focus": "endless"},
}


class PatternStream:
    """The state from an open to a close; the stream may stop and start again in between. The camera thread calls it."""

    def __init__(
        self,
        request: StreamRequest,
        mode: SensorMode,
        on_frame: OnFrame,
        faults: Faults,
        stop_timeout_s: float,
        still_timeout_s: float,
    ) -> None:
        """`request` has a size that the sensor supports; a still's timeout does not include its exposure."""
        self._size = (request.width, request.height)
        self._on_frame = on_frame
        self._faults = faults
        self._stop_timeout_s = stop_timeout_s
        self._still_timeout_s = still_timeout_s
        self._thread: threading.Thread | None = None
        self._changed = threading.Condition(threading.Lock())  # guards changes of the three below
        self._is_stopping = False
        self._sent: dict[str, Any] = {}  # controls that are not read yet
        self._free = [allocate(*self._size) for _ in range(BUFFERS)]
        # The pattern thread's own; the camera thread's while that one does not run.
        self._sensor = Sensor(request, mode)
        self._delayed: dict[str, Any] = {}  # controls of the frame after the next
        self._background: tuple[Look, Planes] | None = None
        self._sequence = 0
        self._hangs_until_start = False

    def start(self) -> None:
        """Start the thread; all controls sent so far apply from the first frame."""
        self._hangs_until_start = False
        self._resume()

    def stop(self) -> None:
        """Stop the thread; raises CameraStuck when it does not stop, which only a blocked `on_frame` can cause."""
        if self._thread is None:
            return
        with self._changed:
            self._is_stopping = True
            self._changed.notify_all()
        self._thread.join(self._stop_timeout_s)
        if self._thread.is_alive():
            raise CameraStuck(f"the pattern camera did not stop within {self._stop_timeout_s:.0f} s")
        self._thread = None

    def send_controls(self, controls: Mapping[str, Any]) -> None:
        """Queue normalised controls for the frame after the next; any thread may call this."""
        with self._changed:
            self._sent.update(controls)

    def still(self, size: tuple[int, int], controls: Mapping[str, Any]) -> Frame:
        """See `Camera.still`, with normalised controls.

        The frame that is being exposed is dropped, as in a change of the sensor's mode.
        """
        if self._thread is None:
            raise CameraError("the pattern camera is stopped and cannot capture a still")
        self.stop()
        try:
            deadline_s = time.monotonic() + self._still_timeout_s
            while (scene := self._scene()) is None:
                if time.monotonic() >= deadline_s:
                    raise CameraError("the pattern camera did not capture the still in time")
                time.sleep(POLL_S)
            began_s = time.monotonic()
            shot = self._capture_shot(scene, size, controls.get("ScalerCrop"))
            planes = allocate(*size)
            draw_frame(planes, draw_background(*size, shot.look), shot.look, self._sequence, _unix_s(began_s))
            time.sleep(max(0.0, began_s + shot.metadata["ExposureTime"] / 1e6 - time.monotonic()))
            return self._make_frame(planes, shot, began_s)
        finally:
            self._resume()

    def _resume(self) -> None:
        with self._changed:
            self._is_stopping = False
        self._sensor.apply_controls(self._delayed | self._take_sent())
        self._delayed = {}
        self._thread = threading.Thread(target=self._run, name="pattern", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            due_s = time.monotonic()
            while not self._is_stopping:
                scene = self._scene()
                if scene is None:
                    self._wait(POLL_S)
                elif not self._free:
                    self._wait(POLL_S, lambda: bool(self._free))
                else:
                    due_s = self._capture_frame(scene, due_s)
                    continue
                due_s = max(due_s, time.monotonic())
        except Exception:
            # As with libcamera, a camera that fails just delivers no more frames; the session's watchdog notices.
            log.exception("Pattern camera failed")

    def _capture_frame(self, scene: Scene, began_s: float) -> float:
        """Capture a frame unless the stream stops meanwhile; returns when the next one is due."""
        with self._changed:
            buffer = self._free.pop()
        shot = self._capture_shot(scene)
        if self._background is None or self._background[0] != shot.look:
            self._background = shot.look, draw_background(*self._size, shot.look)
        # Drawn during its exposure, so that it is delivered on time.
        draw_frame(buffer, self._background[1], shot.look, self._sequence, _unix_s(began_s))
        if self._wait(began_s + shot.metadata["ExposureTime"] / 1e6 - time.monotonic()):
            self._release_buffer(buffer)
            return began_s
        self._on_frame(self._make_frame(buffer, shot, began_s, partial(self._release_buffer, buffer)))
        self._sequence += 1
        frame_s = float(shot.metadata["FrameDuration"]) / 1e6
        return began_s + frame_s * max(1, int((time.monotonic() - began_s) / frame_s))

    def _scene(self) -> Scene | None:
        """Read the faults and return what is in front of the camera; None while it hangs."""
        words = self._faults.words()
        if self._faults.is_new_hang_once(words) or "missing" in words:
            self._hangs_until_start = True
        if self._hangs_until_start or "hang" in words:
            return None
        return Scene(**{name: value for word in words for name, value in _CHANGES.get(word, {}).items()})

    def _capture_shot(self, scene: Scene, size: tuple[int, int] | None = None, crop: Rectangle | None = None) -> Shot:
        self._sensor.apply_controls(self._delayed)
        self._delayed = self._take_sent()
        return self._sensor.capture_shot(scene, size, crop)

    def _take_sent(self) -> dict[str, Any]:
        with self._changed:
            sent, self._sent = self._sent, {}
        return sent

    def _make_frame(
        self, planes: Planes, shot: Shot, began_s: float, on_release: Callable[[], None] | None = None
    ) -> Frame:
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
            on_release=on_release,
        )

    def _release_buffer(self, buffer: Planes) -> None:
        with self._changed:
            self._free.append(buffer)
            self._changed.notify_all()

    def _wait(self, timeout_s: float, is_over: Callable[[], bool] = lambda: False) -> bool:
        """Wait until the stream is to stop or `is_over`; False after the timeout."""
        with self._changed:
            return self._changed.wait_for(lambda: self._is_stopping or is_over(), max(0.0, timeout_s))


def _unix_s(monotonic_s: float) -> float:
    return time.time() - time.monotonic() + monotonic_s
