"""Tests of the project's files: README, changelog, Makefile, tools/setup.sh, fixtures and the rule about skips."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import urllib.parse
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

import softcam
from softcam.config.schema import markdown_table
from softcam.controls.schema import markdown_table as controls_table

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
    rows = [words(row) for row in controls_table().splitlines()]
    assert len(rows) > 15
    assert [row for row in rows if row not in lines] == []


def test_changelog_has_this_version() -> None:
    versions = re.findall(r"^## (\S+)", (PROJECT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert versions
    assert versions[0] == softcam.__version__


def make(
    *arguments: str, cwd: Path = PROJECT, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs make without the variables of an outer `make test ARGS=…`."""
    outer = re.compile(r"MAKE|MFLAGS|ARGS$|CAMERA$|PIP_|PYTHON")
    clean = {name: value for name, value in os.environ.items() if not outer.match(name)}
    return subprocess.run(
        ["make", *arguments],
        cwd=cwd,
        env=clean | dict(environment or {}),
        capture_output=True,
        text=True,
        timeout=100,
    )


def targets_in_help() -> list[str]:
    answer = make()
    assert answer.stderr == ""
    return re.findall(r"^  ([a-z-]+) +\S", answer.stdout, re.MULTILINE)


def test_make_lists_targets() -> None:
    targets = targets_in_help()
    assert {"help", "run", "test", "lint"} <= set(targets)
    for target in targets:
        assert make("--dry-run", target).returncode == 0, target


def test_make_targets_in_readme_exist() -> None:
    named = set(re.findall(r"\bmake ([a-z-]+)(?=[`\s])", " ".join(_code_in((PROJECT / "README.md").read_text()))))
    assert {"run", "test"} <= named
    assert named - set(targets_in_help()) == set()


def _code_in(markdown: str) -> list[str]:
    """The code in fences, by line, and between backticks, each with a space appended."""
    fenced = re.findall(r"^```[^\n]*\n(.*?)^```", markdown, re.MULTILINE | re.DOTALL)
    return [f"{code} " for code in (*fenced, *re.findall(r"`([^`\n]+)`", markdown))]


def test_pinned_versions_are_within_bounds() -> None:
    tested = dict(re.findall(r"^(\w+)==(\d+\.\d+)", (PROJECT / "tests/requirements.txt").read_text(), re.MULTILINE))
    bounds = re.findall(r"^(\w+) >=([\d.]+), <([\d.]+)$", (PROJECT / "requirements.txt").read_text(), re.MULTILINE)
    assert [name for name, _, _ in bounds] == ["numpy", "simplejpeg"]
    for name, lowest, beyond in bounds:
        assert _parts(lowest) <= _parts(tested[name]) < _parts(beyond), name


def _parts(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


# --- tools/setup.sh. It runs in a copy of the files that it reads, so that it creates nothing in this checkout.


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "soft stream"  # with a space
    for name in ("Makefile", "requirements.txt", "tools/setup.sh", "tests/requirements.txt", "tests/packages.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(PROJECT / name, folder / name)
    (folder / "soft_stream.py").write_text("import sys\nprint('started', sys.argv[1:])\n")
    return folder


def set_up(
    checkout: Path, goal: str, *arguments: str, python: Path, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs make with `python` as the only recent one, and without network."""
    closed = {
        "CI": "",
        "NO_APT": "1",
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_INDEX_URL": "http://127.0.0.1:9/",  # the discard port: connections are refused
        "PYTHON": str(python),
    }
    return make(goal, *arguments, cwd=checkout, environment=closed | dict(environment or {}))


def said(answer: subprocess.CompletedProcess[str]) -> list[str]:
    """The output without make's last line."""
    return [line for line in answer.stderr.splitlines() if not line.startswith("make: ***")]


def fake_python(folder: Path, name: str, code: str) -> Path:
    """Create an executable that runs the shell commands `code` in place of Python."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{code}\n")
    path.chmod(0o755)
    return path


def only_these_pythons(checkout: Path) -> None:
    """Remove the machine's Python from the copy of setup.sh."""
    script = checkout / "tools/setup.sh"
    text = script.read_text()
    assert text.count("/usr/bin/python3 ") == 1
    script.write_text(text.replace('/usr/bin/python3 "$(command -v python3 || true)"', ""))


def test_run_uses_python_with_all_modules(checkout: Path) -> None:
    answer = set_up(checkout, "run", "ARGS=--port 0", python=Path(sys.executable))
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout == "started ['--camera', 'pattern', '--port', '0']\n"
    assert answer.stderr == ""
    assert not (checkout / ".venv").exists()


def test_run_with_pipe_needs_no_picamera2(checkout: Path, tmp_path: Path) -> None:
    only_these_pythons(checkout)
    pipe = tmp_path / "video.mjpeg"
    os.mkfifo(pipe)
    answer = set_up(checkout, "run", f"CAMERA={pipe}", python=Path(sys.executable))
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout == f"started ['--camera', '{pipe}']\n"


def test_run_without_network(checkout: Path, tmp_path: Path) -> None:
    only_these_pythons(checkout)
    bare = fake_python(tmp_path, "bare-python", f'exec {sys.executable} -S "$@"')  # -S: without site-packages
    answer = set_up(checkout, "run", python=bare)
    assert answer.returncode != 0
    assert len(said(answer)) == 2
    assert said(answer)[0].startswith("Setting up .venv")
    assert said(answer)[1] == (
        "make run: no network: pip cannot fetch what requirements.txt lists (see .cache/setup.log)"
    )
    assert "127.0.0.1" in (checkout / ".cache/setup.log").read_text()
    assert not (checkout / ".venv").exists()


def test_run_without_venv_module(checkout: Path, tmp_path: Path) -> None:
    only_these_pythons(checkout)
    hide = 'case "$*" in *ensurepip*) exit 1 ;; esac'
    bare = fake_python(tmp_path, "bare-python", f'{hide}; exec {sys.executable} -S "$@"')
    answer = set_up(checkout, "run", python=bare)
    assert answer.returncode != 0
    assert said(answer) == ["make run: needs python3-venv: sudo apt install python3-venv"]


def test_run_with_old_python(checkout: Path, tmp_path: Path) -> None:
    only_these_pythons(checkout)
    old = fake_python(tmp_path, "old-python", 'test "$1" = -V && echo Python 3.9.2 && exit; exit 1')
    answer = set_up(checkout, "run", python=old)
    assert answer.returncode != 0
    assert said(answer) == [
        "make run: needs Python 3.11 or newer, as in Debian 12 and later; here is Python 3.9.2",
    ]


def test_run_with_camera_without_picamera2(checkout: Path, tmp_path: Path) -> None:
    only_these_pythons(checkout)
    answer = set_up(checkout, "run", "CAMERA=0", python=Path(sys.executable))
    assert answer.returncode != 0
    assert said(answer) == [
        "make run CAMERA=0: needs Picamera2, which Raspberry Pi OS has: sudo apt install python3-picamera2",
    ]
    assert not (checkout / ".venv").exists()


def test_run_with_camera_uses_python_with_picamera2(checkout: Path, tmp_path: Path) -> None:
    packages = tmp_path / "dist-packages"
    packages.mkdir()
    for name in ("picamera2", "libcamera"):
        (packages / f"{name}.py").write_text("raise RuntimeError('imported: this takes a second on a Raspberry Pi')")
    answer = set_up(checkout, "run", "CAMERA=0", python=Path(sys.executable), environment={"PYTHONPATH": str(packages)})
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout == "started ['--camera', '0']\n"
    assert answer.stderr == ""


def test_run_with_camera_and_broken_simplejpeg(checkout: Path, tmp_path: Path) -> None:
    only_these_pythons(checkout)
    packages = tmp_path / "dist-packages"
    packages.mkdir()
    (packages / "picamera2.py").touch()
    (packages / "libcamera.py").touch()
    (packages / "simplejpeg.py").write_text("raise ValueError('numpy.dtype size changed')")
    answer = set_up(checkout, "run", "CAMERA=0", python=Path(sys.executable), environment={"PYTHONPATH": str(packages)})
    assert answer.returncode != 0
    assert len(said(answer)) == 1
    assert "cannot import simplejpeg (ValueError: numpy.dtype size changed)" in said(answer)[0]
    assert "pip uninstall" in said(answer)[0]


def test_test_without_venv_module(checkout: Path, tmp_path: Path) -> None:
    only_these_pythons(checkout)
    hide = 'case "$*" in *ensurepip*) exit 1 ;; esac'
    bare = fake_python(tmp_path, "bare-python", f'{hide}; exec {sys.executable} "$@"')
    answer = set_up(checkout, "test", python=bare)
    assert answer.returncode != 0
    assert said(answer) == ["make test: needs python3-venv: sudo apt install python3-venv"]


# --- The fixtures of tests/conftest.py


def test_portal_fixture(portal: Any) -> None:
    address = urllib.parse.urlsplit(portal.url)
    with socket.create_connection((address.hostname, address.port), timeout=10):
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

HERE = Path(__file__).parent

def wait_for(path):
    deadline_s = time.monotonic() + 10
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
        wait_until(ready.exists, "start of the test")
        worker, portal = map(int, ready.read_text().split())
        assert (worker == run.pid) is (workers == "0")
        os.kill(run.pid if target == "run" else worker, number)
        wait_until(lambda: not Path(f"/proc/{portal}").exists(), "end of the portal")
        if target == "worker":  # pytest-xdist may start a new worker
            run.send_signal(signal.SIGINT)
        wait_until(lambda: run.poll() is not None, "end of the run")
        wait_until(lambda: not Path(f"/proc/{worker}").exists(), "end of the worker")


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
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=110)
