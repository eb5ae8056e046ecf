"""The pattern camera's sensor: controls, exposure and frame duration in the metadata."""

from typing import Any

import pytest

from softcam.camera.base import StreamRequest
from softcam.camera.pattern.sensor import (
    MODES,
    SENSOR_SIZE,
    Scene,
    Sensor,
    control_ranges,
    fitting_crop,
    normalise_controls,
)
from softcam.camera.sensor_modes import SensorMode
from tests.support.pattern_sensor import settled_sensor, shoot


@pytest.mark.parametrize(
    ("name", "value", "taken"),
    [
        ("Brightness", 7, 1.0),
        ("ExposureTime", 0, 0),  # automatic again
        ("ExposureTime", 1, 13),
        ("AnalogueGain", 0, 0.0),
        ("AnalogueGain", 100, 16.0),
        ("LensPosition", 99, 15.0),
        ("FrameDurationLimits", (1, 6_000_000), (8_324, 6_000_000)),
        ("AfWindows", [(1, 2, 3, 4)], ((1, 2, 3, 4),)),
        ("AfMode", 2, 2),
    ],
)
def test_normalise(name: str, value: Any, taken: Any) -> None:
    assert normalise_controls({name: value}) == {name: taken}


def test_default_crop_has_the_shape_of_the_render() -> None:
    cropped, whole, _ = MODES.modes
    assert fitting_crop((1536, 864), whole.crop) == (0, 0, *SENSOR_SIZE)
    assert fitting_crop((640, 480), whole.crop) == (576, 0, 3456, 2592)
    assert fitting_crop((640, 480), cropped.crop) == (1152, 432, 2304, 1728)
    assert control_ranges((640, 480), whole)["ScalerCrop"] == ((0, 0, 128, 128), whole.crop, (576, 0, 3456, 2592))


def test_automatic_gain_with_manual_exposure_time() -> None:
    sensor = settled_sensor(ExposureTime=5000)
    shot = shoot(sensor, 10)[-1]
    assert shot.metadata["AnalogueGain"] == pytest.approx(4.5, rel=0.02)
    assert shot.look.exposure == pytest.approx(1, abs=0.01)
    sensor.apply_controls(normalise_controls({"ExposureTime": 0}))
    assert shoot(sensor, 5)[-1].metadata["ExposureTime"] > 15_000


def test_disabled_auto_exposure_keeps_its_values() -> None:
    sensor = settled_sensor()
    settled = sensor.capture_shot(Scene()).metadata
    sensor.apply_controls({"AeEnable": False})
    dark = shoot(sensor, 10, Scene(lux=20))[-1]
    assert dark.metadata["ExposureTime"] == settled["ExposureTime"]
    assert dark.metadata["AnalogueGain"] == pytest.approx(settled["AnalogueGain"], rel=1e-3)
    assert dark.look.exposure < 0.1


@pytest.mark.parametrize(("mode", "exposure_us"), [(0, 20_000), (1, 10_000), (2, 20_040), (3, 20_000)])
def test_exposure_mode_divides_between_time_and_gain(mode: int, exposure_us: int) -> None:
    shot = shoot(settled_sensor(AeExposureMode=mode), 10)[-1]
    assert shot.metadata["ExposureTime"] == pytest.approx(exposure_us, rel=0.01)
    assert shot.look.exposure == pytest.approx(1, abs=0.01), "the image is as bright"


def test_constraint_mode_protects_highlights_or_shadows() -> None:
    normal, highlight, shadows = (shoot(settled_sensor(AeConstraintMode=mode), 10)[-1].look for mode in range(3))
    assert highlight.exposure < 0.9 * normal.exposure
    assert shadows.exposure > 1.1 * normal.exposure


def test_controls_are_reported_with_the_frame_that_they_were_sent_with() -> None:
    sensor = settled_sensor(AeConstraintMode=2, ExposureValue=0.5, AfMode=1)
    first, second = shoot(sensor, 2)
    assert (first.metadata["AeConstraintMode"], first.metadata["ExposureValue"]) == (2, 0.5)
    assert "AfMode" not in first.metadata
    assert not {"AeConstraintMode", "ExposureValue"} & second.metadata.keys()


def test_frame_duration_limits() -> None:
    sensor = settled_sensor(ExposureTime=6_000_000)
    clamped = sensor.capture_shot(Scene())
    assert clamped.metadata["FrameDuration"] == 50_000
    assert 45_000 < clamped.metadata["ExposureTime"] < 50_000
    sensor.apply_controls(normalise_controls({"FrameDurationLimits": (33_333, 10_000_000)}))
    slow = sensor.capture_shot(Scene())
    assert slow.metadata["ExposureTime"] == 6_000_000
    assert slow.metadata["FrameDuration"] >= 6_000_000
    sensor.apply_controls(normalise_controls({"ExposureTime": 1000}))
    assert sensor.capture_shot(Scene()).metadata["FrameDuration"] == 33_333


@pytest.mark.parametrize("mode", MODES.modes)
def test_mode_limits_rate_and_field(mode: SensorMode) -> None:
    shortest_us, _, _ = control_ranges(mode.size, mode)["FrameDurationLimits"]
    assert 1e6 / shortest_us == pytest.approx(mode.fps, abs=0.01)
    sensor = Sensor(StreamRequest(*mode.size, 240), mode)
    shot = sensor.capture_shot(Scene())
    assert shot.metadata["FrameDuration"] == shortest_us
    assert shot.look.crop == mode.crop
    sensor.apply_controls(normalise_controls({"FrameDurationLimits": (1000, 1000)}))
    assert sensor.capture_shot(Scene()).metadata["FrameDuration"] == shortest_us
