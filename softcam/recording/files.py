"""Opens, locks and repairs files of recordings. Functions without state; any thread.

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
from softcam.imaging import jpeg
from softcam.mp4.index import write_all

log = logging.getLogger(__name__)

NOT_FOUND: Final = "no recording with this name; GET /v1/recordings lists all"
JPEG_HEAD_BYTES: Final = 1 << 18  # the size of a JPEG is within them
_JPEG_TAIL_BYTES: Final = 4096  # some of them may be padding
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
    is_file = False
    try:
        is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
    except OSError as error:
        raise RecordingError(f"{path.name} cannot be read: {error.strerror}") from error
    finally:
        if not is_file:
            os.close(descriptor)
    if not is_file:
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


def is_whole_jpeg(picture: bytes) -> bool:
    """False for an empty JPEG and one that ends early; `picture` may be just its first and last bytes."""
    return picture.startswith(jpeg.SOI) and picture.rstrip(b"\0").endswith(jpeg.EOI)


def read_jpeg_ends(file: BinaryIO) -> bytes:
    """The first and the last bytes of a file. Raises OSError."""
    descriptor = file.fileno()
    end = os.pread(descriptor, _JPEG_TAIL_BYTES, max(2, os.fstat(descriptor).st_size - _JPEG_TAIL_BYTES))
    return os.pread(descriptor, 2, 0) + end


def repair_jpeg(path: Path) -> bool:
    """Complete a JPEG that ends early, so that what is missing is grey, and remove one without any image data.

    Returns whether it completed one. Raises BlockingIOError while the file is being written, OSError, RecordingError.
    """
    with open_file(path) as file:
        ends = read_jpeg_ends(file)
    if is_whole_jpeg(ends) or (ends and not ends.startswith(jpeg.SOI)):  # whole, or not a JPEG
        return False
    with open_file(path, os.O_RDWR) as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            jpeg.size_of(os.pread(file.fileno(), JPEG_HEAD_BYTES, 0))
        except ValueError:
            path.unlink()
            log.info("Removed an empty image: %s", path.name)
            return False
        write_all(file.fileno(), jpeg.EOI, os.fstat(file.fileno()).st_size)
        os.fsync(file.fileno())
    log.info("Completed a cut image: %s", path.name)
    return True
