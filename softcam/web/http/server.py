"""The adapter to `http.server`: reads requests, writes answers, hands streams over. All sockets of requests are here.

A thread per connection parses, asks the routes and answers; a stream's socket is handed to the fan-out and its thread
ends, so viewers cost no threads. One place, `_answer`, makes every error into JSON.
"""

import contextlib
import errno
import io
import logging
import re
import socket
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from email import errors as defects
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Final

from softcam import __version__
from softcam.errors import CameraError, NotSupported
from softcam.web.http.auth import Access
from softcam.web.http.body import refuse_other_than_json
from softcam.web.http.connections import Connections, RequestReader
from softcam.web.http.messages import (
    FileResponse,
    HttpError,
    Request,
    Response,
    StreamingResponse,
    json_response,
    parse_target,
)
from softcam.web.http.router import Route, Routes
from softcam.web.http.sender import ResponseWriter

log = logging.getLogger(__name__)

# A connection that says nothing for so long between two requests is let go: each one that is open costs a thread.
_IDLE_LIMIT_S: Final = 20.0
# For a request, from its first byte (the first one of a connection: from its beginning) to the end of its body. All of
# it fits into a few packets: who takes longer is gone, or keeps our threads on purpose.
_REQUEST_LIMIT_S: Final = 10.0
_LARGEST_BODY: Final = 64 * 1024  # bytes; the largest request is a JSON object with a dozen numbers
_SPARE_THREADS: Final = 64  # beside those that many viewers need while they are being let in
# Beyond those who are answered: they read requests, answer /health, and say to all others that the portal is full.
_RESERVE_THREADS: Final = 8
_ROOM_LIMIT_S: Final = 0.5  # until the thread of a connection that was closed to make room has ended
_RETRY_AFTER_S: Final = 2
_COME_AGAIN: Final = {"Retry-After": str(_RETRY_AFTER_S)}
_BACKLOG: Final = 256  # a page reload by all viewers at once
_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_EXHAUSTED_PAUSE_S: Final = 0.5
# How much of a refused request is still read, and for how long, before the connection is closed.
_DRAIN_BYTES: Final = 1024 * 1024
_DRAIN_S: Final = 1.0
_LONGEST_NUMBER: Final = 18  # digits; int() itself refuses thousands
_METHOD: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}")  # RFC 9110, 9.1, and no longer than anybody has one
_LONGEST_DETAIL: Final = 200  # characters; http.server repeats the whole line that it did not like

# A header block that http.server could only read in part: what it took for the body may be headers to a proxy before us
# (RFC 9112, 5.1 and 11.2).
_MALFORMED: Final = (
    defects.MissingHeaderBodySeparatorDefect,
    defects.InvalidHeaderDefect,
    defects.FirstHeaderLineIsContinuationDefect,
    defects.MisplacedEnvelopeHeaderDefect,
)

_FULL_DETAIL: Final = b'{"detail": "too many connections at once"}\n'
# All that is said where no thread is left to read the request.
FULL: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nConnection: close\r\n"
    b"Retry-After: %d\r\nContent-Length: %d\r\n\r\n%s" % (_RETRY_AFTER_S, len(_FULL_DETAIL), _FULL_DETAIL)
)


# What a person sees who dismissed the browser's question for the key; programs get JSON.
_NOT_LET_IN: Final = b"""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="dark light"><title>Camera: a key is needed</title>
<h1>Nobody is let in without the key</h1>
<p>Load this page again, and give the camera's key as the password; any user name does.</p>
</html>
"""


class PortalServer(ThreadingHTTPServer):
    """Listens from construction on; `serve` answers until `stop`."""

    daemon_threads = True
    request_queue_size = _BACKLOG

    def __init__(
        self,
        host: str,
        port: int,
        routes: Routes,
        access: Access,
        max_clients: int,
        *,
        idle_limit_s: float = _IDLE_LIMIT_S,
        request_limit_s: float = _REQUEST_LIMIT_S,
    ) -> None:
        """Raises OSError when the address cannot be had."""
        self.routes = routes
        self.access = access
        self.idle_limit_s = idle_limit_s
        self.request_limit_s = request_limit_s
        self.connections = Connections()
        self.most_requests = max_clients + _SPARE_THREADS
        self._threads_left = threading.BoundedSemaphore(self.most_requests + _RESERVE_THREADS)
        self._is_stopping = threading.Event()
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        self.address_family = family
        super().__init__((str(address[0]), int(address[1])), _Handler)

    def server_bind(self) -> None:
        # HTTPServer would look up the host's full name here, which can take seconds without a name server.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    @property
    def url(self) -> str:
        """Where to reach it from this machine."""
        host = self.server_name
        if host in ("0.0.0.0", "::"):
            host = "127.0.0.1" if host == "0.0.0.0" else "::1"
        return f"http://[{host}]:{self.server_port}/" if ":" in host else f"http://{host}:{self.server_port}/"

    def serve(self) -> None:
        """Take connections until `stop`; sleeps without a timeout in between."""
        while not self._is_stopping.is_set():
            self.handle_request()

    def stop(self) -> None:
        """Take no more connections; `serve` returns. Requests under way end by themselves or with the process."""
        self._is_stopping.set()
        # Wakes the thread that waits for connections; close() alone would not.
        try:
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            log.debug("The listening socket was closed already")

    def wait_answered(self, deadline_s: float) -> bool:
        """Sleep until all requests that were read are answered; False when the deadline (monotonic clock) is first."""
        return self.connections.wait_answered(deadline_s)

    def get_request(self) -> tuple[Any, Any]:
        try:
            return super().get_request()
        except OSError as error:
            if error.errno in _EXHAUSTED:
                # The connection stays in the queue: without a pause this would be tried again at once, and for ever.
                log.warning("No connection can be taken: %s", error.strerror)
                self._is_stopping.wait(_EXHAUSTED_PAUSE_S)
            raise  # socketserver goes on

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._has_thread():
            log.warning("Too many connections at once: %s is sent away", client_address[0])
            try:
                request.settimeout(0)
                request.send(FULL)
            except OSError:
                pass
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # no more threads to be had
            self._threads_left.release()
            raise

    def _has_thread(self) -> bool:
        """Take a place for one more thread; where there is none, from the connection that waits longest."""
        if self._threads_left.acquire(blocking=False):
            return True
        return self.connections.close_oldest() and self._threads_left.acquire(timeout=_ROOM_LIMIT_S)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._threads_left.release()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - http.server's signature
        error = sys.exception()
        if isinstance(error, OSError):
            log.debug("Client %s left: %s", client_address[0], error)
        else:
            log.error("A request of %s failed", client_address[0], exc_info=error)


class _Handler(BaseHTTPRequestHandler):
    """One connection, on a thread of its own."""

    server: PortalServer
    protocol_version = "HTTP/1.1"
    server_version = f"SoftStream/{__version__}"
    sys_version = ""
    disable_nagle_algorithm = True
    command = ""  # until a request line was read
    path = ""
    _has_unread = False  # whether a part of the last request was left unread

    def setup(self) -> None:
        super().setup()
        self.rfile.close()
        self._reader = RequestReader(self.connection, self.server.idle_limit_s, self.server.request_limit_s)
        self.rfile = io.BufferedReader(self._reader)
        self.server.connections.wait(self.connection)

    def handle(self) -> None:
        try:
            super().handle()
        except ConnectionError as error:
            log.debug("Client %s left: %s", self.address_string(), error)

    def handle_one_request(self) -> None:
        super().handle_one_request()
        if not self.close_connection:
            self._reader.expect_next()
            self.server.connections.wait(self.connection)

    def finish(self) -> None:
        if self._has_unread:
            self._drain()
        self.server.connections.forget(self.connection)
        super().finish()

    def _drain(self) -> None:
        """Take what a refused client still sends: closed on unread bytes, the kernel resets the connection, and the
        client may lose the answer that says why (RFC 9112, 9.6)."""
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

    def _answer(self) -> None:
        path, query = parse_target(self.path)
        request = Request(self.command, path, query, self.headers, self.address_string())
        try:
            self._refuse_malformed()
            length = self._body_length()
            # Whoever is refused by the header alone is not waited for until the body is there.
            self._has_unread = length > 0
            route = None if self.command == "OPTIONS" else self._find(request, length)
            request = replace(request, body=self._read_body(length))
            self._has_unread = False
        except HttpError as error:
            self.close_connection |= self._has_unread
            self._write(self._refused(error))
            return
        if not self.server.connections.begin(self.connection):
            raise ConnectionAbortedError("closed to make room")
        try:
            self._answer_whole(route, request)
        finally:
            self.server.connections.end()

    def _answer_whole(self, route: Route | None, request: Request) -> None:
        try:
            if route is None:
                answer: Response | FileResponse | StreamingResponse = self._options(request)
            else:
                self._refuse_too_many(route)
                answer = route.handle(replace(request, parts=self.server.routes.parts(request.path)))
        except HttpError as error:
            answer = self._refused(error)
        except NotSupported as error:
            answer = json_response({"detail": str(error)}, HTTPStatus.CONFLICT)
        except CameraError as error:
            answer = json_response({"detail": str(error)}, HTTPStatus.SERVICE_UNAVAILABLE, _COME_AGAIN)
        except (ConnectionError, TimeoutError):
            raise  # the client left, or says nothing
        except Exception:
            log.exception("%s %r failed", self.command, request.path)
            answer = json_response({"detail": "the portal failed; its log says how"}, HTTPStatus.INTERNAL_SERVER_ERROR)
        if isinstance(answer, StreamingResponse):
            self._hand_over(answer)
        elif isinstance(answer, FileResponse):
            with answer.file:
                self._write_file(answer)
        else:
            self._write(answer)

    if not TYPE_CHECKING:  # for which every name would be there

        def __getattr__(self, name):
            # http.server looks do_METHOD up; which methods a path takes is the routes' business, whatever their names.
            if name.startswith("do_"):
                return self._answer
            raise AttributeError(name)

    def _refused(self, error: HttpError) -> Response:
        answer = _error_response(error)
        if error.status is HTTPStatus.UNAUTHORIZED and "text/html" in self.headers.get("Accept", ""):
            return replace(answer, body=_NOT_LET_IN, content_type="text/html; charset=utf-8")
        return answer

    def _refuse_too_many(self, route: Route) -> None:
        if not route.is_public and self.server.connections.answering > self.server.most_requests:
            self.close_connection = True
            raise HttpError(HTTPStatus.SERVICE_UNAVAILABLE, "too many requests at once", _COME_AGAIN)

    def _find(self, request: Request, length: int) -> Route:
        """The route of a request that may have it, by what its header says. Raises HttpError."""
        try:
            route = self.server.routes.find(request.method, request.path, request.query)
        except HttpError:
            self.server.access.check(self.headers)  # first: who lacks the key is not told what there is
            raise
        if not route.is_public:
            self.server.access.check(self.headers, is_change=route.is_change)
        if route.method != "GET":
            self.server.access.reject_cross_origin(self.headers)
            refuse_other_than_json(self.headers, length)
        return route

    def _options(self, request: Request) -> Response:
        """Preflight: another page may read, with a key in a header if it has one; it may change nothing."""
        allowed = ", ".join(self.server.routes.allowed(request.path))
        headers = {
            "Allow": allowed,
            "Access-Control-Allow-Origin": "*",
            "Access-Control-Allow-Methods": "GET, HEAD",
            "Access-Control-Allow-Headers": "Authorization, X-API-Key",
        }
        return Response(b"", status=HTTPStatus.NO_CONTENT, headers=headers)

    def _refuse_malformed(self) -> None:
        if any(isinstance(defect, _MALFORMED) for defect in self.headers.defects):
            raise self._refusal(HTTPStatus.BAD_REQUEST, "the header has a line that is not NAME: VALUE")
        if not _METHOD.fullmatch(self.command):
            raise self._refusal(HTTPStatus.BAD_REQUEST, "the method is none")
        hosts = len(self.headers.get_all("Host", []))
        if hosts > 1 or (hosts == 0 and self.request_version >= "HTTP/1.1"):  # RFC 9112, 3.2
            raise self._refusal(HTTPStatus.BAD_REQUEST, "Host: wants to be told once")

    def _body_length(self) -> int:
        """What the header says of the body, so that the next request is found behind it."""
        if "Transfer-Encoding" in self.headers:
            raise self._refusal(HTTPStatus.LENGTH_REQUIRED, "a body wants a Content-Length, and no Transfer-Encoding")
        lengths = [str(value).strip(" \t") for value in self.headers.get_all("Content-Length", ["0"])]
        if len(lengths) > 1:
            raise self._refusal(HTTPStatus.BAD_REQUEST, "Content-Length: wants to be told once")
        text = lengths[0]
        if not (text.isascii() and text.isdigit()):
            raise self._refusal(
                HTTPStatus.BAD_REQUEST, f"Content-Length {text[:_LONGEST_NUMBER]!r}: wants a number of bytes"
            )
        if len(text) > _LONGEST_NUMBER or int(text) > _LARGEST_BODY:
            raise self._refusal(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"Content-Length: at most {_LARGEST_BODY} bytes are taken"
            )
        return int(text)

    def _read_body(self, length: int) -> bytes:
        """What was sent, also where nobody wants it."""
        try:
            body = self.rfile.read(length)
        except TimeoutError as error:
            raise self._refusal(HTTPStatus.REQUEST_TIMEOUT, "the body did not come to its end in time") from error
        if len(body) < length:
            raise self._refusal(HTTPStatus.BAD_REQUEST, "the body is shorter than its Content-Length")
        return body

    def _refusal(self, status: HTTPStatus, detail: str) -> HttpError:
        """The answer to a request of which nobody knows where it ends: the connection cannot go on."""
        self.close_connection = True
        self._has_unread = True
        return HttpError(status, detail)

    def _write(self, answer: Response) -> None:
        headers = {"Content-Type": answer.content_type, "Content-Length": str(len(answer.body)), **answer.headers}
        if answer.status is HTTPStatus.NO_CONTENT:
            del headers["Content-Type"], headers["Content-Length"]
        elif not answer.body and (self.command == "HEAD" or answer.status is HTTPStatus.NOT_MODIFIED):
            # It would have to be that of the answer with a body, which nobody made (RFC 9110, 8.6).
            del headers["Content-Length"]
        body = answer.body if self.command != "HEAD" else b""
        ResponseWriter(self.connection, self.server.idle_limit_s).send(self._whole_header(answer.status, headers), body)
        self.log_request(answer.status, len(body))

    def _write_file(self, answer: FileResponse) -> None:
        headers = {"Content-Type": answer.content_type, "Content-Length": str(answer.length), **answer.headers}
        header = self._whole_header(answer.status, headers)
        sender = ResponseWriter(self.connection, self.server.idle_limit_s)
        if self.command == "HEAD":
            sender.send(header)
        else:
            sender.send_file(header, answer)
        self.log_request(answer.status, answer.length)

    def _whole_header(self, status: HTTPStatus, headers: Mapping[str, str]) -> bytes:
        """The header of an answer that has an end, and what it says about the connection."""
        if self.close_connection:
            return self._header(status, {**headers, "Connection": "close"})
        if self.request_version == "HTTP/1.0":
            # It asked to keep it, and waits for the end of the connection unless told.
            return self._header(status, {**headers, "Connection": "keep-alive"})
        return self._header(status, headers)

    def _hand_over(self, answer: StreamingResponse) -> None:
        self.close_connection = True
        self.connection.settimeout(self.server.idle_limit_s)
        headers = {"Content-Type": answer.content_type, **answer.headers, "Connection": "close"}
        try:
            self.wfile.write(self._header(HTTPStatus.OK, headers))
        except OSError:
            answer.give_up()
            raise
        self.log_request(HTTPStatus.OK)
        # Detached, not duplicated: when this thread ends, http.server shuts down the socket that it knows.
        answer.take(socket.socket(fileno=self.connection.detach()))

    def _header(self, status: HTTPStatus, headers: Mapping[str, str]) -> bytes:
        lines = [
            f"{self.protocol_version} {status.value} {status.phrase}",
            f"Server: {self.version_string()}",
            f"Date: {self.date_time_string()}",
            *(f"{name}: {value}" for name, value in headers.items()),
        ]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What `http.server` itself finds wrong with a request, in our shape; the connection ends."""
        status = HTTPStatus(code)
        self.close_connection = True
        self._has_unread = True
        self.command = self.command or ""  # http.server's is None when the request line could not be read
        detail = message or explain or status.phrase
        self._write(json_response({"detail": detail[:_LONGEST_DETAIL]}, status))

    def version_string(self) -> str:
        return self.server_version

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        # The target is left out of the log where it may bear a secret that somebody put into an address.
        log.debug("%s %r: %s, %s bytes", self.command, self.path.partition("?")[0], code, size)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is http.server's
        log.debug(format, *args)


def _error_response(error: HttpError) -> Response:
    return json_response({"detail": str(error)}, error.status, error.headers)
