"""The MJPEG stream: what is published to a client, the notices, and the progress that health checks read."""

import threading
from collections.abc import Iterator

import pytest

from softcam.imaging.exif import orientation_of
from softcam.imaging.frame import NewestFrame
from softcam.imaging.jpeg import size_of
from softcam.net.event_loop import EventLoop
from softcam.streaming.clients import StreamClient
from softcam.streaming.jpeg_encoder import JpegEncoderPool
from softcam.streaming.mjpeg import Activity, MjpegStream
from tests.support.background import eventually, soon
from tests.support.fakes import SIZE, make_frame
from tests.support.stream_clients import VARIANT, StreamReader, connect


class Scene:
    """A stream with its encoders, a clock that only the test moves, and its clients."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.slot = NewestFrame()
        self.recovery_reason: str | None = None
        self.crashes: list[str] = []
        self.readers: list[StreamReader] = []
        self.encoders = JpegEncoderPool(self.slot, SIZE)
        self.loop = EventLoop("event-loop", self.crashes.append)
        self.stream = MjpegStream(
            self.loop,
            self.encoders,
            lambda: 6,
            lambda: self.recovery_reason,
            self.crashes.append,
            clock=lambda: self.now_s,
        )
        self.loop.start()
        self.stream.start()

    def connect(self) -> StreamReader:
        ours, theirs = connect()
        self.stream.fanout.add_client(StreamClient(ours, "192.0.2.1", VARIANT, 0.0, lambda: None))
        eventually(lambda: self.stream.activity().channels)
        self.readers.append(StreamReader(theirs).read_boundary())
        return self.readers[-1]

    def stop(self) -> None:
        self.loop.stop(soon())
        self.stream.stop(soon())
        self.slot.clear()
        for reader in self.readers:
            reader.close()
        assert self.crashes == []


@pytest.fixture
def scene() -> Iterator[Scene]:
    scene = Scene()
    yield scene
    scene.stop()


def test_activity(scene: Scene) -> None:
    assert scene.stream.activity() == Activity()
    reader = scene.connect()
    connected = scene.stream.activity()
    assert [channel.variant for channel in connected.channels] == [VARIANT]
    assert (connected.channels_since_s, connected.encoded_s) == (100.0, 0.0)
    scene.now_s = 107.0
    scene.slot.put_frame(make_frame(size=SIZE))
    scene.slot.notify()
    reader.read_jpeg()
    assert scene.stream.activity().encoded_s == 107.0
    assert connected.encoded_s == 0.0, "a snapshot does not change"
    reader.close()
    eventually(lambda: not scene.stream.activity().channels)
    assert scene.stream.activity().channels_since_s == 107.0


def test_jpeg_has_the_orientation(scene: Scene) -> None:
    reader = scene.connect()
    scene.slot.put_frame(make_frame(size=SIZE))
    scene.slot.notify()
    jpeg = reader.read_jpeg()
    assert (size_of(jpeg), orientation_of(jpeg)) == (SIZE, 6)


def test_notice_while_the_camera_recovers(scene: Scene) -> None:
    scene.recovery_reason = "no frame for 10 s"
    jpeg = scene.connect().read_jpeg()
    assert (size_of(jpeg), orientation_of(jpeg)) == (SIZE, 6)


def test_stop_ends_the_threads(scene: Scene) -> None:
    before = {thread.name for thread in threading.enumerate()}
    scene.stream.stop(soon())
    assert before - {thread.name for thread in threading.enumerate()} == {"encoder-1", "encoder-2"}
