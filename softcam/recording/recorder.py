"""Records video: writes the encoder's packets to files in the library until the recording is stopped.

The encoder's thread puts packets into a queue in memory and never blocks; the thread `recorder`, which exists only
during a recording, takes them out a few times per second and writes them. So a slow disk delays nothing else. While
nothing is recorded, the queue keeps the pre-roll, if one is configured.

If a file cannot be written, it is closed with what it contains, the error is reported, and a new file is tried every
few seconds. While the camera is away the last frame is shown; after a long gap the next file begins. The next start
of the portal resumes a recording that was running when the portal ended.
"""

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from softcam.camera.session.manager import CameraManager, Lease
from softcam.errors import CameraError, PortalError
from softcam.h264.packet import Packet, VideoFormat, VideoSource
from softcam.h264.packet_queue import PacketQueue
from softcam.recording.base import STOP_LIMIT_S, Recorder, Run
from softcam.recording.journal import Journal, Origin
from softcam.recording.library import Library
from softcam.recording.mp4_file import Mp4Writer
from softcam.runtime.plural import counted

log = logging.getLogger(__name__)

_MAX_FRAGMENT_S: Final = 1.0
_CLOCK_STEP_S: Final = 2.0  # more than the correction of a clock's drift during a file
_LONG_GAP_S: Final = 10.0  # a frame that would be shown longer ends the file
_MIN_FILES_IN_QUOTA: Final = 8  # whole files are deleted to free space
_READY_LIMIT_S: Final = 20.0  # a camera that is not ready by then will not be
_FIRST_FILE_S: Final = 2.0
_FRAGMENTS_AHEAD: Final = 10  # after a full disk: a new file needs room for some seconds


@dataclass(frozen=True, slots=True)
class RecorderLimits:
    """Times and sizes that tests shorten."""

    flush_s: float = 0.4  # `kill -9` loses at most this, a frame, and the time to write
    sync_s: float = 1.0  # what a power cut may lose
    retry_s: float = 5.0  # after a failed write
    max_bytes: int = 64_000_000  # in memory, for the pre-roll and a slow disk: a minute at the default bitrate
    stop_s: float = STOP_LIMIT_S


@dataclass(frozen=True, slots=True)
class RecordingOptions:
    """The options of a video recording; None for no end, and for all of the pre-roll."""

    duration_s: float | None = None
    segment_s: float = 600.0
    preroll_s: float | None = None


@dataclass(frozen=True, slots=True)
class RunningVideo:
    """The status of a recording; `name` is that of its newest file, None before the first."""

    name: str | None
    began_s: float  # Unix time
    elapsed_s: float  # since `began_s`
    size: int  # bytes of all its files, since the interruption
    segments: int
    interrupted_s: float | None  # Unix time: resumed by the portal after its restart


@dataclass(eq=False, slots=True, kw_only=True)
class _Run(Run):
    """A recording in progress. The recorder's lock guards `segments`; the thread owns the rest."""

    options: RecordingOptions
    lease: Lease | None = None
    segments: int = 0

    file: Mp4Writer | None = None
    last_s: float = 0.0  # of the last written packet, on the monotonic clock
    delta_s: float = 0.0  # between the last two
    clock_s: float = 0.0  # Unix time minus monotonic time, at the beginning of the file
    synced_s: float = 0.0
    synced_bytes: int = 0  # of the file
    is_cut_requested: bool = False
    retry_at_s: float = 0.0
    needed_bytes: int = 0  # room that the next file requires

    @property
    def ends_s(self) -> float | None:
        """On the monotonic clock."""
        return None if self.options.duration_s is None else self.origin.started_s + self.options.duration_s


class VideoRecorder(Recorder[_Run, RunningVideo, RecordingOptions]):
    """Writes packets to files. Any thread may start and stop it."""

    kind = "video recording"

    def __init__(
        self,
        source: VideoSource,
        manager: CameraManager,
        library: Library,
        preroll_s: float,
        thumbnail: Callable[[], bytes | None],
        on_crash: Callable[[str], None],
        orientation: Callable[[], int],
        limits: RecorderLimits | None = None,
        journal: Journal | None = None,
    ) -> None:
        """`thumbnail` returns a small JPEG of the newest frame, and `orientation` the EXIF orientation of the packets,
        of which another one begins another file; both are called on the recorder's thread."""
        self._limits = limits = RecorderLimits() if limits is None else limits
        super().__init__(library, on_crash, journal, limits.stop_s)
        self._source = source
        self._manager = manager
        self._preroll_s = preroll_s
        self._thumbnail = thumbnail
        self._orientation = orientation
        self._preroll_lease: Lease | None = None
        self._ended_s = 0.0  # exposure of the last recorded frame; written before a run ends, read when one begins
        self._queue = PacketQueue(
            self._on_packets,
            on_overflow=lambda: self._report_error("the disk is too slow, dropping frames"),
            max_bytes=limits.max_bytes,
            preroll_s=preroll_s,
            is_consumed=False,
        )

    # --- any thread -------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Start to keep the pre-roll, if one is configured: then the camera stays open from now on."""
        if not self._preroll_s:
            return
        try:
            self._source.subscribe(self._queue)
            self._preroll_lease = self._manager.lease("recording")
        except CameraError as error:
            self._source.unsubscribe(self._queue)
            self._report_error(f"no pre-roll: {error}")

    def start(self, options: RecordingOptions, origin: Origin | None = None) -> RunningVideo:
        run = _Run(options=options, origin=origin or Origin())
        preroll_s = self._preroll_s if options.preroll_s is None else min(options.preroll_s, self._preroll_s)
        with self._changed:
            self._begin_run(run)
            self._queue.start_consuming(run.origin.started_s - preroll_s if preroll_s else None, self._ended_s)
        try:
            if origin is None:
                self._require_space()
            run.lease = self._manager.lease("recording")
            self._source.subscribe(self._queue)
            if self._preroll_s and not preroll_s:  # subscribed before, and perhaps long after a keyframe
                self._source.request_keyframe()
            if origin is None:
                self._manager.wait_ready(time.monotonic() + _READY_LIMIT_S)
            with self._changed:
                self._start_thread(run, "recorder", self._record)
        except BaseException as error:
            self._release(run)
            if isinstance(error, PortalError):
                self._report_error(str(error))
            raise
        self._log_start(run)
        with self._changed:
            self._changed.wait_for(lambda: run.name or self._run is not run or self.last_error, _FIRST_FILE_S)
            return self._status(run)

    def close(self, deadline_s: float) -> None:
        """Stop the recording, which the next start of the portal resumes, and the pre-roll."""
        self.stop(deadline_s, is_interrupted=True)
        self._source.unsubscribe(self._queue)
        if self._preroll_lease is not None:
            self._preroll_lease.release()

    @property
    def queued_bytes(self) -> int:
        """What is in memory: the pre-roll, or packets that are not written yet."""
        return self._queue.size

    def _status(self, run: _Run) -> RunningVideo:
        origin = run.origin
        return RunningVideo(run.name, origin.began_s, run.elapsed_s, run.size, run.segments, origin.interrupted_s)

    def _on_packets(self) -> None:
        """On the encoder's thread: the first file is created at once, because `start` waits for its name."""
        with self._changed:
            if self._run is not None and self._run.name is None:
                self._changed.notify_all()

    # --- the recorder's thread --------------------------------------------------------------------------------

    def _record(self, run: _Run) -> None:
        try:
            self._save_entry(run)
            is_last = False
            while not is_last:
                packets, is_last = self._take_packets(run)
                self._write_all(run, packets)
            self._remove_entry(run)
        finally:
            self._end_file(run)
            self._release(run)
            log.info("Video recording ended: %s, %.1f MB", counted(run.segments, "file"), run.size / 1e6)

    def _release(self, run: _Run) -> None:
        if self._preroll_lease is None:
            self._source.unsubscribe(self._queue)
        if run.lease is not None:
            run.lease.release()
        self._queue.stop_consuming()  # if it has not started, or its thread crashed
        self._ended_s = max(self._ended_s, run.last_s)
        self._end_run()

    def _take_packets(self, run: _Run) -> tuple[list[tuple[VideoFormat, Packet]], bool]:
        """The packets since the last call, and whether they are the last ones."""
        with self._changed:
            self._changed.wait_for(
                lambda: run.is_stopping or (run.name is None and self._queue.size > 0), self._limits.flush_s
            )
            packets = self._queue.take_packets()
            is_last = run.is_stopping
            if run.ends_s is not None and not is_last:
                # By the time of the frames; by the clock if there are none.
                newest_s = packets[-1][1].began_s if packets else 0.0
                is_last = newest_s >= run.ends_s or time.monotonic() > run.ends_s + _MAX_FRAGMENT_S
            if is_last:
                if self._preroll_s:  # so that the next recording can begin where this one ends
                    self._source.request_keyframe()
                packets += self._queue.stop_consuming()
            return packets, is_last

    def _write_all(self, run: _Run, packets: Sequence[tuple[VideoFormat, Packet]]) -> None:
        pending: list[Packet] = []  # of the next fragment
        for fmt, packet in packets:
            if run.ends_s is not None and packet.began_s >= run.ends_s:
                break
            with self._retrying(run):
                is_file_start = self._is_file_start(run, fmt, packet, pending)
                if is_file_start or (pending and packet.began_s - pending[0].began_s >= _MAX_FRAGMENT_S):
                    fragment, pending = pending, []
                    self._write(run, fragment, packet)
                if is_file_start:
                    self._next_file(run, fmt, packet)
            if run.file is not None:
                pending.append(packet)
        with self._retrying(run):
            self._write(run, pending)
            if time.monotonic() - run.synced_s >= self._limits.sync_s:
                self._sync(run)

    @contextlib.contextmanager
    def _retrying(self, run: _Run) -> Iterator[None]:
        """A file that cannot be written ends there, and another one is tried later."""
        try:
            yield
        except OSError as error:
            if run.file is not None and run.file.has_reached_limit(error):
                self._end_file(run)
                self._source.request_keyframe()
                return
            self._report_error(f"recording paused, retrying: {error.strerror or error}")
            self._end_file(run)
            run.retry_at_s = time.monotonic() + self._limits.retry_s

    def _is_file_start(self, run: _Run, fmt: VideoFormat, packet: Packet, pending: Sequence[Packet]) -> bool:
        """Whether the packet begins a file; requests a keyframe if one should begin soon."""
        if run.file is None or run.file.fmt != fmt:
            return packet.is_keyframe
        is_complete = (
            packet.began_s - run.file.zero_s >= run.options.segment_s
            or run.file.orientation != self._orientation()
            or run.file.size >= self._max_file_bytes
            or abs(packet.timestamp_s - packet.began_s - run.clock_s) > _CLOCK_STEP_S  # the clock was set
        )
        if packet.is_keyframe:
            last_s = pending[-1].began_s if pending else run.last_s
            return is_complete or packet.began_s - last_s > _LONG_GAP_S
        if is_complete and not run.is_cut_requested:
            run.is_cut_requested = True
            self._source.request_keyframe()
        return False

    @property
    def _max_file_bytes(self) -> int:
        """One file's share of the quota, and what the file system supports."""
        quota, limit = self._library.quota, self._library.max_file_bytes
        return limit if quota is None else min(limit, quota // _MIN_FILES_IN_QUOTA)

    def _next_file(self, run: _Run, fmt: VideoFormat, packet: Packet) -> None:
        self._end_file(run)
        if time.monotonic() < run.retry_at_s:
            return
        self._library.enforce_quota(max(min(run.needed_bytes, self._max_file_bytes), len(packet.data)))
        run.file = Mp4Writer(self._library, "video", fmt, packet.timestamp_s, packet.began_s, self._orientation())
        run.last_s, run.delta_s, run.is_cut_requested = packet.began_s, 0.0, False
        run.clock_s = packet.timestamp_s - packet.began_s
        run.synced_s, run.synced_bytes = time.monotonic(), 0

    def _write(self, run: _Run, packets: Sequence[Packet], following: Packet | None = None) -> None:
        """Write a fragment; `following` is the packet after it, if that is known. Raises OSError."""
        file = run.file
        if file is None or not packets:
            return
        for packet in packets:
            run.delta_s, run.last_s = packet.began_s - run.last_s, packet.began_s
        # The duration of the last packet may be unknown; the start of the next fragment corrects it.
        last_duration_s = min(run.delta_s or 1 / file.fmt.fps, _MAX_FRAGMENT_S)
        if following is not None and following.began_s - run.last_s <= _LONG_GAP_S:
            last_duration_s = following.began_s - run.last_s
        new_bytes = sum(len(packet.data) for packet in packets)
        run.needed_bytes = new_bytes * _FRAGMENTS_AHEAD  # if this fails
        if self._library.max_bytes is None:  # with a limit, `_sync` checks once a second: many files take time
            self._library.enforce_quota(new_bytes)
        size = file.size
        file.add_fragment(packets, last_duration_s)
        run.needed_bytes = 0
        with self._changed:
            run.size += file.size - size
        if file.fragments == 1:
            self._count_file(run, file)

    def _count_file(self, run: _Run, file: Mp4Writer) -> None:
        """The file has its first fragment: without one, it would be removed again."""
        with self._changed:
            run.name = file.name
            run.segments += 1
            self._changed.notify_all()
        log.info("Recording %s", file.name)
        self._save_entry(run)
        try:
            thumbnail = self._thumbnail()
            if thumbnail is not None:
                self._library.set_thumbnail(file.name, thumbnail)
        except CameraError as error:
            log.debug("No thumbnail of %s: %s", file.name, error)

    def _sync(self, run: _Run) -> None:
        """Raises OSError."""
        if run.file is None:
            return
        run.file.sync()
        grown_bytes = run.file.size - run.synced_bytes
        run.synced_s, run.synced_bytes = time.monotonic(), run.file.size
        try:
            self._library.require_present(run.file.name)
        except FileNotFoundError as error:
            self._report_error(f"{run.file.name}: {error.strerror}; starting another file")
            self._end_file(run)
            self._source.request_keyframe()
            return
        if self._library.quota is not None:  # room for a second like the last one
            self._library.enforce_quota(min(grown_bytes, self._max_file_bytes))
        with self._changed:
            if not self._queue.is_awaiting_keyframe:  # no frames are dropped
                self.last_error = None

    def _end_file(self, run: _Run) -> None:
        if run.file is not None:
            file, run.file = run.file, None
            file.close()
            with self._changed:
                self._changed.notify_all()
