"""systemd notifications, received on a real socket."""

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from softcam.runtime.systemd import Notifier, Watch, runtime_folder
from tests.support.timeouts import PATIENCE_S


class Listener:
    """The socket of systemd."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(f"\0{name[1:]}" if name.startswith("@") else name)
        self._socket.settimeout(PATIENCE_S)

    def receive(self) -> dict[str, str]:
        lines = self._socket.recv(4096).decode().split("\n")
        return dict(line.split("=", 1) for line in lines)

    def receive_until(self, name: str, value: str | None = None) -> str:
        while True:
            states = self.receive()
            if name in states and value in (None, states[name]):
                return states[name]

    def has_more(self) -> bool:
        self._socket.settimeout(0)
        try:
            self._socket.recv(4096)
        except BlockingIOError:
            return False
        finally:
            self._socket.settimeout(PATIENCE_S)
        return True

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def listener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Listener]:
    listener = Listener(str(tmp_path / "notify") if request.param == "path" else f"@soft-stream-{os.getpid()}")
    yield listener
    listener.close()


def fail_test(reason: str) -> None:
    raise AssertionError(reason)


def test_states_are_sent_in_one_datagram(listener: Listener) -> None:
    Notifier({"NOTIFY_SOCKET": listener.name}).send(READY=1, STATUS="open,\n3 viewers")
    assert listener.receive() == {"READY": "1", "STATUS": "open, 3 viewers"}


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:1"}])
def test_nothing_is_sent_without_notify_socket(
    environ: dict[str, str], no_leaks: Callable[[], AbstractContextManager[None]]
) -> None:
    notifier = Notifier({**environ, "WATCHDOG_USEC": "1000000"})
    assert not notifier
    assert notifier.watchdog_s is None
    with no_leaks():
        watch = Watch(notifier, lambda: "closed", lambda: None)
        watch.start(fail_test)
        assert "systemd" not in [thread.name for thread in threading.enumerate()]
        watch.stop("stopping")


def test_send_to_missing_socket_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "nobody")}).send(READY=1)
    assert "Failed to notify systemd (READY)" in caplog.text


@pytest.mark.parametrize(
    ("environ", "expected_s"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": str(os.getpid())}, 0.5),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_watchdog_timeout(environ: dict[str, str], expected_s: float | None) -> None:
    assert Notifier({"NOTIFY_SOCKET": "/run/notify", **environ}).watchdog_s == expected_s


def test_watch_from_ready_to_stopping(listener: Listener, no_leaks: Callable[[], AbstractContextManager[None]]) -> None:
    states = ["closed"]
    with no_leaks():
        watch = Watch(
            Notifier({"NOTIFY_SOCKET": listener.name, "WATCHDOG_USEC": "60000"}), lambda: states[-1], lambda: None
        )
        watch.start(fail_test)
        assert listener.receive() == {"READY": "1", "STATUS": "closed"}
        listener.receive_until("WATCHDOG", "1")
        states.append("open, 1 client, 20.0 fps")
        listener.receive_until("STATUS", "open, 1 client, 20.0 fps")
        listener.receive_until("WATCHDOG", "1")
        watch.stop("the camera is missing")
        listener.receive_until("STOPPING", "1")


def test_no_pings_while_unhealthy(listener: Listener, caplog: pytest.LogCaptureFixture) -> None:
    asked = threading.Semaphore(0)
    errors: list[str | None] = ["the server does not answer"]

    def health_error() -> str | None:
        asked.release()
        return errors[-1]

    watch = Watch(Notifier({"NOTIFY_SOCKET": listener.name, "WATCHDOG_USEC": "60000"}), lambda: "closed", health_error)
    watch.start(fail_test)
    assert "READY" in listener.receive()
    assert listener.receive() == {"STATUS": "closed"}
    for _ in range(4):
        assert asked.acquire(timeout=PATIENCE_S)
    assert not listener.has_more()
    assert caplog.text.count("the server does not answer") == 1
    errors.append(None)
    listener.receive_until("WATCHDOG", "1")
    watch.stop("stopping")
    listener.receive_until("STOPPING")


def test_no_pings_while_health_check_hangs(listener: Listener) -> None:
    asked, may_answer = threading.Event(), threading.Event()

    def health_error() -> None:
        asked.set()
        may_answer.wait(PATIENCE_S)

    watch = Watch(Notifier({"NOTIFY_SOCKET": listener.name, "WATCHDOG_USEC": "60000"}), lambda: "closed", health_error)
    watch.start(fail_test)
    assert asked.wait(PATIENCE_S)
    assert "READY" in listener.receive()
    assert listener.receive() == {"STATUS": "closed"}
    assert not listener.has_more()
    may_answer.set()
    listener.receive_until("WATCHDOG", "1")
    watch.stop("stopping")
    listener.receive_until("STOPPING")


def test_crash_of_watch_is_reported(listener: Listener) -> None:
    reasons: list[str] = []
    done = threading.Event()

    def health_error() -> None:
        raise ValueError("no idea")

    def on_crash(reason: str) -> None:
        reasons.append(reason)
        done.set()

    watch = Watch(Notifier({"NOTIFY_SOCKET": listener.name, "WATCHDOG_USEC": "60000"}), lambda: "closed", health_error)
    watch.start(on_crash)
    assert done.wait(PATIENCE_S)
    assert reasons == ["thread systemd crashed: ValueError: no idea"]


@pytest.mark.parametrize(
    ("value", "folder"),
    [(None, None), ("", None), ("run/cam", None), ("/run/cam/0", "/run/cam/0"), ("/run/cam:/run/more", "/run/cam")],
)
def test_runtime_folder(value: str | None, folder: str | None) -> None:
    environ = {} if value is None else {"RUNTIME_DIRECTORY": value}
    assert runtime_folder(environ) == (None if folder is None else Path(folder))
