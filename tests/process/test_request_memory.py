"""The memory that clients can fill: many of the largest requests at once, before and after the key is checked."""

import contextlib
import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

from softcam.web.http.request_head import MAX_HEAD_BYTES
from tests.conftest import Portal
from tests.support.background import eventually
from tests.support.raw_http import Client

Start = Callable[..., Portal]

CLIENTS = 64
BOUND_MB_PER_CLIENT = 0.25  # stated in docs/operating.md
KEY = "a-long-and-secret-key"
BODY = 65536


def peak_mb(portal: Portal) -> float:
    """The largest resident memory so far."""
    lines = Path(f"/proc/{portal.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))


def head(line: str, *fields: str) -> bytes:
    return "\r\n".join([f"{line} HTTP/1.1", "Host: x", *fields, "", ""]).encode()


def padded(request: bytes, size: int) -> bytes:
    """`request` with a header field that makes its head `size` bytes long."""
    filler = b"X-Filler: " + b"x" * (size - len(request) - 12) + b"\r\n"
    return request[:-2] + filler + b"\r\n"


def body_request(body: bytes, *fields: str) -> bytes:
    header = ("Content-Type: application/json", f"Content-Length: {len(body)}", *fields)
    return head("POST /v1/controls", *header) + body


def filled(start: str, item: str, separator: str, end: str) -> bytes:
    """JSON of nearly the largest size."""
    count = (BODY - len(start + end)) // len(item + separator)
    return (start + separator.join([item] * count) + end).encode()


KEY_FIELD = f"X-API-Key: {KEY}"
REQUESTS = {
    "header line": padded(head("GET /v1/status"), MAX_HEAD_BYTES)[:-2],
    "header lines": head("GET /v1/status", *(f"X-{number}: {'x' * 300}" for number in range(99)))[:-2],
    "too long header": padded(head("GET /v1/status"), 8 * MAX_HEAD_BYTES),
    "request line": head(f"GET /v1/status?{'x' * (MAX_HEAD_BYTES - 80)}")[:-2],
    "query": head(f"GET /v1/status?{'a&' * (MAX_HEAD_BYTES // 2 - 60)}", KEY_FIELD),
    "body without key": body_request(b"x" * BODY)[:-1],
    "body": body_request(b"x" * BODY, KEY_FIELD)[:-1],
    "numbers": body_request(filled("[", "0", ",", "]"), KEY_FIELD),
    "objects": body_request(filled("[", "{}", ",", "]"), KEY_FIELD),
    "nesting": body_request(b"[" * BODY, KEY_FIELD),
    "fields": body_request(json.dumps({str(number): 0 for number in range(5000)}).encode(), KEY_FIELD),
}


@contextlib.contextmanager
def connected(portal: Portal) -> Iterator[list[Client]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(Client(("127.0.0.1", urlsplit(portal.url).port))) for _ in range(CLIENTS)]


def test_largest_requests_at_once(start_portal: Start) -> None:
    """The requests are left incomplete where that makes the portal hold them; the others are answered."""
    portal = start_portal("--api-key", KEY)
    portal.wait_for_log("Listening")
    before = peak_mb(portal)
    for name, request in REQUESTS.items():
        with connected(portal) as clients:
            for client in clients:
                with contextlib.suppress(ConnectionError):
                    client.send(request)
            for client in clients:
                client.socket.shutdown(socket.SHUT_WR)
            for client in clients:
                with contextlib.suppress(ConnectionError):
                    assert 400 <= client.reply_head()[0] < 500
        grown = peak_mb(portal) - before
        print(f"{name}: {grown:.1f} MB more than at the start")
        assert grown < BOUND_MB_PER_CLIENT * CLIENTS, name
    eventually(lambda: len(portal.threads()) < 10)
