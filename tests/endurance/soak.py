"""Uses a portal at random for hours, and checks in pauses that nothing is left behind.

    python -m tests.endurance.soak --seconds 3600 --seed 7 --csv soak.csv --plot docs/images/soak.svg

Viewers of every kind, snapshots, stills, controls, recordings and faults of the pattern camera follow each other in
several threads. Now and then all of them pause until the camera is closed; then descriptors, threads and memory are
read. They must not grow from pause to pause. Responses are checked, too: none may be a 500 or late.
"""

import argparse
import csv
import http.client
import json
import random
import re
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, field, fields
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlsplit

from tests.conftest import Portal, portals
from tests.endurance.soak_plot import draw
from tests.support.http_client import ask, resident_mb, status_of, wait_for_status
from tests.support.rtsp_viewers import TCP, Peer
from tests.support.timeouts import PATIENCE_S, TIMEOUT_FACTOR

WATCHDOG_S = 2
ANSWER_LIMIT_S = 45 * TIMEOUT_FACTOR  # a client may have to wait for two restarts of the camera
ROUNDS_PER_HOUR = 60
LEAST_ROUND_S = 15.0
MORE_DESCRIPTORS, MORE_THREADS, MORE_MB = 3, 6, 25  # between pauses; the pools of threads and buffers vary by that
FLAGS = (
    *("--width", "640", "--height", "360", "--fps", "20", "--linger", "0.5", "--watchdog-timeout", str(WATCHDOG_S)),
    *("--rtsp-port", "0", "--substream", "160x90@5", "--recordings-max-bytes", "30000000"),
)
FAULTS = ("hang", "hang-once", "slow-open", "hang-still", "fail-restart", "no-focus", "endless-focus", "dark")
PATHS = ("/v1/camera/status", "/health", "/metrics", "/v1/system/status", "/v1/camera/controls", "/v1/presets", "/")
CHANGES: Sequence[Callable[[random.Random], tuple[str, Any]]] = (
    lambda g: ("/v1/camera/stream", {"fps": g.choice((5, 10, 20, 30))}),
    lambda g: ("/v1/camera/stream", {"width": g.choice((320, 640, 1280)), "height": g.choice((180, 360, 720))}),
    lambda g: ("/v1/camera/transform", {"rotation": g.choice((0, 90, 180, 270)), "hflip": g.random() < 0.5}),
    lambda g: (
        "/v1/camera/image_processing",
        {"brightness": round(g.uniform(-1, 1), 2), "contrast": round(g.uniform(0, 2), 2)},
    ),
    lambda g: ("/v1/camera/hdr", {"mode": g.choice(("off", "sensor"))}),
    lambda g: (f"/v1/presets/{g.choice(('normal', 'low-light', 'sports'))}/apply", {}),
    lambda g: ("/v1/camera/controls", {"no such control": 1}),
)


@dataclass(frozen=True, slots=True)
class Sample:
    """The portal in a pause, `after_s` seconds after the start."""

    after_s: float
    rss_mb: float
    descriptors: int
    threads: int
    restarts: int


@dataclass
class Report:
    """What the threads saw."""

    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    slowest_s: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)  # guards all fields

    def count(self, what: str, took_s: float = 0.0) -> None:
        with self._lock:
            self.counts[what] += 1
            self.slowest_s = max(self.slowest_s, took_s)

    def add_wrong(self, what: str) -> None:
        with self._lock:
            self.wrong.append(what)


class Actor(threading.Thread):
    """Repeats one kind of use with pauses, and stands still while `may_run` is not set."""

    def __init__(
        self, soak: "Soak", name: str, act: Callable[[random.Random], None], pause_s: float, seed: str
    ) -> None:
        super().__init__(name=name, daemon=True)
        self._soak, self._act, self._pause_s = soak, act, pause_s
        self._generator = random.Random(f"{seed} {name}")
        self.is_resting = threading.Event()

    def run(self) -> None:
        while not self._soak.is_over.is_set():
            if not self._soak.may_run.is_set():
                self.is_resting.set()
                self._soak.may_run.wait(1)
                continue
            self.is_resting.clear()
            try:
                self._act(self._generator)
            except (AssertionError, OSError, http.client.HTTPException) as error:
                self._soak.report.add_wrong(f"{self.name}: {type(error).__name__}: {error}")
            self._soak.is_over.wait(self._generator.uniform(0, 2 * self._pause_s))
        self.is_resting.set()


class Soak:
    """One portal, the threads that use it, and what was seen."""

    def __init__(self, portal: Portal, faults: Path, seed: int) -> None:
        self.may_run, self.is_over = threading.Event(), threading.Event()
        self.report = Report()
        self.samples: list[Sample] = []
        self._portal, self._faults = portal, faults
        self._port = urlsplit(portal.url).port or 0
        self._rtsp_port = int(portal.wait_for_log(r"Listening on rtsp://\S+:(\d+)")[1])
        kinds: Sequence[tuple[str, Callable[[random.Random], None], float]] = (
            *((f"viewer {number}", self._watch, 1.0) for number in range(4)),
            ("RTSP viewer", self._watch_rtsp, 1.0),
            ("snapshots", self._take_snapshot, 0.5),
            ("controls", self._change, 1.0),
            ("recordings", self._record, 2.0),
            ("status", self._look, 0.3),
            ("faults", self._fail, 8.0),
        )
        self._actors = [Actor(self, name, act, pause_s, str(seed)) for name, act, pause_s in kinds]

    def run(self, seconds: float) -> None:
        """Use the portal for that long. AssertionError if anything was wrong."""
        began_s = time.monotonic()
        rounds = max(4, round(seconds / max(LEAST_ROUND_S, 3600 / ROUNDS_PER_HOUR)))
        for actor in self._actors:
            actor.start()
        try:
            for number in range(rounds):
                self.may_run.set()
                self._wait_until(began_s + (number + 1) * seconds / rounds)
                self._pause(began_s)
        finally:
            self.is_over.set()
            self.may_run.set()
            for actor in self._actors:
                actor.join(ANSWER_LIMIT_S)
        self._check()

    def _wait_until(self, at_s: float) -> None:
        while time.monotonic() < at_s:
            assert self._portal.process.poll() is None, f"the portal ended:\n{self._portal.log[-3000:]}"
            time.sleep(0.5)

    def _pause(self, began_s: float) -> None:
        self.may_run.clear()
        for actor in self._actors:
            assert actor.is_resting.wait(2 * ANSWER_LIMIT_S), f"{actor.name} does not end"
        self._faults.write_text("")
        for path in ("/v1/recordings/stop", "/camera/stop"):
            self._ask(path, "POST", {})
        assert ask(self._portal, "/v1/camera/controls", method="DELETE").status == 200
        wait_for_status(self._portal, state="closed", viewers=0)
        time.sleep(0.5)  # for threads that end
        pid = self._portal.pid
        self.samples.append(
            Sample(
                round(time.monotonic() - began_s, 1),
                round(resident_mb(pid), 1),
                len(self._portal.descriptors()),
                len(self._portal.threads()),
                int(status_of(self._portal)["restarts"]),
            )
        )

    def _check(self) -> None:
        assert self.report.wrong == [], "\n".join(self.report.wrong[:20])
        assert "Traceback" not in self._portal.log, self._portal.log[-5000:]
        # The first pauses come before every kind of use has been seen once.
        half = len(self.samples) // 2
        early, late = self.samples[:half], self.samples[half:]
        for name, more in (("descriptors", MORE_DESCRIPTORS), ("threads", MORE_THREADS), ("rss_mb", MORE_MB)):
            before, after = (median(getattr(sample, name) for sample in part) for part in (early, late))
            assert after <= before + more, f"{name}: {before:g}, later {after:g}; {self.samples}"

    # --- what the threads do

    def _ask(self, path: str, method: str = "GET", content: Any = None) -> None:
        body = None if content is None else json.dumps(content).encode()
        headers = {"Content-Type": "application/json"} if body is not None else {}
        answer = ask(self._portal, path, method=method, headers=headers, body=body, timeout_s=ANSWER_LIMIT_S)
        name = re.sub(r"(?<=/recordings/)\d[^/]+", "NAME", path.partition("?")[0])
        self.report.count(f"{method} {name} {answer.status}", answer.took_s)
        is_rejected = answer.status == 503 and ("Retry-After" in answer.headers or path == "/health")
        if answer.status >= 500 and not is_rejected:
            self.report.add_wrong(f"{method} {path}: {answer.status} {answer.body[:200]!r}")

    def _watch(self, generator: random.Random) -> None:
        """A stream for some seconds, now and then without reading; the connection is closed without a word."""
        path = generator.choice(
            (
                "/stream.mjpg",
                "/stream.mjpg?width=320&fps=5",
                "/stream.mjpg?quality=40",
                "/stream.mp4",
                "/stream.mp4?sub=1",
            )
        )
        if generator.random() < 0.15:
            self._ask("/stream.m3u8")
            return
        with socket.create_connection(("127.0.0.1", self._port), PATIENCE_S) as connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: soak\r\n\r\n".encode())
            end_s = time.monotonic() + generator.uniform(0.2, 8)
            connection.settimeout(0.5)
            received = 0
            while time.monotonic() < end_s:
                try:
                    chunk = connection.recv(65536)
                except TimeoutError:
                    continue
                if not chunk:
                    break
                received += len(chunk)
                if generator.random() < 0.01:
                    time.sleep(generator.uniform(0, 2))
        self.report.count(f"{path.partition('?')[0]} {'bytes' if received else 'nothing'}")

    def _watch_rtsp(self, generator: random.Random) -> None:
        peer = Peer(("127.0.0.1", self._rtsp_port))
        try:
            described = peer.request("DESCRIBE")
            self.report.count(f"DESCRIBE {described.status}")
            if described.status == 200:
                peer.set_up(TCP)
                if peer.request("PLAY").status == 200:
                    end_s = time.monotonic() + generator.uniform(0.2, 6)
                    peer.socket.settimeout(1)
                    while time.monotonic() < end_s and peer.socket.recv(65536):
                        pass
        except (TimeoutError, ConnectionError):  # the camera hangs, or its size changed
            self.report.count("RTSP session ended")
        except AssertionError as error:
            if "ended" not in str(error):
                raise
        finally:
            peer.socket.close()

    def _take_snapshot(self, generator: random.Random) -> None:
        self._ask(
            generator.choice(
                ("/snapshot.jpg", "/snapshot.jpg?max_age=5", "/snapshot.jpg?width=160", "/snapshot.jpg?full=1")
            )
        )

    def _change(self, generator: random.Random) -> None:
        path, content = generator.choice(CHANGES)(generator)
        self._ask(path, "POST", content)

    def _record(self, generator: random.Random) -> None:
        kind = generator.choice(("video", "timelapse", "still"))
        if kind == "still":
            self._ask("/v1/recordings/still", "POST", {})
        else:
            options = {"kind": kind} | ({"interval_s": 1} if kind == "timelapse" else {})
            self._ask("/v1/recordings/start", "POST", options)
            self.is_over.wait(generator.uniform(0.5, 6))
            self._ask("/v1/recordings/stop", "POST", {"kind": kind})
        listed = ask(self._portal, "/v1/recordings", timeout_s=ANSWER_LIMIT_S).json["recordings"]
        if listed:
            path = f"/v1/recordings/{generator.choice(listed)['name']}"
            self._ask(generator.choice((path, f"{path}/thumbnail", f"{path}?index=1")))
            if generator.random() < 0.5:
                self._ask(path, "DELETE")

    def _look(self, generator: random.Random) -> None:
        self._ask(
            generator.choice(
                ("/v1/camera/status", "/health", "/metrics", "/v1/system/status", "/", "/v1/camera/controls")
            )
        )

    def _fail(self, generator: random.Random) -> None:
        """A fault for a while that the portal recovers from without a restart of its process."""
        word = generator.choice(FAULTS)
        self._faults.write_text(word)
        self.report.count(f"fault {word}")
        # Three times the watchdog's time without a call that returns is the end of the process.
        self.is_over.wait(generator.uniform(0.2, 1.5 * WATCHDOG_S))
        self._faults.write_text("")


def write_csv(path: Path, samples: Sequence[Sample]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([each.name for each in fields(Sample)])
        writer.writerows(astuple(sample) for sample in samples)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--csv", type=Path, help="write the figures of the pauses")
    parser.add_argument("--plot", type=Path, help="write them as an SVG")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soft-stream-soak-") as folder, portals(Path(folder) / "state") as start:
        faults = Path(folder) / "faults"
        faults.write_text("")
        recordings = Path(folder) / "recordings"
        recordings.mkdir()
        portal = start(*FLAGS, "--recordings", str(recordings), "--pattern-faults", str(faults))
        soak = Soak(portal, faults, options.seed)
        try:
            soak.run(options.seconds)
        except AssertionError as error:
            sys.exit(f"seed {options.seed}: {error}")
        finally:
            print(f"seed {options.seed}; slowest response {soak.report.slowest_s:.1f} s")
            for name, count in sorted(soak.report.counts.items()):
                print(f"  {count:6} {name}")
            for sample in soak.samples:
                print(f"  {sample}")
            if options.csv is not None:
                write_csv(options.csv, soak.samples)
            if options.plot is not None:
                options.plot.write_text(draw(soak.samples))


if __name__ == "__main__":
    main()
