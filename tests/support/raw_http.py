"""A running server with the routes of a test, handlers for it, and clients that send bytes."""

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from email.message import Message
from http import HTTPStatus
from typing import Any, Self

from softcam.errors import CameraBusy, NoPicture, NotSupported
from softcam.net.key_brake import CheckKey, check_without_brake
from softcam.web.http.auth import AccessControl
from softcam.web.http.cors import AllowedOrigins
from softcam.web.http.csrf import CsrfGuard
from softcam.web.http.delayed import DelayedResponses
from softcam.web.http.messages import (
    AnyResponse,
    HttpError,
    Request,
    Response,
    StreamingResponse,
    json_response,
    parse_target,
)
from softcam.web.http.router import Route, Router
from softcam.web.http.server import PortalServer
from tests.support.timeouts import PATIENCE_S


@dataclass(frozen=True)
class Reply:
    """A response as received; header names as sent."""

    status: int
    reason: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        assert self.headers["Content-Type"] == "application/json"
        return json.loads(self.body)

    @property
    def detail(self) -> str:
        """The message of an error, its only field."""
        assert self.status >= 400
        assert list(self.json) == ["detail"]
        return str(self.json["detail"])


class Client:
    """One connection."""

    def __init__(self, address: tuple[Any, ...]) -> None:
        self.socket = socket.create_connection(address[:2], PATIENCE_S)
        self._buffer = bytearray()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.socket.close()

    def send(self, request: bytes) -> None:
        self.socket.sendall(request)

    def ask(self, target: str, *, method: str = "GET", headers: Mapping[str, str] | None = None) -> Reply:
        lines = [f"{method} {target} HTTP/1.1", "Host: camera"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        self.send(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
        return self.reply(method)

    def reply(self, method: str = "GET") -> Reply:
        """Read the next response, and not a byte more."""
        status, reason, headers = self.reply_head()
        has_body = method != "HEAD" and status not in (204, 304)
        body = self.read(int(headers["Content-Length"])) if has_body else b""
        return Reply(status, reason, headers, body)

    def reply_head(self) -> tuple[int, str, dict[str, str]]:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += self.read(1)
        status_line, *lines = head.decode("latin-1").split("\r\n")[:-2]
        version, status, reason = status_line.split(" ", 2)
        assert version == "HTTP/1.1"
        headers = [tuple(line.split(": ", 1)) for line in lines]
        assert len({name.lower() for name, _ in headers}) == len(headers), "a header was sent twice"
        return int(status), reason, dict(headers)  # type: ignore[arg-type]

    def read(self, size: int) -> bytes:
        while len(self._buffer) < size:
            received = self.socket.recv(65536)
            assert received, f"the connection ended after {bytes(self._buffer)!r}"
            self._buffer += received
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken

    def is_closed(self) -> bool:
        """Wait for the end of the connection; nothing may precede it."""
        assert not self._buffer
        with contextlib.suppress(ConnectionResetError):
            return self.socket.recv(1) == b""
        return True


class Site:
    """A running server; leaving the block stops it."""

    def __init__(
        self,
        routes: Iterable[Route],
        *,
        api_key: str | None = None,
        view_key: str | None = None,
        allowed_origins: Iterable[str] = (),
        host: str = "127.0.0.1",
        max_clients: int = 8,
        idle_timeout_s: float = PATIENCE_S,
        request_timeout_s: float = PATIENCE_S,
        exhausted_pause_s: float = 0.5,
        check_key: CheckKey = check_without_brake,
        delayed: DelayedResponses | None = None,
        max_per_address: int = 8,
    ) -> None:
        csrf = CsrfGuard(allowed_origins=AllowedOrigins(frozenset(allowed_origins)))
        self.server = PortalServer(
            host,
            0,
            Router(routes),
            AccessControl(api_key, view_key, csrf, check_key),
            max_clients,
            max_per_address,
            delayed=delayed,
            idle_timeout_s=idle_timeout_s,
            request_timeout_s=request_timeout_s,
            exhausted_pause_s=exhausted_pause_s,
        )
        self._clients: list[Client] = []
        self.thread = threading.Thread(target=self.server.serve, name="test server", daemon=True)
        self.thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        for client in self._clients:
            client.socket.close()
        self.stop()

    def stop(self) -> None:
        self.server.stop()
        self.thread.join(PATIENCE_S)
        assert not self.thread.is_alive()
        self.server.server_close()

    def client(self) -> Client:
        client = Client(self.server.server_address)
        self._clients.append(client)
        return client

    def ask(self, target: str, *, method: str = "GET", headers: Mapping[str, str] | None = None) -> Reply:
        """One request on a new connection."""
        with self.client() as client:
            return client.ask(target, method=method, headers=headers)


def make_request(
    target: str, *, method: str = "GET", headers: Mapping[str, str] | None = None, is_local: bool = False
) -> Request:
    """The request that the server would pass to a route."""
    message = Message()
    for name, value in (headers or {}).items():
        message[name] = value
    path, query = parse_target(target)
    return Request(method, path, query, message, "192.0.2.1", is_local=is_local)


class Handlers:
    """Handlers that record requests, detached sockets of streams and cancelled streams."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.detached: list[socket.socket] = []
        self.cancelled = 0
        self.gate = threading.Event()
        self.inside = threading.Semaphore(0)

    def routes(self) -> list[Route]:
        return [
            Route(("/hello", "/bonjour"), self.hello),
            Route(("/large",), lambda _: Response(b"x" * 3_000_000, "text/plain")),
            Route(("/empty",), lambda _: Response(b"", "text/plain")),
            Route(("/unchanged",), lambda _: Response(b"", "text/html", HTTPStatus.NOT_MODIFIED, {"ETag": '"1"'})),
            Route(("/stream",), self.stream),
            Route(("/wait",), self.wait),
            Route(("/public",), self.hello, is_public=True),
            Route(("/post",), self.hello, method="POST"),
            *(Route((f"/raise/{name}",), self.fail(error)) for name, error in ERRORS.items()),
        ]

    def hello(self, request: Request) -> AnyResponse:
        self.requests.append(request)
        return json_response({"path": request.path, "query": request.query, "client": request.client})

    def stream(self, request: Request) -> AnyResponse:
        self.requests.append(request)
        return StreamingResponse(
            self.detached.append, self.cancel, "multipart/x-mixed-replace;boundary=frame", {"X-Test": "1"}
        )

    def wait(self, request: Request) -> AnyResponse:
        self.inside.release()
        assert self.gate.wait(PATIENCE_S)
        return self.hello(request)

    def cancel(self) -> None:
        self.cancelled += 1

    @staticmethod
    def fail(error: Exception) -> Callable[[Request], AnyResponse]:
        def handle(_request: Request) -> AnyResponse:
            raise type(error)(*error.args) if not isinstance(error, HttpError) else error

        return handle


ERRORS = {
    "bug": ZeroDivisionError("a secret of ours"),
    "value": ValueError("not for the world"),
    "reset": ConnectionResetError("of another connection than the client's"),
    "late": TimeoutError("of another wait than for the client"),
    "busy": CameraBusy("another program has the camera"),
    "none": NoPicture("no frame from the camera in time"),
    "unable": NotSupported("this camera has no autofocus"),
    "http": HttpError(HTTPStatus.CONFLICT, "hdr: camera must be closed", {"Retry-After": "7"}),
}


def request_threads() -> int:
    """The number of threads that serve connections."""
    return sum("process_request_thread" in thread.name for thread in threading.enumerate())
