"""A reference-counted frame, and the slot that holds the newest one.

A frame's planes are in memory that belongs to its source, usually a buffer that the sensor filled and needs back. So
frames are reference counted: the source passes on a frame with one hold, every further user adds one with `hold()` and
drops it with `release()`, and the last release drops the planes and returns the buffer. No thread and no camera here.
"""

import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

PixelFormat = Literal["YUV420", "NV12", "YUYV", "MJPEG"]
Plane = npt.NDArray[np.uint8]


@dataclass(eq=False, slots=True, repr=False)
class Frame:
    """One frame of a camera, in full-range YCbCr (as in JPEG: BT.601 matrix, 0 to 255) or as a JPEG.

    `planes` are uint8 arrays, by `pixel_format`; rows may be padded, so only the last axis is contiguous:

    - `YUV420`: Y (height, width), U and V ((height + 1) // 2, (width + 1) // 2)
    - `NV12`: Y (height, width), then U and V interleaved ((height + 1) // 2, 2 * ((width + 1) // 2))
    - `YUYV`: one plane (height, 2 * width)
    - `MJPEG`: one plane (bytes,), a complete JPEG

    `began_s` is when the exposure began, on the clock of `time.monotonic()`; `timestamp_s` is the same moment as Unix
    time. `metadata` is libcamera's, by its control names; it may be read after the last release. `origin` is the
    camera's own object for the frame, for hardware that shares its memory; None if there is none, or after the release.
    `on_release` is called after the last release.
    """

    planes: tuple[Plane, ...]
    pixel_format: PixelFormat
    width: int
    height: int
    _: KW_ONLY
    sequence: int = 0
    began_s: float = field(default_factory=time.monotonic)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    on_release: Callable[[], None] | None = None
    origin: object = None
    timestamp_s: float = field(init=False)
    _lock: threading.Lock = field(init=False, default_factory=threading.Lock)  # guards _holds
    _holds: int = field(init=False, default=1)

    def __post_init__(self) -> None:
        self.timestamp_s = time.time() - (time.monotonic() - self.began_s)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.width, self.height

    def hold(self) -> bool:
        """Keep the planes until `release()`; False if they were already returned."""
        with self._lock:
            if self._holds == 0:
                return False
            self._holds += 1
            return True

    def release(self) -> None:
        """Drop one hold; the last one drops the planes and returns the buffer to its source."""
        with self._lock:
            if self._holds == 0:
                raise RuntimeError("frame released more often than held")
            self._holds -= 1
            if self._holds:
                return
        # The views go first: a mapped buffer cannot be unmapped while an array points into it.
        self.planes = ()
        self.origin = None
        on_release, self.on_release = self.on_release, None
        if on_release is not None:
            on_release()

    def derive(
        self, planes: tuple[Plane, ...], size: tuple[int, int] | None = None, pixel_format: PixelFormat | None = None
    ) -> "Frame":
        """A frame of the same exposure with other planes, of this size and format by default; held by the caller."""
        width, height = size or self.size
        form = pixel_format or self.pixel_format
        return replace(self, planes=planes, pixel_format=form, width=width, height=height, on_release=None, origin=None)

    def copy(self) -> "Frame":
        """A copy in separate memory, so that the camera gets its buffer back when the caller releases the original."""
        return self.derive(tuple(plane.copy() for plane in self.planes))


class NewestFrame:
    """The observable slot that holds the newest frame of a source.

    One producer thread calls `put_frame` and then `notify`; any thread reads. Nothing queues: a slow reader gets the
    newest frame and never an older one.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.Lock())  # guards _frame
        self._frame: Frame | None = None
        # Replaced as a whole, so that the threads that notify read them without the lock.
        self._on_frame: tuple[Callable[[], None], ...] = ()
        self._on_clear: tuple[Callable[[], None], ...] = ()

    def subscribe(self, on_frame: Callable[[], None], on_clear: Callable[[], None] | None = None) -> None:
        """Call `on_frame` after each new frame and `on_clear` whenever the slot is cleared; before the first frame.

        Subscribers are called in the order of subscription and without a lock, `on_frame` on the producer's thread and
        `on_clear` on the thread that clears. Both must be quick. An exception of one skips those after it, and is
        raised by `notify` or `clear`.
        """
        self._on_frame = (*self._on_frame, on_frame)
        if on_clear is not None:
            self._on_clear = (*self._on_clear, on_clear)

    def notify(self) -> None:
        """Call the subscribers after `put_frame`; separate, so that a producer can withdraw the frame in between."""
        for on_frame in self._on_frame:
            on_frame()

    def put_frame(self, frame: Frame) -> None:
        """Store `frame`, with the caller's hold on it, and release the previous one."""
        with self._changed:
            before, self._frame = self._frame, frame
            self._changed.notify_all()
        if before is not None:
            before.release()

    def clear(self) -> None:
        """Release the frame: a camera needs its buffers before it stops."""
        with self._changed:
            before, self._frame = self._frame, None
        if before is not None:
            before.release()
        for on_clear in self._on_clear:
            on_clear()

    def wake(self) -> None:
        """Let every waiting reader evaluate its deadline again."""
        with self._changed:
            self._changed.notify_all()

    def held(self, newer_than_s: float = -math.inf) -> Frame | None:
        """The newest frame with a hold for the caller, if its exposure began later than that; or None.

        An older one is not held for the comparison, since a release of its last hold runs the code of the source.
        """
        with self._changed:
            return self._held(lambda frame: frame.began_s > newer_than_s)

    def wait(self, is_wanted: Callable[[Frame], bool], deadline_s: Callable[[], float]) -> Frame | None:
        """The first newest frame that `is_wanted`, held for the caller; None at the deadline.

        `deadline_s` returns the deadline on the monotonic clock; it is evaluated with each new frame, each `wake` and
        before the end, so it may change meanwhile. Both functions run under the slot's lock and must be quick.
        """
        with self._changed:
            while (frame := self._held(is_wanted)) is None:
                left_s = deadline_s() - time.monotonic()
                if left_s <= 0:
                    break
                self._changed.wait(left_s)
            return frame

    def _held(self, is_wanted: Callable[[Frame], bool]) -> Frame | None:
        frame = self._frame
        return frame if frame is not None and is_wanted(frame) and frame.hold() else None
