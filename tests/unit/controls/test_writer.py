"""Work on the disk: in order, and a disk that hangs holds nobody up for long."""

import threading
import time

import pytest

from softcam.controls import writer as keeper_module
from softcam.controls.writer import BackgroundWriter
from tests.support.fakes import Background, eventually


def test_all_of_it_is_done_in_order() -> None:
    keeper, done = BackgroundWriter(), []
    for number in range(50):
        keeper.put(lambda number=number: done.append(number))
    assert keeper.do(lambda: done.append(50))
    assert done == list(range(51))
    assert keeper.trouble is None
    eventually(lambda: all(thread.name != "keep-state" for thread in threading.enumerate()), "its thread ends")
    assert keeper.do(lambda: done.append(51))


def test_work_that_fails_costs_only_itself(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise RuntimeError("broken")

    keeper = BackgroundWriter()
    assert keeper.do(fail)
    assert "broken" in caplog.text
    assert keeper.do(lambda: None)


def test_a_disk_that_hangs_is_not_waited_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper_module, "_LIMIT_S", 0.2)
    keeper, done, answers = BackgroundWriter(), [], threading.Event()

    def hang() -> None:
        answers.wait(60)
        done.append("late")

    assert not keeper.do(hang)
    eventually(lambda: keeper.trouble, "its trouble")
    assert "the disk of the state folder has not answered for" in str(keeper.trouble)
    monkeypatch.setattr(keeper_module, "_LIMIT_S", 60.0)
    patient = Background(lambda: keeper.do(lambda: done.append("next")))
    answers.set()
    assert patient.result()
    assert done == ["late", "next"]
    assert keeper.trouble is None


def test_who_comes_later_waits_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    keeper, answers = BackgroundWriter(), threading.Event()
    keeper.put(lambda: answers.wait(60) and None)
    eventually(lambda: keeper._began_s, "it hangs")
    monkeypatch.setattr(time, "monotonic", lambda real=time.monotonic: real() + 1000)
    assert not keeper.do(lambda: None)
    answers.set()
