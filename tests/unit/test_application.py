"""The address to listen on: errors that are retried, and errors that are not."""

import errno
import signal
import socket
import time
from collections.abc import Callable
from typing import Any, cast

import pytest

from softcam import application
from softcam.errors import AddressNotReady, CameraStuck, ConfigurationError
from softcam.runtime.shutdown import ShutdownSignal
from softcam.web.http.server import PortalServer
from tests.support.timeouts import PATIENCE_S

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


def failing(*errors: Exception) -> Callable[[], PortalServer]:
    """A factory that raises each of these errors once, and then succeeds."""
    remaining = list(errors)

    def make() -> PortalServer:
        if remaining:
            raise remaining.pop(0)
        return SERVER

    return make


def listen(
    make: Callable[[], PortalServer], shutdown: ShutdownSignal | None = None, *, timeout_s: float = PATIENCE_S
) -> Any:
    return application.listen(
        make, "host camera, port 1", shutdown or ShutdownSignal(), timeout_s=timeout_s, interval_s=0.01
    )


@pytest.mark.parametrize("error", LATE, ids=str)
def test_address_that_becomes_available(error: OSError, caplog: pytest.LogCaptureFixture) -> None:
    assert listen(failing(error, error)) is SERVER
    (record,) = caplog.records
    assert record.getMessage() == f"host camera, port 1: {error.strerror}; retrying for {PATIENCE_S:.0f} s"


@pytest.mark.parametrize("error", LATE, ids=str)
def test_address_that_stays_unavailable(error: OSError) -> None:
    started_s = time.monotonic()
    with pytest.raises(AddressNotReady, match=f"host camera, port 1: {error.strerror}") as caught:
        listen(failing(*[error] * 1000), timeout_s=0.05)
    assert caught.value.exit_code == 69
    assert time.monotonic() - started_s >= 0.05


@pytest.mark.parametrize("error", NEVER, ids=str)
def test_invalid_address_is_not_retried(error: Exception) -> None:
    with pytest.raises(ConfigurationError, match="host camera, port 1: ") as caught:
        listen(failing(error))
    assert caught.value.exit_code == 78


def test_signal_stops_retrying() -> None:
    shutdown = ShutdownSignal()
    shutdown.request(signal.SIGTERM)
    with pytest.raises(application.StoppedWhileStarting, match="SIGTERM"):
        listen(failing(BUSY), shutdown)


def test_fatal_error_stops_retrying() -> None:
    shutdown = ShutdownSignal()
    shutdown.request(CameraStuck("thread camera crashed"))
    with pytest.raises(CameraStuck, match="crashed"):
        listen(failing(BUSY), shutdown)
