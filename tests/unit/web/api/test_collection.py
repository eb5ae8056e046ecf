"""The collection has every operation once, with an example that the portal accepts, and the variables of its URLs."""

import json
from typing import Any

import pytest

from softcam.controls.aliases import ALIASES
from softcam.controls.schema import GROUPS
from softcam.web.api.collection import collection, collection_response, operations
from softcam.web.api.openapi import describe, openapi_routes
from softcam.web.http.messages import AnyResponse, HttpError, Request, Response
from softcam.web.http.router import Doc, Parameter, Route
from tests.support.raw_http import make_request
from tests.support.web_app import Scene

GOOD = {200: {"application/json": {"type": "object"}}}


def handle(_request: Request) -> AnyResponse:
    return Response()


def items_of(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The requests of all folders, by name."""
    return {item["name"]: item["request"] for folder in document["item"] for item in folder["item"]}


def test_request() -> None:
    body = {"type": "object", "properties": {"width": {"type": "integer", "minimum": 64}}, "required": ["width"]}
    name = Parameter("name", "of the file", {"type": "string", "examples": ["a.mp4"]}, "path")
    depth = Parameter("depth", "of the search", {"type": "integer", "default": 3})
    doc = Doc("Crop it", "files", GOOD, "How it is cropped.", parameters=(name, depth), body=body)
    route = Route(("/v1/files/{name}/crop", "/files/{name}/crop"), handle, "POST", doc=doc)
    made = collection(describe([route], has_key=False), "http://camera.local:8081/")
    assert made["variable"] == [{"key": "baseUrl", "value": "http://camera.local:8081"}]
    assert "auth" not in made
    assert [folder["name"] for folder in made["item"]] == ["Files"]
    assert items_of(made) == {
        "Crop it": {
            "method": "POST",
            "header": [{"key": "Content-Type", "value": "application/json"}],
            "url": {
                "raw": "{{baseUrl}}/v1/files/:name/crop",
                "host": ["{{baseUrl}}"],
                "path": ["v1", "files", ":name", "crop"],
                "query": [{"key": "depth", "value": "3", "description": "of the search", "disabled": True}],
                "variable": [{"key": "name", "value": "a.mp4", "description": "of the file"}],
            },
            "description": "How it is cropped.",
            "body": {"mode": "raw", "raw": '{\n  "width": 64\n}', "options": {"raw": {"language": "json"}}},
        }
    }


def test_key() -> None:
    routes = [
        Route(("/a",), handle, doc=Doc("A", "tag", GOOD)),
        Route(("/b",), handle, doc=Doc("B", "tag", GOOD), is_public=True),
    ]
    made = collection(describe(routes, has_key=True), "http://localhost")
    assert {"key": "value", "value": "{{apiKey}}", "type": "string"} in made["auth"]["apikey"]
    assert {"key": "apiKey", "value": ""} in made["variable"]
    assert [items_of(made)[name].get("auth") for name in "AB"] == [None, {"type": "noauth"}]


def test_two_methods_for_the_same() -> None:
    keep = Doc("Keep it", "files", GOOD)
    routes = [Route(("/keep",), handle, method, doc=keep) for method in ("POST", "PUT")]
    routes.append(Route(("/keep",), handle, doc=Doc("Is it kept", "files", GOOD)))
    made = collection(describe(routes, has_key=False), "http://localhost")
    assert [(item["name"], item["request"]["method"]) for item in made["item"][0]["item"]] == [
        ("Keep it", "POST"), ("Is it kept", "GET")
    ]  # fmt: skip


def test_all_operations_once(scene: Scene) -> None:
    described = describe([*scene.routes(), *openapi_routes([], has_key=False)], has_key=False)
    answer = collection_response(described, make_request("/collection.json?url=https://garden.example/camera/"))
    assert isinstance(answer, Response)
    assert answer.headers["Content-Disposition"] == 'attachment; filename="soft-stream.postman_collection.json"'
    made = json.loads(answer.body)
    assert made["variable"][0]["value"] == "https://garden.example/camera"
    requests = items_of(made)
    assert len(requests) == len([*operations(described)]) == sum(len(folder["item"]) for folder in made["item"])
    urls = [request["url"]["raw"] for request in requests.values()]
    assert {"{{baseUrl}}/", "{{baseUrl}}/snapshot.jpg", "{{baseUrl}}/collection.json"} < {*urls}
    assert "{{baseUrl}}/frame" not in urls, "an alias"


@pytest.mark.parametrize(
    ("headers", "url"),
    [
        ({"Host": "camera.local:8081"}, "http://camera.local:8081"),
        ({"Host": "camera.local:8081", "X-Forwarded-Proto": "https"}, "https://camera.local:8081"),
    ],
)
def test_base_url_of_the_request(headers: dict[str, str], url: str) -> None:
    (_, route) = openapi_routes([], has_key=False)
    answer = route.handle(make_request("/collection.json", headers=headers, is_local=True))
    assert isinstance(answer, Response)
    assert json.loads(answer.body)["variable"] == [{"key": "baseUrl", "value": url}]


def test_malformed_url() -> None:
    document = describe([], has_key=False)
    with pytest.raises(HttpError, match="url: must be a URL with a host"):
        collection_response(document, make_request("/collection.json?url=javascript:alert(1)"))


@pytest.mark.parametrize("group", [*GROUPS, *(alias.body for alias in ALIASES)], ids=lambda group: group.name)
def test_examples_are_valid(group: Any) -> None:
    route = Route(("/a",), handle, "POST", doc=Doc("A", "tag", GOOD, body=group.schema()))
    body = describe([route], has_key=False)["paths"]["/a"]["post"]["requestBody"]["content"]["application/json"]
    assert group.parse(body["example"]) is not None
