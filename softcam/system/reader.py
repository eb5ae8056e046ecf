"""Reads the small text files of `/proc` and `/sys`, and the numbers in them. No state; any thread.

These files are an interface of the kernel, but not all of them are well-formed everywhere: what cannot be read, or is
not a number of a plausible size, is None. Some of them may block in the kernel: see `bounded`.
"""

import contextlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_MAX_BYTES: Final = 256 * 1024  # a list of mounts may be long
_DECIMAL: Final = re.compile(r"-?\d{1,15}(?:\.\d{1,9})?", re.ASCII)
_MAX_DIGITS: Final = 19  # of an unsigned 64-bit counter, roughly


@dataclass(frozen=True, slots=True)
class Reader:
    """The file system below `root`, which is `/` except in tests. Names have no slash in front: `proc/stat`."""

    root: Path = Path("/")

    def text(self, name: str) -> str | None:
        """The content of a file up to 256 KiB; None if it cannot be read. Bytes that are not UTF-8 are replaced."""
        content = bytearray()
        with contextlib.suppress(OSError):
            # A pipe or a device in place of a file must not block.
            handle = os.open(self.root / name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
            try:
                while len(content) < _MAX_BYTES and (part := os.read(handle, _MAX_BYTES)):
                    content += part
            finally:
                os.close(handle)
            return content[:_MAX_BYTES].decode("utf-8", "replace")
        return None

    def lines(self, name: str) -> list[str]:
        """The lines of a file; none if it cannot be read."""
        return (self.text(name) or "").splitlines()

    def names(self, folder: str, prefix: str) -> list[str]:
        """Entries of a folder with this prefix and a number, by number: `hwmon0`, `hwmon1`, `hwmon10`."""
        names: list[str] = []
        with contextlib.suppress(OSError):
            names = [path.name for path in (self.root / folder).iterdir() if path.name.startswith(prefix)]
        numbered = [(whole(name.removeprefix(prefix)), name) for name in names]
        return [name for _, name in sorted((number, name) for number, name in numbered if number is not None)]


def whole(text: str) -> int | None:
    """A count in decimal digits; None for anything else, and for more than a counter of the kernel can hold."""
    text = text.strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS else None


def decimal(text: str) -> float | None:
    """A number in decimal digits, with or without a fraction; None for anything else."""
    text = text.strip()
    return float(text) if _DECIMAL.fullmatch(text) else None
