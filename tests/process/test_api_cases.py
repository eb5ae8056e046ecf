"""Runs schemathesis on a portal: thousands of valid and invalid requests generated from `/openapi.json`."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.conftest import HAS_FRESH_CASES, Portal
from tests.support.http_client import ask, cpu_s
from tests.support.timeouts import TIMEOUT_FACTOR

PROJECT = Path(__file__).resolve().parents[2]
HOOKS = "tests.process.schemathesis_hooks"
REQUEST_LIMIT_S = 30 * TIMEOUT_FACTOR
LIMIT_S = 1800 * TIMEOUT_FACTOR  # a run takes a minute, on a busy machine many: it ends early only without progress
# These open a camera whose capabilities are not known.
OPENING = r"snapshot|start|autofocus(_trigger)?$|framerate"
CONTROLS = rf"^/v1/camera/(?!{OPENING})"

SMALL = ("--width", "160", "--height", "90", "--fps", "60", "--autofocus-timeout", "0.5")


@pytest.fixture
def state_flags() -> Iterator[tuple[str, ...]]:
    """A state folder in memory if possible, as each accepted request is written to disk with fsync."""
    memory = Path("/dev/shm")
    with TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        yield "--state-dir", folder


def run(portal: Portal, folder: Path, *arguments: str, camera: str = "closed camera") -> int:
    """Return the number of cases; fails with schemathesis's report if it found an error."""
    program = Path(sys.executable).with_name("schemathesis")
    command = [str(program), "run", f"{portal.url}/openapi.json", "--request-timeout", str(REQUEST_LIMIT_S)]
    command += ["--no-color", "--exclude-checks", "not_a_server_error", "--phases", "coverage,fuzzing", *arguments]
    command += ["--suppress-health-check", "all"]  # these check the speed of the generator, not the portal
    command += [] if HAS_FRESH_CASES else ["--seed", "1"]
    environment = {**os.environ, "SCHEMATHESIS_HOOKS": HOOKS, "PYTHONPATH": str(PROJECT), "CASES_ON": camera}
    report = folder / "report"
    with report.open("wb") as file:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=file, stderr=subprocess.STDOUT)
    try:
        code = wait_with_progress(process)
    finally:
        process.kill()
        process.wait()
    assert code == 0, f"{report.read_text()}\n{portal.log}"
    assert "Traceback" not in portal.log
    found = re.search(r"(\d+) generated", report.read_text())
    assert found is not None, report.read_text()
    return int(found[1])


def wait_with_progress(process: "subprocess.Popen[bytes]") -> int | None:
    """The exit code; None if the process does not end and uses no processor time, longer than a request may take."""
    used_s = -1.0
    while True:
        try:
            return process.wait(2 * REQUEST_LIMIT_S)
        except subprocess.TimeoutExpired:
            before_s, used_s = used_s, cpu_s(process.pid)
            if used_s < before_s + 0.1:
                return None


def omitted(portal: Portal) -> str:
    """A pattern of paths that need no cases.

    Aliases are the same routes, as the route table shows. Streams, and the page with `?action=stream`, have no end;
    they are tested elsewhere.
    """
    paths = ask(portal, "/openapi.json").json["paths"]
    operations = {path: [*methods.values()] for path, methods in paths.items()}
    endless = {path for path, each in operations.items() if any("x-is-endless" in operation for operation in each)}
    aliases = {path for path, each in operations.items() if all("x-alias-of" in operation for operation in each)}
    assert {"/stream.mjpg", "/stream.mp4", "/v1/system/logs/stream"} <= endless
    return "|".join(f"^{re.escape(path)}$" for path in sorted({"/"} | endless | aliases))


@pytest.mark.timeout(LIMIT_S)
def test_controls_of_closed_camera(
    start_portal: Callable[..., Portal], state_flags: tuple[str, ...], tmp_path: Path
) -> None:
    """With an API key, for the checks of schemathesis that requests without it are rejected."""
    portal = start_portal(*state_flags, environment={"CAMERA_API_KEY": "the-key"})
    paths = ("--include-path-regex", f"{CONTROLS}|^/health")
    cases = run(portal, tmp_path, *paths, "-H", "X-API-Key: the-key", "-n", "12")
    assert cases > 1000


@pytest.mark.timeout(LIMIT_S)
def test_controls_of_open_camera(
    start_portal: Callable[..., Portal], state_flags: tuple[str, ...], tmp_path: Path
) -> None:
    """Valid requests only: invalid ones are rejected in the same way whether the camera is open or closed."""
    portal = start_portal(*SMALL, *state_flags)
    assert ask(portal, "/camera/start", method="POST").status == 200
    paths = ("--include-path-regex", CONTROLS)
    cases = run(portal, tmp_path, *paths, "--mode", "positive", "-n", "4", camera="open camera")
    assert cases > 300
    assert ask(portal, "/health").status == 200


@pytest.mark.timeout(LIMIT_S)
def test_other_routes_with_open_camera(
    start_portal: Callable[..., Portal], state_flags: tuple[str, ...], tmp_path: Path
) -> None:
    portal = start_portal(*SMALL, *state_flags)
    assert ask(portal, "/camera/start", method="POST").status == 200
    excluded = ("--exclude-path-regex", rf"{omitted(portal)}|^/v1/recordings|{CONTROLS}")
    cases = run(portal, tmp_path, *excluded, "-n", "4", camera="open camera")
    assert cases > 1000
    assert ask(portal, "/health").status == 200


@pytest.mark.timeout(LIMIT_S)
def test_recordings(start_portal: Callable[..., Portal], tmp_path: Path) -> None:
    folder = tmp_path / "recordings"
    portal = start_portal(*SMALL, "--recordings", str(folder), "--recordings-preroll", "1")
    cases = run(portal, tmp_path, "--include-path-regex", "^/v1/recordings", "-n", "8")
    assert cases > 150
    assert list(folder.glob("*.mp4"))
    assert ask(portal, "/health").status == 200
