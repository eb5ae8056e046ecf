"""A video recording in progress: its options, its progress and its status. No thread and no lock in here."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from softcam.camera.session.manager import Lease
from softcam.h264.packet import Packet
from softcam.recording.base import Run
from softcam.recording.journal import Origin
from softcam.recording.video_file import VideoFile

MAX_FRAGMENT_S: Final = 1.0
LONG_GAP_S: Final = 10.0  # a frame that would be shown longer ends the file
_FRAGMENTS_AHEAD: Final = 10  # after a full disk: a new file needs room for some seconds


@dataclass(frozen=True, slots=True)
class RecordingOptions:
    """The options of a video recording; None for no end, and for all of the pre-roll."""

    duration_s: float | None = None
    segment_s: float = 600.0
    preroll_s: float | None = None


@dataclass(frozen=True, slots=True)
class RunningVideo:
    """The status of a recording; `name` is that of its newest file, None before the first and while it is paused."""

    name: str | None
    began_s: float  # Unix time
    elapsed_s: float  # recorded since then, without pauses and interruptions
    size: int  # bytes of all its files, since the interruption
    segments: int
    interrupted_s: float | None  # Unix time: resumed by the portal after its restart
    paused: str | None  # why nothing is recorded


class VideoRun(Run[RecordingOptions]):
    """A video recording in progress. The recorder's lock guards the counters; its thread owns the rest."""

    def __init__(self, options: RecordingOptions, origin: Origin | None) -> None:
        super().__init__(options, origin)
        self.segments = 0

        self.file: VideoFile | None = None
        self.last_s = 0.0  # of the last written packet, on the monotonic clock
        self.needed_bytes = 0  # room that the next file requires after a failed write
        self._delta_s = 0.0  # between the last two packets
        self._ended_s = self.recorded_s  # when the newest file began
        self._received_s = time.monotonic()  # when the last packet was received
        self._retry_at_s = 0.0
        self._lease: Lease | None = None

    @property
    def ends_s(self) -> float | None:
        """On the monotonic clock."""
        return None if self.options.duration_s is None else self.origin.started_s + self.options.duration_s

    def count_fragment(self, size: int, file: VideoFile, end_s: float) -> None:
        """The file has another fragment of `size` bytes, which ends at `end_s`."""
        self.needed_bytes = 0
        self.size += size
        self.is_writing = self.is_writing or file.fragments > 1
        begin_s = max(file.zero_s, self.origin.started_s)  # without the pre-roll
        self.recorded_s = self._ended_s + max(0.0, end_s - begin_s)

    def count_file(self, name: str) -> None:
        self.begin_file(name)
        self.segments += 1

    # --- the thread; the lease also belongs to the thread that starts the recording -----------------------------

    def keep_camera_open(self, lease: Lease) -> None:
        self._lease = lease

    def release_camera(self) -> None:
        if self._lease is not None:
            self._lease.release()

    def mark_received(self) -> None:
        """There are packets now."""
        self._received_s = time.monotonic()

    def is_silent(self, limit_s: float) -> bool:
        """Whether there were no packets for so long, and for twice the time between the last two."""
        return time.monotonic() - self._received_s > max(limit_s, 2 * self._delta_s)

    def open_file(self, file: VideoFile) -> None:
        self.file = file
        self.last_s, self._delta_s = file.zero_s, 0.0

    def close_file(self) -> bool:
        """Finish the newest file; False if it is not open."""
        file, self.file = self.file, None
        if file is not None:
            self._ended_s = self.recorded_s
            file.close()
        return file is not None

    def retry_later(self, pause_s: float) -> None:
        """No file begins for so long."""
        self._retry_at_s = time.monotonic() + pause_s

    @property
    def may_begin_file(self) -> bool:
        return time.monotonic() >= self._retry_at_s

    def begin_fragment(self, packets: Sequence[Packet], following: Packet | None, fps: float) -> float:
        """These packets are written next; returns for how long the last one is shown.

        Without a following packet that is a guess, which the start of the next fragment corrects.
        """
        self.needed_bytes = _FRAGMENTS_AHEAD * sum(len(packet.data) for packet in packets)
        for packet in packets:
            self._delta_s, self.last_s = packet.began_s - self.last_s, packet.began_s
        if following is not None and following.began_s - self.last_s <= LONG_GAP_S:
            return following.began_s - self.last_s
        return min(self._delta_s or 1 / fps, MAX_FRAGMENT_S)
