"""Recovers recordings that a crash or a power cut interrupted: removes the incomplete end and writes the index."""

import fcntl
import logging
import os
from pathlib import Path

from softcam.errors import RecordingError
from softcam.mp4 import index
from softcam.mp4.index import InvalidMp4
from softcam.recording.catalog import Catalog
from softcam.recording.files import open_file
from softcam.recording.names import is_recording, kind_of
from softcam.recording.running import RunningFiles

log = logging.getLogger(__name__)


def recover(folder: Path, catalog: Catalog, running: RunningFiles) -> int:
    """Recover all interrupted files of the folder; returns their number. Raises OSError if it cannot be read."""
    recovered = 0
    for name in sorted(entry.name for entry in os.scandir(folder)):
        if not is_recording(name) or kind_of(name) == "still" or running.progress(name) is not None:
            continue
        try:
            recovered += _recover_file(folder / name, catalog)
        except InvalidMp4 as error:
            log.debug("%s is not a recording: %s", name, error)
        except BlockingIOError:
            log.debug("%s is being written by another portal", name)
        except (OSError, RecordingError) as error:
            log.warning("Failed to recover %s: %s", name, error)
    return recovered


def _recover_file(path: Path, catalog: Catalog) -> bool:
    with open_file(path, os.O_RDWR) as file:
        if catalog.is_finished(path.name, file):
            return False
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # refused while another portal is writing the file
        mp4 = index.write_index(file.fileno())
    if not mp4.is_finished:
        return False
    log.info("Recovered interrupted recording %s (%.1f s)", path.name, mp4.duration_s)
    return True
