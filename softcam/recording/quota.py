"""The limit on the size of all recordings: deletes the oldest ones and keeps some of the disk free."""

import errno
import logging
import threading
from collections.abc import Callable, Iterable

from softcam.errors import RecordingError
from softcam.recording.disk import Disk
from softcam.recording.names import sort_key

log = logging.getLogger(__name__)


class Quota:
    """The quota of one folder; any thread may call."""

    def __init__(
        self,
        disk: Disk,
        max_bytes: int | None,
        sizes: Callable[[], Iterable[tuple[str, int]]],
        delete: Callable[[str], None],
    ) -> None:
        """`sizes` returns all recordings and their bytes; `delete` deletes one, or raises RecordingError."""
        self.max_bytes = max_bytes
        self._limit = max_bytes  # a single value: read without the lock
        self._disk = disk
        self._sizes = sizes
        self._delete = delete
        self._enforcing = threading.Lock()  # one thread at a time deletes

    @property
    def limit(self) -> int | None:
        """The limit in bytes, or what the disk has room for if that is less; None without a limit."""
        return self._limit

    def enforce(self, needed: int) -> None:
        """Make sure that `needed` bytes may be written. Raises OSError if the disk or the limit is reached.

        With a limit the oldest recordings are deleted, also where the disk is smaller than the limit; without one,
        nothing is ever deleted.
        """
        with self._enforcing:
            self._disk.require()
            free, reserve = self._disk.free()
            excess = needed + reserve - free
            if self.max_bytes is None:
                if excess > 0:
                    raise OSError(errno.ENOSPC, f"the disk is full, {free // 1_000_000} MB free")
                return
            sizes = sorted(self._sizes(), key=lambda entry: sort_key(entry[0]))
            used = sum(size for _, size in sizes)
            self._limit = min(self.max_bytes, max(0, used + free - reserve))
            excess = max(excess, used + needed - self.max_bytes)
            for name, size in sizes:
                if excess <= 0:
                    return
                try:
                    self._delete(name)
                except RecordingError as error:
                    log.debug("%s not deleted: %s", name, error)
                    continue
                log.info("Deleted %s, the oldest recording, to free space", name)
                excess -= size
            if excess > 0:
                raise OSError(errno.ENOSPC, "no space left, and no older recording to delete")
