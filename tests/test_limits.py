"""The limits of the automatic exposure, on the pattern camera's own automatic."""

from typing import Any

import pytest

from softcam.camera.pattern_sensor import Scene, Sensor, normalise
from softcam.controls.limits import Governor, Limits

LEAST_GAIN = 1.1228


class Rig:
    """A sensor whose automatic is governed."""

    def __init__(self, limits: Limits, fps: float = 10) -> None:
        self.sensor = Sensor(640, 360, fps)
        self.governor = Governor(limits, LEAST_GAIN)
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


def test_no_limits_and_no_metadata_do_nothing() -> None:
    rig = Rig(Limits())
    rig.run(400)
    assert rig.changes == 0
    assert Governor(Limits(max_exposure_us=1), 1.0).step({}) is False
