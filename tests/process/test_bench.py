"""Tests of the benchmark: its arithmetic on example measurements, and one short run with real servers."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.support.timeouts import RUN_LIMIT_S

BENCH = Path(__file__).resolve().parents[2] / "bench"


def load(name: str) -> ModuleType:
    """Import a module of bench/, which is not a package: its programs import each other by their plain names."""
    spec = importlib.util.spec_from_file_location(f"bench_{name}", BENCH / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


figures = load("figures")
machine = load("machine")
reel = load("reel")


def measured(number: int, server: str, viewers: int, cpu_ms: float, **more: Any) -> dict[str, Any]:
    key = {"round": number, "server": server, "stage": "VGA", "kind": "viewers", "viewers": viewers}
    return key | {"seconds": 10.0, "frames": 300 * viewers, "server_cpu_ms": cpu_ms} | more


def test_added_cost_excludes_first_viewer() -> None:
    # 29,700 additional frames in ten seconds cost 297 ms: 10 microseconds each.
    results = figures.Results([measured(0, "portal", 1, 500.0), measured(0, "portal", 100, 797.0)])
    assert results.added_us(0, "portal", "VGA", 100) == pytest.approx(10.0)
    assert results.core_share("portal", "VGA", 1) == pytest.approx(5.0)


def test_added_cost_with_reader() -> None:
    one, many = (
        measured(0, "portal", count, cpu_ms, load_cpu_ms=2 * cpu_ms) for count, cpu_ms in ((1, 500.0), (100, 797.0))
    )
    results = figures.Results([one, many])
    assert results.added_median_us("portal", "VGA", 100, with_reader=True) == pytest.approx(30.0)


def test_memory_per_viewer() -> None:
    sizes = {("portal", 1): 9_000_000, ("portal", 100): 5_000_000, ("passthrough", 1): 1_024_000}
    sizes["passthrough", 100] = 1_024_000 + 99 * 2048
    results = figures.Results([measured(0, *key, 1.0, user_bytes=size) for key, size in sizes.items()])
    assert figures.user_bytes_per_viewer(results) == 2048
    portal, passthrough = figures.format_rest(
        results, ["portal", "passthrough"], {"portal": "a", "passthrough": "b"}
    ).splitlines()[2:]
    assert "-4" not in portal
    assert "2.0" in passthrough


def test_median_of_ratios_within_rounds() -> None:
    rounds = []
    # In the last round the machine is three times slower for both servers. The ratio is 2 except in the middle round.
    for number, (ours_ms, theirs_ms) in enumerate([(594.0, 297.0), (2970.0, 297.0), (1782.0, 891.0)]):
        rounds += [measured(number, "portal", 1, 0.0), measured(number, "portal", 100, ours_ms)]
        rounds += [measured(number, "limit", 1, 0.0), measured(number, "limit", 100, theirs_ms)]
    assert figures.Results(rounds).added_ratio("portal", "limit", "VGA", 100) == pytest.approx(2.0)


def test_goals_without_measurements() -> None:
    goals = figures.judge(figures.Results([]))
    assert len(goals) > 10
    assert {goal.holds for goal in goals} == {None}


@pytest.mark.parametrize(("value", "holds"), [(29.0, True), (28.9, False)])
def test_goals_at_their_limits(value: float, holds: bool) -> None:
    assert figures.Goal("slowest", value, 29, "fps", is_least=True).holds is holds
    assert figures.Goal("cost", 2 * 29 - value, 29, "x").holds is holds


def test_verdict() -> None:
    good, bad, absent = (figures.Goal(name, value, 1.3) for name, value in (("a", 1.2), ("b", 1.4), ("c", None)))
    assert figures.format_verdict([good]) == "All 1 goals met."
    assert figures.format_verdict([good, bad, absent]) == "1 of 3 goals MISSED: b.\n1 of 3 goals not measured: c."


HERE = {
    "processor": "A processor",
    "cores": 2,
    "kernel": "6.12",
    "python": "3.13",
    "ustreamer": None,
    "compiler": "cc 14",
    "load_average": 0.1,
    "load_average_after": 0.5,
}


@pytest.mark.parametrize(("others_percent", "is_warned"), [(3.0, False), (40.0, True)])
def test_warning_about_busy_machine(others_percent: float, is_warned: bool) -> None:
    results = figures.Results([measured(0, "portal", 1, 1.0, others_percent=others_percent)])
    text = figures.format_machine(HERE, results)
    assert f"{others_percent:.0f} % of the machine" in text
    assert ("BUSY" in text) is is_warned


def test_load_by_other_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.os, "cpu_count", lambda: 2)
    began, ended = machine.Moment(100.0, 50.0), machine.Moment(110.0, 58.0)
    # Two cores had twenty seconds; eight were used, three of them by the benchmark.
    assert machine.others_percent(began, ended, 3.0) == pytest.approx(25.0)
    assert machine.others_percent(began, ended, 9.0) == 0.0  # the kernel rounds to ticks


def test_description_of_this_machine() -> None:
    described = machine.describe()
    assert described["cores"] >= 1
    assert described["processor"]
    began, ended = machine.read_cpu_use(), machine.read_cpu_use()
    assert 0 < began.busy_s <= ended.busy_s
    assert machine.process_cpu_s(os.getpid()) > 0


def test_reel_keeps_jpegs_and_adds_stamp(tmp_path: Path) -> None:
    pictures = [b"\xff\xd8first\xff\xd9", b"\xff\xd8second, longer\xff\xd9"]
    reel.write_reel(tmp_path / "reel", pictures)
    stamped = reel.read_reel(tmp_path / "reel")
    assert [picture.replace(reel.STAMP, b"") for picture in stamped] == pictures


def test_short_run(tmp_path: Path) -> None:
    if shutil.which("cc") is None:
        pytest.skip("no C compiler: apt install gcc libc6-dev")
    command = [sys.executable, str(BENCH / "run.py"), "--servers", "limit,passthrough", "--rounds", "1", "--again", "0"]
    where = ["--build", str(tmp_path), "--json", str(tmp_path / "r.json"), "--svg", str(tmp_path / "r.svg")]
    run = subprocess.run(
        [*command, "--seconds", "0.5", "--viewers", "1", "20", *where],
        capture_output=True,
        text=True,
        timeout=RUN_LIMIT_S,
    )
    assert (tmp_path / "r.json").exists(), f"exit code {run.returncode}: {run.stderr}"
    report = json.loads((tmp_path / "r.json").read_text())
    watched = {(one["server"], one["viewers"]): one for one in report["measurements"] if one["kind"] == "viewers"}
    for server in ("limit", "passthrough"):
        for viewers in (1, 20):
            one = watched[server, viewers]
            # All clients received frames, which cost the server CPU time.
            assert one["fps_slowest"] > 0, run.stderr
            assert one["server_cpu_ms"] > 0, run.stderr
            assert one["user_bytes"] > 0, run.stderr
            assert 0 <= one["others_percent"] <= 100, run.stderr
    assert "CPU µs of one more frame" in run.stdout
    assert (tmp_path / "r.svg").read_text().startswith("<svg")
    # Most goals need more servers and clients; goals that were not measured are not met.
    assert run.returncode == 1
    assert "goals not measured" in run.stdout
    assert report["machine"]["cores"] == os.cpu_count()
