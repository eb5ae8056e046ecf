"""The pattern camera's lens: autofocus in the sensor's metadata."""

from typing import Any

import pytest

from softcam.camera.pattern.sensor import Scene, Shot, normalise_controls
from softcam.camera.session.autofocus_cycle import AfState
from tests.support.pattern_sensor import NEAR, settled_sensor, shoot


def states(shots: list[Shot]) -> list[int]:
    """The AfState of the frames without repetitions."""
    seen = [shot.metadata["AfState"] for shot in shots]
    return [state for place, state in enumerate(seen) if place == 0 or state != seen[place - 1]]


def test_lens_position_only_in_manual_mode() -> None:
    sensor = settled_sensor(AfMode=1)
    sensor.apply_controls(normalise_controls({"LensPosition": 9.0}))
    assert sensor.capture_shot(Scene()).metadata["LensPosition"] == 1.0
    sensor.apply_controls(normalise_controls({"LensPosition": 9.0, "AfMode": 0}))
    assert sensor.capture_shot(Scene()).metadata["LensPosition"] == 9.0


def test_scan() -> None:
    sensor = settled_sensor(AfMode=1)
    assert states(shoot(sensor, 5)) == [AfState.IDLE]
    sensor.apply_controls({"AfTrigger": 0})
    shots = shoot(sensor, 20)
    assert states(shots) == [AfState.SCANNING, AfState.FOCUSED]
    scanning = [shot for shot in shots if shot.metadata["AfState"] == AfState.SCANNING]
    assert 6 <= len(scanning) <= 12  # 0.4 s at 20 fps
    assert len({shot.metadata["LensPosition"] for shot in scanning}) >= 6
    assert shots[-1].metadata["LensPosition"] == pytest.approx(1.8)
    assert shots[-1].metadata["FocusFoM"] > 2 * shots[0].metadata["FocusFoM"]


@pytest.mark.parametrize(
    ("scene", "controls"),
    [(Scene(focus="never"), {}), (Scene(), {"AfRange": 1}), (Scene(wall_dioptres=14), {"AfRange": 0})],
    ids=["fault", "farther than the macro range", "nearer than the normal range"],
)
def test_scan_fails(scene: Scene, controls: dict[str, Any]) -> None:
    sensor = settled_sensor(AfMode=1, AfTrigger=0, **controls)
    assert states(shoot(sensor, 20, scene)) == [AfState.SCANNING, AfState.FAILED]


def test_cancel_endless_scan() -> None:
    sensor = settled_sensor(AfMode=1, AfTrigger=0)
    shots = shoot(sensor, 200, Scene(focus="endless"))
    assert states(shots) == [AfState.SCANNING]
    assert len({shot.metadata["LensPosition"] for shot in shots[100:]}) > 5
    sensor.apply_controls({"AfTrigger": 1})
    assert states(shoot(sensor, 5, Scene(focus="endless"))) == [AfState.IDLE]


def test_scan_after_failed_scan() -> None:
    sensor = settled_sensor(AfMode=1, AfTrigger=0)
    shoot(sensor, 20, Scene(focus="never"))
    sensor.apply_controls({"AfTrigger": 0})
    assert states(shoot(sensor, 20)) == [AfState.SCANNING, AfState.FOCUSED]


def test_continuous_focus() -> None:
    sensor = settled_sensor(AfMode=2)
    assert states(shoot(sensor, 20)) == [AfState.SCANNING, AfState.FOCUSED]
    assert states(shoot(sensor, 20)) == [AfState.FOCUSED]
    shots = shoot(sensor, 20, NEAR)
    assert states(shots) == [AfState.SCANNING, AfState.FOCUSED]
    assert shots[-1].metadata["LensPosition"] == pytest.approx(2.6)


def test_manual_after_continuous_focus() -> None:
    sensor = settled_sensor(AfMode=2)
    shoot(sensor, 3)
    sensor.apply_controls({"AfMode": 0})
    assert states(shoot(sensor, 3)) == [AfState.IDLE]
