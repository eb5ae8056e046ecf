"""The kinds of stills, and the one request that becomes a still.

The session's camera thread makes a `Still`; Picamera2's event loop calls it with every request of the still's stream,
of which the first one is used.
"""

import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Generic, TypeVar

from softcam.camera.base import RawStill
from softcam.camera.picamera.library import root_cause
from softcam.camera.picamera.request import OutstandingFrames, frame_of
from softcam.errors import CameraError
from softcam.imaging.frame import Frame

T = TypeVar("T")


class Still(Generic[T]):
    """A still to be captured, and its result."""

    def __init__(self, streams: Mapping[str, Any], least_size: tuple[int, int], make: Callable[[Any, Any], T]) -> None:
        """`streams` are Picamera2's stream configurations; `least_size` is the minimum size of the sensor mode.

        `make` creates the result from a request and the negotiated main stream, on the event loop.
        """
        self.streams = streams
        self.least_size = least_size
        self.future: Future[T] = Future()  # raises CameraError if `make` has failed
        self._make = make

    def process_request(self, config: Mapping[str, Any], request: Any) -> None:
        """Handle a completed request of the negotiated main stream; if the first one fails, no other is tried."""
        if self.future.done():
            return
        try:
            self.future.set_result(self._make(request, config))
        except Exception as error:  # noqa: BLE001 - the edge of the event loop's thread
            self.future.set_exception(CameraError(root_cause(error)))


def frame_still(size: tuple[int, int], pixel_format: str) -> Still[Frame]:
    """A still whose result is a copied frame of `size`."""

    def make(request: Any, config: Mapping[str, Any]) -> Frame:
        frame = frame_of(request, config, 0, OutstandingFrames())
        try:
            return frame.copy()
        finally:
            frame.release()

    return Still({"main": {"size": size, "format": pixel_format}, "raw": None}, size, make)


def raw_still(sensor_size: tuple[int, int], main_size: tuple[int, int]) -> Still[RawStill]:
    """A still whose result is the sensor's raw image; Picamera2 requires a main stream, which is not used."""

    def make(request: Any, config: Mapping[str, Any]) -> RawStill:
        frame = frame_of(request, config, 0, OutstandingFrames())
        timestamp_s = frame.timestamp_s
        frame.release()
        # Picamera2 can write a DNG only to a path.
        with tempfile.TemporaryDirectory(prefix="soft-stream-") as folder:
            path = Path(folder, "raw.dng")
            request.save_dng(str(path))
            return RawStill(path.read_bytes(), timestamp_s)

    return Still({"main": {"size": main_size, "format": "YUV420"}, "raw": {"size": sensor_size}}, sensor_size, make)
