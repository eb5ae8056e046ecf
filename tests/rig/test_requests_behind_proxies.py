"""Malformed requests that pass nginx and HAProxy: the portal sees the same requests as the proxy in front of it.

Both proxies mark each request that they pass on, and reuse their connections to the portal. A request without the mark
would be one that the proxy took for a part of another (request smuggling).
"""

import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from softcam.web.http.router import Route
from tests.rig.rig import Rig
from tests.support.background import eventually
from tests.support.raw_http import Handlers, Site
from tests.support.request_corpus import RequestCase, request_cases
from tests.support.timeouts import PATIENCE_S

CASES = request_cases()
MARK = "X-Passed-On"
SILENCE_S = 0.2  # after a response; a second one would follow at once

NGINX = """
daemon off;
user root;
pid /tmp/nginx.pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_header_timeout 1s;
    client_body_timeout 1s;
    upstream portal {{ server 127.0.0.1:{port}; keepalive 4; }}
    server {{
        listen unix:/run/proxy/socket;
        location / {{
            proxy_pass http://portal;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $http_host;
            proxy_set_header X-Passed-On yes;
        }}
    }}
}}
"""
HAPROXY = """
defaults
    mode http
    timeout connect 5s
    timeout http-request 1s
    timeout client 5s
    timeout server 5s
    http-reuse always
frontend outside
    bind unix@/run/proxy/socket
    http-request set-header X-Passed-On yes
    default_backend portal
backend portal
    server portal 127.0.0.1:{port}
"""
PROXIES = {
    "nginx": (NGINX, ("nginx", "-c", "/run/proxy/config")),
    "haproxy": (HAPROXY, ("haproxy", "-db", "-f", "/run/proxy/config")),
}


class Proxy:
    """A running proxy; `handlers.requests` are those that reached the portal behind it."""

    def __init__(self, path: Path, handlers: Handlers) -> None:
        self._path = path
        self.handlers = handlers

    def responses(self, request: bytes) -> list[int]:
        """The status of each response to what is sent over one connection, which the client does not close first."""
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(PATIENCE_S)
            client.connect(str(self._path))
            received = b""
            with suppress(ConnectionError, TimeoutError):
                client.sendall(request)
                while block := client.recv(65536):
                    received += block
                    client.settimeout(SILENCE_S)
        lines = [line for line in received.split(b"\r\n") if line.startswith(b"HTTP/1.")]
        return [int(line.split()[1]) for line in lines]

    def answers(self) -> bool:
        with suppress(OSError):
            return self.responses(b"GET /hello HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n") == [200]
        return False


@pytest.fixture(params=PROXIES)
def proxy(request: pytest.FixtureRequest, rig: Rig, tmp_path: Path) -> Iterator[Proxy]:
    handlers = Handlers()
    with Site([*handlers.routes(), Route(("/smuggled",), handlers.hello)]) as site:
        config, command = PROXIES[request.param]
        (tmp_path / "config").write_text(config.format(port=site.server.server_port))
        rig.start(command, shared={"/run/proxy": tmp_path})
        proxy = Proxy(tmp_path / "socket", handlers)
        eventually(proxy.answers)
        handlers.requests.clear()
        yield proxy


def expect_marked(proxy: Proxy, case: RequestCase) -> None:
    unmarked = [request for request in proxy.handlers.requests if request.headers.get_all(MARK) != ["yes"]]
    assert unmarked == [], case.name


def test_corpus_behind_proxy(proxy: Proxy) -> None:
    rejected = 0
    for case in CASES:
        proxy.handlers.requests.clear()
        first, *_ = [*proxy.responses(case.request), None]
        if case.status == 200 and proxy.handlers.requests:  # a proxy may be stricter than the portal
            assert first == 200, case.name
        rejected += first != 200
        expect_marked(proxy, case)
        assert proxy.answers(), case.name  # whatever connection to the portal the proxy chooses
        expect_marked(proxy, case)
    assert rejected > len(CASES) / 2
