"""Disk writes: their order, and a disk that does not respond."""

import threading
from dataclasses import dataclass
from functools import partial
from queue import Queue

import pytest

from softcam.controls.writer import BackgroundWriter
from tests.support.background import Background, eventually, soon
from tests.support.timeouts import PATIENCE_S


@dataclass(frozen=True, slots=True)
class Threads:
    """The writers' threads that were started since; those of other tests may wait for a disk that has space."""

    before: frozenset[threading.Thread]

    def count(self) -> int:
        return sum(each.name == "state-writer" for each in set(threading.enumerate()) - self.before)


@pytest.fixture
def threads() -> Threads:
    return Threads(frozenset(threading.enumerate()))


def no_crash(reason: str) -> None:
    pytest.fail(reason)


def test_order(threads: Threads) -> None:
    writer, done = BackgroundWriter(no_crash), list[int]()
    for number in range(50):
        writer.submit_job(partial(done.append, number))
    assert writer.run_job(lambda: done.append(50))
    assert done == list(range(51))
    assert writer.health_error() is None
    eventually(lambda: threads.count() == 0, "its thread ends")
    assert writer.run_job(lambda: done.append(51))


def test_last_attempt(threads: Threads) -> None:
    writer, done = BackgroundWriter(no_crash, retry_s=PATIENCE_S), list[str]()

    def save() -> bool:
        done.append("save")
        return False

    writer.close(soon())  # without a thread there is nothing to wait for
    writer = BackgroundWriter(no_crash, retry_s=PATIENCE_S)
    writer.run_job(save)
    assert threads.count() == 1
    writer.close(soon())
    assert (done, threads.count()) == (["save", "save"], 0)


def test_failed_job_does_not_stop_the_next(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise RuntimeError("broken")

    writer = BackgroundWriter(no_crash)
    assert writer.run_job(fail)
    assert "broken" in caplog.text
    assert writer.health_error() == "failed to save state: RuntimeError: broken"
    assert writer.run_job(lambda: None)


def test_job_that_raises_is_retried(threads: Threads, caplog: pytest.LogCaptureFixture) -> None:
    errors = [MemoryError(), MemoryError(), RuntimeError("broken")]
    writer, may_succeed = BackgroundWriter(no_crash, retry_s=0.001), threading.Event()

    def save() -> bool:
        if errors:
            raise errors.pop(0)
        return may_succeed.is_set()

    assert writer.run_job(save)
    eventually(lambda: not errors and writer.health_error() is None, "it returns False and no longer raises")
    assert caplog.messages == ["Failed to save state"] * 2, "each error once"
    may_succeed.set()
    eventually(lambda: threads.count() == 0, "its thread ends")


def test_job_that_always_raises_does_not_spin() -> None:
    now_s, moments = [0.0], list[float]()
    writer = BackgroundWriter(no_crash, retry_s=2.0, clock=lambda: now_s[0])

    def fail() -> None:
        moments.append(now_s[0])
        raise ValueError("a programming error")

    writer.run_job(fail)
    for _ in range(200):
        now_s[0] += 1.0
        assert writer.run_job(lambda: None)
        assert writer.run_job(lambda: None)
    assert moments == [0.0, 2.0, 6.0, 14.0, 30.0, 62.0, 122.0, 182.0]
    writer.close(soon())


def test_failed_job_is_retried_until_it_succeeds(threads: Threads) -> None:
    writer, results, done = BackgroundWriter(no_crash, retry_s=0.001), [False, False, False, True], list[str]()

    def save() -> bool:
        done.append("save")
        return results.pop(0)

    assert writer.run_job(save)
    eventually(lambda: not results, "it succeeds")
    eventually(lambda: threads.count() == 0, "its thread ends")
    assert done == ["save"] * 4


def test_pauses_between_retries_grow(threads: Threads) -> None:
    now_s, moments, may_save = [0.0], list[float](), threading.Event()
    writer = BackgroundWriter(no_crash, retry_s=2.0, clock=lambda: now_s[0])

    def save() -> bool:
        moments.append(now_s[0])
        return may_save.is_set()

    writer.run_job(save)
    for _ in range(300):  # other jobs wake the thread, and neither delay nor hasten the next attempt
        now_s[0] += 1.0
        assert writer.run_job(lambda: None)
        assert writer.run_job(lambda: None)
    assert moments == [0.0, 2.0, 6.0, 14.0, 30.0, 62.0, 122.0, 182.0, 242.0]
    may_save.set()
    now_s[0] += 60.0
    assert writer.run_job(lambda: None)
    eventually(lambda: threads.count() == 0, "its thread ends")


def test_new_job_replaces_a_failed_one(threads: Threads) -> None:
    writer, is_full = BackgroundWriter(no_crash, retry_s=PATIENCE_S), threading.Event()
    is_full.set()

    def save() -> bool:
        return not is_full.is_set()

    writer.run_job(save)
    is_full.clear()
    assert writer.run_job(save)
    eventually(lambda: threads.count() == 0, "its thread ends")


def test_unresponsive_disk() -> None:
    writer, done, responds = BackgroundWriter(no_crash, timeout_s=0.2), [], threading.Event()

    def hang() -> None:
        responds.wait(PATIENCE_S)
        done.append("late")

    assert not writer.run_job(hang)
    eventually(writer.health_error, "the error")
    assert "state directory has not responded for" in str(writer.health_error())
    writer.submit_job(lambda: done.append("next"))
    responds.set()
    eventually(lambda: done == ["late", "next"], "the disk responds again")
    eventually(lambda: writer.health_error() is None, "the error is over")


def test_slow_disk_is_waited_for() -> None:
    writer, done, responds = BackgroundWriter(no_crash, timeout_s=PATIENCE_S), [], threading.Event()

    def wait() -> None:
        responds.wait(PATIENCE_S)
        done.append("slow")

    writer.submit_job(wait)
    next_job = Background(lambda: writer.run_job(lambda: done.append("next")))
    responds.set()
    assert next_job.result() is True
    assert done == ["slow", "next"]
    assert writer.health_error() is None


def test_no_wait_behind_a_job_that_timed_out() -> None:
    now_s = [1000.0]
    writer, started, responds = BackgroundWriter(no_crash, clock=lambda: now_s[0]), threading.Event(), threading.Event()

    def hang() -> None:
        started.set()
        responds.wait(PATIENCE_S)

    writer.submit_job(hang)
    assert started.wait(PATIENCE_S)
    now_s[0] += 1000.0
    assert not writer.run_job(lambda: None)
    responds.set()


def test_thread_that_cannot_be_started(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    writer, done = BackgroundWriter(no_crash), list[str]()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        assert not writer.run_job(lambda: done.append("first"))
    assert writer.health_error() == "no thread for writing the state: can't start new thread"
    assert "Failed to save state: no thread" in caplog.text
    assert writer.health_error() is not None, "asking for the error starts no thread"
    assert done == []
    writer.ensure_thread()
    eventually(lambda: done == ["first"], "what was queued is written")
    assert writer.run_job(lambda: done.append("second"))
    assert done == ["first", "second"]
    assert writer.health_error() is None


def test_crash_is_reported() -> None:
    def crash() -> None:
        raise SystemExit("broken")

    crashes = Queue[str]()
    BackgroundWriter(crashes.put).submit_job(crash)
    assert crashes.get(timeout=PATIENCE_S) == "thread state-writer crashed: SystemExit: broken"
