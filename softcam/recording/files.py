"""Opens and locks files of recordings. Functions without state; any thread.

The writer of a file holds an exclusive flock on it, so that portals that share a folder leave each other's files alone.
"""

import fcntl
import logging
import os
import stat
import time
from pathlib import Path
from typing import BinaryIO, Final

from softcam.errors import NoRecording, RecordingError

log = logging.getLogger(__name__)

NOT_FOUND: Final = "no recording with this name; GET /v1/recordings lists all"
_LOCK_TRIES: Final = 10
_LOCK_PAUSE_S: Final = 0.01  # longer than another portal needs to check the lock


def open_file(path: Path, access: int = os.O_RDONLY) -> BinaryIO:
    """Open a regular file. Raises RecordingError, and NoRecording where there is no such file."""
    try:
        # Symbolic links are not followed out of the folder, and opening a FIFO does not block.
        descriptor = os.open(path, access | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise NoRecording(NOT_FOUND) from error
    except OSError as error:
        raise RecordingError(f"{path.name} cannot be opened: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise NoRecording(NOT_FOUND)
    return os.fdopen(descriptor, "rb" if access == os.O_RDONLY else "r+b")


def lock_file(descriptor: int, name: str) -> None:
    """Lock a file for its writer, where the file system supports locks; some network file systems do not."""
    for _ in range(_LOCK_TRIES):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # another portal is checking the lock
            time.sleep(_LOCK_PAUSE_S)
        except OSError:
            break
        else:
            return
    log.debug("Recording %s cannot be locked", name)


def is_locked(path: Path) -> bool:
    """Whether another process, or a writer of this one, holds the lock."""
    try:
        with open_file(path) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except (OSError, RecordingError):  # the file is gone, or its file system has no locks
        return False
    return False
