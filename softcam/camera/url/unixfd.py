"""Reads video from the socket of GStreamer's `unixfdsink`, in whose memory the images are.

The protocol is that of gst-plugins-bad, `gst/unixfd` (1.24 and newer). The sink listens on a stream socket. Each
message is a command with its type and the length of its payload; the descriptors of a buffer's memories arrive with the
command. The sink cannot use a buffer until its number was sent back, and its pool may have four of them. So an image is
copied at once, and a buffer that is already followed by another one is returned unread.

No thread: a `UnixFdSource` belongs to the reader that opened it.
"""

import contextlib
import fcntl
import mmap
import os
import select
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from softcam.camera.url.gst_video import Layout, layout_of_caps, layout_of_metas
from softcam.camera.url.source import Converter, SourceImage, camera_errors, require_pyav, size_of_jpeg
from softcam.errors import CameraError
from softcam.imaging.frame import Plane
from softcam.imaging.jpeg import with_end

_COMMAND: Final = struct.Struct("=II")  # type, bytes of the payload
_NEW_BUFFER, _RELEASE_BUFFER, _CAPS, _END_OF_STREAM = range(4)
# Number; presentation and decoding time, duration, offsets; flags, type of memory, number of memories and of metas.
_BUFFER: Final = struct.Struct("=Q5QIBBH")
_MEMORY: Final = struct.Struct("=QQ")  # size, offset
_NUMBER: Final = struct.Struct("=Q")
_DMABUF: Final = 1  # type of memory
_MAX_MEMORIES: Final = 16
_MAX_PAYLOAD_BYTES: Final = 1 << 20
_MAX_MEMORY_BYTES: Final = 1 << 30

# https://docs.kernel.org/driver-api/dma-buf.html: DMA_BUF_IOCTL_SYNC, and DMA_BUF_SYNC_READ with _START and _END.
_DMABUF_SYNC: Final = 0x40086200
_SYNC_START, _SYNC_END = struct.pack("=Q", 1), struct.pack("=Q", 1 | 4)
Ioctl = Callable[[int, int, bytes], object]


class _Buffer(NamedTuple):
    """A buffer of the sink: its descriptors, and (size, offset) of the memory behind each."""

    number: int
    is_dmabuf: bool
    memories: list[tuple[int, int]]
    metas: bytes
    descriptors: list[int]


class UnixFdSource:
    """An open connection to a sink."""

    def __init__(self, path: Path, timeout_s: float, ioctl: Ioctl = fcntl.ioctl) -> None:
        """Connect. Raises CameraError. `timeout_s` limits the wait for each image; `ioctl` synchronizes a dma-buf."""
        self._ioctl = ioctl
        self._av = require_pyav()
        self._converter = Converter(self._av)
        self._layout: Layout | None = None  # of the current caps; None for JPEGs, and before the first caps
        self._is_jpeg = False
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout_s)
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)
        try:
            with camera_errors():
                self._socket.connect(str(path))
        except CameraError:
            self.close()
            raise

    def images(self) -> Iterator[SourceImage | None]:
        """Yield images until the sink closes the connection, None for a buffer without one. Raises CameraError."""
        with camera_errors(), _no_other_protocol():
            while True:
                header, descriptors = self._receive_header()
                try:
                    kind, length = _COMMAND.unpack(header)
                    if length > _MAX_PAYLOAD_BYTES:
                        raise struct.error
                    payload = self._receive(length)
                    if kind == _CAPS:
                        self._set_caps(payload)
                    elif kind == _END_OF_STREAM:
                        return
                    elif kind == _NEW_BUFFER:
                        image = self._take_buffer(payload, descriptors)
                finally:
                    for descriptor in descriptors:
                        os.close(descriptor)
                if kind == _NEW_BUFFER:
                    yield image

    def close(self) -> None:
        self._socket.close()

    def _receive_header(self) -> tuple[bytes, list[int]]:
        """The next command's header, and the descriptors that accompany it."""
        header, descriptors, flags, _ = socket.recv_fds(
            self._socket, _COMMAND.size, _MAX_MEMORIES, socket.MSG_CMSG_CLOEXEC
        )
        try:
            if not header:
                raise CameraError("end of stream")
            if flags & socket.MSG_CTRUNC:
                raise CameraError("too many file descriptors")
            return header + self._receive(_COMMAND.size - len(header)), descriptors
        except BaseException:
            for descriptor in descriptors:
                os.close(descriptor)
            raise

    def _receive(self, length: int) -> bytes:
        data = bytearray()
        while len(data) < length:
            received = self._socket.recv(length - len(data))
            if not received:
                raise CameraError("end of stream")
            data += received
        return bytes(data)

    def _set_caps(self, payload: bytes) -> None:
        caps = payload.rstrip(b"\0").decode(errors="replace")
        self._layout, self._is_jpeg = None, caps.startswith("image/jpeg")
        if not self._is_jpeg and caps != "NULL":  # a sink that has none yet
            self._layout = layout_of_caps(caps)

    def _take_buffer(self, payload: bytes, descriptors: list[int]) -> SourceImage | None:
        """The image in a buffer, which is returned to the sink; None if it is not needed."""
        number, *_, _flags, memory_type, count, _metas = _BUFFER.unpack_from(payload)
        metas_at = _BUFFER.size + count * _MEMORY.size
        memories = list(_MEMORY.iter_unpack(payload[_BUFFER.size : metas_at]))
        if len(memories) != count or len(descriptors) != count:
            raise struct.error
        buffer = _Buffer(number, memory_type == _DMABUF, memories, payload[metas_at:], descriptors)
        try:
            if not count or self._poll.poll(0):
                return None  # without memory, or followed by a newer one
            return self._image_in(buffer)
        finally:
            self._socket.sendall(_COMMAND.pack(_RELEASE_BUFFER, _NUMBER.size) + _NUMBER.pack(number))

    def _image_in(self, buffer: _Buffer) -> SourceImage | None:
        ioctl = self._ioctl if buffer.is_dmabuf else None
        with contextlib.ExitStack() as opened:
            memories = [
                opened.enter_context(_mapped(descriptor, size, offset, ioctl))
                for descriptor, (size, offset) in zip(buffer.descriptors, buffer.memories, strict=True)
            ]
            if self._is_jpeg:
                jpeg = with_end(b"".join(memory.tobytes() for memory in memories))
                size = size_of_jpeg(jpeg)
                return None if size is None else SourceImage(size, None, jpeg, self._converter)
            if self._layout is None:
                return None
            layout = layout_of_metas(buffer.metas, self._layout)
            picture = self._picture(layout, [layout.plane(index, memories) for index in range(len(layout.strides))])
            return SourceImage((layout.width, layout.height), None, picture, self._converter)

    def _picture(self, layout: Layout, planes: list[Plane]) -> Any:
        """A copy of the planes as PyAV's frame."""
        picture = self._av.VideoFrame(layout.width, layout.height, layout.pixel_format)
        for target, plane in zip(picture.planes, planes, strict=True):
            rows, row_bytes = plane.shape
            np.frombuffer(target, np.uint8).reshape(-1, target.line_size)[:rows, :row_bytes] = plane
        with contextlib.suppress(AttributeError):  # an old PyAV cannot set them
            picture.colorspace, picture.color_range = layout.matrix, layout.value_range
        return picture


@contextlib.contextmanager
def _no_other_protocol() -> Iterator[None]:
    try:
        yield
    except struct.error as error:
        raise CameraError("not a socket of unixfdsink") from error


@contextlib.contextmanager
def _mapped(descriptor: int, size: int, offset: int, ioctl: Ioctl | None) -> Iterator[Plane]:
    """The bytes of a memory, without a copy; unmapped with the last view of them. `ioctl` is that of a dma-buf."""
    if offset + size > _MAX_MEMORY_BYTES:
        raise CameraError("a buffer is too large")
    if ioctl is None and os.fstat(descriptor).st_size < offset + size:  # an access would end the process
        raise CameraError("a buffer is shorter than announced")
    mapping = mmap.mmap(descriptor, offset + size, mmap.MAP_SHARED, mmap.PROT_READ)
    if ioctl is not None:
        ioctl(descriptor, _DMABUF_SYNC, _SYNC_START)
    try:
        yield np.frombuffer(mapping, np.uint8, size, offset)
    finally:
        if ioctl is not None:
            ioctl(descriptor, _DMABUF_SYNC, _SYNC_END)
