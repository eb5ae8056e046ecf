"""Removes secrets from URLs for logs, HTTP responses and error messages. Pure functions; any thread."""

import re
from typing import Final

# Up to the last @, since a password may contain one, or a slash.
_USER: Final = re.compile(r"(?<=://).*@", re.DOTALL)
# Cameras accept credentials as parameters, some of them in the path: `/user=admin&password=…`.
_PARAMETER: Final = re.compile(
    r"(?i)(?<=[/?&;])((?:user(?:name)?|login|pass(?:word|wd)?|pwd|token|key|secret|auth)=)[^&;/\s]*"
)


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
