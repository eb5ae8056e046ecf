"""Kinds of stills, and the one request that a still is made of.

A `Still` is made by the holder's camera thread and called by Picamera2's event loop, with every request of the still's
stream; the first one counts.
"""

import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

from softcam.camera.base import RawStill
from softcam.camera.picamera.library import root_cause
from softcam.camera.picamera.request import OutstandingFrames, frame_of
from softcam.errors import CameraError
from softcam.imaging.frame import Frame, copy_of

T = TypeVar("T")


class Still(Generic[T]):
    """Takes one request."""

    def __init__(self, streams: Mapping[str, Any], least: tuple[int, int], make: Callable[[Any, Any], T]) -> None:
        """`streams` are Picamera2's; `least` is the size that the sensor shall give at least.

        `make` makes the result out of a request and the negotiated main stream, on the event loop.
        """
        self.streams = streams
        self.least = least
        self.config: Mapping[str, Any] = {}  # the main stream, once it is negotiated
        self._make = make
        self._results: list[T] = []
        self._error: Exception | None = None
        self._is_over = threading.Event()

    def __call__(self, request: Any) -> None:
        """The camera's next request; whatever is the matter with the first one, no other is tried."""
        if self._is_over.is_set():
            return
        try:
            self._results.append(self._make(request, self.config))
        except Exception as error:  # noqa: BLE001 - the edge of the event loop's thread: told to who waits
            self._error = error
        finally:
            self._is_over.set()

    def wait(self, limit_s: float) -> bool:
        """Until there was a request; False where it takes longer."""
        return self._is_over.wait(limit_s)

    def result(self) -> T:
        """What was made. Raises CameraError where that failed."""
        if self._error is not None:
            raise CameraError(root_cause(self._error)) from self._error
        return self._results[0]


def picture(size: tuple[int, int], pixel_format: str) -> Still[Frame]:
    """A frame of `size` in memory of its own."""

    def make(request: Any, config: Mapping[str, Any]) -> Frame:
        frame = frame_of(request, config, 0, OutstandingFrames())
        try:
            return copy_of(frame)
        finally:
            frame.release()

    return Still({"main": {"size": size, "format": pixel_format}, "raw": None}, size, make)


def raw(sensor: tuple[int, int], main: tuple[int, int]) -> Still[RawStill]:
    """What the whole sensor saw; beside it there has to be a `main` stream, which nobody looks at."""

    def make(request: Any, config: Mapping[str, Any]) -> RawStill:
        frame = frame_of(request, config, 0, OutstandingFrames())
        timestamp_s = frame.timestamp_s
        frame.release()
        # Picamera2 writes a DNG to a path alone.
        with tempfile.TemporaryDirectory(prefix="soft-stream-") as folder:
            path = Path(folder, "raw.dng")
            request.save_dng(str(path))
            return RawStill(path.read_bytes(), timestamp_s)

    return Still({"main": {"size": main, "format": "YUV420"}, "raw": {"size": sensor}}, sensor, make)
