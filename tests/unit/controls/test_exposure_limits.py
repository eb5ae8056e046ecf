"""The limits of the automatic exposure, on the pattern camera's own automatic."""

from collections import deque
from collections.abc import Mapping
from typing import Any

import pytest

from softcam.camera.pattern.sensor import Scene, Sensor, normalise
from softcam.controls.exposure_limits import ExposureLimiter, Limits

LEAST_GAIN = 1.1228


class Rig:
    """A sensor whose automatic is governed."""

    def __init__(self, limits: Limits, fps: float = 10) -> None:
        self.sensor = Sensor(640, 360, fps)
        self.governor = ExposureLimiter(limits, LEAST_GAIN)
        self.changes = 0

    def run(self, lux: float, frames: int = 120) -> Any:
        for _ in range(frames):
            shot = self.sensor.shoot(Scene(lux=lux))
            if self.governor.step(shot.metadata):
                self.changes += 1
                self.sensor.apply({name: normalise(name, value) for name, value in self.governor.controls.items()})
        return shot.metadata


@pytest.mark.parametrize(
    ("limits", "lux", "low", "high"),
    [
        (Limits(max_exposure_us=5000), 400, 0, 5000),
        (Limits(max_exposure_us=5000), 50, 0, 5000),
        (Limits(min_exposure_us=15_000), 4000, 15_000, 1e9),
        (Limits(min_exposure_us=4000, max_exposure_us=4000), 400, 4000, 4000),
        (Limits(max_exposure_us=5000, max_gain=2.0), 20, 0, 5000),
    ],
)
def test_the_exposure_stays_within(limits: Limits, lux: float, low: float, high: float) -> None:
    rig = Rig(limits)
    metadata = rig.run(lux)
    assert low <= metadata["ExposureTime"] <= high
    assert limits.max_gain is None or metadata["AnalogueGain"] <= limits.max_gain * 1.01
    changes = rig.changes
    rig.run(lux)
    assert rig.changes <= changes + 1  # it rests


@pytest.mark.parametrize(("limits", "lux", "low", "high"), [
    (Limits(max_gain=2.0), 40, 0, 2.02), (Limits(min_gain=4.0), 400, 3.96, 64),
])  # fmt: skip
def test_the_gain_stays_within(limits: Limits, lux: float, low: float, high: float) -> None:
    rig = Rig(limits)
    assert low <= rig.run(lux)["AnalogueGain"] <= high


def test_a_limit_is_let_go_when_the_light_no_longer_needs_it() -> None:
    rig = Rig(Limits(max_exposure_us=5000))
    assert rig.run(100)["AnalogueGain"] > 2
    bright = rig.run(8000)
    assert bright["ExposureTime"] < 5000
    assert rig.governor.controls == {"ExposureTime": 0, "AnalogueGain": 0.0}
    rig = Rig(Limits(max_gain=2.0))
    rig.run(40)
    assert rig.governor.controls["AnalogueGain"] == 2.0
    rig.run(2000)
    assert rig.governor.controls["AnalogueGain"] == 0.0


def test_both_are_let_go_when_the_light_changes() -> None:
    rig = Rig(Limits(max_exposure_us=5000, max_gain=2.0))
    rig.run(20)
    assert all(rig.governor.controls.values())
    bright = rig.run(4000)
    assert bright["ExposureTime"] < 5000


def _shown(fixed: Mapping[str, Any], wanted: float, longest_us: float) -> dict[str, Any]:
    """What an automatic tells that wants `wanted`, microseconds times gain, with these values fixed."""
    exposure_us, gain = fixed["ExposureTime"], fixed["AnalogueGain"]
    if exposure_us:
        gain = gain or min(max(wanted / exposure_us, 1.0), 16.0)
    elif gain:
        exposure_us = min(wanted / gain, longest_us)
    else:
        exposure_us = min(wanted, longest_us)
        gain = min(max(wanted / exposure_us, 1.0), 16.0)
    return {"ExposureTime": exposure_us, "AnalogueGain": gain, "Lux": 6e6 / wanted}


# A Pi's libcamera has six requests queued, and the sensor is some frames behind.
@pytest.mark.parametrize("delay", [0, 2, 8, 12])
@pytest.mark.parametrize(
    ("limits", "wanted"),
    [
        (Limits(max_exposure_us=5000), 30_000.0),
        (Limits(min_exposure_us=15_000), 3000.0),
        (Limits(max_gain=2.0), 400_000.0),
        (Limits(min_gain=4.0), 3000.0),
        (Limits(max_exposure_us=5000, max_gain=2.0), 30_000.0),
    ],
)
def test_it_rests_however_late_a_control_shows(limits: Limits, wanted: float, delay: int) -> None:
    governor = ExposureLimiter(limits, 1.0)
    on_their_way = deque([governor.controls] * delay)
    changes = []
    for frame in range(400):
        on_their_way.append(governor.controls)
        if governor.step(_shown(on_their_way.popleft(), wanted, 50_000.0)):
            changes.append(frame)
    assert 1 <= len(changes) <= 2, changes


# A Pi's automatic goes by steps: the time up to the first of a pair, then the gain up to the second, and so on.
_STEPS = ((10_000, 2.0), (30_000, 4.0), (60_000, 6.0))


def _shown_by_steps(fixed: Mapping[str, Any], wanted: float) -> dict[str, Any]:
    """As `_shown`, of an automatic that raises the gain before the time is at its longest."""
    fixed_us, fixed_gain = fixed["ExposureTime"], fixed["AnalogueGain"]
    exposure_us, gain = fixed_us or 100, fixed_gain or 1.0
    for longest_us, most_gain in _STEPS:
        exposure_us = fixed_us or max(min(wanted / gain, longest_us), exposure_us)
        gain = fixed_gain or max(min(wanted / exposure_us, most_gain), gain)
    return {"ExposureTime": exposure_us, "AnalogueGain": gain, "Lux": 6e6 / wanted}


@pytest.mark.parametrize("delay", [2, 12])
@pytest.mark.parametrize("wanted", [3000.0, 16_000.0, 25_000.0, 29_000.0, 70_000.0])
def test_a_shortest_time_is_kept_where_the_gain_is_raised_first(wanted: float, delay: int) -> None:
    governor = ExposureLimiter(Limits(min_exposure_us=15_000), 1.0)
    on_their_way = deque([governor.controls] * delay)
    for frame in range(400):
        on_their_way.append(governor.controls)
        shown = _shown_by_steps(on_their_way.popleft(), wanted)
        governor.step(shown)
        assert frame <= delay or shown["ExposureTime"] >= 15_000 * 0.99
    for _ in range(100):  # it gets dark
        on_their_way.append(governor.controls)
        governor.step(_shown_by_steps(on_their_way.popleft(), 200_000.0))
    assert governor.controls["ExposureTime"] == 0


@pytest.mark.parametrize(
    ("limits", "wanted", "fixed"),
    [
        (Limits(max_exposure_us=3000, max_gain=2.0), 20_000.0, (3000, 2.0)),
        (Limits(max_exposure_us=20_000, max_gain=2.0), 90_000.0, (20_000, 2.0)),
        (Limits(max_exposure_us=40_000, max_gain=2.0), 60_000.0, (0, 0.0)),
        (Limits(max_exposure_us=40_000, max_gain=1.5), 75_000.0, (0, 1.5)),  # the frame ends before
        (Limits(min_exposure_us=8000, min_gain=2.0), 3000.0, (8000, 2.0)),
        (Limits(max_exposure_us=20_000, max_gain=2.0), 30_000.0, (20_000, 0.0)),
    ],
)
def test_the_first_frames_are_enough_for_both(limits: Limits, wanted: float, fixed: tuple[float, float]) -> None:
    governor = ExposureLimiter(limits, 1.0)
    governor.step({**_shown(governor.controls, wanted, 30_000.0), "FrameDuration": 33_333})
    assert tuple(governor.controls.values()) == fixed


def test_an_automatic_that_still_moves_foretells_nothing() -> None:
    governor = ExposureLimiter(Limits(max_exposure_us=5000, max_gain=2.0), 1.0)
    for wanted in (4000.0, 30_000.0):
        governor.step(_shown(governor.controls, wanted, 50_000.0))
    assert governor.controls == {"ExposureTime": 5000, "AnalogueGain": 0.0}


@pytest.mark.parametrize("bias", [0.2, 1.0, 4.0])
def test_both_rest_where_the_light_is_measured_otherwise_in_a_dark_picture(bias: float) -> None:
    governor = ExposureLimiter(Limits(max_exposure_us=3000, max_gain=2.0), 1.0)

    def run(lux: float, frames: int) -> list[int]:
        changes = []
        for frame in range(frames):
            shown = _shown(governor.controls, 6e6 / lux, 50_000.0)
            shown["Lux"] = lux * (bias if shown["AnalogueGain"] == 2.0 else 1.0)
            if governor.step(shown):
                changes.append(frame)
        return changes

    assert len(run(20.0, 400)) <= 3
    assert run(20.0, 400) == []
    assert len(run(40.0, 400)) >= 2, "another light"
    assert run(40.0, 400) == []
    run(4000.0, 100)
    assert not all(governor.controls.values())


def test_no_limits_and_no_metadata_do_nothing() -> None:
    rig = Rig(Limits())
    rig.run(400)
    assert rig.changes == 0
    assert ExposureLimiter(Limits(max_exposure_us=1), 1.0).step({}) is False
