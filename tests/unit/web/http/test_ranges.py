"""Files over HTTP: ranges, conditions, and transfer to fast, slow and stalled clients."""

import os
import socket
import threading
import time
from collections.abc import Mapping
from email.utils import formatdate
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from softcam.web.http.messages import AnyResponse, FileResponse, HttpError, Request, Response
from softcam.web.http.ranges import file_response, requested_range
from softcam.web.http.router import Route
from tests.support.background import Background, eventually
from tests.support.raw_http import Client, Site, make_request
from tests.support.timeouts import PATIENCE_S

CONTENT = bytes(range(256)) * 40
LONG_AGO_S = 1_700_000_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "some.mp4"
    path.write_bytes(CONTENT)
    os.utime(path, (LONG_AGO_S, LONG_AGO_S))
    return path


def answer_for(path: Path, method: str = "GET", size: int | None = None, **headers: Any) -> Response | FileResponse:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = make_request("/some.mp4", method=method, headers=named)
    answer = file_response(request, path.open("rb"), path.stat().st_size if size is None else size, "video/mp4")
    assert isinstance(answer, Response | FileResponse)
    return answer


def sent(path: Path, **headers: Any) -> tuple[HTTPStatus, int, int]:
    """Status, first byte and number of bytes."""
    answer = answer_for(path, **headers)
    assert isinstance(answer, FileResponse)
    answer.file.close()
    return answer.status, answer.begin, answer.length


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("bytes=0-", (0, 1000)),
        ("bytes=0-0", (0, 1)),
        ("bytes=999-", (999, 1000)),
        ("bytes=10-19", (10, 20)),
        ("bytes=10-99999999999999999999999999", (10, 1000)),
        ("bytes=-1", (999, 1000)),
        ("bytes=-5000", (0, 1000)),
        ("Bytes = 1-2 ", (1, 3)),
        ("bytes=00000000000000000000000000000000005-6", (5, 7)),
    ],
)
def test_range_of_bytes(text: str, part: tuple[int, int]) -> None:
    assert requested_range(text, 1000) == part


@pytest.mark.parametrize(
    "text", ["", "bytes", "bytes=", "bytes=-", "bytes=2-1", "bytes=a-b", "items=0-1", "bytes=0-1,4-5", "bytes=0-1;x"]
)
def test_malformed_range_is_ignored(text: str) -> None:
    assert requested_range(text, 1000) is None


@pytest.mark.parametrize("text", ["bytes=1000-", "bytes=1000-1001", "bytes=-0", f"bytes={'9' * 5000}-"])
def test_range_beyond_the_end_is_rejected(text: str) -> None:
    with pytest.raises(HttpError) as raised:
        requested_range(text, 1000)
    assert raised.value.status == 416
    assert raised.value.headers == {"Content-Range": "bytes */1000"}


@given(st.one_of(st.text(max_size=30), st.from_regex(r"bytes=\d{0,25}-\d{0,25}", fullmatch=True)), st.integers(0, 3000))
@example("bytes=-", 0)
@example("bytes=²-³", 9)
def test_range_is_within_the_file_or_rejected(text: str, size: int) -> None:
    rejection: int | None = None
    part = None
    try:
        part = requested_range(text, size)
    except HttpError as error:
        rejection = error.status
    assert rejection in (None, 416)
    assert part is None or 0 <= part[0] < part[1] <= size


@given(st.integers(0, 300), st.integers(0, 300), st.integers(1, 200))
def test_range_matches_slice(first: int, last: int, size: int) -> None:
    content = bytes(range(size))
    try:
        part = requested_range(f"bytes={first}-{last}", size)
    except HttpError:
        assert not content[first : last + 1]
    else:
        assert (content if part is None else content[slice(*part)]) == (content[first : last + 1] or content)


def test_whole_file(path: Path) -> None:
    answer = answer_for(path)
    assert isinstance(answer, FileResponse)
    answer.file.close()
    assert (answer.status, answer.begin, answer.length) == (200, 0, len(CONTENT))
    assert answer.headers["Accept-Ranges"] == "bytes"
    assert answer.headers["Last-Modified"] == formatdate(LONG_AGO_S, usegmt=True)


def test_growing_file(path: Path) -> None:
    answer = answer_for(path, size=100, Range="bytes=50-")
    assert isinstance(answer, FileResponse)
    answer.file.close()
    assert (answer.begin, answer.length) == (50, 50)
    assert answer.headers["Content-Range"] == "bytes 50-99/100"
    assert answer.headers["ETag"] != answer_for_etag(path)


def answer_for_etag(path: Path) -> str:
    answer = answer_for(path)
    assert isinstance(answer, FileResponse)
    answer.file.close()
    return answer.headers["ETag"]


def test_conditions(path: Path) -> None:
    etag = answer_for_etag(path)
    then, before = formatdate(LONG_AGO_S, usegmt=True), formatdate(LONG_AGO_S - 1, usegmt=True)
    matching: tuple[dict[str, Any], ...] = (
        {"If_None_Match": etag},
        {"If_None_Match": f'"other", W/{etag}'},
        {"If_None_Match": "*"},
        {"If_Modified_Since": then},
    )
    for known in matching:
        answer = answer_for(path, **known)
        assert (answer.status, answer.headers["ETag"]) == (304, etag)
    for unknown in (
        {"If_None_Match": '"other"'},
        {"If_None_Match": '"other"', "If_Modified_Since": then},  # the first takes precedence
        {"If_Modified_Since": before},
        {"If_Modified_Since": "yesterday"},
        {"If_Modified_Since": "Mon, 01 Jan 0001 00:00:00 -2359"},
    ):
        assert sent(path, **unknown) == (200, 0, len(CONTENT))


def test_if_range(path: Path) -> None:
    etag = answer_for_etag(path)
    then = formatdate(LONG_AGO_S, usegmt=True)
    for fits in (etag, then):
        assert sent(path, Range="bytes=1-2", If_Range=fits) == (206, 1, 2)
    for differs in ('"other"', f"W/{etag}", formatdate(LONG_AGO_S + 1, usegmt=True), "yesterday"):
        assert sent(path, Range="bytes=1-2", If_Range=differs) == (200, 0, len(CONTENT))
    # Just written: it may change again within the same second.
    path.touch()
    assert sent(path, Range="bytes=1-2", If_Range=formatdate(path.stat().st_mtime, usegmt=True))[0] == 200


def test_file_is_closed(path: Path) -> None:
    file = path.open("rb")
    with pytest.raises(HttpError):
        file_response(make_request("/x", headers={"Range": "bytes=99999-"}), file, len(CONTENT), "video/mp4")
    assert file.closed
    file = path.open("rb")
    file_response(make_request("/x", headers={"If-None-Match": "*"}), file, len(CONTENT), "video/mp4")
    assert file.closed


# --- Over HTTP


class Shelf:
    """A server with one route that returns a file, and the files that it opened."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.given: list[FileResponse] = []

    def handle(self, request: Request) -> AnyResponse:
        answer = file_response(request, self.path.open("rb"), self.path.stat().st_size, "video/mp4")
        if isinstance(answer, FileResponse):
            self.given.append(answer)
        return answer

    def site(self, **options: float) -> Site:
        big = Route(("/big",), lambda _: Response(b"\0" * LARGE, "application/octet-stream"))
        return Site([Route(("/file",), self.handle), big], **options)  # type: ignore[arg-type]


LARGE = 24_000_000  # a DNG of the Camera Module 3


@pytest.fixture
def large(tmp_path: Path) -> Path:
    path = tmp_path / "large.mp4"
    with path.open("wb") as file:
        for number in range(LARGE // 4000):
            file.write(number.to_bytes(4, "big") * 1000)
    return path


@pytest.mark.parametrize(
    ("begin", "end"),
    [(0, 120), (0, 5), (0, 10), (3, 50), (10, 100), (40, 60), (90, 105), (100, 120), (110, 115), (119, 120)],
)
def test_head_and_tail(begin: int, end: int, path: Path) -> None:
    head, tail = b"H" * 10, b"T" * 20

    def handle(request: Request) -> AnyResponse:
        return file_response(request, path.open("rb"), 100, "video/mp4", head=head, tail=tail, modified_s=LONG_AGO_S)

    with Site([Route(("/file",), handle)]) as site:
        reply = site.ask("/file", headers={"Range": f"bytes={begin}-{end - 1}"})
        assert reply.headers["Content-Range"] == f"bytes {begin}-{end - 1}/120"
        assert reply.body == (head + CONTENT[10:100] + tail)[begin:end]
        etag = reply.headers["ETag"]
        os.utime(path, (LONG_AGO_S + 60, LONG_AGO_S + 60))  # the file grows
        assert site.ask("/file").headers["ETag"] == etag


def test_get_head_and_ranges_on_one_connection(path: Path) -> None:
    shelf = Shelf(path)
    with shelf.site() as site, site.client() as client:
        reply = client.ask("/file")
        assert (reply.status, reply.body) == (200, CONTENT)
        reply = client.ask("/file", method="HEAD", headers={"Range": "bytes=0-1"})
        assert (reply.status, reply.body, reply.headers["Content-Length"]) == (200, b"", str(len(CONTENT)))
        reply = client.ask("/file", headers={"Range": "bytes=-7"})
        assert (reply.status, reply.body) == (206, CONTENT[-7:])
        assert reply.headers["Content-Range"] == f"bytes {len(CONTENT) - 7}-{len(CONTENT) - 1}/{len(CONTENT)}"
        reply = client.ask("/file", headers={"Range": f"bytes={len(CONTENT)}-"})
        assert (reply.status, reply.headers["Content-Range"]) == (416, f"bytes */{len(CONTENT)}")
        reply = client.ask("/file", headers={"If-None-Match": "*"})
        assert (reply.status, reply.body) == (304, b"")
        assert "Content-Length" not in reply.headers
        eventually(lambda: all(part.file.closed for part in shelf.given))


def test_many_ranges_make_up_the_file(large: Path) -> None:
    content = large.read_bytes()
    with Shelf(large).site() as site, site.client() as client:
        got = b""
        while len(got) < LARGE:
            got += client.ask("/file", headers={"Range": f"bytes={len(got)}-{len(got) + 3_000_000}"}).body
    assert got == content


def slow_client(site: Site) -> Client:
    client = site.client()
    client.socket.close()
    client.socket = socket.socket()
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    client.socket.settimeout(PATIENCE_S)
    client.socket.connect(site.server.server_address[:2])
    return client


@pytest.mark.parametrize("target", ["/file", "/big"])
def test_slow_client_receives_everything(target: str, large: Path) -> None:
    """The whole transfer takes much longer than the timeout, but never stalls for that long."""
    limit_s = 0.4
    pause = threading.Event()
    with Shelf(large).site(idle_timeout_s=limit_s) as site:
        client = slow_client(site)
        client.send(f"GET {target} HTTP/1.1\r\nHost: camera\r\n\r\n".encode())
        began_s = time.monotonic()
        status, _, headers = client.reply_head()
        length = int(headers["Content-Length"])
        got = 0
        while time.monotonic() - began_s < 4 * limit_s:
            got += len(client.read(20_000))
            pause.wait(limit_s / 20)
        assert got < length / 2  # the client was slow
        while got < length:
            got += len(client.read(min(length - got, 1 << 20)))
        assert (status, got) == (200, length)


@pytest.mark.parametrize("target", ["/file", "/big"])
def test_stalled_client_is_disconnected(target: str, large: Path) -> None:
    shelf = Shelf(large)
    with shelf.site(idle_timeout_s=0.2) as site:
        client = slow_client(site)
        client.send(f"GET {target} HTTP/1.1\r\nHost: camera\r\n\r\n".encode())
        client.reply_head()
        eventually(lambda: not site.server.connections.answering, "the end of the answer")
        assert all(part.file.closed for part in shelf.given)


def test_slow_client_delays_no_other(large: Path) -> None:
    with Shelf(large).site() as site:
        slow = slow_client(site)
        slow.send(b"GET /file HTTP/1.1\r\nHost: camera\r\n\r\n")
        slow.reply_head()
        quick = Background(lambda: site.ask("/file"))
        assert len(quick.result().body) == LARGE
        assert site.server.connections.answering == 1  # the slow one, still


def test_truncated_file_ends_the_connection(path: Path) -> None:
    def handle(request: Request) -> AnyResponse:
        return file_response(request, path.open("rb"), len(CONTENT) + 10, "video/mp4")

    with Site([Route(("/file",), handle)]) as site, site.client() as client:
        client.send(b"GET /file HTTP/1.1\r\nHost: camera\r\n\r\n")
        _, _, headers = client.reply_head()
        assert headers["Content-Length"] == str(len(CONTENT) + 10)
        assert client.read(len(CONTENT)) == CONTENT
        assert client.is_closed()


def test_path_parameters() -> None:
    seen: list[Mapping[str, str]] = []

    def handle(request: Request) -> AnyResponse:
        seen.append(request.path_parameters)
        return Response(b"{}")

    routes = [Route(("/v1/things/{name}",), handle), Route(("/v1/things/{name}/part",), handle)]
    with Site([*routes, Route(("/v1/things/start",), handle, "POST")]) as site:
        assert site.ask("/v1/things/some.mp4").status == 200
        assert site.ask("/v1/things/..%2F..%2Fetc/part").status == 200
        assert site.ask("/v1/things/{name}").status == 200
        assert site.ask("/v1/things/a/b").status == 404
        assert site.ask("/v1/things/").status == 404
        reply = site.ask("/v1/things/x", method="DELETE")
        assert (reply.status, reply.headers["Allow"]) == (405, "GET, HEAD, OPTIONS")
        assert site.ask("/v1/things/start").status == 405  # literal paths precede placeholders
    assert seen == [{"name": "some.mp4"}, {"name": "../../etc"}, {"name": "{name}"}]
