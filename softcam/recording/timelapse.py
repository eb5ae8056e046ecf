"""Time-lapses: a still every so often, kept as a JPEG, and an MP4 that grows with it.

The thread `timelapse` exists only while one runs. It asks for each still when it is due, so a camera that nobody else
uses is open for the stills alone where they are far apart. A still that fails is counted, and the next one comes in its
time; where stills take longer than the interval, those that are missed are left out. A restart of the portal ends the
time-lapse; what there is of it stays, and is whole. Each still is taken on a thread of its own, `timelapse still`, so
that the end need not wait for a camera. A movie that was taken away while it runs is followed by another one.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from softcam.errors import CameraError, NoPicture, RecordingError
from softcam.h264.packet import Packet, VideoFormat
from softcam.h264.x264 import X264, require_libx264
from softcam.imaging.frame import Frame
from softcam.imaging.rgb import decode_yuv420
from softcam.imaging.scale import scaled_size
from softcam.recording import thumbnail
from softcam.recording.library import Library
from softcam.recording.mp4_file import Mp4Writer, upright
from softcam.runtime.threads import spawn

log = logging.getLogger(__name__)

# Of the movie; the stills keep their size. What plays everywhere, and takes a small machine no second to encode.
_WIDEST: Final = 1920
_KEYFRAME_S: Final = 1.0  # in the movie's time
_SYNC_S: Final = 1.0
_FIRST_STILL_S: Final = 5.0  # a cold camera's
_LAST_STILL_S: Final = 0.2  # what an end waits for one that is on its way
_LONGEST_STILL_S: Final = 60.0  # opening, focusing and a retry are far below: the camera hangs
_HANGS: Final = f"the camera has given none for {_LONGEST_STILL_S:g} s"
_STOP_LIMIT_S: Final = 20.0  # a disk that takes longer to end a movie stands still


@dataclass(frozen=True, slots=True)
class TimelapseOptions:
    """What is asked of a time-lapse; `fps` is how fast its movie runs."""

    interval_s: float = 10.0
    duration_s: float | None = None
    fps: float = 25.0
    wants_full: bool = False


@dataclass(frozen=True, slots=True)
class Still:
    """A picture, and when it was exposed, Unix time."""

    jpeg: bytes
    taken_s: float


@dataclass(frozen=True, slots=True)
class RunningTimelapse:
    """A look at a time-lapse that runs; `name` is None until the first still."""

    name: str | None
    began_s: float  # Unix time
    elapsed_s: float
    size: int  # bytes, with the stills
    stills: int
    failures: int
    interval_s: float


@dataclass(eq=False, slots=True)
class _Run:
    """The owner's lock guards `name` to `is_stopping`; the rest is the thread's."""

    wish: TimelapseOptions
    began_s: float = field(default_factory=time.time)
    asked_s: float = field(default_factory=time.monotonic)
    thread: threading.Thread | None = None
    name: str | None = None
    size: int = 0
    stills: int = 0
    failures: int = 0
    is_stopping: bool = False

    file: Mp4Writer | None = None
    encoder: X264 | None = None
    kept: int = 0  # stills beside the movie
    pictures: int = 0  # in the movie
    taking: threading.Thread | None = None  # the newest still
    needs_keyframe: bool = True  # what the encoder would refer to is not in the movie
    synced_s: float = 0.0


class TimelapseRecorder:
    """One time-lapse at a time. Any thread may start and stop it."""

    def __init__(
        self,
        library: Library,
        take: Callable[[bool], Still],
        bitrate: int,
        on_crash: Callable[[str], None],
        orientation: Callable[[], int] = upright,
    ) -> None:
        """`take(wants_full)` gives a still or raises CameraError; it is called on a thread of its own. `bitrate` is in
        bits a second of the movie; `orientation` gives EXIF's number of the stills: another begins another movie."""
        self._library = library
        self._take_still = take
        self._bitrate = bitrate
        self._on_crash = on_crash
        self._orientation = orientation
        self._changed = threading.Condition(threading.Lock())  # guards the fields below
        self._run: _Run | None = None
        self._last_error: str | None = None

    def start(self, wish: TimelapseOptions) -> RunningTimelapse:
        """Take stills from now on. Raises RecordingError where one runs already or there is no room, NotSupported."""
        require_libx264()
        try:
            self._library.enforce_quota()
            self._library.check_writable()
        except OSError as error:
            raise RecordingError(f"nothing can be recorded: {error.strerror}") from error
        run = _Run(wish)
        with self._changed:
            if self._run is not None:
                raise RecordingError("a time-lapse runs already; stop it first")
            self._run = run
            self._last_error = None
            try:
                run.thread = spawn("timelapse", lambda: self._record(run), self._on_crash)
            except RuntimeError as error:  # no memory, or too many threads
                self._run = None
                raise RecordingError(f"nothing can be recorded: {error}") from error
            log.info("Time-lapse: a still every %g s", wish.interval_s)
            self._changed.wait_for(lambda: run.name or run.failures or self._run is not run, _FIRST_STILL_S)
            return self._look(run)

    def stop(self, deadline_s: float | None = None) -> RunningTimelapse | None:
        """End it; None where none runs. A still that is on its way is hardly waited for.

        The end of the movie is waited for until `deadline_s` (monotonic), or as long as a disk may take.
        """
        if deadline_s is None:
            deadline_s = time.monotonic() + _STOP_LIMIT_S
        with self._changed:
            run = self._run
            if run is None:
                return None
            run.is_stopping = True
            thread = run.thread
            self._changed.notify_all()
        if thread is not None:
            thread.join(max(0.0, deadline_s - time.monotonic()))
        with self._changed:
            return self._look(run)

    @property
    def running(self) -> RunningTimelapse | None:
        with self._changed:
            return None if self._run is None else self._look(self._run)

    @property
    def last_error(self) -> str | None:
        """Why the last still failed; None when it did not."""
        with self._changed:
            return self._last_error

    # --- the thread -------------------------------------------------------------------------------------------

    def _record(self, run: _Run) -> None:
        try:
            while self._wait(run):
                try:
                    still = self._take(run)
                    if still is not None:
                        self._add(run, still)
                except CameraError as error:
                    self._count_failure(run, str(error))
                except OSError as error:
                    self._count_failure(run, f"the still cannot be written: {error.strerror or error}")
        finally:
            self._end_movie(run)
            with self._changed:
                self._run = None
                self._changed.notify_all()
            log.info("Time-lapse ended: %d stills, %d failed", run.stills, run.failures)

    def _wait(self, run: _Run) -> bool:
        """Sleep until the next still is due; False when it is over."""
        interval_s, duration_s = run.wish.interval_s, run.wish.duration_s
        elapsed_s = time.monotonic() - run.asked_s
        is_first = not run.stills and not run.failures
        due_s = 0.0 if is_first else (elapsed_s // interval_s + 1) * interval_s
        if duration_s is not None and due_s > duration_s:
            return False
        with self._changed:
            return not self._changed.wait_for(lambda: run.is_stopping, max(0.0, due_s - elapsed_s))

    def _take(self, run: _Run) -> Still | None:
        """A still, or None where the end came before it. Raises CameraError."""
        if run.taking is not None and run.taking.is_alive():  # no second one where a camera hangs
            raise NoPicture(_HANGS)
        outcomes: list[Still | CameraError | None] = []

        def take() -> None:
            outcome: Still | CameraError | None = None
            try:
                outcome = self._take_still(run.wish.wants_full)
            except CameraError as error:  # raised below, on the thread that waits
                outcome = error
            finally:
                with self._changed:
                    outcomes.append(outcome)
                    self._changed.notify_all()

        try:
            run.taking = spawn("timelapse still", take, self._on_crash)
        except RuntimeError as error:  # no memory, or too many threads: that may pass
            raise NoPicture(f"nobody can take it: {error}") from error
        with self._changed:
            if not self._changed.wait_for(lambda: outcomes or run.is_stopping, _LONGEST_STILL_S):
                raise NoPicture(_HANGS)
            self._changed.wait_for(lambda: outcomes, _LAST_STILL_S)
            outcome = outcomes[0] if outcomes else None
        if isinstance(outcome, CameraError):
            raise outcome
        return outcome

    def _add(self, run: _Run, still: Still) -> None:
        """Raises CameraError, OSError."""
        self._library.enforce_quota(len(still.jpeg))
        self._leave_what_is_gone(run)
        frame = _decode(still)
        if run.file is not None and run.file.orientation != self._orientation():
            self._end_movie(run)
        if run.file is None or run.encoder is None:
            self._begin(run, still, frame.size)
        file, encoder = run.file, run.encoder
        if file is None or encoder is None:
            return
        if frame.size != encoder.size:
            frame = _decode(still, encoder.size)
        self._library.add_to_timelapse(file.name, run.kept + 1, still.jpeg)
        run.kept += 1
        with self._changed:
            run.stills += 1
            run.size += len(still.jpeg)
        each_s = 1 / run.wish.fps
        is_keyframe = run.needs_keyframe or run.pictures % max(1, round(_KEYFRAME_S / each_s)) == 0
        run.needs_keyframe = True  # unless this one comes into the file
        data, is_keyframe = encoder.encode(frame, is_keyframe=is_keyframe)
        begins_s = run.pictures * each_s
        size = file.size
        packet = Packet(data, is_keyframe, begins_s, still.taken_s)
        file.add([packet], each_s)
        run.pictures += 1
        run.needs_keyframe = False
        with self._changed:
            run.size += file.size - size
        if time.monotonic() - run.synced_s >= _SYNC_S:
            file.sync()
            run.synced_s = time.monotonic()
        with self._changed:
            self._last_error = None

    def _leave_what_is_gone(self, run: _Run) -> None:
        """End a movie that is not in its folder any more. The folder is there: a disk may come back with the movie."""
        if run.file is None:
            return
        try:
            self._library.check(run.file.name)
        except FileNotFoundError as error:
            log.warning("Time-lapse: %s: %s; another movie begins", run.file.name, error.strerror)
            self._end_movie(run)

    def _begin(self, run: _Run, still: Still, size: tuple[int, int]) -> None:
        encoder = X264(size, "YUV420", run.wish.fps, self._bitrate)
        fmt = VideoFormat(*encoder.size, run.wish.fps, encoder.sps, encoder.pps)
        try:
            file = Mp4Writer(self._library, "timelapse", fmt, still.taken_s, 0.0, self._orientation())
        except OSError:
            encoder.close()
            raise
        run.encoder, run.file = encoder, file
        run.kept, run.pictures, run.needs_keyframe = 0, 0, True
        with self._changed:
            run.name = file.name
            self._changed.notify_all()
        self._library.set_thumbnail(file.name, thumbnail.of_jpeg(still.jpeg, file.orientation))

    def _end_movie(self, run: _Run) -> None:
        file, encoder = run.file, run.encoder
        run.file = run.encoder = None
        if encoder is not None:
            encoder.close()
        if file is not None:
            file.close()

    def _count_failure(self, run: _Run, reason: str) -> None:
        with self._changed:
            run.failures += 1
            if reason != self._last_error:
                log.warning("Time-lapse: no still: %s", reason)
            self._last_error = reason
            self._changed.notify_all()

    def _look(self, run: _Run) -> RunningTimelapse:
        """Under the lock."""
        elapsed_s = time.monotonic() - run.asked_s
        return RunningTimelapse(
            run.name, run.began_s, elapsed_s, run.size, run.stills, run.failures, run.wish.interval_s
        )


def _decode(still: Still, size: tuple[int, int] | None = None) -> Frame:
    """The still as a frame of `size`; without one, as large as the video may be. Raises CameraError."""
    return decode_yuv420(still.jpeg, lambda own: size or scaled_size(own, min(_WIDEST, own[0])))
