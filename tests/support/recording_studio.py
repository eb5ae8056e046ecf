"""A video recorder with packets from the test and a camera that delivers frames by itself."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from softcam.recording.journal import Journal, Origin
from softcam.recording.library import MAX_FILE_BYTES, Library
from softcam.recording.recorder import RecorderLimits, VideoRecorder
from softcam.recording.video_run import RecordingOptions, RunningVideo
from tests.support.background import Background, eventually, soon
from tests.support.fakes import SessionRig
from tests.support.h264_samples import FPS, FakeSource, Seen, play

PICTURE = b"\xff\xd8 a thumbnail \xff\xd9"


class Studio:
    """A recorder with a source of packets and a camera that delivers frames by itself."""

    def __init__(
        self,
        folder: Path,
        held: SessionRig,
        preroll_s: float,
        max_bytes: int | None,
        limits: RecorderLimits,
        journal: Path | None,
        max_file_bytes: int,
    ) -> None:
        self.library = Library(folder, max_bytes, max_file_bytes=max_file_bytes)
        self.source = FakeSource()
        self.crashes: list[str] = []
        self.held = held
        self.orientation = 1
        self.recorder = VideoRecorder(
            self.source,
            held.manager,
            self.library,
            preroll_s,
            lambda: PICTURE,
            self.crashes.append,
            lambda: self.orientation,
            limits,
            Journal(journal),
        )
        self.recorder.open()

    def start(self, origin: Origin | None = None, **options: float) -> None:
        """Start a recording and send its first second."""
        # A running encoder delivers packets while `start` waits for the first file.
        started = Background(lambda: self.recorder.start(RecordingOptions(**options), origin))
        eventually(lambda: self.source.sinks or started.is_over)
        eventually(lambda: self.recorder.running is not None or started.is_over)
        if not self.source.given:  # otherwise what precedes the start, which may take a while, would be pre-roll
            self.source.began_s = max(self.source.began_s, time.monotonic())
        self.source.give(int(FPS))
        started.result()

    def stop(self) -> None:
        self.recorder.stop(soon())

    @property
    def segments(self) -> int:
        running = self.recorder.running
        return 0 if running is None else running.segments

    def videos(self) -> list[Seen]:
        """The content of all files, the oldest first."""
        return [play(self.library.folder / entry.name) for entry in reversed(self.library.catalog.entries())]

    def numbers(self) -> list[int]:
        return [number for video in self.videos() for number in video.numbers]


@contextmanager
def studio(
    folder: Path,
    *,
    preroll_s: float = 0.0,
    max_bytes: int | None = None,
    limits: RecorderLimits | None = None,
    journal: Path | None = None,
    max_file_bytes: int = MAX_FILE_BYTES,
) -> Iterator[Studio]:
    with SessionRig() as held, held.camera.flowing():
        studio = Studio(folder, held, preroll_s, max_bytes, limits or RecorderLimits(), journal, max_file_bytes)
        yield studio
        studio.recorder.close(soon())
        assert not any(held.manager.status().leases.values())
        assert studio.source.sinks == []
        assert studio.crashes == []


def numbers_from(first: int, count: int) -> list[int]:
    return [number % 16 for number in range(first, first + count)]


def running_status(s: Studio) -> RunningVideo:
    running = s.recorder.running
    assert running is not None
    return running


def running_name(s: Studio) -> str:
    name = running_status(s).name
    assert name is not None
    return name
