"""Changes that are in effect but cannot be saved: the response says so, as its description allows."""

import json
import re
from collections.abc import Iterator
from email.message import Message
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from softcam.controls.aliases import ALIASES, AUTOFOCUS_TRIGGER
from softcam.controls.schema import GROUPS
from softcam.web.api.control_aliases import AliasApi
from softcam.web.api.controls import ControlApi
from softcam.web.api.openapi import describe
from softcam.web.http.messages import Request, Response
from softcam.web.http.router import Route, Router
from tests.support.background import eventually
from tests.support.web_app import Scene, make_controls

JSON = Message()
JSON["Content-Type"] = "application/json"
PRESET: dict[str, Any] = {"controls": {"image_processing": {"brightness": 0.5}}}


class Unsaved(Scene):
    """The routes of controls and presets over a folder for the state that is a file until `repair`."""

    def __init__(self, folder: Path) -> None:
        folder.write_text("")
        # The camera is disabled, so that it supports everything.
        super().__init__(folder=folder, controls=make_controls(None, folder))
        self.folder = folder
        controls = ControlApi(None, self.control_manager, self.media, 0.0, self.presets)
        aliases = AliasApi(self.control_manager, controls, lambda: None)
        self.all_routes: list[Route] = [*controls.routes(), *aliases.routes(), *self.presets.routes()]
        self.document = describe(self.all_routes, has_key=False)["paths"]

    def ask(self, method: str, path: str, content: Any = None) -> Any:
        """The response, which is valid by its description."""
        router = Router(self.all_routes)
        body = b"" if content is None else json.dumps(content).encode()
        request = Request(method, path, {}, JSON, "192.0.2.1", body, router.path_parameters(path))
        response = router.find(method, path, {}).handle(request)
        assert isinstance(response, Response)
        answer = json.loads(response.body)
        described = self.document[re.sub("/presets/.", "/presets/{name}", path)][method.lower()]
        schema = described["responses"]["200"]["content"]["application/json"]["schema"]
        jsonschema_rs.validator_for(schema).validate(answer)
        assert answer.get("status", "ok") == "ok"
        return answer

    def example(self, name: str) -> Any:
        body = self.document[f"/v1/camera/{name}"]["post"].get("requestBody")
        return None if body is None else body["content"]["application/json"]["example"]

    def repair(self, name: str) -> None:
        """Returns once the file with this name was written, without another request."""
        self.folder.unlink()
        eventually((self.folder / name).exists, "saved again")


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Unsaved]:
    with Unsaved(tmp_path / "state") as scene:
        yield scene


# A trigger opens the camera, which is disabled here.
NAMES = [*(group.name for group in GROUPS), *(each.body.name for each in ALIASES if each is not AUTOFOCUS_TRIGGER)]


@pytest.mark.parametrize("name", NAMES)
def test_control(scene: Unsaved, name: str) -> None:
    scene.ask("POST", "/v1/camera/roi", {"x": 0.1, "y": 0.1, "width": 0.5, "height": 0.5})
    answer = scene.ask("POST", f"/v1/camera/{name}", scene.example(name))
    reason = f"lost with the next restart: {scene.folder / 'cam0.json'}: File exists; saving is retried"
    assert answer["note"].endswith(reason)
    assert scene.api.content()["controls_not_kept"] in reason
    assert scene.ask("GET", "/v1/camera/controls")["controls_not_kept"] in reason
    scene.repair("cam0.json")
    assert "restart" not in str(scene.ask("POST", f"/v1/camera/{name}", scene.example(name)))
    assert scene.api.content()["controls_not_kept"] is None


def test_preset(scene: Unsaved) -> None:
    reason = f"lost with the next restart: {scene.folder / 'presets.json'}: File exists; saving is retried"
    other = reason.replace("presets.json", "cam0.json")
    requests = {
        ("PUT", "/v1/presets/a"): PRESET,
        ("POST", "/v1/presets/a/apply"): None,
        ("POST", "/v1/presets/a/rename"): {"name": "b"},
        ("POST", "/v1/presets"): {"version": 1, "presets": [{"name": "a", "scope": "look", **PRESET}]},
        ("DELETE", "/v1/presets/a"): None,
    }
    for (method, path), content in requests.items():
        assert (other if "apply" in path else reason) in scene.ask(method, path, content)["note"], path
    scene.repair("presets.json")
    assert scene.ask("PUT", "/v1/presets/c", PRESET)["note"] is None
    assert scene.ask("DELETE", "/v1/presets/c") == {"status": "ok"}
