"""Controls over HTTP: holding the camera open, notes, and values in effect."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from email.message import Message
from pathlib import Path
from typing import Any

import pytest

from softcam.camera.session.manager import State
from softcam.controls.schema import BY_NAME
from softcam.errors import CameraError
from softcam.web.api.controls import ControlApi
from softcam.web.http.messages import Request, Response
from tests.support.background import Background, eventually
from tests.support.control_scene import CONTROLS, DARK, ControllableCamera
from tests.support.fakes import STEADY
from tests.support.web_app import Scene

JSON = Message()
JSON["Content-Type"] = "application/json"


class Controls(Scene):
    """A camera with controls, and the API."""

    def __init__(self, folder: Path, linger_s: float = 60.0) -> None:
        camera = ControllableCamera()
        more = {"ExposureValue": (-8.0, 8.0, 0.0), "AeFlickerMode": (0, 1, 0)}
        camera.config = replace(camera.config, controls={**CONTROLS, **more})
        super().__init__(camera, linger_s=linger_s, folder=folder)
        self.controls = ControlApi(self.manager, self.control_manager, self.media, 0.0, self.presets)

    def post(self, name: str, **values: Any) -> Mapping[str, Any]:
        return answer_of(lambda request: self.controls.set(BY_NAME[name], request), values)

    def value(self, group: str, field: str) -> Any:
        return answer_of(self.controls.list_controls)["controls"][group]["fields"][field]["value"]


def answer_of(handle: Callable[[Request], Any], values: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
    body = b"" if values is None else json.dumps(values).encode()
    answer = handle(Request("POST", "/", {}, JSON, "127.0.0.1", body=body))
    assert isinstance(answer, Response)
    content: Mapping[str, Any] = json.loads(answer.body)
    return content


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Controls]:
    with Controls(tmp_path) as scene:
        yield scene


# Holding the camera open


def test_start_and_stop_report_the_new_state(scene: Controls) -> None:
    for _ in range(20):
        with scene.held.open():
            pass
        assert scene.held.state is State.LINGERING
        scene.camera.emit()
        assert answer_of(scene.controls.start) == {"status": "ok", "held": True, "state": "open"}
        assert answer_of(scene.controls.stop) == {"status": "ok", "held": False, "state": "lingering"}


def test_failed_start_releases_only_its_own_lease(scene: Controls, monkeypatch: pytest.MonkeyPatch) -> None:
    wait_ready = scene.manager.wait_ready
    may_fail, waits = threading.Event(), threading.Event()

    def fail_later(deadline_s: float) -> Any:
        waits.set()
        assert may_fail.wait(10)
        raise CameraError("too late")

    monkeypatch.setattr(scene.manager, "wait_ready", fail_later)
    first = Background(lambda: answer_of(scene.controls.start))
    assert waits.wait(10)
    monkeypatch.setattr(scene.manager, "wait_ready", wait_ready)
    second = Background(lambda: answer_of(scene.controls.start))
    scene.held.wait_for(State.OPEN)
    scene.camera.emit()
    assert second.result()["held"] is True
    may_fail.set()
    with pytest.raises(CameraError, match="too late"):
        first.result()
    assert scene.manager.status().leases["hold"] == 1
    assert answer_of(scene.controls.stop)["held"] is False
    eventually(lambda: not any(scene.leases.values()), "all leases are released")


def test_stop_ends_a_start_in_progress(scene: Controls) -> None:
    starting = Background(lambda: answer_of(scene.controls.start))
    scene.held.wait_for(State.OPEN)
    answer_of(scene.controls.stop)
    scene.camera.emit()
    assert starting.result()["held"] is False
    assert not any(scene.leases.values())


# Notes


def test_note_names_what_the_night_profile_overrides(scene: Controls) -> None:
    assert scene.post("image_processing", saturation=2.0).get("note") is None
    scene.post("day_night_mode", mode="night", night_exposure_value=1.5, night_awb_preset="ir_850nm")
    with scene.held.open():
        note = scene.post("image_processing", saturation=2.0, exposure_value=1.0, contrast=1.5)["note"]
        assert note == (
            "saturation: overridden at night by night_saturation, which is 0; "
            "exposure_value: overridden at night by night_exposure_value, which is 1.5"
        )
        for name, values in (
            ("awb_preset", {"preset": "cloudy"}),
            ("manual_awb", {"red_gain": 1.5, "blue_gain": 1.5}),
            ("awb", {"enabled": True}),
        ):
            assert "overridden at night by night_awb_preset, which is ir_850nm" in scene.post(name, **values)["note"]
        assert scene.post("image_processing", contrast=1.2).get("note") is None
        scene.post("day_night_mode", mode="day")
        assert scene.post("image_processing", saturation=2.0).get("note") is None


def test_note_at_a_measured_night(scene: Controls) -> None:
    scene.post("day_night_mode", mode="auto", threshold_lux=10)
    with scene.held.open():
        for metadata in (STEADY, *[DARK] * 4):
            scene.camera.emit(metadata)
        assert "night_saturation" in scene.post("image_processing", saturation=2.0)["note"]


# Values


def test_values_are_those_that_the_open_camera_applies(scene: Controls) -> None:
    requested: dict[str, dict[str, Any]] = {
        "manual_exposure": {"exposure_us": 1, "gain": 60.0},
        "stream": {"fps": 240.0},
        "image_processing": {"flicker": "auto", "contrast": 9.0},
    }
    applied: dict[str, dict[str, Any]] = {
        "manual_exposure": {"exposure_us": 10, "gain": 16.0},
        "stream": {"fps": 100.0},
        "image_processing": {"flicker": "off", "contrast": 4.0},
    }
    for name, values in requested.items():
        scene.post(name, **values)
        assert {field: scene.value(name, field) for field in values} == values
    with scene.held.open():
        for name, values in applied.items():
            assert {field: scene.value(name, field) for field in values} == values


def test_field_of_view(scene: Controls) -> None:
    def fov_mode() -> Any:
        answer = answer_of(scene.controls.fov_mode)
        assert answer["description"]
        return answer["mode"]

    assert fov_mode() == scene.value("fov_mode", "mode") == "scale"
    answer = scene.post("fov_mode", mode="crop")
    assert (answer["mode"], answer["note"]) == ("crop", "applied when the camera opens")
    assert fov_mode() == scene.value("fov_mode", "mode") == "crop"
    assert scene.post("fov_mode", mode=None)["mode"] == fov_mode() == "scale"
    scene.post("fov_mode", mode="crop")
    with scene.held.open():
        assert scene.post("fov_mode", mode="crop")["note"] is None
        scene.camera.config = replace(scene.camera.config, controls={})
    scene.held.end_linger()
    scene.held.wait_for(State.CLOSED)
    with scene.held.open():
        assert fov_mode() == scene.value("fov_mode", "mode") == "scale", "it cannot crop"


def test_closed_camera_reports_no_deviation_of_an_untried_size(tmp_path: Path) -> None:
    with Controls(tmp_path, linger_s=0.0) as scene:
        with scene.held.open():
            assert "the camera delivers" in scene.post("stream", width=64, fps=240.0)["note"]
        scene.held.wait_for(State.CLOSED)
        assert [scene.value("stream", field) for field in ("width", "fps")] == [scene.camera.config.width, 100.0]
        assert "opens" in scene.post("stream", width=96, fps=125.0)["note"]
        assert [scene.value("stream", field) for field in ("width", "fps")] == [96, 125.0]
        assert "opens" in scene.post("roi", x=0.5, y=0.5, width=0.5, height=0.25)["note"]
        assert scene.value("roi", "height") == 0.25
        with scene.held.open():
            assert scene.value("stream", "width") == scene.camera.config.width
            assert scene.value("roi", "height") == 0.5
