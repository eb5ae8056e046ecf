"""Records video: packets of the encoder into files of the library, as long as it is asked for.

The encoder's thread leaves packets in a store in memory, which never blocks; the thread `recorder`, which exists only
while a recording runs, takes them out a few times a second and writes. So a slow disk delays nobody. While nothing is
recorded the same store keeps the seconds before, where they are wanted (`preroll_s`).

A recording goes on as long as it is asked for. A file that cannot be written is left with what is in it, the reason is
told, and every few seconds a new one is tried. A camera that is away leaves a gap: the last picture before it stands
as long, and after a long one the next file begins. Whoever restarts the portal ends the recording.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from softcam.camera.session.manager import CameraManager, Lease
from softcam.errors import CameraError, PortalError, RecordingError
from softcam.h264.packet import Packet, VideoFormat, VideoSource
from softcam.recording.library import Library
from softcam.recording.mp4_file import Mp4Writer, upright
from softcam.runtime.threads import spawn

log = logging.getLogger(__name__)

_FLUSH_S: Final = 0.4  # what `kill -9` may take: this, a frame, and the time to write
_SYNC_S: Final = 1.0  # what a power cut may take
_LONGEST_FRAGMENT_S: Final = 1.0
_RETRY_S: Final = 5.0
_LONG_GAP_S: Final = 10.0  # a picture that stands longer is better told by two files
# In memory, for the seconds before, and for a disk that takes its time: a minute at the usual bitrate.
_MOST_BYTES: Final = 64_000_000
_FILES_WITHIN_LIMIT: Final = 8  # at least: what goes to make room is a whole file each time
_READY_LIMIT_S: Final = 20.0  # a camera opens within it, or never
_FIRST_FILE_S: Final = 2.0
_STOP_LIMIT_S: Final = 20.0  # a disk that takes longer to end a file stands still
_FRAGMENTS_AHEAD: Final = 10  # where the disk was full: a file of a few seconds is worth beginning


@dataclass(frozen=True, slots=True)
class RecordingOptions:
    """What is asked of a recording; None is without end, or the usual."""

    duration_s: float | None = None
    segment_s: float = 600.0
    preroll_s: float | None = None  # None is all that is kept


@dataclass(frozen=True, slots=True)
class RunningVideo:
    """A look at a recording that runs; `name` is that of its newest file, None before the first."""

    name: str | None
    began_s: float  # Unix time
    elapsed_s: float
    size: int  # bytes, of all its files
    segments: int


@dataclass(eq=False, slots=True)
class _Run:
    """A recording that was asked for. The recorder's lock guards `name` to `is_over`; the rest is the thread's."""

    wish: RecordingOptions
    began_s: float = field(default_factory=time.time)
    asked_s: float = field(default_factory=time.monotonic)
    lease: Lease | None = None
    thread: threading.Thread | None = None
    name: str | None = None
    size: int = 0
    segments: int = 0
    is_stopping: bool = False
    is_over: bool = False  # nothing is taken out of the store for it any more

    file: Mp4Writer | None = None
    last_s: float = 0.0  # of the packet that was written last, on the monotonic clock
    delta_s: float = 0.0  # between the last two
    synced_s: float = 0.0
    synced: int = 0  # bytes of the file, then
    wants_cut: bool = False
    retry_at_s: float = 0.0
    needed: int = 0  # bytes that there must be room for before the next file

    @property
    def ends_s(self) -> float | None:
        """On the monotonic clock."""
        return None if self.wish.duration_s is None else self.asked_s + self.wish.duration_s


@dataclass(eq=False, slots=True)
class _Group:
    """Packets from a keyframe on; where the store was emptied in between, the first is none."""

    fmt: VideoFormat
    packets: list[Packet]
    size: int = 0


class VideoRecorder:
    """A `PacketSink` that writes files. Any thread may start and stop it."""

    def __init__(
        self,
        source: VideoSource,
        manager: CameraManager,
        library: Library,
        preroll_s: float,
        thumbnail: Callable[[], bytes | None],
        on_crash: Callable[[str], None],
        orientation: Callable[[], int] = upright,
    ) -> None:
        """`thumbnail` gives a small JPEG of what the camera sees now; it is called on the recorder's thread, as
        `orientation` is, which gives EXIF's number of what comes: another one begins another file."""
        self._source = source
        self._manager = manager
        self._library = library
        self._preroll_s = preroll_s
        self._thumbnail = thumbnail
        self._on_crash = on_crash
        self._orientation = orientation
        self._preroll_lease: Lease | None = None

        self._changed = threading.Condition(threading.Lock())  # guards the fields below
        self._run: _Run | None = None
        self._groups: deque[_Group] = deque()
        self._stored = 0  # bytes
        self._format: VideoFormat | None = None
        self._awaits_keyframe = True  # packets up to the next keyframe are lost
        self._last_error: str | None = None

    # --- what everyone may call -------------------------------------------------------------------------------

    def open(self) -> None:
        """Begin to keep the seconds before, where that is wanted: the camera is open from now on."""
        if not self._preroll_s:
            return
        try:
            self._source.subscribe(self)
            self._preroll_lease = self._manager.lease("recording")
        except CameraError as error:
            self._source.unsubscribe(self)
            self._tell(f"the seconds before are not kept: {error}")

    def start(self, wish: RecordingOptions) -> RunningVideo:
        """Record from now on. Raises RecordingError where one runs already or there is no room, CameraError."""
        run = _Run(wish)
        with self._changed:
            if self._run is not None:
                raise RecordingError("a video recording runs already; stop it first")
            self._run = run
            self._last_error = None
            kept_s = self._preroll_s if wish.preroll_s is None else min(wish.preroll_s, self._preroll_s)
            self._keep_from(run.asked_s - kept_s if kept_s else None)
        try:
            try:
                self._library.enforce_quota()
                self._library.check_writable()
            except OSError as error:
                raise RecordingError(f"nothing can be recorded: {error.strerror}") from error
            run.lease = self._manager.lease("recording")
            self._source.subscribe(self)
            if self._preroll_s and not kept_s:  # it was joined before, and may be far behind a keyframe
                self._source.request_keyframe()
            self._manager.wait_ready(time.monotonic() + _READY_LIMIT_S)
            self._start_thread(run)
        except BaseException as error:
            self._let_go(run)
            if isinstance(error, PortalError):
                self._tell(str(error))
            raise
        with self._changed:
            self._changed.wait_for(lambda: run.name or run.is_over or self._last_error, _FIRST_FILE_S)
            return self._look(run)

    def stop(self, deadline_s: float | None = None) -> RunningVideo | None:
        """End the recording; its last file is whole then. None where none runs.

        `deadline_s` is on the monotonic clock; without one it is waited for as long as a disk may take.
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

    def close(self, deadline_s: float) -> None:
        """The end: nothing is recorded or kept any more."""
        self.stop(deadline_s)
        self._source.unsubscribe(self)
        if self._preroll_lease is not None:
            self._preroll_lease.release()

    @property
    def running(self) -> RunningVideo | None:
        with self._changed:
            return None if self._run is None else self._look(self._run)

    @property
    def last_error(self) -> str | None:
        """Why something is not recorded; None again when it is."""
        with self._changed:
            return self._last_error

    # --- the encoder's thread ---------------------------------------------------------------------------------

    def on_format(self, fmt: VideoFormat) -> None:
        with self._changed:
            self._format = fmt
            self._awaits_keyframe = True

    def on_packet(self, packet: Packet) -> None:
        with self._changed:
            if self._format is None or (self._awaits_keyframe and not packet.is_keyframe):
                return
            is_recording = self._run is not None and not self._run.is_over
            if is_recording and self._stored > _MOST_BYTES:
                if not self._awaits_keyframe:
                    self._tell_locked("the disk is too slow: pictures were left out")
                self._awaits_keyframe = True
                return
            self._awaits_keyframe = False
            if packet.is_keyframe or not self._groups:
                self._groups.append(_Group(self._format, []))
            self._groups[-1].packets.append(packet)
            self._groups[-1].size += len(packet.data)
            self._stored += len(packet.data)
            if self._run is not None and self._run.name is None:
                self._changed.notify_all()
            if not is_recording:
                self._keep_from(packet.began_s - self._preroll_s)
                while self._stored > _MOST_BYTES and len(self._groups) > 1:
                    self._drop_oldest()

    def _keep_from(self, moment_s: float | None) -> None:
        """Under the lock: forget what is before the keyframe before that moment, or all."""
        if moment_s is None or not self._preroll_s:
            self._groups.clear()
            self._stored = 0
            self._awaits_keyframe = True
            return
        while len(self._groups) > 1 and self._groups[1].packets[0].began_s <= moment_s:
            self._drop_oldest()
        while self._groups and not self._groups[0].packets[0].is_keyframe:
            self._drop_oldest()
        if not self._groups:
            self._awaits_keyframe = True

    def _drop_oldest(self) -> None:
        self._stored -= self._groups.popleft().size

    # --- the recorder's thread --------------------------------------------------------------------------------

    def _start_thread(self, run: _Run) -> None:
        with self._changed:  # whoever stops it waits for its thread
            try:
                run.thread = spawn("recorder", lambda: self._record(run), self._on_crash)
            except RuntimeError as error:  # no memory, or too many threads
                raise RecordingError(f"nothing can be recorded: {error}") from error
        log.info("Recording")

    def _record(self, run: _Run) -> None:
        try:
            is_over = False
            while not is_over:
                groups, is_over = self._take(run)
                self._write_all(run, groups)
        finally:
            self._end_file(run)
            self._let_go(run)
            log.info("Recorded: %d files, %.1f MB", run.segments, run.size / 1e6)

    def _take(self, run: _Run) -> tuple[list[_Group], bool]:
        """What came since the last time, and whether that was all."""
        with self._changed:
            # The first file is begun at once: who started it waits for its name.
            self._changed.wait_for(lambda: run.is_stopping or (run.name is None and self._groups), _FLUSH_S)
            groups = list(self._groups)
            self._groups.clear()
            self._stored = 0
            ends_s = run.ends_s
            is_last = run.is_stopping
            if ends_s is not None and not is_last:
                # By the pictures' time; by the clock where none come.
                came_s = groups[-1].packets[-1].began_s if groups else 0.0
                is_last = came_s >= ends_s or time.monotonic() > ends_s + _LONGEST_FRAGMENT_S
            if is_last:
                run.is_over = True
                self._awaits_keyframe = True
            return groups, is_last

    def _write_all(self, run: _Run, groups: Sequence[_Group]) -> None:
        waiting: list[Packet] = []
        ends_s = run.ends_s
        for group in groups:
            for packet in group.packets:
                if ends_s is not None and packet.began_s >= ends_s:
                    break
                if self._is_other_file(run, group.fmt, packet, waiting):
                    self._write(run, waiting, packet)
                    waiting = []
                    self._next_file(run, group.fmt, packet)
                elif waiting and packet.began_s - waiting[0].began_s >= _LONGEST_FRAGMENT_S:
                    self._write(run, waiting, packet)
                    waiting = []
                if run.file is not None:
                    waiting.append(packet)
        self._write(run, waiting)
        if run.file is not None and time.monotonic() - run.synced_s >= _SYNC_S:
            self._try(run, self._sync)

    def _is_other_file(self, run: _Run, fmt: VideoFormat, packet: Packet, waiting: Sequence[Packet]) -> bool:
        """Whether the packet begins a file. Asks for a keyframe where one should begin soon."""
        if not packet.is_keyframe:
            if run.file is not None and not run.wants_cut and self._is_complete(run, packet):
                run.wants_cut = True
                self._source.request_keyframe()
            return False
        if run.file is None or run.file.fmt != fmt:
            return True
        last_s = waiting[-1].began_s if waiting else run.last_s
        return self._is_complete(run, packet) or packet.began_s - last_s > _LONG_GAP_S

    def _is_complete(self, run: _Run, packet: Packet) -> bool:
        """Whether the file is as long as it should be, or so large that the limit on all could not be kept well; or
        what comes is to be turned otherwise."""
        if run.file is None or packet.began_s - run.file.zero_s >= run.wish.segment_s:
            return True
        if run.file.orientation != self._orientation():
            return True
        most = self._library.quota
        return most is not None and run.file.size >= most // _FILES_WITHIN_LIMIT

    def _next_file(self, run: _Run, fmt: VideoFormat, packet: Packet) -> None:
        self._end_file(run)
        if time.monotonic() >= run.retry_at_s:
            self._try(run, lambda run: self._open_file(run, fmt, packet))

    def _open_file(self, run: _Run, fmt: VideoFormat, packet: Packet) -> None:
        quota = self._library.quota
        needed = run.needed if quota is None else min(run.needed, quota // _FILES_WITHIN_LIMIT)
        self._library.enforce_quota(max(needed, len(packet.data)))
        file = Mp4Writer(self._library, "video", fmt, packet.timestamp_s, packet.began_s, self._orientation())
        run.file = file
        run.last_s, run.delta_s, run.wants_cut = packet.began_s, 0.0, False
        run.synced_s, run.synced = time.monotonic(), 0

    def _count_file(self, run: _Run, file: Mp4Writer) -> None:
        """It holds something now: before, it could have been taken away again."""
        with self._changed:
            run.name = file.name
            run.segments += 1
            self._changed.notify_all()
        log.info("Recording %s", file.name)
        try:
            thumbnail = self._thumbnail()
            if thumbnail is not None:
                self._library.set_thumbnail(file.name, thumbnail)
        except (OSError, CameraError) as error:
            log.debug("No thumbnail of %s: %s", file.name, error)

    def _write(self, run: _Run, packets: Sequence[Packet], following: Packet | None = None) -> None:
        """A fragment; `following` is the packet behind it, where that is known."""
        if packets and run.file is not None:
            self._try(run, lambda run: self._add(run, packets, following))

    def _add(self, run: _Run, packets: Sequence[Packet], following: Packet | None) -> None:
        file = run.file
        if file is None:
            return
        for packet in packets:
            run.delta_s, run.last_s = packet.began_s - run.last_s, packet.began_s
        # How long the last one stands nobody may know yet; the next fragment begins when it does.
        usual_s = min(run.delta_s or 1 / file.fmt.fps, _LONGEST_FRAGMENT_S)
        is_gap = following is None or following.began_s - run.last_s > _LONG_GAP_S
        bytes_now = sum(len(packet.data) for packet in packets)
        run.needed = bytes_now * _FRAGMENTS_AHEAD  # where this fails
        if self._library.max_bytes is None:  # else once in each second is enough, and dear where there are many files
            self._library.enforce_quota(bytes_now)
        size = file.size
        file.add(packets, usual_s if following is None or is_gap else following.began_s - run.last_s)
        run.needed = 0
        with self._changed:
            run.size += file.size - size
        if file.is_first:
            self._count_file(run, file)

    def _sync(self, run: _Run) -> None:
        if run.file is not None:
            run.file.sync()
            run.synced_s, grown, run.synced = time.monotonic(), run.file.size - run.synced, run.file.size
            try:
                self._library.check(run.file.name)
            except FileNotFoundError as error:
                self._tell(f"{run.file.name}: {error.strerror}; another file begins")
                self._end_file(run)
                self._source.request_keyframe()
                return
            if self._library.quota is not None:  # for a second like the last
                self._library.enforce_quota(min(grown, self._library.quota // _FILES_WITHIN_LIMIT))
            with self._changed:
                if not self._awaits_keyframe:  # nothing is left out now
                    self._last_error = None

    def _try(self, run: _Run, step: Callable[[_Run], None]) -> None:
        """A step that writes. Where it fails, the file ends there, and another one is tried after a while."""
        try:
            step(run)
        except OSError as error:
            self._tell(f"recording stopped for a while: {error.strerror or error}")
            self._end_file(run)
            run.retry_at_s = time.monotonic() + _RETRY_S

    def _end_file(self, run: _Run) -> None:
        if run.file is not None:
            file, run.file = run.file, None
            file.close()
            with self._changed:
                self._changed.notify_all()

    def _let_go(self, run: _Run) -> None:
        if self._preroll_lease is None:
            self._source.unsubscribe(self)
        if run.lease is not None:
            run.lease.release()
        with self._changed:
            run.is_over = True
            if self._run is run:
                self._run = None
            self._changed.notify_all()

    def _look(self, run: _Run) -> RunningVideo:
        """Under the lock."""
        return RunningVideo(run.name, run.began_s, time.monotonic() - run.asked_s, run.size, run.segments)

    def _tell(self, trouble: str) -> None:
        with self._changed:
            self._tell_locked(trouble)

    def _tell_locked(self, trouble: str) -> None:
        if trouble != self._last_error:
            log.warning("Recordings: %s", trouble)
        self._last_error = trouble
