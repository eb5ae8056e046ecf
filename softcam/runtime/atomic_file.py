"""Replaces files so that a power cut leaves the old content or the new, and reads them. Functions without state; any
thread.
"""

import contextlib
import errno
import os
import stat
from pathlib import Path
from typing import Final

# Whatever the umask is: nothing that is saved is for other users. A stricter umask also excludes the group.
GROUP_FILE: Final = 0o640
GROUP_FOLDER: Final = 0o750


def replace_file(path: Path, content: bytes) -> None:
    """Write a private file, and its folder if necessary; it is on the disk when this returns. Raises OSError."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_file(path, content, 0o600)


def write_file(path: Path, content: bytes, mode: int = GROUP_FILE) -> None:
    """Write a file in an existing folder; its content is on the disk before its name, and both when this returns.

    Other users than its owner and its group cannot read it.

    A crash may leave the part that was written in a file whose name has one more dot in front. Raises OSError.
    """
    part = _part_of(path)
    try:
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
        with os.fdopen(handle, "wb") as file:
            exclude_others(handle)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def remove_part(path: Path) -> None:
    """Remove what a crash during `write_file` has left. Where that fails, the next `write_file` replaces it."""
    with contextlib.suppress(OSError):
        _part_of(path).unlink()


def _part_of(path: Path) -> Path:
    return path.with_name(f".{path.name}")


def read_file(path: Path, max_bytes: int | None = None) -> bytes:
    """The content of a regular file; at most one byte more than `max_bytes`, if that is given. Raises OSError.

    Anything but a regular file is an error at once: a pipe would block, and a device may have no end.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    with os.fdopen(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "must be a regular file", str(path))
        return file.read(-1 if max_bytes is None else max_bytes + 1)


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


def exclude_others(handle: int) -> None:
    """Let only owner and group use an open file, which may have existed; not where the file system has no modes."""
    mode = stat.S_IMODE(os.fstat(handle).st_mode)
    if mode & stat.S_IRWXO:
        with contextlib.suppress(OSError):
            os.fchmod(handle, mode & ~stat.S_IRWXO)
