"""Presets over HTTP: the list, saving, applying, exports and imports, errors; `preset` of a start."""

import json
from collections.abc import Iterator
from dataclasses import replace
from email.message import Message
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from softcam.camera.session.manager import State
from softcam.controls.built_in_presets import BUILT_IN
from softcam.controls.schema import BY_NAME
from softcam.errors import CameraError, PortalError
from softcam.web.api.controls import ControlApi
from softcam.web.http.errors import error_response
from softcam.web.http.messages import Request, Response, parse_target
from softcam.web.http.router import Router
from tests.support.background import Background
from tests.support.control_scene import CONTROLS, ControllableCamera
from tests.support.web_app import Scene
from tests.unit.controls.test_state import ZOOM

BRIGHT = {"image_processing": {"brightness": 0.5}}


class Presets(Scene):
    """A camera with controls and presets, and a client without a socket."""

    def __init__(self, folder: Path) -> None:
        camera = ControllableCamera()
        camera.config = replace(camera.config, controls=CONTROLS)
        super().__init__(camera, folder=folder)
        controls = ControlApi(self.manager, self.control_manager, self.media, 0.0, self.presets)
        self.router = Router([*self.presets.routes(), *controls.routes()])

    def response(self, method: str, target: str, content: Any = None) -> Response:
        path, query = parse_target(target)
        body = b"" if content is None else json.dumps(content).encode()
        route = self.router.find(method, path, query)
        parameters = self.router.path_parameters(path)
        response = route.handle(Request(method, path, query, Message(), "192.0.2.1", body, parameters))
        assert isinstance(response, Response)
        return response

    def ask(self, method: str, target: str, content: Any = None) -> Any:
        return json.loads(self.response(method, target, content).body)

    def refusal(self, method: str, target: str, content: Any = None) -> tuple[int, str]:
        with pytest.raises(PortalError) as caught:
            self.response(method, target, content)
        return error_response(caught.value).status, str(caught.value)

    def preset(self, name: str) -> Any:
        listed = self.ask("GET", "/v1/presets")["presets"]
        return next(each for each in listed if each["name"] == name)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Presets]:
    with Presets(tmp_path) as scene:
        yield scene


def test_list(scene: Presets) -> None:
    scene.ask("PUT", "/v1/presets/a", {"controls": BRIGHT})
    answer = scene.ask("GET", "/v1/presets")
    assert [each["name"] for each in answer["presets"]] == [*BUILT_IN, "a"]
    assert scene.preset("a") == {
        "name": "a", "title": "a", "description": "", "is_built_in": False, "scope": "look", "controls": BRIGHT,
        "in_effect": False, "left_out": [], "limited": [],
    }  # fmt: skip
    assert scene.preset("sports")["title"] == "Sports"
    assert scene.preset("sports")["is_built_in"] is True
    assert answer["current"] == {"look": {"name": "normal", "is_modified": False}, "installation": None}
    assert (answer["presets_set_aside"], answer["presets_not_kept"]) == (None, None)
    with scene.held.open():
        assert {
            "field": "image_processing.noise_reduction",
            "reason": "this camera does not support NoiseReductionMode",
        } in (scene.preset("sports")["left_out"])
        assert scene.preset("long-exposure")["limited"] == [
            {
                "field": "manual_exposure.exposure_us",
                "reason": "this camera supports 10 to 1000000; using 1000000",
            }
        ]


@pytest.mark.parametrize("name", ["a/b?c#d", "Grün 1", "%2F", "🌙", "...", "export", "+"])
def test_any_name_in_a_url(scene: Presets, name: str) -> None:
    path = f"/v1/presets/{quote(name, safe='')}"
    assert scene.ask("PUT", path, {"controls": BRIGHT})["preset"]["name"] == name
    assert scene.ask("GET", path)["controls"] == BRIGHT
    assert scene.ask("POST", f"{path}/apply")["preset"] == name
    assert scene.ask("POST", f"{path}/rename", {"name": "b"})["preset"]["name"] == "b"
    assert scene.ask("DELETE", "/v1/presets/b") == {"status": "ok"}


def test_accents_are_compared_in_normalised_form(scene: Presets) -> None:
    scene.ask("PUT", f"/v1/presets/{quote('Grün')}", {"controls": BRIGHT})
    decomposed = quote("Gru\u0308n")
    assert scene.ask("GET", f"/v1/presets/{decomposed}")["name"] == "Grün"


def test_current_controls_are_saved(scene: Presets) -> None:
    scene.control_manager.change(BY_NAME["image_processing"], {"brightness": 0.5})
    scene.control_manager.change(BY_NAME["roi"], ZOOM)
    saved = scene.ask("PUT", "/v1/presets/a")
    assert saved["status"] == "ok"
    assert saved["note"] is None
    assert (saved["preset"]["controls"], saved["preset"]["in_effect"]) == (BRIGHT, True)
    assert scene.ask("PUT", "/v1/presets/b", {"scope": "installation"})["preset"]["controls"] == {"roi": ZOOM}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ([], "body: must be a JSON object with controls, scope"),
        ({"control": {}}, "'control': unknown field; the body may have controls, scope"),
        ({"scope": "x"}, "scope: must be one of look, installation, all"),
        ({"scope": ["look"]}, "scope: must be one of look, installation, all"),
        ({"scope": None}, "scope: must be one of look, installation, all"),
        ({"controls": None}, "controls: must be a JSON object, or absent"),
        ({"controls": []}, "controls: must be a JSON object"),
        ({"controls": {"hdr": {"mode": 1}, "zoom": {}}}, "hdr: mode: must be one of"),
        ({"controls": {"roi": ZOOM}}, "roi: must be absent from a preset with the scope look"),
    ],
)
def test_invalid_preset_is_rejected(scene: Presets, content: Any, reason: str) -> None:
    status, detail = scene.refusal("PUT", "/v1/presets/a", content)
    assert status == 400
    assert reason in detail
    assert scene.refusal("GET", "/v1/presets/a")[0] == 404


@pytest.mark.parametrize(
    ("method", "path", "content", "status"),
    [
        ("GET", "x", None, 404),
        ("DELETE", "x", None, 404),
        ("POST", "x/apply", None, 404),
        ("POST", "x/rename", {"name": "y"}, 404),
        ("POST", "%FF/apply", None, 404),
        ("DELETE", "normal", None, 409),
        ("PUT", "normal", None, 409),
        ("POST", "normal/rename", {"name": "y"}, 409),
        ("POST", "a/rename", {"name": "b"}, 409),
        ("POST", "a/rename", {"name": "normal"}, 409),
        ("POST", "a/rename", {"name": " "}, 400),
        ("POST", "a/rename", {}, 400),
        ("POST", "a/rename", {"title": "y"}, 400),
        ("POST", "a/apply", {"scope": "look"}, 400),
        ("DELETE", "a", {"force": True}, 400),
        ("PUT", "%20", None, 400),
        ("PUT", "%0A", None, 400),
        ("PUT", "%FF", None, 400),
    ],
)
def test_rejected_requests(scene: Presets, method: str, path: str, content: Any, status: int) -> None:
    for name in ("a", "b"):
        scene.ask("PUT", f"/v1/presets/{name}", {"controls": BRIGHT})
    before = scene.ask("GET", "/v1/presets.json")
    assert scene.refusal(method, f"/v1/presets/{path}", content)[0] == status
    assert scene.ask("GET", "/v1/presets.json") == before


def test_applied_preset_reports_what_became_of_it(scene: Presets) -> None:
    assert scene.ask("POST", "/v1/presets/normal/apply") == {
        "status": "ok", "preset": "normal", "left_out": [], "limited": [], "note": "applied when the camera opens",
    }  # fmt: skip
    with scene.held.open(), scene.camera.flowing():
        answer = scene.ask("POST", "/v1/presets/long-exposure/apply")
        assert [each["field"] for each in answer["left_out"]] == ["image_processing.noise_reduction"]
        assert [each["field"] for each in answer["limited"]] == ["manual_exposure.exposure_us"]
        assert answer["note"] == "exposure_us: the frame rate is reduced to 1 fps"
        assert scene.ask("GET", "/v1/presets")["current"]["look"] == {"name": "long-exposure", "is_modified": False}


def test_export_and_import(scene: Presets) -> None:
    scene.ask("PUT", "/v1/presets/a", {"controls": BRIGHT})
    response = scene.response("GET", "/v1/presets.json")
    assert response.headers["Content-Disposition"] == 'attachment; filename="presets-Front-door.json"'
    exported = json.loads(response.body)
    assert exported == {"version": 1, "presets": [{"name": "a", "scope": "look", "controls": BRIGHT}]}
    status, detail = scene.refusal("POST", "/v1/presets", exported)
    assert (status, detail) == (409, "name: must not be in use, unless replace is 1; there are 'a'")
    assert scene.ask("POST", "/v1/presets?replace=1", exported) == {"status": "ok", "imported": ["a"], "note": None}
    scene.ask("DELETE", "/v1/presets/a")
    scene.ask("POST", "/v1/presets", exported)
    assert scene.preset("a")["controls"] == BRIGHT
    assert scene.refusal("POST", "/v1/presets?replace=maybe", exported)[0] == 400
    assert scene.refusal("POST", "/v1/presets", {"presets": []})[0] == 400
    assert scene.refusal("POST", "/v1/presets")[0] == 400


def test_presets_that_are_not_saved_are_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with Presets(tmp_path / "file") as scene:
        assert "lost with the next restart: " in scene.ask("PUT", "/v1/presets/a")["note"]
        assert str(tmp_path) in scene.ask("GET", "/v1/presets")["presets_not_kept"]
        assert str(tmp_path) in scene.api.content()["presets_not_kept"]


# With the start of the camera


def test_start_applies_a_preset_before_the_camera_opens(scene: Presets) -> None:
    with scene.camera.flowing():
        answer = scene.ask("POST", "/camera/start?preset=sports")
    assert (answer["held"], answer["preset"], answer["note"]) == (True, "sports", None)
    assert {
        "field": "image_processing.noise_reduction",
        "reason": "this camera does not support NoiseReductionMode",
    } in (answer["left_out"])
    camera = scene.camera
    assert isinstance(camera, ControllableCamera)
    assert [request.fps for request in camera.requests] == [50.0]
    scene.ask("POST", "/camera/stop")


def test_preset_that_is_deleted_while_the_camera_opens(scene: Presets) -> None:
    scene.ask("PUT", "/v1/presets/door", {"controls": BRIGHT})
    scene.camera.block("open")
    started = Background(lambda: scene.ask("POST", "/camera/start?preset=door"))
    scene.camera.wait_inside("open")
    scene.ask("DELETE", "/v1/presets/door")
    scene.camera.unblock()
    scene.held.wait_for(State.OPEN)
    with scene.camera.flowing():
        assert started.result()["preset"] == "door"
        scene.ask("POST", "/camera/stop")


def test_start_with_an_unknown_preset_opens_nothing(scene: Presets) -> None:
    for name in ("x", "", "%FF"):
        status, detail = scene.refusal("POST", f"/camera/start?preset={name}")
        assert status == 404
        assert detail.startswith("preset: must be one of /v1/presets")
    assert scene.manager.state is State.CLOSED
    assert scene.camera.opens == 0


def test_start_without_a_preset_is_as_before(scene: Presets) -> None:
    with scene.camera.flowing():
        assert scene.ask("POST", "/camera/start") == {"status": "ok", "held": True, "state": "open"}
        assert scene.ask("POST", "/camera/stop")["held"] is False


def test_start_with_a_preset_that_the_camera_rejects(scene: Presets) -> None:
    """The camera is opened without it, as with any controls that keep it from starting."""
    scene.camera.fail_next("open", CameraError("not like this"))
    started = Background(lambda: scene.ask("POST", "/camera/start?preset=sports"))
    scene.held.wait_for(State.OPEN)
    with scene.camera.flowing():
        answer = started.result()
        assert answer["held"] is True
        assert "reverted" in answer["note"]
        assert "not like this" in scene.api.content()["controls_set_aside"]
        scene.ask("POST", "/camera/stop")
