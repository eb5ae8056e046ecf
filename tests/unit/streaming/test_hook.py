"""`Hook`: what a user's function may do, and that nothing it does ends the stream."""

import logging
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from softcam.errors import ConfigurationError
from softcam.imaging.frame import Frame, NewestFrame
from softcam.streaming import hook
from softcam.streaming.hook import Hook, load_hook
from tests.support.background import eventually, soon, soon_s
from tests.support.fakes import make_frame
from tests.support.timeouts import PATIENCE_S

SIZE = (32, 16)


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class RunningHook:
    """A hook with its source and the frames that it shows."""

    def __init__(self, function: Callable[[Any, Mapping[str, Any]], Any]) -> None:
        self.source = NewestFrame()
        self.clock = Clock()
        self.notifications = 0
        self.crashes: list[str] = []
        self.hook = Hook(
            "my:hook", function, self.source, lambda: "http://127.0.0.1:5", max_call_s=1.0, clock=self.clock
        )
        self.hook.frames.subscribe(self._on_frame)
        self.hook.start(self.crashes.append)

    def _on_frame(self) -> None:
        self.notifications += 1

    def send(self, level: int = 100, **options: Any) -> Frame:
        """The camera delivers a grey frame."""
        frame = make_frame(size=SIZE, **options)
        frame.planes[0][:] = level
        self.source.put_frame(frame)
        self.source.notify()
        return frame

    def shown(self, after: Frame) -> int:
        """The luma of the first frame shown that is not older than `after`."""
        deadline_s = soon_s()
        frame = self.hook.frames.wait(lambda frame: frame.began_s >= after.began_s, lambda: deadline_s)
        assert frame is not None
        level = round(float(frame.planes[0].mean()))
        frame.release()
        return level

    def wait_idle(self) -> None:
        eventually(lambda: not self.hook.is_busy, "that the function has returned")


StartHook = Callable[[Callable[[Any, Mapping[str, Any]], Any]], RunningHook]


@pytest.fixture
def start_hook() -> Iterator[StartHook]:
    started: list[RunningHook] = []

    def start(function: Callable[[Any, Mapping[str, Any]], Any]) -> RunningHook:
        started.append(RunningHook(function))
        return started[-1]

    yield start
    for running in started:
        running.hook.stop(soon())
        assert running.crashes == []
        assert not any(thread.name == "hook" and thread.is_alive() for thread in threading.enumerate())


def test_result_is_shown(start_hook: StartHook) -> None:
    seen: list[tuple[Any, Mapping[str, Any]]] = []

    def whiten(image: Any, metadata: Mapping[str, Any]) -> Any:
        seen.append((image.copy(), metadata))
        image[:] = 255
        return image

    running = start_hook(whiten)
    frame = running.send(100, metadata={"Lux": 5.0})
    assert running.shown(frame) == 255
    (image, metadata) = seen[0]
    assert (image.shape, image.dtype) == ((16, 32, 3), np.uint8)
    assert abs(int(image.mean()) - 100) <= 2
    assert metadata["Lux"] == 5.0
    assert metadata["portal"] == "http://127.0.0.1:5"
    assert metadata["timestamp"] == pytest.approx(frame.timestamp_s, abs=0.01)
    assert running.hook.status() == {"name": "my:hook", "calls": 1, "failures": 0, "skipped": 0, "last_error": None}
    eventually(lambda: running.notifications == 1)


def test_none_shows_the_frame_unchanged(start_hook: StartHook) -> None:
    def scribble(image: Any, _metadata: Mapping[str, Any]) -> None:
        image[:] = 255

    running = start_hook(scribble)
    assert running.shown(running.send(100)) == 100


def test_camera_buffer_is_released_during_the_call(start_hook: StartHook) -> None:
    is_running, may_return, released = threading.Event(), threading.Event(), threading.Event()

    def wait(image: Any, _metadata: Mapping[str, Any]) -> Any:
        is_running.set()
        assert may_return.wait(PATIENCE_S)
        return image

    running = start_hook(wait)
    running.send(on_release=released.set)
    assert is_running.wait(PATIENCE_S)
    running.source.clear()
    assert released.is_set()
    may_return.set()


def fail(_image: Any, _metadata: Mapping[str, Any]) -> Any:
    raise ZeroDivisionError("oh")


def exit_process(_image: Any, _metadata: Mapping[str, Any]) -> Any:
    sys.exit(3)


class Unprintable(BaseException):
    def __str__(self) -> str:
        raise RuntimeError("no message")


def raise_unprintable(_image: Any, _metadata: Mapping[str, Any]) -> Any:
    raise Unprintable


class Shapeless(np.ndarray):
    """An array whose shape cannot be read."""

    @property  # type: ignore[misc]
    def shape(self) -> Any:
        raise RuntimeError("not today")


class Classless:
    """An object whose class cannot be read."""

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        raise RuntimeError("no class")


def raise_changing_messages(_image: Any, metadata: Mapping[str, Any]) -> Any:
    raise ValueError(f"at {metadata['timestamp']}" + "x" * 1000)


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (raise_unprintable, "Unprintable: "),
        (raise_changing_messages, "ValueError: at "),
        (fail, "ZeroDivisionError: oh"),
        (exit_process, "SystemExit: 3"),
        (lambda image, _: image[:, :, 0], "returned uint8 (16, 32)"),
        (lambda image, _: image.astype(float), "returned float64"),
        (lambda _image, _metadata: "picture", "returned str"),
        (lambda image, _: image[:5].view(Shapeless), "returned uint8 (5, 32, 3)"),
        (lambda _image, _metadata: Classless(), "RuntimeError: no class"),
    ],
)
def test_failures_are_counted_and_logged_once(
    start_hook: StartHook, caplog: pytest.LogCaptureFixture, function: Any, reason: str
) -> None:
    running = start_hook(function)
    with caplog.at_level(logging.INFO):
        for level in (50, 60, 70):
            assert running.shown(running.send(level)) == level, "shown unchanged"
    assert running.hook.is_failing
    status = running.hook.status()
    assert (status["calls"], status["failures"]) == (3, 3)
    assert reason in status["last_error"]
    assert len(status["last_error"]) <= 200
    assert len([record for record in caplog.records if reason in record.getMessage()]) == 1


def test_closed_camera_is_not_a_failure(start_hook: StartHook) -> None:
    running = start_hook(fail)
    running.shown(running.send(50))
    assert running.hook.is_failing
    running.source.clear()
    assert not running.hook.is_failing
    running.shown(running.send(60))
    assert running.hook.is_failing


def test_bypassing_ends_with_a_closed_camera(start_hook: StartHook) -> None:
    is_running, may_return = threading.Event(), threading.Event()

    def wait(_image: Any, _metadata: Mapping[str, Any]) -> None:
        is_running.set()
        assert may_return.wait(PATIENCE_S)

    running = start_hook(wait)
    running.send(10)
    assert is_running.wait(PATIENCE_S)
    running.clock.now_s += 1.1
    running.shown(running.send(20))
    assert running.hook.is_failing
    running.source.clear()
    assert not running.hook.is_failing
    running.shown(running.send(30))
    assert running.hook.is_failing, "the function still hangs"
    may_return.set()


@pytest.mark.parametrize("step", ["rgb_of", "check_shape", "frame_of"])
def test_memory_error_affects_one_frame(start_hook: StartHook, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    def fail(*_: Any) -> None:
        raise MemoryError

    running = start_hook(lambda image, _: 255 - image)
    with monkeypatch.context() as patch:
        patch.setattr(hook, step, fail)
        assert running.shown(running.send(50)) == 50
    assert running.hook.status()["last_error"].startswith("MemoryError")
    assert running.shown(running.send(50)) == 205


def test_subclass_of_array_is_shown(start_hook: StartHook) -> None:
    running = start_hook(lambda image, _: (255 - image).view(Shapeless))
    assert running.shown(running.send(50)) == 205
    assert running.hook.status()["failures"] == 0


def test_slow_function_drops_frames(start_hook: StartHook) -> None:
    may_return = threading.Semaphore(0)
    is_running = threading.Semaphore(0)

    def wait(_image: Any, _metadata: Mapping[str, Any]) -> None:
        is_running.release()
        assert may_return.acquire(timeout=PATIENCE_S)

    running = start_hook(wait)
    running.send(10)
    assert is_running.acquire(timeout=PATIENCE_S)
    running.send(20)
    newest = running.send(30)
    may_return.release()
    assert is_running.acquire(timeout=PATIENCE_S), "continues with the latest frame"
    may_return.release()
    assert running.shown(newest) == 30
    assert running.hook.status()["calls"] == 2
    assert running.hook.status()["skipped"] == 2


def test_hanging_function_is_bypassed(start_hook: StartHook, caplog: pytest.LogCaptureFixture) -> None:
    is_running, may_return = threading.Semaphore(0), threading.Semaphore(0)

    def whiten(image: Any, _metadata: Mapping[str, Any]) -> Any:
        is_running.release()
        assert may_return.acquire(timeout=PATIENCE_S)
        image[:] = 255
        return image

    running = start_hook(whiten)
    old = running.send(10)
    assert is_running.acquire(timeout=PATIENCE_S)
    running.clock.now_s += 1.1
    with caplog.at_level(logging.INFO):
        for level in (20, 30, 40):
            assert running.shown(running.send(level)) == level
        assert caplog.text.count("takes more than 1 s, bypassing it") == 1
        assert running.hook.is_failing
        may_return.release()
        assert is_running.acquire(timeout=PATIENCE_S), "the function gets the latest frame"
        may_return.release()
        eventually(lambda: "Hook my:hook recovered" in caplog.text)
    assert not running.hook.is_failing
    assert running.shown(old) >= 40, "the result for the old frame is dropped"
    assert "more than" in running.hook.status()["last_error"]


def test_function_that_is_always_too_slow_stays_bypassed(
    start_hook: StartHook, caplog: pytest.LogCaptureFixture
) -> None:
    is_running, may_return = threading.Semaphore(0), threading.Semaphore(0)

    def invert(image: Any, _metadata: Mapping[str, Any]) -> Any:
        is_running.release()
        assert may_return.acquire(timeout=PATIENCE_S)
        return 255 - image

    def finish_call() -> None:
        assert is_running.acquire(timeout=PATIENCE_S)
        may_return.release()
        running.wait_idle()

    running = start_hook(invert)
    with caplog.at_level(logging.INFO):
        running.send(10)
        assert is_running.acquire(timeout=PATIENCE_S)
        running.clock.now_s += 1.1
        assert running.shown(running.send(20)) == 20
        may_return.release()
        for level in (30, 40, 50):
            assert is_running.acquire(timeout=PATIENCE_S)
            running.clock.now_s += 1.1
            may_return.release()
            running.wait_idle()
            assert running.shown(running.send(level)) == level, "before the function has returned"
        assert caplog.text.count("bypassing it") == 1
        assert "recovered" not in caplog.text
        finish_call()  # at once
        eventually(lambda: "recovered" in caplog.text)
    last = running.send(55)
    assert is_running.acquire(timeout=PATIENCE_S)
    may_return.release()
    assert running.shown(last) == 200


def test_result_from_before_a_camera_stop_is_dropped(start_hook: StartHook) -> None:
    is_running, may_return = threading.Event(), threading.Event()

    def wait(_image: Any, _metadata: Mapping[str, Any]) -> None:
        is_running.set()
        assert may_return.wait(PATIENCE_S)

    running = start_hook(wait)
    running.send(10)
    assert is_running.wait(PATIENCE_S)
    running.source.clear()
    may_return.set()
    running.wait_idle()
    assert running.hook.frames.held() is None
    assert running.shown(running.send(20)) == 20
    running.source.clear()
    assert running.hook.frames.held() is None


def test_undecodable_frame_is_shown_unchanged(start_hook: StartHook) -> None:
    running = start_hook(lambda image, _: image)
    damaged = Frame((np.zeros(9, np.uint8),), "MJPEG", *SIZE)
    running.source.put_frame(damaged)
    running.source.notify()
    assert running.shown(damaged) == 0
    assert "cannot decode" in running.hook.status()["last_error"]


@pytest.mark.parametrize(
    ("source", "name", "reason"),
    [
        ("x = 1", "a_hook:nothing", "AttributeError"),
        ("x = 1", "a_hook:x", "must be a function, not int"),
        ("import nowhere_to_be_found", "a_hook:f", "No module named 'nowhere_to_be_found' (searched next to"),
        ("1 / 0", "a_hook:f", "ZeroDivisionError"),
        ("x =", "a_hook:f", "SyntaxError"),
        ("x = 1", "another_hook:f", "another_hook"),
    ],
)
def test_hook_that_cannot_be_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, name: str, reason: str
) -> None:
    (tmp_path / "a_hook.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "a_hook", raising=False)
    with pytest.raises(ConfigurationError) as caught:
        load_hook(name, "cam0_hook")
    assert caught.value.messages[0].startswith(f"cam0_hook {name!r}: must be a function")
    assert reason in caught.value.messages[0]


def test_hook_is_loaded() -> None:
    assert load_hook("tests.unit.streaming.test_hook:fail", "--hook") is not None
