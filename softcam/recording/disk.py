"""The disk that holds a folder: its free space, and whether it is still mounted. Any thread may call."""

import errno
import logging
import os
import threading
from pathlib import Path
from typing import Final

from softcam.runtime.atomic_file import GROUP_FOLDER

log = logging.getLogger(__name__)

# Kept free: enough for the system to work, and little of a small disk.
_RESERVE_BYTES: Final = 200_000_000
_RESERVE_PART: Final = 0.05


class Disk:
    """The disk of one folder, which may be mounted later."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()  # guards _known
        self._known: tuple[int, Path] | None = None  # device number and mount point; None: not seen yet

    def require_mounted(self) -> None:
        """Raises OSError if the disk was unmounted and the folder below its mount point is visible instead.

        A disk may be mounted later, also above a folder that was in use, and return under another device number. The
        folder is created on a disk that was mounted later and does not have it.
        """
        with self._lock:
            known = self._known
            try:
                number = self._folder.stat().st_dev
            except FileNotFoundError:
                if not self._is_other_disk():
                    raise
                self._folder.mkdir(mode=GROUP_FOLDER, parents=True)
                log.info("Created %s", self._folder)
                number = self._folder.stat().st_dev
            if known is not None and number == known[0]:
                return
            mount = _mount_of(self._folder)
            if known is not None and not mount.is_relative_to(known[1]):
                raise OSError(errno.ENODEV, f"the disk mounted at {known[1]} is gone")
            self._known = number, mount

    def _is_other_disk(self) -> bool:
        """Whether the missing folder would be on a disk that was mounted later. With the lock held. Raises OSError."""
        if self._known is None:
            return True
        number, mount = self._known
        parent = next(each for each in self._folder.absolute().parents if each.exists())
        return parent.stat().st_dev != number and _mount_of(parent).is_relative_to(mount)

    def space(self) -> tuple[int, int]:
        """Bytes available to this process, and how many of them must stay free. Raises OSError."""
        status = os.statvfs(self._folder)
        reserve = min(_RESERVE_BYTES, int(status.f_blocks * status.f_frsize * _RESERVE_PART))
        return status.f_bavail * status.f_frsize, reserve


def _mount_of(folder: Path) -> Path:
    """The topmost folder on the same disk. Raises OSError."""
    folder = folder.resolve(strict=True)
    number = folder.stat().st_dev
    while folder != folder.parent and folder.parent.stat().st_dev == number:
        folder = folder.parent
    return folder
