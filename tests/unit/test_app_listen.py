"""The address that the portal listens on: what may come late, and what never comes."""

import errno
import signal
import socket
import time
from collections.abc import Callable
from typing import Any, cast

import pytest

from softcam import app
from softcam.errors import AddressNotReady, CameraStuck, ConfigurationError
from softcam.runtime.shutdown import ShutdownSignal
from softcam.web.http.server import PortalServer

SERVER = cast(PortalServer, object())
BUSY = OSError(errno.EADDRINUSE, "Address already in use")
LATE: list[OSError] = [
    BUSY,
    OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address"),
    socket.gaierror(socket.EAI_NONAME, "Name or service not known"),
    socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"),
]
NEVER: list[Exception] = [
    OSError(errno.EACCES, "Permission denied"),
    OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol"),
    UnicodeError("label empty or too long"),
]


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "_LISTEN_LIMIT_S", 0.05)
    monkeypatch.setattr(app, "_LISTEN_PAUSE_S", 0.01)


def failing(*errors: Exception) -> Callable[[], PortalServer]:
    """Fails with each of these in turn, and succeeds then."""
    left = list(errors)

    def make() -> PortalServer:
        if left:
            raise left.pop(0)
        return SERVER

    return make


def listen(make: Callable[[], PortalServer], ends: ShutdownSignal | None = None) -> Any:
    return app._listen(make, "host camera, port 1", ends or ShutdownSignal())


@pytest.mark.parametrize("error", LATE, ids=str)
def test_ok_an_address_that_comes_late(error: OSError, caplog: pytest.LogCaptureFixture) -> None:
    assert listen(failing(error, error)) is SERVER
    (record,) = caplog.records
    assert record.getMessage() == f"host camera, port 1: {error.strerror}; trying again for 0 s"


@pytest.mark.parametrize("error", LATE, ids=str)
def test_fail_an_address_that_does_not_come(error: OSError) -> None:
    began_s = time.monotonic()
    with pytest.raises(AddressNotReady, match=f"host camera, port 1: {error.strerror}") as caught:
        listen(failing(*[error] * 1000))
    assert caught.value.exit_code == 69
    assert time.monotonic() - began_s >= 0.05


@pytest.mark.parametrize("error", NEVER, ids=str)
def test_fail_an_address_that_never_comes(error: Exception) -> None:
    with pytest.raises(ConfigurationError, match="host camera, port 1: ") as caught:
        listen(failing(error))
    assert caught.value.exit_code == 78


def test_a_signal_ends_the_waiting() -> None:
    ends = ShutdownSignal()
    ends.request(signal.SIGTERM)
    with pytest.raises(app._StoppedEarly, match="SIGTERM"):
        listen(failing(BUSY), ends)


def test_a_part_that_dies_ends_the_waiting() -> None:
    ends = ShutdownSignal()
    ends.request(CameraStuck("thread camera crashed"))
    with pytest.raises(CameraStuck, match="died"):
        listen(failing(BUSY), ends)
