"""Request lines and headers: what is accepted, what is rejected and how, and how much is read of it."""

import io

import pytest

from softcam.web.http.messages import HttpError
from softcam.web.http.request_head import MAX_HEAD_BYTES, RequestHead, read_head
from tests.support.raw_http import Handlers, Site
from tests.support.request_corpus import RequestCase, request_cases

CASES = request_cases()


def read(request: bytes) -> RequestHead:
    head = read_head(io.BytesIO(request), lambda: None)
    assert head is not None
    return head


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_corpus(site: Site, handlers: Handlers, case: RequestCase) -> None:
    with site.client() as client:
        client.send(case.request)
        reply = client.reply()
        assert reply.status == case.status
        if case.status != 200:
            assert reply.detail == case.detail
            assert client.is_closed()
        elif "1.0" not in case.name:
            assert client.ask("/hello").status == 200  # nothing was left of the first one
    assert {request.path for request in handlers.requests} <= {"/hello"}


def test_corpus_has_both_kinds() -> None:
    assert sum(case.status == 200 for case in CASES) > 10
    assert sum(case.status != 200 for case in CASES) > 60


def test_values_without_their_blanks() -> None:
    head = read(b"GET /x HTTP/1.1\r\nHost:\t a b \t\r\nX:\r\nY: \xa0z\xa0\r\n\r\n")
    assert (head.method, head.target, head.version) == ("GET", "/x", "HTTP/1.1")
    assert head.headers.items() == [("Host", "a b"), ("X", ""), ("Y", "\xa0z\xa0")]


@pytest.mark.parametrize(
    ("version", "connection", "keeps"),
    [
        ("1.1", (), True),
        ("1.1", ("close",), False),
        ("1.1", ("Keep-Alive, CLOSE",), False),
        ("1.1", ("upgrade", "close"), False),
        ("1.0", (), False),
        ("1.0", ("keep-alive",), True),
        ("1.0", ("Upgrade, Keep-Alive",), True),
        ("1.0", ("keep-alive, close",), False),
    ],
)
def test_persistent_connection(version: str, connection: tuple[str, ...], keeps: bool) -> None:
    lines = [f"GET / HTTP/{version}", "Host: x", *(f"Connection: {value}" for value in connection), "", ""]
    assert read("\r\n".join(lines).encode()).keeps_connection is keeps


def test_only_http_1_1_awaits_continue() -> None:
    header = b"\r\nHost: x\r\nExpect: 100-Continue\r\n\r\n"
    assert read(b"POST / HTTP/1.1" + header).awaits_continue
    assert not read(b"POST / HTTP/1.0" + header).awaits_continue
    assert not read(b"POST / HTTP/1.1\r\nHost: x\r\n\r\n").awaits_continue


def fields(count: int, size: int) -> bytes:
    return b"".join(b"%04d: " % number + b"x" * (size - 8) + b"\r\n" for number in range(count))


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /" + b"x" * (MAX_HEAD_BYTES - 16) + b" HTTP/1.1\r\n", 431),  # as long as it may be, without room left
        (b"GET /" + b"x" * MAX_HEAD_BYTES, 414),
        (b"GET / HTTP/1.1\r\n" + fields(33, 1000), 431),
        (b"GET / HTTP/1.1\r\n" + fields(1, MAX_HEAD_BYTES), 431),
        (b"GET / HTTP/1.1\r\n" + fields(101, 20) + b"\r\n", 431),
    ],
)
def test_too_large(request_: bytes, status: int) -> None:
    """Rejected when the limit is reached, not when the client has sent everything."""
    file = io.BytesIO(request_ + b"x" * 10 * MAX_HEAD_BYTES)
    with pytest.raises(HttpError) as caught:
        read_head(file, lambda: None)
    assert caught.value.status == status
    assert file.tell() <= MAX_HEAD_BYTES + 1


def test_largest_head() -> None:
    assert len(read(b"GET / HTTP/1.1\r\n" + fields(32, 1000) + b"\r\n").headers) == 32
    assert len(read(b"GET / HTTP/1.1\r\n" + fields(100, 20) + b"\r\n").headers) == 100


@pytest.mark.parametrize("request_", [b"GET / HT", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nHost: x\r\n", b"G\r\nH"])
def test_incomplete_head_is_rejected(request_: bytes) -> None:
    with pytest.raises(HttpError, match=r"^(request line|header): must ") as caught:
        read_head(io.BytesIO(request_), lambda: None)
    assert caught.value.status == 400


@pytest.mark.parametrize("request_", [b"", b"\r\n", b"\r\n\n"])
def test_end_of_connection(request_: bytes) -> None:
    assert read_head(io.BytesIO(request_), lambda: None) is None
