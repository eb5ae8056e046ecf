"""For tests of the URL camera: a consumer that records its frames."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from softcam.camera.base import StreamRequest
from softcam.camera.url.camera import UrlCamera
from softcam.imaging.frame import Frame
from tests.support.motion_pictures import number_in
from tests.support.timeouts import PATIENCE_S as PATIENCE_S

REQUEST: Final = StreamRequest(640, 480, 100)
FPS: Final = 20

MakeCamera = Callable[..., UrlCamera]


@dataclass(frozen=True)
class Recorded:
    """The properties of a frame, which was released."""

    received_s: float
    number: int
    size: tuple[int, int]
    pixel_format: str
    data: bytes
    metadata: dict[str, int]


class FrameRecorder:
    """An `on_frame` that records frames, and lets a test wait for a number of them."""

    def __init__(self, *, keeps_data: bool = False) -> None:
        self._changed = threading.Condition()
        self._keeps_data = keeps_data
        self.began_s = time.monotonic()  # before the camera is opened
        self.frames: list[Recorded] = []

    def __call__(self, frame: Frame) -> None:
        data = frame.planes[0].tobytes() if self._keeps_data else b""
        now_s = time.monotonic()
        recorded = Recorded(now_s, number_in(frame), frame.size, frame.pixel_format, data, dict(frame.metadata))
        frame.release()
        with self._changed:
            self.frames.append(recorded)
            self._changed.notify_all()

    def wait(self, count: int) -> list[Recorded]:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.frames) >= count, PATIENCE_S), f"{len(self.frames)} frames"
            return list(self.frames)

    def wait_more(self, count: int) -> list[Recorded]:
        before = len(self.frames)
        return self.wait(before + count)[before:]


def open_with(camera: UrlCamera, *, keeps_data: bool = False) -> FrameRecorder:
    recorder = FrameRecorder(keeps_data=keeps_data)
    camera.open(recorder)
    return recorder


def first_frame(camera: UrlCamera) -> Frame:
    """Open the camera and return its first frame, which the caller releases."""
    frames: list[Frame] = []
    has_frame = threading.Event()

    def keep_first(frame: Frame) -> None:
        if frames:
            frame.release()
            return
        frames.append(frame)
        has_frame.set()

    camera.open(keep_first)
    assert has_frame.wait(PATIENCE_S)
    return frames[0]
