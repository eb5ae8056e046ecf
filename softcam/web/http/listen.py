"""Binds the address of the portal, which may become available late, and logs it. Runs on the main thread."""

import errno
import ipaddress
import logging
import math
import socket
from collections.abc import Callable
from typing import Final, TypeVar

from softcam.errors import AddressNotReady, ConfigurationError, PortalError
from softcam.runtime.deadline import Deadline
from softcam.runtime.log_limit import RateLimitedLogger
from softcam.runtime.shutdown import ShutdownSignal

log = logging.getLogger(__name__)

# Errors that no waiting changes: a low port without permission, no IPv6 in this kernel, an invalid address.
_PERMANENT_BIND_ERRORS: Final = frozenset({errno.EACCES, errno.EPERM, errno.EAFNOSUPPORT, errno.EINVAL})
_BIND_CURES: Final = {
    errno.EADDRINUSE: "; stop the program that listens there, or set another {port}",
    errno.EACCES: "; ports below 1024 need a privilege: set another {port}",
    errno.EADDRNOTAVAIL: "; {host} must be an address of this machine",
}


Server = TypeVar("Server")


class StoppedWhileStarting(Exception):
    """A signal, which the message names, arrived before the portal was listening."""


def listen(
    make: Callable[[], Server],
    address: str,
    shutdown: ShutdownSignal,
    *,
    settings: tuple[str, str] = ("host", "port"),
    timeout_s: float = 5.0,
    interval_s: float = 0.25,
) -> Server:
    """Call `make` until it succeeds: the address may become available late. `settings` are those of its host and port.

    It may be that of the network at boot, or the port of an instance that is just exiting.

    Raises ConfigurationError where it never can be bound, AddressNotReady after `timeout_s`, StoppedWhileStarting.
    """
    host, port = (f"--{name.replace('_', '-')}" for name in settings)
    deadline = Deadline.after(timeout_s)
    first_error_log = RateLimitedLogger(log, math.inf)
    while True:
        try:
            return make()
        except UnicodeError as error:  # from a name that is invalid, such as `a..b`
            raise ConfigurationError([f"{address}: {error}"], settings=settings[:1]) from error
        except OSError as error:
            cure = _BIND_CURES.get(error.errno or 0, "").format(host=host, port=port)
            message = f"{address}: {error.strerror or error}{cure}"
            if error.errno in _PERMANENT_BIND_ERRORS and not isinstance(error, socket.gaierror):
                raise ConfigurationError([message], settings=settings) from error
            if deadline.is_expired:
                raise AddressNotReady(message) from error
        first_error_log.warning("%s; retrying for %.0f s", message, timeout_s)
        reason = shutdown.wait(interval_s)
        if isinstance(reason, PortalError):
            raise reason
        if reason is not None:
            raise StoppedWhileStarting(reason.name)


def log_listening(url: str, address: str, *, has_key: bool, can_change: bool = True) -> None:
    """Log where the portal listens, and a warning if other machines reach it without a key."""
    ip = ipaddress.ip_address(address)
    log.info("Listening on %s%s", url, f" and all other addresses of this machine ({ip})" if ip.is_unspecified else "")
    if not ip.is_loopback and not has_key:
        can, key = (
            ("watch and control", "CAMERA_API_KEY (or --api-key)") if can_change else ("watch", "CAMERA_VIEW_KEY")
        )
        log.warning(
            "No API key is set: everyone who reaches this address can %s the camera; "
            "set %s, or listen on 127.0.0.1 only",
            can,
            key,
        )
