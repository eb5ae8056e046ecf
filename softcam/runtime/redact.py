"""URLs as people may see them, in logs, answers and messages: without what only their owner may know. No thread."""

import re
from typing import Final

# As far as the last @, since a password may have one too, or a slash.
_USER: Final = re.compile(r"(?<=://).*@", re.DOTALL)
# Cameras take them as parameters, and some in the path: `/user=admin&password=…`.
_PARAMETER: Final = re.compile(
    r"(?i)(?<=[/?&;])((?:user(?:name)?|login|pass(?:word|wd)?|pwd|token|key|secret|auth)=)[^&;/\s]*"
)


def without_secrets(text: str) -> str:
    """A text that may be a URL, with `***` for user and password."""
    return _PARAMETER.sub(r"\1***", _USER.sub("***@", text))


def shown(address: str) -> str:
    """A URL by scheme, host and path; what is no URL as it is."""
    scheme, separator, rest = address.partition("://")
    if not separator:
        return address
    place = rest.rpartition("@")[2]
    return without_secrets(f"{scheme}://{re.split('[?#]', place)[0]}")
