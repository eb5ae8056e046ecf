"""Tests of the project's files: documents, changelog, fixtures, the rule about skips, and interrupted test runs."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import urllib.parse
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

import softcam
from softcam.config.schema import markdown_table
from softcam.controls.aliases import markdown_table as aliases_table
from softcam.controls.schema import markdown_table as controls_table
from tests.support.timeouts import PATIENCE_S, RUN_LIMIT_S

PROJECT = Path(__file__).resolve().parents[2]


def words(text: str) -> str:
    """A table row without the padding of its columns."""
    return " ".join(text.split())


def test_settings_page_is_complete() -> None:
    lines = {words(line) for line in (PROJECT / "docs/settings.md").read_text().splitlines()}
    rows = [words(row) for row in markdown_table().splitlines() if row.startswith("|")]
    assert len(rows) > 20
    assert [row for row in rows if not set(row) <= set("|-: ") and row not in lines] == []


def test_controls_page_is_complete() -> None:
    lines = {words(line) for line in (PROJECT / "docs/controls.md").read_text().splitlines()}
    rows = [words(row) for row in (controls_table() + aliases_table()).splitlines()]
    assert len(rows) > 15
    assert [row for row in rows if row not in lines] == []


def test_changelog_has_this_version() -> None:
    versions = re.findall(r"^## (\S+)", (PROJECT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert versions
    assert versions[0] == softcam.__version__


def test_pinned_versions_are_within_bounds() -> None:
    tested = dict(re.findall(r"^(\w+)==(\d+\.\d+)", (PROJECT / "tests/requirements.txt").read_text(), re.MULTILINE))
    bounds = re.findall(r"^(\w+) >=([\d.]+), <([\d.]+)$", (PROJECT / "requirements.txt").read_text(), re.MULTILINE)
    assert [name for name, _, _ in bounds] == ["numpy", "simplejpeg"]
    for name, lowest, beyond in bounds:
        assert _parts(lowest) <= _parts(tested[name]) < _parts(beyond), name


def _parts(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


# --- The fixtures of tests/conftest.py


def test_portal_fixture(portal: Any) -> None:
    address = urllib.parse.urlsplit(portal.url)
    with socket.create_connection((address.hostname, address.port), timeout=PATIENCE_S):
        assert portal.threads()
        assert any(target.startswith("socket:") for target in portal.descriptors())
    assert portal.stop() == 0
    with pytest.raises(AssertionError, match="the process ended"):
        portal.wait_for_log("no such line")


def test_leak_is_detected(no_leaks: Callable[..., AbstractContextManager[None]], tmp_path: Path) -> None:
    may_end = threading.Event()
    thread = threading.Thread(target=may_end.wait, name="left over")
    with pytest.raises(AssertionError, match="left over"), no_leaks(timeout_s=0):
        thread.start()
    may_end.set()
    thread.join()
    with pytest.raises(AssertionError, match=r"descriptor to .*open\.txt"), no_leaks(timeout_s=0):
        opened = (tmp_path / "open.txt").open("w")
    opened.close()
    with no_leaks():
        (tmp_path / "closed.txt").write_text("")


# --- Skips in CI


SKIPPING = """
import pytest

def test_passes():
    assert True

@pytest.mark.skipif(True, reason="no camera here")
def test_marked():
    assert False

def test_skips_itself():
    pytest.skip("no browser here")

@pytest.mark.xfail(strict=True, reason="known")
def test_expected_to_fail():
    assert False
"""


@pytest.mark.parametrize("workers", ["0", "2"])
@pytest.mark.parametrize(
    ("ci", "summary"), [("1", "1 failed, 1 passed, 1 xfailed, 1 error"), ("", "1 passed, 2 skipped, 1 xfailed")]
)
def test_skip_fails_only_in_ci(ci: str, summary: str, workers: str, tmp_path: Path) -> None:
    answer = run_pytest_on(SKIPPING, ci, tmp_path, "-n", workers)
    assert summary in answer.stdout
    assert answer.returncode == (1 if ci else 0)
    for reason in ("no camera here", "no browser here"):
        assert reason in answer.stdout


@pytest.mark.parametrize("ci", ["1", ""])
def test_skipped_module_fails_only_in_ci(ci: str, tmp_path: Path) -> None:
    answer = run_pytest_on("import pytest\npytest.importorskip('no_such_module')", ci, tmp_path)
    assert "no_such_module" in answer.stdout
    assert (answer.returncode == pytest.ExitCode.INTERRUPTED) == bool(ci)


MEETING = """
import os
import time
from pathlib import Path

import pytest

from tests.support.timeouts import PATIENCE_S

HERE = Path(__file__).parent

def wait_for(path):
    deadline_s = time.monotonic() + PATIENCE_S
    while not path.exists() and time.monotonic() < deadline_s:
        time.sleep(0.01)
    return path.exists()

@pytest.mark.parametrize("round", range(2))
def test_runs_beside_the_other(round):
    (HERE / f"NAME{round}").touch()
    assert wait_for(HERE / f"OTHER{round}")

@pytest.mark.measurement
def test_runs_last_and_alone():
    assert len(list(HERE.glob("done-*"))) == 40
    assert not list(HERE.glob("busy-*"))
    time.sleep(0.1)  # another test would start now
    assert not list(HERE.glob("busy-*"))

@pytest.mark.parametrize("round", range(20))
def test_others(round):
    busy = HERE / f"busy-{os.getpid()}"
    busy.touch()
    time.sleep(0.005)
    busy.rename(HERE / f"done-NAME-{round}")
"""


def test_measurements_run_last_and_alone(tmp_path: Path) -> None:
    (tmp_path / "test_other.py").write_text(MEETING.replace("NAME", "b").replace("OTHER", "a"))
    answer = run_pytest_on(MEETING.replace("OTHER", "b").replace("NAME", "a"), "1", tmp_path, "-n", "2")
    assert answer.returncode == 0, answer.stdout
    assert "46 passed" in answer.stdout


# --- An interrupted run


FAKE_PORTAL = """
import os, signal, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("Listening on http://127.0.0.1:9", flush=True)
time.sleep(120)
"""
WAITING = """
import os
import time
from pathlib import Path

def test_waits(start_portal):
    portal = start_portal()
    portal.wait_for_log("Listening")
    ready = Path(__file__).with_name("ready")
    ready.with_suffix(".new").write_text(f"{os.getpid()} {portal.pid}")
    ready.with_suffix(".new").rename(ready)
    time.sleep(100)
"""


@pytest.mark.parametrize(
    ("workers", "target", "number"),
    [
        ("0", "run", signal.SIGINT),
        ("0", "run", signal.SIGTERM),
        ("0", "run", signal.SIGKILL),
        ("1", "run", signal.SIGINT),
        ("1", "run", signal.SIGTERM),
        ("1", "worker", signal.SIGTERM),
        ("1", "worker", signal.SIGKILL),
    ],
)
def test_interrupted_run_leaves_no_process(
    workers: str, target: str, number: signal.Signals, tmp_path: Path, wait_until: Callable[..., None]
) -> None:
    """The portal is replaced by a program that ignores SIGINT and SIGTERM, so that only SIGKILL ends it."""
    folder = tmp_path / "tests"
    folder.mkdir()
    (tmp_path / "soft_stream.py").write_text(FAKE_PORTAL)
    command, environment = pytest_on(WAITING, "", folder, "-x", "-n", workers)
    ready = folder / "ready"
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, start_new_session=True
    ) as run:
        wait_until(ready.exists, "start of the test", timeout_s=RUN_LIMIT_S)  # pytest and its plugins are loaded first
        worker, portal = map(int, ready.read_text().split())
        assert (worker == run.pid) is (workers == "0")
        os.kill(run.pid if target == "run" else worker, number)
        wait_until(lambda: has_ended(portal), "end of the portal", timeout_s=RUN_LIMIT_S)
        if target == "worker":  # pytest-xdist may start a new worker
            run.send_signal(signal.SIGINT)
        wait_until(lambda: run.poll() is not None, "end of the run", timeout_s=RUN_LIMIT_S)
        wait_until(lambda: has_ended(worker), "end of the worker", timeout_s=RUN_LIMIT_S)


def has_ended(pid: int) -> bool:
    """Whether it is gone, or was not yet collected by its parent, which is the system's init after an orphan's end."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state == "Z"


def pytest_on(tests: str, ci: str, folder: Path, *arguments: str) -> tuple[list[str], dict[str, str]]:
    """The command line and the environment of a test run in `folder` with this project's conftest.py."""
    shutil.copy2(PROJECT / "tests/conftest.py", folder)
    (folder / "pytest.ini").touch()
    (folder / "test_some.py").write_text(tests)
    command = [sys.executable, "-m", "pytest", "-ra", "-p", "no:cacheprovider", "-p", "xdist", *arguments]
    # Some plugins take seconds to load.
    extra = {"CI": ci, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(PROJECT)}
    return command, os.environ | extra


def run_pytest_on(tests: str, ci: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command, environment = pytest_on(tests, ci, folder, *arguments)
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=RUN_LIMIT_S)
