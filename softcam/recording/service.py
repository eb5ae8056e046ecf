"""The recorders of one folder as a component, which the main thread opens and closes; any thread reads its errors."""

import logging
from collections.abc import Callable
from dataclasses import dataclass

from softcam.recording.library import Library
from softcam.recording.recorder import VideoRecorder
from softcam.recording.timelapse import TimelapseRecorder
from softcam.runtime.threads import spawn

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RecordingService:
    """A library with its recorders, which are None if the camera is disabled."""

    library: Library
    preroll_s: float
    video: VideoRecorder | None = None
    timelapse: TimelapseRecorder | None = None

    def open(self, on_crash: Callable[[str], None]) -> None:
        """Recover interrupted recordings on the thread `recording-recovery`, and start to keep the pre-roll."""
        spawn("recording-recovery", self._recover, on_crash)
        if self.video is not None:
            self.video.open()

    @property
    def last_error(self) -> str | None:
        """Why something is not recorded; None once it is recorded again."""
        errors = [recorder.last_error for recorder in (self.video, self.timelapse) if recorder is not None]
        return next((error for error in errors if error is not None), None)

    def close(self, deadline_s: float) -> None:
        """Stop all recordings; their files are complete if that succeeds before the deadline (monotonic clock)."""
        if self.timelapse is not None:
            self.timelapse.stop(0.0)  # requested at once: it may be waiting for a still
        if self.video is not None:
            self.video.close(deadline_s)
        if self.timelapse is not None:
            self.timelapse.stop(deadline_s)

    def _recover(self) -> None:
        try:
            self.library.recover()
        except OSError as error:
            log.warning("Recordings folder cannot be read: %s", error.strerror)
