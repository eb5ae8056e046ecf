"""What the crash rounds report of clients whose requests fail: before the kill it is a fault, after it it is not."""

import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.crash_rounds import Rounds

SEED = 191  # a round with clients, which is killed after 0.3 s


class _Rounds(Rounds):
    """Without what needs a portal that answers."""

    def check(self, _portal: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[socket.socket]:
    """Accepts connections, and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def run(server: socket.socket, folder: Path) -> list[str]:
    """The faults of a round in which `server` ends with the kill."""

    def start(*_: str) -> Any:
        process = SimpleNamespace(send_signal=lambda _: server.close())
        return SimpleNamespace(url=url, process=process, end=lambda: None)

    url = f"http://127.0.0.1:{server.getsockname()[1]}"
    rounds = _Rounds(start, folder, SEED)
    rounds.run()
    assert not rounds.figures["killed during the start"]
    return rounds.faults


def test_requests_that_the_kill_ends(server: socket.socket, tmp_path: Path) -> None:
    assert run(server, tmp_path) == []


def test_requests_that_fail_before_the_kill(server: socket.socket, tmp_path: Path) -> None:
    server.shutdown(socket.SHUT_RDWR)  # it keeps the port, and rejects connections
    faults = run(server, tmp_path)
    assert len(faults) == 3
    assert all("a request failed before the kill: ConnectionRefusedError" in fault for fault in faults)
