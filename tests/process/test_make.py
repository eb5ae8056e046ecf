"""Tests of the Makefile and of tools/setup.sh."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support.timeouts import RUN_LIMIT_S

PROJECT = Path(__file__).resolve().parents[2]


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
        timeout=RUN_LIMIT_S,
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
    # This environment's pip saves the seconds in which venv would install one; `make test` itself proves that it does.
    pip = importlib.util.find_spec("pip")
    assert pip is not None
    assert pip.origin is not None
    only_pip = tmp_path / "only pip"
    only_pip.mkdir()
    (only_pip / "pip").symlink_to(Path(pip.origin).parent)
    venv = f'case "$*" in "-m venv "*) exec {sys.executable} -m venv --without-pip "$3" ;; esac'
    bare = fake_python(tmp_path, "bare-python", f'{venv}; exec {sys.executable} -S "$@"')  # -S: without site-packages
    answer = set_up(checkout, "run", python=bare, environment={"PYTHONPATH": str(only_pip)})
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
