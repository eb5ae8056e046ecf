"""The API's description: OpenAPI 3.1, made from the table of routes, which has its schemas from the table of controls.

Made once, since neither table changes. Nothing is described by hand here but what all routes share.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from http import HTTPStatus
from typing import Any, Final

from softcam import __version__
from softcam.web.http.messages import ALLOW_ANY_ORIGIN, AnyResponse, Request, Response
from softcam.web.http.router import Doc, Parameter, Route

_ERROR: Final = {"$ref": "#/components/schemas/Error"}
_SECURITY: Final[Mapping[str, Any]] = {
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "bearer": {"type": "http", "scheme": "bearer"},
    "basic": {"type": "http", "scheme": "basic", "description": "any user name, the key as the password"},
}
_REASONS: Final[Mapping[int, str]] = {
    400: "A value is bad: which, and by which rule",
    401: "The API key is missing or wrong",
    403: "The key may only look, or a page from elsewhere asks for a change",
    404: "There is no such thing",
    408: "A body was announced, and did not come to its end in time",
    409: "This camera cannot do that, and why",
    411: "A body has no Content-Length",
    413: "The body is too large",
    415: "The body is not application/json",
    416: "The range lies beyond the end",
    503: "It cannot be had now, and why: no picture, or too many requests at once",
}
# Any request may be refused for its form, before anyone looks what it is for; and for want of room.
_FOR_FORM: Final = (400, 408, 411, 413, 503)
_WITH_BODY: Final = (403, 415)


class OpenApi:
    """The document, and the answer that brings it."""

    def __init__(self, routes: Iterable[Route], *, has_key: bool) -> None:
        """`has_key`: whether a key is needed, which is then said of every route but the public ones."""
        self.document = describe(routes, has_key=has_key)
        self._body = json.dumps(self.document, ensure_ascii=False, indent=1).encode() + b"\n"

    def answer(self, _request: Request) -> AnyResponse:
        return Response(self._body, "application/json", headers={"Cache-Control": "no-cache", **ALLOW_ANY_ORIGIN})


def openapi_routes(routes: Sequence[Route], *, has_key: bool) -> list[Route]:
    """The description's own route, which stands in it as well."""
    doc = Doc("This description", "pages", {200: {"application/json": {"type": "object"}}})
    unmade = Route(("/openapi.json",), _unmade, doc=doc)
    return [replace(unmade, handle=OpenApi([*routes, unmade], has_key=has_key).answer)]


def _unmade(_request: Request) -> AnyResponse:
    raise NotImplementedError  # stands in the table only while the description is made


def describe(routes: Iterable[Route], *, has_key: bool) -> dict[str, Any]:
    paths: dict[str, dict[str, Any]] = {}
    for route in _with_actions([*routes]):
        if route.doc is None:
            continue
        for path in route.paths:
            if path.startswith("/?"):
                continue  # the same address as the page: told there, as a parameter
            operations = paths.setdefault(path, {})
            operations[route.method.lower()] = _operation(route, route.doc, path, has_key=has_key)
            if route.method == "GET":
                operations["head"] = _operation(route, route.doc, path, has_key=has_key, is_head=True)
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "Soft Stream",
            "version": __version__,
            "description": "One camera: its pictures, its state, and what can be set. "
            'Errors are {"detail": …} and name the field and the rule. Unknown query parameters are ignored. '
            "Requests with a target or a header that is too large are answered 414 and 431.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "./", "description": "where this description came from"}],
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
    """The routes, and the page's told with all that its address answers: `/?action=NAME` is no path of its own."""
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
    answers = {status: dict(contents) for status, contents in doc.responses.items()}
    parameters = [Parameter("action", "a picture in place of the page", {"type": "string", "enum": sorted(actions)})]
    errors = {*doc.errors}
    for name, each in sorted(actions.items()):
        for status, contents in each.responses.items():
            answers.setdefault(status, {}).update(contents)
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
        responses=answers,
        description=f"{doc.description} {description[0].upper()}{description[1:]}.".strip(),
        parameters=(*doc.parameters, *parameters),
        errors=tuple(sorted(errors)),
    )


def _operation(route: Route, doc: Doc, path: str, *, has_key: bool, is_head: bool = False) -> dict[str, Any]:
    method = "head" if is_head else route.method.lower()
    name = "".join(part if part.isalnum() else "_" for part in path).strip("_") or "page"
    statuses = {*doc.errors, *_FOR_FORM}
    if has_key and not route.is_public:
        statuses.add(401)
    if route.method != "GET":
        statuses.update(_WITH_BODY)
    answers: dict[str, Any] = {}
    for status, contents in doc.responses.items():
        answers[str(status)] = {"description": HTTPStatus(status).phrase}
        if contents and not is_head:
            answers[str(status)]["content"] = {
                kind: {} if schema is None else {"schema": schema} for kind, schema in contents.items()
            }
    for status in sorted(statuses):
        answers.setdefault(str(status), {"description": _REASONS[status]})
        if not is_head:
            answers[str(status)]["content"] = {"application/json": {"schema": _ERROR}}
            if status == HTTPStatus.UNAUTHORIZED:
                answers[str(status)]["content"]["text/html"] = {}  # for a person who is asked for the key
    operation: dict[str, Any] = {
        "operationId": f"{method}_{name}",
        "tags": [doc.tag],
        "summary": doc.summary,
        "responses": answers,
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
