"""A client of the RTSP server, before it has a session: its lease, and the response that it waits for.

Runs on the event loop.
"""

import contextlib
import ipaddress
import math
import secrets

from softcam.net.event_loop import Timer
from softcam.rtsp.server.connection import ClientConnection
from softcam.rtsp.server.requests import Request, Target
from softcam.rtsp.server.sessions import StreamLease
from softcam.rtsp.server.stream import RtpStream
from softcam.runtime.address import client_network


class Client:
    """A connection, and what is known of its client until there is a session."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.address = _plain_address(str(connection.peer[0]))
        self.network = client_network(self.address)  # what counts as one client
        self.server_address = _plain_address(str(connection.local[0]))  # that it is connected to
        self.number = secrets.randbits(31)  # the session ID in its descriptions
        self.is_authorized = False
        self._lease: StreamLease | None = None  # from DESCRIBE to SETUP
        self._described_s = 0.0  # when the last DESCRIBE was received
        self._description: tuple[Request, Target] | None = None  # a DESCRIBE that waits for the format
        self._timer: Timer | None = None  # of the response that it waits for

    def authorize(self) -> None:
        self.is_authorized = True

    def defer_response(self, timer: Timer) -> None:
        """The response to the current request follows later, when `timer` fires at the latest."""
        self.connection.defer_response()
        self._timer = timer

    def begin_description(self, lease: StreamLease, request: Request, target: Target, now_s: float) -> None:
        """A DESCRIBE of the stream that `lease` keeps open, also for the SETUP that follows."""
        self._lease, self._described_s = lease, now_s
        self._description = request, target

    def is_awaiting_description(self, stream: RtpStream) -> bool:
        return self._description is not None and self.has_lease(stream)

    def take_description(self) -> tuple[Request, Target] | None:
        """The DESCRIBE that waits, which gets its response now."""
        description, self._description = self._description, None
        if description is not None and self._timer is not None:
            self._timer.cancel()
        return description

    def has_lease(self, stream: RtpStream) -> bool:
        return self._lease is not None and self._lease.stream is stream

    def take_lease(self, stream: RtpStream) -> StreamLease | None:
        if not self.has_lease(stream):
            return None
        lease, self._lease = self._lease, None
        return lease

    def release_lease(self, described_before_s: float = math.inf) -> None:
        """Release the lease, if there is one and the last DESCRIBE was received before that moment."""
        if self._lease is not None and self._described_s < described_before_s:
            lease, self._lease = self._lease, None
            lease.release()

    def on_end(self) -> None:
        """The connection ends: no response follows."""
        self._description = None
        if self._timer is not None:
            self._timer.cancel()
        self.release_lease()


def _plain_address(host: str) -> str:
    """An IPv4 address that an IPv6 socket accepted, as IPv4."""
    with contextlib.suppress(ValueError):
        ip = ipaddress.ip_address(host.partition("%")[0])
        if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
            return str(ip.ipv4_mapped)
    return host
