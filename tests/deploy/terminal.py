"""A program in a terminal, in which a person types; and where a secret of that person is visible meanwhile."""

import os
import select
import subprocess
import termios
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

_SAMPLE_S = 0.05


class Terminal:
    """A program with a pseudo-terminal as its controlling terminal. All output is in `screen` after `run`."""

    def __init__(self, argv: Sequence[str]) -> None:
        self.screen = ""
        self.code = -1
        self.has_echo = False  # at the end, as before the program
        self.seen_in: set[str] = set()  # arguments or environments of processes that have what was typed
        self._argv = argv

    def run(self, prompt: str, typed: str, within_s: float) -> None:
        """Run it to its end; `typed` is entered once, after the prompt."""
        own, theirs = os.openpty()
        try:
            process = subprocess.Popen(
                ["setsid", "--ctty", "--wait", *self._argv], stdin=theirs, stdout=theirs, stderr=theirs
            )
        finally:
            os.close(theirs)
        deadline_s = time.monotonic() + within_s
        is_typed = False
        try:
            while (data := _read(own)) is not None:
                self.screen += data.decode(errors="replace")
                assert time.monotonic() < deadline_s, self.screen
                if not is_typed and prompt in self.screen:
                    os.write(own, f"{typed}\n".encode())
                    is_typed = True
                if is_typed and typed:
                    self.seen_in |= _processes_with(typed)
            self.code = process.wait(within_s)
            self.has_echo = bool(termios.tcgetattr(own)[3] & termios.ECHO)
        finally:
            process.kill()
            process.wait()
            os.close(own)
        self.screen = self.screen.replace("\r\n", "\n")


def _read(terminal: int) -> bytes | None:
    """What was printed in the meantime; None at the end."""
    if not select.select([terminal], [], [], _SAMPLE_S)[0]:
        return b""
    try:
        return os.read(terminal, 65536)
    except OSError:  # the last process closed it
        return None


def _processes_with(secret: str) -> set[str]:
    """The arguments and environments that contain the secret, of all processes of this machine and its containers."""
    found = set()
    for path in Path("/proc").glob("[0-9]*"):
        for name in ("cmdline", "environ"):
            with suppress(OSError):
                if secret.encode() in (path / name).read_bytes():
                    found.add(f"{name} of {(path / 'comm').read_text().strip()}")
    return found
