"""Controls under the names of other camera services: one state with the portal's own names, and frame rates."""

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from email.message import Message
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from softcam.camera.base import StreamRequest
from softcam.camera.sensor_modes import SensorMode, SensorModes
from softcam.camera.session.manager import State
from softcam.controls.aliases import ALIASES
from softcam.controls.schema import BY_NAME
from softcam.errors import CameraError, NoPicture, NotSupported
from softcam.web.api.control_aliases import AliasApi
from softcam.web.api.controls import ControlApi
from softcam.web.http.errors import error_response
from softcam.web.http.messages import Request, Response
from softcam.web.http.router import Router
from tests.support.background import Background, eventually
from tests.support.control_scene import CONTROLS, ControllableCamera
from tests.support.fakes import FakeCamera
from tests.support.web_app import Scene, make_controls
from tests.unit.camera.session.test_manager_remote import RemoteCamera

MODES: Mapping[str, Any] = {
    "AeConstraintMode": (0, 3, 0),
    "AeExposureMode": (0, 3, 0),
    "ExposureValue": (-8.0, 8.0, 0.0),
    "NoiseReductionMode": (0, 2, 0),
}
WHOLE = (0, 0, 1280, 720)
SENSOR_MODES = SensorModes(
    WHOLE[2:],
    (
        SensorMode((320, 180), 10, 120.0, WHOLE),
        SensorMode((640, 360), 10, 60.0, WHOLE),
        SensorMode((1280, 720), 10, 15.0, WHOLE),
    ),
)
HDR_MODES = replace(SENSOR_MODES, modes=(SensorMode((640, 360), 10, 30.0, WHOLE),))
NAMES = ("exposure_value", "noise_reduction", "awb_mode", "resolution", "framerate")


def highest_fps(width: int) -> float:
    return SENSOR_MODES.highest_fps((width, width * 9 // 16))


class SensorCamera(ControllableCamera):
    """Delivers the requested size at a rate that depends on it."""

    def __init__(self) -> None:
        super().__init__()
        self.config = replace(self.config, controls={**CONTROLS, **MODES}, sensor_modes=SENSOR_MODES)

    def prepare(self, request: StreamRequest) -> None:
        super().prepare(request)
        limits = round(1e6 / highest_fps(request.width)), 1_000_000, None
        controls = {**self.config.controls, "FrameDurationLimits": limits}
        self.config = replace(self.config, width=request.width, height=request.height, controls=controls)


class Aliases(Scene):
    """A camera, and the routes of controls with all their names."""

    def __init__(self, folder: Path, camera: FakeCamera | None = None, linger_s: float = 60.0, **limits: float) -> None:
        """`limits` are further arguments of `AliasApi`."""
        super().__init__(camera or SensorCamera(), linger_s=linger_s, folder=folder, autofocus_timeout_s=5.0)
        self.stops: list[str] = []
        controls = ControlApi(self.manager, self.control_manager, self.media, 0.0, self.presets)
        aliases = AliasApi(self.control_manager, controls, lambda: self.stops.append("publishing"), **limits)
        self.router = Router([*controls.routes(), *aliases.routes()])

    def post(self, name: str, values: Mapping[str, Any] | None = None, prefix: str = "/v1") -> Mapping[str, Any]:
        return content_of(self.router, "POST", f"{prefix}/camera/{name}", values)

    def value(self, group: str, field: str) -> Any:
        controls = content_of(self.router, "GET", "/v1/camera/controls")["controls"]
        return controls[group]["fields"][field]["value"]


def content_of(router: Router, method: str, path: str, values: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
    body = b"" if values is None else json.dumps(values).encode()
    answer = router.find(method, path, {}).handle(Request(method, path, {}, Message(), "127.0.0.1", body=body))
    assert isinstance(answer, Response)
    content: Mapping[str, Any] = json.loads(answer.body)
    return content


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Aliases]:
    with Aliases(tmp_path) as scene:
        yield scene


@pytest.mark.parametrize("prefix", ["", "/v1"])
@pytest.mark.parametrize(
    ("name", "body", "group", "field", "value", "sent"),
    [
        ("exposure_value", {"ev": 1.5}, "image_processing", "exposure_value", 1.5, {"ExposureValue": 1.5}),
        ("noise_reduction", {"mode": "off"}, "image_processing", "noise_reduction", "off", {"NoiseReductionMode": 0}),
        ("awb_mode", {"mode": "daylight"}, "awb_preset", "preset", "daylight", {"AwbEnable": True, "AwbMode": 5}),
        ("awb_mode", {"mode": "custom"}, "awb_preset", "preset", "custom", {"AwbEnable": True, "AwbMode": 7}),
    ],
)
def test_one_state_under_all_names(
    scene: Aliases, prefix: str, name: str, body: dict[str, Any], group: str, field: str, value: Any, sent: Any
) -> None:
    with scene.held.open():
        assert scene.post(name, body, prefix) == {"status": "ok", **body}
        assert scene.value(group, field) == value
        assert sent.items() <= {name: each for sent in scene.camera.sent for name, each in sent.items()}.items()
    listed = content_of(scene.router, "GET", "/v1/camera/controls")["controls"]
    assert not {alias.body.name for alias in ALIASES} & listed.keys(), "an alias has no value to list"


def test_a_white_balance_mode_replaces_the_others(scene: Aliases) -> None:
    for name, values in (("manual_awb", {"red_gain": 1.5, "blue_gain": 1.8}), ("awb", {"enabled": False})):
        scene.post(name, values)
        scene.post("awb_mode", {"mode": "cloudy"})
        assert scene.control_manager.requested.groups == {"awb_preset": {"preset": "cloudy"}}
        assert scene.value("awb", "enabled") is True
    scene.post("manual_awb", {"red_gain": 1.5, "blue_gain": 1.8})
    assert scene.value("awb_preset", "preset") is None


def test_other_fields_of_the_group_are_unchanged(scene: Aliases) -> None:
    scene.post("image_processing", {"contrast": 1.2, "exposure_value": -1.0})
    scene.post("exposure_value", {"ev": 0.5})
    scene.post("image_processing", {"brightness": 0.1})
    assert scene.control_manager.requested.groups["image_processing"] == {
        "contrast": 1.2,
        "exposure_value": 0.5,
        "brightness": 0.1,
    }


def test_rejections_name_the_field_of_the_request(scene: Aliases) -> None:
    with scene.held.open(), pytest.raises(NotSupported, match=r"^mode: this camera supports off, fast, high_quality$"):
        scene.post("noise_reduction", {"mode": "zsl"})


@pytest.mark.parametrize(
    ("name", "body", "reason"),
    [
        ("exposure_value", {"ev": 1}, "ev: this camera does not support ExposureValue"),
        ("noise_reduction", {"mode": "off"}, "mode: this camera does not support NoiseReductionMode"),
        ("awb_mode", {"mode": "auto"}, "mode: this camera does not support AwbMode"),
        ("ae_exposure_mode", {"mode": "long"}, "mode: this camera does not support AeExposureMode"),
        ("ae_constraint_mode", {"mode": "shadows"}, "mode: this camera does not support AeConstraintMode"),
        ("autofocus_trigger", None, "autofocus_trigger: this camera does not support AfMode"),
    ],
)
def test_camera_without_the_control(tmp_path: Path, name: str, body: dict[str, Any] | None, reason: str) -> None:
    with Aliases(tmp_path, FakeCamera()) as scene, scene.held.open():
        with pytest.raises(NotSupported) as caught:
            scene.post(name, body)
        assert str(caught.value) == reason


def test_note_at_night_names_the_field_of_the_request(scene: Aliases) -> None:
    scene.post("day_night_mode", {"mode": "night", "night_exposure_value": 1.5, "night_awb_preset": "ir_850nm"})
    with scene.held.open():
        note = scene.post("exposure_value", {"ev": 1})["note"]
        assert note == "ev: overridden at night by night_exposure_value, which is 1.5"
        note = scene.post("awb_mode", {"mode": "cloudy"})["note"]
        assert note == "mode: overridden at night by night_awb_preset, which is ir_850nm"


# Autofocus


def test_autofocus_trigger_returns_the_outcome(scene: Aliases) -> None:
    with scene.camera.flowing({"AfState": 2, "LensPosition": 1.8}):
        assert scene.post("autofocus_trigger") == {"status": "ok", "focused": True, "lens_position": 1.8}
        assert scene.post("autofocus_trigger", {}, prefix="")["focused"] is True


def test_autofocus_trigger_in_manual_focus(scene: Aliases) -> None:
    scene.post("lens_position", {"position": 2})
    with scene.camera.flowing(), pytest.raises(NotSupported, match=r"^autofocus_trigger: the focus is manual"):
        scene.post("autofocus_trigger")


def test_autofocus_trigger_returns_in_time_whatever_it_waits_for(tmp_path: Path) -> None:
    with Aliases(tmp_path, trigger_timeout_s=0.05) as scene:
        camera = scene.camera
        camera.block("open")
        with pytest.raises(NoPicture, match="no frame from the camera in time") as caught:
            scene.post("autofocus_trigger")
        assert error_response(caught.value).status == 503
        camera.unblock()
        with scene.held.open():
            camera.emit()
            assert scene.post("autofocus_trigger") == {"status": "ok", "focused": None, "lens_position": None}
            camera.block("close")
            flip = Background(lambda: scene.post("transform", {"hflip": True}))
            camera.wait_inside("close")
            with pytest.raises(CameraError, match="another control change is in progress") as refused:
                scene.control_manager.change(BY_NAME["autofocus"], {"trigger": True}, deadline_s=time.monotonic())
            assert error_response(refused.value).status == 503
            camera.unblock()
            flip.result()


# Size and frame rate


def test_resolution_is_the_size_of_the_stream(scene: Aliases) -> None:
    assert scene.post("resolution", {"width": 641, "height": 361}) == {
        "status": "ok",
        "width": 640,
        "height": 360,
        "note": "applied when the camera opens",
    }
    with scene.camera.flowing(), scene.manager.lease("hold"):
        scene.held.wait_for(State.OPEN)
        answer = scene.post("resolution", {"width": 320, "height": 180, "restart_streaming": True})
        assert answer == {"status": "ok", "width": 320, "height": 180, "note": None}
        assert (scene.value("stream", "width"), scene.value("stream", "height")) == (320, 180)
    assert scene.stops == []


def test_resolution_that_the_camera_changes(tmp_path: Path) -> None:
    with Aliases(tmp_path, ControllableCamera()) as scene, scene.camera.flowing(), scene.manager.lease("hold"):
        scene.held.wait_for(State.OPEN)
        answer = scene.post("resolution", {"width": 640, "height": 360})
        assert answer["status"] == "ok"
        assert (answer["width"], answer["height"]) == (scene.camera.config.width, scene.camera.config.height)
        assert answer["note"].startswith("width: the camera delivers ")


@pytest.mark.parametrize(("width", "height", "highest"), [(320, 180, 120.0), (640, 180, 60.0), (1280, 720, 15.0)])
def test_rate_is_clamped_to_what_the_sensor_does(scene: Aliases, width: int, height: int, highest: float) -> None:
    with scene.camera.flowing(), scene.manager.lease("hold"):
        scene.held.wait_for(State.OPEN)
        scene.post("resolution", {"width": width, "height": height})
        rate = {
            "max_framerate_for_resolution": highest,
            "resolution": f"{width}x{height}",
            "note": None,
        }
        assert scene.post("framerate", {"framerate": 500}) == {
            "status": "ok",
            "requested_framerate": 500.0,
            "applied_framerate": highest,
            **rate,
            "clamped": True,
        }
        assert scene.value("stream", "fps") == highest
        assert scene.control_manager.problems()["controls_not_applied"] == []
        answer = scene.post("framerate", {"framerate": 10})
        assert (answer["applied_framerate"], answer["clamped"]) == (10.0, False)
        answer = scene.post("framerate", {"framerate": 1e-9})
        assert (answer["applied_framerate"], answer["clamped"]) == (0.1, True)


def test_rate_of_a_camera_that_was_never_open_opens_it(scene: Aliases) -> None:
    assert scene.camera.opens == 0
    with scene.camera.flowing():
        assert scene.post("framerate", {"framerate": 500})["max_framerate_for_resolution"] == 120.0
        opens = scene.camera.opens
        assert opens == 2, "to learn the limits, and with the rate"
        with scene.manager.lease("hold"):
            scene.held.wait_for(State.OPEN)
    assert scene.camera.config.sensor_modes is SENSOR_MODES
    scene.held.end_linger()
    scene.held.wait_for(State.CLOSED)
    scene.post("resolution", {"width": 1280, "height": 720})
    answer = scene.post("framerate", {"framerate": 500})
    assert (answer["applied_framerate"], answer["resolution"]) == (15.0, "1280x720")
    assert scene.camera.opens == opens, "the limits of all sizes are known"


class HdrCamera(SensorCamera):
    """Has other sensor modes while HDR is on."""

    def __init__(self) -> None:
        super().__init__()
        self.config = replace(self.config, has_sensor_hdr=True)

    def prepare(self, request: StreamRequest) -> None:
        super().prepare(request)
        self.config = replace(self.config, sensor_modes=SENSOR_MODES if request.hdr == "off" else HDR_MODES)


def test_rate_after_hdr_was_switched_while_closed(tmp_path: Path) -> None:
    with Aliases(tmp_path, HdrCamera(), linger_s=0.0) as scene, scene.camera.flowing():
        assert scene.post("framerate", {"framerate": 500})["max_framerate_for_resolution"] == 120.0
        for mode, highest in (("sensor", 30.0), ("off", 120.0)):
            scene.held.wait_for(State.CLOSED)
            scene.post("hdr", {"mode": mode})
            assert not scene.control_manager.knows_frame_rates
            answer = scene.post("framerate", {"framerate": 100})
            assert (answer["applied_framerate"], answer["clamped"]) == (min(100.0, highest), highest < 100)
            assert answer["max_framerate_for_resolution"] == highest
            scene.held.wait_for(State.CLOSED)
            assert scene.control_manager.knows_frame_rates


def test_rate_is_unchanged_if_the_camera_does_not_open(tmp_path: Path) -> None:
    scene = Aliases(tmp_path)
    scene.camera.fail_next("open", CameraError("no"))
    with pytest.raises(CameraError, match="no"):
        scene.post("framerate", {"framerate": 10})
    assert scene.control_manager.requested.is_empty
    assert str(scene.held.take_failure()) == "no"
    scene.__exit__(None)


def test_size_beyond_the_sensor_has_the_rate_of_its_largest_mode(scene: Aliases) -> None:
    scene.camera.config = replace(scene.camera.config, sensor_modes=replace(SENSOR_MODES, modes=SENSOR_MODES.modes[:2]))
    with scene.camera.flowing(), scene.manager.lease("hold"):
        scene.held.wait_for(State.OPEN)
        scene.post("resolution", {"width": 1280, "height": 720})
        assert scene.post("framerate", {"framerate": 500})["applied_framerate"] == 60.0


def test_size_and_field_of_view_in_one_step(scene: Aliases) -> None:
    scene.camera.config = replace(scene.camera.config, controls={**CONTROLS, **MODES})
    camera = scene.camera
    assert isinstance(camera, SensorCamera)
    with camera.flowing(), scene.manager.lease("hold"):
        scene.held.wait_for(State.OPEN)
        scene.post("resolution", {"width": 320, "height": 180, "fov_mode": "crop"})
        assert [(each.width, each.fov) for each in camera.requests[1:]] == [(320, "crop")]
        assert scene.value("fov_mode", "mode") == "crop"
        # Only the mode with single pixels shows the middle.
        assert scene.post("framerate", {"framerate": 500})["applied_framerate"] == 15.0


def test_field_of_view_names_the_part_that_a_fast_mode_delivers(scene: Aliases) -> None:
    whole = {"status": "ok", "mode": "scale", "description": "the whole field of view at every size", "note": None}
    middle = SensorMode((320, 180), 10, 120.0, (320, 180, 640, 360))
    modes = replace(SENSOR_MODES, modes=(middle, *SENSOR_MODES.modes[1:]))
    with scene.camera.flowing(), scene.manager.lease("hold"):
        scene.held.wait_for(State.OPEN)
        assert content_of(scene.router, "GET", "/v1/camera/fov_mode") == whole
        scene.camera.config = replace(scene.camera.config, sensor_modes=modes, sensor_mode=middle)
        note = scene.post("framerate", {"framerate": 500})["note"]
        assert note == "fps: at this rate the sensor delivers only the middle 50 % of its width"
        part = {"mode": "scale", "description": "the middle 50 % of the sensor's width", "note": note}
        assert content_of(scene.router, "GET", "/v1/camera/fov_mode") == {"status": "ok", **part}
        answer = scene.post("fov_mode", {"mode": "scale"})
        assert {name: answer[name] for name in part} == part


def test_size_is_unchanged_if_the_field_of_view_is_not_supported(scene: Aliases) -> None:
    scene.camera.config = replace(scene.camera.config, controls={})
    with scene.camera.flowing(), scene.manager.lease("hold"):
        scene.held.wait_for(State.OPEN)
        with pytest.raises(NotSupported, match="fov_mode: this camera does not support ScalerCrop"):
            scene.post("resolution", {"width": 320, "height": 180, "fov_mode": "crop"})
        assert scene.control_manager.requested.is_empty


def test_rate_of_a_camera_without_sensor_modes(tmp_path: Path) -> None:
    camera = FakeCamera({"FrameDurationLimits": (33_333, 1_000_000, None)})
    with Aliases(tmp_path, camera) as scene, camera.flowing():
        answer = scene.post("framerate", {"framerate": 60})
        assert (answer["applied_framerate"], answer["max_framerate_for_resolution"]) == (30.0, 30.0)


def test_rate_of_a_camera_without_limits(tmp_path: Path) -> None:
    with Aliases(tmp_path, FakeCamera()) as scene, scene.camera.flowing():
        answer = scene.post("framerate", {"framerate": 1000})
        assert (answer["applied_framerate"], answer["clamped"]) == (240.0, True)
        assert answer["max_framerate_for_resolution"] is None


def test_rate_of_a_source_with_its_own_rate(tmp_path: Path) -> None:
    def note(limit_fps: int) -> str:
        return f"framerate: the source decides its own rate, of which at most {limit_fps} fps are shown"

    names = ("applied_framerate", "max_framerate_for_resolution", "clamped")
    with Aliases(tmp_path, RemoteCamera()) as scene:
        answer = scene.post("framerate", {"framerate": 500})
        assert [answer[name] for name in names] == [240.0, None, True], "unknown while it is closed"
        assert answer["note"].endswith(note(240))
        with scene.camera.flowing(), scene.manager.lease("hold"):
            scene.held.wait_for(State.OPEN)
            eventually(lambda: scene.manager.status().frames >= 10)
            answer = scene.post("framerate", {"framerate": 500})
            source_fps = answer["applied_framerate"]
            assert 0 < source_fps < 216
            assert [answer[name] for name in names] == [source_fps, source_fps, True]
            assert answer["note"] == note(240)
            assert scene.value("stream", "fps") == 240, "a source that becomes faster is not limited"
            eventually(lambda: scene.manager.status().frames >= 20)
            answer = scene.post("framerate", {"framerate": 0.5})
            assert (answer["applied_framerate"], answer["clamped"]) == (0.5, False)
            assert answer["note"].endswith("of which at most 0.5 fps are shown")


def test_rate_of_a_disabled_camera(scene: Aliases) -> None:
    manager = make_controls()
    api = AliasApi(manager, ControlApi(None, manager, scene.media, 0.0, scene.presets), lambda: None)
    answer = content_of(Router(api.routes()), "POST", "/camera/framerate", {"framerate": 12.5})
    assert (answer["applied_framerate"], answer["max_framerate_for_resolution"]) == (12.5, None)
    assert manager.requested.get("stream", "fps") == 12.5


@pytest.mark.parametrize(
    ("name", "values"), [("resolution", {"width": 320, "height": 180}), ("framerate", {"framerate": 9})]
)
def test_publishing_is_stopped_unless_it_is_to_restart(scene: Aliases, name: str, values: dict[str, Any]) -> None:
    with scene.camera.flowing():
        scene.post(name, values)
        scene.post(name, {**values, "restart_streaming": True})
        assert scene.stops == []
        scene.post(name, {**values, "restart_streaming": False})
        assert scene.stops == ["publishing"]


def test_sizes_and_rates_of_many_threads_never_mix(scene: Aliases) -> None:
    sizes = [(320 + 2 * each, 180) for each in range(-6, 0)] + [(640, 360), (1280, 720)]
    rates = [7.0, 11.0, 13.0, 25.0, 100.0, 500.0]
    camera = scene.camera
    assert isinstance(camera, SensorCamera)
    with camera.flowing(), scene.manager.lease("hold"):
        scene.held.wait_for(State.OPEN)
        by_size = [
            Background(partial(scene.post, "resolution", {"width": width, "height": height})) for width, height in sizes
        ]
        by_rate = [Background(partial(scene.post, "framerate", {"framerate": rate})) for rate in rates]
        size_answers = [each.result() for each in by_size]
        rate_answers = [each.result() for each in by_rate]
        stream = {name: scene.value("stream", name) for name in ("width", "height", "fps")}
    # Each response is what the camera was opened with because of it.
    opened = [(each.width, each.height, each.fps) for each in camera.requests]
    for size, answer in zip(sizes, size_answers, strict=True):
        assert (answer["status"], answer["width"], answer["height"]) == ("ok", *size)
        assert size in [each[:2] for each in opened]
    for rate, answer in zip(rates, rate_answers, strict=True):
        width, height = map(int, answer["resolution"].split("x"))
        assert answer["max_framerate_for_resolution"] == highest_fps(width)
        assert answer["applied_framerate"] == min(rate, highest_fps(width))
        assert answer["clamped"] is (rate > highest_fps(width))
        assert (width, height, answer["applied_framerate"]) in opened
    # And each opening differs from the one before in what one request has set.
    for before, after in pairwise(opened):
        assert (before[:2] == after[:2]) or (before[2] == after[2])
    last = opened[-1]
    assert (stream["width"], stream["height"]) == last[:2]
    assert stream["fps"] == pytest.approx(min(last[2], highest_fps(last[0])), rel=0.01)
