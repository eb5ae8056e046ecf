"""The table of routes, its aliases spelled out, and the look-up in it."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from softcam.web.messages import Answer, HttpError, Request

_LONGEST_SHOWN: Final = 80  # characters of an unknown path or action in the answer


@dataclass(frozen=True, slots=True)
class Parameter:
    """One of a query; the schema is JSON Schema."""

    name: str
    help: str
    schema: Mapping[str, Any]


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
    is_look: bool = False  # changes nothing, though it is no GET
    doc: Doc | None = None  # None: a part of a page, no part of the API

    @property
    def is_change(self) -> bool:
        return self.method != "GET" and not self.is_look


class Routes:
    """All routes by path and method; never changes."""

    def __init__(self, routes: Iterable[Route]) -> None:
        """Raises ValueError for a path that two routes of one method claim."""
        self._by_path: dict[str, dict[str, Route]] = {}
        self.all = tuple(routes)
        for route in self.all:
            for path in route.paths:
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
        methods = self._by_path.get(path)
        if methods is None:
            raise HttpError(HTTPStatus.NOT_FOUND, f"nothing is at {path[:_LONGEST_SHOWN]}")
        if method not in methods:
            raise HttpError(
                HTTPStatus.METHOD_NOT_ALLOWED,
                f"{path} takes {', '.join(self.allowed(path))}, not {method}",
                {"Allow": ", ".join(self.allowed(path))},
            )
        return methods[method]

    def allowed(self, path: str) -> list[str]:
        """The methods that a path answers, for `Allow`."""
        return sorted({*self._by_path.get(path, {}), "OPTIONS"})
