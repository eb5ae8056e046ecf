"""Images over HTTP: a stream of them, or one that is requested again and again. No thread; belongs to the reader.

What the server sends decides, not how its address looks. Everything else over HTTP is left to FFmpeg.
"""

import contextlib
import io
import math
import re
import time
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Final
from urllib.parse import urlsplit

from softcam.camera.base import StreamRequest
from softcam.camera.url.http_client import HttpClient
from softcam.camera.url.image_splitter import ImageSplitter
from softcam.camera.url.source import Converter, Source, SourceImage, camera_errors, require_pyav, size_of_jpeg
from softcam.errors import CameraError
from softcam.imaging.jpeg import SOI, with_end
from softcam.runtime.deadline import Deadline

_IMAGE_TIMEOUT_S: Final = 15.0  # for each image, while data arrives
_MAX_IMAGE_BYTES: Final = 64 << 20
_SNIFFED_BYTES: Final = 16
_JPEG_NAMES: Final = ("jpeg", "jpg", "mjpg")  # in media types such as image/pjpeg and video/x-motion-jpeg
_PLAYLISTS: Final = (b"#EXTM3U", b"<?xml", b"<MPD")  # of HLS and DASH, which refer to other addresses
_JPEG_BEGINNINGS: Final = (b"\xff\xd8\xff", b"--", b"content-")  # without a useful type: an image, a part
_PART_TYPE: Final = re.compile(rb"^content-type:[ \t]*([\w./+-]{1,80})[^\n]*\n", re.IGNORECASE | re.MULTILINE)
_PART_NAMES: Final = (*_JPEG_NAMES, "png", "webp", "octet-stream")
_MAX_PARTS: Final = 5  # without an image; a damaged one may be among them
_MAX_LINE_BYTES: Final = 1 << 16


def open_source(
    address: str, request: StreamRequest, read_timeout_s: float, pause: Callable[[float], bool]
) -> "Source | HttpSource":
    """Open an address. `pause(seconds)` sleeps, and returns True if the reader is to stop. Raises CameraError."""
    if address.startswith(("http://", "https://")):
        source = HttpSource(address, 1 / request.fps, read_timeout_s, pause)
        if source.has_images:
            return source
        if source.is_stream:
            return Source(address, request, read_timeout_s, source)
        source.close()
    return Source(address, request, read_timeout_s)


class HttpSource:
    """An open source; `has_images` is False if it is neither JPEGs nor a single image.

    If `is_stream`, FFmpeg can read the response like a file. A second request could fail: some servers, such as
    `ffmpeg -listen 1`, serve one.
    """

    def __init__(
        self,
        url: str,
        interval_s: float,
        timeout_s: float,
        pause: Callable[[float], bool],
        image_timeout_s: float = _IMAGE_TIMEOUT_S,
    ) -> None:
        """Send the first request. Raises CameraError. `interval_s` is the distance of requests for single images.

        `timeout_s` limits each silence of the server, `image_timeout_s` the time for an image.
        """
        self._converter = Converter(require_pyav())
        self._interval_s = interval_s
        self._image_timeout_s = image_timeout_s
        self._pause = pause
        self._url = url
        self._unread = b""
        self._client = HttpClient(url, timeout_s)
        try:
            self._request()
        except CameraError:
            self.close()
            raise

    @property
    def name(self) -> str:
        """The path of the URL: FFmpeg derives the format from its extension."""
        return urlsplit(self._url).path or "/"

    @property
    def has_images(self) -> bool:
        return self._is_jpeg or self._is_image

    @property
    def is_stream(self) -> bool:
        return not (self.has_images or self._client.length is not None or self._is_playlist)

    def read(self, size: int) -> bytes:
        """Up to `size` bytes of the response, none at its end. Raises OSError."""
        if not self._unread:
            try:
                self._unread = next(self._body, b"")
            except CameraError as error:
                raise OSError(0, str(error)) from error
        data, self._unread = self._unread[:size], self._unread[size:]
        return data

    def images(self) -> Iterator[SourceImage | None]:
        """Yield images until a stream ends; a single one is requested again and again. Raises CameraError."""
        while True:
            count, is_damaged = 0, False
            for image in self._split() if self._is_jpeg else self._other_image():
                count += 1
                is_damaged = image is None
                yield image
            if count == 1 and is_damaged:
                raise CameraError("the image is damaged")
            if count != 1 or self._pause(max(0.0, self._asked_s + self._interval_s - time.monotonic())):
                return
            self._request()
            if not self.has_images:
                raise CameraError("the server stopped delivering images")

    def close(self) -> None:
        self._client.close()

    def _request(self) -> None:
        self._asked_s = time.monotonic()
        self._client.request()
        self._deadline = Deadline.after(self._image_timeout_s)
        body = self._limited_body()
        beginning = b""
        for data in body:
            beginning += data
            if len(beginning) >= _SNIFFED_BYTES:
                break
        self._body = chain([beginning], body)
        media_type = self._client.content_type
        self._is_jpeg = any(name in media_type for name in _JPEG_NAMES) or (
            beginning.lstrip().lower().startswith(_JPEG_BEGINNINGS) or media_type.startswith("multipart/")
        )
        self._is_image = media_type.startswith("image/")
        # Data behind the first image is part of it, such as the gain map of an Ultra HDR image.
        self._is_single = self._is_image and (self._client.length or math.inf) <= _MAX_IMAGE_BYTES
        self._is_playlist = "mpegurl" in media_type or beginning.lstrip().startswith(_PLAYLISTS)
        if self.is_stream:
            self._deadline = Deadline(math.inf)

    def _limited_body(self) -> Iterator[bytes]:
        """The body. Raises CameraError after the deadline, and when the reader is to stop."""
        for data in self._client.body():
            yield data
            if self._deadline.is_expired:
                raise CameraError("delivers no image in time")
            if self._pause(0):
                raise CameraError("stopping")

    def _split(self) -> Iterator[SourceImage | None]:
        splitter = ImageSplitter()
        parts: _PartTypes | None = _PartTypes()  # None from the first image on
        for data in chain(self._body, (None,)):
            found = splitter.finish() if data is None else splitter.push_data(data)
            images = [self._read_image(image) for image in found]
            parts = None if any(images) or parts is None else parts
            if parts is not None and data is not None:
                parts.push_data(data)
            for image in images:
                yield image
                self._deadline = Deadline.after(self._image_timeout_s)
                if self._is_single:
                    for _ in self._body:
                        pass
                    return

    def _read_image(self, data: bytes) -> SourceImage | None:
        """None for a damaged one."""
        if data.startswith(SOI):
            data = with_end(data)
            size = size_of_jpeg(data)
            return None if size is None else SourceImage(size, None, data, self._converter)
        with contextlib.suppress(CameraError):
            return self._decode(data)
        return None

    def _decode(self, data: bytes) -> SourceImage | None:
        """Raises CameraError."""
        with camera_errors(), require_pyav().open(io.BytesIO(data)) as container:
            image = next(container.decode(video=0), None)
        return None if image is None else SourceImage((image.width, image.height), None, image, self._converter)

    def _other_image(self) -> Iterator[SourceImage | None]:
        """An image of another format, such as PNG, which PyAV decodes."""
        body = bytearray()
        for data in self._body:
            body += data
            if len(body) > _MAX_IMAGE_BYTES:
                raise CameraError("the image is too large")
        yield self._decode(bytes(body))


class _PartTypes:
    """Reads the headers of parts until there is an image, for the error if there is none."""

    def __init__(self) -> None:
        self._data = bytearray()  # the incomplete line at the end
        self._count = 0

    def push_data(self, data: bytes) -> None:
        """Raises CameraError if parts are complete, and none of them was an image."""
        self._data += data
        for found in _PART_TYPE.findall(self._data):
            self._count += 1
            kind = found.decode("latin-1").lower()
            is_supported = any(name in kind for name in _PART_NAMES)
            if self._count > (_MAX_PARTS if is_supported else 1):
                if is_supported:
                    raise CameraError(f"the images in its parts of type {kind} are damaged")
                raise CameraError(f"no image in its parts of type {kind}; JPEG, PNG and WebP are supported")
        line = self._data.rfind(b"\n") + 1
        del self._data[: line if len(self._data) - line <= _MAX_LINE_BYTES else len(self._data)]
