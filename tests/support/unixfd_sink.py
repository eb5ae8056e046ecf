"""A sink that speaks the protocol of GStreamer's `unixfdsink`, run by the test itself: no thread."""

import os
import socket
import struct
from collections.abc import Sequence
from pathlib import Path

from tests.support.timeouts import PATIENCE_S

NEW_BUFFER, RELEASE_BUFFER, CAPS, END_OF_STREAM = range(4)


def caps(form: str, size: tuple[int, int], *fields: str) -> str:
    """The text that GStreamer sends for raw video."""
    width, height = size
    sizes = (f"width=(int){width}", f"height=(int){height}", "framerate=(fraction)30/1")
    return ", ".join(("video/x-raw", f"format=(string){form}", *sizes, *fields))


def video_meta(size: tuple[int, int], offsets: Sequence[int], strides: Sequence[int]) -> bytes:
    """A `GstVideoMeta` as `gst_meta_serialize` writes it, behind one of another kind."""
    count = len(offsets)
    body = struct.pack(f"<iiIII{count}Q{count}i", 0, 23, *size, count, *offsets, *strides) + bytes(4 * (4 + count))
    return _meta(b"GstReferenceTimestampMeta", b"none of it") + _meta(b"GstVideoMeta", body)


def _meta(name: bytes, body: bytes) -> bytes:
    return struct.pack("<II", 8 + len(name) + 2 + len(body), len(name)) + name + b"\0\0" + body


class Sink:
    """Listens at `path`; the methods need a client, which `accept` waits for."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.settimeout(PATIENCE_S)
        self._listener.bind(str(path))
        self._listener.listen()
        self._client: socket.socket | None = None

    @property
    def client(self) -> socket.socket:
        assert self._client is not None
        return self._client

    def accept(self, *texts: str) -> None:
        """Wait for a client in place of the previous one, and send it these caps."""
        self.disconnect()
        self._client, _ = self._listener.accept()
        self._client.settimeout(PATIENCE_S)
        for text in texts:
            self.send(CAPS, text.encode() + b"\0")

    def send(self, kind: int, payload: bytes = b"", descriptors: Sequence[int] = ()) -> None:
        socket.send_fds(self.client, [struct.pack("=II", kind, len(payload))], list(descriptors))
        self.client.sendall(payload)

    def send_buffer(
        self,
        number: int,
        *memories: bytes,
        metas: bytes = b"",
        count: int = 0,
        offset: int = 0,
        missing: int = 0,
        size: int = 0,
        is_dmabuf: bool = False,
    ) -> None:
        """Send a buffer in new memories, each with `offset` bytes before and `missing` bytes less than announced.

        `size` announces another size. Dma-bufs are announced, and memories of a memfd sent.
        """
        descriptors = [os.memfd_create("buffer") for _ in memories]
        payload = struct.pack("=Q5QIBBH", number, *[0] * 5, 0, is_dmabuf, len(memories), count or bool(metas))
        try:
            for descriptor, data in zip(descriptors, memories, strict=True):
                os.pwrite(descriptor, data[: len(data) - missing], offset)
                payload += struct.pack("=QQ", size or len(data), offset)
            self.send(NEW_BUFFER, payload + metas, descriptors)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def released(self) -> int:
        """Wait for the return of a buffer; its number."""
        kind, length, number = struct.unpack("=IIQ", self.client.recv(16, socket.MSG_WAITALL))
        assert (kind, length) == (RELEASE_BUFFER, 8)
        return int(number)

    def disconnect(self) -> None:
        if self._client is not None:
            self._client.close()
        self._client = None

    def close(self) -> None:
        self.disconnect()
        self._listener.close()
        self._path.unlink()
