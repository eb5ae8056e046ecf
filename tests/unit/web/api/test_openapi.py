"""The OpenAPI description contains every route and matches the validation; its page is self-contained."""

import json
import re
from importlib.resources import files
from typing import Any

import pytest

from softcam import __version__
from softcam.controls.aliases import ALIASES, Alias
from softcam.controls.schema import GROUPS
from softcam.web.api.control_aliases import AliasApi
from softcam.web.api.controls import ControlApi
from softcam.web.api.openapi import describe, openapi_routes
from softcam.web.http.messages import AnyResponse, Request, Response
from softcam.web.http.router import Doc, Parameter, Route

GOOD = {200: {"application/json": {"type": "object"}}}


def handle(_request: Request) -> AnyResponse:
    return Response()


def route(path: str, method: str = "GET", **more: Any) -> Route:
    return Route((path,), handle, method, **more)


def test_common_responses() -> None:
    document = describe([route("/a", doc=Doc("A", "tag", GOOD, errors=(503,)))], has_key=False)
    assert document["openapi"] == "3.1.0"
    assert document["info"]["version"] == __version__
    assert "security" not in document
    get, head = document["paths"]["/a"]["get"], document["paths"]["/a"]["head"]
    assert get["responses"]["503"]["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Error"}
    assert "content" not in head["responses"]["200"]
    assert get["operationId"] != head["operationId"]


def test_errors_of_changes() -> None:
    doc = Doc("Set", "tag", GOOD, body={"type": "object"}, errors=(400, 409))
    operation = describe([route("/a", "POST", doc=doc)], has_key=True)["paths"]["/a"]["post"]
    assert set(operation["responses"]) == {"200", "400", "401", "403", "408", "409", "411", "413", "415", "429", "503"}
    assert operation["requestBody"]["required"] is True


def test_errors_of_any_request() -> None:
    operations = describe([route("/a", doc=Doc("A", "tag", GOOD))], has_key=False)["paths"]["/a"]
    for method in ("get", "head"):
        assert set(operations[method]["responses"]) == {"200", "400", "408", "411", "413", "503"}


def test_actions_are_parameters_of_the_page() -> None:
    width = Parameter("width", "in pixels", {"type": "integer"})
    page = Route(("/", "/index.html"), handle, doc=Doc("The page", "pages", {200: {"text/html": None}}))
    picture = Doc("One picture", "pictures", {200: {"image/jpeg": None}}, parameters=(width,), errors=(503,))
    routes = [page, Route(("/picture", "/?action=snapshot"), handle, doc=picture)]
    routes.append(
        route("/?action=stream", doc=Doc("The stream", "pictures", {200: {"video/x": None}}, parameters=(width,)))
    )
    paths = describe(routes, has_key=False)["paths"]
    get = paths["/"]["get"]
    action, shared = get["parameters"]
    assert (action["name"], action["schema"]["enum"]) == ("action", ["snapshot", "stream"])
    assert (shared["name"], "snapshot" in shared["description"], "stream" in shared["description"]) == (
        "width",
        True,
        True,
    )
    assert set(get["responses"]["200"]["content"]) == {"text/html", "image/jpeg", "video/x"}
    assert "503" in get["responses"]
    assert "one picture" in get["description"]
    assert "parameters" not in paths["/index.html"]["get"]
    assert set(paths) == {"/", "/index.html", "/picture"}


def test_security() -> None:
    doc = Doc("A", "tag", GOOD, parameters=(Parameter("q", "help", {"type": "integer"}),))
    document = describe([route("/a", doc=doc), route("/open", doc=doc, is_public=True)], has_key=True)
    assert set(document["components"]["securitySchemes"]) == {"header", "bearer", "basic", "query"}
    assert document["paths"]["/open"]["get"]["security"] == []
    assert "401" not in document["paths"]["/open"]["get"]["responses"]
    assert document["paths"]["/a"]["get"]["parameters"][0]["in"] == "query"
    assert "security" not in document["paths"]["/a"]["get"], "as for the whole document, without the key in the query"
    embedded = Route(("/picture",), lambda _: Response(), doc=doc, accepts_query_key=True)
    assert {"query": []} in describe([embedded], has_key=True)["paths"]["/picture"]["get"]["security"]
    assert "security" not in describe([embedded], has_key=False)["paths"]["/picture"]["get"]


def test_description_of_limits() -> None:
    routes = [
        route("/a", doc=Doc("A", "tag", GOOD)), route("/open", doc=Doc("B", "tag", GOOD), is_public=True)
    ]  # fmt: skip
    paths = describe(routes, has_key=True)["paths"]
    assert set(paths["/a"]["get"]["responses"]["401"]["content"]) == {"application/json", "text/html"}
    for path in paths.values():
        assert set(path["get"]["responses"]["503"]["content"]) == {"application/json"}, "too many requests"


def test_assets_and_actions_are_omitted() -> None:
    routes = [route("/assets/a.css"), route("/?action=stream", doc=Doc("A", "tag", GOOD))]
    assert describe(routes, has_key=False)["paths"] == {}
    own, _ = openapi_routes(routes, has_key=False)
    body = own.handle(Request("GET", "/openapi.json", {}, None, "test"))  # type: ignore[arg-type]
    assert isinstance(body, Response)
    assert set(json.loads(body.body)["paths"]) == {"/openapi.json", "/collection.json"}


def test_aliases_are_marked() -> None:
    doc = Doc("A", "tag", GOOD)
    paths = describe([Route(("/v1/a", "/a", "/?action=a"), handle, doc=doc), route("/b", doc=doc)], has_key=False)[
        "paths"
    ]
    assert {path: methods["get"].get("x-alias-of") for path, methods in paths.items()} == {
        "/v1/a": None,
        "/a": "/v1/a",
        "/b": None,
    }


EXAMPLES = [
    ({"type": "object", "properties": {"a": {"type": "boolean"}}}, {}),
    ({"type": "object", "properties": {"a": {"type": "number", "minimum": -8}}, "minProperties": 1}, {"a": -8}),
    ({"type": "object", "properties": {"a": {"enum": ["x", "y"]}}, "required": ["a"]}, {"a": "x"}),
    ({"type": "object", "properties": {"a": {"type": "integer", "default": 3}}}, {"a": 3}),
    ({"oneOf": [{"type": "object", "properties": {"a": {"const": "x"}}, "required": ["a"]}, {}]}, {"a": "x"}),
    ({"type": ["string", "null"]}, ""),
    ({"type": "array"}, []),
]


@pytest.mark.parametrize(("schema", "example"), EXAMPLES)
def test_example_of_a_body(schema: dict[str, Any], example: Any) -> None:
    document = describe([route("/a", "POST", doc=Doc("A", "tag", GOOD, body=schema))], has_key=False)
    assert document["paths"]["/a"]["post"]["requestBody"]["content"]["application/json"]["example"] == example


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.name)
def test_schema_matches_validation(group: Any) -> None:
    schema = group.schema()
    assert schema["additionalProperties"] is False
    assert set(schema["properties"]) == {row.name for row in group.fields}
    assert set(schema.get("required", [])) == {row.name for row in group.fields if row.is_required}
    for row in group.fields:
        if row.low is not None and row.kind in ("integer", "number"):
            assert row.parse(schema["properties"][row.name]["minimum"]) == row.low
            with pytest.raises(ValueError, match="from"):
                row.parse(schema["properties"][row.name]["minimum"] - 1)


@pytest.mark.parametrize("alias", ALIASES, ids=lambda alias: alias.body.name)
def test_other_names_are_described(alias: Alias) -> None:
    document = describe(AliasApi(None, None, lambda: None).routes(), has_key=False)  # type: ignore[arg-type]
    for path in (f"/v1/camera/{alias.body.name}", f"/camera/{alias.body.name}"):
        operation = document["paths"][path]["post"]
        assert operation["summary"]
        assert f"of `{alias.target.name}`" in operation["description"]
        body = operation.get("requestBody")
        assert (body is None) is (not alias.body.fields)
        if body is not None:
            assert body["content"]["application/json"]["schema"] == alias.body.schema()
        answer = operation["responses"]["200"]["content"]["application/json"]["schema"]
        assert answer["required"][0] == next(iter(answer["properties"])) == "status"
        assert set(answer["required"]) <= answer["properties"].keys()


def test_response_fields_are_described() -> None:
    document = describe(ControlApi(None, None, None, 0.0, None).routes(), has_key=False)  # type: ignore[arg-type]
    for group in GROUPS:
        answer = document["paths"][f"/v1/camera/{group.name}"]["post"]["responses"]["200"]["content"][
            "application/json"
        ]["schema"]
        assert answer["additionalProperties"] is False
        assert {group.answers.get(row.name, row.name) for row in group.fields} < set(answer["properties"])
        assert all(schema for schema in answer["properties"].values())


@pytest.mark.parametrize("name", ["docs.html", "docs.js", "docs.css"])
def test_docs_page_is_self_contained(name: str) -> None:
    text = files("softcam.web").joinpath("assets", name).read_text()
    assert re.search(r"https?://|innerHTML|<script(?! src=\"assets/)|style=|\son\w+=", text) is None
