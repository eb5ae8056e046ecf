"""The routing table with all aliases, and the lookup in it. Any thread.

A placeholder in braces, as in `/v1/recordings/{name}`, matches any one path segment.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, Literal
from urllib.parse import unquote

from softcam.web.http.messages import AnyResponse, HttpError, Request

_PLACEHOLDER: Final = re.compile(r"\\\{(\w+)\\\}")  # after re.escape()
_MAX_SHOWN: Final = 80  # characters of a path in the error

Handler = Callable[[Request], AnyResponse]


@dataclass(frozen=True, slots=True)
class Parameter:
    """A query or path parameter; `schema` is JSON Schema."""

    name: str
    help: str
    schema: Mapping[str, Any]
    place: Literal["query", "path"] = "query"


@dataclass(frozen=True, slots=True)
class Doc:
    """The description of a route. `responses` maps status to content type to JSON Schema, or None for bytes."""

    summary: str
    tag: str
    responses: Mapping[int, Mapping[str, Mapping[str, Any] | None]]
    description: str = ""
    parameters: tuple[Parameter, ...] = ()
    body: Mapping[str, Any] | None = None
    is_body_required: bool = True
    errors: tuple[int, ...] = ()
    is_endless: bool = False  # the response ends with the connection


@dataclass(frozen=True, slots=True)
class Route:
    """A handler under all its paths; `/?action=NAME` is also a path. GET implies HEAD.

    A slash at the end of a path is ignored, except for pages, whose links are relative.
    """

    paths: tuple[str, ...]
    handle: Handler
    method: str = "GET"
    is_public: bool = False  # answered without an API key
    is_private: bool = False  # requires the full key, although it changes nothing
    is_read_only: bool = False  # changes nothing, although it is not a GET
    accepts_query_key: bool = False  # the view key as ?key=, for what a page embeds: an <img> cannot send headers
    is_same_origin: bool = False  # pages of other origins, except for allowed ones, can neither read nor embed it
    is_repeated: bool = False  # a slider sends it many times per second
    doc: Doc | None = None  # None for assets of a page, which are not part of the API


class Router:
    """All routes by path and method. Immutable, so any thread may call."""

    def __init__(self, routes: Iterable[Route]) -> None:
        """Raises ValueError if two routes have the same method and path."""
        self._by_path: dict[str, dict[str, Route]] = {}
        for route in routes:
            is_page = route.doc is not None and route.doc.tag == "pages"
            for path in (*route.paths, *(f"{path}/" for path in route.paths if not is_page and "?" not in path)):
                methods = self._by_path.setdefault(path, {})
                for method in ("GET", "HEAD") if route.method == "GET" else (route.method,):
                    if method in methods:
                        raise ValueError(f"two routes for {method} {path}")
                    methods[method] = route
        self._by_pattern = [
            (re.compile(_PLACEHOLDER.sub(r"(?P<\1>[^/]+)", re.escape(path))), self._by_path.pop(path))
            for path in [*self._by_path]
            if "{" in path
        ]

    def find(self, method: str, path: str, query: Mapping[str, str]) -> Route:
        """The route of a request. Raises HttpError 404, 405 or, for an unknown `action`, 400."""
        if path == "/" and "action" in query:
            path = f"/?action={query['action'].removesuffix('/').removesuffix('_0')}"  # _0: mjpg-streamer's first input
            if path not in self._by_path:
                actions = sorted(known.partition("=")[2] for known in self._by_path if known.startswith("/?"))
                raise HttpError(HTTPStatus.BAD_REQUEST, f"action: must be one of {', '.join(actions)}")
        methods, _ = self._match(path)
        if not methods:
            raise HttpError(HTTPStatus.NOT_FOUND, f"no such path: {path[:_MAX_SHOWN]}")
        if method not in methods:
            allowed = self.allowed(path)
            detail = f"method: must be one of {allowed} for {path[:_MAX_SHOWN]}"
            raise HttpError(HTTPStatus.METHOD_NOT_ALLOWED, detail, {"Allow": allowed})
        return methods[method]

    def allowed(self, path: str) -> str:
        """The methods of a path, for `Allow`."""
        return ", ".join(sorted({*self._match(path)[0], "OPTIONS"}))

    def path_parameters(self, path: str) -> Mapping[str, str]:
        """The decoded values of the placeholders. They may contain anything, including slashes."""
        return self._match(path)[1]

    def _match(self, path: str) -> tuple[Mapping[str, Route], Mapping[str, str]]:
        """The routes of a path by method, and the values of its placeholders. Literal paths precede placeholders."""
        if path in self._by_path:
            return self._by_path[path], {}
        for pattern, methods in self._by_pattern:
            if found := pattern.fullmatch(path):
                return methods, {name: unquote(part) for name, part in found.groupdict().items()}
        return {}, {}
