"""How many connections, requests and streams there may be: of all clients together, and of those at one address.

Every connection costs a thread. Where none is free, a connection that waits for a request is closed for the new one.
"""

import logging
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http import HTTPStatus
from typing import Final

from softcam.runtime.deadline import Deadline
from softcam.runtime.log_limit import RateLimitedLogger
from softcam.runtime.shares import AddressShares
from softcam.web.http.connections import Connections
from softcam.web.http.errors import BUSY_RESPONSE, RETRY_SOON, busy_response
from softcam.web.http.messages import HttpError, Request

log = logging.getLogger(__name__)

_RETRY_LATER: Final = {"Retry-After": "5"}
_EVICTION_TIMEOUT_S: Final = 0.5  # for the thread of an evicted connection to end


class Places:
    """Counts the threads of connections. The accepting thread reserves a place, that of the connection releases it."""

    def __init__(self, connections: Connections, threads: int, max_per_address: int) -> None:
        self._connections = connections
        self._threads = threading.BoundedSemaphore(threads)
        self._shares = AddressShares(max_per_address)
        self._rejected_log = RateLimitedLogger(log)

    def reserve(self, address: str) -> bytes:
        """Reserve a place until `release`; if there is none, the response to the connection, else empty."""
        if not self._reserve_share(address):
            self._rejected_log.warning("Client %s rejected: it has %d connections", address, self._shares.limit)
            return busy_response(self._shares.reason("connections"))
        if not self._reserve_thread():
            self._shares.release(address)
            log.warning("Connection limit reached, rejecting %s", address)
            return BUSY_RESPONSE
        return b""

    def release(self, address: str) -> None:
        self._threads.release()
        self._shares.release(address)

    @contextmanager
    def request(self, request: Request, *, is_counted: bool) -> Iterator[None]:
        """While a request by a proxy is answered, it counts for the client; others count by their connection.

        Raises HttpError 503.
        """
        if not (request.is_local and is_counted):
            yield
            return
        if not self._shares.acquire(request.client):
            raise HttpError(HTTPStatus.SERVICE_UNAVAILABLE, self._shares.reason("requests"), RETRY_SOON)
        try:
            yield
        finally:
            self._shares.release(request.client)

    def _reserve_share(self, address: str) -> bool:
        """Count a connection for its address; if that has too many, evict the one of them that waits for longest."""
        if self._shares.acquire(address):
            return True
        return self._connections.close_oldest(address) and self._shares.acquire(address, _EVICTION_TIMEOUT_S)

    def _reserve_thread(self) -> bool:
        """Reserve a thread; if none is free, evict the connection that waits for longest."""
        if self._threads.acquire(blocking=False):
            return True
        return self._connections.close_oldest() and self._threads.acquire(timeout=_EVICTION_TIMEOUT_S)


class StreamPlaces:
    """The places of stream clients. Any thread may call."""

    def __init__(self, limit: int, max_per_address: int) -> None:
        self._limit = limit
        self._places = threading.BoundedSemaphore(limit)
        self._shares = AddressShares(max_per_address)

    @contextmanager
    def place(self, client: str | None, timeout_s: float = 0.0) -> Iterator[None]:
        """A place that counts for the address `client`; None for a stream of several clients.

        Raises HttpError 503 if there is none until the timeout.
        """
        deadline = Deadline.after(timeout_s)
        with ExitStack() as stack:
            if client is not None:
                if not self._shares.acquire(client, timeout_s):
                    raise HttpError(HTTPStatus.SERVICE_UNAVAILABLE, self._shares.reason("streams"), _RETRY_LATER)
                stack.callback(self._shares.release, client)
            if not self._places.acquire(timeout=deadline.remaining_s):
                reason = f"client limit reached ({self._limit}); disconnect a client, or raise --max-clients"
                raise HttpError(HTTPStatus.SERVICE_UNAVAILABLE, reason, _RETRY_LATER)
            stack.callback(self._places.release)
            yield
