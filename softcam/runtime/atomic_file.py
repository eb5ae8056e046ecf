"""Replaces files so that a power cut leaves the old content or the new. Functions without state; any thread."""

import errno
import os
from pathlib import Path


def replace_file(path: Path, content: bytes) -> None:
    """Write a private file, and its folder if necessary; it is on the disk when this returns. Raises OSError."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_file(path, content, 0o600)


def write_file(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Write a file in an existing folder; its content is on the disk before its name, and both when this returns.

    A crash may leave the part that was written in a file whose name has one more dot in front. Raises OSError.
    """
    part = path.with_name(f".{path.name}")
    try:
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def sync_directory(folder: Path) -> None:
    """Return when the names in a folder are on the disk. Raises OSError."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems support it for files only
            raise
    finally:
        os.close(handle)
