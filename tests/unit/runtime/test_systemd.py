"""What systemd is told, heard on a real socket."""

import logging
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from softcam.runtime.systemd import JournalFormatter, Notifier, Watch, is_journal

PATIENCE_S = 10.0


class Listener:
    """systemd's end."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(f"\0{name[1:]}" if name.startswith("@") else name)
        self._socket.settimeout(PATIENCE_S)

    def hear(self) -> dict[str, str]:
        lines = self._socket.recv(4096).decode().split("\n")
        return dict(line.split("=", 1) for line in lines)

    def hear_until(self, name: str, value: str | None = None) -> str:
        while True:
            heard = self.hear()
            if name in heard and value in (None, heard[name]):
                return heard[name]

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


def ignore(reason: str) -> None:
    raise AssertionError(reason)


def test_states_go_out_in_one_datagram_a_line_each(listener: Listener) -> None:
    Notifier({"NOTIFY_SOCKET": listener.name}).send(READY=1, STATUS="open,\n3 viewers")
    assert listener.hear() == {"READY": "1", "STATUS": "open, 3 viewers"}


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:1"}])
def test_without_systemd_nothing_happens(
    environ: dict[str, str], no_leaks: Callable[[], AbstractContextManager[None]]
) -> None:
    notifier = Notifier({**environ, "WATCHDOG_USEC": "1000000"})
    assert not notifier
    assert notifier.watchdog_s is None
    with no_leaks():
        watch = Watch(notifier, lambda: "closed", lambda: None)
        watch.start(ignore)
        assert "systemd" not in [thread.name for thread in threading.enumerate()]
        watch.stop("stopping")


def test_a_systemd_that_does_not_listen_is_no_harm(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "nobody")}).send(READY=1)
    assert "systemd could not be told READY" in caplog.text


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
def test_how_long_systemd_waits(environ: dict[str, str], expected_s: float | None) -> None:
    assert Notifier({"NOTIFY_SOCKET": "/run/notify", **environ}).watchdog_s == expected_s


def test_a_life_from_ready_to_stopping(
    listener: Listener, no_leaks: Callable[[], AbstractContextManager[None]]
) -> None:
    states = ["closed"]
    with no_leaks():
        watch = Watch(
            Notifier({"NOTIFY_SOCKET": listener.name, "WATCHDOG_USEC": "60000"}), lambda: states[-1], lambda: None
        )
        watch.start(ignore)
        assert listener.hear() == {"READY": "1", "STATUS": "closed"}
        listener.hear_until("WATCHDOG", "1")
        states.append("open, 1 viewer, 20.0 fps")
        listener.hear_until("STATUS", "open, 1 viewer, 20.0 fps")
        listener.hear_until("WATCHDOG", "1")
        watch.stop("the camera is missing")
        listener.hear_until("STOPPING", "1")


def test_no_ping_in_trouble_and_pings_again_after_it(listener: Listener, caplog: pytest.LogCaptureFixture) -> None:
    asked = threading.Semaphore(0)
    troubles: list[str | None] = ["the server does not answer"]

    def trouble() -> str | None:
        asked.release()
        return troubles[-1]

    watch = Watch(Notifier({"NOTIFY_SOCKET": listener.name, "WATCHDOG_USEC": "60000"}), lambda: "closed", trouble)
    watch.start(ignore)
    assert "READY" in listener.hear()
    assert listener.hear() == {"STATUS": "closed"}
    for _ in range(4):
        assert asked.acquire(timeout=PATIENCE_S)
    assert not listener.has_more()
    assert caplog.text.count("the server does not answer") == 1
    troubles.append(None)
    listener.hear_until("WATCHDOG", "1")
    watch.stop("stopping")
    listener.hear_until("STOPPING")


def test_no_ping_while_the_question_hangs(listener: Listener) -> None:
    asked, may_answer = threading.Event(), threading.Event()

    def trouble() -> None:
        asked.set()
        may_answer.wait(PATIENCE_S)

    watch = Watch(Notifier({"NOTIFY_SOCKET": listener.name, "WATCHDOG_USEC": "60000"}), lambda: "closed", trouble)
    watch.start(ignore)
    assert asked.wait(PATIENCE_S)
    assert "READY" in listener.hear()
    assert listener.hear() == {"STATUS": "closed"}
    assert not listener.has_more()
    may_answer.set()
    listener.hear_until("WATCHDOG", "1")
    watch.stop("stopping")
    listener.hear_until("STOPPING")


def test_a_watch_that_fails_is_told(listener: Listener) -> None:
    told: list[str] = []
    done = threading.Event()

    def trouble() -> None:
        raise ValueError("no idea")

    def die(reason: str) -> None:
        told.append(reason)
        done.set()

    Watch(Notifier({"NOTIFY_SOCKET": listener.name, "WATCHDOG_USEC": "60000"}), lambda: "closed", trouble).start(die)
    assert done.wait(PATIENCE_S)
    assert told == ["thread systemd died: ValueError: no idea"]


@pytest.mark.parametrize(
    ("level", "priority"),
    [(logging.DEBUG, 7), (logging.INFO, 6), (logging.WARNING, 4), (logging.ERROR, 3), (logging.CRITICAL, 3), (1, 7)],
)
def test_the_journal_learns_how_grave_each_line_is(level: int, priority: int) -> None:
    record = logging.LogRecord("softcam", level, __file__, 1, "first\nsecond %s", ("word",), None)
    assert JournalFormatter().format(record) == f"<{priority}>first\n<{priority}>second word"


def test_a_traceback_has_the_priority_on_each_line() -> None:
    try:
        raise ValueError("bad")
    except ValueError:
        record = logging.LogRecord("softcam", logging.ERROR, __file__, 1, "it failed", (), sys.exc_info())
    lines = JournalFormatter().format(record).splitlines()
    assert lines[0] == "<3>it failed"
    assert lines[-1] == "<3>ValueError: bad"
    assert [line for line in lines if not line.startswith("<3>")] == []


def test_only_the_stream_that_systemd_named_is_the_journal(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as stream:
        seen = os.fstat(stream.fileno())
        name = f"{seen.st_dev}:{seen.st_ino}"
        assert is_journal(stream, {"JOURNAL_STREAM": name})
        assert not is_journal(stream, {"JOURNAL_STREAM": "1:1"})
        assert not is_journal(stream, {})
    assert not is_journal(stream, {"JOURNAL_STREAM": name})
