"""Programs that tests run to their end, in this system or in a container."""

import shlex
import subprocess
from collections.abc import Sequence


def run_command(
    argv: Sequence[str], timeout_s: float, *, check: bool = True, text: str = ""
) -> subprocess.CompletedProcess[str]:
    """The program's end, with both of its outputs in `stdout`; `text` is its standard input.

    With `check`, an exit code other than 0 is an AssertionError with the output.
    """
    done = subprocess.run(
        argv,
        input=text,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=timeout_s,
    )
    if check and done.returncode != 0:
        raise AssertionError(f"{shlex.join(argv)} failed with exit code {done.returncode}:\n{done.stdout}")
    return done
