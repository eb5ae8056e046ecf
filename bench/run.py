"""Compares the portal with other servers on this machine, one after another, in one run: `make bench`.

The servers: the portal with its pattern camera, the portal with a camera that delivers JPEGs, Debian's ustreamer with
c/standin.c as its camera, a Python server with one thread per client, and c/limit.c, which only sends. All but the
first play a reel of JPEGs recorded from the portal, each stamped with its creation time; the latency of the first
counts from the exposure. c/load.c is the load generator. All traffic stays on the loopback interface, and each load
ends within a minute.

Prints the machine, tables and the goals; writes the JSON, the plot and the servers' logs to build/bench/. Exits with 0
if every goal was measured and is met, else with 1. One thread, standard library only. README.md explains the results.
"""

import argparse
import contextlib
import http.client
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import figures
import machine
import memory
import plot
import reel
import servers
from servers import BENCH, PROJECT, Running, ServerFailed, Stage

STAGES = (
    Stage("VGA", 640, 480, (1, 10, 50, 100, 200)),
    Stage("1080p", 1920, 1080, (1, 10, 50)),
)
BUSY_VIEWERS = 100
TAIL_VIEWERS = 100  # the goals for p99 use this count; a p99 needs twice as many frames as a mean
STUCK_VIEWERS = 20
CONNECTS = 40
BITRATE = 8_000_000  # of H.264
SUBSTREAM = "640x360@5"
RTSP_BITRATE = 4_000_000
RTSP_VIEWERS = 50
RTSP_SECONDS = 2.5
QUALITIES = (40, 50, 60, 70, 80)
QUALITY_VIEWERS = 20
THROTTLED_SHARE = 0.58  # of the stream's rate: 0.7 MB/s of 1.2 MB/s
WARM_UP_S = 0.6  # until the clients' receive windows have grown and the first frames, sent at once, are read
SLOW_WARM_UP_S = 2.5  # until the queues of throttled and stuck clients are full
LOAD_TIMEOUT_S = 120.0
# If other processes use more of the machine than this, a measurement is repeated once, within the time budget of
# `--again`, and the less disturbed one is used.
DISTURBED_PERCENT = 15.0

COMPILED = {
    "limit": ["c/limit.c"],
    "load": ["c/load.c"],
    "rtsp_load": ["c/rtsp_load.c"],
    "standin.so": ["-shared", "-fPIC", "c/standin.c", "-ldl", "-pthread"],
}


class BenchFailed(Exception):
    """The run cannot continue; the message is one line."""


def compile_sources(build: Path) -> None:
    """Compile the C sources into `build`. Raises BenchFailed."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        raise BenchFailed("no C compiler (apt install gcc libc6-dev)")
    build.mkdir(parents=True, exist_ok=True)
    for name, arguments in COMPILED.items():
        command = [compiler, "-std=gnu11", "-O2", "-Wall", "-Wextra", "-o", str(build / name), *arguments]
        if subprocess.run(command, cwd=BENCH, check=False).returncode != 0:
            raise BenchFailed(f"{arguments[-1]} does not compile")


class Bench:
    """One run of the benchmark; `measurements` collects the results in the format of figures.py."""

    def __init__(
        self, build: Path, names: Sequence[str], seconds: float, again_s: float, pictures: Path | None
    ) -> None:
        self.build = build
        self.names = names
        self.seconds = seconds
        self.measurements: list[figures.Measurement] = []
        self.reels: dict[str, Path] = {}
        self._pictures = pictures
        self._again_s = again_s  # time left for repeating disturbed measurements

    def make_reel(self, stage: Stage) -> None:
        """Write the reel of this stage, from the portal or the folder. Raises ServerFailed or OSError."""
        self.reels[stage.name] = path = self.build / f"{stage.name}.reel"
        if self._pictures is not None:
            taken = reel.take_from_folder(self._pictures / stage.name)
        else:
            with servers.start("portal", stage, path, self.build) as running:
                taken = reel.take_from_stream(f"http://127.0.0.1:{running.port}{running.path}")
        reel.write_reel(path, taken)

    def mean_bytes(self, stage: Stage) -> float:
        pictures = reel.read_reel(self.reels[stage.name])
        return sum(map(len, pictures)) / len(pictures)

    def measure(self, number: int, stage: Stage) -> None:
        """Measure every server once in this stage. Raises ServerFailed or BenchFailed."""
        for name in self.names:
            log(f"round {number + 1}, {stage.name}, {name}")
            with servers.start(name, stage, self.reels[stage.name], self.build) as running:
                if name == "portal" and stage.name == STAGES[-1].name:
                    with self._skipping_on_error("the open camera"):
                        self._measure_held_open(number, stage, running)
                for viewers in stage.viewers:
                    self._watch(number, stage, running, "viewers", viewers)
                # One round is enough for servers without a goal.
                if stage.name == STAGES[0].name and (name == "portal" or number == 0):
                    self._measure_special_clients(number, stage, running)
                if name == "portal" and stage.name == STAGES[0].name:
                    self._measure_encodes(number, stage, running)
                if name == "portal" and stage.name == STAGES[-1].name and number == 0:
                    with self._skipping_on_error("/stream.mp4"):
                        self._measure_fmp4(number, stage, running)
        if "passthrough" in self.names and stage.name == STAGES[0].name:
            log(f"round {number + 1}, {stage.name}, passthrough beside a busy thread")
            with servers.start("passthrough", stage, self.reels[stage.name], self.build, is_busy=True) as running:
                self._watch(number, stage, running, "busy", BUSY_VIEWERS)
        if "portal" in self.names and stage.name == STAGES[-1].name:
            command = [sys.executable, str(BENCH / "encode.py"), str(self.reels[stage.name]), str(stage.quality)]
            self._record(number, "encoder", stage, "encode", 0, self._run(command))
            if number == 0:
                with self._skipping_on_error("RTSP"):
                    self._measure_rtsp(number, stage)

    @contextlib.contextmanager
    def _skipping_on_error(self, what: str) -> Iterator[None]:
        """Skip a measurement that this version of the portal does not support; its goal is reported as not measured."""
        try:
            yield
        except (BenchFailed, ServerFailed, OSError) as error:
            log(f"skipped: {what}: {error}")

    def _measure_special_clients(self, number: int, stage: Stage, running: Running) -> None:
        """Measure new, slow and stuck clients."""
        self._record(number, running.name, stage, "connects", 0, self._load(running, "--connects", str(CONNECTS)))
        rate = self.mean_bytes(stage) * stage.fps * THROTTLED_SHARE
        slow = ("--warmup", str(SLOW_WARM_UP_S))
        self._watch(number, stage, running, "throttled", 1, "--throttled", "2", "--rate", f"{rate:.0f}", *slow)
        self._watch(number, stage, running, "stuck", 1, "--stuck", str(STUCK_VIEWERS), *slow)

    def _measure_encodes(self, number: int, stage: Stage, running: Running) -> None:
        """Count the JPEGs encoded per camera frame while twenty clients request five qualities."""
        queries = " ".join(f"quality={quality}" for quality in QUALITIES)
        arguments = ["--viewers", str(QUALITY_VIEWERS), "--seconds", str(self.seconds), "--pid", str(running.pid)]
        arguments += ["--queries", queries]
        samples: list[dict[str, Any]] = []

        def sample_twice() -> None:
            # Only while all are connected: during connects and disconnects the number of encodes per frame varies.
            samples.append(_status(running))
            time.sleep(self.seconds * 0.8)
            samples.append(_status(running))

        measured = self._load(running, *arguments, when_watching=sample_twice)
        made, frames = (samples[1][name] - samples[0][name] for name in ("pictures_encoded", "frames"))
        if frames:
            measured["encoded_each"] = made / frames
        self._record(number, running.name, stage, "encodes", QUALITY_VIEWERS, measured)

    def _measure_fmp4(self, number: int, stage: Stage, running: Running) -> None:
        """Measure H.264 against libx264 alone, and ten clients of it against one; fmp4.py makes its own rounds."""
        program, pictures = [sys.executable, str(BENCH / "fmp4.py")], str(self.reels[stage.name])
        encode = ["encode", pictures, str(stage.fps), str(BITRATE)]
        self._record(number, "portal", stage, "fmp4 encode", 0, self._run([*program, *encode]))
        self._record(number, "portal", stage, "substream", 0, self._run([*program, "substream", pictures, SUBSTREAM]))
        watch = ["watch", str(running.port), str(running.pid), str(self.seconds)]
        self._record(number, "portal", stage, "fmp4 watch", 10, self._run([*program, *watch]))

    def _measure_rtsp(self, number: int, stage: Stage) -> None:
        """Measure RTSP viewers against those of GStreamer's server; rtsp.py makes its own rounds."""
        log(f"round {number + 1}, {stage.name}, RTSP")
        arguments = [str(self.reels[stage.name]), str(stage.fps), str(RTSP_BITRATE), str(RTSP_VIEWERS)]
        arguments += [str(min(self.seconds, RTSP_SECONDS)), str(self.build / "rtsp_load")]
        measured = self._run([sys.executable, str(BENCH / "rtsp.py"), "compare", *arguments])
        self._record(number, "portal", stage, "rtsp", RTSP_VIEWERS, measured)

    def _measure_held_open(self, number: int, stage: Stage, running: Running) -> None:
        """Measure the portal's open camera without clients: the part of the cost that is not caused by clients."""
        connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=servers.START_S)
        connection.request("POST", "/camera/start", body="{}", headers={"Content-Type": "application/json"})
        answer = connection.getresponse()
        answer.read()
        connection.close()
        if answer.status != 200:
            raise BenchFailed(f"POST /camera/start returned {answer.status}")
        time.sleep(WARM_UP_S)
        began_s, began_cpu_s = time.monotonic(), machine.process_cpu_s(running.pid)
        time.sleep(self.seconds)
        spent = {
            "server_cpu_ms": (machine.process_cpu_s(running.pid) - began_cpu_s) * 1000,
            "seconds": time.monotonic() - began_s,
        }
        self._record(number, "portal", stage, "held open", 0, spent)

    def _watch(self, number: int, stage: Stage, running: Running, kind: str, viewers: int, *more: str) -> None:
        seconds = self.seconds * (2 if viewers == TAIL_VIEWERS else 1)
        arguments = ["--viewers", str(viewers), "--seconds", str(seconds), "--pid", str(running.pid)]
        arguments += [*("--warmup", str(WARM_UP_S)), *more]
        began_s = time.monotonic()
        measured = self._load(running, *arguments)
        took_s = time.monotonic() - began_s
        if measured["others_percent"] > DISTURBED_PERCENT and took_s <= self._again_s:
            self._again_s -= took_s
            measured = min(measured, self._load(running, *arguments), key=_disturbance)
        if kind == "stuck":
            # The client that reads has the shortest queue.
            queues = sorted(measured["kernel_bytes"])[-STUCK_VIEWERS:]
            measured["kernel_bytes_each"] = sum(queues) / len(queues) if queues else None
        self._record(number, running.name, stage, kind, viewers, measured)

    def _load(
        self, running: Running, *arguments: str, when_watching: Callable[[], None] | None = None
    ) -> figures.Measurement:
        where = ["--port", str(running.port), "--path", running.path]
        return self._run([str(self.build / "load"), *where, *arguments], running, when_watching)

    def _run(
        self, command: list[str], running: Running | None = None, when_watching: Callable[[], None] | None = None
    ) -> figures.Measurement:
        """Run a client; return its JSON with the server's memory and the load by other processes."""
        more: figures.Measurement = {}
        result: figures.Measurement | None = None
        began: machine.Moment | None = None
        with subprocess.Popen(
            [*servers.WITH_PARENT, *command], stdout=subprocess.PIPE, text=True, cwd=PROJECT
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if line.strip() == "ready" and running is not None:
                    # During the warm-up: the kernel pauses a process to count its pages.
                    more["user_bytes"] = memory.user_bytes(running.pid)
                elif line.strip() == "watching" and running is not None:
                    began = machine.read_cpu_use()
                    more["kernel_bytes"] = memory.kernel_bytes(running.port)
                    if when_watching is not None:
                        when_watching()
                elif line.startswith("{"):
                    ended = machine.read_cpu_use()
                    result = json.loads(line)
                    if began is not None:
                        own_cpu_s = (result["server_cpu_ms"] + result["load_cpu_ms"]) / 1000
                        more["others_percent"] = round(machine.others_percent(began, ended, own_cpu_s), 1)
            code = process.wait(LOAD_TIMEOUT_S)
        if code != 0 or result is None:
            raise BenchFailed(f"{Path(command[0]).name} failed with {code}: {' '.join(command[1:])}")
        return result | more

    def _record(
        self, number: int, server: str, stage: Stage, kind: str, viewers: int, measured: figures.Measurement
    ) -> None:
        key = {"round": number, "server": server, "stage": stage.name, "kind": kind, "viewers": viewers}
        self.measurements.append(measured | key)


def _status(running: Running) -> dict[str, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=servers.START_S)
    connection.request("GET", "/v1/camera/status")
    status: dict[str, Any] = json.loads(connection.getresponse().read())
    connection.close()
    return status


def _disturbance(measured: figures.Measurement) -> float:
    return float(measured["others_percent"])


def draw_plot(results: figures.Results, stages: Sequence[Stage], names: Sequence[str], here: dict[str, object]) -> str:
    panels = []
    for stage in stages:
        lines = []
        for name in names:
            shares = [(count, results.core_share(name, stage.name, count)) for count in stage.viewers]
            points = tuple((count, share) for count, share in shares if share is not None)
            lines.append(plot.Line(name, servers.TITLES[name], points))
        panels.append(plot.Panel(f"{stage.name}, {stage.fps} fps", tuple(lines)))
    note = (
        f"{here['processor']}, {here['cores']} cores. "
        "Soft Stream also draws and encodes each frame; the others send finished JPEGs."
    )
    return plot.draw("CPU of the server, in percent of one core", note, panels)


def log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def report(bench: Bench, here: dict[str, object], options: argparse.Namespace) -> int:
    """Print the tables, write the files, return the exit code."""
    results = figures.Results(bench.measurements)
    goals = figures.judge(results)
    print(figures.format_machine(here, results) + "\n")
    for stage in options.stages:
        print(
            f"{stage.name}: {stage.width}x{stage.height}, {stage.fps} fps, "
            f"{bench.mean_bytes(stage) / 1000:.0f} kB a frame\n"
        )
        print(figures.format_stage(results, bench.names, servers.TITLES, stage.name, stage.viewers) + "\n")
    print(figures.format_rest(results, bench.names, servers.TITLES) + "\n")
    print(figures.format_goals(goals) + "\n")
    print(figures.format_verdict(goals))
    result = {
        "machine": here,
        "disturbance": figures.disturbance(results),
        "seconds": bench.seconds,
        "frame_bytes": {stage.name: bench.mean_bytes(stage) for stage in options.stages},
        "goals": [
            {"what": goal.what, "limit": goal.limit, "unit": goal.unit, "measured": goal.measured, "holds": goal.holds}
            for goal in goals
        ],
        "measurements": bench.measurements,
    }
    for path, text in (
        (options.json, json.dumps(result, indent=1) + "\n"),
        (options.svg, draw_plot(results, options.stages, bench.names, here)),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    log(f"\nwritten: {options.json}, {options.svg}")
    return 0 if all(goal.holds for goal in goals) else 1


def parse_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    build = PROJECT / "build" / "bench"
    parser = argparse.ArgumentParser(prog="bench/run.py", description="Compare the portal with other servers.")
    parser.add_argument("--servers", default=",".join(servers.NAMES), help="comma-separated list (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="number of rounds; medians are reported (%(default)s)")
    parser.add_argument("--seconds", type=float, default=2.5, help="length of each measurement (%(default)s)")
    parser.add_argument(
        "--again", type=float, default=75.0, help="seconds to spend on repeating disturbed measurements (%(default)s)"
    )
    parser.add_argument("--viewers", type=int, nargs="+", help="numbers of clients, instead of the default ones")
    parser.add_argument("--quick", action="store_true", help="one round of one second each: checks that it works")
    parser.add_argument("--pictures", type=Path, help="folder with subfolders VGA and 1080p of JPEGs for the reels")
    parser.add_argument("--build", type=Path, default=build, help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path, default=build / "results.json", help="output file (%(default)s)")
    parser.add_argument("--svg", type=Path, default=build / "results.svg", help="output file of the plot (%(default)s)")
    options = parser.parse_args(arguments)
    if options.quick:
        options.rounds, options.seconds, options.again = 1, 1.0, 0.0
    counts = tuple(options.viewers or ())
    options.stages = [replace(stage, viewers=counts or stage.viewers) for stage in STAGES]
    options.names = [name for name in options.servers.split(",") if name]
    if unknown := [name for name in options.names if name not in servers.NAMES]:
        parser.error(f"--servers: unknown: {', '.join(unknown)}; expected {', '.join(servers.NAMES)}")
    if options.rounds < 1 or not 0.5 <= options.seconds <= 30:
        parser.error("--rounds must be 1 or more, --seconds from 0.5 to 30")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_options(arguments)
    names = []
    for name in options.names:
        missing = servers.find_missing(name)
        if missing is None:
            names.append(name)
        else:
            log(f"skipped: {missing}")
    here = machine.describe()
    bench = Bench(options.build, names, options.seconds, options.again, options.pictures)
    try:
        compile_sources(options.build)
        for stage in options.stages:
            bench.make_reel(stage)
        for number in range(options.rounds):
            for stage in options.stages:
                bench.measure(number, stage)
    except (BenchFailed, ServerFailed, OSError) as error:
        log(f"bench: {error}")
        return 1
    here["load_average_after"] = round(os.getloadavg()[0], 2)
    return report(bench, here, options)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
