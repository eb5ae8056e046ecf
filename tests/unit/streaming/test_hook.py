"""A user's function between camera and streams: what it may do, and that nothing it does ends the stream."""

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from integrations.hooks import motion
from softcam.errors import ConfigurationError
from softcam.imaging.frame import Frame, NewestFrame
from softcam.streaming import hook
from softcam.streaming.hook import Hook, load_hook
from tests.support.fakes import PATIENCE_S, eventually, make_frame, soon_s

SIZE = (32, 16)


class Stage:
    """A hook with its source, and what it showed."""

    def __init__(self, function: Callable[[Any, Mapping[str, Any]], Any]) -> None:
        self.source = NewestFrame()
        self.came = 0
        self.deaths: list[str] = []
        self.hook = Hook("my:hook", function, self.source)
        self.hook.frames.subscribe(self._on_frame)
        self.hook.portal = "http://127.0.0.1:5"
        self.hook.start(self.deaths.append)

    def _on_frame(self) -> None:
        self.came += 1

    def give(self, level: int = 100, **more: Any) -> Frame:
        frame = make_frame(size=SIZE, **more)
        frame.planes[0][:] = level
        self.source.put(frame)
        self.source.notify()
        return frame

    def shown(self, after: Frame | None = None, *, since_s: float = 0.0) -> int:
        """The luma of the first picture shown that is as new as that frame."""
        began_s = since_s if after is None else after.began_s
        frame = self.hook.frames.wait(lambda frame: frame.began_s >= began_s, soon_s())
        assert frame is not None
        level = round(float(frame.planes[0].mean()))
        frame.release()
        return level


@pytest.fixture
def stage() -> Iterator[Callable[..., Stage]]:
    made: list[Stage] = []

    def make(function: Callable[[Any, Mapping[str, Any]], Any]) -> Stage:
        made.append(Stage(function))
        return made[-1]

    yield make
    for each in made:
        each.hook.stop(time.monotonic() + PATIENCE_S)
        assert each.deaths == []
        assert not any(thread.name == "hook" and thread.is_alive() for thread in threading.enumerate())


def test_what_it_gives_is_shown(stage: Callable[..., Stage]) -> None:
    seen: list[tuple[Any, Mapping[str, Any]]] = []

    def whiten(image: Any, metadata: Mapping[str, Any]) -> Any:
        seen.append((image.copy(), metadata))
        image[:] = 255
        return image

    one = stage(whiten)
    frame = one.give(100, metadata={"Lux": 5.0})
    assert one.shown(frame) == 255
    (image, metadata) = seen[0]
    assert (image.shape, image.dtype) == ((16, 32, 3), np.uint8)
    assert abs(int(image.mean()) - 100) <= 2
    assert metadata["Lux"] == 5.0
    assert metadata["portal"] == "http://127.0.0.1:5"
    assert metadata["timestamp"] == pytest.approx(frame.timestamp_s, abs=0.01)
    assert one.hook.status() == {"name": "my:hook", "calls": 1, "failures": 0, "skipped": 0, "last_error": None}
    eventually(lambda: one.came == 1)


def test_none_leaves_the_frame_even_where_the_array_was_written_to(stage: Callable[..., Stage]) -> None:
    def scribble(image: Any, _metadata: Mapping[str, Any]) -> None:
        image[:] = 255

    one = stage(scribble)
    assert one.shown(one.give(100)) == 100


def test_the_camera_has_its_buffer_back_while_the_function_works(stage: Callable[..., Stage]) -> None:
    is_in, may_end, given_back = threading.Event(), threading.Event(), threading.Event()

    def wait(image: Any, _metadata: Mapping[str, Any]) -> Any:
        is_in.set()
        assert may_end.wait(PATIENCE_S)
        return image

    one = stage(wait)
    one.give(give_back=given_back.set)
    assert is_in.wait(PATIENCE_S)
    one.source.clear()
    assert given_back.is_set()
    may_end.set()


def fail(_image: Any, _metadata: Mapping[str, Any]) -> Any:
    raise ZeroDivisionError("oh")


def leave(_image: Any, _metadata: Mapping[str, Any]) -> Any:
    sys.exit(3)


class Mute(BaseException):
    def __str__(self) -> str:
        raise RuntimeError("no words")


def be_mute(_image: Any, _metadata: Mapping[str, Any]) -> Any:
    raise Mute


class Secret(np.ndarray):
    """An array that does not say its shape."""

    @property
    def shape(self) -> Any:
        raise RuntimeError("not today")


class Nobody:
    """Cannot even be asked what it is."""

    @property
    def __class__(self) -> Any:
        raise RuntimeError("nobody")


def change_words(_image: Any, metadata: Mapping[str, Any]) -> Any:
    raise ValueError(f"at {metadata['timestamp']}" + "x" * 1000)


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (be_mute, "Mute: "),
        (change_words, "ValueError: at "),
        (fail, "ZeroDivisionError: oh"),
        (leave, "SystemExit: 3"),
        (lambda image, _: image[:, :, 0], "it gave uint8 (16, 32)"),
        (lambda image, _: image.astype(float), "it gave float64"),
        (lambda _image, _metadata: "picture", "it gave str"),
        (lambda image, _: image[:5].view(Secret), "it gave uint8 (5, 32, 3)"),
        (lambda _image, _metadata: Nobody(), "RuntimeError: nobody"),
    ],
)
def test_a_failure_is_counted_and_said_once(
    stage: Callable[..., Stage], caplog: pytest.LogCaptureFixture, function: Any, reason: str
) -> None:
    one = stage(function)
    with caplog.at_level(logging.INFO):
        for level in (50, 60, 70):
            assert one.shown(one.give(level)) == level, "shown as it was"
    status = one.hook.status()
    assert (status["calls"], status["failures"]) == (3, 3)
    assert reason in status["last_error"]
    assert len(status["last_error"]) <= 200
    assert len([record for record in caplog.records if reason in record.getMessage()]) == 1


@pytest.mark.parametrize("step", ["rgb_of", "shape_fault", "frame_of"])
def test_no_memory_for_a_picture_is_a_failure_of_one_frame(
    stage: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def fail(*_: Any) -> None:
        raise MemoryError

    one = stage(lambda image, _: 255 - image)
    with monkeypatch.context() as patch:
        patch.setattr(hook, step, fail)
        assert one.shown(one.give(50)) == 50
    assert one.hook.status()["last_error"].startswith("MemoryError")
    assert one.shown(one.give(50)) == 205


def test_what_is_shown_is_an_array_whatever_class_it_was(stage: Callable[..., Stage]) -> None:
    one = stage(lambda image, _: (255 - image).view(Secret))
    assert one.shown(one.give(50)) == 205
    assert one.hook.status()["failures"] == 0


def test_a_slow_function_loses_frames_and_delays_none(stage: Callable[..., Stage]) -> None:
    may_end = threading.Semaphore(0)
    is_in = threading.Semaphore(0)

    def wait(_image: Any, _metadata: Mapping[str, Any]) -> None:
        is_in.release()
        assert may_end.acquire(timeout=PATIENCE_S)

    one = stage(wait)
    one.give(10)
    assert is_in.acquire(timeout=PATIENCE_S)
    one.give(20)
    newest = one.give(30)
    may_end.release()
    assert is_in.acquire(timeout=PATIENCE_S), "goes on with the newest frame"
    may_end.release()
    assert one.shown(newest) == 30
    assert one.hook.status()["calls"] == 2
    assert one.hook.status()["skipped"] == 2


def test_a_function_that_hangs_is_passed_by(
    stage: Callable[..., Stage], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hook, "_PATIENCE_S", 0.0)
    is_in, may_end = threading.Event(), threading.Event()

    def hang(image: Any, _metadata: Mapping[str, Any]) -> Any:
        is_in.set()
        assert may_end.wait(PATIENCE_S)
        image[:] = 255
        return image

    one = stage(hang)
    old = one.give(10)
    assert is_in.wait(PATIENCE_S)
    with caplog.at_level(logging.INFO):
        for level in (20, 30, 40):
            frame = one.give(level)
            assert one.shown(frame) == level
        assert caplog.text.count("shown without it") == 1
        monkeypatch.setattr(hook, "_PATIENCE_S", PATIENCE_S)
        may_end.set()
        eventually(lambda: "has come back" in caplog.text)
    assert one.shown(old) >= 40, "what it gave of the old frame is not shown"
    assert "more than" in one.hook.status()["last_error"]


def test_a_function_that_is_always_too_slow_is_passed_by_at_once_and_told_once(
    stage: Callable[..., Stage], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hook, "_PATIENCE_S", 0.0)
    is_in, may_end = threading.Semaphore(0), threading.Semaphore(0)

    def wait(image: Any, _metadata: Mapping[str, Any]) -> Any:
        is_in.release()
        assert may_end.acquire(timeout=PATIENCE_S)
        return 255 - image

    def go_on() -> None:
        may_end.release()
        eventually(lambda: one.hook._busy_since_s is None)

    one = stage(wait)
    with caplog.at_level(logging.INFO):
        one.give(10)
        assert is_in.acquire(timeout=PATIENCE_S)
        assert one.shown(one.give(20)) == 20
        may_end.release()
        for level in (30, 40, 50):
            assert is_in.acquire(timeout=PATIENCE_S)
            go_on()
            assert one.shown(one.give(level)) == level, "before the function has looked at it"
        assert caplog.text.count("shown without it") == 1
        assert "has come back" not in caplog.text
        monkeypatch.setattr(hook, "_PATIENCE_S", PATIENCE_S)
        assert is_in.acquire(timeout=PATIENCE_S)
        go_on()
        eventually(lambda: "has come back" in caplog.text)
    last = one.give(55)
    assert is_in.acquire(timeout=PATIENCE_S)
    may_end.release()
    assert one.shown(last) == 200


def test_nothing_from_before_a_stop_of_the_camera_is_shown(stage: Callable[..., Stage]) -> None:
    is_in, may_end = threading.Event(), threading.Event()

    def wait(_image: Any, _metadata: Mapping[str, Any]) -> None:
        is_in.set()
        assert may_end.wait(PATIENCE_S)

    one = stage(wait)
    one.give(10)
    assert is_in.wait(PATIENCE_S)
    one.source.clear()
    may_end.set()
    eventually(lambda: one.hook._busy_since_s is None)
    assert one.hook.frames.held() is None
    assert one.shown(one.give(20)) == 20
    one.source.clear()
    assert one.hook.frames.held() is None


def test_a_frame_that_cannot_be_read_is_passed_on(stage: Callable[..., Stage]) -> None:
    one = stage(lambda image, _: image)
    damaged = Frame((np.zeros(9, np.uint8),), "MJPEG", *SIZE)
    one.source.put(damaged)
    one.source.notify()
    assert one.shown(damaged) == 0
    assert "cannot be read" in one.hook.status()["last_error"]


@pytest.mark.parametrize(
    ("source", "name", "reason"),
    [
        ("x = 1", "a_hook:nothing", "AttributeError"),
        ("x = 1", "a_hook:x", "no function"),
        ("import nowhere_to_be_found", "a_hook:f", "ModuleNotFoundError"),
        ("1 / 0", "a_hook:f", "ZeroDivisionError"),
        ("x =", "a_hook:f", "SyntaxError"),
        ("x = 1", "another_hook:f", "another_hook"),
    ],
)
def test_fail_to_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, name: str, reason: str) -> None:
    (tmp_path / "a_hook.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "a_hook", raising=False)
    with pytest.raises(ConfigurationError) as caught:
        load_hook(name)
    assert caught.value.faults[0].startswith(f"hook {name}: ")
    assert reason in caught.value.faults[0]


class _Proxy(BaseHTTPRequestHandler):
    """What stands before a portal that is not there: its errors are pages."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_error(502)

    def log_message(self, *_: Any) -> None: ...


@pytest.mark.parametrize("step_s", [0.05, 10.0])
def test_what_changed_while_the_camera_was_closed_is_no_movement(step_s: float) -> None:
    told: list[float] = []
    now_s = 1e6
    one = motion.Motion(0.01, lambda: told.append(now_s), 0.0)

    def see(level: int) -> None:
        nonlocal now_s
        now_s += step_s
        one.see(np.full((64, 64, 3), level, np.uint8), now_s)

    for _ in range(60):
        see(50)
    now_s += 3600
    for _ in range(60):
        see(150)
    assert told == []
    see(50)
    assert told == [now_s]


def test_motion_that_cannot_be_recorded_is_told(caplog: pytest.LogCaptureFixture) -> None:
    server = HTTPServer(("127.0.0.1", 0), _Proxy)
    answering = threading.Thread(target=server.handle_request)
    answering.start()
    motion._record(f"http://127.0.0.1:{server.server_port}/")
    answering.join(PATIENCE_S)
    server.server_close()
    motion._record("nowhere")
    assert [record.getMessage() for record in caplog.records] == [
        "Something moves, and is not recorded: HTTP Error 502: Bad Gateway",
        "Something moves, and is not recorded: ValueError: unknown url type: 'nowhere/v1/recordings/start'",
    ]


def test_ok_to_load() -> None:
    assert load_hook("tests.unit.streaming.test_hook:fail") is not None
