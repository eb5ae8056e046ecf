"""The log over HTTP of a real process: after kills, crashes and invalid settings; its secrets; its clients."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Portal
from tests.support.http_client import StreamClient, ask, ask_for_still
from tests.support.timeouts import PATIENCE_S

Start = Callable[..., Portal]
KEY, VIEW_KEY, PASSWORD = "a-full-key-that-nobody-guesses", "a-view-key+with/signs&more", "a-password@of/a:server"
UNEXPECTED = "WARNING Previous run ended unexpectedly: "


@pytest.fixture
def places(tmp_path: Path) -> Mapping[str, str]:
    """The environment of a user's session."""
    (tmp_path / "run").mkdir(mode=0o700)
    return {"XDG_RUNTIME_DIR": str(tmp_path / "run"), "XDG_STATE_HOME": str(tmp_path / "state")}


@pytest.fixture
def service(tmp_path: Path) -> Mapping[str, str]:
    """The environment of a service."""
    (tmp_path / "run").mkdir()
    return {"RUNTIME_DIRECTORY": str(tmp_path / "run"), "STATE_DIRECTORY": str(tmp_path / "state")}


def content_of(portal: Portal, query: str = "lines=1000", **headers: str) -> Any:
    answer = ask(portal, f"/v1/system/logs?{query}", headers=headers)
    assert answer.status == 200, answer.body
    return answer.json


def previous(portal: Portal) -> list[str]:
    """The lines of the previous run, without their time; checks that those of earlier and this run surround them."""
    content = content_of(portal)
    runs = [entry["run"] for entry in content["entries"]]
    assert runs == sorted(runs)
    assert runs[-1] == content["run"]
    return [
        line.split(" ", 2)[2]
        for line, entry in zip(content["logs"], content["entries"], strict=True)
        if entry["run"] == content["run"] - 1
    ]


def first_own(portal: Portal) -> str:
    content = content_of(portal)
    return str(next(line for line, entry in zip(content["logs"], content["entries"], strict=True)
                    if entry["run"] == content["run"]))  # fmt: skip


# The previous run


def test_killed_portal(start_portal: Start, places: Mapping[str, str]) -> None:
    killed = start_portal(environment=places)
    with StreamClient(killed) as viewer:
        viewer.next()
        killed.process.kill()
        killed.wait()
    said = [line.split(" ", 2)[2] for line in killed.log.splitlines()]
    assert len(said) > 4
    fresh = start_portal(environment=places)
    assert previous(fresh) == said, "nothing is lost"
    assert UNEXPECTED + "killed, crashed, or the power failed" in first_own(fresh)
    assert UNEXPECTED in fresh.log
    assert fresh.stop() == 0
    third = start_portal(environment=places)
    assert previous(third)[-2:] == ["INFO Stopped", "INFO Exit code 0"]
    assert UNEXPECTED not in third.log


def test_killed_portal_without_a_runtime_directory(start_portal: Start, tmp_path: Path) -> None:
    """As in a container: the lines are lost, but a client that has seen them gets those of the next run."""
    places = {"XDG_RUNTIME_DIR": "", "XDG_STATE_HOME": str(tmp_path)}
    killed = start_portal(environment=places)
    seen = content_of(killed)["entries"][-1]["id"]
    killed.process.kill()
    killed.wait()
    fresh = start_portal(environment=places)
    own = content_of(fresh)["entries"][0]
    stream = f"{fresh.url}/v1/system/logs/stream?format=json&after={seen}"
    with urllib.request.urlopen(stream, timeout=PATIENCE_S) as events:
        data = next(line for line in events if line.startswith(b"data: "))
    assert json.loads(data.removeprefix(b"data: ")) == own, "the first line of the next run"


def test_portal_that_exits_because_it_is_stuck(start_portal: Start, places: Mapping[str, str], faults: Path) -> None:
    stuck = start_portal("--pattern-faults", str(faults), environment=places)
    with StreamClient(stuck) as viewer:
        viewer.next()
        faults.write_text("hang-close")
        assert stuck.stop() == 70
    faults.write_text("")
    fresh = start_portal("--pattern-faults", str(faults), environment=places)
    assert previous(fresh)[-3:] == ["ERROR Camera did not close in time", "ERROR Forcing exit", "ERROR Exit code 70"]
    assert UNEXPECTED not in fresh.log


def test_service_with_invalid_settings(start_portal: Start, service: Mapping[str, str]) -> None:
    secret = {"CAMERA_WIDTH": "wide", "CAMERA_RTSP_URL": f"rtsp://user:{PASSWORD}@[", "CAMERA_API_KEY": f" {KEY} # x"}
    failed = start_portal(environment={**service, **secret})
    assert failed.wait() == 78
    assert "CAMERA_WIDTH 'wide': must be" in failed.log
    fresh = start_portal(environment=service)
    lines = previous(fresh)
    assert lines[-1] == "ERROR Exit code 78"
    assert any(line.startswith("ERROR CAMERA_WIDTH 'wide': must be") for line in lines)
    assert not any(KEY in line or PASSWORD[-9:] in line for line in lines)


def test_second_portal_with_the_same_files(start_portal: Start, service: Mapping[str, str]) -> None:
    start_portal(environment=service).wait_for_log("Listening")
    second = start_portal(environment=service)
    second.wait_for_log("WARNING Log lines will not survive this process: another process uses ")
    assert "Starting Soft Stream" in str(content_of(second)["logs"])


def test_power_failure(start_portal: Start, places: Mapping[str, str], tmp_path: Path) -> None:
    first = start_portal(environment=places)
    first.wait_for_log("Listening")
    assert first.stop() == 0
    second = start_portal(environment=places)
    second.wait_for_log("Listening")
    second.process.kill()
    second.wait()
    for path in (tmp_path / "run/soft-stream").iterdir():  # which is in memory
        path.unlink()
    assert previous(start_portal(environment=places))[-1] == "INFO Exit code 0", "that of the first one"


def test_files_are_private_and_bounded(start_portal: Start, places: Mapping[str, str], tmp_path: Path) -> None:
    portal = start_portal(environment=places)
    portal.wait_for_log("Listening")
    portal.stop()
    files = [path for path in tmp_path.rglob("log-*") if path.is_file()]
    assert sorted(path.name for path in files) == ["log-pattern.0", "log-pattern.1", "log-pattern.jsonl"]
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}


@pytest.mark.parametrize("content", [b"\0" * 100_000, os.urandom(50_000), b'[1,1,1,20,"a","b","c"]\n' * 9000])
def test_foreign_files(start_portal: Start, places: Mapping[str, str], tmp_path: Path, content: bytes) -> None:
    for name in (
        "run/soft-stream/log-pattern.0",
        "run/soft-stream/log-pattern.1",
        "state/soft-stream/log-pattern.jsonl",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_bytes(content)
    portal = start_portal(environment=places)
    assert "Starting Soft Stream" in str(content_of(portal)["logs"])
    assert portal.stop() == 0
    assert previous(start_portal(environment=places))[-1] == "INFO Exit code 0"


def test_commands_leave_the_log_alone(start_portal: Start, places: Mapping[str, str], tmp_path: Path) -> None:
    for flags in (
        ["--check"],
        ["--list-cameras"],
        ["--version"],
        ["--help"],
        ["--width", "wide"],
        ["--diagnose", "--disabled"],
    ):
        start_portal(*flags, environment=places).wait()
    assert [path for path in tmp_path.rglob("*log*") if path.is_file()] == []


# Secrets


def test_secrets_do_not_appear(start_portal: Start, places: Mapping[str, str], tmp_path: Path) -> None:
    address = f"rtsp://user:{PASSWORD}@127.0.0.1:9/cam0"
    portal = start_portal(
        "--log-level", "DEBUG", "--rtsp-url", address, "--substream", "320x180@5",
        environment={**places, "CAMERA_API_KEY": KEY, "CAMERA_VIEW_KEY": VIEW_KEY},
    )  # fmt: skip
    from urllib.parse import quote

    for target in (
        f"/snapshot.jpg?key={quote(VIEW_KEY, safe='')}",
        f"/snapshot.jpg?key={KEY}",
        f"/{KEY}?key={VIEW_KEY}",
    ):
        ask(portal, target)
        ask(portal, target, headers={"X-API-Key": KEY})
        ask(portal, target, headers={"Authorization": f"Bearer {VIEW_KEY}"}, method="POST")
    portal.wait_for_log("Publishing to .* failed|127.0.0.1:9")
    content = ask(portal, "/v1/system/logs?lines=10000&level=DEBUG", headers={"X-API-Key": KEY})
    assert content.status == 200
    assert "wrong key" in str(content.json["logs"])
    assert portal.stop() == 0
    shown = [content.body, *(path.read_bytes() for path in tmp_path.rglob("log-*") if path.is_file())]
    assert len(shown) == 4
    for secret in (KEY, VIEW_KEY, PASSWORD, quote(VIEW_KEY, safe=""), quote(PASSWORD, safe="")):
        assert not any(secret.encode() in text for text in shown)


def test_password_in_a_traceback(start_portal: Start, tmp_path: Path) -> None:
    """An exception of the owner's code that contains the address of a camera."""
    (tmp_path / "faulty_hook.py").write_text(
        "import os\n\ndef fail(rgb, metadata):\n"
        "    raise ValueError(f\"cannot open rtsp://user:{os.environ['CAMERA_API_KEY']}@host/cam\\nforged\")\n"
    )
    portal = start_portal(
        "--hook", "faulty_hook:fail", environment={"PYTHONPATH": str(tmp_path), "CAMERA_API_KEY": KEY}
    )
    with StreamClient(portal, headers={"X-API-Key": KEY}) as viewer:
        viewer.next()
        portal.wait_for_log("ValueError: cannot open")
    logs = content_of(portal, **{"X-API-Key": KEY})["logs"]
    lines = [line.partition(" ERROR ")[2] for line in logs]
    assert "| ValueError: cannot open rtsp://***@host/cam" in lines
    assert "| forged" in lines, "the second line of the exception, which does not pass for a line of the log"
    assert KEY not in str(logs)


# Clients


def test_curl(portal: Portal) -> None:
    command = ["curl", "-sN", "--max-time", str(PATIENCE_S), f"{portal.url}/v1/system/logs/stream?search=camera"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as curl:
        assert curl.stdout is not None
        assert curl.stdout.readline() == "retry: 2000\n"
        ask_for_still(portal, "/snapshot.jpg")
        for line in curl.stdout:
            if line.startswith("data: "):
                break
        curl.terminate()
    assert re.fullmatch(r"data: \d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} INFO Camera open after .*\n", line)


READER = """
import sys, requests
response = requests.get(sys.argv[1] + "/v1/system/logs", params={"lines": 100, "level": "INFO"}, timeout=60)
for line in response.json()["logs"]:
    print(line)
print("live", flush=True)
url = sys.argv[1] + "/v1/system/logs/stream"
with requests.get(url, params={"level": "INFO"}, stream=True, timeout=60) as response:
    response.raise_for_status()
    for line in response.iter_lines():
        if line.startswith(b"data: "):
            print(line[6:].decode(), flush=True)
            if b"Camera closed" in line:
                break
"""


def test_python_client(start_portal: Start) -> None:
    """As users of pi-camera-service read the log and its stream."""
    portal = start_portal("--linger", "0.1")
    command = [sys.executable, "-c", READER, portal.url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as reader:
        assert reader.stdout is not None
        assert "Starting Soft Stream" in reader.stdout.readline()
        assert "Listening on" in reader.stdout.readline()
        portal.wait_for_log("Log client 127.0.0.1 connected; 1 connected")
        ask_for_still(portal, "/snapshot.jpg")
        rest = reader.stdout.read()
    assert reader.returncode == 0
    assert rest.splitlines()[0] == "live"
    assert rest.splitlines()[-1] in portal.log, "the same text as on the terminal"


def test_stop_with_log_clients(portal: Portal) -> None:
    viewers = [StreamClient(portal, "/v1/system/logs/stream") for _ in range(16)]
    for viewer in viewers:
        assert viewer.head()[0] == b"HTTP/1.1 200 OK"
    assert ask(portal, "/v1/system/logs/stream").status == 503
    assert ask(portal, "/v1/camera/status").json["viewers"] == 0
    portal.process.send_signal(signal.SIGTERM)
    for viewer in viewers:
        viewer.wait_for_end()
        viewer.leave()
    assert portal.wait() == 0


def test_entries_are_compact_json(portal: Portal) -> None:
    assert portal.url
    body = ask(portal, "/v1/system/logs").body
    assert body == json.dumps(json.loads(body), separators=(",", ":"), ensure_ascii=False).encode() + b"\n"
