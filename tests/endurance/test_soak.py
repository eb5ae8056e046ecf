"""Two minutes of the soak. `make soak` runs it for an hour."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Portal
from tests.endurance.soak import FLAGS, Sample, Soak
from tests.endurance.soak_plot import draw
from tests.support.timeouts import TIMEOUT_FACTOR

SECONDS = 120.0
SEED = 1


@pytest.mark.timeout(600 * TIMEOUT_FACTOR)
def test_two_minutes(start_portal: Callable[..., Portal], tmp_path: Path, faults: Path) -> None:
    recordings = tmp_path / "recordings"
    recordings.mkdir()
    soak = Soak(start_portal(*FLAGS, "--recordings", str(recordings), "--pattern-faults", str(faults)), faults, SEED)
    soak.run(SECONDS)
    kinds = {name.partition(" ")[0] for name in soak.report.counts}
    assert {"GET", "POST", "fault", "/stream.mjpg", "/stream.mp4", "DESCRIBE"} <= kinds
    assert len(soak.samples) >= 4


def test_plot() -> None:
    samples = [Sample(60.0, 80.0, 9, 8, 0), Sample(120.0, 90.5, 10, 9, 1)]
    plot = draw(samples)
    assert plot.count("<polyline") == 3
    assert "90.5" in plot
    assert "2 min" in plot
