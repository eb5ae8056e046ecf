"""What the camera thread is to do between two frames, as stills, and who waits for it.

No thread and no camera in here, and no lock: all of it is called under the holder's.
"""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from softcam.errors import CameraError, NoPicture
from softcam.imaging.frame import Frame

_STILL_PAUSE_S: Final = 0.5  # at least so long do streams run between two stills
_MOST_STILLS: Final = 8  # different ones that may wait; one more would not be in time


@dataclass(slots=True, eq=False)
class CameraJob:
    """Orders with equal `key` that have not begun are one. A frame that comes out is held once for each who waits."""

    key: tuple[Any, ...]
    run: Callable[[], Any]
    waiting: int = 0
    result: Any = None
    error: CameraError | None = None
    is_done: bool = False

    def outcome(self) -> Any:
        """What came of it; raises its error, for each who waits as an object of its own."""
        if self.error is not None:
            raise type(self.error)(str(self.error)) from self.error
        return self.result


class JobQueue:
    """Those that have not begun, in their order."""

    def __init__(self) -> None:
        self._queue: deque[CameraJob] = deque()
        self._from_s = 0.0  # so that stills leave the streams their share of time

    def __bool__(self) -> bool:
        return bool(self._queue)

    @property
    def waiting(self) -> int:
        """How many threads wait for one that has not begun."""
        return sum(order.waiting for order in self._queue)

    @property
    def due_s(self) -> float | None:
        """When the next one may begin; None where there is none."""
        return self._from_s if self._queue else None

    def join(self, key: tuple[Any, ...], run: Callable[[], Any], *, is_still: bool) -> CameraJob:
        """The order of that key, with one more who waits. Raises NoPicture for a still that would not be in time."""
        order = next((each for each in self._queue if each.key == key), None)
        if order is None:
            if is_still and len(self._queue) >= _MOST_STILLS:
                raise NoPicture("too many stills of different kinds are wanted at once")
            order = CameraJob(key, run)
            self._queue.append(order)
        order.waiting += 1
        return order

    def leave(self, order: CameraJob) -> None:
        """One of those who wait waits no longer; what nobody waits for is not begun."""
        order.waiting -= 1
        if not order.waiting and order in self._queue:
            self._queue.remove(order)

    def begin(self) -> CameraJob:
        return self._queue.popleft()

    def end(self, order: CameraJob, result: Any, error: CameraError | None, *, pause_s: float | None) -> bool:
        """It is done. With `pause_s`, what it took, the next one waits as long; whether anybody takes the result."""
        if pause_s is not None:
            # Half of the time at the most: streams stand still meanwhile.
            self._from_s = time.monotonic() + max(_STILL_PAUSE_S, pause_s)
        order.result, order.error, order.is_done = result, error, True
        if isinstance(result, Frame):
            for _ in range(order.waiting - 1):
                result.hold()
        return bool(order.waiting)
