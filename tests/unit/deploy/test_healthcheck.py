"""The health check that deploy.sh runs, against portals that misbehave."""

import base64
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from deploy import healthcheck


class _Portal(BaseHTTPRequestHandler):
    """Answers /health with `status`, and cuts the snapshot short or sends it whole."""

    status = 200
    snapshot_length = 4096
    authorization: str | None = None
    requests, healthy_at = 0, 0  # the request from which on it is healthy

    def do_GET(self) -> None:
        type(self).authorization = self.headers["Authorization"]
        type(self).requests += 1
        if self.requests == self.healthy_at:
            type(self).status = 200
        is_health = self.path == "/health"
        body = b'{"version": "9", "detail": "no frames"}' if is_health else bytes(4096)
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(body) if is_health else self.snapshot_length))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def portal(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[_Portal]]:
    handler = type("_Portal", (_Portal,), {})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv("CAMERA_PORT", str(server.server_port))
        try:
            yield handler
        finally:
            server.shutdown()
            thread.join()


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["healthcheck.py", *arguments])
    return healthcheck.main()


def test_healthy(portal: type[_Portal], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("CAMERA_VIEW_KEY", "key-that-only-reads")
    assert run(monkeypatch, "health", "0", "20") == 0
    output = capsys.readouterr().out
    assert output.startswith("healthy at http://127.0.0.1:")
    assert ", version 9; snapshot of 4 KiB after " in output
    assert portal.authorization == "Basic " + base64.b64encode(b"nginx:key-that-only-reads").decode()


def test_incomplete_snapshot(
    portal: type[_Portal], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    portal.snapshot_length = 10000
    assert run(monkeypatch, "health", "0", "20") == 3
    assert ", version 9; no snapshot: IncompleteRead" in capsys.readouterr().out


def test_switched_off(
    portal: type[_Portal], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CAMERA_ENABLED", "off")
    assert run(monkeypatch, "health", "0", "20") == 0
    assert capsys.readouterr().out.endswith("; switched off in its settings\n")


def test_not_healthy(
    portal: type[_Portal], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    portal.status = 503
    assert run(monkeypatch, "health", "0", "0") == 1
    assert capsys.readouterr().out == "not healthy after 0 s: status 503, no frames\n"


def test_portal_that_becomes_healthy(
    portal: type[_Portal], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    portal.status = 503
    portal.healthy_at = 3
    assert run(monkeypatch, "health", "0", "60") == 0
    assert ", version 9; snapshot of 4 KiB" in capsys.readouterr().out


def test_port_and_key(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("CAMERA_PORT", raising=False)
    assert run(monkeypatch, "port", "1") == 0
    assert run(monkeypatch, "nginx", "1") == 0
    monkeypatch.setenv("CAMERA_API_KEY", "k" * 20)
    assert run(monkeypatch, "nginx", "1") == 0
    key = base64.b64encode(b"nginx:" + b"k" * 20).decode()
    assert capsys.readouterr().out.splitlines() == [
        "18082",
        'proxy_set_header Authorization "";',
        f'proxy_set_header Authorization "Basic {key}";',
    ]
