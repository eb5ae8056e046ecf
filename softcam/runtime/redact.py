"""Removes secrets from URLs and log lines, for logs, HTTP responses and error messages. No state; any thread."""

import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import quote, quote_plus

# Up to the last @, since a password may contain one, or a slash.
_USER: Final = re.compile(r"(?<=://).*@", re.DOTALL)
# Cameras accept credentials as parameters, some of them in the path: `/user=admin&password=…`.
_PARAMETER: Final = re.compile(
    r"(?i)(?<=[/?&;])((?:user(?:name)?|login|pass(?:word|wd)?|pwd|token|key|secret|auth)=)[^&;/\s]*"
)

_WORD: Final = re.compile(r"\S+")
_HEADER: Final = re.compile(
    r"""(?i)(\bx-api-key["']?\s?[:=]\s?["']?|\bauthorization["']?\s?[:=]\s?["']?(?:basic|bearer)\s+)[^\s"',]+"""
)
MIN_SECRET: Final = 4  # characters; a shorter one would be found in most lines, which would become unreadable
_MIN_DISTINCTIVE: Final = 8  # a shorter secret may be a part of ordinary words


def without_secrets(text: str) -> str:
    """A text that may be a URL, with `***` in place of user and password."""
    return _PARAMETER.sub(r"\1***", _USER.sub("***@", text))


def display_url(url: str) -> str:
    """Scheme, host and path of a URL, without credentials and query; other text unchanged."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        return url
    location = rest.rpartition("@")[2]
    return without_secrets(f"{scheme}://{re.split('[?#]', location)[0]}")


class Redactor:
    """Removes secrets from running text, such as a log line or a traceback: known ones, and those in URLs and headers.

    Known ones are found wherever they stand, also percent-encoded; short ones only as whole words, and those with fewer
    than `MIN_SECRET` characters only in URLs and headers.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        forms = {
            form
            for secret in secrets
            if len(secret) >= MIN_SECRET
            for form in (secret, quote(secret, errors="replace"), quote(secret, "", errors="replace"),
                         quote_plus(secret, errors="replace"), repr(secret)[1:-1])
        }  # fmt: skip
        patterns = [
            re.escape(form) if len(form) >= _MIN_DISTINCTIVE else rf"(?<!\w){re.escape(form)}(?!\w)"
            for form in sorted(forms, key=len, reverse=True)
        ]
        self._known = re.compile("|".join(patterns)) if patterns else None

    def __call__(self, text: str) -> str:
        if self._known is not None:
            text = self._known.sub("***", text)
        if "://" in text and "@" in text:
            text = _WORD.sub(_without_user, text)
        if "=" in text:
            text = _PARAMETER.sub(r"\1***", text)
        return _HEADER.sub(r"\1***", text)


def _without_user(match: re.Match[str]) -> str:
    """One word, which may be or contain a URL."""
    word = match[0]
    begin, end = word.find("://") + 3, word.rfind("@")
    return f"{word[:begin]}***{word[end:]}" if 3 <= begin <= end else word
