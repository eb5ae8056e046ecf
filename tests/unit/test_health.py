"""`softcam.health`: what counts as a health error, and what does not."""

import contextlib
import errno
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import pytest

from softcam.camera.session.manager import State
from softcam.errors import CameraMissing
from softcam.health import STALL_LIMIT_S, Address, Health, probe_server
from softcam.streaming.jpeg_encoder import JpegVariant
from softcam.streaming.mjpeg import Activity
from softcam.web.http.errors import BUSY_RESPONSE
from tests.support.background import eventually
from tests.support.fakes import SessionRig
from tests.support.timeouts import PATIENCE_S

UNUSED_ADDRESS = ("127.0.0.1", 9)  # the discard port: nothing listens there
LATE_S = STALL_LIMIT_S + 1.0


@dataclass
class Clock:
    now_s: float = 1000.0

    def __call__(self) -> float:
        return self.now_s


@dataclass
class FakeManager:
    """The part of `CameraManager` that `Health` calls."""

    state: State = State.CLOSED
    fps: float | None = None
    last_error: str | None = None
    error: str | None = None

    def status(self) -> Any:
        return SimpleNamespace(state=self.state, fps=self.fps, last_error=self.last_error)

    def health_error(self) -> str | None:
        return self.error


@dataclass(eq=False)
class FakeChannel:
    due_s: float = 0.0
    variant: JpegVariant = field(default_factory=lambda: JpegVariant(0, 80))


class Parts:
    """`Health` with fakes around it, and a clock that only the test moves."""

    def __init__(self, probe: Callable[[Address], bytes] = probe_server) -> None:
        self.clock = Clock()
        self.manager = FakeManager()
        self.viewers = 0
        self.activity = Activity()
        self.loop_busy_s = 0.0
        self.health = Health(
            self.manager,  # type: ignore[arg-type]
            lambda: self.viewers,
            lambda: self.activity,
            lambda: self.loop_busy_s,
            probe=probe,
            clock=self.clock,
        )

    def watch(self, *channels: FakeChannel) -> None:
        self.manager.state, self.manager.fps = State.OPEN, 20.0
        self.viewers = len(channels)
        self.activity = replace(self.activity, channels=channels, channels_since_s=self.clock.now_s)

    def report_encoded(self) -> None:
        self.activity = replace(self.activity, encoded_s=self.clock.now_s)


@pytest.fixture
def parts() -> Parts:
    return Parts()


class Answers:
    """A server that answers every connection the same, as the portal does while it is healthy."""

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
        thread.join(PATIENCE_S)


@pytest.mark.parametrize(
    ("state", "viewers", "fps", "last_error", "line"),
    [
        (State.CLOSED, 0, None, None, "closed"),
        (State.OPENING, 0, None, None, "opening"),
        (State.OPEN, 3, 29.93, None, "open, 3 clients, 29.9 fps"),
        (State.OPEN, 1, 20.0, None, "open, 1 client, 20.0 fps"),
        (State.LINGERING, 0, 20.0, None, "open, no clients, 20.0 fps"),
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


def test_status_line_ignores_small_changes_of_the_rate(parts: Parts) -> None:
    parts.watch(FakeChannel())
    parts.manager.fps = 29.9
    line = parts.health.status_line()
    parts.manager.fps = 30.1
    assert parts.health.status_line() == line
    parts.manager.fps = 12.0
    assert parts.health.status_line() == "open, 1 client, 12.0 fps"


def test_status_line_of_a_disabled_camera() -> None:
    assert Health(None, lambda: 0, Activity, lambda: 0.0).status_line() == "camera disabled"


def test_closed_camera_is_healthy(parts: Parts, server: tuple[str, int]) -> None:
    assert parts.health.health_error(server) is None
    assert Health(None, lambda: 0, Activity, lambda: 0.0).health_error(server) is None


def test_wildcard_address_is_probed_at_loopback(parts: Parts, server: tuple[str, int]) -> None:
    assert parts.health.health_error(("0.0.0.0", server[1])) is None


def test_server_that_refuses_connections(parts: Parts) -> None:
    assert parts.health.health_error(UNUSED_ADDRESS) == "the server does not answer: [Errno 111] Connection refused"


@pytest.mark.parametrize("number", [errno.ENETUNREACH, errno.EADDRNOTAVAIL])
def test_address_that_disappears_with_its_cable(number: int) -> None:
    def probe(_: Address) -> bytes:
        raise OSError(number, os.strerror(number))

    assert Parts(probe).health.health_error(("192.0.2.1", 18081)) is None


def impatient_probe(address: Address) -> bytes:
    return probe_server(address, timeout_s=0.2)


def test_server_that_hangs() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:  # only the kernel accepts the connection
        error = Parts(impatient_probe).health.health_error(listening.getsockname())
        assert error == "the server does not answer: timed out"


@pytest.mark.parametrize("answer", [b"", b"H", b"HTTP/1.1 200 OK", b"HTTP/1.1 2000 OK\r\n", b"SSH-2.0-dropbear\r\n"])
def test_server_with_an_invalid_response(parts: Parts, answers: Answers, answer: bytes) -> None:
    answers.answer = answer
    assert parts.health.health_error(answers.address) == "the server closes connections without a response"


def test_server_that_stops_within_its_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        taken: list[socket.socket] = []

        def answer_in_part() -> None:
            taken.append(listening.accept()[0])
            taken[0].sendall(b"HTTP/1.1 200 OK\r\n")

        thread = threading.Thread(target=answer_in_part)
        thread.start()
        error = Parts(impatient_probe).health.health_error(listening.getsockname())
        assert error == "the server does not answer: timed out"
        thread.join(PATIENCE_S)
        taken[0].close()


def test_busy_server_is_an_error_only_if_it_stays_busy(parts: Parts, answers: Answers) -> None:
    usual, answers.answer = answers.answer, BUSY_RESPONSE
    for _ in range(6):
        assert parts.health.health_error(answers.address) is None
        parts.clock.now_s += 10
    answers.answer = usual
    assert parts.health.health_error(answers.address) is None
    answers.answer = BUSY_RESPONSE
    assert parts.health.health_error(answers.address) is None
    parts.clock.now_s += 61
    assert parts.health.health_error(answers.address) == "the server has had no free thread for 61 s"


def test_camera_error_has_priority(parts: Parts) -> None:
    parts.manager.error = "no frame for 70 s"
    assert parts.health.health_error(UNUSED_ADDRESS) == "no frame for 70 s"


def test_streaming_is_healthy(parts: Parts, server: tuple[str, int]) -> None:
    parts.watch(FakeChannel())
    for _ in range(20):
        parts.clock.now_s += 5
        parts.report_encoded()
        assert parts.health.health_error(server) is None


def test_stalled_event_loop(parts: Parts, server: tuple[str, int]) -> None:
    parts.loop_busy_s = STALL_LIMIT_S
    assert parts.health.health_error(server) is None
    parts.loop_busy_s = LATE_S
    assert parts.health.health_error(server) == "the event loop has not finished its turn for 11 s"


def test_stalled_encoder(parts: Parts, server: tuple[str, int]) -> None:
    parts.watch(FakeChannel())
    parts.clock.now_s += LATE_S
    assert parts.health.health_error(server) == "frames arrive, but no JPEG was encoded for 11 s"


def test_client_with_a_low_frame_rate(parts: Parts, server: tuple[str, int]) -> None:
    parts.watch(FakeChannel(due_s=parts.clock.now_s + 60))
    parts.clock.now_s += LATE_S
    assert parts.health.health_error(server) is None


@pytest.mark.parametrize("state", [State.RECOVERING, State.OPENING, State.CLOSING])
def test_encoders_are_idle_while_the_camera_is_not_open(parts: Parts, server: tuple[str, int], state: State) -> None:
    parts.watch(FakeChannel())
    parts.manager.state = state
    parts.clock.now_s += LATE_S
    assert parts.health.health_error(server) is None


def test_encoders_are_idle_without_frames(parts: Parts, server: tuple[str, int]) -> None:
    parts.watch(FakeChannel())
    parts.manager.fps = 0.0
    parts.clock.now_s += LATE_S
    assert parts.health.health_error(server) is None


def test_recovery_is_an_error_only_if_it_takes_too_long() -> None:
    with SessionRig(watchdog_timeout_s=0.05) as held:
        assert held.manager.health_error() is None
        held.camera.block("restart")
        held.manager.lease("stream")
        held.camera.wait_inside("restart")
        assert held.manager.health_error() is None
        with held.session.changed:
            held.session.watchdog.excuse_silence(time.monotonic() - 41.0)
        assert held.manager.health_error() == "no frame for 41 s"
        held.camera.unblock()


def test_silent_camera_without_a_watchdog() -> None:
    with SessionRig(watchdog_timeout_s=0) as held:
        held.open()
        assert held.manager.health_error() is None


def test_failed_camera() -> None:
    with SessionRig() as held:
        held.camera.fail_next("open", CameraMissing("camera 0 is missing"))
        held.manager.lease("stream")
        eventually(lambda: held.manager.health_error() == "camera failed: camera 0 is missing", "a health error")
        assert isinstance(held.take_failure(), CameraMissing)
