"""For tests of the pattern camera: a consumer of frames and the file that injects faults."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from softcam.imaging.frame import Frame
from tests.support.timeouts import PATIENCE_S, TIMEOUT_FACTOR

DEADLINE_S: Final = PATIENCE_S
SILENCE_S: Final = 0.5 * TIMEOUT_FACTOR  # without a frame for so long, at 50 frames a second, a stream has stopped


class FrameCollector:
    """An `on_frame` that releases frames at once, or keeps them where `keeps` is set."""

    def __init__(self, *, keeps: bool = False) -> None:
        self.changed = threading.Condition()
        self.keeps = keeps
        self.kept: list[Frame] = []
        self.seen: list[Frame] = []  # all; a released one has its metadata and times left
        self.threads: set[str] = set()

    def __call__(self, frame: Frame) -> None:
        with self.changed:
            self.threads.add(threading.current_thread().name)
            self.seen.append(frame)
            if self.keeps:
                self.kept.append(frame)
            self.changed.notify_all()
        if not self.keeps:
            frame.release()

    def wait(self, predicate: Callable[[], bool]) -> None:
        with self.changed:
            assert self.changed.wait_for(predicate, DEADLINE_S), f"timed out after {len(self.seen)} frames"

    def wait_frames(self, more: int) -> None:
        count = len(self.seen) + more
        self.wait(lambda: len(self.seen) >= count)

    def wait_for_metadata(self, name: str, value: Any) -> None:
        """Wait for a new frame with this metadata."""
        start = len(self.seen)
        self.wait(lambda: any(frame.metadata[name] == value for frame in self.seen[start:]))

    def is_silent(self) -> bool:
        """Whether no frame arrives for `SILENCE_S`."""
        with self.changed:
            count = len(self.seen)
            return not self.changed.wait_for(lambda: len(self.seen) > count, SILENCE_S)

    def wait_silence(self) -> None:
        end_s = time.monotonic() + DEADLINE_S
        while not self.is_silent():
            assert time.monotonic() < end_s, "frames did not stop"


class FaultsFile:
    """Replaces the content of the file in one step."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def inject(self, *words: str) -> None:
        new = self.path.with_suffix(".new")
        new.write_text("".join(f"{word}\n" for word in words))
        new.replace(self.path)

    def clear(self) -> None:
        self.path.unlink()


def pattern_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "pattern"]
