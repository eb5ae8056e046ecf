"""A file of a video recording while it is written: whether it is complete, and how much of it is on the disk.

No thread; the recorder's thread calls.
"""

import time
from collections.abc import Callable
from typing import Final

from softcam.h264.packet import Packet, VideoFormat
from softcam.recording.library import Library
from softcam.recording.mp4_file import Mp4Writer

_CLOCK_STEP_S: Final = 2.0  # more than the correction of a clock's drift during a file


class VideoFile(Mp4Writer):
    """An MP4 file of the library that begins with the packet `first`."""

    def __init__(self, library: Library, fmt: VideoFormat, first: Packet, orientation: int) -> None:
        """`orientation` is as for `Mp4Writer`. Raises OSError."""
        super().__init__(library, "video", fmt, first.timestamp_s, first.began_s, orientation)
        self._clock_s = first.timestamp_s - first.began_s  # Unix time minus monotonic time
        self._synced_s = time.monotonic()
        self._synced_bytes = 0
        self._is_cut_requested = False

    def is_complete(self, following: Packet, segment_s: float, max_bytes: int, orientation: int) -> bool:
        """Whether another file has to begin: by length, size, orientation, or because the wall clock was set."""
        return (
            following.began_s - self.zero_s >= segment_s
            or self.orientation != orientation
            or self.size >= max_bytes
            or abs(following.timestamp_s - following.began_s - self._clock_s) > _CLOCK_STEP_S
        )

    def request_cut(self, request_keyframe: Callable[[], None]) -> None:
        """Request the keyframe that begins the next file, once."""
        if not self._is_cut_requested:
            self._is_cut_requested = True
            request_keyframe()

    def is_sync_due(self, interval_s: float) -> bool:
        return time.monotonic() - self._synced_s >= interval_s

    def sync_growth(self) -> int:
        """Return when everything is on the disk: the bytes that were written since the last call. Raises OSError."""
        self.sync()
        grown_bytes = self.size - self._synced_bytes
        self._synced_s, self._synced_bytes = time.monotonic(), self.size
        return grown_bytes
