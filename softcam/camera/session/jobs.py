"""Jobs for the camera thread between two frames, such as stills, and the threads that wait for them.

No thread and no camera in here, and no lock: the caller holds the session's.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from softcam.errors import CameraError, NoPicture
from softcam.imaging.frame import Frame


@dataclass(slots=True, eq=False)
class CameraJob:
    """One call into the camera. A frame that results is held once for each thread that waits for it."""

    key: tuple[Any, ...]
    run: Callable[[], Any]
    is_still: bool
    waiting: int = field(default=0, init=False)  # threads
    _outcome: tuple[Any, CameraError | None] | None = field(default=None, init=False)

    def add_waiting(self) -> None:
        self.waiting += 1

    def remove_waiting(self) -> None:
        self.waiting -= 1

    @property
    def is_done(self) -> bool:
        return self._outcome is not None

    def finish(self, result: Any, error: CameraError | None) -> bool:
        """Store the outcome; False if nobody waits for it."""
        self._outcome = result, error
        if isinstance(result, Frame):
            for _ in range(self.waiting - 1):
                result.hold()
        return bool(self.waiting)

    def outcome(self) -> Any:
        """Return the result or raise the error, for each thread that waits as a new object."""
        result, error = self._outcome or (None, None)
        if error is not None:
            raise type(error)(str(error)) from error
        return result


@dataclass(slots=True)
class JobQueue:
    """The jobs that were not started yet, in their order. Jobs with an equal key are one."""

    _still_pause_s: float  # streams run at least this long between two jobs
    _max_waiting_stills: int  # different ones
    _not_before_s: float = field(default=0.0, init=False)  # so that stills leave the streams their share of time
    _queue: deque[CameraJob] = field(default_factory=deque, init=False)

    @property
    def waiting(self) -> int:
        """How many threads wait for a job that was not started yet."""
        return sum(job.waiting for job in self._queue)

    @property
    def due_s(self) -> float | None:
        """When the next job may start; None if there is none."""
        return self._not_before_s if self._queue else None

    def submit_job(self, key: tuple[Any, ...], run: Callable[[], Any], *, is_still: bool) -> CameraJob:
        """The queued job of that key, with one more thread that waits, or a new one. Raises NoPicture when full."""
        job = next((each for each in self._queue if each.key == key), None)
        if job is None:
            if is_still and len(self._queue) >= self._max_waiting_stills:
                raise NoPicture("too many different stills requested at once")
            job = CameraJob(key, run, is_still)
            self._queue.append(job)
        job.add_waiting()
        return job

    def cancel_job(self, job: CameraJob) -> None:
        """One thread stops waiting; a job that nobody waits for is not started."""
        job.remove_waiting()
        if not job.waiting and job in self._queue:
            self._queue.remove(job)

    def start_next_job(self) -> CameraJob:
        """Remove and return the first job."""
        return self._queue.popleft()

    def start_pause(self, now_s: float, took_s: float) -> None:
        """A job interrupted streams for `took_s`. The next one waits as long, so they run at least half of the time."""
        self._not_before_s = now_s + max(self._still_pause_s, took_s)
