"""No frame is kept alive by a reference cycle: the interpreter collects these only after many allocations, of which a
portal has few, and until then each holds megabytes.

A whole portal runs in this process, without its garbage collector, while its camera is reopened in every way.
"""

import json
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

from softcam.application import Application
from softcam.config.loader import load
from softcam.runtime import memory
from softcam.runtime.log.memory import LogMemory
from softcam.runtime.shutdown import ShutdownSignal
from tests.support.background import soon
from tests.support.cycles import without_collector
from tests.support.http_client import StreamClient, ask, post, status_of, wait_for_status
from tests.support.timeouts import PATIENCE_S

ROUNDS: Final = 2


class InProcess:
    """A portal on the pattern camera in this process, as clients see it."""

    log = ""

    def __init__(self, folder: Path) -> None:
        self._faults = folder / "faults"
        self.inject("")
        with socket.create_server(("127.0.0.1", 0)) as listening:
            port = listening.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        flags = ["--camera", "pattern", "--port", str(port), "--width", "640", "--height", "360", "--fps", "60"]
        flags += ["--linger", "0", "--watchdog-timeout", "0.5", "--state-dir", str(folder), "--no-autofocus"]
        settings = load([*flags, "--pattern-faults", str(self._faults)], {})
        self._application = Application(settings, ShutdownSignal(), LogMemory())
        self._application.start()

    def inject(self, faults: str) -> None:
        self._faults.write_text(faults)

    def stop(self) -> None:
        assert self._application.stop(soon())


@pytest.fixture(scope="module")
def in_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcess]:
    portal = InProcess(tmp_path_factory.mktemp("cycles"))
    yield portal
    portal.stop()


def open_and_close(portal: InProcess, _number: int) -> None:
    with StreamClient(portal) as viewer:
        viewer.next()
    wait_for_status(portal, state="closed")


def full_still(portal: InProcess, _number: int) -> None:
    assert ask(portal, "/snapshot.jpg?full=1", timeout_s=60).status == 200


def full_still_of_a_closed_camera(portal: InProcess, number: int) -> None:
    full_still(portal, number)
    wait_for_status(portal, state="closed")


def size_after_a_full_still(portal: InProcess, number: int) -> None:
    full_still(portal, number)
    assert post(portal, "/v1/camera/stream", {"width": 320 + 320 * (number % 2), "height": 240}).status == 200


def transform(portal: InProcess, number: int) -> None:
    assert post(portal, "/v1/camera/transform", {"hflip": bool(number % 2)}).status == 200


def sensor_hdr(portal: InProcess, number: int) -> None:
    assert post(portal, "/v1/camera/hdr", {"mode": "off" if number % 2 else "sensor"}).status == 200


def restart_by_the_watchdog(portal: InProcess, _number: int) -> None:
    _recover(portal, "hang-once", lambda status: status["restarts"])


def reopening_by_the_watchdog(portal: InProcess, _number: int) -> None:
    _recover(portal, "hang-once fail-restart", lambda status: status["opens"])


def refused_change(portal: InProcess, _number: int) -> None:
    portal.inject("refuse")
    assert post(portal, "/v1/camera/transform", {"vflip": True}).status == 503
    portal.inject("")


def _recover(portal: InProcess, faults: str, count: Callable[[Any], int]) -> None:
    before = count(status_of(portal))
    portal.inject(faults)
    deadline_s = time.monotonic() + PATIENCE_S
    while count(status_of(portal)) == before:
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    portal.inject("")
    wait_for_status(portal, state="open")


HELD: tuple[Callable[[InProcess, int], None], ...] = (
    size_after_a_full_still,
    transform,
    sensor_hdr,
    restart_by_the_watchdog,
    reopening_by_the_watchdog,
    refused_change,
)


@pytest.fixture
def large_in_cycles(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], list[str]]]:
    """A function that returns what large memory was held by cycles since the test began; nothing is collected."""
    monkeypatch.setattr(memory, "release_unused", lambda: None)  # the portal itself collects after each closing
    with without_collector() as large:
        yield large


@pytest.fixture(autouse=True)
def default_controls(in_process: InProcess) -> Iterator[None]:
    yield
    assert ask(in_process, "/v1/camera/controls", method="DELETE").status == 200


def test_cycle_is_found(large_in_cycles: Callable[[], list[str]]) -> None:
    cycle: list[Any] = [np.zeros((300, 400), np.uint8)[10:20]]
    cycle.append(cycle)
    del cycle
    (found,) = large_in_cycles()
    assert found.startswith("120000 bytes in list")


@pytest.mark.parametrize("reopen", [open_and_close, full_still_of_a_closed_camera], ids=lambda each: each.__name__)
def test_closed_camera(
    in_process: InProcess, large_in_cycles: Callable[[], list[str]], reopen: Callable[[InProcess, int], None]
) -> None:
    for number in range(ROUNDS):
        reopen(in_process, number)
    assert large_in_cycles() == []


@pytest.mark.parametrize("reopen", HELD, ids=lambda each: each.__name__)
def test_camera_with_viewers(
    in_process: InProcess, large_in_cycles: Callable[[], list[str]], reopen: Callable[[InProcess, int], None]
) -> None:
    with StreamClient(in_process) as viewer, StreamClient(in_process, "/stream.mp4") as video:
        viewer.next()
        assert video.head()[0] == b"HTTP/1.1 200 OK"
        for number in range(ROUNDS):
            reopen(in_process, number)
            viewer.next()
        assert json.loads(ask(in_process, "/v1/camera/status").body)["state"] == "open"
    wait_for_status(in_process, state="closed")
    assert large_in_cycles() == []
