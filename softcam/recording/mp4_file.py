"""An MP4 file while it is written: fragments first, the index at the end. No thread; the writer's thread calls.

Each fragment is written by one call, so `kill -9` loses none that was added; a power cut loses what was added after the
last `sync`, but not the first fragment. A failed write is undone, so the file always ends with a whole fragment.
"""

import contextlib
import errno
import logging
import os
from collections.abc import Sequence

from softcam.h264.packet import Packet, VideoFormat
from softcam.mp4 import fragment, index
from softcam.mp4.index import MDAT_PLACEHOLDER, InvalidMp4
from softcam.recording.library import Library
from softcam.recording.names import Kind
from softcam.runtime.atomic_file import sync_directory

log = logging.getLogger(__name__)


class Mp4Writer:
    """Creates a file in the library and writes fragments to it."""

    def __init__(
        self, library: Library, kind: Kind, fmt: VideoFormat, began_s: float, zero_s: float, orientation: int = 1
    ) -> None:
        """`began_s` is Unix time, for name and date; `zero_s` is the `began_s` of the first packet; `orientation` is an
        EXIF orientation that `fragment.initial_segment` supports. Raises OSError.
        """
        self.fmt = fmt
        self.orientation = orientation
        self.zero_s = zero_s
        self.size = 0  # bytes of the header and of whole fragments
        self.fragments = 0
        self._library = library
        self.name, self._descriptor = library.create_recording(kind, began_s)
        try:
            head = fragment.initial_segment(fmt, orientation, began_s, library.title)
            ftyp_size = int.from_bytes(head[:4])
            self._append(head[:ftyp_size] + MDAT_PLACEHOLDER + head[ftyp_size:])
        except BaseException:
            os.close(self._descriptor)
            library.close_recording(self.name)
            raise

    def add_fragment(self, packets: Sequence[Packet], last_duration_s: float) -> None:
        """Write consecutive packets as a fragment; the last one lasts `last_duration_s`. Raises OSError.

        The first one is on the disk when this returns, and so is the name of the file.
        """
        self._append(fragment.fragment(self.fragments + 1, packets, self.zero_s, last_duration_s))
        if not self.fragments:
            self.sync()
            sync_directory(self._library.folder)
        self.fragments += 1
        self._library.catalog.update_progress(self.name, self.size, packets[-1].began_s - self.zero_s + last_duration_s)

    def has_reached_limit(self, error: OSError) -> bool:
        """Whether writing failed because the file system supports no larger files.

        Then the limit of the library is lowered, so that the next file ends in time.
        """
        if error.errno != errno.EFBIG or not self.fragments:
            return False
        self._library.lower_file_limit(self.size)
        log.info("%s has the largest size that the file system supports; starting another file", self.name)
        return True

    def sync(self) -> None:
        """Return when everything is on the disk; slow on a slow one. Raises OSError."""
        os.fdatasync(self._descriptor)

    def close(self) -> None:
        """Write the index if possible, and close the file. A file without fragments is removed."""
        try:
            if self.fragments:
                # A disk that is full or gone has no room for the index: the file plays without it.
                with contextlib.suppress(OSError, InvalidMp4):
                    index.write_index(self._descriptor)
        finally:
            # Closing may report the missing disk again.
            with contextlib.suppress(OSError):
                os.close(self._descriptor)
            with contextlib.suppress(OSError):
                self._library.close_recording(self.name)

    def _append(self, data: bytes) -> None:
        try:
            index.write_all(self._descriptor, data, self.size)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, self.size)
            raise
        self.size += len(data)
