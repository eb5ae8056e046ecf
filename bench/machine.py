"""Describes the machine and measures its load. No state, no thread."""

import os
import platform
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def process_cpu_s(pid: int) -> float:
    """CPU time of a process so far."""
    # The id of a process's CPU clock, as clock_getcpuclockid(3) computes it.
    return time.clock_gettime((~pid << 3) | 2)


@dataclass(frozen=True, slots=True)
class Moment:
    """The CPU time used by all processes at one moment."""

    now_s: float
    busy_s: float  # all cores together


def read_cpu_use() -> Moment:
    """Read the CPU use. The kernel counts in ticks of 10 ms, which is accurate enough for a second or more."""
    first = Path("/proc/stat").read_text().partition("\n")[0]
    user, nice, system, _idle, _iowait, *others = map(int, first.split()[1:9])
    # The last three: interrupts, and time stolen by the host of a virtual machine.
    return Moment(time.monotonic(), (user + nice + system + sum(others)) / _TICKS_PER_S)


def others_percent(began: Moment, ended: Moment, own_cpu_s: float) -> float:
    """CPU use of all processes but the benchmark's between two moments, in percent of the machine."""
    whole_s = (ended.now_s - began.now_s) * (os.cpu_count() or 1)
    if whole_s <= 0:
        return 0.0
    return min(max(0.0, 100 * (ended.busy_s - began.busy_s - own_cpu_s) / whole_s), 100.0)


def describe() -> dict[str, object]:
    """The hardware and versions that a comparison of figures needs; None for missing programs."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "compiler": _first_line(os.environ.get("CC", "cc"), "--version"),
        "ustreamer": _first_line("ustreamer", "--version"),
        "load_average": round(os.getloadavg()[0], 2),
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        # On x86 each core has a "model name"; on a Raspberry Pi there is one "Model".
        if line.startswith(("model name", "Model\t")):
            return line.partition(":")[2].strip()
    return platform.machine()


def _first_line(*command: str) -> str | None:
    try:
        output = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return output.partition("\n")[0].strip()
