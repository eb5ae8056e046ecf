"""The OpenAPI 3.1 description of the API, generated once from the routing table.

The routes carry their schemas, which come from the control schema. Only what all routes share is written here. An
operation under another path of its route has `x-alias-of`, the route's first path; one whose response ends only with
the connection has `x-is-endless`. Runs on the main thread, at start.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from http import HTTPStatus
from typing import Any, Final

from softcam import __version__
from softcam.web.api.collection import COLLECTION_DOC, collection_response
from softcam.web.api.json_schema import STRING, json_ok, record
from softcam.web.http.messages import json_response
from softcam.web.http.router import Doc, Parameter, Route

_ACTION: Final = "/?action="
_ERROR: Final = {"application/json": {"$ref": "#/components/schemas/Error"}}
_SECURITY: Final[Mapping[str, Any]] = {
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "bearer": {"type": "http", "scheme": "bearer"},
    "basic": {"type": "http", "scheme": "basic", "description": "any user name, the key as the password"},
}
_QUERY_KEY: Final = {"type": "apiKey", "in": "query", "name": "key", "description": "the key of CAMERA_VIEW_KEY only"}
_REASONS: Final[Mapping[int, str]] = {
    400: "Invalid value; the error names the field and what is expected",
    401: "The API key is missing or wrong",
    403: "The key is read-only, or a cross-origin request would change something",
    404: "Not found",
    408: "Timed out reading the request",
    409: "Not supported by this camera, or not possible in its current state",
    411: "The body has no Content-Length",
    413: "The body is too large",
    415: "The body is not application/json",
    416: "The range is beyond the end of the file",
    429: "Too many wrong API keys from this address; the key was not compared",
    503: "Temporarily unavailable: no frame from the camera, or too many requests at once",
}
# Any request may be malformed, or exceed the limit of concurrent requests.
_ANY_REQUEST: Final = (400, 408, 411, 413, 503)
_WITH_BODY: Final = (403, 415)


def openapi_routes(routes: Sequence[Route], *, has_key: bool) -> list[Route]:
    """The routes of the description and of the collection made from it; it includes both.

    `has_key`: whether an API key is required, except for public routes.
    """
    doc = Doc("OpenAPI description", "pages", json_ok({"type": "object"}))
    own = Route(("/openapi.json",), lambda _: response, doc=doc)
    requests = Route(("/collection.json",), lambda request: collection_response(document, request), doc=COLLECTION_DOC)
    document = describe([*routes, own, requests], has_key=has_key)
    response = json_response(document, headers={"Cache-Control": "no-cache"})
    return [own, requests]


def describe(routes: Sequence[Route], *, has_key: bool) -> dict[str, Any]:
    described = [(path, route, route.doc) for route in routes if route.doc is not None for path in route.paths]
    actions = {path.removeprefix(_ACTION): doc for path, _, doc in described if path.startswith(_ACTION)}
    paths: dict[str, dict[str, Any]] = {}
    for path, route, doc in described:
        if path.startswith(_ACTION):
            continue  # OpenAPI paths have no query
        operations, method = paths.setdefault(path, {}), route.method.lower()
        operation = _operation(route, _with_actions(doc, actions) if path == "/" else doc, has_key=has_key)
        name = "".join(part if part.isalnum() else "_" for part in path).strip("_") or "page"
        if path != route.paths[0]:
            operation["x-alias-of"] = route.paths[0]
        operations[method] = operation | {"operationId": f"{method}_{name}"}
        if method == "get":
            responses = operation["responses"].items()
            no_content = {status: {"description": each["description"]} for status, each in responses}
            operations["head"] = operation | {"operationId": f"head_{name}", "responses": no_content}
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "Soft Stream",
            "version": __version__,
            "description": "One camera: streams, snapshots, status and controls. "
            'Errors are {"detail": …} and name the field and what is expected. Unknown query parameters are ignored. '
            "A request target that is too long returns 414, header fields that are too large return 431.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "./", "description": "the server of this description"}],
        "paths": dict(sorted(paths.items())),
        "components": {"schemas": {"Error": record({"detail": STRING})}},
    }
    if has_key:
        document["components"]["securitySchemes"] = {**_SECURITY, "query": _QUERY_KEY}
        document["security"] = [{name: []} for name in _SECURITY]
    return document


def _with_actions(page: Doc, actions: Mapping[str, Doc]) -> Doc:
    """The page's description, with `/?action=NAME` as a parameter."""
    if not actions:
        return page
    responses = {status: dict(contents) for status, contents in page.responses.items()}
    names = {"type": "string", "enum": sorted(actions)}
    parameters = {"action": Parameter("action", "the live stream or a snapshot instead of the page", names)}
    for name, doc in sorted(actions.items()):
        for status, contents in doc.responses.items():
            responses.setdefault(status, {}).update(contents)
        for parameter in doc.parameters:
            known = parameters.get(parameter.name)
            start = "with action " if known is None else f"{known.help}; with "
            parameters[parameter.name] = replace(known or parameter, help=f"{start}{name}: {parameter.help}")
    summaries = "; ".join(
        f"with action {name}: {doc.summary[0].lower()}{doc.summary[1:]}" for name, doc in actions.items()
    )
    errors = {*page.errors}.union(*(doc.errors for doc in actions.values()))
    return replace(
        page,
        responses=responses,
        description=f"{page.description} {summaries[0].upper()}{summaries[1:]}.".strip(),
        parameters=(*page.parameters, *parameters.values()),
        errors=tuple(sorted(errors)),
    )


def _operation(route: Route, doc: Doc, *, has_key: bool) -> dict[str, Any]:
    statuses = {*doc.errors, *_ANY_REQUEST}
    if route.method != "GET":
        statuses.update(_WITH_BODY)
    contents = {**doc.responses, **dict.fromkeys(sorted(statuses), _ERROR)}
    if has_key and not route.is_public:
        contents[401] = {**_ERROR, "text/html": None}  # HTML for browsers
        contents[429] = _ERROR
    parameters = [
        {"name": each.name, "in": each.place, "description": each.help, "schema": each.schema}
        | ({"required": True} if each.place == "path" else {})
        for each in doc.parameters
    ]
    operation = {
        "tags": [doc.tag],
        "summary": doc.summary,
        "description": doc.description or None,
        "parameters": parameters or None,
        "requestBody": None if doc.body is None else _request_body(doc.body, is_required=doc.is_body_required),
        "responses": {str(status): _response(status, doc, content) for status, content in contents.items()},
        "x-is-endless": True if doc.is_endless else None,
        "security": _security(route, has_key=has_key),
    }
    return {name: value for name, value in operation.items() if value is not None}


def _request_body(schema: Mapping[str, Any], *, is_required: bool) -> dict[str, Any]:
    return {
        "required": is_required,
        "content": {"application/json": {"schema": schema, "example": _example(schema)}},
    }


def _example(schema: Mapping[str, Any]) -> Any:
    """The schema's own example, or the smallest valid value; of alternatives, the first.

    An object has the properties that are required or have an example or a default.
    """
    if "examples" in schema:
        return schema["examples"][0]
    if "default" in schema:
        return schema["default"]
    alternatives = schema.get("oneOf") or schema.get("anyOf")
    if alternatives:
        return _example(alternatives[0])
    if "const" in schema or "enum" in schema:
        return schema.get("const", next(iter(schema.get("enum", ())), None))
    match [schema.get("type")] if isinstance(schema.get("type"), str) else schema.get("type"):
        case ["object", *_]:
            fields = schema.get("properties", {})
            required = {*schema.get("required", ())}
            chosen = [
                name for name, each in fields.items() if name in required or each.keys() & {"default", "examples"}
            ]
            if not chosen and schema.get("minProperties"):
                chosen = [*fields][:1]
            return {name: _example(fields[name]) for name in chosen}
        case ["array", *_]:
            return []
        case ["boolean", *_]:
            return False
        case ["integer" | "number", *_]:
            return schema.get("minimum", 0)
        case ["string", *_]:
            return ""
    return None


def _security(route: Route, *, has_key: bool) -> list[dict[str, list[str]]] | None:
    """The ways to authenticate for one route; None where they are those of the whole document."""
    if route.is_public:
        return []
    return [{name: []} for name in (*_SECURITY, "query")] if has_key and route.accepts_query_key else None


def _response(status: int, doc: Doc, contents: Mapping[str, Mapping[str, Any] | None]) -> dict[str, Any]:
    text = HTTPStatus(status).phrase if status in doc.responses else _REASONS[status]
    if not contents:
        return {"description": text}
    schemas = {kind: {} if schema is None else {"schema": schema} for kind, schema in contents.items()}
    return {"description": text, "content": schemas}
