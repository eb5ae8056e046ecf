"""The pattern camera's sensor: controls, exposure and frame duration in the metadata."""

from typing import Any

import pytest

from softcam.camera.pattern.sensor import SENSOR_SIZE, Scene, control_ranges, fitting_crop, normalise_controls
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
        ("FrameDurationLimits", (1, 6_000_000), (17_849, 6_000_000)),
        ("AfWindows", [(1, 2, 3, 4)], ((1, 2, 3, 4),)),
        ("AfMode", 2, 2),
    ],
)
def test_normalise(name: str, value: Any, taken: Any) -> None:
    assert normalise_controls({name: value}) == {name: taken}


def test_default_crop_has_the_shape_of_the_render() -> None:
    assert fitting_crop(1536, 864) == (0, 0, *SENSOR_SIZE)
    assert fitting_crop(640, 480) == (576, 0, 3456, 2592)
    assert control_ranges(640, 480)["ScalerCrop"][2] == (576, 0, 3456, 2592)


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
