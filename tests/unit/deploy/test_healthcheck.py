"""The health checks of deploy.sh and of the container, against portals that misbehave."""

import base64
import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from deploy import healthcheck


class _Portal(BaseHTTPRequestHandler):
    """Answers /health with `status`, and cuts the snapshot short or sends it whole."""

    status = 200
    snapshot_length = 4096
    problems = ""  # in its answer, as JSON
    port = 0
    authorization: str | None = None
    requests, healthy_at = 0, 0  # the request from which on it is healthy

    def do_GET(self) -> None:
        type(self).authorization = self.headers["Authorization"]
        type(self).requests += 1
        if self.requests == self.healthy_at:
            type(self).status = 200
        is_health = self.path == "/health"
        body = f'{{"version": "9", "detail": "no frames"{self.problems}}}'.encode() if is_health else bytes(4096)
        self.send_response(self.status if is_health or not self.problems else 200)
        self.send_header("Content-Length", str(len(body) if is_health else self.snapshot_length))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def portal(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[_Portal]]:
    handler: type[_Portal] = type("_Portal", (_Portal,), {})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        handler.port = server.server_port
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


def test_problems_that_another_release_would_have_too(
    portal: type[_Portal], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    portal.status, portal.problems = 503, ', "problems": ["recording", "publishing"]'
    assert run(monkeypatch, "health", "0", "0") == 0
    assert "version 9; other problems: recording, publishing; snapshot of 4 KiB" in capsys.readouterr().out


@pytest.mark.parametrize("problems", ["", ', "problems": ["camera"]', ', "problems": ["stuck", "recording"]'])
def test_not_healthy(
    portal: type[_Portal], problems: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    portal.status, portal.problems = 503, problems
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


@pytest.mark.parametrize(
    ("replies", "code", "said"),
    [
        ([401, 200], 0, "delivers H.264 and requires a password\n"),
        ([200], 1, "requires no password (status 200)\n"),
        ([401, 503], 1, "does not work: status 503\n"),
        ([401, 401], 1, "does not work: status 401\n"),
        ([], 1, "does not work: [Errno 111] Connection refused\n"),
        ([0], 1, "does not work: list index out of range\n"),
    ],
)
def test_rtsp(
    portal: type[_Portal],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    replies: list[int],
    code: int,
    said: str,
) -> None:
    requests: list[bytes] = []
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]

        def answer() -> None:
            for status in replies:
                with listener.accept()[0] as connection:
                    requests.append(connection.recv(10000))
                    connection.sendall(f"RTSP/1.0 {status} Words\r\n".encode() if status else b"\r\n")

        if not replies:
            listener.close()
        thread = Thread(target=answer)
        thread.start()
        monkeypatch.setenv("CAMERA_VIEW_KEY", "key-that-only-reads")
        monkeypatch.setenv("CAMERA_RTSP_PORT", str(port))
        monkeypatch.setenv("CAMERA_RTSP_HOST", "0.0.0.0")
        assert run(monkeypatch, "rtsp", "0") == code
        thread.join()
    assert capsys.readouterr().out == f"RTSP at port {port} {said}"
    assert [b"Authorization: Basic " in request for request in requests] == [False, True][: len(replies)]
    assert all(b"DESCRIBE rtsp://127.0.0.1:%d/ RTSP/1.0\r\n" % port in request for request in requests)
    assert portal.requests == (1 if code and replies != [200] else 0)  # whether the camera delivers a picture


def test_rtsp_of_a_camera_without_pictures(
    portal: type[_Portal], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    portal.status = 503
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]
    monkeypatch.setenv("CAMERA_RTSP_PORT", str(port))
    assert run(monkeypatch, "rtsp", "0") == 0
    said = capsys.readouterr().out.splitlines()[-1]
    assert said == f"RTSP at port {port}: no H.264, as the camera delivers no picture: status 503"


@pytest.mark.parametrize(("name", "value"), [("CAMERA_RTSP_PORT", ""), ("CAMERA_ENABLED", "off")])
def test_rtsp_that_is_off(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, value: str
) -> None:
    monkeypatch.setenv("CAMERA_RTSP_PORT", "8554")
    monkeypatch.setenv(name, value)
    assert run(monkeypatch, "rtsp", "0") == 0
    assert capsys.readouterr().out == "RTSP is off in its settings\n"


@pytest.mark.parametrize(
    ("status", "problems", "is_healthy"),
    [
        (200, ', "problems": []', True),
        (503, ', "problems": ["recording", "hook", "controls_set_aside"]', True),
        (503, ', "problems": ["camera", "recording"]', False),
        (503, ', "problems": ["stuck"]', False),
        (503, "", False),
    ],
)
def test_container(portal: type[_Portal], status: int, problems: str, is_healthy: bool) -> None:
    """The command of Containerfile, with another port."""
    portal.status, portal.problems = status, problems
    text = (Path(healthcheck.__file__).parents[1] / "Containerfile").read_text().replace("\\\n", "")
    found = re.search(r"^HEALTHCHECK .* CMD (\[.*\])$", text, re.MULTILINE)
    assert found is not None
    python, *arguments = json.loads(found[1])
    assert python == "/opt/venv/bin/python"
    assert any("8000" in argument for argument in arguments)
    command = [argument.replace("8000", str(portal.port)) for argument in arguments]
    done = subprocess.run([sys.executable, *command], stderr=subprocess.DEVNULL, check=False)
    assert done.returncode == (0 if is_healthy else 1)
