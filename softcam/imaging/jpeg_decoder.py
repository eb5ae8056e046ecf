"""Decodes JPEGs to YUV with FFmpeg, through PyAV, which the first decoder loads. The owner's thread.

simplejpeg decodes to RGB only: see `softcam.imaging.jpeg`.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from softcam.errors import CameraError
from softcam.imaging.frame import Frame
from softcam.imaging.rgb import FULL_RANGE, rows_of
from softcam.runtime.pyav import import_pyav


class JpegDecoder:
    """Decodes one JPEG after the other, for one thread."""

    def __init__(self) -> None:
        """Raises NotSupported without PyAV."""
        self._av = import_pyav("decoding JPEGs")
        self._context = self._av.CodecContext.create("mjpeg", "r")
        self._context.thread_count = 1  # each further thread would delay the output by one image

    def decode(self, jpeg: bytes) -> Any:
        """The image as a PyAV frame in the subsampling of the JPEG. Raises CameraError for one that is damaged."""
        with self._camera_errors():
            # FFmpeg would decode no data as the end of the stream.
            images = self._context.decode(self._av.Packet(jpeg)) if jpeg else []
        if len(images) != 1:
            raise CameraError("JPEG cannot be decoded: it has no image")
        return images[0]

    def decode_yuv420(self, jpeg: bytes, choose_size: Callable[[tuple[int, int]], tuple[int, int]]) -> Frame:
        """A JPEG as a YUV420 frame (full range); `choose_size` maps its (width, height) to that of the frame.

        Raises CameraError for a JPEG that cannot be decoded.
        """
        image = self.decode(jpeg)
        with self._camera_errors():
            image = image.reformat(*choose_size((image.width, image.height)), format=FULL_RANGE)
        return Frame(tuple(rows_of(image)), "YUV420", image.width, image.height)

    @contextmanager
    def _camera_errors(self) -> Iterator[None]:
        try:
            yield
        except (self._av.error.FFmpegError, ValueError) as error:
            raise CameraError(f"JPEG cannot be decoded: {getattr(error, 'strerror', None) or error}") from error
