"""Query parameters: the description of each, with its parser, which is that of the settings. Any thread."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, Generic, TypeVar

from softcam.config import parsers
from softcam.web.http.messages import HttpError
from softcam.web.http.router import Parameter

T = TypeVar("T")

_WITH_EXPONENT: Final = re.compile(r"[0-9]{1,40}(\.[0-9]{1,40})?[eE][+-]?[0-9]{1,4}")


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryParameter(Parameter, Generic[T]):
    """A parameter with its parser, which raises ValueError with the rule."""

    parse: Callable[[str], T]

    def read(self, query: Mapping[str, str]) -> T | None:
        """The value; None if the parameter is absent. Raises HttpError 400 that names parameter and rule."""
        text = query.get(self.name)
        if text is None:
            return None
        try:
            return self.parse(text)
        except ValueError as error:
            raise HttpError(HTTPStatus.BAD_REQUEST, f"{self.name}: must be {error}") from error


def integer(name: str, summary: str, low: int, high: int) -> QueryParameter[int]:
    schema = {"type": "integer", "minimum": low, "maximum": high}
    return QueryParameter(name, summary, schema, parse=parsers.integer(low, high))


def number(name: str, summary: str, low: float, high: float) -> QueryParameter[float]:
    plain = parsers.number(low, high)

    def parse(text: str) -> float:
        # Unlike people who write settings, programs write exponents.
        return plain(f"{float(text):.30f}" if _WITH_EXPONENT.fullmatch(text) else text)

    return QueryParameter(name, summary, {"type": "number", "minimum": low, "maximum": high}, parse=parse)


def boolean(name: str, summary: str) -> QueryParameter[bool]:
    words = ["1", "0", "true", "false", "yes", "no", "on", "off"]
    return QueryParameter(name, summary, {"type": "string", "enum": words}, parse=parsers.boolean)


def choice(name: str, summary: str, *words: str) -> QueryParameter[str]:
    def parse(text: str) -> str:
        if text not in words:
            raise ValueError(f"one of {', '.join(words)}")
        return text

    return QueryParameter(name, summary, {"type": "string", "enum": list(words)}, parse=parse)
