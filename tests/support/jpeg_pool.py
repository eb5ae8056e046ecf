"""A JPEG encoder pool with a replaced encoder, and what it published."""

import threading
from dataclasses import dataclass
from typing import Any

from softcam.imaging.frame import Frame, NewestFrame
from softcam.streaming.jpeg_encoder import JpegEncoderPool, JpegVariant
from tests.support.background import eventually, soon, waiters
from tests.support.fakes import SIZE, make_frame
from tests.support.timeouts import PATIENCE_S

DEFAULT = JpegVariant(0, 80)
REQUESTED_SIZE = (160, 96)  # of the camera; frames are smaller, to be quick


@dataclass(eq=False)
class FakeChannel:
    """A channel with clients."""

    variant: JpegVariant = DEFAULT
    due_s: float = 0.0


class Encoder:
    """Replaces `jpeg.encode`: records its calls, and blocks or fails as the test decides."""

    def __init__(self) -> None:
        self._changed = threading.Condition()  # guards everything below
        # (began_s, size, quality, quality_is_explicit) of each call
        self.calls: list[tuple[float, tuple[int, int] | None, int, bool]] = []
        self.error: BaseException | None = None
        self._permits: float = float("inf")
        self.inside = 0

    def __call__(
        self, frame: Frame, size: tuple[int, int] | None, quality: int, *, quality_is_explicit: bool = False
    ) -> bytes:
        with self._changed:
            assert frame.planes, "the frame was released before it was encoded"
            self.calls.append((frame.began_s, size, quality, quality_is_explicit))
            self.inside += 1
            assert self._changed.wait_for(lambda: self._permits > 0, PATIENCE_S)
            self._permits -= 1
            self.inside -= 1
            if self.error is not None:
                raise self.error
        return b"%.0f" % frame.began_s

    def block(self) -> None:
        with self._changed:
            self._permits = 0

    def release(self, count: float = float("inf")) -> None:
        with self._changed:
            self._permits += count
            self._changed.notify_all()


class Pool:
    """A running encoder pool, the slot of its frames, and what it published."""

    def __init__(self, **options: Any) -> None:
        self.slot = NewestFrame()
        self.encoders = JpegEncoderPool(self.slot, REQUESTED_SIZE, **options)
        self.published: list[tuple[JpegVariant, bytes, float, float]] = []
        self.crashes: list[str] = []
        self.frames_out = 0
        self._lock = threading.Lock()  # guards frames_out
        self.encoders.start(self._publish, self.crashes.append)

    def frame(self, began_s: float, size: tuple[int, int] = SIZE) -> None:
        """The camera delivers a frame."""
        with self._lock:
            self.frames_out += 1
        self.slot.put_frame(make_frame(size=size, began_s=began_s, on_release=self._on_release))
        self.slot.notify()

    def wait_for(self, count: int) -> None:
        eventually(lambda: len(self.published) >= count, f"{count} JPEGs")

    def wait_idle(self) -> None:
        """Wait until both encoders are waiting for work."""
        eventually(lambda: waiters(self.encoders._changed) == 2, "that the encoders are idle")

    def stop(self) -> None:
        self.encoders.stop(soon())
        self.slot.clear()

    def _publish(self, variant: JpegVariant, jpeg: bytes, *, timestamp_s: float, made_s: float) -> None:
        self.published.append((variant, jpeg, timestamp_s, made_s))

    def _on_release(self) -> None:
        with self._lock:
            self.frames_out -= 1
