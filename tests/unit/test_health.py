"""The judge of the whole portal: what it lets pass, and what it does not."""

import contextlib
import errno
import os
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from softcam import health
from softcam.camera.session.manager import State
from softcam.errors import CameraMissing
from softcam.health import Health
from softcam.streaming.jpeg_encoder import JpegVariant
from softcam.web.http.errors import BUSY_RESPONSE
from tests.support.fakes import Held, eventually

NOBODY = ("127.0.0.1", 9)  # the discard port: nobody listens
LATE_S = health._STILL_LIMIT_S + 1.0


@dataclass
class Clock:
    now_s: float = 1000.0

    def monotonic(self) -> float:
        return self.now_s


@dataclass
class FakeHolder:
    """What the judge asks of a holder."""

    state: State = State.CLOSED
    fps: float | None = None
    last_error: str | None = None
    said: str | None = None

    def status(self) -> Any:
        return SimpleNamespace(state=self.state, fps=self.fps, last_error=self.last_error)

    def health_error(self) -> str | None:
        return self.said


@dataclass(eq=False)
class FakeChannel:
    due_s: float = 0.0
    key: JpegVariant = field(default_factory=lambda: JpegVariant(0, 80))


class Parts:
    """A portal of fakes and a clock that stands."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.manager = FakeHolder()
        self.viewers = 0
        self.health = Health(self.manager, lambda: self.viewers)  # type: ignore[arg-type]

    def watch(self, *channels: FakeChannel) -> None:
        self.manager.state, self.manager.fps = State.OPEN, 20.0
        self.viewers = len(channels)
        self.health.channels_changed(channels)
        self.health.ticked()


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> Parts:
    clock = Clock()
    monkeypatch.setattr(health, "time", clock)
    return Parts(clock)


class Answers:
    """A server that answers every connection the same, as the portal does when all is well."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.address = address
        self.answer = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"  # the camera is not ready


@pytest.fixture
def server(answers: Answers) -> tuple[str, int]:
    return answers.address


@pytest.fixture
def answers() -> Iterator[Answers]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        answers = Answers(listening.getsockname())

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    with connection:
                        connection.recv(4096)
                        connection.sendall(answers.answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield answers
        listening.shutdown(socket.SHUT_RDWR)
        thread.join(5)


@pytest.mark.parametrize(
    ("state", "viewers", "fps", "last_error", "line"),
    [
        (State.CLOSED, 0, None, None, "closed"),
        (State.OPENING, 0, None, None, "opening"),
        (State.OPEN, 3, 29.93, None, "open, 3 viewers, 29.9 fps"),
        (State.OPEN, 1, 20.0, None, "open, 1 viewer, 20.0 fps"),
        (State.LINGERING, 0, 20.0, None, "open, nobody watches, 20.0 fps"),
        (State.RECOVERING, 2, 0.0, "no frame for 10 s", "restarting: no frame for 10 s"),
        (State.MISSING, 0, None, "camera 0 is gone", "missing: camera 0 is gone"),
    ],
)
def test_status_line(
    parts: Parts, state: State, viewers: int, fps: float | None, last_error: str | None, line: str
) -> None:
    parts.viewers = viewers
    parts.manager.state, parts.manager.fps, parts.manager.last_error = state, fps, last_error
    assert parts.health.status_line() == line


def test_status_line_does_not_flicker_with_the_rate(parts: Parts) -> None:
    parts.watch(FakeChannel())
    parts.manager.fps = 29.9
    line = parts.health.status_line()
    parts.manager.fps = 30.1
    assert parts.health.status_line() == line
    parts.manager.fps = 12.0
    assert parts.health.status_line() == "open, 1 viewer, 12.0 fps"


def test_status_line_of_a_camera_that_is_switched_off() -> None:
    assert Health(None, lambda: 0).status_line() == "the camera is switched off"


def test_a_closed_camera_and_a_server_that_answers_are_well(parts: Parts, server: tuple[str, int]) -> None:
    assert parts.health.trouble(server) is None
    assert Health(None, lambda: 0).trouble(server) is None


def test_all_addresses_are_asked_at_loopback(parts: Parts, server: tuple[str, int]) -> None:
    assert parts.health.trouble(("0.0.0.0", server[1])) is None


def test_a_server_that_refuses(parts: Parts) -> None:
    assert parts.health.trouble(NOBODY) == "the server does not answer: [Errno 111] Connection refused"


@pytest.mark.parametrize("number", [errno.ENETUNREACH, errno.EADDRNOTAVAIL])
def test_an_address_that_went_with_its_cable_is_no_fault_of_the_portals(
    parts: Parts, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def ask(_: tuple[str, int]) -> bytes:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(health, "_ask", ask)
    assert parts.health.trouble(("192.0.2.1", 18081)) is None


def test_a_server_whose_loop_hangs(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "_ANSWER_LIMIT_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as listening:  # the kernel takes the connection, and nobody else
        assert parts.health.trouble(listening.getsockname()) == "the server does not answer: timed out"


@pytest.mark.parametrize("answer", [b"", b"H", b"HTTP/1.1 200 OK", b"HTTP/1.1 2000 OK\r\n", b"SSH-2.0-dropbear\r\n"])
def test_a_server_that_says_something_else(parts: Parts, answers: Answers, answer: bytes) -> None:
    answers.answer = answer
    assert parts.health.trouble(answers.address) == "the server closes connections without an answer"


def test_a_server_that_stops_in_its_answer(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "_ANSWER_LIMIT_S", 0.2)
    monkeypatch.setattr(parts.clock, "monotonic", time.monotonic)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        taken: list[socket.socket] = []

        def answer_in_part() -> None:
            taken.append(listening.accept()[0])
            taken[0].sendall(b"HTTP/1.1 200 OK\r\n")

        thread = threading.Thread(target=answer_in_part)
        thread.start()
        assert parts.health.trouble(listening.getsockname()) == "the server does not answer: timed out"
        thread.join(5)
        taken[0].close()


def test_a_full_server_is_no_trouble_unless_it_stays_full(parts: Parts, answers: Answers) -> None:
    usual, answers.answer = answers.answer, BUSY_RESPONSE
    for _ in range(6):
        assert parts.health.trouble(answers.address) is None
        parts.clock.now_s += 10
    answers.answer = usual
    assert parts.health.trouble(answers.address) is None
    answers.answer = BUSY_RESPONSE
    assert parts.health.trouble(answers.address) is None
    parts.clock.now_s += 61
    assert parts.health.trouble(answers.address) == "the server has had no thread for a request for 61 s"


def test_what_the_holder_says_comes_first(parts: Parts) -> None:
    parts.manager.said = "no frame for 70 s"
    assert parts.health.trouble(NOBODY) == "no frame for 70 s"


def test_viewers_who_get_pictures(parts: Parts, server: tuple[str, int]) -> None:
    parts.watch(FakeChannel())
    for _ in range(20):
        parts.clock.now_s += 5
        parts.health.ticked()
        parts.health.delivered()
        assert parts.health.trouble(server) is None


def test_a_fan_out_that_stands_still(parts: Parts, server: tuple[str, int]) -> None:
    parts.watch(FakeChannel())
    assert parts.health.trouble(server) is None
    parts.clock.now_s += LATE_S
    parts.health.delivered()
    assert parts.health.trouble(server) == "the fan-out has not gone round for 11 s"
    parts.viewers = 0
    assert parts.health.trouble(server) is None


def test_a_fan_out_whose_first_viewer_just_came_has_time(parts: Parts, server: tuple[str, int]) -> None:
    parts.clock.now_s += 3600
    parts.viewers = 1
    assert parts.health.trouble(server) is None


def test_frames_that_nobody_encodes(parts: Parts, server: tuple[str, int]) -> None:
    parts.watch(FakeChannel())
    parts.clock.now_s += LATE_S
    parts.health.ticked()
    assert parts.health.trouble(server) == "frames come, and none was encoded for 11 s"


def test_a_viewer_who_wants_a_picture_a_minute_is_no_trouble(parts: Parts, server: tuple[str, int]) -> None:
    parts.watch(FakeChannel(due_s=parts.clock.now_s + 60))
    parts.clock.now_s += LATE_S
    parts.health.ticked()
    assert parts.health.trouble(server) is None


@pytest.mark.parametrize("state", [State.RECOVERING, State.OPENING, State.CLOSING])
def test_encoders_may_rest_while_the_camera_does_not_run(parts: Parts, server: tuple[str, int], state: State) -> None:
    parts.watch(FakeChannel())
    parts.manager.state = state
    parts.clock.now_s += LATE_S
    parts.health.ticked()
    assert parts.health.trouble(server) is None


def test_the_fan_out_encodes_no_frames_that_do_not_come(parts: Parts, server: tuple[str, int]) -> None:
    parts.watch(FakeChannel())
    parts.manager.fps = 0.0
    parts.clock.now_s += LATE_S
    parts.health.ticked()
    assert parts.health.trouble(server) is None


def test_a_holder_that_recovers_in_time_is_well_and_one_that_hangs_is_not() -> None:
    with Held(watchdog_timeout_s=0.05) as held:
        assert held.manager.health_error() is None
        held.camera.shut("restart")
        held.manager.lease("stream")
        held.camera.wait_inside("restart")
        assert held.manager.health_error() is None
        with held.session.changed:
            held.session.watchdog.excuse_silence(time.monotonic() - 41.0)
        assert held.manager.health_error() == "no frame for 41 s"
        held.camera.let()


def test_a_silent_camera_without_a_watchdog_is_as_its_owner_wants_it() -> None:
    with Held(watchdog_timeout_s=0) as held:
        held.open()
        assert held.manager.health_error() is None


def test_a_holder_at_its_end() -> None:
    with Held() as held:
        held.camera.fail_next("open", CameraMissing("camera 0 is missing"))
        held.manager.lease("stream")
        eventually(lambda: held.manager.health_error() == "camera failed: camera 0 is missing", "trouble")
        assert isinstance(held.take_failure(), CameraMissing)
