"""A short run of the load with ratios that hold on a busy machine. `make load` prints the figures."""

from collections.abc import Callable

import pytest

from tests.conftest import Portal
from tests.endurance.load import ENVIRONMENT, FLAGS, FULL, compare, table

SECONDS = 8.0
LATENCY_MS = 200.0  # the goal on two idle cores; on busier ones, as many times more than what is usual without load
USUAL_MS = 10.0
RATE, SLOWEST_RATE = 0.9, 0.8  # of that without load
GROWTH_MB = 40.0


@pytest.mark.measurement
def test_many_clients(start_portal: Callable[..., Portal]) -> None:
    idle, loaded = compare(start_portal(*FLAGS, environment=ENVIRONMENT), FULL, SECONDS)
    figures = table(idle, loaded)
    print(figures)
    for name in ("status", "health"):
        limit_ms = LATENCY_MS * max(1.0, idle[f"{name}_p99_ms"] / USUAL_MS)
        assert loaded[f"{name}_p99_ms"] < limit_ms, figures
    for kind in ("mjpeg", "mp4"):
        assert loaded[f"{kind}_median_fps"] > RATE * idle[f"{kind}_median_fps"], figures
        assert loaded[f"{kind}_slowest_fps"] > SLOWEST_RATE * idle[f"{kind}_slowest_fps"], figures
    assert loaded["memory_growth_mb"] < GROWTH_MB, figures


def test_table() -> None:
    assert table({"status_p99_ms": 2.0}, {"status_p99_ms": 5.0, "controls_per_s": 9.84}).splitlines()[2:] == [
        "| status p99 ms | 2 | 5 | 2.50 |",
        "| controls per s |  | 9.84 |  |",
    ]
