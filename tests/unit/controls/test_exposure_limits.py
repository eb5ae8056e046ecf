"""The limits of the automatic exposure, on the automatic of the pattern camera and on others."""

from collections import deque
from collections.abc import Mapping
from typing import Any

import pytest

from softcam.camera.base import StreamRequest
from softcam.camera.pattern.sensor import MODES, Scene, Sensor, normalise_controls
from softcam.controls.exposure_limits import ExposureLimiter, Limits

LEAST_GAIN = 1.1228


class Rig:
    """A sensor whose automatic exposure is limited."""

    def __init__(self, limits: Limits, fps: float = 10) -> None:
        self.sensor = Sensor(StreamRequest(640, 360, fps), MODES.choose_mode((640, 360), fps))
        self.limiter = ExposureLimiter(limits, LEAST_GAIN)
        self.changes = 0

    def run(self, lux: float, frames: int = 120) -> Any:
        for _ in range(frames):
            shot = self.sensor.capture_shot(Scene(lux=lux))
            if self.limiter.process_metadata(shot.metadata):
                self.changes += 1
                self.sensor.apply_controls(normalise_controls(self.limiter.controls))
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
def test_exposure_time_stays_within_limits(limits: Limits, lux: float, low: float, high: float) -> None:
    rig = Rig(limits)
    metadata = rig.run(lux)
    assert low <= metadata["ExposureTime"] <= high
    assert limits.max_gain is None or metadata["AnalogueGain"] <= limits.max_gain * 1.01
    changes = rig.changes
    rig.run(lux)
    assert rig.changes <= changes + 1  # it is stable


@pytest.mark.parametrize(("limits", "lux", "low", "high"), [
    (Limits(max_gain=2.0), 40, 0, 2.02), (Limits(min_gain=4.0), 400, 3.96, 64),
])  # fmt: skip
def test_gain_stays_within_limits(limits: Limits, lux: float, low: float, high: float) -> None:
    rig = Rig(limits)
    assert low <= rig.run(lux)["AnalogueGain"] <= high


def test_limit_is_released_when_the_light_allows() -> None:
    rig = Rig(Limits(max_exposure_us=5000))
    assert rig.run(100)["AnalogueGain"] > 2
    bright = rig.run(8000)
    assert bright["ExposureTime"] < 5000
    assert rig.limiter.controls == {"ExposureTime": 0, "AnalogueGain": 0.0}
    rig = Rig(Limits(max_gain=2.0))
    rig.run(40)
    assert rig.limiter.controls["AnalogueGain"] == 2.0
    rig.run(2000)
    assert rig.limiter.controls["AnalogueGain"] == 0.0


def test_both_are_released_when_the_light_changes() -> None:
    rig = Rig(Limits(max_exposure_us=5000, max_gain=2.0))
    rig.run(20)
    assert all(rig.limiter.controls.values())
    bright = rig.run(4000)
    assert bright["ExposureTime"] < 5000


def _shown(fixed: Mapping[str, Any], target: float, longest_us: float) -> dict[str, Any]:
    """The metadata of an automatic with this target, microseconds times gain, and these values fixed."""
    exposure_us, gain = fixed["ExposureTime"], fixed["AnalogueGain"]
    if exposure_us:
        gain = gain or min(max(target / exposure_us, 1.0), 16.0)
    elif gain:
        exposure_us = min(target / gain, longest_us)
    else:
        exposure_us = min(target, longest_us)
        gain = min(max(target / exposure_us, 1.0), 16.0)
    return {"ExposureTime": exposure_us, "AnalogueGain": gain, "Lux": 6e6 / target}


# libcamera on a Raspberry Pi has six requests queued, and the sensor is some frames behind.
@pytest.mark.parametrize("delay", [0, 2, 8, 12])
@pytest.mark.parametrize(
    ("limits", "target"),
    [
        (Limits(max_exposure_us=5000), 30_000.0),
        (Limits(min_exposure_us=15_000), 3000.0),
        (Limits(max_gain=2.0), 400_000.0),
        (Limits(min_gain=4.0), 3000.0),
        (Limits(max_exposure_us=5000, max_gain=2.0), 30_000.0),
    ],
)
def test_stable_with_any_control_latency(limits: Limits, target: float, delay: int) -> None:
    limiter = ExposureLimiter(limits, 1.0)
    pending = deque([limiter.controls] * delay)
    changes = []
    for frame in range(400):
        pending.append(limiter.controls)
        if limiter.process_metadata(_shown(pending.popleft(), target, 50_000.0)):
            changes.append(frame)
    assert 1 <= len(changes) <= 2, changes


# The automatic of a Raspberry Pi goes in steps: time up to the first of a pair, then gain up to the second, etc.
_STEPS = ((10_000, 2.0), (30_000, 4.0), (60_000, 6.0))


def _shown_by_steps(fixed: Mapping[str, Any], target: float) -> dict[str, Any]:
    """As `_shown`, of an automatic that raises the gain before the time is at its maximum."""
    fixed_us, fixed_gain = fixed["ExposureTime"], fixed["AnalogueGain"]
    exposure_us, gain = fixed_us or 100, fixed_gain or 1.0
    for longest_us, most_gain in _STEPS:
        exposure_us = fixed_us or max(min(target / gain, longest_us), exposure_us)
        gain = fixed_gain or max(min(target / exposure_us, most_gain), gain)
    return {"ExposureTime": exposure_us, "AnalogueGain": gain, "Lux": 6e6 / target}


@pytest.mark.parametrize("delay", [2, 12])
@pytest.mark.parametrize("target", [3000.0, 16_000.0, 25_000.0, 29_000.0, 70_000.0])
def test_minimum_exposure_time_with_gain_raised_first(target: float, delay: int) -> None:
    limiter = ExposureLimiter(Limits(min_exposure_us=15_000), 1.0)
    pending = deque([limiter.controls] * delay)
    for frame in range(400):
        pending.append(limiter.controls)
        shown = _shown_by_steps(pending.popleft(), target)
        limiter.process_metadata(shown)
        assert frame <= delay or shown["ExposureTime"] >= 15_000 * 0.99
    for _ in range(100):  # it gets dark
        pending.append(limiter.controls)
        limiter.process_metadata(_shown_by_steps(pending.popleft(), 200_000.0))
    assert limiter.controls["ExposureTime"] == 0


@pytest.mark.parametrize(
    ("limits", "target", "fixed"),
    [
        (Limits(max_exposure_us=3000, max_gain=2.0), 20_000.0, (3000, 2.0)),
        (Limits(max_exposure_us=20_000, max_gain=2.0), 90_000.0, (20_000, 2.0)),
        (Limits(max_exposure_us=40_000, max_gain=2.0), 60_000.0, (0, 0.0)),
        (Limits(max_exposure_us=40_000, max_gain=1.5), 75_000.0, (0, 1.5)),  # limited by the frame duration
        (Limits(min_exposure_us=8000, min_gain=2.0), 3000.0, (8000, 2.0)),
        (Limits(max_exposure_us=20_000, max_gain=2.0), 30_000.0, (20_000, 0.0)),
    ],
)
def test_first_frame_is_enough_for_both(limits: Limits, target: float, fixed: tuple[float, float]) -> None:
    limiter = ExposureLimiter(limits, 1.0)
    limiter.process_metadata({**_shown(limiter.controls, target, 30_000.0), "FrameDuration": 33_333})
    assert tuple(limiter.controls.values()) == fixed


def test_no_prediction_while_the_automatic_adapts() -> None:
    limiter = ExposureLimiter(Limits(max_exposure_us=5000, max_gain=2.0), 1.0)
    for target in (4000.0, 30_000.0):
        limiter.process_metadata(_shown(limiter.controls, target, 50_000.0))
    assert limiter.controls == {"ExposureTime": 5000, "AnalogueGain": 0.0}


@pytest.mark.parametrize("bias", [0.2, 1.0, 4.0])
def test_stable_with_distorted_light_measurement(bias: float) -> None:
    limiter = ExposureLimiter(Limits(max_exposure_us=3000, max_gain=2.0), 1.0)

    def run(lux: float, frames: int) -> list[int]:
        changes = []
        for frame in range(frames):
            shown = _shown(limiter.controls, 6e6 / lux, 50_000.0)
            shown["Lux"] = lux * (bias if shown["AnalogueGain"] == 2.0 else 1.0)
            if limiter.process_metadata(shown):
                changes.append(frame)
        return changes

    assert len(run(20.0, 400)) <= 3
    assert run(20.0, 400) == []
    assert len(run(40.0, 400)) >= 2, "the light has changed"
    assert run(40.0, 400) == []
    run(4000.0, 100)
    assert not all(limiter.controls.values())


def test_without_limits_or_metadata() -> None:
    rig = Rig(Limits())
    rig.run(400)
    assert rig.changes == 0
    assert ExposureLimiter(Limits(max_exposure_us=1), 1.0).process_metadata({}) is False
