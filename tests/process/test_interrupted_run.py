"""A test run that is interrupted or killed leaves no process behind."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import PROJECT
from tests.support.guard import VARIABLE, marked
from tests.support.timeouts import PATIENCE_S, RUN_LIMIT_S

# A portal, a program with another one that it has started in another session, and one that ignores SIGTERM.
WITHIN = """
import json, os, subprocess, time
from pathlib import Path

def test_run(start_portal):
    portal = start_portal("--width", "320", "--height", "180")
    assert portal.url
    shell = subprocess.Popen(["sh", "-c", "setsid sleep 1000 & wait"])
    deaf = subprocess.Popen(["sh", "-c", "trap '' TERM HUP INT; while :; do sleep 0.1; done"], start_new_session=True)
    content = [os.environ["{variable}"].split()[-1], portal.pid, shell.pid, deaf.pid]
    path = Path({path!r})
    path.with_suffix(".part").write_text(json.dumps(content))
    path.with_suffix(".part").replace(path)
    time.sleep(1000)
"""


@pytest.mark.parametrize(
    ("by", "workers"),
    [(signal.SIGKILL, 0), (signal.SIGKILL, 1), (signal.SIGINT, 0)],
    ids=lambda value: getattr(value, "name", f"{value} workers of xdist"),
)
def test_nothing_is_left(tmp_path: Path, by: signal.Signals, workers: int, wait_until: Callable[..., None]) -> None:
    within, path = tmp_path / "test_within.py", tmp_path / "processes"
    within.write_text(WITHIN.format(variable=VARIABLE, path=str(path)))
    options = ["-q", "-p", "tests.conftest", "-c", str(PROJECT / "pyproject.toml"), f"--basetemp={tmp_path / 'temp'}"]
    command = [sys.executable, "-m", "pytest", *options, *(["-n", str(workers)] if workers else []), str(within)]
    with (tmp_path / "output").open("wb") as output:
        run = subprocess.Popen(command, cwd=PROJECT, stdout=output, stderr=subprocess.STDOUT)
    try:
        wait_until(lambda: path.exists() or run.poll() is not None, "the processes", RUN_LIMIT_S)
        assert path.exists(), (tmp_path / "output").read_text()
        mark, *processes = json.loads(path.read_text())
        assert set(processes) < set(marked(mark))
        run.send_signal(by)
        code = run.wait(PATIENCE_S)
    finally:
        run.kill()
        run.wait()
    assert code == (-by if by is signal.SIGKILL else pytest.ExitCode.INTERRUPTED)
    wait_until(lambda: not marked(mark), "the end of all")
