"""`/v1/system/logs` and its stream, on a running server."""

import json
import logging
from collections.abc import Iterator
from http import HTTPStatus
from typing import Self

import pytest

from softcam.net.event_loop import EventLoop
from softcam.runtime.log.memory import LogMemory
from softcam.web.api.logs import live_logs
from softcam.web.api.openapi import describe
from tests.support.background import eventually, soon
from tests.support.raw_http import Client, Site

KEY, VIEW_KEY = "correct horse", "staple & more"
LOGS, STREAM = "/v1/system/logs", "/v1/system/logs/stream"


class Portal:
    """A log, the event loop and a server."""

    def __init__(self, memory: LogMemory, *, api_key: str | None = None, view_key: str | None = None) -> None:
        self.memory = memory
        self.crashes: list[str] = []
        self.loop = EventLoop("fan-out", self.crashes.append)
        self.api = live_logs(memory, self.loop, "camera-soft-cam@0")
        self.loop.start()
        self.site = Site(self.api.routes(), api_key=api_key, view_key=view_key)

    def log(self, *messages: str, level: int = logging.INFO) -> None:
        self.memory.append(1_700_000_000.1234, level, "softcam.test", "camera", messages)

    def listen(self, target: str = STREAM, version: str = "HTTP/1.1", **headers: str) -> "Events":
        """A client of the stream, after the header of the response and the first block."""
        client = self.site.client()
        lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        client.send("\r\n".join([f"GET {target} {version}", "Host: camera", *lines, "", ""]).encode("latin-1"))
        status, _, answered = client.reply_head()
        assert status == HTTPStatus.OK
        assert answered["Content-Type"] == "text/event-stream; charset=utf-8"
        assert answered["Cache-Control"] == "no-store"
        assert answered["X-Accel-Buffering"] == "no"
        assert "Access-Control-Allow-Origin" not in answered
        is_chunked = version == "HTTP/1.1"
        assert answered.get("Transfer-Encoding") == ("chunked" if is_chunked else None)
        events = Events(client, is_chunked=is_chunked)
        assert events.next().startswith("retry: 2000")
        return events

    def stop(self) -> None:
        self.loop.stop(soon())
        self.site.__exit__()
        assert self.crashes == []


class Events:
    """The blocks of an event stream, which arrive in chunks unless the client speaks HTTP/1.0."""

    def __init__(self, client: Client, *, is_chunked: bool = True) -> None:
        self._client = client
        self._is_chunked = is_chunked
        self._buffer = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        self._client.socket.close()

    def next(self) -> str:
        """The next block, without the empty line at its end."""
        while b"\n\n" not in self._buffer:
            self._buffer += self._chunk() if self._is_chunked else self._client.read(1)
        found, _, self._buffer = self._buffer.partition(b"\n\n")
        return found.decode()

    def _chunk(self) -> bytes:
        size = b""
        while not size.endswith(b"\r\n"):
            size += self._client.read(1)
        chunk = self._client.read(int(size, 16))
        assert self._client.read(2) == b"\r\n"
        return chunk


@pytest.fixture
def portal() -> Iterator[Portal]:
    portal = Portal(LogMemory())
    yield portal
    portal.stop()


@pytest.fixture
def locked() -> Iterator[Portal]:
    """With both keys."""
    portal = Portal(LogMemory(), api_key=KEY, view_key=VIEW_KEY)
    yield portal
    portal.stop()


# Lines


def test_response(portal: Portal) -> None:
    portal.log("Camera open")
    portal.log("Failed", "| Traceback", level=logging.ERROR)
    answer = portal.site.ask(LOGS)
    content = answer.json
    assert list(content) == ["status", "logs", "total_lines", "service", "entries", "run", "has_more"]
    assert content["status"] == "ok"
    assert [line.split(" ", 2)[2] for line in content["logs"]] == [
        "INFO Camera open",
        "ERROR Failed",
        "ERROR | Traceback",
    ]
    assert (content["total_lines"], content["service"]) == (3, "camera-soft-cam@0")
    assert (content["run"], content["has_more"]) == (1, False)
    assert content["entries"][0] == {
        "id": 1, "time": 1_700_000_000.123, "level": "INFO", "logger": "softcam.test", "thread": "camera",
        "message": "Camera open", "run": 1,
    }  # fmt: skip
    assert b'{"status":"ok","logs":[' in answer.body
    assert portal.site.ask("/system/logs").json == content
    assert portal.site.ask(LOGS, method="HEAD").status == HTTPStatus.OK


def test_only_for_pages_of_the_same_origin(portal: Portal) -> None:
    headers = portal.site.ask(LOGS).headers
    assert "Access-Control-Allow-Origin" not in headers
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "no-store"


def test_filters(portal: Portal) -> None:
    for number in range(1, 121):
        portal.log(f"Line {number}", level=logging.ERROR if number % 10 == 0 else logging.INFO)

    def numbers(query: str) -> list[int]:
        return [entry["id"] for entry in portal.site.ask(f"{LOGS}?{query}").json["entries"]]

    assert numbers("") == list(range(21, 121))
    assert numbers("lines=2") == [119, 120]
    assert numbers("level=error&lines=3") == numbers("level=ERROR&lines=3") == [100, 110, 120]
    assert numbers("level=") == numbers("level=DEBUG") == numbers("search=") == numbers("unknown=1")
    assert numbers("search=LINE%2012") == [12, 120]
    assert numbers("search=line+7&level=WARNING") == [70]
    assert numbers("lines=10000") == list(range(1, 121))
    page = portal.site.ask(f"{LOGS}?level=ERROR&lines=2&before=100").json
    assert [entry["id"] for entry in page["entries"]] == [80, 90]
    assert page["has_more"] is True
    assert portal.site.ask(f"{LOGS}?level=ERROR&lines=2&before=30").json["has_more"] is False


@pytest.mark.parametrize(
    ("query", "detail"),
    [
        ("lines=0", "lines: must be an integer from 1 to 10000"),
        ("lines=10001", "lines: must be an integer from 1 to 10000"),
        ("lines=many", "lines: must be an integer from 1 to 10000"),
        ("level=LOUD", "level: must be one of DEBUG, INFO, WARNING, ERROR, CRITICAL"),
        (f"search={'x' * 201}", "search: must be at most 200 characters"),
        ("before=0", "before: must be "),
        ("before=last", "before: must be "),
    ],
)
def test_invalid_values(portal: Portal, query: str, detail: str) -> None:
    answer = portal.site.ask(f"{LOGS}?{query}")
    assert answer.status == HTTPStatus.BAD_REQUEST
    assert answer.detail.startswith(detail)


@pytest.mark.parametrize("query", ["level=LOUD", "after=-1", "after=x", "format=xml", f"search={'x' * 201}"])
def test_invalid_values_of_the_stream(portal: Portal, query: str) -> None:
    answer = portal.site.ask(f"{STREAM}?{query}")
    assert answer.status == HTTPStatus.BAD_REQUEST
    assert answer.detail.startswith(f"{query.partition('=')[0]}: must be ")


# The stream


def test_new_lines(portal: Portal) -> None:
    portal.log("before")
    with portal.listen() as client, portal.listen("/system/logs/stream") as other:
        portal.log("Camera open")
        portal.log("Failed", level=logging.ERROR)
        for each in (client, other):
            number, data = each.next().split("\n")
            assert number == "id: 2"
            assert data.startswith("data: 20")
            assert data.endswith(" INFO Camera open")
            assert each.next().endswith(" ERROR Failed")


def test_client_without_chunks(portal: Portal) -> None:
    with portal.listen(version="HTTP/1.0") as client:
        portal.log("Camera open")
        assert client.next().endswith(" INFO Camera open")


def test_filters_of_the_stream(portal: Portal) -> None:
    with portal.listen(f"{STREAM}?level=WARNING&search=camera") as client:
        portal.log("Camera open")
        portal.log("Failed", level=logging.ERROR)
        portal.log("CAMERA failed", level=logging.ERROR)
        assert client.next().startswith("id: 3\n")


def test_entries_as_json(portal: Portal) -> None:
    with portal.listen(f"{STREAM}?format=json") as client:
        portal.log("Camera öpen")
        (entry,) = portal.site.ask(LOGS).json["entries"]
        assert json.loads(client.next().partition("data: ")[2]) == entry


def test_resumption(portal: Portal) -> None:
    portal.log(*(f"Line {number}" for number in range(1, 201)))
    for client in (
        portal.listen(Last_Event_ID="150"),
        portal.listen(f"{STREAM}?after=150"),
        portal.listen(f"{STREAM}?after=20", Last_Event_ID="150"),  # an address stays the same when a browser reconnects
    ):
        assert [client.next().partition("Line ")[2] for _ in range(50)] == [str(number) for number in range(151, 201)]
    with portal.listen(f"{STREAM}?after=0") as client:
        assert client.next().endswith("Line 1")


@pytest.mark.parametrize("number", ["nonsense", "-1", "1e3", "9" * 30, "²"])
def test_number_of_another_server(portal: Portal, number: str) -> None:
    portal.log("before")
    with portal.listen(Last_Event_ID=number) as client:
        portal.log("after")
        assert client.next().endswith("after")


@pytest.mark.parametrize(("base", "number"), [(0, "5000"), (10**12, "5000"), (10**12, str(10**12 - 1))])
def test_number_from_before_a_restart_without_memory(base: int, number: str) -> None:
    """Everything that there is has been missed."""
    memory = LogMemory(max_lines=10)
    memory.restore([], base)
    portal = Portal(memory)
    portal.log("first", "second")
    with portal.listen(Last_Event_ID=number) as client:
        assert client.next().endswith("first")
    portal.stop()


def test_number_from_before_a_restart_with_a_copy() -> None:
    """The next run continues with much higher numbers."""
    previous, memory = LogMemory(), LogMemory()
    previous.append(1_700_000_000.0, logging.INFO, "softcam.test", "camera", ["a", "b"])
    memory.restore(previous.newest(2)[0], 10**12)
    portal = Portal(memory)
    portal.log("first")
    for number, expected in (("1", "b"), ("2", "first"), ("300", "first")):
        with portal.listen(Last_Event_ID=number) as client:
            assert client.next().endswith(f" INFO {expected}")
    portal.stop()


def test_lost_lines_are_reported() -> None:
    portal = Portal(LogMemory(max_lines=10))
    portal.log(*(f"Line {number}" for number in range(1, 101)))
    kept = len(portal.memory.newest(100)[0])
    with portal.listen(Last_Event_ID="50") as client:
        assert client.next() == f"event: skipped\ndata: {50 - kept} lines skipped"
        assert client.next().endswith(f"Line {101 - kept}")
    with portal.listen(Last_Event_ID=str(99 - kept)) as client:
        assert client.next() == "event: skipped\ndata: 1 line skipped"
    portal.stop()


def test_kept_lines_and_a_gap() -> None:
    """A client that requests everything gets the kept lines, the number of lost ones, and all that follow."""
    portal = Portal(LogMemory(max_lines=100))
    portal.log(*(f"Line {number}" for number in range(1, 81)))
    portal.memory.keep_newest(max_lines=60)
    portal.log(*(f"Line {number}" for number in range(81, 301)))
    begin = 301 - (len(portal.memory.newest(1000)[0]) - 60)
    with portal.listen(f"{STREAM}?after=0") as client:
        assert [client.next().partition("Line ")[2] for _ in range(60)] == [str(number) for number in range(21, 81)]
        assert client.next() == f"event: skipped\ndata: {begin - 81} lines skipped"
        rest = [client.next().partition("Line ")[2] for _ in range(begin, 301)]
        assert rest == [str(number) for number in range(begin, 301)]
    portal.stop()


def test_share_of_an_address(portal: Portal) -> None:
    clients = [portal.listen(X_Real_IP="192.0.2.1") for _ in range(8)]
    answer = portal.site.ask(STREAM, headers={"X-Real-IP": "192.0.2.1"})
    assert answer.detail == "client limit of this stream reached (8 of this address); disconnect a client"
    portal.listen(X_Real_IP="192.0.2.2")
    clients[0].close()
    eventually(lambda: portal.api.shares.acquire("192.0.2.1"))
    portal.api.shares.release("192.0.2.1")
    portal.listen(X_Real_IP="192.0.2.1")


def test_limit_of_clients(portal: Portal) -> None:
    clients = [portal.listen() for _ in range(16)]
    answer = portal.site.ask(STREAM)
    assert answer.status == HTTPStatus.SERVICE_UNAVAILABLE
    assert answer.detail.startswith("client limit of this stream reached (16)")
    assert answer.headers["Retry-After"] == "5"
    assert portal.site.ask(STREAM, method="HEAD").status == HTTPStatus.OK
    assert portal.site.ask(LOGS).status == HTTPStatus.OK
    clients[0].close()
    eventually(lambda: portal.site.ask(STREAM, method="HEAD").status and portal.api.stream.client_count == 15)
    portal.listen()


def test_streams_use_no_thread(portal: Portal) -> None:
    from tests.support.raw_http import request_threads

    for _ in range(5):
        portal.listen()
    eventually(lambda: request_threads() == 0)


# Access


def test_full_key(locked: Portal) -> None:
    assert locked.site.ask(LOGS, headers={"X-API-Key": KEY}).status == HTTPStatus.OK
    locked.listen(STREAM, X_API_Key=KEY)


@pytest.mark.parametrize("target", [LOGS, "/system/logs", STREAM, "/system/logs/stream", f"{LOGS}/"])
def test_view_key_does_not_read_the_log(locked: Portal, target: str) -> None:
    locked.log("private")
    answer = locked.site.ask(target, headers={"X-API-Key": VIEW_KEY})
    assert answer.status == HTTPStatus.FORBIDDEN
    assert answer.detail == "this key is read-only: this address requires the key of CAMERA_API_KEY"
    for key in ("", "?key=correct%20horse", "?key=staple%20%26%20more"):
        assert locked.site.ask(f"{target}{key}").status == HTTPStatus.UNAUTHORIZED


def test_portal_with_a_view_key_alone() -> None:
    portal = Portal(LogMemory(), view_key=VIEW_KEY)
    assert portal.site.ask(LOGS, headers={"X-API-Key": VIEW_KEY}).status == HTTPStatus.FORBIDDEN
    portal.stop()


def test_description(portal: Portal) -> None:
    paths = describe(portal.api.routes(), has_key=True)["paths"]
    assert {*paths} == {LOGS, "/system/logs", STREAM, "/system/logs/stream"}
    operation = paths[LOGS]["get"]
    assert [each["name"] for each in operation["parameters"]] == ["lines", "level", "search", "before"]
    assert "403" in operation["responses"]
    schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
    portal.log("a line")
    content = portal.site.ask(LOGS).json
    assert {*schema["properties"]} == {*content}
    assert {*schema["properties"]["entries"]["items"]["properties"]} == {*content["entries"][0]}
