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
from tests.support.http_client import ask
from tests.support.timeouts import TIMEOUT_FACTOR

PROJECT = Path(__file__).resolve().parents[2]
HOOKS = "tests.process.schemathesis_hooks"
LIMIT_S = 300 * TIMEOUT_FACTOR  # a run takes a minute or two; hanging requests have their own limit
# Streams, and the page with `?action=stream`, have no end; they are tested elsewhere.
ENDLESS = r"^/stream(\.mjpg|\.mp4)?$|^/$"

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
    command = [str(program), "run", f"{portal.url}/openapi.json", "--request-timeout", "30", "--no-color"]
    command += ["--exclude-checks", "not_a_server_error", "--phases", "coverage,fuzzing", *arguments]
    command += ["--suppress-health-check", "all"]  # these check the speed of the generator, not the portal
    command += [] if HAS_FRESH_CASES else ["--seed", "1"]
    environment = {**os.environ, "SCHEMATHESIS_HOOKS": HOOKS, "PYTHONPATH": str(PROJECT), "CASES_ON": camera}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=LIMIT_S)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{portal.log}"
    assert "Traceback" not in portal.log
    found = re.search(r"(\d+) generated", done.stdout)
    assert found is not None, done.stdout
    return int(found[1])


@pytest.mark.timeout(LIMIT_S + 60)
def test_controls_of_closed_camera(
    start_portal: Callable[..., Portal], state_flags: tuple[str, ...], tmp_path: Path
) -> None:
    """With an API key, for the checks of schemathesis that requests without it are rejected."""
    portal = start_portal(*state_flags, environment={"CAMERA_API_KEY": "the-key"})
    paths = ["--include-path-regex", "^/v1/camera/|^/health", "--exclude-path-regex", "snapshot|start|autofocus$"]
    cases = run(portal, tmp_path, *paths, "-H", "X-API-Key: the-key", "-n", "30")
    assert cases > 1000


@pytest.mark.timeout(LIMIT_S + 60)
def test_all_routes_with_open_camera(
    start_portal: Callable[..., Portal], state_flags: tuple[str, ...], tmp_path: Path
) -> None:
    portal = start_portal(*SMALL, *state_flags)
    assert ask(portal, "/camera/start", method="POST").status == 200
    # Aliases are the same routes, as the route table shows.
    cases = run(
        portal,
        tmp_path,
        "--exclude-path-regex",
        rf"{ENDLESS}|^/camera/(?!st)|^/api|^/frame|^/snapshot$|^/v1/recordings",
        "-n",
        "4",
        camera="open camera",
    )
    assert cases > 1000
    assert ask(portal, "/health").status == 200


@pytest.mark.timeout(LIMIT_S + 60)
def test_recordings(start_portal: Callable[..., Portal], tmp_path: Path) -> None:
    folder = tmp_path / "recordings"
    portal = start_portal(*SMALL, "--recordings", str(folder), "--recordings-preroll", "1")
    cases = run(portal, tmp_path, "--include-path-regex", "^/v1/recordings", "-n", "8")
    assert cases > 150
    assert list(folder.glob("*.mp4"))
    assert ask(portal, "/health").status == 200
