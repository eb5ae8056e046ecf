"""`CameraThread`: what other threads do between its decision and the call."""

import threading
from collections.abc import Callable

import pytest

from softcam.camera.session.manager import CameraManager, SessionState
from softcam.errors import CameraError
from tests.support.background import eventually, soon, soon_s, waiters
from tests.support.fakes import FakeCamera
from tests.support.timeouts import PATIENCE_S


class InterruptedLock(threading.Condition):
    """Calls `interrupt` once, on the camera thread, right after that thread has released the lock."""

    interrupt: Callable[[], None] | None = None

    def __exit__(self, *exc_info: object) -> None:
        super().__exit__(None, None, None)
        if self.interrupt is not None and threading.current_thread().name == "camera":
            interrupt, self.interrupt = self.interrupt, None
            interrupt()


def test_job_cancelled_after_the_decision_to_run_it(monkeypatch: pytest.MonkeyPatch) -> None:
    failures: list[CameraError] = []
    session = SessionState(FakeCamera(), linger_s=60.0, watchdog_timeout_s=0.0, on_failure=failures.append)
    lock = InterruptedLock()
    monkeypatch.setattr(session, "changed", lock)
    manager = CameraManager(session, autofocus_timeout_s=5.0, has_autofocus=False)
    manager.start()
    lease = manager.lease("snapshot")
    eventually(lambda: waiters(lock) and session.current.config, "the camera thread waits with the camera open")

    ran = threading.Event()
    with lock:
        job = session.jobs.submit_job(("still",), ran.set, is_still=True)
        lock.interrupt = lambda: session.jobs.cancel_job(job)  # as a thread whose deadline has passed
        lock.notify_all()
    assert ran.wait(PATIENCE_S), "a job that has started is finished"
    manager.still(None, soon_s()).release()
    lease.release()
    manager.stop()
    assert manager.wait_until_closed(soon())
    assert failures == []
