"""The recorders of one folder as a component, which the main thread opens and closes; any thread reads its errors.

The thread `recording-recovery` resumes what the end of the last process interrupted, starts what is configured to be
recorded after every start, and recovers files.
"""

import contextlib
import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from softcam.errors import CameraError, RecordingError
from softcam.recording.base import Recorder
from softcam.recording.journal import Entry, Journal, Origin, boot_clock, restore
from softcam.recording.library import Library
from softcam.recording.recorder import VideoRecorder
from softcam.recording.timelapse import TimelapseOptions, TimelapseRecorder
from softcam.recording.video_run import RecordingOptions
from softcam.runtime.deadline import Deadline
from softcam.runtime.threads import spawn

log = logging.getLogger(__name__)

_Options = TypeVar("_Options", RecordingOptions, TimelapseOptions)


@dataclass(frozen=True, slots=True)
class RecordingService:
    """A library with its recorders, which are None if the camera is disabled.

    `autostart` are the options of what is recorded after every start. The journal is that of the recorders.
    """

    library: Library
    preroll_s: float
    video: VideoRecorder | None = None
    timelapse: TimelapseRecorder | None = None
    autostart: RecordingOptions | TimelapseOptions | None = None
    journal: Journal = field(default_factory=Journal)

    def open(self, on_crash: Callable[[str], None]) -> None:
        """Start to keep the pre-roll, and the thread `recording-recovery`."""
        # Before any request starts a recording, whose entry would replace the file.
        self.journal.remove_leftover()
        interrupted = self.journal.load()
        if self.video is not None:
            self.video.open()
        spawn("recording-recovery", lambda: self._recover(interrupted), on_crash)

    @property
    def last_error(self) -> str | None:
        """Why something is not recorded; None once it is recorded again."""
        errors = [recorder.last_error for recorder in (self.video, self.timelapse) if recorder is not None]
        return next((error for error in errors if error is not None), None)

    @property
    def cut_short(self) -> Mapping[str, float | None]:
        """By kind, when the end of the portal interrupted a recording that was not resumed (Unix time)."""
        recorders = {"video": self.video, "timelapse": self.timelapse}
        return {kind: None if recorder is None else recorder.cut_short_s for kind, recorder in recorders.items()}

    def close(self, deadline: Deadline) -> None:
        """Stop all recordings; their files are complete if that succeeds before the deadline."""
        if self.timelapse is not None:
            self.timelapse.stop(Deadline(0.0), is_interrupted=True)  # requested at once: it may be waiting for a still
        if self.video is not None:
            self.video.close(deadline)
        if self.timelapse is not None:
            self.timelapse.stop(deadline, is_interrupted=True)

    def _recover(self, interrupted: Mapping[str, Entry]) -> None:
        if self.video is not None:
            self._resume(self.video, RecordingOptions, interrupted.get(self.video.kind))
        if self.timelapse is not None:
            self._resume(self.timelapse, TimelapseOptions, interrupted.get(self.timelapse.kind))
        try:
            self.library.recover()
        except OSError as error:
            folder = self.library.folder
            if os.path.isdir(folder):  # noqa: PTH112 - raises nothing; the library logged why there is none
                log.warning("Recordings folder %s cannot be read: %s", folder, error.strerror)

    def _resume(self, recorder: Recorder[Any, Any, Any], options_type: type[Any], entry: Entry | None) -> None:
        """Continue the recording of the journal, or start the automatic one."""
        automatic = self.autostart if isinstance(self.autostart, options_type) else None
        options, origin = automatic, Origin(is_automatic=True)
        if entry is not None:
            resumed = self._origin(entry)
            try:
                options = automatic if entry.is_automatic else _options_to_resume(options_type, entry, resumed)
                origin = resumed
            except (TypeError, ValueError) as error:  # of another version, damaged, or over
                recorder.report_cut_short(resumed.interrupted_s or 0.0, str(error))
        if options is None:
            self.journal.save(recorder.kind, None)
            return
        try:
            recorder.start(options, origin)
        except (RecordingError, CameraError) as error:
            if origin.interrupted_s is None:
                log.warning("%s is not started: %s", recorder.kind.capitalize(), error)
            else:
                recorder.report_cut_short(origin.interrupted_s, str(error))

    def _origin(self, entry: Entry) -> Origin:
        written_s = 0.0
        if entry.name is not None:
            with contextlib.suppress(OSError, RecordingError):  # the disk may be absent
                written_s = self.library.catalog.path_of(entry.name).stat().st_mtime
        return entry.origin(written_s, time.time(), *boot_clock())


def _options_to_resume(options_type: type[_Options], entry: Entry, origin: Origin) -> _Options:
    """Raises TypeError or ValueError if the recording cannot be resumed, or is over."""
    options = restore(options_type, entry.options)
    if options.duration_s is not None and time.monotonic() >= origin.started_s + options.duration_s:
        raise ValueError("its duration is over")
    return options


def automatic_options(setting: str) -> RecordingOptions | TimelapseOptions | None:
    """The options for `off`, `video`, `timelapse` or `timelapse:SECONDS`."""
    kind, _, interval = setting.partition(":")
    if kind == "timelapse":
        return TimelapseOptions(float(interval)) if interval else TimelapseOptions()
    return RecordingOptions() if kind == "video" else None
