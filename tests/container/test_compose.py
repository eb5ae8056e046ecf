"""compose.yaml and Containerfile with a real Docker engine, as docs/install.md prints it."""

import json
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest

import softcam
from tests.container.engine import PROJECT, Engine
from tests.support.timeouts import TIMEOUT_FACTOR

URL = "http://127.0.0.1:8000"
ENABLED = {"CAMERA_ENABLED": "1", "CAMERA": "pattern"}
UP = ("docker", "compose", "up", "--build", "--detach", "--wait")
GRACE_S = 15  # stop_grace_period
RECORDED_LIMIT_S = 60 * TIMEOUT_FACTOR


@pytest.fixture
def compose(engine: Engine) -> Iterator[Engine]:
    """The engine; what a test started is removed, with its volumes."""
    yield engine
    engine.run("docker", "compose", "down", "--volumes", "--timeout", str(GRACE_S))


def get(engine: Engine, path: str) -> Any:
    return json.loads(engine.curl("--fail", URL + path))


def inside(engine: Engine, *argv: str) -> str:
    """The output of a program in the container; the exit code does not matter."""
    return engine.run("docker", "compose", "exec", "-T", "camera", *argv, check=False).stdout.strip()


def state_of(engine: Engine) -> dict[str, Any]:
    name = engine.run("docker", "compose", "ps", "--all", "--quiet").stdout.strip()
    state: dict[str, Any] = json.loads(engine.run("docker", "inspect", "--format={{json .State}}", name).stdout)
    return state


def test_without_a_camera(compose: Engine) -> None:
    """As it is started without any variable: the page, and no camera."""
    compose.run(*UP)
    assert state_of(compose)["Health"]["Status"] == "healthy"
    assert compose.curl("--fail", URL).startswith("<!doctype html>")
    assert get(compose, "/health")["version"] == softcam.__version__
    assert get(compose, "/v1/camera/status")["available"] is False
    assert compose.run("docker", "compose", "port", "camera", "8000").stdout == "127.0.0.1:8000\n"


def test_stream_restart_and_recording(compose: Engine) -> None:
    compose.run(*UP, environment=ENABLED)
    options = ("--max-time", "3", "--output", "/dev/null", "--write-out", "%{content_type} %{size_download}")
    stream = compose.curl(*options, f"{URL}/stream.mjpg?width=320", check=False)
    found = re.search(r"multipart/x-mixed-replace;boundary=frame (\d+)", stream)
    assert found is not None, stream
    assert int(found[1]) > 10_000
    compose.curl("--fail", "--request", "POST", f"{URL}/v1/recordings/start")
    name = _wait_for_recording(compose)

    began_s = time.monotonic()
    compose.run("docker", "compose", "stop", environment=ENABLED)
    assert time.monotonic() - began_s < GRACE_S * TIMEOUT_FACTOR
    state = state_of(compose)
    assert (state["ExitCode"], state["OOMKilled"]) == (0, False)

    # Another container with the same volumes: the recording is there, complete, and was resumed in another file.
    compose.run("docker", "compose", "rm", "--force", environment=ENABLED)
    compose.run(*UP, environment=ENABLED)
    listed = {each["name"]: each for each in get(compose, "/v1/recordings")["recordings"]}
    assert listed[name]["duration_s"] > 0
    head = compose.curl("--fail", "--range", "4-7", f"{URL}/v1/recordings/{name}")
    assert head == "ftyp"
    assert get(compose, "/health")["recording_active"] is True


def _wait_for_recording(engine: Engine) -> str:
    """Wait for a recording of more than a second; its name."""
    deadline_s = time.monotonic() + RECORDED_LIMIT_S
    while time.monotonic() < deadline_s:
        for each in get(engine, "/v1/recordings")["recordings"]:
            if each["bytes"] > 100_000:
                return str(each["name"])
        time.sleep(0.5)
    raise AssertionError("no recording")


def test_confinement(compose: Engine) -> None:
    compose.run(*UP, environment=ENABLED)
    assert inside(compose, "id", "-u") == "10001"
    assert "44" in inside(compose, "id", "-G").split()  # video
    assert "Read-only file system" in inside(compose, "touch", "/opt/soft-stream/file")
    status = inside(compose, "cat", "/proc/1/status")
    assert re.search(r"(?m)^CapEff:\t0+$", status)
    assert re.search(r"(?m)^NoNewPrivs:\t1$", status)
    assert inside(compose, "sh", "-c", "touch /recordings/file /state/file /tmp/file && echo written") == "written"
    assert "No such file" in inside(compose, "ls", "/opt/soft-stream/tests")


def test_invalid_settings_are_in_the_log(compose: Engine) -> None:
    done = compose.run(*UP, check=False, environment={"CAMERA_ENABLED": "perhaps"})
    assert done.returncode != 0
    log = compose.run("docker", "compose", "logs", "--no-color").stdout
    assert "CAMERA_ENABLED" in log


def test_image_has_only_the_portal() -> None:
    """Every file that Containerfile copies exists and is not left out by .dockerignore."""
    copied = re.findall(r"(?m)^COPY (.+) \S+$", (PROJECT / "Containerfile").read_text())
    names = [name for line in copied for name in line.split()]
    ignored = (PROJECT / ".dockerignore").read_text().splitlines()
    assert ignored[1] == "*"
    assert sorted(names) == sorted(line[1:] for line in ignored if line.startswith("!"))
