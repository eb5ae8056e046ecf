"""Measures what many clients cost the others: responses and frame rates, first idle, then under load.

    python -m tests.endurance.load --seconds 60

Idle is one viewer of each kind, and the polls of `/v1/camera/status` and `/health`. The load is 200 MJPEG viewers, 50
MP4 viewers, 100 snapshots and ten changes of a control each second. The clients run on the same machine and are part of
what the table shows; `cpu` of the viewers says how large that part is.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import PROJECT, Portal, portals
from tests.support.http_client import ask, cpu_s, port_of, post, resident_mb
from tests.support.timeouts import RUN_LIMIT_S

FPS = 20
FLAGS = ("--width", "640", "--height", "360", "--fps", str(FPS), "--max-clients", "300", "--linger", "60")
ENVIRONMENT = {"CAMERA_MAX_CLIENTS_PER_ADDRESS": "300"}  # all clients have the same
SNAPSHOTS_OF_ONE_PER_S = 4.0  # one that shows a change of a control waits for some frames
SNAPSHOT = "/snapshot.jpg?max_age=1&autofocus=0"


@dataclass(frozen=True, slots=True)
class Load:
    """Numbers of viewers, and requests per second."""

    mjpeg: int = 1
    mp4: int = 1
    snapshots: float = 0
    controls: float = 0
    polls: float = 10  # of the status, and as many of the health


IDLE = Load()
FULL = Load(mjpeg=200, mp4=50, snapshots=100, controls=10)


class Requests(threading.Thread):
    """Sends requests at a rate, one after the other; a late one is not made up for. Keeps what they took."""

    def __init__(self, rate: float, send: Callable[[], int], until: threading.Event) -> None:
        super().__init__(daemon=True)
        self.took_s: list[float] = []
        self.failed: list[int] = []  # the statuses
        self._period_s, self._send, self._until = 1 / rate, send, until
        self.start()

    def run(self) -> None:
        due_s = time.monotonic()
        while not self._until.wait(max(0.0, due_s - time.monotonic())):
            began_s = time.monotonic()
            status = self._send()
            ended_s = time.monotonic()
            self.took_s.append(ended_s - began_s)
            if status != 200:
                self.failed.append(status)
            due_s = max(due_s + self._period_s, ended_s)


def quantile_ms(took_s: list[float], share: float) -> float:
    ordered = sorted(took_s)
    return 1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def measure(portal: Portal, load: Load, seconds: float) -> dict[str, float]:
    """The figures of one load, by name. AssertionError if a client failed."""
    until = threading.Event()
    command = [sys.executable, "-m", "tests.endurance.load_viewers", str(port_of(portal))]
    viewers = subprocess.Popen(
        [*command, str(load.mjpeg), str(load.mp4), str(seconds)], cwd=PROJECT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert viewers.stdout is not None
        assert viewers.stdout.readline() == "watching\n"
        values = itertools.cycle((0.0, 0.1))
        change = lambda: post(portal, "/v1/camera/image_processing", {"brightness": next(values)}).status  # noqa: E731
        kinds = {
            "status": [Requests(load.polls, lambda: ask(portal, "/v1/camera/status").status, until)],
            "health": [Requests(load.polls, lambda: ask(portal, "/health").status, until)],
            "snapshots": [
                Requests(SNAPSHOTS_OF_ONE_PER_S, lambda: ask(portal, SNAPSHOT).status, until)
                for _ in range(round(load.snapshots / SNAPSHOTS_OF_ONE_PER_S))
            ],
            "controls": [Requests(load.controls, change, until)] if load.controls else [],
        }
        began_s, began_cpu_s = time.monotonic(), cpu_s(portal.pid)
        until.wait(seconds / 3)
        memory_mb = resident_mb(portal.pid)
        output, _ = viewers.communicate(timeout=seconds + RUN_LIMIT_S)
        assert viewers.returncode == 0
    finally:
        until.set()
        viewers.kill()
        viewers.wait()
    took_s, used_s = time.monotonic() - began_s, cpu_s(portal.pid) - began_cpu_s
    figures: dict[str, float] = {}
    for name, threads in kinds.items():
        for thread in threads:
            thread.join()
            assert thread.failed == [], (name, thread.failed[:10])
        all_s = [each for thread in threads for each in thread.took_s]
        if all_s:
            figures |= {f"{name}_median_ms": quantile_ms(all_s, 0.5), f"{name}_p99_ms": quantile_ms(all_s, 0.99)}
            figures[f"{name}_per_s"] = len(all_s) / took_s
    seen = json.loads(output)
    figures["viewers_cpu"] = seen.pop("cpu")
    figures |= seen
    figures["portal_cpu"] = used_s / took_s
    figures["memory_mb"] = resident_mb(portal.pid)
    figures["memory_growth_mb"] = figures["memory_mb"] - memory_mb
    return figures


def compare(portal: Portal, load: Load, seconds: float) -> tuple[dict[str, float], dict[str, float]]:
    """The figures idle and under load, each for so many seconds."""
    assert ask(portal, "/snapshot.jpg").status == 200  # opens the camera
    return measure(portal, IDLE, seconds), measure(portal, load, seconds)


def table(idle: dict[str, float], loaded: dict[str, float]) -> str:
    """As Markdown, with the ratios."""
    lines = ["| | idle | load | ratio |", "|---|---|---|---|"]
    for name, value in loaded.items():
        before = idle.get(name)
        ratio = f"{value / before:.2f}" if before and name != "memory_growth_mb" else ""
        lines.append(
            f"| {name.replace('_', ' ')} | {'' if before is None else f'{before:.4g}'} | {value:.4g} | {ratio} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60, help="of each of the two parts")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soft-stream-load-") as folder, portals(Path(folder) / "state") as start:
        print(f"load average before: {os.getloadavg()[0]:.2f}, {os.cpu_count()} cores")
        idle, loaded = compare(start(*FLAGS, environment=ENVIRONMENT), FULL, options.seconds)
        print(table(idle, loaded))


if __name__ == "__main__":
    main()
