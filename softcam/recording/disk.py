"""The disk that a folder lies on: what it has left, and whether it still is there. Any thread may ask."""

import errno
import os
import threading
from pathlib import Path
from typing import Final

# What is left free: enough for the system to go on, and little of a small disk.
_RESERVE_BYTES: Final = 200_000_000
_RESERVE_PART: Final = 0.05


class Disk:
    """That of one folder, which may come later."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()  # guards the next one
        self._known: tuple[int, Path] | None = None  # its number, and where it is mounted; None: not seen yet

    def require(self) -> None:
        """Raises OSError where the disk is gone, and what its mount point covered shows in its place.

        A disk may come, also above a folder that was used before, and come back under another number.
        """
        number = self._folder.stat().st_dev
        with self._lock:
            known = self._known
            if known is not None and number == known[0]:
                return
            mount = _mount_of(self._folder)
            if known is not None and not mount.is_relative_to(known[1]):
                raise OSError(errno.ENODEV, f"the disk that was mounted at {known[1]} is gone")
            self._known = number, mount

    def free(self) -> tuple[int, int]:
        """Bytes that are left for us, and how many of them should stay so. Raises OSError."""
        told = os.statvfs(self._folder)
        reserve = min(_RESERVE_BYTES, int(told.f_blocks * told.f_frsize * _RESERVE_PART))
        return told.f_bavail * told.f_frsize, reserve


def _mount_of(folder: Path) -> Path:
    """The uppermost folder on the same disk. Raises OSError."""
    folder = folder.resolve(strict=True)
    number = folder.stat().st_dev
    while folder != folder.parent and folder.parent.stat().st_dev == number:
        folder = folder.parent
    return folder
