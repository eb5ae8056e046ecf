"""Submits jobs from any thread and runs them on the camera thread."""

import logging
import time
from collections.abc import Callable
from typing import Any

from softcam.camera.session.frame_rate import FrameRateMeter
from softcam.camera.session.state import SessionState
from softcam.errors import CameraError, NoPicture
from softcam.imaging.frame import Frame

log = logging.getLogger(__name__)


class JobRunner:
    """The two ends of the session's `JobQueue`."""

    def __init__(self, state: SessionState, frame_rate: FrameRateMeter) -> None:
        self._state = state
        self._frame_rate = frame_rate

    def submit_and_wait(
        self, key: tuple[Any, ...], run: Callable[[], Any], deadline_s: float, *, is_still: bool = True
    ) -> Any:
        """Return what `run` returns on the camera thread; a queued job with an equal key is shared.

        Raises what `run` raises, the CameraError that ended the session, or NoPicture at the deadline (monotonic
        clock), which a long exposure extends.
        """
        state = self._state
        with state.changed:
            state.raise_failure()
            job = state.jobs.submit(key, run, is_still=is_still)
            state.changed.notify_all()
            pipeline_s = 0.0
            while not job.is_done and state.failure is None:
                pipeline_s = max(pipeline_s, self._frame_rate.pipeline_s)  # the longest of this wait
                left_s = deadline_s + pipeline_s - time.monotonic()
                if left_s <= 0:
                    break
                state.changed.wait(left_s)
            if job.is_done:
                return job.outcome()
            state.jobs.cancel(job)
            state.raise_failure()
            raise NoPicture(f"{key[0]}: not started by the camera in time (it is {state.state})")

    def run_next_job(self) -> None:
        """Run the first job and wake the threads that wait for it. On the camera thread."""
        state = self._state
        with state.changed:
            job = state.jobs.start_next()
        result, error = None, None
        started_s = time.monotonic()
        try:
            result = job.run()
        except CameraError as job_error:
            log.warning("Camera job failed (%s): %s", job.key[0], job_error)
            error = job_error
        with state.changed:
            now_s = time.monotonic()
            if error is None:  # as good as a frame of the stream; a still that failed hides no silence
                state.watchdog.excuse_silence(now_s)
            pause_s = now_s - started_s if state.leases.has_stream else None
            is_awaited = state.jobs.finish(job, result, error, pause_s=pause_s)
            state.changed.notify_all()
        if isinstance(result, Frame) and not is_awaited:
            result.release()
