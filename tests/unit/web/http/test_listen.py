"""The address to listen on: errors that are retried, errors that are not, and what is logged once it is bound."""

import errno
import logging
import signal
import socket
import time
from collections.abc import Callable
from typing import Any, cast

import pytest

from softcam.errors import AddressNotReady, CameraStuck, ConfigurationError, PortalError
from softcam.runtime.shutdown import ShutdownSignal
from softcam.web.http import listen as listening
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
    make: Callable[[], PortalServer],
    shutdown: ShutdownSignal | None = None,
    *,
    settings: tuple[str, str] = ("host", "port"),
    timeout_s: float = PATIENCE_S,
) -> Any:
    return listening.listen(
        make,
        "host camera, port 1",
        shutdown or ShutdownSignal(),
        settings=settings,
        timeout_s=timeout_s,
        interval_s=0.01,
    )


@pytest.mark.parametrize("error", LATE, ids=str)
def test_address_that_becomes_available(error: OSError, caplog: pytest.LogCaptureFixture) -> None:
    assert listen(failing(error, error)) is SERVER
    (record,) = caplog.records
    message = record.getMessage()
    assert message.startswith(f"host camera, port 1: {error.strerror}")
    assert message.endswith(f"; retrying for {PATIENCE_S:.0f} s")


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
    with pytest.raises(listening.StoppedWhileStarting, match="SIGTERM"):
        listen(failing(BUSY), shutdown)


def test_fatal_error_stops_retrying() -> None:
    shutdown = ShutdownSignal()
    shutdown.request(CameraStuck("thread camera crashed"))
    with pytest.raises(CameraStuck, match="crashed"):
        listen(failing(BUSY), shutdown)


@pytest.mark.parametrize(
    ("error", "cure"),
    [
        (BUSY, "Address already in use; stop the program that listens there, or set another --port"),
        (LATE[1], "Cannot assign requested address; --host must be an address of this machine"),
        (NEVER[0], "Permission denied; ports below 1024 need a privilege: set another --port"),
    ],
    ids=str,
)
def test_error_names_the_cure(error: OSError, cure: str) -> None:
    with pytest.raises(PortalError) as caught:
        listen(failing(*[error] * 1000), timeout_s=0.0)
    assert str(caught.value) == f"host camera, port 1: {cure}"


def test_error_names_the_flags_of_rtsp() -> None:
    for error, cure in ((BUSY, "set another --rtsp-port"), (LATE[1], "--rtsp-host must be an address of this machine")):
        with pytest.raises(PortalError, match=cure):
            listen(failing(*[error] * 1000), settings=("rtsp_host", "rtsp_port"), timeout_s=0.0)


@pytest.mark.parametrize(
    ("address", "has_key", "lines"),
    [
        ("127.0.0.1", False, ["Listening on URL"]),
        ("::1", False, ["Listening on URL"]),
        ("0.0.0.0", True, ["Listening on URL and all other addresses of this machine (0.0.0.0)"]),
        ("192.168.1.7", True, ["Listening on URL"]),
        ("192.168.1.7", False, ["Listening on URL", "No API key is set: "]),
        ("0.0.0.0", False, ["Listening on URL and all", "No API key is set: "]),
        ("::", False, ["Listening on URL and all", "No API key is set: "]),
    ],
)
def test_warning_without_a_key(address: str, has_key: bool, lines: list[str], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        listening.log_listening("URL", address, has_key=has_key)
    assert len(caplog.messages) == len(lines)
    assert all(message.startswith(line) for message, line in zip(caplog.messages, lines, strict=True))
    assert [record.levelname for record in caplog.records] == ["INFO", "WARNING"][: len(lines)]


def test_warning_for_a_server_that_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    listening.log_listening("URL", "0.0.0.0", has_key=False, can_change=False)
    assert "can watch the camera; set CAMERA_VIEW_KEY" in caplog.text
