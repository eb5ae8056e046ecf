"""Parses query parameters with the parsers of the settings; an invalid value is a 400 that names the parameter."""

import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Final

from softcam.config import parsers
from softcam.web.http.messages import HttpError

_WITH_EXPONENT: Final = re.compile(r"[0-9]{1,40}(\.[0-9]{1,40})?[eE][+-]?[0-9]{1,4}")
_MAX_SHOWN: Final = 80  # characters of an invalid value in the error


def integer(query: Mapping[str, str], name: str, low: int, high: int) -> int | None:
    """An integer; None if the parameter is absent."""
    value = _read(query, name, parsers.integer(low, high))
    return value if isinstance(value, int) else None


def number(query: Mapping[str, str], name: str, low: float, high: float) -> float | None:
    """A number; None if the parameter is absent."""
    value = _read(query, name, _number(low, high))
    return value if isinstance(value, float) else None


def _number(low: float, high: float) -> parsers.Parser:
    """The settings' parser, extended by the exponents that programs write."""
    plain = parsers.number(low, high)

    def parse(text: str) -> object:
        if not _WITH_EXPONENT.fullmatch(text):
            return plain(text)
        value = float(text)
        return value if low <= value <= high else plain("")  # raises ValueError with the range

    return parse


def boolean(query: Mapping[str, str], name: str) -> bool | None:
    """A boolean in the usual words; None if the parameter is absent."""
    value = _read(query, name, parsers.boolean)
    return value if isinstance(value, bool) else None


def choice(query: Mapping[str, str], name: str, words: Sequence[str]) -> str | None:
    """One of `words`; None if the parameter is absent."""

    def parse(text: str) -> str:
        if text not in words:
            raise ValueError(f"one of {', '.join(words)}")
        return text

    value = _read(query, name, parse)
    return value if isinstance(value, str) else None


def _read(query: Mapping[str, str], name: str, parse: parsers.Parser) -> object:
    text = query.get(name)
    if text is None:
        return None
    try:
        return parse(text)
    except ValueError as error:
        raise HttpError(HTTPStatus.BAD_REQUEST, f"{name} {text[:_MAX_SHOWN]!r}: must be {error}") from error
