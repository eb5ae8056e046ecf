"""The portals of this machine that systemd starts at boot: the enabled instances of `camera-soft-cam@.service`.

`systemctl enable` makes symbolic links, which everybody may read; asking systemd would need its bus. `systemctl mask`
leaves them, and makes a link to `/dev/null` in the place of the instance's unit file. Any thread.
"""

import re
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

_UNIT: Final = re.compile(r"camera-soft-cam@(0|[1-9][0-9]?)\.service")
_NAMES: Final = "camera-soft-cam@*.service"
_CGROUP: Final = Path("/proc/self/cgroup")
_FOLDERS: Final = (Path("/etc/systemd/system"), Path("/run/systemd/system"))  # the second: with `--runtime`
_MASK: Final = Path("/dev/null")
_MAX_AGE_S: Final = 5.0


def own_instance(cgroup: Path = _CGROUP) -> int | None:
    """The number of the instance that this process is; None if systemd did not start it as one."""
    with suppress(OSError):
        for line in cgroup.read_text("utf-8", "replace").splitlines():
            if found := _UNIT.fullmatch(line.rpartition("/")[2]):
                return int(found[1])
    return None


class EnabledInstances:
    """Reads the numbers of the enabled instances, except for masked ones, every few seconds at most."""

    def __init__(self, folders: Sequence[Path] = _FOLDERS, clock: Callable[[], float] = time.monotonic) -> None:
        self._folders = folders
        self._clock = clock
        self._latest: tuple[float, frozenset[int]] | None = None  # replaced as a whole: two threads may read at once

    def numbers(self) -> frozenset[int]:
        """Empty if the folders cannot be read."""
        now_s = self._clock()
        if self._latest is None or now_s - self._latest[0] >= _MAX_AGE_S:
            self._latest = now_s, frozenset(self._read())
        return self._latest[1]

    def _read(self) -> set[int]:
        found: set[int] = set()
        for folder in self._folders:
            for pattern in ("*.wants", "*.requires"):
                found |= _numbers(folder.glob(f"{pattern}/{_NAMES}"))
        masks = (link for folder in self._folders for link in folder.glob(_NAMES) if _is_mask(link))
        return found - _numbers(masks)


def _numbers(links: Iterable[Path]) -> set[int]:
    with suppress(OSError):
        return {int(found[1]) for link in links if (found := _UNIT.fullmatch(link.name))}
    return set()


def _is_mask(link: Path) -> bool:
    with suppress(OSError):  # not a link
        return link.readlink() == _MASK
    return False
