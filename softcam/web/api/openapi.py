"""The OpenAPI 3.1 description of the API, generated once from the routing table.

The routes carry their schemas, which come from the control schema. Only what all routes share is written here.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from http import HTTPStatus
from typing import Any, Final

from softcam import __version__
from softcam.web.http.messages import AnyResponse, Request, json_response
from softcam.web.http.router import Doc, Parameter, Route

_ERROR: Final = {"$ref": "#/components/schemas/Error"}
_SECURITY: Final[Mapping[str, Any]] = {
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "bearer": {"type": "http", "scheme": "bearer"},
    "basic": {"type": "http", "scheme": "basic", "description": "any user name, the key as the password"},
}
_REASONS: Final[Mapping[int, str]] = {
    400: "Invalid value; the error names the field and what is expected",
    401: "The API key is missing or wrong",
    403: "The key is read-only, or a cross-origin request would change something",
    404: "Not found",
    408: "Timed out reading the body",
    409: "Not supported by this camera, or not possible in its current state",
    411: "The body has no Content-Length",
    413: "The body is too large",
    415: "The body is not application/json",
    416: "The range is beyond the end of the file",
    503: "Temporarily unavailable: no frame from the camera, or too many requests at once",
}
# Any request may be malformed, or exceed the limit of concurrent requests.
_ANY_REQUEST: Final = (400, 408, 411, 413, 503)
_WITH_BODY: Final = (403, 415)


class OpenApi:
    """The document and its handler."""

    def __init__(self, routes: Iterable[Route], *, has_key: bool) -> None:
        """`has_key`: whether an API key is required, except for public routes."""
        self._response = json_response(describe(routes, has_key=has_key), headers={"Cache-Control": "no-cache"})

    def answer(self, _request: Request) -> AnyResponse:
        return self._response


def openapi_routes(routes: Sequence[Route], *, has_key: bool) -> list[Route]:
    """The route of the description, which includes itself."""
    doc = Doc("OpenAPI description", "pages", {200: {"application/json": {"type": "object"}}})
    placeholder = Route(("/openapi.json",), _not_implemented, doc=doc)
    return [replace(placeholder, handle=OpenApi([*routes, placeholder], has_key=has_key).answer)]


def _not_implemented(_request: Request) -> AnyResponse:
    raise NotImplementedError  # in the table only while the description is generated


def describe(routes: Iterable[Route], *, has_key: bool) -> dict[str, Any]:
    paths: dict[str, dict[str, Any]] = {}
    for route in _with_actions([*routes]):
        if route.doc is None:
            continue
        for path in route.paths:
            if path.startswith("/?"):
                continue  # the page's path, where it is described as a parameter
            operations = paths.setdefault(path, {})
            operations[route.method.lower()] = _operation(route, route.doc, path, has_key=has_key)
            if route.method == "GET":
                operations["head"] = _operation(route, route.doc, path, has_key=has_key, is_head=True)
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
        "components": {
            "schemas": {
                "Error": {
                    "type": "object",
                    "properties": {"detail": {"type": "string"}},
                    "required": ["detail"],
                    "additionalProperties": False,
                }
            }
        },
    }
    if has_key:
        document["components"]["securitySchemes"] = dict(_SECURITY)
        document["security"] = [{name: []} for name in _SECURITY]
    return document


def _with_actions(routes: Sequence[Route]) -> Iterator[Route]:
    """The routes, with `/?action=NAME` described as a parameter of the page, since OpenAPI paths have no query."""
    actions = {
        path.partition("=")[2]: route.doc
        for route in routes
        for path in route.paths
        if path.startswith("/?action=") and route.doc is not None
    }
    for route in routes:
        if "/" not in route.paths or route.doc is None or not actions:
            yield route
            continue
        others = tuple(path for path in route.paths if path != "/")
        if others:
            yield replace(route, paths=others)
        yield replace(route, paths=("/",), doc=_doc_with(route.doc, actions))


def _doc_with(doc: Doc, actions: Mapping[str, Doc]) -> Doc:
    responses = {status: dict(contents) for status, contents in doc.responses.items()}
    parameters = [
        Parameter(
            "action", "the live stream or a snapshot instead of the page", {"type": "string", "enum": sorted(actions)}
        )
    ]
    errors = {*doc.errors}
    for name, each in sorted(actions.items()):
        for status, contents in each.responses.items():
            responses.setdefault(status, {}).update(contents)
        errors.update(each.errors)
        for parameter in each.parameters:
            known = next((known for known in parameters if known.name == parameter.name), None)
            if known is None:
                parameters.append(replace(parameter, help=f"with action {name}: {parameter.help}"))
            else:
                parameters[parameters.index(known)] = replace(
                    known, help=f"{known.help}; with {name}: {parameter.help}"
                )
    description = "; ".join(
        f"with action {name}: {each.summary[0].lower()}{each.summary[1:]}" for name, each in actions.items()
    )
    return replace(
        doc,
        responses=responses,
        description=f"{doc.description} {description[0].upper()}{description[1:]}.".strip(),
        parameters=(*doc.parameters, *parameters),
        errors=tuple(sorted(errors)),
    )


def _operation(route: Route, doc: Doc, path: str, *, has_key: bool, is_head: bool = False) -> dict[str, Any]:
    method = "head" if is_head else route.method.lower()
    name = "".join(part if part.isalnum() else "_" for part in path).strip("_") or "page"
    statuses = {*doc.errors, *_ANY_REQUEST}
    if has_key and not route.is_public:
        statuses.add(401)
    if route.method != "GET":
        statuses.update(_WITH_BODY)
    responses: dict[str, Any] = {}
    for status, contents in doc.responses.items():
        responses[str(status)] = {"description": HTTPStatus(status).phrase}
        if contents and not is_head:
            responses[str(status)]["content"] = {
                kind: {} if schema is None else {"schema": schema} for kind, schema in contents.items()
            }
    for status in sorted(statuses):
        responses.setdefault(str(status), {"description": _REASONS[status]})
        if not is_head:
            responses[str(status)]["content"] = {"application/json": {"schema": _ERROR}}
            if status == HTTPStatus.UNAUTHORIZED:
                responses[str(status)]["content"]["text/html"] = {}  # for browsers
    operation: dict[str, Any] = {
        "operationId": f"{method}_{name}",
        "tags": [doc.tag],
        "summary": doc.summary,
        "responses": responses,
    }
    if doc.description:
        operation["description"] = doc.description
    if doc.parameters:
        operation["parameters"] = [
            {"name": each.name, "in": each.place, "description": each.help, "schema": each.schema}
            | ({"required": True} if each.place == "path" else {})
            for each in doc.parameters
        ]
    if doc.body is not None:
        operation["requestBody"] = {
            "required": doc.is_body_required,
            "content": {"application/json": {"schema": doc.body}},
        }
    if route.is_public:
        operation["security"] = []
    return operation
