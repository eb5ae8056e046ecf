"""Orders to the camera's thread: equal ones are one, each who waits gets the outcome, streams keep their share."""

import time

import pytest

from softcam.camera.session import jobs as orders_module
from softcam.camera.session.jobs import JobQueue
from softcam.errors import CameraError, NoPicture
from tests.support.fakes import make_frame


def _nothing() -> None: ...


def test_equal_ones_are_one_until_they_begin() -> None:
    orders = JobQueue()
    first = orders.join(("still", None), _nothing, is_still=True)
    assert orders.join(("still", None), _nothing, is_still=True) is first
    assert orders.join(("still", (64, 32)), _nothing, is_still=True) is not first
    assert orders.waiting == 3
    assert orders.begin() is first
    assert orders.join(("still", None), _nothing, is_still=True) is not first


def test_what_nobody_waits_for_is_not_begun() -> None:
    orders = JobQueue()
    order = orders.join(("still",), _nothing, is_still=True)
    orders.join(("still",), _nothing, is_still=True)
    orders.leave(order)
    assert orders
    orders.leave(order)
    assert not orders
    assert orders.due_s is None


def test_too_many_stills_are_refused_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orders_module, "_MOST_STILLS", 2)
    orders = JobQueue()
    for size in range(2):
        orders.join(("still", size), _nothing, is_still=True)
    with pytest.raises(NoPicture, match="too many stills"):
        orders.join(("still", 2), _nothing, is_still=True)
    orders.join(("still", 1), _nothing, is_still=True)
    orders.join(("reopening",), _nothing, is_still=False)


def test_a_frame_is_held_for_each_who_waits() -> None:
    orders, gone = JobQueue(), []
    for _ in range(3):
        orders.join(("still",), _nothing, is_still=True)
    order = orders.begin()
    frame = make_frame(give_back=lambda: gone.append(True))
    assert orders.end(order, frame, None, pause_s=None)
    for _ in range(3):
        assert not gone
        order.outcome().release()
    assert gone


def test_an_error_is_told_to_each_as_its_own() -> None:
    orders = JobQueue()
    orders.join(("still",), _nothing, is_still=True)
    order = orders.begin()
    orders.end(order, None, CameraError("no still"), pause_s=None)
    with pytest.raises(CameraError, match="no still") as one:
        order.outcome()
    with pytest.raises(CameraError, match="no still") as other:
        order.outcome()
    assert one.value is not other.value


@pytest.mark.parametrize(("took_s", "pause_s"), [(0.0, 0.5), (2.0, 2.0)])
def test_the_next_one_waits_as_long_as_this_one_took(took_s: float, pause_s: float) -> None:
    orders = JobQueue()
    orders.join(("still",), _nothing, is_still=True)
    before_s = time.monotonic()
    orders.end(orders.begin(), None, None, pause_s=took_s)
    orders.join(("still",), _nothing, is_still=True)
    due_s = orders.due_s
    assert due_s is not None
    assert before_s + pause_s <= due_s <= time.monotonic() + pause_s
