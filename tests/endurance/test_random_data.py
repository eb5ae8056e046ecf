"""Readers of data from outside, with valid data in which some bytes were changed.

Each returns something or raises the errors that it documents; anything else fails the test. The cases are the same in
every run, unless `SOFT_STREAM_FRESH_CASES=1` is set. One that fails becomes a test of the module that it concerns.
"""

import contextlib
import io
import json
import logging
import os
import random
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from softcam.camera.url.gst_video import layout_of_caps, layout_of_metas
from softcam.camera.url.http_client import HttpClient
from softcam.camera.url.image_splitter import ImageSplitter
from softcam.camera.url.source import size_of_jpeg
from softcam.controls.preset_store import PresetStore
from softcam.controls.store import Store
from softcam.errors import CameraError
from softcam.imaging import exif, jpeg
from softcam.imaging.frame import Frame
from softcam.mp4 import index
from softcam.recording.journal import Journal
from softcam.rtsp.messages import InvalidMessage, Message, MessageReader
from softcam.rtsp.server.requests import read_request, read_target
from softcam.rtsp.server.transport import choose_transport
from softcam.web.http.messages import HttpError
from softcam.web.http.request_head import read_head
from tests.conftest import HAS_FRESH_CASES
from tests.endurance.mutations import changed, rtsp_requests
from tests.support.mjpeg_server import OTHER, SMALL, WITH_THUMBNAIL, encode_as
from tests.support.request_corpus import request_cases
from tests.support.timeouts import PATIENCE_S
from tests.unit.mp4.test_index import made

CASES = 400


@dataclass(frozen=True)
class Reader:
    """`read` gets the data and a folder. `valid` is what the changes begin with; `allowed` what it may raise."""

    name: str
    read: Callable[[bytes, Path], object]
    valid: tuple[bytes, ...]
    allowed: tuple[type[Exception], ...] = ()


def split_images(data: bytes, _: Path) -> None:
    splitter = ImageSplitter()
    images = [image for at in range(0, len(data), 700) for image in splitter.push_data(data[at : at + 700])]
    assert sum(map(len, images)) <= len(data)
    assert all(image[:2] in (b"\xff\xd8", b"\x89P", b"RI") for image in images)
    for image in images:
        size_of_jpeg(image)


def send_mjpeg(data: bytes, _: Path) -> None:
    """A frame of a USB camera, as it is sent to clients: without markers within it."""
    frame = Frame((np.frombuffer(data, np.uint8),), "MJPEG", 64, 48)
    for size, quality in ((None, 80), ((1, 1), 50)):
        sent = jpeg.encode(frame, size, quality)
        assert sent[:2] == b"\xff\xd8"
        assert sent.find(b"\xff\xd8", 2) == -1
        assert sent.find(b"\xff\xd9") == len(sent) - 2


def read_exif(data: bytes, _: Path) -> None:
    assert 1 <= exif.orientation_of(data) <= 8
    exif.has_exif(data)


def read_caps(data: bytes, _: Path) -> None:
    layout_of_caps(data.decode(errors="replace"))


def read_metas(data: bytes, _: Path) -> None:
    """The planes of a buffer with these metas stay within its memory."""
    layout = layout_of_metas(data, layout_of_caps("video/x-raw, format=(string)I420, width=(int)64, height=(int)48"))
    memory = np.zeros(64 * 48 * 2, np.uint8)
    for number in range(len(layout.strides)):
        assert layout.plane(number, [memory]).sum() == 0


def read_request_head(data: bytes, _: Path) -> None:
    head = read_head(io.BufferedReader(io.BytesIO(data)), lambda: None)
    assert head is None or all("\n" not in value and "\r" not in value for value in head.headers.values())


def read_rtsp(data: bytes, _: Path) -> None:
    received = bytearray(data)
    reader = MessageReader(received)
    while (message := reader.take_message()) is not None:
        if isinstance(message, Message) and message.is_request:
            request = read_request(message)
            read_target(request.url)
            choose_transport(request.fields.get("transport", []))


def read_movie(data: bytes, folder: Path) -> None:
    path = folder / "movie.mp4"
    path.write_bytes(data)
    descriptor = os.open(path, os.O_RDWR)
    try:
        assert index.read_mp4(descriptor).duration_s >= 0
        index.write_index(descriptor)
    finally:
        os.close(descriptor)


def read_state(data: bytes, folder: Path) -> None:
    (folder / "cam0.json").write_bytes(data)
    store = Store(folder, "cam0")
    loaded = store.load()
    store.save(loaded)
    assert store.error is None
    assert Store(folder, "cam0").load() == loaded


def read_presets(data: bytes, folder: Path) -> None:
    (folder / "presets-cam0.json").write_bytes(data)
    store = PresetStore(folder, "presets-cam0")
    loaded = store.load()
    store.save(loaded)
    assert store.error is None
    assert PresetStore(folder, "presets-cam0").load() == loaded


def read_journal(data: bytes, folder: Path) -> None:
    (folder / "journal").write_bytes(data)
    for entry in Journal(folder / "journal").load().values():
        entry.origin(1e9, 1e9, "boot", 5.0)


def read_from_server(data: bytes, _: Path) -> None:
    """The body of a server's response; the server closes the connection after it."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(PATIENCE_S)

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    with connection, contextlib.suppress(ConnectionError):
                        connection.recv(65536)
                        connection.sendall(data)

        server = threading.Thread(target=serve, name="test server", daemon=True)
        server.start()
        client = HttpClient(f"http://127.0.0.1:{listening.getsockname()[1]}/", PATIENCE_S)
        try:
            client.request()
            assert sum(map(len, client.body())) <= len(data)
        finally:
            client.close()
            listening.shutdown(socket.SHUT_RDWR)
            server.join(PATIENCE_S)


RESPONSES = (
    b"HTTP/1.1 200 OK\r\nContent-Type: multipart/x-mixed-replace;boundary=frame\r\n\r\n--frame\r\n\r\n" + b"x" * 99,
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n3;a=b\r\nfgh\r\n0\r\n\r\n",
    b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\nabcde",
    b"ICY 200 OK\r\nserver: x\r\n\r\nabc",
    b'HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Digest realm="a", nonce="b", qop="auth"\r\n\r\n',
)
METAS = (
    np.array([80 + 24, 16], "<u4").tobytes() + b"GstVideoMetaAPI\0" + bytes(84),
    np.array([24, 8], "<u4").tobytes() + b"abcdefg\0" + bytes(8),
)
STATE = {
    "version": 1,
    "asked": {"roi": {"x": 0.1, "y": 0.2, "width": 0.5, "height": 0.5}, "stream": {"fps": 5.0}},
    "held": {"auto_exposure": {"ExposureTime": 9000, "AnalogueGain": 2.0}},
}
PRESETS = {
    "version": 1,
    "presets": [{"name": "Night", "scope": "look", "controls": {"image_processing": {"brightness": 0.5}}}],
    "applied": {"look": "Night"},
}
JOURNAL = {
    "video": {"options": {}, "began_s": 1e9, "elapsed_s": 1.0, "saved_s": 1e9, "is_automatic": False, "name": "a.mp4"}
}
CAPS = (b'video/x-raw, format=(string)NV12, width=(int)64, height=(int)48, colorimetry=(string)"1:4:0:0"', b"NULL\0")
READERS = (
    Reader("images", split_images, (SMALL, OTHER + SMALL, WITH_THUMBNAIL, encode_as("PNG"), encode_as("WEBP"))),
    Reader("MJPEG", send_mjpeg, (SMALL, OTHER, WITH_THUMBNAIL), (CameraError,)),
    Reader("EXIF", read_exif, (exif.with_exif(SMALL, exif.exif_segment(orientation=6)),)),
    Reader("caps", read_caps, CAPS, (CameraError,)),
    Reader("metas", read_metas, METAS, (CameraError, struct.error)),
    Reader("request head", read_request_head, tuple(case.request for case in request_cases()), (HttpError,)),
    Reader("RTSP", read_rtsp, tuple(rtsp_requests("rtsp://127.0.0.1/")), (InvalidMessage,)),
    Reader(
        "MP4",
        read_movie,
        (made([[number / 20 + 0.5 * part for number in range(10)] for part in range(3)]),),
        (index.InvalidMp4,),
    ),
    Reader("controls", read_state, (json.dumps(STATE).encode(),)),
    Reader("presets", read_presets, (json.dumps(PRESETS).encode(),)),
    Reader("journal", read_journal, (json.dumps(JOURNAL).encode(),)),
    Reader("HTTP response", read_from_server, RESPONSES, (CameraError,)),
)


INVALID = (*(case.request for case in request_cases() if case.status != 200), RESPONSES[-1], CAPS[-1])


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_changed_data(reader: Reader, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    seed = random.randrange(1 << 32) if HAS_FRESH_CASES else 1
    generator = random.Random(seed)
    for each in reader.valid:
        if each not in INVALID:
            reader.read(each, tmp_path)
    for number in range(CASES):
        data = changed(generator, generator.choice(reader.valid), reader.valid)
        try:
            reader.read(data, tmp_path)
        except reader.allowed:
            pass
        except Exception as error:
            error.add_note(f"seed {seed}, case {number}: {data[:400]!r}")
            raise
