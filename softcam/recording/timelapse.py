"""Records time-lapses: takes a still per interval, saves it as a JPEG, and appends it to an MP4 file.

The thread `timelapse` exists only during a recording. It requests each still when it is due, so with a long interval an
otherwise unused camera is open for the stills only. A failed still is counted, and the next one follows on schedule; if
stills take longer than the interval, the missed ones are skipped. The next start of the portal resumes a time-lapse
that was running when the portal ended, in another file. Each still and its frame are synced, so that a power cut loses
the last still at most. Each still is taken on a separate thread, `timelapse still`, so that stopping need not wait for
the camera. If the MP4 file is removed while it is written, another one is started.
"""

import errno
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from softcam.errors import CameraError, NoPicture, without_stack
from softcam.h264.bitrate import Bitrate
from softcam.h264.packet import Packet, VideoFormat
from softcam.h264.x264 import X264, require_libx264
from softcam.imaging.frame import Frame
from softcam.imaging.jpeg_decoder import JpegDecoder
from softcam.imaging.scale import scaled_size
from softcam.imaging.snapshot import Snapshot
from softcam.recording import thumbnail
from softcam.recording.base import Recorder, Run
from softcam.recording.journal import Journal, Origin
from softcam.recording.library import Library
from softcam.recording.mp4_file import Mp4Writer
from softcam.runtime.plural import counted
from softcam.runtime.threads import spawn

log = logging.getLogger(__name__)

# Of the video; stills keep their size. Every player supports it, and a small machine encodes it in less than a second.
_MAX_WIDTH: Final = 1920
_KEYFRAME_S: Final = 1.0  # in the video's time
# In one file, 20 minutes of video at 25 fps: a folder on FAT32 has 65536 entries, and a still's name takes two.
_MAX_STILLS: Final = 30_000
# Written with a still: its frame is smaller than the still, and a new file has a header, a thumbnail and an index.
_BESIDES_FRAME_BYTES: Final = 4096
_CLOCK_STEP_S: Final = 60.0  # between two stills: more than the correction of a clock's drift in a day
_FIRST_STILL_S: Final = 5.0  # from a cold camera
_LAST_STILL_S: Final = 0.2  # how long stopping waits for a still in progress
_STILL_LIMIT_S: Final = 60.0  # opening, focusing and a retry take far less: the camera hangs


@dataclass(frozen=True, slots=True)
class TimelapseOptions:
    """The options of a time-lapse; `fps` is the frame rate of its video."""

    interval_s: float = 10.0
    duration_s: float | None = None
    fps: float = 25.0
    full_sensor: bool = False

    def __post_init__(self) -> None:
        if min(self.interval_s, self.fps) <= 0:
            raise ValueError("interval_s and fps: must be positive")


@dataclass(frozen=True, slots=True)
class RunningTimelapse:
    """The status of a time-lapse; `name` is that of its newest file, None before the first and while it is paused."""

    name: str | None
    began_s: float  # Unix time
    elapsed_s: float  # recorded since then, without pauses and interruptions
    size: int  # bytes, including the stills, since the interruption
    stills: int
    failures: int
    interval_s: float
    interrupted_s: float | None  # Unix time: resumed by the portal after its restart
    paused: str | None  # why the last still is missing


class _Video:
    """An MP4 file while it is written, the encoder of its frames, and the stills next to it."""

    def __init__(self, library: Library, file: Mp4Writer, encoder: X264) -> None:
        self.file = file
        self.encoder = encoder
        self.stills = 0
        self._library = library
        self._stills_bytes = 0
        self._frames = 0  # in the file
        self._is_keyframe_needed = True  # the encoder's reference frame is not in the file

    @property
    def size(self) -> int:
        """Bytes, with the stills."""
        return self.file.size + self._stills_bytes

    def save_still(self, jpeg: bytes) -> None:
        """Raises OSError."""
        self._library.add_to_timelapse(self.file.name, self.stills + 1, jpeg)
        self.stills += 1
        self._stills_bytes += len(jpeg)

    def add_frame(self, frame: Frame, taken_s: float) -> int:
        """Append a frame to the file; returns the number of bytes. Raises CameraError, OSError."""
        frame_s = 1 / self.file.fmt.fps
        is_keyframe = self._is_keyframe_needed or self._frames % max(1, round(_KEYFRAME_S / frame_s)) == 0
        self._is_keyframe_needed = True  # unless this frame is written
        data, is_keyframe = self.encoder.encode(frame, is_keyframe=is_keyframe)
        size = self.file.size
        self.file.add_fragment([Packet(data, is_keyframe, self._frames * frame_s, taken_s)], frame_s)
        self._frames += 1
        self._is_keyframe_needed = False
        return self.file.size - size

    def close(self) -> None:
        self.encoder.close()
        self.file.close()


class _TimelapseRun(Run[TimelapseOptions]):
    """A time-lapse in progress. The recorder's lock guards the counters; the thread owns the rest."""

    def __init__(self, options: TimelapseOptions, origin: Origin | None) -> None:
        super().__init__(options, origin)
        self.stills = 0
        self.failures = 0
        self._recorded_to_s: float | None = None  # where `recorded_s` ends, on the monotonic clock; None while paused

        self.video: _Video | None = None
        self._clock_s = 0.0  # Unix time minus monotonic time, at the last still
        self._still_thread: threading.Thread | None = None  # takes the newest still

    @property
    def elapsed_s(self) -> float:
        return self.recorded_s + (0.0 if self._recorded_to_s is None else time.monotonic() - self._recorded_to_s)

    def count_still(self, size: int) -> None:
        self.stills += 1
        self.size += size

    def count_frame(self, size: int) -> None:
        self.size += size

    def continue_recording(self) -> None:
        """A still was recorded, and so was the time since the one before it."""
        self.recorded_s, self._recorded_to_s = self.elapsed_s, time.monotonic()
        self.is_writing = True

    def count_failure(self) -> None:
        """A still failed: nothing is recorded until the next one."""
        self.recorded_s, self._recorded_to_s = self.elapsed_s, None
        self.failures += 1
        self.suspend()

    # --- the thread -------------------------------------------------------------------------------------------

    @property
    def is_taking_still(self) -> bool:
        return self._still_thread is not None and self._still_thread.is_alive()

    def start_still(self, request_still: Callable[[], None], on_crash: Callable[[str], None]) -> None:
        """Raises RuntimeError if the system has no more threads."""
        self._still_thread = spawn("timelapse still", request_still, on_crash)

    def follow_clock_of(self, still: Snapshot) -> bool:
        """Whether the wall clock was set since the last still."""
        last_s, self._clock_s = self._clock_s, still.taken_s - time.monotonic()
        return abs(self._clock_s - last_s) > _CLOCK_STEP_S

    def open_video(self, video: _Video) -> None:
        self.video = video

    def close_video(self) -> None:
        """Finish the newest file, if it is open."""
        video, self.video = self.video, None
        if video is not None:
            video.close()


class TimelapseRecorder(Recorder[_TimelapseRun, RunningTimelapse, TimelapseOptions]):
    """Records one time-lapse at a time. Any thread may start and stop it."""

    kind = "time-lapse"

    def __init__(
        self,
        library: Library,
        take_still: Callable[[bool], Snapshot],
        bitrate: Bitrate,
        on_crash: Callable[[str], None],
        orientation: Callable[[], int],
        still_limit_s: float = _STILL_LIMIT_S,
        journal: Journal | None = None,
        max_stills: int = _MAX_STILLS,
    ) -> None:
        """`take_still(full_sensor)` returns a still or raises CameraError; it is called on a separate thread. `bitrate`
        is that of the video. `orientation` returns the EXIF orientation of the stills, of which another one starts
        another file, as `max_stills` do."""
        super().__init__(library, on_crash, journal)
        self._take_still = take_still
        self._bitrate = bitrate
        self._orientation = orientation
        self._still_limit_s = still_limit_s
        self._max_stills = max_stills

    def start(self, options: TimelapseOptions, origin: Origin | None = None) -> RunningTimelapse:
        run = _TimelapseRun(options, origin)
        with self._changed:
            self._begin_run(run)
        try:
            require_libx264()
            if origin is None:
                self._require_space()
            self._start_thread(run, "timelapse", self._record)
        except BaseException as error:
            if run.is_stopping:
                self._remove_entry(run)  # of a time-lapse that was to be resumed
            self._end_run()
            self._report_failed_start(run, error)
            raise
        self._log_start(run, f": a still every {options.interval_s:g} s")
        with self._changed:
            self._changed.wait_for(lambda: run.name or run.failures or self._run is not run, _FIRST_STILL_S)
            return self._status(run)

    def _status(self, run: _TimelapseRun) -> RunningTimelapse:
        return RunningTimelapse(
            run.shown_name,
            run.origin.began_s,
            run.elapsed_s,
            run.size,
            run.stills,
            run.failures,
            run.options.interval_s,
            run.origin.interrupted_s,
            run.paused,
        )

    # --- the thread -------------------------------------------------------------------------------------------

    def _record(self, run: _TimelapseRun) -> None:
        try:
            self._save_entry(run)
            while self._wait_until_due(run):
                try:
                    still = self._get_still(run)
                    if still is not None:
                        self._add_still(run, still)
                except CameraError as error:
                    self._count_failure(run, str(error))
                except OSError as error:
                    if run.video is not None and run.video.file.has_reached_limit(error):
                        run.close_video()
                    reason = error.strerror or str(error)
                    self._count_failure(run, reason, f"the still cannot be written: {reason}", error)
            self._remove_entry(run)
        finally:
            run.close_video()
            self._end_run()
            log.info("Time-lapse ended: %s, %d failed", counted(run.stills, "still"), run.failures)

    def _wait_until_due(self, run: _TimelapseRun) -> bool:
        """Sleep until the next still is due; False if the time-lapse is over."""
        interval_s, duration_s = run.options.interval_s, run.options.duration_s
        elapsed_s = run.since_start_s
        is_first = not run.stills and not run.failures
        due_s = 0.0 if is_first else (elapsed_s // interval_s + 1) * interval_s
        if duration_s is not None and due_s > duration_s:
            return False
        with self._changed:
            return not self._changed.wait_for(lambda: run.is_stopping, max(0.0, due_s - elapsed_s))

    def _get_still(self, run: _TimelapseRun) -> Snapshot | None:
        """A still, or None if the time-lapse was stopped before it was ready. Raises CameraError."""
        hangs = f"the camera delivered no still within {self._still_limit_s:g} s"
        if run.is_taking_still:  # only one request to a camera that hangs
            raise NoPicture(hangs)
        outcomes: list[Snapshot | CameraError] = []

        def request_still() -> None:
            try:
                outcome: Snapshot | CameraError = self._take_still(run.options.full_sensor)
            except CameraError as error:  # raised below, on the waiting thread
                outcome = without_stack(error)
            with self._changed:
                outcomes.append(outcome)
                self._changed.notify_all()

        try:
            run.start_still(request_still, self._on_crash)
        except RuntimeError as error:  # no memory, or too many threads: may succeed later
            raise NoPicture(f"the still cannot be taken: {error}") from error
        with self._changed:
            if not self._changed.wait_for(lambda: outcomes or run.is_stopping, self._still_limit_s):
                raise NoPicture(hangs)
            self._changed.wait_for(lambda: outcomes, _LAST_STILL_S)
            outcome = outcomes[0] if outcomes else None
        if isinstance(outcome, CameraError):
            raise type(outcome)(str(outcome))
        return outcome

    def _add_still(self, run: _TimelapseRun, still: Snapshot) -> None:
        """Raises CameraError, OSError."""
        with self._library.saving_still():
            self._make_room(run, 2 * len(still.jpeg) + _BESIDES_FRAME_BYTES)
            self._write_still(run, still)
        with self._changed:
            run.continue_recording()
            self._clear_error(run)

    def _write_still(self, run: _TimelapseRun, still: Snapshot) -> None:
        """Raises CameraError, OSError."""
        self._end_removed_file(run)
        frame = _decode(still)
        is_clock_set = run.follow_clock_of(still)
        if run.video is not None and (
            is_clock_set
            or run.video.file.orientation != self._orientation()
            or self._is_full(run.video, len(still.jpeg))
        ):
            run.close_video()
        video = run.video or self._open_file(run, still, frame.size)
        if frame.size != video.encoder.size:
            frame = _decode(still, video.encoder.size)
        video.save_still(still.jpeg)
        with self._changed:
            run.count_still(len(still.jpeg))
        frame_bytes = video.add_frame(frame, still.taken_s)
        with self._changed:
            run.count_frame(frame_bytes)
        video.file.sync()

    def _make_room(self, run: _TimelapseRun, needed: int) -> None:
        """Room for a still, for which the current file may have to end and be deleted. Raises OSError."""
        try:
            self._library.enforce_quota(needed)
        except OSError as error:
            if error.errno != errno.ENOSPC or self._library.max_bytes is None or run.video is None:
                raise
            run.close_video()
            self._library.enforce_quota(needed)

    def _is_full(self, video: _Video, new_bytes: int) -> bool:
        """Whether another file has to begin: so that earlier ones can be deleted, and for the file system's sake."""
        share = self._library.share
        return (
            video.stills >= self._max_stills
            or video.file.size >= self._library.max_file_bytes - new_bytes
            or (share is not None and video.stills > 0 and video.size + new_bytes > share)
        )

    def _end_removed_file(self, run: _TimelapseRun) -> None:
        """End a file that is no longer in its folder, if the folder is there: a disk may return with the file."""
        if run.video is None:
            return
        name = run.video.file.name
        try:
            self._library.require_present(name)
        except FileNotFoundError as error:
            log.warning("Time-lapse file %s ended: %s; starting another one", name, error.strerror)
            run.close_video()

    def _open_file(self, run: _TimelapseRun, still: Snapshot, size: tuple[int, int]) -> _Video:
        encoder = X264(size, "YUV420", run.options.fps, self._bitrate(size, run.options.fps))
        fmt = VideoFormat(*encoder.size, run.options.fps, *encoder.parameter_sets)
        try:
            file = Mp4Writer(self._library, "timelapse", fmt, still.taken_s, 0.0, self._orientation())
        except OSError:
            encoder.close()
            raise
        video = _Video(self._library, file, encoder)
        run.open_video(video)
        with self._changed:
            run.begin_file(file.name)
            self._changed.notify_all()
        self._save_entry(run)
        self._library.set_thumbnail(file.name, thumbnail.of_jpeg(still.jpeg, file.orientation))
        return video

    def _count_failure(
        self, run: _TimelapseRun, reason: str, error: str | None = None, cause: OSError | None = None
    ) -> None:
        self._report_error(error or reason, reason, cause)
        with self._changed:
            run.count_failure()
            self._changed.notify_all()


def _decode(still: Snapshot, size: tuple[int, int] | None = None) -> Frame:
    """The still as a frame of `size`; by default at its own size, limited to the video's. Raises CameraError."""
    return JpegDecoder().decode_yuv420(still.jpeg, lambda own: size or scaled_size(own, min(_MAX_WIDTH, own[0])))
