"""The log of accepted changes."""

import logging
from dataclasses import replace

import pytest

from softcam.web.http.changes import ChangeLog
from softcam.web.http.messages import Request, Response, json_response
from softcam.web.http.router import Route
from tests.support.background import eventually
from tests.support.raw_http import Client, Site, make_request

JSON = {"Content-Type": "application/json"}


def accept(request: Request) -> Response:
    if request.path == "/rejected":
        raise ValueError
    return json_response({})


ROUTES = (
    Route(("/set", "/rejected"), accept, "POST"),
    Route(("/set",), accept, "DELETE"),
    Route(("/slide",), accept, "POST", is_repeated=True),
    Route(("/read",), accept, "POST", is_read_only=True),
    Route(("/get",), accept),
)


def make_change(path: str, body: bytes = b"") -> Request:
    return replace(make_request(path, method="POST"), body=body)


def send(client: Client, method: str, path: str, body: bytes = b"", header: str = "") -> None:
    length = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n{header}"
    client.send(f"{method} {path} HTTP/1.1\r\nHost: x\r\n{length}\r\n".encode() + body)
    client.reply()


def test_accepted_changes_are_logged_with_the_client(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), Site(ROUTES) as site, site.client() as client:
        send(client, "POST", "/set?key=secret", b'{"x": 1,\r\n "y": 2}')
        send(client, "DELETE", "/set", header="X-Real-IP: 192.168.1.7\r\n")  # a proxy on this machine
        for path in ("/rejected", "/read", "/nothing", "/get"):
            send(client, "POST", path)
        client.ask("/get")
    lines = [record.getMessage() for record in caplog.records if record.levelno == logging.INFO]
    assert lines == [
        'Client 127.0.0.1 made a change: POST /set {"x": 1, "y": 2}',
        "Client 192.168.1.7 made a change: DELETE /set",
    ]


def test_invalid_address_of_a_proxy_is_ignored(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), Site(ROUTES) as site, site.client() as client:
        send(client, "DELETE", "/set", header="X-Real-IP: nobody\r\n")
    assert caplog.messages == ["Client 127.0.0.1 (proxy) made a change: DELETE /set"]


def test_repeated_changes_are_rate_limited(caplog: pytest.LogCaptureFixture) -> None:
    now_s = 0.0
    changes = ChangeLog(clock=lambda: now_s)
    with caplog.at_level(logging.INFO):
        for tenth in range(25):
            now_s = tenth / 10
            changes.log_change(make_change("/roi", b"%d" % tenth), is_repeated=True)
        assert [message.split()[-1] for message in caplog.messages] == ["0", "10", "20"]
        changes.log_pending()
        changes.log_pending()
    assert [message.split()[-1] for message in caplog.messages] == ["0", "10", "20", "24"]


def test_pending_change_is_logged_before_the_next_one(caplog: pytest.LogCaptureFixture) -> None:
    changes = ChangeLog(clock=lambda: 0.0)
    with caplog.at_level(logging.INFO):
        for body in (b"1", b"2", b"3"):
            changes.log_change(make_change("/roi", body), is_repeated=True)
        for _ in range(2):
            changes.log_change(make_change("/stop"))
    lines = [message.partition(": ")[2] for message in caplog.messages]
    assert lines == ["POST /roi 1", "POST /roi 3", "POST /stop", "POST /stop"]


@pytest.mark.parametrize("is_kept_alive", [True, False])
def test_last_change_of_a_connection_is_logged(caplog: pytest.LogCaptureFixture, *, is_kept_alive: bool) -> None:
    with caplog.at_level(logging.INFO), Site(ROUTES) as site, site.client() as client:
        for body in (b"1", b"2", b"3"):
            send(client, "POST", "/slide", body)
        if not is_kept_alive:
            client.socket.close()
        eventually(lambda: len(caplog.messages) >= 2, "a line for the last change")
    assert [message.split()[-1] for message in caplog.messages] == ["1", "3"]


@pytest.mark.parametrize(
    ("path", "body", "shown"),
    [
        ("/set/%46ront%20door", b"", "POST /set/Front door"),
        ("/set", b'{"name": "\\u0046ront"}', 'POST /set {"name": "Front"}'),
        ("/set", b'{"name": "Front"}', 'POST /set {"name": "Front"}'),
        ("/set", b"\\u0046ront", "POST /set \\u0046ront"),
    ],
)
def test_escapes_hide_nothing_from_the_redaction(
    caplog: pytest.LogCaptureFixture, path: str, body: bytes, shown: str
) -> None:
    with caplog.at_level(logging.INFO):
        ChangeLog().log_change(make_change(path, body))
    assert caplog.messages == [f"Client 192.0.2.1 made a change: {shown}"]
