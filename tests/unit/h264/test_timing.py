"""Gaps between frames, the announced duration of the last one, and the pace of a limited frame rate."""

import math
from itertools import pairwise

import pytest

from softcam.h264 import timing
from softcam.h264.timing import Pacer


@pytest.mark.parametrize("fps", [0.2, 1.0, 20.0, 120.0])
@pytest.mark.parametrize("last_delta_s", [0.0, 0.004, 0.05, 0.9, 30.0])
def test_gap_is_below_twice_the_announced_duration(fps: float, last_delta_s: float) -> None:
    sample_duration_s = timing.sample_duration_s(last_delta_s, fps)
    limit_s = next(n / 1000 for n in range(1, 100_000) if timing.is_gap(n / 1000, last_delta_s, fps))
    assert limit_s < 2 * sample_duration_s
    assert limit_s > min(max(1 / fps, last_delta_s), 1.0)


@pytest.mark.parametrize(
    ("delta_s", "last_delta_s", "fps", "is_gap"),
    [
        (0.15, 0.05, 20.0, False),  # two frames skipped
        (0.2, 0.05, 20.0, True),
        (0.2, 0.0, 20.0, True),  # the first interval is that of the frame rate
        (0.2, 0.1, 20.0, False),  # the camera is slower than its frame rate
        (4.0, 30.0, 20.0, True),  # a long pause before is not the usual interval
        (15.0, 5.0, 0.2, False),
    ],
)
def test_gap(delta_s: float, last_delta_s: float, fps: float, is_gap: bool) -> None:
    assert timing.is_gap(delta_s, last_delta_s, fps) is is_gap


def select(pacer: Pacer, exposures: list[float]) -> list[float]:
    """Those that a reader of the newest frame selects."""
    selected = []
    for began_s in exposures:
        if began_s > pacer.not_before_s:
            pacer.select(began_s)
            selected.append(began_s)
    return selected


@pytest.mark.parametrize("max_fps", [0.5, 5.0, 7.0, 15.0, 19.9, 20.0, 60.0])
def test_average_rate(max_fps: float) -> None:
    """At 20 frames per second, whose exposures are not exactly even."""
    exposures = [100.0 + 0.05 * number + (0.002 if number % 2 else 0.0) for number in range(400)]
    selected = select(Pacer(max_fps), exposures)
    rate = min(max_fps, 20.0)
    assert len(selected) == pytest.approx(20 * rate, abs=1.01)
    assert max(late - early for early, late in pairwise(selected)) < 1 / rate + 0.06


def test_every_frame() -> None:
    pacer = Pacer(math.inf)
    assert not pacer.is_limiting
    assert select(pacer, [1.0, 1.001, 1.002]) == [1.0, 1.001, 1.002]


def test_pause_is_not_made_up_for() -> None:
    exposures = [100.0 + 0.05 * number for number in range(20)] + [160.0 + 0.05 * number for number in range(20)]
    assert [round(each, 2) for each in select(Pacer(5.0), exposures)] == [
        *(100.0, 100.2, 100.4, 100.6, 100.8),
        *(160.0, 160.2, 160.4, 160.6, 160.8),
    ]
