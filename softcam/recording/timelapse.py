"""Records time-lapses: takes a still per interval, saves it as a JPEG, and appends it to an MP4 file.

The thread `timelapse` exists only during a recording. It requests each still when it is due, so with a long interval an
otherwise unused camera is open for the stills only. A failed still is counted, and the next one follows on schedule; if
stills take longer than the interval, the missed ones are skipped. The next start of the portal resumes a time-lapse
that was running when the portal ended, in another file. Each still and its frame are synced, so that a power cut loses
the last still at most. Each still is taken on a separate thread, `timelapse still`, so that stopping need not wait for
the camera. If the MP4 file is removed while it is written, another one is started.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from softcam.errors import CameraError, NoPicture, RecordingError
from softcam.h264.packet import Packet, VideoFormat
from softcam.h264.x264 import X264, require_libx264
from softcam.imaging.frame import Frame
from softcam.imaging.rgb import decode_yuv420
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
    """The status of a time-lapse; `name` is None until the first still."""

    name: str | None
    began_s: float  # Unix time
    elapsed_s: float  # since `began_s`
    size: int  # bytes, including the stills, since the interruption
    stills: int
    failures: int
    interval_s: float
    interrupted_s: float | None  # Unix time: resumed by the portal after its restart


@dataclass(eq=False, slots=True)
class _Video:
    """An MP4 file while it is written."""

    file: Mp4Writer
    encoder: X264
    saved: int = 0  # stills next to the file
    frames: int = 0  # in the file
    is_keyframe_needed: bool = True  # the encoder's reference frame is not in the file


@dataclass(eq=False, slots=True, kw_only=True)
class _Run(Run):
    """A time-lapse in progress. The recorder's lock guards `stills` and `failures`; the thread owns the rest."""

    options: TimelapseOptions
    stills: int = 0
    failures: int = 0

    video: _Video | None = None
    clock_s: float = 0.0  # Unix time minus monotonic time, at the last still
    still_thread: threading.Thread | None = None  # takes the newest still


class TimelapseRecorder(Recorder[_Run, RunningTimelapse, TimelapseOptions]):
    """Records one time-lapse at a time. Any thread may start and stop it."""

    kind = "time-lapse"

    def __init__(
        self,
        library: Library,
        take_still: Callable[[bool], Snapshot],
        bitrate: int,
        on_crash: Callable[[str], None],
        orientation: Callable[[], int],
        still_limit_s: float = _STILL_LIMIT_S,
        journal: Journal | None = None,
    ) -> None:
        """`take_still(full_sensor)` returns a still or raises CameraError; it is called on a separate thread. `bitrate`
        is in bits per second of the video. `orientation` returns the EXIF orientation of the stills, of which another
        one starts another file."""
        super().__init__(library, on_crash, journal)
        self._take_still = take_still
        self._bitrate = bitrate
        self._orientation = orientation
        self._still_limit_s = still_limit_s

    def start(self, options: TimelapseOptions, origin: Origin | None = None) -> RunningTimelapse:
        require_libx264()
        if origin is None:
            self._require_space()
        run = _Run(options=options, origin=origin or Origin())
        with self._changed:
            self._begin_run(run)
            try:
                self._start_thread(run, "timelapse", self._record)
            except RecordingError:
                self._run = None
                raise
            self._log_start(run, f": a still every {options.interval_s:g} s")
            self._changed.wait_for(lambda: run.name or run.failures or self._run is not run, _FIRST_STILL_S)
            return self._status(run)

    def _status(self, run: _Run) -> RunningTimelapse:
        return RunningTimelapse(
            run.name,
            run.origin.began_s,
            run.elapsed_s,
            run.size,
            run.stills,
            run.failures,
            run.options.interval_s,
            run.origin.interrupted_s,
        )

    # --- the thread -------------------------------------------------------------------------------------------

    def _record(self, run: _Run) -> None:
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
                        self._end_file(run)
                    self._count_failure(run, f"the still cannot be written: {error.strerror or error}")
            self._remove_entry(run)
        finally:
            self._end_file(run)
            self._end_run()
            log.info("Time-lapse ended: %s, %d failed", counted(run.stills, "still"), run.failures)

    def _wait_until_due(self, run: _Run) -> bool:
        """Sleep until the next still is due; False if the time-lapse is over."""
        interval_s, duration_s = run.options.interval_s, run.options.duration_s
        elapsed_s = run.elapsed_s
        is_first = not run.stills and not run.failures
        due_s = 0.0 if is_first else (elapsed_s // interval_s + 1) * interval_s
        if duration_s is not None and due_s > duration_s:
            return False
        with self._changed:
            return not self._changed.wait_for(lambda: run.is_stopping, max(0.0, due_s - elapsed_s))

    def _get_still(self, run: _Run) -> Snapshot | None:
        """A still, or None if the time-lapse was stopped before it was ready. Raises CameraError."""
        hangs = f"the camera delivered no still within {self._still_limit_s:g} s"
        if run.still_thread is not None and run.still_thread.is_alive():  # only one request to a camera that hangs
            raise NoPicture(hangs)
        outcomes: list[Snapshot | CameraError] = []

        def request_still() -> None:
            try:
                outcome: Snapshot | CameraError = self._take_still(run.options.full_sensor)
            except CameraError as error:  # raised below, on the waiting thread
                outcome = error
            with self._changed:
                outcomes.append(outcome)
                self._changed.notify_all()

        try:
            run.still_thread = spawn("timelapse still", request_still, self._on_crash)
        except RuntimeError as error:  # no memory, or too many threads: may succeed later
            raise NoPicture(f"the still cannot be taken: {error}") from error
        with self._changed:
            if not self._changed.wait_for(lambda: outcomes or run.is_stopping, self._still_limit_s):
                raise NoPicture(hangs)
            self._changed.wait_for(lambda: outcomes, _LAST_STILL_S)
            outcome = outcomes[0] if outcomes else None
        if isinstance(outcome, CameraError):
            raise outcome
        return outcome

    def _add_still(self, run: _Run, still: Snapshot) -> None:
        """Raises CameraError, OSError."""
        self._library.enforce_quota(len(still.jpeg))
        self._end_removed_file(run)
        frame = _decode(still)
        clock_s = still.taken_s - time.monotonic()
        is_clock_set, run.clock_s = abs(clock_s - run.clock_s) > _CLOCK_STEP_S, clock_s
        if run.video is not None and (
            is_clock_set
            or run.video.file.orientation != self._orientation()
            or run.video.file.size >= self._library.max_file_bytes - len(still.jpeg)
        ):
            self._end_file(run)
        video = run.video or self._open_file(run, still, frame.size)
        if frame.size != video.encoder.size:
            frame = _decode(still, video.encoder.size)
        self._library.add_to_timelapse(video.file.name, video.saved + 1, still.jpeg)
        video.saved += 1
        with self._changed:
            run.stills += 1
            run.size += len(still.jpeg)
        frame_s = 1 / run.options.fps
        is_keyframe = video.is_keyframe_needed or video.frames % max(1, round(_KEYFRAME_S / frame_s)) == 0
        video.is_keyframe_needed = True  # unless this frame is written
        data, is_keyframe = video.encoder.encode(frame, is_keyframe=is_keyframe)
        size = video.file.size
        video.file.add_fragment([Packet(data, is_keyframe, video.frames * frame_s, still.taken_s)], frame_s)
        video.frames += 1
        video.is_keyframe_needed = False
        with self._changed:
            run.size += video.file.size - size
        video.file.sync()
        with self._changed:
            self.last_error = None

    def _end_removed_file(self, run: _Run) -> None:
        """End a file that is no longer in its folder, if the folder is there: a disk may return with the file."""
        if run.video is None:
            return
        name = run.video.file.name
        try:
            self._library.require_present(name)
        except FileNotFoundError as error:
            log.warning("Time-lapse file %s ended: %s; starting another one", name, error.strerror)
            self._end_file(run)

    def _open_file(self, run: _Run, still: Snapshot, size: tuple[int, int]) -> _Video:
        encoder = X264(size, "YUV420", run.options.fps, self._bitrate)
        fmt = VideoFormat(*encoder.size, run.options.fps, *encoder.parameter_sets)
        try:
            file = Mp4Writer(self._library, "timelapse", fmt, still.taken_s, 0.0, self._orientation())
        except OSError:
            encoder.close()
            raise
        run.video = _Video(file, encoder)
        with self._changed:
            run.name = file.name
            self._changed.notify_all()
        self._save_entry(run)
        self._library.set_thumbnail(file.name, thumbnail.of_jpeg(still.jpeg, file.orientation))
        return run.video

    def _end_file(self, run: _Run) -> None:
        if run.video is not None:
            video, run.video = run.video, None
            video.encoder.close()
            video.file.close()

    def _count_failure(self, run: _Run, reason: str) -> None:
        self._report_error(reason)
        with self._changed:
            run.failures += 1
            self._changed.notify_all()


def _decode(still: Snapshot, size: tuple[int, int] | None = None) -> Frame:
    """The still as a frame of `size`; by default at its own size, limited to the video's. Raises CameraError."""
    return decode_yuv420(still.jpeg, lambda own: size or scaled_size(own, min(_MAX_WIDTH, own[0])))
