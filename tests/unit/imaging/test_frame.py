"""`Frame` is released once, and `NewestFrame` holds the newest one only."""

import math
import threading
import time

import pytest

from softcam.imaging.frame import Frame, NewestFrame
from tests.support.background import Background, eventually, soon_s
from tests.support.fakes import make_frame
from tests.support.timeouts import PATIENCE_S


def any_frame(_: Frame) -> bool:
    return True


class Maker:
    """A source that counts the buffers it gets back."""

    def __init__(self) -> None:
        self.returned = 0
        self.planes_at_return: list[int] = []

    def frame(self, began_s: float | None = None) -> Frame:
        frame = make_frame({"ExposureTime": 1}, began_s=began_s, on_release=lambda: self._take_back(frame))
        return frame

    def _take_back(self, frame: Frame) -> None:
        self.planes_at_return.append(len(frame.planes))
        self.returned += 1


def test_last_release_returns_the_buffer() -> None:
    maker = Maker()
    frame = maker.frame()
    assert frame.hold()
    frame.release()
    assert maker.returned == 0
    assert len(frame.planes) == 3
    frame.release()
    assert maker.returned == 1
    assert maker.planes_at_return == [0], "no view may point into a buffer that goes back"
    assert frame.metadata == {"ExposureTime": 1}


def test_hold_after_the_last_release() -> None:
    maker = Maker()
    frame = maker.frame()
    frame.release()
    assert not frame.hold()
    with pytest.raises(RuntimeError, match="more often"):
        frame.release()
    assert maker.returned == 1


def test_error_of_the_source() -> None:
    tries = []

    def give_back() -> None:
        tries.append(1)
        raise OSError("unmapping failed")

    frame = make_frame(on_release=give_back)
    with pytest.raises(OSError, match="unmapping"):
        frame.release()
    with pytest.raises(RuntimeError):
        frame.release()
    assert len(tries) == 1


def test_timestamps_agree() -> None:
    before_s = time.time()
    frame = make_frame(began_s=time.monotonic() - 5)
    assert before_s - 5.001 <= frame.timestamp_s <= time.time() - 4.999
    assert abs(make_frame().timestamp_s - time.time()) < PATIENCE_S


def test_concurrent_releases() -> None:
    maker = Maker()
    for round_number in range(1, 101):
        frame = maker.frame()
        assert frame.hold()
        assert frame.hold()
        start = threading.Barrier(3)

        def give(frame: Frame = frame, start: threading.Barrier = start) -> None:
            start.wait()
            frame.release()

        threads = [Background(give) for _ in range(3)]
        for thread in threads:
            thread.result()
        assert maker.returned == round_number


def test_slot_holds_the_newest_frame() -> None:
    maker, slot = Maker(), NewestFrame()
    assert slot.held() is None
    first, second = maker.frame(), maker.frame()
    slot.put_frame(first)
    assert maker.returned == 0
    slot.put_frame(second)
    assert maker.returned == 1
    assert first.planes == ()
    held = slot.held()
    assert held is second
    slot.clear()
    assert slot.held() is None
    assert maker.returned == 1, "a reader still holds it"
    held.release()
    assert maker.returned == 2
    slot.clear()
    assert maker.returned == 2


def test_wait_returns_the_present_frame() -> None:
    maker, slot = Maker(), NewestFrame()
    slot.put_frame(maker.frame())
    frame = slot.wait(any_frame, lambda: time.monotonic() - 1)  # be the deadline over
    assert frame is not None
    frame.release()
    slot.clear()
    assert maker.returned == 1


def test_wait_until_the_deadline() -> None:
    slot, deadline_s = NewestFrame(), time.monotonic() + 0.02
    assert slot.wait(any_frame, lambda: deadline_s) is None
    frame = make_frame()
    slot.put_frame(frame)
    assert slot.wait(lambda _: False, lambda: deadline_s) is None
    assert slot.held(newer_than_s=math.inf) is None
    slot.clear()
    assert not frame.hold(), "a rejected frame is not held"


def test_all_waiting_threads_get_the_frame() -> None:
    maker, slot = Maker(), NewestFrame()
    slot.put_frame(maker.frame(began_s=1.0))
    asked = threading.Semaphore(0)

    def is_new(frame: Frame) -> bool:
        asked.release()
        return frame.began_s >= 2.0

    deadline_s = soon_s()
    waiting = [Background(lambda: slot.wait(is_new, lambda: deadline_s)) for _ in range(2)]
    for _ in waiting:
        assert asked.acquire(timeout=PATIENCE_S)
    wanted = maker.frame(began_s=2.0)
    slot.put_frame(wanted)
    frames = [background.result() for background in waiting]
    assert frames == [wanted, wanted]
    slot.clear()
    frames[0].release()
    assert maker.returned == 1
    frames[1].release()
    assert maker.returned == 2


def test_subscribers_are_called_in_order() -> None:
    slot, calls = NewestFrame(), list[str]()
    slot.subscribe(lambda: calls.append("first"), lambda: calls.append("first cleared"))
    slot.subscribe(lambda: calls.append("second"))
    slot.put_frame(make_frame())
    assert calls == [], "the producer may still withdraw the frame"
    slot.notify()
    slot.clear()
    assert calls == ["first", "second", "first cleared"]


def test_wake() -> None:
    slot = NewestFrame()
    looked = threading.Event()
    deadline_s = soon_s()

    def deadline() -> float:
        looked.set()
        return deadline_s

    waiting = Background(lambda: slot.wait(any_frame, deadline))
    assert looked.wait(PATIENCE_S)
    deadline_s = 0.0
    slot.wake()
    assert waiting.result() is None
    eventually(lambda: waiting.is_over)
