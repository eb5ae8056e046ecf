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
from softcam.errors import CameraError
from softcam.h264.packet import Packet, VideoFormat, VideoSource
from softcam.h264.packet_queue import PacketQueue
from softcam.recording.base import STOP_LIMIT_S, Recorder
from softcam.recording.journal import Journal, Origin
from softcam.recording.library import Library
from softcam.recording.video_file import VideoFile
from softcam.recording.video_run import LONG_GAP_S, MAX_FRAGMENT_S, RecordingOptions, RunningVideo, VideoRun
from softcam.runtime.deadline import Deadline
from softcam.runtime.plural import counted

log = logging.getLogger(__name__)

_READY_LIMIT_S: Final = 20.0  # a camera that is not ready by then will not be
_FIRST_FILE_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class RecorderLimits:
    """Times and sizes that tests shorten."""

    flush_s: float = 0.4  # `kill -9` loses at most this, a frame, and the time to write
    sync_s: float = 1.0  # what a power cut may lose
    retry_s: float = 5.0  # after a failed write
    silence_s: float = LONG_GAP_S  # without frames for so long, nothing is recorded
    max_bytes: int = 64_000_000  # in memory, for the pre-roll and a slow disk: a minute at 8 Mbit/s
    stop_s: float = STOP_LIMIT_S


class VideoRecorder(Recorder[VideoRun, RunningVideo, RecordingOptions]):
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
        try:
            if not self._preroll_s:
                return
            self._source.subscribe(self._queue)
            self._preroll_lease = self._manager.lease("recording")
        except CameraError as error:
            self._source.unsubscribe(self._queue)
            self._report_error(f"no pre-roll: {error}")

    def start(self, options: RecordingOptions, origin: Origin | None = None) -> RunningVideo:
        run = VideoRun(options, origin)
        preroll_s = self._preroll_s if options.preroll_s is None else min(options.preroll_s, self._preroll_s)
        with self._changed:
            self._begin_run(run)
            self._queue.start_consuming(run.origin.started_s - preroll_s if preroll_s else None, self._ended_s)
        try:
            if origin is None:
                self._require_space()
            run.keep_camera_open(self._manager.lease("recording"))
            self._source.subscribe(self._queue)
            if self._preroll_s and not preroll_s:  # subscribed before, and perhaps long after a keyframe
                self._source.request_keyframe()
            if origin is None:
                self._manager.wait_ready(time.monotonic() + _READY_LIMIT_S)
            self._start_thread(run, "recorder", self._record)
        except BaseException as error:
            if run.is_stopping:
                self._remove_entry(run)  # of a recording that was to be resumed
            self._release(run)
            self._report_failed_start(run, error)
            raise
        self._log_start(run)
        with self._changed:
            self._changed.wait_for(lambda: run.name or self._run is not run or self.last_error, _FIRST_FILE_S)
            return self._status(run)

    def close(self, deadline: Deadline) -> None:
        """Stop the recording, which the next start of the portal resumes, and the pre-roll."""
        self.stop(deadline, is_interrupted=True)
        self._source.unsubscribe(self._queue)
        if self._preroll_lease is not None:
            self._preroll_lease.release()

    @property
    def queued_bytes(self) -> int:
        """What is in memory: the pre-roll, or packets that are not written yet."""
        return self._queue.size

    def _status(self, run: VideoRun) -> RunningVideo:
        began_s, interrupted_s = run.origin.began_s, run.origin.interrupted_s
        amounts = run.recorded_s, run.size, run.segments
        return RunningVideo(run.shown_name, began_s, *amounts, interrupted_s, run.paused)

    def _on_packets(self) -> None:
        """On the encoder's thread: the first file is created at once, because `start` waits for its name."""
        with self._changed:
            if self._run is not None and self._run.name is None:
                self._changed.notify_all()

    # --- the recorder's thread --------------------------------------------------------------------------------

    def _record(self, run: VideoRun) -> None:
        try:
            self._save_entry(run)
            is_last = False
            while not is_last:
                packets, is_last = self._take_packets(run)
                self._report_silence(run, packets)
                self._write_all(run, packets)
            self._remove_entry(run)
        finally:
            self._end_file(run)
            self._release(run)
            log.info("Video recording ended: %s, %.1f MB", counted(run.segments, "file"), run.size / 1e6)

    def _release(self, run: VideoRun) -> None:
        if self._preroll_lease is None:
            self._source.unsubscribe(self._queue)
        run.release_camera()
        self._queue.stop_consuming()  # if it has not started, or its thread crashed
        self._ended_s = max(self._ended_s, run.last_s)
        self._end_run()

    def _take_packets(self, run: VideoRun) -> tuple[list[tuple[VideoFormat, Packet]], bool]:
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
                is_last = newest_s >= run.ends_s or time.monotonic() > run.ends_s + MAX_FRAGMENT_S
            if is_last:
                if self._preroll_s:  # so that the next recording can begin where this one ends
                    self._source.request_keyframe()
                packets += self._queue.stop_consuming()
            return packets, is_last

    def _report_silence(self, run: VideoRun, packets: Sequence[object]) -> None:
        """Without packets for so long that the next one begins another file, nothing is recorded."""
        if packets:
            run.mark_received()
        elif run.paused is None and run.is_silent(self._limits.silence_s):
            reason = self._manager.recovery_reason
            self._pause(run, "no frames from the camera" + (f": {reason}" if reason else ""))

    def _pause(self, run: VideoRun, reason: str, error: str | None = None, cause: OSError | None = None) -> None:
        """Nothing is recorded, for this reason; `error` is what is logged, by default the reason."""
        with self._changed:
            run.suspend()
        self._report_error(error or reason, reason, cause)

    def _write_all(self, run: VideoRun, packets: Sequence[tuple[VideoFormat, Packet]]) -> None:
        pending: list[Packet] = []  # of the next fragment
        for fmt, packet in packets:
            if run.ends_s is not None and packet.began_s >= run.ends_s:
                break
            with self._retrying(run):
                is_file_start = self._is_file_start(run, fmt, packet, pending)
                if is_file_start or (pending and packet.began_s - pending[0].began_s >= MAX_FRAGMENT_S):
                    fragment, pending = pending, []
                    self._write(run, fragment, packet)
                if is_file_start:
                    self._next_file(run, fmt, packet)
            if run.file is not None:
                pending.append(packet)
        with self._retrying(run):
            self._write(run, pending)
            if run.file is not None and run.file.is_sync_due(self._limits.sync_s):
                self._sync(run, run.file)

    @contextlib.contextmanager
    def _retrying(self, run: VideoRun) -> Iterator[None]:
        """A file that cannot be written ends there, and another one is tried later."""
        try:
            yield
        except OSError as error:
            if run.file is not None and run.file.has_reached_limit(error):
                self._end_file(run)
                self._source.request_keyframe()
                return
            reason = error.strerror or str(error)
            self._pause(run, reason, f"recording paused, retrying: {reason}", error)
            self._end_file(run)
            run.retry_later(self._limits.retry_s)

    def _is_file_start(self, run: VideoRun, fmt: VideoFormat, packet: Packet, pending: Sequence[Packet]) -> bool:
        """Whether the packet begins a file; requests a keyframe if one should begin soon."""
        if run.file is None or run.file.fmt != fmt:
            return packet.is_keyframe
        is_complete = run.file.is_complete(packet, run.options.segment_s, self._max_file_bytes, self._orientation())
        if packet.is_keyframe:
            last_s = pending[-1].began_s if pending else run.last_s
            return is_complete or packet.began_s - last_s > LONG_GAP_S
        if is_complete:
            run.file.request_cut(self._source.request_keyframe)
        return False

    @property
    def _max_file_bytes(self) -> int:
        """One file's share of the limit, and what the file system supports."""
        share, limit = self._library.share, self._library.max_file_bytes
        return limit if share is None else min(limit, share)

    def _next_file(self, run: VideoRun, fmt: VideoFormat, packet: Packet) -> None:
        self._end_file(run)
        if not run.may_begin_file:
            return
        self._library.enforce_quota(max(min(run.needed_bytes, self._max_file_bytes), len(packet.data)))
        run.open_file(VideoFile(self._library, fmt, packet, self._orientation()))

    def _write(self, run: VideoRun, packets: Sequence[Packet], following: Packet | None = None) -> None:
        """Write a fragment; `following` is the packet after it, if that is known. Raises OSError."""
        file = run.file
        if file is None or not packets:
            return
        last_duration_s = run.begin_fragment(packets, following, file.fmt.fps)
        if self._library.max_bytes is None:  # with a limit, `_sync` checks once a second: many files take time
            self._library.enforce_quota(sum(len(packet.data) for packet in packets))
        size = file.size
        file.add_fragment(packets, last_duration_s)
        with self._changed:
            run.count_fragment(file.size - size, file, run.last_s + last_duration_s)
        if file.fragments == 1:
            self._count_file(run, file)

    def _count_file(self, run: VideoRun, file: VideoFile) -> None:
        """The file has its first fragment: without one, it would be removed again."""
        with self._changed:
            run.count_file(file.name)
            self._changed.notify_all()
        log.info("Recording %s", file.name)
        self._save_entry(run)
        try:
            thumbnail = self._thumbnail()
            if thumbnail is not None:
                self._library.set_thumbnail(file.name, thumbnail)
        except CameraError as error:
            log.debug("No thumbnail of %s: %s", file.name, error)

    def _sync(self, run: VideoRun, file: VideoFile) -> None:
        """Raises OSError."""
        grown_bytes = file.sync_growth()
        try:
            self._library.require_present(file.name)
        except FileNotFoundError as error:
            reason = error.strerror or str(error)
            self._pause(run, reason, f"{file.name}: {reason}; starting another file")
            self._end_file(run)
            self._source.request_keyframe()
            return
        if self._library.quota is not None:  # room for a second like the last one
            self._library.enforce_quota(min(grown_bytes, self._max_file_bytes))
        with self._changed:
            if grown_bytes and not self._queue.is_awaiting_keyframe:  # it is written to, and no frames are dropped
                self._clear_error(run)

    def _end_file(self, run: VideoRun) -> None:
        if run.close_file():
            with self._changed:
                self._changed.notify_all()
