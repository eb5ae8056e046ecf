"""The adapter to `http.server`: reads requests, writes answers, hands streams over. All sockets of requests are here.

A thread per connection parses, asks the routes and answers; a stream's socket is handed to the fan-out and its thread
ends, so viewers cost no threads. One place, `_answer`, makes every error into JSON.
"""

import logging
import socket
import sys
import threading
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from softcam import __version__
from softcam.errors import CameraError, NotSupported
from softcam.web.access import Access
from softcam.web.messages import HandOver, HttpError, Request, Response, json_response, parse_target
from softcam.web.routes import Routes

log = logging.getLogger(__name__)

# A connection that says nothing for so long is let go: each one that is open costs a thread.
_IDLE_LIMIT_S: Final = 20.0
_LARGEST_BODY: Final = 64 * 1024  # bytes; the largest request is a JSON object with a dozen numbers
_SPARE_THREADS: Final = 64  # beside those that many viewers need while they are being let in
_RETRY_AFTER_S: Final = 2
_BACKLOG: Final = 256  # a page reload by all viewers at once

_FULL_DETAIL: Final = b'{"detail": "too many connections at once"}\n'
_FULL: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nConnection: close\r\n"
    b"Retry-After: %d\r\nContent-Length: %d\r\n\r\n%s" % (_RETRY_AFTER_S, len(_FULL_DETAIL), _FULL_DETAIL)
)


class PortalServer(ThreadingHTTPServer):
    """Listens from construction on; `serve` answers until `stop`."""

    daemon_threads = True
    request_queue_size = _BACKLOG

    def __init__(self, host: str, port: int, routes: Routes, access: Access, max_clients: int) -> None:
        """Raises OSError when the address cannot be had."""
        self.routes = routes
        self.access = access
        self._threads_left = threading.BoundedSemaphore(max_clients + _SPARE_THREADS)
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

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._threads_left.acquire(blocking=False):
            log.warning("Too many connections at once: %s is sent away", client_address[0])
            try:
                request.settimeout(0)
                request.send(_FULL)
            except OSError:
                pass
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # no more threads to be had
            self._threads_left.release()
            raise

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
    timeout = _IDLE_LIMIT_S
    disable_nagle_algorithm = True
    command = ""  # until a request line was read
    path = ""

    def handle(self) -> None:
        try:
            super().handle()
        except ConnectionError as error:
            log.debug("Client %s left: %s", self.address_string(), error)

    def _answer(self) -> None:
        path, query = parse_target(self.path)
        request = Request(self.command, path, query, self.headers, self.address_string())
        try:
            self._skip_body()
            if self.command == "OPTIONS":
                answer: Response | HandOver = self._options(request)
            else:
                route = self.server.routes.find(request.method, request.path, request.query)
                if not route.is_public:
                    self.server.access.check(self.headers)
                answer = route.handle(request)
        except HttpError as error:
            answer = json_response({"detail": str(error)}, error.status, error.headers)
        except NotSupported as error:
            answer = json_response({"detail": str(error)}, HTTPStatus.CONFLICT)
        except CameraError as error:
            answer = json_response(
                {"detail": str(error)}, HTTPStatus.SERVICE_UNAVAILABLE, {"Retry-After": str(_RETRY_AFTER_S)}
            )
        except (ConnectionError, TimeoutError):
            raise  # the client left, or says nothing
        except Exception:
            log.exception("%s %s failed", self.command, request.path)
            answer = json_response({"detail": "the portal failed; its log says how"}, HTTPStatus.INTERNAL_SERVER_ERROR)
        if isinstance(answer, HandOver):
            self._hand_over(answer)
        else:
            self._write(answer)

    # http.server looks these names up; which of them a path takes is the routes' business.
    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _answer  # noqa: N815

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

    def _skip_body(self) -> None:
        """No route takes a body yet; what was sent is read, so that the next request is found behind it."""
        if "Transfer-Encoding" in self.headers:
            self.close_connection = True
            raise HttpError(HTTPStatus.LENGTH_REQUIRED, "a body wants a Content-Length")
        text = self.headers.get("Content-Length", "0")
        if not (text.isascii() and text.isdigit()):
            self.close_connection = True
            raise HttpError(HTTPStatus.BAD_REQUEST, f"Content-Length {text!r}: wants a number of bytes")
        if int(text) > _LARGEST_BODY:
            self.close_connection = True
            raise HttpError(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a body of {text} bytes: at most {_LARGEST_BODY} are taken"
            )
        self.rfile.read(int(text))

    def _write(self, answer: Response) -> None:
        headers = {"Content-Type": answer.content_type, "Content-Length": str(len(answer.body)), **answer.headers}
        if answer.status is HTTPStatus.NO_CONTENT:
            del headers["Content-Type"], headers["Content-Length"]
        if self.close_connection:
            headers["Connection"] = "close"
        body = answer.body if self.command != "HEAD" else b""
        # In one write: a header that travels alone waits for the other side's acknowledgement.
        self.wfile.write(self._header(answer.status, headers) + body)
        self.log_request(answer.status, len(body))

    def _hand_over(self, answer: HandOver) -> None:
        self.close_connection = True
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
        self.command = self.command or ""  # http.server's is None when the request line could not be read
        self._write(json_response({"detail": message or explain or status.phrase}, status))

    def version_string(self) -> str:
        return self.server_version

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        # The target is left out of the log where it may bear a secret that somebody put into an address.
        log.debug("%s %s: %s, %s bytes", self.command, self.path.partition("?")[0], code, size)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is http.server's
        log.debug(format, *args)
