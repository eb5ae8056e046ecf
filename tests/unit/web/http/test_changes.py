"""The log of accepted changes."""

import logging

import pytest

from softcam.web.http.changes import ChangeLog
from softcam.web.http.messages import Request, Response, json_response
from softcam.web.http.router import Route
from tests.support.raw_http import Client, Site, make_request

JSON = {"Content-Type": "application/json"}


def accept(request: Request) -> Response:
    if request.path == "/rejected":
        raise ValueError
    return json_response({})


ROUTES = (
    Route(("/set", "/rejected"), accept, "POST"),
    Route(("/set",), accept, "DELETE"),
    Route(("/read",), accept, "POST", is_read_only=True),
    Route(("/get",), accept),
)


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
    assert lines == ['Client 127.0.0.1: POST /set {"x": 1, "y": 2}', "Client 192.168.1.7: DELETE /set"]


def test_invalid_address_of_a_proxy_is_ignored(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), Site(ROUTES) as site, site.client() as client:
        send(client, "DELETE", "/set", header="X-Real-IP: nobody\r\n")
    assert caplog.messages == ["Client 127.0.0.1: DELETE /set"]


def test_repeated_changes_are_rate_limited(caplog: pytest.LogCaptureFixture) -> None:
    changes = ChangeLog()
    with caplog.at_level(logging.INFO):
        for _ in range(100):
            changes.log_change(make_request("/v1/camera/roi", method="POST"))
        changes.log_change(make_request("/v1/camera/stop", method="POST"))
    assert [message.partition(": ")[2] for message in caplog.messages] == [
        "POST /v1/camera/roi",
        "POST /v1/camera/stop",
    ]
