"""`Application`: what has started stops, whatever else fails."""

import socket
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest

from softcam.application import Application
from softcam.config.loader import load
from softcam.h264.encoder import VideoEncoder
from softcam.runtime.deadline import Deadline
from softcam.runtime.log.memory import LogMemory
from softcam.runtime.shutdown import ShutdownSignal
from softcam.streaming.mjpeg import MjpegStream
from tests.support.timeouts import PATIENCE_S

NoLeaks = Callable[..., AbstractContextManager[None]]


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def make(port: int, shutdown: ShutdownSignal) -> Application:
    return Application(load(["--camera", "pattern", "--port", str(port)], {}), shutdown, LogMemory())


def fail(*_: object) -> None:
    raise RuntimeError("can't start new thread")


def test_failed_start_is_undone(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MjpegStream, "start", fail)
    before = set(threading.enumerate())
    application = make(port, ShutdownSignal())
    with pytest.raises(RuntimeError, match="can't start"):
        application.start()
    assert [thread.name for thread in threading.enumerate() if thread not in before] == ["camera"]
    assert application.stop(Deadline.after(PATIENCE_S))
    assert set(threading.enumerate()) == before
    socket.create_server(("127.0.0.1", port)).close()


def test_component_that_fails_to_stop(
    port: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, no_leaks: NoLeaks
) -> None:
    monkeypatch.setattr(VideoEncoder, "stop", fail)
    shutdown = ShutdownSignal()
    with no_leaks():
        application = make(port, shutdown)
        application.start()
        assert not application.stop(Deadline.after(PATIENCE_S))
    assert "Component failed to stop" in caplog.text
    assert "can't start new thread" in caplog.text
