"""Measures snapshots of the pattern camera, which opens in 0.3 s, and the first images of a cold stream.

    bench/snapshots.py [--fps 20 5 2 1] [--repeat 3] [FLAG…]

For each frame rate: the time of a cold snapshot and its size, a series of snapshots over one camera opening, and when
and how large the first and the sixth image of a cold stream are. Further flags are passed to the portal.
"""

import argparse
import statistics
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from servers import PROJECT, run_server

LINGER_S = 0.1
PAUSE_S = 2.0  # until the camera is closed
SERIES_S = 5.0


@contextmanager
def portal(fps: float, linger_s: float, flags: list[str]) -> Iterator[str]:
    """The address of a running portal."""
    with tempfile.TemporaryDirectory() as folder:
        faults = Path(folder) / "faults"
        faults.write_text("slow-open")
        command = [sys.executable, str(PROJECT / "soft_stream.py"), "--camera", "pattern", "--port", "0"]
        command += ["--fps", f"{fps:g}", "--linger", f"{linger_s:g}", "--pattern-faults", str(faults)]
        command += ["--state-dir", folder, *flags]
        with run_server("portal", command, Path(folder)) as running:
            yield f"http://127.0.0.1:{running.port}"


def snapshot(url: str) -> tuple[float, int]:
    """The seconds that a snapshot takes, and its size in bytes."""
    began_s = time.monotonic()
    with urllib.request.urlopen(f"{url}/snapshot.jpg", timeout=30) as response:
        size = len(response.read())
    return time.monotonic() - began_s, size


def images(url: str, count: int) -> list[tuple[float, int]]:
    """When the first images of a stream arrived, in seconds from the request, and their sizes in bytes."""
    began_s = time.monotonic()
    received: list[tuple[float, int]] = []
    with urllib.request.urlopen(f"{url}/stream.mjpg", timeout=30) as response:
        while len(received) < count:
            line = response.readline()
            if line.lower().startswith(b"content-length:"):
                size = int(line.split(b":")[1])
                while response.readline().strip():
                    pass
                response.read(size)
                received.append((time.monotonic() - began_s, size))
    return received


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fps", type=float, nargs="+", default=[20.0, 5.0, 2.0, 1.0], help="frame rates of the portal")
    parser.add_argument("--repeat", type=int, default=3, help="cold snapshots and cold streams per frame rate")
    options, flags = parser.parse_known_args()
    for fps in options.fps:
        cold, firsts, sixths = [], [], []
        with portal(fps, LINGER_S, flags) as url:
            for _ in range(options.repeat):
                cold.append(snapshot(url))
                time.sleep(PAUSE_S)
            for _ in range(options.repeat):
                received = images(url, 6)
                firsts.append(received[0])
                sixths.append(received[5])
                time.sleep(PAUSE_S)
        with portal(fps, 5.0, flags) as url:
            snapshot(url)
            series = []
            began_s = time.monotonic()
            while time.monotonic() - began_s < SERIES_S:
                series.append(snapshot(url)[1])
            rate = len(series) / (time.monotonic() - began_s)
        for what, pairs in (("cold snapshot", cold), ("first image", firsts), ("sixth image", sixths)):
            middle_s, size = statistics.median(took_s for took_s, _ in pairs), statistics.median(n for _, n in pairs)
            worst_s = max(took_s for took_s, _ in pairs)
            print(f"{fps:g} fps, {what}: {middle_s:.2f} s (longest {worst_s:.2f} s), {size / 1000:.0f} KB", flush=True)
        print(f"{fps:g} fps, series: {rate:.1f} snapshots/s, {min(series) / 1000:.0f} KB or more", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
