"""Ends what a test run leaves behind, however the run ends: with SIGKILL it cannot do so itself.

A run marks its environment, which all processes that it starts inherit, also those of programs that it starts. This
module is a program, too: it waits until the run has ended, and then ends every process that still has the mark. It
imports the standard library alone, so that it starts quickly.

The kernel's parent-death signal (`setpriv --pdeathsig`) is faster for single programs, but is not inherited.
"""

import contextlib
import os
import select
import signal
import sys
import time
from collections.abc import MutableMapping
from pathlib import Path

VARIABLE = "SOFT_STREAM_TEST_RUN"
_TERM_LIMIT_S = 5.0  # to stop by itself; a portal takes up to three seconds
_KILL_LIMIT_S = 10.0
_POLL_S = 0.05


def start(environ: MutableMapping[str, str]) -> None:
    """Mark this environment, and start the guard of this process."""
    mark = f"{os.getpid()}-{time.time_ns():x}"
    environ[VARIABLE] = f"{environ.get(VARIABLE, '')} {mark}".lstrip()  # a run within a run has the marks of both
    nowhere = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (0, 1, 2)]
    # In its own session: no signal of a terminal, or for the group of the run, reaches it.
    argv = [sys.executable, "-I", "-S", __file__, str(os.getpid()), mark]
    os.posix_spawn(sys.executable, argv, os.environ, file_actions=nowhere, setsid=True)


def marked(mark: str) -> list[int]:
    """The processes with this mark, except this one. Another user's processes, such as those of sudo, are not seen."""
    name, found = f"{VARIABLE}=".encode(), []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended
            values = [each for each in (folder / "environ").read_bytes().split(b"\0") if each.startswith(name)]
            if any(mark.encode() in each[len(name) :].split() for each in values) and int(folder.name) != os.getpid():
                found.append(int(folder.name))
    return found


def _end(mark: str, number: signal.Signals, limit_s: float) -> None:
    deadline_s = time.monotonic() + limit_s
    signalled: set[int] = set()
    while (left := marked(mark)) and time.monotonic() < deadline_s:
        for pid in left:
            if number is signal.SIGKILL or pid not in signalled:
                with contextlib.suppress(OSError):
                    os.kill(pid, number)
        signalled.update(left)
        time.sleep(_POLL_S)


def main() -> None:
    run, mark = int(sys.argv[1]), sys.argv[2]
    with contextlib.suppress(ProcessLookupError):  # it has ended already
        handle = os.pidfd_open(run)
        if os.getppid() == run:  # else it has ended, and the number may be another process's
            select.select([handle], [], [])
    _end(mark, signal.SIGTERM, _TERM_LIMIT_S)
    _end(mark, signal.SIGKILL, _KILL_LIMIT_S)


if __name__ == "__main__":
    main()
