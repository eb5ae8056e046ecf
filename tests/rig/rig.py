"""Runs programs in the rig's root file system, each with its own virtual cameras, and observes them from outside.

`Rig` belongs to the test session; a `Running` is one process inside. They use the host's network: a server listens on
port 0 and logs the port. Each `Running` has one thread, which reads its output.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.rig import root as rig_root
from tests.support.timeouts import PATIENCE_S

PYTHON = rig_root.PYTHON
PROJECT = "/opt/project"
BOTH = ("Virtual0", "Virtual1")
MODELS = {"Virtual0": "imx708_wide", "Virtual1": "imx477"}

_CAMERA_LIST = "/usr/share/libcamera/pipeline/virtual/virtual.yaml"
_BYTECODE = "/run/rig-bytecode"  # shared by the programs of a session, as their own files are discarded
_ENV = {
    "LD_PRELOAD": "/opt/rig/dmabuf_shim.so",
    "PYTHONPATH": "/opt/rig",
    "PYTHONUNBUFFERED": "1",
    "PYTHONPYCACHEPREFIX": _BYTECODE,
    "LANG": "C.UTF-8",
}
_LEAVE_S = PATIENCE_S  # between SIGTERM and SIGKILL at the end of a test


class Running:
    """One process inside, started by `Rig.start`. `pid` is the program's process id on the host."""

    def __init__(self, argv: Sequence[str], control: Path) -> None:
        self._control = control
        self._changed = threading.Condition(threading.Lock())  # guards _lines and _is_read
        self._lines: list[str] = []
        self._is_read = False
        self._process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self.pid = self._process.pid
        self._reader = threading.Thread(target=self._read, name=f"rig-output-{self.pid}", daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.end()

    @property
    def output(self) -> str:
        """The output so far, standard output and error in order."""
        with self._changed:
            return "\n".join(self._lines)

    def wait_for_line(self, pattern: str, within_s: float = PATIENCE_S, *, count: int = 1) -> re.Match[str]:
        """Return the match of the `count`-th line with `pattern`, including earlier lines. Raises AssertionError."""
        deadline_s = time.monotonic() + within_s
        wanted = re.compile(pattern)
        with self._changed:
            while True:
                found = [match for line in self._lines if (match := wanted.search(line))]
                if len(found) >= count:
                    return found[count - 1]
                left_s = deadline_s - time.monotonic()
                if self._is_read or left_s <= 0:
                    why = "the process ended" if self._is_read else f"{within_s} s passed"
                    output = "\n".join(self._lines)
                    raise AssertionError(f"{why} without a line with {pattern!r}; output:\n{output}")
                self._changed.wait(left_s)

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def wait(self, within_s: float = PATIENCE_S) -> int:
        """Return the exit status, negative for a signal. Raises AssertionError if the process still runs."""
        try:
            status = self._process.wait(within_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the process still runs after {within_s} s; output:\n{self.output}") from None
        self._reader.join(_LEAVE_S)
        return status

    def is_running(self) -> bool:
        return self._process.poll() is None

    def end(self) -> None:
        """Send SIGTERM, then SIGKILL to the process group."""
        if self.is_running():
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_LEAVE_S)
        with contextlib.suppress(ProcessLookupError):  # the whole group has ended
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
        self._reader.join(_LEAVE_S)
        if self._process.stdout is not None:
            self._process.stdout.close()

    def freeze(self) -> None:
        """Stop the frames of all its cameras, without an error."""
        (self._control / "freeze").touch()

    def thaw(self) -> None:
        (self._control / "freeze").unlink(missing_ok=True)

    def unplug(self, *camera_ids: str) -> None:
        """Remove these cameras from libcamera's list; an open one stays open."""
        gone = self._control / "gone.new"
        gone.write_text("\n".join(camera_ids))
        gone.rename(self._control / "gone")

    def plug_in(self) -> None:
        (self._control / "gone").unlink(missing_ok=True)

    def descriptors(self) -> dict[int, str]:
        """The open descriptors: number and target, as in /proc."""
        found = {}
        for entry in Path(f"/proc/{self.pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                found[int(entry.name)] = str(entry.readlink())
        return found

    def threads(self) -> list[str]:
        """The names of its threads in the kernel."""
        return sorted(path.read_text().strip() for path in Path(f"/proc/{self.pid}/task").glob("*/comm"))

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._changed:
                self._lines.append(line.rstrip("\n"))
                self._changed.notify_all()
        with self._changed:
            self._is_read = True
            self._changed.notify_all()


class Rig:
    """The root for one test session. Files that a process writes inside are discarded when it ends."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.scratch = Path(tempfile.mkdtemp(prefix="soft-stream-rig-"))
        self._running: list[Running] = []

    def run(
        self,
        argv: Sequence[str],
        *,
        cameras: Sequence[str] = BOTH,
        fps: float | None = None,
        env: Mapping[str, str] = {},
        shared: Mapping[str, Path] = {},
        timeout_s: float = 3 * PATIENCE_S,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program to its end; does not check its status. Arguments as for `start`."""
        command, _ = self._command(argv, cameras, fps, env, shared)
        with subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        ) as process:
            try:
                written, said = process.communicate(timeout=timeout_s)
            except subprocess.TimeoutExpired:
                process.kill()
                written, said = process.communicate()
                raise AssertionError(f"still running after {timeout_s} s; output:\n{written}\n{said}") from None
        return subprocess.CompletedProcess(argv, process.returncode, written, said)

    def start(
        self,
        argv: Sequence[str],
        *,
        cameras: Sequence[str] = BOTH,
        fps: float | None = None,
        env: Mapping[str, str] = {},
        shared: Mapping[str, Path] = {},
    ) -> Running:
        """Start a program, which is stopped at the end of the test.

        `cameras` are its virtual cameras. `fps` fixes their frame rate, which otherwise follows FrameDurationLimits, up
        to 60 fps. `env` adds to the environment; `shared` maps paths inside to writable folders of the host.
        """
        running = Running(*self._command(argv, cameras, fps, env, shared))
        self._running.append(running)
        return running

    def python(self, script: str, *arguments: str) -> list[str]:
        """The command line for a Python script that may import Picamera2."""
        return [PYTHON, "-c", script, *arguments]

    def portal(self, *arguments: str) -> list[str]:
        """The command line for this checkout's portal, on a port that the system chooses."""
        return [PYTHON, f"{PROJECT}/soft_stream.py", "--port", "0", *arguments]

    def end_all(self) -> None:
        """Stop all processes that still run."""
        while self._running:
            self._running.pop().end()

    def close(self) -> None:
        self.end_all()
        shutil.rmtree(self.scratch, ignore_errors=True)

    def _command(
        self,
        argv: Sequence[str],
        cameras: Sequence[str],
        fps: float | None,
        env: Mapping[str, str],
        shared: Mapping[str, Path],
    ) -> tuple[list[str], Path]:
        place = Path(tempfile.mkdtemp(dir=self.scratch))
        layer, control, locks = place / "layer", place / "control", self.scratch / "locks"
        bytecode = self.scratch / "bytecode"
        for folder in (layer, control, locks, bytecode):
            folder.mkdir(exist_ok=True)
        listed = [(rig_root.INSIDE / f"{camera.lower()}.yaml").read_text() for camera in cameras]
        (place / "virtual.yaml").write_text("%YAML 1.1\n---\n" + ("".join(listed) or "{}\n"))
        command = rig_root.entering(
            self.root,
            argv,
            layer=layer,
            binds={
                PROJECT: rig_root.CHECKOUT,
                _CAMERA_LIST: place / "virtual.yaml",
                "/run/rig": control,
                "/run/rig-locks": locks,
                _BYTECODE: bytecode,
                **shared,
            },
            writable=("/run/rig", "/run/rig-locks", _BYTECODE, *shared),
            env={**_ENV, **({"RIG_FPS": str(fps)} if fps is not None else {}), **env},
            cwd=PROJECT,
        )
        return command, control


def open_rig() -> Rig:
    """Return the rig; builds its root if necessary. Raises CannotMake."""
    made = rig_root.ensure()
    print(f"rig: {made}", file=sys.stderr)
    return Rig(made)
