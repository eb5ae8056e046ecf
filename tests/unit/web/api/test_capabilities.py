"""The capabilities of the camera: as it reports them, and what is known while it is closed."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from softcam.camera.base import StreamConfig
from softcam.camera.pattern.sensor import MODES, control_ranges
from softcam.camera.session.manager import State
from softcam.controls.schema import BY_NAME
from softcam.errors import CameraError
from softcam.web.api.capabilities import CapabilitiesApi, describe_camera
from softcam.web.api.controls import ControlApi
from softcam.web.http.messages import Response
from tests.support.control_scene import ControllableCamera
from tests.support.fakes import SIZE
from tests.support.raw_http import make_request
from tests.support.sensors import IMX219, IMX477, IMX708, modes_of
from tests.support.web_app import Scene, make_controls

# All that Pi Camera Service 2.7 documents.
FIELDS = (
    "status sensor_model sensor_resolution supported_resolutions exposure_limits_us gain_limits lens_position_limits"
    " exposure_value_range supported_noise_reduction_modes supported_ae_constraint_modes supported_ae_exposure_modes"
    " supported_awb_modes features current_framerate framerate_limits_by_resolution"
    " max_framerate_for_current_resolution is_wide_camera field_of_view_degrees sensor_modes"
    " recommended_resolutions"
)


class Capable(Scene):
    """A camera with the sensor of a Camera Module 3, and the route."""

    def __init__(self, folder: Path) -> None:
        camera = ControllableCamera()
        camera.config = replace(camera.config, sensor_size=IMX708, sensor_modes=modes_of(IMX708))
        super().__init__(camera, linger_s=0.0, folder=folder)
        controls = ControlApi(self.manager, self.control_manager, self.media, 0.0, self.presets)
        self.capabilities = CapabilitiesApi(self.manager, self.control_manager, controls.open_camera)

    def ask(self) -> Mapping[str, Any]:
        return content_of(self.capabilities)


def content_of(api: CapabilitiesApi) -> Mapping[str, Any]:
    answer = api.get(make_request("/v1/camera/capabilities"))
    assert isinstance(answer, Response)
    content: Mapping[str, Any] = json.loads(answer.body)
    return content


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Capable]:
    with Capable(tmp_path) as scene:
        yield scene


def test_first_request_opens_the_camera_and_later_ones_do_not(scene: Capable) -> None:
    with scene.camera.flowing():
        first = scene.ask()
    assert first.keys() == {*FIELDS.split()}
    assert (first["sensor_model"], first["sensor_resolution"]) == ("imx708", {"width": 4608, "height": 2592})
    scene.held.wait_for(State.CLOSED)
    assert scene.ask() == first
    assert scene.camera.opens == 1


def test_camera_that_does_not_open(scene: Capable) -> None:
    scene.camera.fail_next("open", CameraError("no"))
    with pytest.raises(CameraError, match="no"):
        scene.ask()
    assert str(scene.held.take_failure()) == "no"


def test_size_and_rate_follow_the_stream(scene: Capable) -> None:
    with scene.camera.flowing(), scene.manager.lease("hold"):
        scene.held.wait_for(State.OPEN)
        assert (scene.ask()["current_framerate"], scene.ask()["max_framerate_for_current_resolution"]) == (20, 120.13)
        scene.camera.config = replace(scene.camera.config, width=1920, height=1080)
        scene.control_manager.change(BY_NAME["stream"], {"width": 1920, "height": 1080, "fps": 30.0})
        assert (scene.ask()["current_framerate"], scene.ask()["max_framerate_for_current_resolution"]) == (30, 56.03)


def test_highest_rate_is_unknown_once_hdr_was_switched_while_closed(scene: Capable) -> None:
    scene.camera.config = replace(scene.camera.config, has_sensor_hdr=True)
    with scene.camera.flowing():
        assert scene.ask()["max_framerate_for_current_resolution"] == 120.13
    scene.held.wait_for(State.CLOSED)
    scene.control_manager.change(BY_NAME["hdr"], {"mode": "sensor"})
    assert scene.ask()["max_framerate_for_current_resolution"] is None


def test_disabled_camera() -> None:
    content = content_of(CapabilitiesApi(None, make_controls(), lambda _: pytest.fail("opened")))
    assert content.keys() == {*FIELDS.split()}
    assert all(value in (None, []) for name, value in content.items() if name != "status")


def config_of(array_size: tuple[int, int], controls: Mapping[str, Any]) -> StreamConfig:
    return StreamConfig(*SIZE, "YUV420", array_size, controls, sensor_modes=modes_of(array_size))


def test_camera_module_3() -> None:
    content = describe_camera("imx708", config_of(IMX708, control_ranges((1536, 864), MODES.modes[1])))
    assert [each["label"] for each in content["supported_resolutions"]] == ["VGA", "720p", "1080p", "1440p", "4K"]
    assert [each["max_fps"] for each in content["framerate_limits_by_resolution"]] == [
        *(120.13, 120.13),
        56.03,
        *(14.35, 14.35),
    ]
    assert content["exposure_limits_us"] == {"min": 13, "max": 112_015_096}
    assert content["lens_position_limits"] == {"min": 0, "max": 15}
    assert content["exposure_value_range"] == {"min": -8, "max": 8}
    assert content["supported_noise_reduction_modes"] == ["off", "fast", "high_quality", "minimal", "zsl"]
    assert {"auto", "tungsten", "fluorescent", "indoor", "daylight", "cloudy"} <= {*content["supported_awb_modes"]}
    assert not [word for word in content["supported_awb_modes"] if "noir" in word]
    assert {"autofocus", "lens_position_control", "roi_digital_zoom"} <= {*content["features"]}
    assert (content["is_wide_camera"], content["field_of_view_degrees"]) == (False, 66)
    modes = content["sensor_modes"]
    assert [(name, each["width"], each["max_fps"]) for name, each in modes.items()] == [
        ("mode_0", 4608, 14.35),
        ("mode_1", 2304, 56.03),
        ("mode_2", 1536, 120.13),
    ]
    assert modes["mode_1"]["description"] == "whole sensor, 2x2 pixels combined"
    assert modes["mode_2"]["crop"] == {"x": 768, "y": 432, "width": 3072, "height": 1728}
    recommended = content["recommended_resolutions"]
    assert [(each["width"], each["sensor_mode"], each["max_fps"], each["fov"]) for each in recommended] == [
        (2304, "mode_1", 56.03, "full, 66°"),
        (640, "mode_1", 56.03, "full, 66°"),
        (1280, "mode_1", 56.03, "full, 66°"),
        (1920, "mode_1", 56.03, "full, 66°"),
        (2560, "mode_0", 14.35, "full, 66°"),
        (3840, "mode_0", 14.35, "full, 66°"),
        (1536, "mode_2", 120.13, "middle, 67 % of the width"),
    ]


def test_recommendations_for_the_middle_of_the_sensor() -> None:
    content = describe_camera("imx708", config_of(IMX708, {}), "crop")
    rates = {(each["width"], each["max_fps"]) for each in content["framerate_limits_by_resolution"]}
    recommended = content["recommended_resolutions"]
    assert {(each["width"], each["max_fps"]) for each in recommended} == rates
    assert [(each["label"], each["sensor_mode"], each["fov"]) for each in recommended] == [
        ("VGA", "mode_0", "middle, 14 % of the width"),
        ("720p", "mode_0", "middle, 28 % of the width"),
        ("1080p", "mode_0", "middle, 42 % of the width"),
        ("1440p", "mode_0", "middle, 56 % of the width"),
        ("4K", "mode_0", "middle, 83 % of the width"),
    ]


def test_wide_camera_recommends_its_whole_field_of_view() -> None:
    config = StreamConfig(*SIZE, "YUV420", IMX708, sensor_modes=modes_of(IMX708, is_wide=True))
    content = describe_camera("imx708_wide", config)
    assert (content["is_wide_camera"], content["field_of_view_degrees"]) == (True, 102)
    assert {each["fov"] for each in content["recommended_resolutions"]} == {"full, 102°"}
    assert [each["max_fps"] for each in content["framerate_limits_by_resolution"]] == [*[56.03] * 3, *[14.35] * 2]
    assert len(content["sensor_modes"]) == 3


def test_camera_without_autofocus() -> None:
    controls = {"ExposureTime": (114, 694_422_939, 20_000), "AnalogueGain": (1.0, 22.26, None)}
    content = describe_camera("imx477", config_of(IMX477, controls))
    assert content["exposure_limits_us"] == {"min": 114, "max": 694_422_939}
    assert content["lens_position_limits"] is content["field_of_view_degrees"] is None
    assert content["features"] == ["manual_exposure", "exposure_limits", "transform"]
    assert content["supported_awb_modes"] == content["supported_noise_reduction_modes"] == []


def test_modes_of_equal_size() -> None:
    content = describe_camera("imx219", config_of(IMX219, {}))
    assert len(content["sensor_modes"]) == 8
    (native,) = (each for each in content["recommended_resolutions"] if each["width"] == 1640)
    assert content["sensor_modes"][native["sensor_mode"]]["bit_depth"] == 10


def test_camera_without_sensor_modes() -> None:
    config = StreamConfig(*SIZE, "MJPEG", (1280, 720), {"FrameDurationLimits": (33_333, 1_000_000, None)})
    content = describe_camera("C270", config)
    assert content["sensor_modes"] is None
    assert content["recommended_resolutions"] == []
    assert content["framerate_limits_by_resolution"] == [
        {"width": 640, "height": 480, "label": "VGA", "max_fps": 30.0},
        {"width": 1280, "height": 720, "label": "720p", "max_fps": 30.0},
    ]


@pytest.mark.parametrize("limits", [(0, 0, 0), (10, 0, None), (float("nan"), 5, None), (False, True, True)])
def test_unknown_limits(limits: tuple[Any, Any, Any]) -> None:
    config = StreamConfig(*SIZE, "YUV420", IMX708, {"ExposureTime": limits})
    assert describe_camera("imx708", config)["exposure_limits_us"] is None
