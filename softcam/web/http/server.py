"""The adapter to `http.server`: accepts connections, reads requests, writes responses, and detaches streams.

One thread per connection parses, authorizes, routes and answers. A stream's socket is handed over to the fan-out and
its thread ends, so stream clients use no threads.
"""

import contextlib
import errno
import io
import logging
import socket
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from email.message import Message
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from softcam import __version__
from softcam.runtime.address import reachable_host, url_host
from softcam.web.http.auth import AccessControl, TooManyWrongKeys, WrongKey
from softcam.web.http.body import body_length, require_json
from softcam.web.http.changes import ChangeLog
from softcam.web.http.connections import Connections, RequestReader
from softcam.web.http.cors import same_origin
from softcam.web.http.delayed import DelayedResponses
from softcam.web.http.errors import RETRY_SOON, error_response
from softcam.web.http.messages import (
    AnyResponse,
    FileResponse,
    HttpError,
    Request,
    Response,
    StreamingResponse,
    find_client,
    parse_target,
)
from softcam.web.http.places import Places
from softcam.web.http.request_head import RequestHead, read_head
from softcam.web.http.router import Route, Router
from softcam.web.http.sender import ResponseWriter

log = logging.getLogger(__name__)

# An idle connection is closed after this time: each open connection costs a thread.
_IDLE_TIMEOUT_S: Final = 20.0
# From the first byte of a request (for the first request, from accept) to the end of its body. A request fits into a
# few packets: a slower client is gone or occupies threads on purpose.
_REQUEST_TIMEOUT_S: Final = 10.0
_SPARE_THREADS: Final = 64  # in addition to those that `max_clients` streams need while they are being set up
# Above `max_requests`, these threads still read requests, answer /health, and reject the rest with 503.
_RESERVE_THREADS: Final = 8
_BACKLOG: Final = 256  # all clients reload the page at once
_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_EXHAUSTED_PAUSE_S: Final = 0.5
# How much of a rejected request is still read, and for how long, before the connection is closed.
_DRAIN_BYTES: Final = 1024 * 1024
_DRAIN_S: Final = 1.0
_TIMED_OUT: Final = HttpError(HTTPStatus.REQUEST_TIMEOUT, "request: must be complete in time; timed out reading it")


class PortalServer(ThreadingHTTPServer):
    """The listening socket and the threads of its connections. Listens once constructed; `serve` runs until `stop`."""

    daemon_threads = True
    request_queue_size = _BACKLOG

    def __init__(
        self,
        host: str,
        port: int,
        router: Router,
        access: AccessControl,
        max_clients: int,
        max_per_address: int,
        *,
        delayed: DelayedResponses | None = None,
        idle_timeout_s: float = _IDLE_TIMEOUT_S,
        request_timeout_s: float = _REQUEST_TIMEOUT_S,
        exhausted_pause_s: float = _EXHAUSTED_PAUSE_S,
    ) -> None:
        """`max_per_address` limits the connections of one address. Without `delayed`, responses to wrong keys are not
        delayed. Raises OSError if the address cannot be bound.
        """
        self.router = router
        self.access = access
        self.delayed = delayed
        self.idle_timeout_s = idle_timeout_s
        self.request_timeout_s = request_timeout_s
        self.connections = Connections()
        self.changes = ChangeLog()
        self.max_requests = max_clients + _SPARE_THREADS
        self._exhausted_pause_s = exhausted_pause_s
        self.places = Places(self.connections, self.max_requests + _RESERVE_THREADS, max_per_address)
        self._is_stopping = threading.Event()
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        self.address_family = family
        super().__init__((str(address[0]), int(address[1])), _Handler)

    def server_bind(self) -> None:
        # HTTPServer would resolve the host's full name here, which can take seconds without a name server.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    @property
    def url(self) -> str:
        """The portal's URL as seen from this machine."""
        return f"http://{url_host(reachable_host(self.server_name))}:{self.server_port}/"

    def serve(self) -> None:
        """Accept connections until `stop`; waits without a timeout in between."""
        while not self._is_stopping.is_set():
            self.handle_request()

    def stop(self) -> None:
        """Stop accepting; `serve` returns. Requests in progress end by themselves or with the process."""
        self._is_stopping.set()
        # Wakes the thread in accept(); close() alone would not.
        try:
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            log.debug("The listening socket was already closed")

    def get_request(self) -> tuple[Any, Any]:
        try:
            return super().get_request()
        except OSError as error:
            if error.errno in _EXHAUSTED:
                # The connection stays in the backlog: without a pause, accept() would fail in a busy loop.
                log.warning("Cannot accept connections: %s", error.strerror)
                self._is_stopping.wait(self._exhausted_pause_s)
            raise  # socketserver ignores it

    def process_request(self, request: Any, client_address: Any) -> None:
        address = client_address[0]
        if rejection := self.places.reserve(address):
            self._reject(request, rejection)
            return
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # the thread cannot be started
            self.places.release(address)
            raise

    def _reject(self, connection: socket.socket, response: bytes) -> None:
        """Respond to a connection without reading its request."""
        if self.delayed is not None and self.delayed.reject(connection, response):
            return
        with contextlib.suppress(OSError):
            connection.settimeout(0)
            connection.send(response)
        self.shutdown_request(connection)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.places.release(client_address[0])

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - http.server's signature
        error = sys.exception()
        if isinstance(error, OSError):
            log.debug("Client %s disconnected: %s", client_address[0], error)
        else:
            log.error("Request from %s failed", client_address[0], exc_info=error)


class _Handler(BaseHTTPRequestHandler):
    """One connection, on a dedicated thread."""

    server: PortalServer
    protocol_version = "HTTP/1.1"
    server_version = f"SoftStream/{__version__}"
    disable_nagle_algorithm = True
    command = path = request_version = ""  # until a request line was read
    _has_unread = False  # whether a part of the last request was not read
    _is_same_origin = False  # whether the response is for pages of the same origin only

    def setup(self) -> None:
        super().setup()
        self.rfile.close()
        server = self.server
        self._reader = RequestReader(
            self.connection, server.idle_timeout_s, server.request_timeout_s, server.changes.log_pending
        )
        self.rfile = io.BufferedReader(self._reader)
        self.server.connections.mark_waiting(self.connection, self.address_string())

    def handle_one_request(self) -> None:
        self.command = self.path = self.request_version = ""
        self.headers = Message()  # of the previous request
        self._is_same_origin = False
        self.close_connection = True  # unless the next request says otherwise
        try:
            head = read_head(self.rfile, self._reader.expect_next)
        except HttpError as error:
            self._reject(error)
        except TimeoutError:
            if self._reader.has_timed_out:
                self._reject(_TIMED_OUT)
        else:
            if head is not None:
                self._handle_request(head)
        if not self.close_connection:
            self._reader.expect_next()
            self.server.connections.mark_waiting(self.connection, self.address_string())

    def _reject(self, error: HttpError) -> None:
        """Answer a request whose end is unknown, and close the connection."""
        self._has_unread = self.close_connection = True
        with contextlib.suppress(OSError):
            self._send(self._error_response(error))

    def finish(self) -> None:
        if self._has_unread:
            self._drain()
        self.server.connections.remove(self.connection)
        self.server.changes.log_pending()
        super().finish()

    def _drain(self) -> None:
        """Read what a rejected client still sends: if the socket is closed with unread bytes, the kernel resets the
        connection and the client may lose the response (RFC 9112, 9.6)."""
        deadline_s = time.monotonic() + _DRAIN_S
        left = _DRAIN_BYTES
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
            while left > 0 and (left_s := deadline_s - time.monotonic()) > 0:
                self.connection.settimeout(left_s)
                received = len(self.connection.recv(65536))
                if not received:
                    return
                left -= received

    def _handle_request(self, head: RequestHead) -> None:
        self.command, self.path, self.request_version = head.method, head.target, head.version
        self.headers = head.headers
        self.close_connection = not head.keeps_connection
        self._has_unread = True  # as long as its end is unknown
        try:
            path, query = parse_target(self.path)
            client, is_local = find_client(self.address_string(), self.headers)
            request = Request(
                self.command, path, query, self.headers, client, version=self.request_version, is_local=is_local
            )
            length = body_length(self.request_version, self.headers)
            # A request that is rejected by its header alone is answered without waiting for its body, or asking for it.
            self._has_unread = length > 0
            route = None if self.command == "OPTIONS" else self._authorized_route(request, length)
            if length and head.awaits_continue:
                self.connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            body = self.rfile.read(length)  # also for a route that ignores it
            if len(body) < length:
                raise HttpError(HTTPStatus.BAD_REQUEST, "body: must be as long as its Content-Length")
            request = replace(request, body=body)
            self._has_unread = False
        except TimeoutError:
            self._reject(_TIMED_OUT)
            return
        except HttpError as error:
            delay_s = error.delay_s if isinstance(error, WrongKey) else 0.0
            self.close_connection |= self._has_unread or delay_s > 0 or isinstance(error, TooManyWrongKeys)
            response = self._error_response(error)
            if not (delay_s and self._send_later(response, delay_s)):
                self._send(response)
            return
        if not self.server.connections.start_response(self.connection):
            raise ConnectionAbortedError("evicted")
        try:
            with self.server.places.request(request, is_counted=route is not None and not route.is_public):
                self._send(self._dispatch(route, request))
        except HttpError as error:
            self._send(self._error_response(error))
        finally:
            self.server.connections.finish_response()

    def _authorized_route(self, request: Request, length: int) -> Route:
        """The route of a request that its header permits. Raises HttpError."""
        access = self.server.access
        try:
            route = self.server.router.find(request.method, request.path, request.query)
        except HttpError:
            access.authorize(self.headers, request.client)  # first: without a key, existing paths are not revealed
            raise
        self._is_same_origin = route.is_same_origin
        if not route.is_public:
            is_change = route.method != "GET" and not route.is_read_only
            key = request.query.get("key") if route.accepts_query_key else None
            access.authorize(
                self.headers, request.client, is_change=is_change, is_private=route.is_private, query_key=key
            )
        if route.method != "GET":
            access.reject_cross_origin(self.headers)
            require_json(self.headers, length)
        return route

    def _dispatch(self, route: Route | None, request: Request) -> AnyResponse:
        """The handler's response; an exception becomes an error response."""
        try:
            if route is None:
                preflight = self.server.access.allowed_origins.preflight(self.headers)
                headers = {"Allow": self.server.router.allowed(request.path), **preflight}
                return Response(b"", status=HTTPStatus.NO_CONTENT, headers=headers)
            if not route.is_public and self.server.connections.answering > self.server.max_requests:
                self.close_connection = True
                raise HttpError(HTTPStatus.SERVICE_UNAVAILABLE, "too many requests at once", RETRY_SOON)
            parameters = self.server.router.path_parameters(request.path)
            response = route.handle(replace(request, path_parameters=parameters))
            if route.method != "GET" and not route.is_read_only:
                self.server.changes.log_change(request, is_repeated=route.is_repeated)
            return response
        except Exception as error:
            response = self._error_response(error)
            if response.status is HTTPStatus.INTERNAL_SERVER_ERROR:
                log.exception("%s %r failed", self.command, request.path)
            return response

    def _error_response(self, error: Exception) -> Response:
        return error_response(error, accepts_html="text/html" in self.headers.get("Accept", ""))

    def _send(self, response: AnyResponse) -> None:
        if isinstance(response, StreamingResponse):
            self._detach(response)
        elif isinstance(response, FileResponse):
            with response.file:
                self._write(response, response, response.length)
        else:
            self._write(response, response.body, len(response.body))

    def _send_later(self, response: Response, delay_s: float) -> bool:
        """Pass the response to a wrong key on to the event loop; this thread ends. False if too many are waiting."""
        delayed = self.server.delayed
        if delayed is None or not delayed.reserve():
            return False
        self._has_unread = False
        self.server.connections.remove(self.connection)
        body = b"" if self.command == "HEAD" else response.body
        content = self._head(response, bool(body), len(response.body)) + body
        self.log_request(response.status)
        delayed.send_later(socket.socket(fileno=self.connection.detach()), content, delay_s)
        return True

    def _write(self, response: Response | FileResponse, body: bytes | FileResponse, length: int) -> None:
        header = self._head(response, bool(body), length)
        if self.command == "HEAD":
            body, length = b"", 0
        writer = ResponseWriter(self.connection, self.server.idle_timeout_s)
        writer.send(header, body)
        self.log_request(response.status, length)

    def _head(self, response: Response | FileResponse, has_body: bool, length: int) -> bytes:
        """The status line and the header of a response."""
        headers = {"Content-Type": response.content_type, "Content-Length": str(length), **response.headers}
        if response.status is HTTPStatus.NO_CONTENT:
            del headers["Content-Type"], headers["Content-Length"]
        elif not has_body and (self.command == "HEAD" or response.status is HTTPStatus.NOT_MODIFIED):
            # It would have to be the length of the response to GET, which was not made (RFC 9110, 8.6).
            del headers["Content-Length"]
        if self.close_connection:
            headers["Connection"] = "close"
        elif self.request_version == "HTTP/1.0":
            # The client requested keep-alive; without the header it would wait for the connection to close.
            headers["Connection"] = "keep-alive"
        return self._header(response.status, headers)

    def _detach(self, response: StreamingResponse) -> None:
        """Send the header of a stream, then pass its socket on; this thread ends."""
        self.close_connection = True
        self.connection.settimeout(self.server.idle_timeout_s)
        headers = {"Content-Type": response.content_type, **response.headers, "Connection": "close"}
        try:
            self.wfile.write(self._header(HTTPStatus.OK, headers))
        except OSError:
            response.cancel()
            raise
        self.log_request(HTTPStatus.OK)
        # Detached, not duplicated: when this thread ends, http.server shuts down the socket that it knows.
        response.start(socket.socket(fileno=self.connection.detach()))

    def _header(self, status: HTTPStatus, headers: Mapping[str, str]) -> bytes:
        if self._is_same_origin:
            headers = same_origin(headers)
        headers = self.server.access.allowed_origins.complete(headers, self.headers)
        lines = [
            f"{self.protocol_version} {status.value} {status.phrase}",
            f"Server: {self.server_version}",
            f"Date: {self.date_time_string()}",
            *(f"{name}: {value}" for name, value in headers.items()),
        ]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        # Without the query, which may contain a key.
        log.debug("%s %r: %s, %s bytes", self.command, self.path.partition("?")[0], code, size)
