"""Malformed requests and requests whose end is in doubt are rejected, and end the connection."""

import re
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest

from tests.support.raw_http import Handlers, Site

NoLeaks = Callable[[], AbstractContextManager[None]]


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"NONSENSE\r\n\r\n", 400),
        (b"GET / HTTP/1.1 more\r\n\r\n", 400),
        (b"GET / HTTP/one\r\n\r\n", 400),
        (b"GET / HTTP/1.1.1\r\n\r\n", 400),
        (b"GET /hello HTTP/2.0\r\n\r\n", 505),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (b"POST /hello\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n", 400),  # TLS
        (b"G\xc3T /hello HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"B" * 33 + b" /hello HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET /hello HTTP/1.1\r\n\r\n", 400),
        (b"GET /hello HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n", 400),
        (b"GET /hello HTTP/1.0\r\nHost: x\r\nHost: x\r\n\r\n", 400),
        (b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
        (b"GET /hello HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 70_000 + b"\r\n\r\n", 431),
        (b"GET /hello HTTP/1.1\r\nHost: x\r\n" + b"X: x\r\n" * 200 + b"\r\n", 431),
    ],
    ids=lambda value: repr(value[:40]) if isinstance(value, bytes) else str(value),
)
def test_malformed_request_is_rejected(site: Site, handlers: Handlers, request_: bytes, status: int) -> None:
    with site.client() as client:
        client.send(request_)
        reply = client.reply()
        assert reply.status == status
        assert re.match(r"(request line|header|method|Host): (every line )?must ", reply.detail), reply.detail
        assert reply.headers["Connection"] == "close"
        assert client.is_closed()
    assert handlers.requests == []


# Where two readers of one request might see two different ends of it, the connection ends (RFC 9112, 11.2).
SMUGGLED = b"GET /hello?smuggled HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize(
    ("header", "status", "detail"),
    [
        (b"Transfer-Encoding: chunked\r\n", 411, "Transfer-Encoding"),
        (b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", 411, "Transfer-Encoding"),
        (b"Content-Length: 5\r\nTransfer-Encoding: identity\r\n", 411, "Transfer-Encoding"),
        (b"Transfer-Encoding:\r\n chunked\r\n", 400, "NAME: VALUE"),
        (b"Content-Length: 5\r\nContent-Length: 6\r\n", 400, "once"),
        (b"Content-Length: 5\r\ncontent-length: 5\r\n", 400, "once"),
        (b"Content-Length: 5, 5\r\n", 400, "number of bytes"),
        (b"Content-Length: -1\r\n", 400, "number of bytes"),
        (b"Content-Length: +5\r\n", 400, "number of bytes"),
        (b"Content-Length: 0x5\r\n", 400, "number of bytes"),
        (b"Content-Length: 5 5\r\n", 400, "number of bytes"),
        (b"Content-Length: 5\r\n 5\r\n", 400, "NAME: VALUE"),
        (b"Content-Length: 1_0\r\n", 400, "number of bytes"),
        (b"Content-Length: \xb2\r\n", 400, "number of bytes"),
        (b"Content-Length: five\r\n", 400, "number of bytes"),
        (b"Content-Length:\r\n", 400, "number of bytes"),
        (b"Content-Length: 65537\r\n", 413, "at most 65536"),
        (b"Content-Length: " + b"9" * 5000 + b"\r\n", 413, "at most 65536"),
        (b"Content-Length : 5\r\n", 400, "NAME: VALUE"),
        (b"X\r\nContent-Length: 5\r\n", 400, "NAME: VALUE"),
        (b" X: 1\r\nContent-Length: 5\r\n", 400, "NAME: VALUE"),
        (b": x\r\nContent-Length: 5\r\n", 400, "NAME: VALUE"),
    ],
    ids=lambda value: repr(value[:60]) if isinstance(value, bytes) else None,
)
def test_ambiguous_length_is_rejected(site: Site, handlers: Handlers, header: bytes, status: int, detail: str) -> None:
    with site.client() as client:
        client.send(b"GET /hello HTTP/1.1\r\n" + header + b"Host: x\r\n\r\n" + SMUGGLED)
        reply = client.reply()
        assert (reply.status, reply.headers["Connection"]) == (status, "close")
        assert detail in reply.detail
        assert client.is_closed()
    assert handlers.requests == []


def test_large_body_receives_a_response(site: Site) -> None:
    """Closed at once, the connection would be reset under the client's hands, and the answer lost for many."""
    with site.client() as client:
        client.send(b"POST /post HTTP/1.1\r\nHost: x\r\nContent-Length: 500000\r\n\r\n")
        assert client.reply().status == 413
        for _ in range(10):
            client.send(b"x" * 50_000)
        assert client.socket.recv(1) == b""  # an end, no reset
