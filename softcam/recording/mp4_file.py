"""One MP4 file while it is written: fragments first, its index at the end. No thread; whoever writes it calls.

Each fragment leaves in one write, so `kill -9` takes none that was added; what a power cut takes is behind the last
`sync`. A write that fails is taken back, so that the file always ends with a whole fragment.
"""

import contextlib
import os
from collections.abc import Sequence

from softcam.h264.packet import Packet, VideoFormat
from softcam.mp4 import fragment, index
from softcam.mp4.index import MDAT_PLACEHOLDER, InvalidMp4
from softcam.recording.library import Kind, Library


def upright() -> int:
    """The orientation, as EXIF has it, of pictures that nobody has to turn."""
    return 1


class Mp4Writer:
    """Opens a file of its own in the library."""

    def __init__(
        self, library: Library, kind: Kind, fmt: VideoFormat, began_s: float, zero_s: float, orientation: int = 1
    ) -> None:
        """`began_s` is Unix time, and becomes the name; `zero_s` is the `began_s` of the first packet to come;
        `orientation` is EXIF's, as `fmp4` knows it. Raises OSError.
        """
        self.fmt = fmt
        self.orientation = orientation
        self.zero_s = zero_s
        self._library = library
        self._at = 0
        self._fragments = 0
        self.name, self._descriptor = library.create(kind, began_s)
        try:
            head = fragment.initial_segment(fmt, orientation)
            of_type = int.from_bytes(head[:4])  # the length of the first box, `ftyp`
            self._append(head[:of_type] + MDAT_PLACEHOLDER + head[of_type:])
        except BaseException:
            os.close(self._descriptor)
            library.close_recording(self.name)
            raise

    @property
    def size(self) -> int:
        """Bytes of whole fragments, and the header."""
        return self._at

    @property
    def is_first(self) -> bool:
        """Whether it has one fragment, and no more."""
        return self._fragments == 1

    def add(self, packets: Sequence[Packet], last_duration_s: float) -> None:
        """A fragment of consecutive packets; the last one is shown for `last_duration_s`. Raises OSError."""
        self._append(fragment.fragment(self._fragments + 1, packets, self.zero_s, last_duration_s))
        self._fragments += 1
        self._library.update_progress(self.name, self._at, packets[-1].began_s - self.zero_s + last_duration_s)

    def sync(self) -> None:
        """Return when the disk has all of it; takes long on a slow one. Raises OSError."""
        os.fdatasync(self._descriptor)

    def close(self) -> None:
        """The end: the index is written where it can be. A file that holds nothing is taken away."""
        try:
            if self._fragments:
                # A disk that is full or gone has no room for the index: the file plays without.
                with contextlib.suppress(OSError, InvalidMp4):
                    index.write_index(self._descriptor)
            else:
                self._library.update_progress(self.name, 0)
        finally:
            # Where the disk is gone, closing may say so again.
            with contextlib.suppress(OSError):
                os.close(self._descriptor)
            with contextlib.suppress(OSError):
                self._library.close_recording(self.name)

    def _append(self, data: bytes) -> None:
        left, at = memoryview(data), self._at
        try:
            while left:
                written = os.pwrite(self._descriptor, left, at)
                left, at = left[written:], at + written
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, self._at)
            raise
        self._at = at
