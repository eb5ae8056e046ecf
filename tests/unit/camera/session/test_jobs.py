"""`JobQueue`: equal jobs are shared, each waiting thread gets the outcome, streams keep their share of time."""

import pytest

from softcam.camera.session.jobs import JobQueue
from softcam.errors import CameraError, NoPicture
from tests.support.fakes import make_frame


def _nothing() -> None: ...


def test_equal_jobs_are_shared_until_started() -> None:
    queue = JobQueue(0.5, 8)
    first = queue.submit_job(("still", None), _nothing, is_still=True)
    assert queue.submit_job(("still", None), _nothing, is_still=True) is first
    assert queue.submit_job(("still", (64, 32)), _nothing, is_still=True) is not first
    assert queue.waiting == 3
    assert queue.start_next_job() is first
    assert queue.submit_job(("still", None), _nothing, is_still=True) is not first


def test_cancelled_job_is_not_started() -> None:
    queue = JobQueue(0.5, 8)
    job = queue.submit_job(("still",), _nothing, is_still=True)
    queue.submit_job(("still",), _nothing, is_still=True)
    queue.cancel_job(job)
    assert queue.due_s is not None
    queue.cancel_job(job)
    assert queue.due_s is None
    assert queue.due_s is None


def test_limit_applies_to_stills_only() -> None:
    queue = JobQueue(0.5, 2)
    for size in range(2):
        queue.submit_job(("still", size), _nothing, is_still=True)
    with pytest.raises(NoPicture, match="too many different stills"):
        queue.submit_job(("still", 2), _nothing, is_still=True)
    queue.submit_job(("still", 1), _nothing, is_still=True)
    queue.submit_job(("reopening",), _nothing, is_still=False)


def test_frame_is_held_for_each_waiting_thread() -> None:
    queue, gone = JobQueue(0.5, 8), []
    for _ in range(3):
        queue.submit_job(("still",), _nothing, is_still=True)
    job = queue.start_next_job()
    frame = make_frame(on_release=lambda: gone.append(True))
    assert job.finish(frame, None)
    for _ in range(3):
        assert not gone
        job.outcome().release()
    assert gone


def test_each_waiting_thread_raises_a_new_error() -> None:
    queue = JobQueue(0.5, 8)
    queue.submit_job(("still",), _nothing, is_still=True)
    job = queue.start_next_job()
    job.finish(None, CameraError("no still"))
    with pytest.raises(CameraError, match="no still") as one:
        job.outcome()
    with pytest.raises(CameraError, match="no still") as other:
        job.outcome()
    assert one.value is not other.value


@pytest.mark.parametrize(("took_s", "pause_s"), [(0.0, 0.5), (2.0, 2.0)])
def test_pause_after_a_job(took_s: float, pause_s: float) -> None:
    queue = JobQueue(0.5, 8)
    queue.submit_job(("still",), _nothing, is_still=True)
    queue.start_pause(100.0, took_s)
    assert queue.due_s == 100.0 + pause_s
