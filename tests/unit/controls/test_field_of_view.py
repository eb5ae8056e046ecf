"""The field of view: the whole one or the sensor's middle, with zoom and stills, and when the camera is reopened."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from softcam.camera.sensor_modes import SensorMode, SensorModes
from softcam.camera.session.manager import State
from softcam.errors import NotSupported
from tests.support.control_scene import CONTROLS, ControlScene

ARRAY = (128, 64)
WHOLE = (0, 0, *ARRAY)
SMALLEST = (0, 0, 8, 4)
SINGLE = SensorMode(ARRAY, 10, 15.0, WHOLE)
BINNED = SensorMode((64, 32), 10, 60.0, WHOLE)
RANGES: Mapping[str, Any] = {"ScalerCrop": (SMALLEST, WHOLE, WHOLE)}


def set_modes(scene: ControlScene, *modes: SensorMode) -> None:
    scene.camera.config = replace(
        scene.camera.config,
        sensor_size=ARRAY,
        controls={**CONTROLS, **RANGES},
        sensor_modes=SensorModes(ARRAY, modes) if modes else None,
    )


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[ControlScene]:
    """Streams of 32x16 pixels."""
    scene = ControlScene(tmp_path)
    set_modes(scene, BINNED, SINGLE)
    with scene.held:
        yield scene


def test_crop_reopens_the_camera_for_another_sensor_mode(scene: ControlScene) -> None:
    with scene.held.open(), scene.camera.flowing():
        assert "ScalerCrop" not in scene.take_sent()
        scene.change("fov_mode", mode="crop")
        assert scene.take_sent()["ScalerCrop"] == (48, 24, 32, 16)
        scene.change("fov_mode", mode="scale")
        assert scene.take_sent().get("ScalerCrop", WHOLE) == WHOLE, "sent at most to the camera that is being closed"
    assert [request.fov for request in scene.camera.requests] == ["scale", "crop", "scale"]


@pytest.mark.parametrize("modes", [(SINGLE,), (BINNED,), ()])
def test_crop_in_the_same_sensor_mode_is_a_control(scene: ControlScene, modes: tuple[SensorMode, ...]) -> None:
    set_modes(scene, *modes)
    with scene.held.open(), scene.camera.flowing():
        scene.settle()
        scene.take_sent()
        scene.change("fov_mode", mode="crop")
        assert scene.take_sent() == {"ScalerCrop": (48, 24, 32, 16)}
        assert scene.control_manager.stream_request.fov == "crop"
        scene.change("image_processing", brightness=0.5)
        assert scene.take_sent() == {"Brightness": 0.5}
        scene.change("fov_mode", mode="scale")
        assert scene.take_sent() == {"ScalerCrop": WHOLE}
    assert scene.camera.opens == 1


def test_configuration_of_a_closed_camera_is_current_after_such_a_change(scene: ControlScene) -> None:
    set_modes(scene, SINGLE)
    with scene.held.open(), scene.camera.flowing():
        scene.settle()
        scene.change("fov_mode", mode="crop")
    scene.held.wait_for(State.CLOSED)
    assert scene.control_manager.current_config is not None
    scene.change("stream", width=64)
    assert scene.control_manager.current_config is None


def test_zoom_is_a_part_of_the_middle(scene: ControlScene) -> None:
    with scene.held.open(), scene.camera.flowing():
        scene.change("fov_mode", mode="crop")
        scene.change("roi", x=0.5, y=0.0, width=0.5, height=0.5)
        assert scene.take_sent()["ScalerCrop"] == (64, 24, 16, 8)


def test_stills_show_what_the_stream_shows(scene: ControlScene) -> None:
    with scene.held.open(), scene.camera.flowing():
        scene.change("fov_mode", mode="crop")
        whole, part = (scene.control_manager.still_view(is_whole=is_whole) for is_whole in (True, False))
        assert whole(RANGES, ARRAY) == {"ScalerCrop": WHOLE}
        assert part(RANGES, (64, 32)) == {"ScalerCrop": (48, 24, 32, 16)}
        assert part(RANGES, (32, 32)) == {"ScalerCrop": (56, 24, 16, 16)}, "in the still's own shape"
        scene.change("roi", x=0.0, y=0.0, width=0.5, height=0.5)
        assert scene.control_manager.still_view(is_whole=False)(RANGES, (64, 32)) == {"ScalerCrop": (48, 24, 16, 8)}
        assert scene.control_manager.still_view(is_whole=True)(RANGES, ARRAY) == {"ScalerCrop": WHOLE}


def test_field_of_view_survives_a_restart(scene: ControlScene, tmp_path: Path) -> None:
    scene.change("fov_mode", mode="crop")
    scene.held.__exit__(None, None, None)
    after = ControlScene(tmp_path)
    set_modes(after, BINNED, SINGLE)
    with after.held, after.held.open():
        assert after.camera.requests[0].fov == "crop"
        assert after.take_sent()["ScalerCrop"] == (48, 24, 32, 16)


def test_configured_field_of_view(tmp_path: Path) -> None:
    scene = ControlScene(tmp_path, fov="crop")
    set_modes(scene, BINNED, SINGLE)
    with scene.held, scene.held.open(), scene.camera.flowing():
        assert scene.take_sent()["ScalerCrop"] == (48, 24, 32, 16)
        scene.change("fov_mode", mode="scale")
        scene.control_manager.reset()
    assert [request.fov for request in scene.camera.requests] == ["crop", "scale", "crop"]


def test_camera_that_cannot_crop(scene: ControlScene) -> None:
    scene.change("fov_mode", mode="crop")
    scene.camera.config = replace(scene.camera.config, controls={}, sensor_modes=None)
    with scene.held.open(), scene.camera.flowing():
        scene.settle()
        assert scene.problem("not_applied") == ["mode: this camera does not support ScalerCrop"]
        with pytest.raises(NotSupported, match="mode: this camera does not support ScalerCrop"):
            scene.change("fov_mode", mode="crop")
        scene.change("fov_mode", mode="scale")
        assert scene.problem("not_applied") == []
