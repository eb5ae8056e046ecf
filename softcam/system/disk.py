"""The disk of a folder: its space, and which one it is. No state; any thread."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from softcam.system.reader import Reader

_ESCAPE: Final = re.compile(r"\\([0-7]{3})")  # of blanks and backslashes in the list of mounts


@dataclass(frozen=True, slots=True)
class DiskSpace:
    """Sizes in bytes; `free` is what this process may use, `used` what files occupy.

    `folder` is for people: bytes of its name that are not UTF-8 are replaced. `device` and `file_system` are what is
    mounted there, for example `/dev/mmcblk0p2` and `ext4`; None if unknown.
    """

    folder: str
    total: int
    used: int
    free: int
    device: str | None
    file_system: str | None

    @property
    def percent(self) -> float:
        """Used part of what this process could use, as df(1) shows it."""
        return 100 * self.used / (self.used + self.free) if self.used + self.free else 0.0


def disk_space(reader: Reader, folder: Path) -> DiskSpace | None:
    """The disk that holds a folder, or will hold it once it is created. May block on a network disk."""
    try:
        place = folder.resolve()
        while not place.exists() and place != place.parent:
            place = place.parent
        status = os.statvfs(place)
    except (OSError, RuntimeError):  # RuntimeError: a loop of links
        return None
    block = status.f_frsize
    device, file_system = _mount(reader, place)
    total, used = status.f_blocks * block, (status.f_blocks - status.f_bfree) * block
    name = os.fsencode(folder).decode("utf-8", "replace")
    return DiskSpace(name, total, used, status.f_bavail * block, device, file_system)


def _mount(reader: Reader, place: Path) -> tuple[str | None, str | None]:
    """Device and type of the file system that is mounted at a place.

    https://docs.kernel.org/filesystems/proc.html (3.5): the mount point is the fifth field, and the type and the device
    are behind a field with a hyphen. Of mounts on top of each other, the last one is visible.
    """
    depth = 0
    found: tuple[str | None, str | None] = None, None
    for line in reader.lines("proc/self/mountinfo"):
        front, _, back = line.partition(" - ")
        front_fields, back_fields = front.split(" "), back.split(" ")
        if len(front_fields) < 6 or len(back_fields) < 2:
            continue
        point = Path(_unescaped(front_fields[4]))
        if place.is_relative_to(point) and len(point.parts) >= depth:
            depth, found = len(point.parts), (_unescaped(back_fields[1]), back_fields[0])
    return found


def _unescaped(text: str) -> str:
    return _ESCAPE.sub(lambda escape: chr(int(escape[1], 8)), text)
