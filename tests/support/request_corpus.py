"""Malformed and unusual requests, each with the response that the portal must give: one file each in `requests/`.

The first line of a file is `# STATUS` or `# STATUS DETAIL`. The rest is the request, with Python's escape sequences for
all bytes outside ASCII and for the ends of lines; the line breaks of the file itself do not count.
"""

import codecs
from dataclasses import dataclass
from pathlib import Path

_FOLDER = Path(__file__).with_name("requests")


@dataclass(frozen=True)
class RequestCase:
    """`detail` is empty if the request is valid."""

    name: str
    request: bytes
    status: int
    detail: str


def request_cases() -> list[RequestCase]:
    return [_read(path) for path in sorted(_FOLDER.glob("*.http"))]


def _read(path: Path) -> RequestCase:
    expected, *lines = path.read_text("ascii").splitlines()
    status, _, detail = expected.removeprefix("# ").partition(" ")
    request, _ = codecs.escape_decode("".join(lines).encode())
    assert isinstance(request, bytes)
    return RequestCase(path.stem, request, int(status), detail)
