"""A frame, and the slot that holds the newest one.

A frame's planes lie in memory that belongs to whoever made it, usually a buffer that the sensor filled and
wants back. So frames are counted: the maker hands out a frame with one hold, every user takes a hold of its own with
`hold()` and gives it back with `release()`, and the last release drops the planes and tells the maker. Neither class
here starts a thread or knows a camera.
"""

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

PixelFormat = Literal["YUV420", "NV12", "YUYV", "MJPEG"]
Plane = npt.NDArray[np.uint8]

_NO_PLANES: Final[tuple[Plane, ...]] = ()


class Frame:
    """One picture of the camera, in full-range YCbCr (the JPEG one: BT.601 matrix, 0 to 255) or as a JPEG.

    `planes`, all uint8, by `pixel_format`; rows may be padded, so only the last axis is contiguous:

    - `YUV420`: Y (height, width), U and V ((height + 1) // 2, (width + 1) // 2)
    - `NV12`: Y (height, width), then U and V interleaved ((height + 1) // 2, 2 * ((width + 1) // 2))
    - `YUYV`: one plane (height, 2 * width)
    - `MJPEG`: one plane (bytes,), a whole JPEG

    `began_s` is when its exposure began, on the clock of `time.monotonic()`; `timestamp_s` the same moment as Unix
    time. `metadata` is libcamera's, by its control names, and may be read after the frame was given back. `origin` is
    what the camera knows the picture by, for hardware that shares its memory; None where it has none, or is given back.
    """

    __slots__ = (
        "_give_back",
        "_holds",
        "_lock",
        "began_s",
        "height",
        "metadata",
        "origin",
        "pixel_format",
        "planes",
        "sequence",
        "timestamp_s",
        "width",
    )

    def __init__(
        self,
        planes: tuple[Plane, ...],
        pixel_format: PixelFormat,
        width: int,
        height: int,
        *,
        sequence: int = 0,
        began_s: float | None = None,
        metadata: Mapping[str, Any] | None = None,
        give_back: Callable[[], None] | None = None,
        origin: object = None,
    ) -> None:
        self.planes = planes
        self.pixel_format = pixel_format
        self.width = width
        self.height = height
        self.sequence = sequence
        now_s = time.monotonic()
        self.began_s = now_s if began_s is None else began_s
        self.timestamp_s = time.time() - (now_s - self.began_s)
        self.metadata: Mapping[str, Any] = {} if metadata is None else metadata
        self.origin = origin
        self._give_back = give_back
        self._lock = threading.Lock()  # guards _holds
        self._holds = 1

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.width, self.height

    def hold(self) -> bool:
        """Keep the planes until `release()`; False when they were already given back."""
        with self._lock:
            if self._holds == 0:
                return False
            self._holds += 1
            return True

    def release(self) -> None:
        """Give one hold back; the last one drops the planes and returns the buffer to its maker."""
        with self._lock:
            if self._holds == 0:
                raise RuntimeError("frame released more often than held")
            self._holds -= 1
            if self._holds:
                return
        # The views go first: a mapped buffer cannot be unmapped while an array points into it.
        self.planes = _NO_PLANES
        self.origin = None
        give_back, self._give_back = self._give_back, None
        if give_back is not None:
            give_back()


def copy_of(frame: Frame) -> Frame:
    """The same picture in memory of its own: the camera has its buffer back as soon as the caller gives it back."""
    return Frame(
        tuple(plane.copy() for plane in frame.planes),
        frame.pixel_format,
        frame.width,
        frame.height,
        sequence=frame.sequence,
        began_s=frame.began_s,
        metadata=frame.metadata,
    )


class NewestFrame:
    """The observable slot that holds the newest frame of a source.

    One producer thread calls `put` and then `notify`; any thread reads. Nothing queues: a slow reader gets the newest
    frame and never an older one.
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
        """Call the subscribers after `put`; separate, so that a producer can withdraw the frame in between."""
        for on_frame in self._on_frame:
            on_frame()

    def put(self, frame: Frame) -> None:
        """Take over the maker's hold on `frame` and give the one before it back."""
        with self._changed:
            before, self._frame = self._frame, frame
            self._changed.notify_all()
        if before is not None:
            before.release()

    def clear(self) -> None:
        """Give the frame back, as a camera needs before it stops."""
        with self._changed:
            before, self._frame = self._frame, None
        if before is not None:
            before.release()
        for on_clear in self._on_clear:
            on_clear()

    def wake(self) -> None:
        """Let every waiting reader look at its `until` again."""
        with self._changed:
            self._changed.notify_all()

    def held(self) -> Frame | None:
        """The newest frame with a hold for the caller, or None."""
        with self._changed:
            frame = self._frame
            return frame if frame is not None and frame.hold() else None

    def wait(
        self,
        is_wanted: Callable[[Frame], bool],
        deadline_s: float,
        until: Callable[[], bool] = lambda: False,
    ) -> Frame | None:
        """The first newest frame that `is_wanted`, held for the caller; None at the deadline or when `until()` holds.

        `deadline_s` is on the monotonic clock. Both functions run under the slot's lock and must be quick.
        """
        with self._changed:
            while True:
                frame = self._frame
                if frame is not None and is_wanted(frame) and frame.hold():
                    return frame
                left_s = deadline_s - time.monotonic()
                if left_s <= 0 or until():
                    return None
                self._changed.wait(left_s)
