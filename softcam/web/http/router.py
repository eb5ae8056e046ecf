"""The table of routes, its aliases spelled out, and the look-up in it.

A part of a path in braces, as in `/v1/recordings/{name}`, stands for any one part, which the request then tells.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, Literal
from urllib.parse import unquote

from softcam.web.http.messages import Answer, HttpError, Request

_LONGEST_SHOWN: Final = 80  # characters of an unknown path or action in the answer


@dataclass(frozen=True, slots=True)
class Parameter:
    """One of a query, or a part of the path; the schema is JSON Schema."""

    name: str
    help: str
    schema: Mapping[str, Any]
    place: Literal["query", "path"] = "query"


@dataclass(frozen=True, slots=True)
class Doc:
    """What a route is described as: `answers` is status to content type to JSON Schema, None being bytes."""

    summary: str
    tag: str
    answers: Mapping[int, Mapping[str, Mapping[str, Any] | None]]
    description: str = ""
    parameters: tuple[Parameter, ...] = ()
    body: Mapping[str, Any] | None = None
    is_body_needed: bool = True
    errors: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Route:
    """One thing to ask for, under all its paths; `/?action=NAME` is a path too. GET brings HEAD along."""

    paths: tuple[str, ...]
    handle: Callable[[Request], Answer]
    method: str = "GET"
    is_public: bool = False  # answered without an API key
    is_read_only: bool = False  # changes nothing, though it is no GET
    doc: Doc | None = None  # None: a part of a page, no part of the API

    @property
    def is_change(self) -> bool:
        return self.method != "GET" and not self.is_read_only


class Routes:
    """All routes by path and method; never changes."""

    def __init__(self, routes: Iterable[Route]) -> None:
        """Raises ValueError for a path that two routes of one method claim."""
        self._by_path: dict[str, dict[str, Route]] = {}
        self._patterns: list[tuple[re.Pattern[str], str]] = []
        self.all = tuple(routes)
        for route in self.all:
            for path in route.paths:
                if "{" in path and path not in self._by_path:
                    self._patterns.append((_pattern(path), path))
                methods = self._by_path.setdefault(path, {})
                for method in ("GET", "HEAD") if route.method == "GET" else (route.method,):
                    if method in methods:
                        raise ValueError(f"two routes for {method} {path}")
                    methods[method] = route

    def find(self, method: str, path: str, query: Mapping[str, str]) -> Route:
        """The route for a request; raises HttpError 404, 405 or, for an unknown `action`, 400."""
        if path == "/" and "action" in query:
            path = f"/?action={query['action']}"
            if path not in self._by_path:
                actions = sorted(known.partition("=")[2] for known in self._by_path if known.startswith("/?"))
                raise HttpError(
                    HTTPStatus.BAD_REQUEST,
                    f"action {query['action'][:_LONGEST_SHOWN]!r}: wants one of {', '.join(actions)}",
                )
        methods = self._by_path.get(self._known(path))
        if methods is None:
            raise HttpError(HTTPStatus.NOT_FOUND, f"nothing is at {path[:_LONGEST_SHOWN]}")
        if method not in methods:
            raise HttpError(
                HTTPStatus.METHOD_NOT_ALLOWED,
                f"{path[:_LONGEST_SHOWN]} takes {', '.join(self.allowed(path))}, not {method}",
                {"Allow": ", ".join(self.allowed(path))},
            )
        return methods[method]

    def allowed(self, path: str) -> list[str]:
        """The methods that a path answers, for `Allow`."""
        return sorted({*self._by_path.get(self._known(path), {}), "OPTIONS"})

    def parts(self, path: str) -> Mapping[str, str]:
        """What stands in a path where its route has braces, decoded. It may be anything, a slash among it."""
        if path not in self._by_path:
            for pattern, _ in self._patterns:
                if found := pattern.fullmatch(path):
                    return {name: unquote(part) for name, part in found.groupdict().items()}
        return {}

    def _known(self, path: str) -> str:
        """The path as the table has it. Names go before braces."""
        if path in self._by_path:
            return path
        return next((known for pattern, known in self._patterns if pattern.fullmatch(path)), path)


def _pattern(path: str) -> re.Pattern[str]:
    parts = re.split(r"\{(\w+)\}", path)  # what stands between the names, and the names, in turn
    return re.compile(
        "".join(f"(?P<{part}>[^/]+)" if place % 2 else re.escape(part) for place, part in enumerate(parts))
    )
