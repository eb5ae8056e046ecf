"""File names of downloads: made from the camera's name, and sent as Content-Disposition (RFC 6266). Pure functions."""

import re
import unicodedata
from datetime import UTC, datetime
from typing import Final, Literal
from urllib.parse import quote

# Not allowed in names on Windows and FAT, changed by browsers (% ; '), or inconvenient (blanks).
_UNSAFE: Final = re.compile(r"""[\s"%'*/:;<>?\\|\x00-\x1f\x7f]+""")
_ENDS: Final = "-."  # hidden files start with a dot; Windows removes dots at the end
_MAX_STEM_BYTES: Final = 200  # of the 255 of a whole name
# Names that Windows reserves for devices, with any suffix, also nul.tar.gz; learn.microsoft.com, "Naming Files".
_DEVICE: Final = re.compile(r"(con|prn|aux|nul|(com|lpt)[0-9]|conin\$|conout\$)(\.|$)", re.IGNORECASE)


def file_stem(name: str | None) -> str:
    """The start of the names of a camera's files, such as `Front-door`; `snapshot` without a name."""
    text = (name or "").encode("utf-8", "replace").decode()  # a lone surrogate becomes a question mark
    stem = _UNSAFE.sub("-", text).strip(_ENDS)
    if _DEVICE.match(_ascii(stem)):
        stem = f"camera-{stem}"
    return stem.encode()[:_MAX_STEM_BYTES].decode(errors="ignore") or "snapshot"


def picture_name(name: str | None, taken_s: float, suffix: str) -> str:
    """`Front-door-2026-11-20_23-15-02.jpg`, in local time; `taken_s` is Unix time."""
    moment = datetime.fromtimestamp(taken_s, UTC).astimezone()
    return f"{file_stem(name)}-{moment:%Y-%m-%d_%H-%M-%S}{suffix}"


def content_disposition(kind: Literal["inline", "attachment"], file_name: str) -> str:
    """The value of the header; a name beyond ASCII is sent in both forms, and every browser uses the second."""
    value = f'{kind}; filename="{_UNSAFE.sub("-", _ascii(file_name))}"'
    return value if file_name.isascii() else f"{value}; filename*=UTF-8''{quote(file_name, safe='')}"


def _ascii(text: str) -> str:
    """The letters without accents, and `_` for those beyond ASCII."""
    letters = unicodedata.normalize("NFKD", text)
    return "".join(letter if letter.isascii() else "_" for letter in letters if not unicodedata.combining(letter))
