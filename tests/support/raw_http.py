"""A portal's server with routes of the test's own, and clients that speak to it in bytes."""

import contextlib
import json
import socket
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from email.message import Message
from typing import Any, Self

from softcam.web.http.auth import Access
from softcam.web.http.messages import Request, parse_target
from softcam.web.http.router import Route, Routes
from softcam.web.http.server import PortalServer
from tests.support.fakes import PATIENCE_S


@dataclass(frozen=True)
class Reply:
    """An answer as it came over the wire; header names as they were sent."""

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
        """The message of an error, which is all that an error says."""
        assert self.status >= 400
        assert list(self.json) == ["detail"]
        return str(self.json["detail"])


class Client:
    """One connection."""

    def __init__(self, address: tuple[Any, ...]) -> None:
        self.socket = socket.create_connection(address[:2], PATIENCE_S)
        self._buffer = b""

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
        """The next answer, and not a byte more."""
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
            assert received, f"the connection ended after {self._buffer!r}"
            self._buffer += received
        taken, self._buffer = self._buffer[:size], self._buffer[size:]
        return taken

    def is_closed(self) -> bool:
        """Waits for the end of the connection; nothing may come before it."""
        assert self._buffer == b""
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
        host: str = "127.0.0.1",
        max_clients: int = 8,
        idle_limit_s: float = PATIENCE_S,
        request_limit_s: float = PATIENCE_S,
    ) -> None:
        self.server = PortalServer(
            host,
            0,
            Routes(routes),
            Access(api_key),
            max_clients,
            idle_limit_s=idle_limit_s,
            request_limit_s=request_limit_s,
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
        """One request on a connection of its own."""
        with self.client() as client:
            return client.ask(target, method=method, headers=headers)


def make_request(target: str, *, method: str = "GET", headers: Mapping[str, str] | None = None) -> Request:
    """What the server would hand to a route."""
    message = Message()
    for name, value in (headers or {}).items():
        message[name] = value
    path, query = parse_target(target)
    return Request(method, path, query, message, "192.0.2.1")
