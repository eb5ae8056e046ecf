"""The hardware encoder, with a fake of Picamera2's class: timestamps, keyframes, fallback, released memory."""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from itertools import pairwise
from typing import Any, Self

import pytest

from softcam.camera.picamera.h264_encoder import EncoderFactory, EncoderTimeouts
from softcam.camera.picamera.request import OutstandingFrames, RequestHandle
from softcam.errors import NotSupported
from softcam.h264.backend import Backend
from softcam.h264.encoder import VideoEncoder
from softcam.h264.sps import with_colours
from softcam.imaging.frame import Frame, NewestFrame, PixelFormat
from tests.support.background import eventually, soon
from tests.support.fake_h264_encoder import (
    PPS,
    SPS,
    START,
    FakeH264Encoder,
    FakeLibcameraRequest,
    FakeOutput,
    FakeRequest,
    OlderH264Encoder,
)
from tests.support.fakes import make_frame
from tests.support.h264_backend import InstantBackend
from tests.support.timeouts import PATIENCE_S
from tests.unit.h264.test_encoder import FRAME_S, SIZE, Sink

NoLeaks = Callable[[], AbstractContextManager[None]]
FPS = 20.0
BITRATE = 1_000_000


class FakeX264(InstantBackend):
    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__(size, b"x264", BITRATE)
        self._count = 0

    def encode(self, frame: Frame, *, is_keyframe: bool) -> tuple[bytes, bool]:
        self._count += 1
        return b"%.3f" % frame.began_s, is_keyframe or self._count == 1


class Scene:
    """The encoder behind a newest-frame slot, into which the test puts frames as a Picamera2 camera does."""

    def __init__(self, timeouts: EncoderTimeouts) -> None:
        self.encoders: list[FakeH264Encoder] = []
        self.start_error: Exception | None = None
        self.encode_error: Exception | None = None
        self.is_silent = False
        self.loses: dict[str, bool] = {}
        self.gate = threading.Event()
        self.gate.set()
        self.kind: type[FakeH264Encoder] = type("H264Encoder", (FakeH264Encoder,), {"scene": self})
        self.has_hardware = True
        self.has_pyav = True
        self.slot = NewestFrame()
        self.outstanding = OutstandingFrames()
        self.now_s = 100.0
        self.size = SIZE
        self.has_origin = True
        self.deaths: list[str] = []
        backends = EncoderFactory(
            self._find, fallback=self._open_fallback, require_fallback=self._require, timeouts=timeouts
        )
        self.bitrate = BITRATE
        self.video = VideoEncoder(
            self.slot,
            lambda: FPS,
            lambda _size, _fps: self.bitrate,
            self.deaths.append,
            require=backends.require,
            open_backend=backends.open,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.gate.set()
        self.video.stop(soon())
        self.stop_camera()
        assert self.threads() == 0
        assert self.deaths == []
        assert all(encoder.is_stopped or encoder.vd.is_closed for encoder in self.encoders)

    def stop_camera(self) -> None:
        """Do what a camera does before it stops: all frames are released, and no memory is kept."""
        self.slot.clear()
        assert self.outstanding.wait(PATIENCE_S) == 0

    def put(self, after_s: float = FRAME_S) -> None:
        self.now_s += after_s
        metadata = {"SensorTimestamp": round(self.now_s * 1e9)}
        inner = FakeLibcameraRequest({"the stream": "the buffer"})
        request = FakeRequest(metadata, {"main": {"format": "YUV420", "stride": 64}}, {"main": "the stream"}, inner)
        frame = make_frame(metadata, size=self.size, began_s=self.now_s, on_release=self.outstanding.acquire())
        frame.origin = RequestHandle(request, self.outstanding.acquire) if self.has_origin else None
        self.slot.put_frame(frame)
        self.video.on_frame()

    def show(self, sink: Sink, count: int = 1) -> None:
        for _ in range(count):
            before = len(sink.packets)
            self.put()
            eventually(lambda: len(sink.packets) > before, "a packet")  # noqa: B023 - waited for here

    def threads(self) -> int:
        return len([thread for thread in threading.enumerate() if thread.name == "h264"])

    def _find(self) -> tuple[Any, Any] | None:
        return (self.kind, FakeOutput) if self.has_hardware else None

    def _open_fallback(
        self, size: tuple[int, int], pixel_format: PixelFormat, fps: float, bitrate: int, _wake: Callable[[], None]
    ) -> Backend:
        assert (pixel_format, fps, bitrate) == ("YUV420", FPS, BITRATE)
        return FakeX264(size)

    def _require(self) -> None:
        if not self.has_pyav:
            raise NotSupported("no PyAV here")


@pytest.fixture
def scene(no_leaks: NoLeaks, request: pytest.FixtureRequest) -> Iterator[Scene]:
    """A parameter of the test, where there is one, sets the timeouts."""
    with no_leaks(), Scene(getattr(request, "param", EncoderTimeouts())) as scene:
        yield scene


@pytest.fixture
def sink(scene: Scene) -> Sink:
    sink = Sink()
    scene.video.subscribe(sink)
    return sink


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname in ("WARNING", "ERROR")]


def test_bitrate_is_limited_to_that_of_the_driver(scene: Scene, sink: Sink) -> None:
    scene.bitrate = 60_000_000
    scene.show(sink)
    assert scene.encoders[0].bitrate == scene.video.status().target_bitrate == 25_000_000


def test_settings_and_packets(scene: Scene, sink: Sink) -> None:
    scene.show(sink, 4)
    (encoder,) = scene.encoders
    assert (encoder.width, encoder.height, encoder.stride, encoder.format) == (*SIZE, 64, "YUV420")
    assert (encoder.bitrate, encoder.framerate, encoder.iperiod) == (BITRATE, 20, 40)
    assert (encoder.repeat, encoder.profile) == (True, "baseline")
    (fmt,) = sink.formats
    assert (fmt.width, fmt.height, fmt.fps, fmt.sps, fmt.pps) == (*SIZE, FPS, with_colours(SPS), PPS)
    assert sink.keyframes == [True, False, False, False]
    assert [packet.began_s for packet in sink.packets] == [pytest.approx(100 + n * FRAME_S) for n in range(1, 5)]
    assert [packet.data for packet in sink.packets] == [
        (len(unit)).to_bytes(4, "big") + unit for unit in (b"\x650", b"\x4150000", b"\x41100000", b"\x41150000")
    ]


def test_runs_only_with_subscribers(scene: Scene) -> None:
    for number in range(1, 4):
        sink = Sink()
        scene.video.subscribe(sink)
        scene.show(sink, 2)
        assert sink.keyframes == [True, False]
        scene.video.unsubscribe(sink)
        eventually(lambda: scene.threads() == 0)
        assert len(scene.encoders) == number
        eventually(lambda: scene.encoders[-1].is_stopped)


def test_keyframe_for_new_subscriber(scene: Scene, sink: Sink) -> None:
    scene.show(sink, 3)
    later = Sink()
    scene.video.subscribe(later)
    scene.show(sink, 2)
    assert sink.keyframes == [True, False, False, True, False]
    eventually(lambda: later.packets == sink.packets[3:])


def test_keyframe_interval_with_frame_in_flight(scene: Scene, sink: Sink) -> None:
    scene.show(sink)
    scene.gate.clear()
    scene.put(after_s=2.0)
    eventually(lambda: scene.encoders[0]._count == 2)
    scene.put()
    eventually(lambda: scene.encoders[0]._count == 3)
    scene.gate.set()
    eventually(lambda: len(sink.packets) == 3)
    assert sink.keyframes == [True, True, False]


def test_forced_keyframe_in_older_release(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, int, bytes]] = []

    def ioctl(device: Any, request: int, argument: bytes) -> bytes:
        asked.append((device, request, argument))
        return argument

    monkeypatch.setattr("softcam.camera.picamera.h264_encoder.fcntl.ioctl", ioctl)
    scene.kind = type("H264Encoder", (OlderH264Encoder,), {"scene": scene})
    sink, later = Sink(), Sink()
    scene.video.subscribe(sink)
    scene.show(sink)
    scene.video.subscribe(later)
    scene.show(sink)
    assert asked == [(scene.encoders[0].vd, 0xC008561C, bytes.fromhex("e509990001000000"))]


def test_frames_in_flight_and_skipped(scene: Scene, sink: Sink) -> None:
    scene.show(sink)
    scene.gate.clear()
    for number in range(2, 4):
        scene.put()
        eventually(lambda: scene.encoders[0]._count == number)  # noqa: B023 - waited for here
    for _ in range(5):
        scene.put()
    scene.gate.set()
    eventually(lambda: len(sink.packets) == 4)
    assert sink.packets[-1].began_s == pytest.approx(scene.now_s)
    status = scene.video.status()
    assert (status.encoded, status.skipped, status.last_error, status.backend) == (4, 4, None, "hardware")


@pytest.mark.parametrize("scene", [EncoderTimeouts(patience_s=0.0)], indirect=True)
def test_encoder_that_delays_output(scene: Scene, sink: Sink) -> None:
    scene.gate.clear()

    def has_three() -> bool:
        scene.put()
        return bool(scene.encoders) and scene.encoders[0]._count == 3

    eventually(has_three)
    scene.put()
    scene.gate.set()
    eventually(lambda: len(sink.packets) == 4)
    assert len(scene.encoders) == 1


def test_frame_without_packet(scene: Scene, sink: Sink) -> None:
    scene.show(sink)
    scene.loses["packet"] = True
    scene.put()
    eventually(lambda: not scene.loses)
    scene.show(sink, 3)
    moments = [round((packet.began_s - 100) / FRAME_S) for packet in sink.packets]
    assert moments == [1, 3, 4, 5]
    assert len(scene.encoders) == 1


def test_releases_memory_before_camera_stops(scene: Scene, sink: Sink) -> None:
    for _ in range(3):
        scene.show(sink, 2)
        scene.stop_camera()
        assert scene.encoders[-1].is_stopped
    scene.show(sink, 2)
    assert len(scene.encoders) == 4
    assert sink.keyframes == [True, False] * 4
    assert len(sink.formats) == 1  # the format is the same
    assert all(earlier.began_s < later.began_s for earlier, later in pairwise(sink.packets))


def test_size_changes(scene: Scene, sink: Sink) -> None:
    scene.show(sink, 2)
    scene.stop_camera()
    scene.size = (64, 48)
    scene.show(sink, 2)
    assert [(fmt.width, fmt.height) for fmt in sink.formats] == [SIZE, (64, 48)]
    assert sink.keyframes == [True, False, True, False]


@pytest.mark.parametrize(
    ("size", "reason"),
    [
        pytest.param((2304, 1296), "the hardware encoder does not support 2304x1296", id="wide"),
        pytest.param((1920, 1440), "the hardware encoder does not support 1920x1440", id="high"),
        pytest.param((33, 17), "the hardware encoder does not support odd sizes such as 33x17", id="odd"),
    ],
)
def test_fallback_for_unsupported_size(
    scene: Scene, sink: Sink, caplog: pytest.LogCaptureFixture, size: tuple[int, int], reason: str
) -> None:
    scene.size = size
    scene.show(sink, 2)
    scene.video.unsubscribe(sink)
    eventually(lambda: scene.threads() == 0)
    scene.video.subscribe(sink)
    scene.show(sink, 2)
    assert scene.encoders == []
    assert sink.formats[0].sps == b"x264"
    assert warnings(caplog) == [f"Falling back to libx264: {reason}"]


def _does_not_start(scene: Scene) -> str:
    scene.start_error = OSError(12, "Cannot allocate memory")
    return "[Errno 12] Cannot allocate memory"


def _breaks(scene: Scene) -> str:
    scene.encode_error = OSError(22, "Invalid argument")
    return "[Errno 22] Invalid argument"


def _has_foreign_frames(scene: Scene) -> str:
    scene.has_origin = False
    return "a frame is not in the camera's memory"


@pytest.mark.parametrize("break_it", [_does_not_start, _breaks, _has_foreign_frames])
@pytest.mark.parametrize("after", [0, 3])
def test_fallback_after_failure(
    scene: Scene, sink: Sink, caplog: pytest.LogCaptureFixture, break_it: Callable[[Scene], str], after: int
) -> None:
    if after:
        scene.show(sink, after)
        if break_it is _does_not_start:
            scene.stop_camera()
    reason = break_it(scene)
    scene.put()
    eventually(lambda: warnings(caplog))
    scene.show(sink, 3)
    assert sink.formats[-1].sps == b"x264"
    assert sink.keyframes[-3:] == [True, False, False]
    assert warnings(caplog) == [f"Falling back to libx264: {reason}"]
    assert len(scene.encoders) <= 1 + bool(after)
    status = scene.video.status()
    assert (status.backend, status.last_error) == ("libx264", None)


@pytest.mark.parametrize("scene", [EncoderTimeouts(silence_s=0.05)], indirect=True)
def test_fallback_after_silence(scene: Scene, sink: Sink, caplog: pytest.LogCaptureFixture) -> None:
    scene.show(sink)
    scene.gate.clear()
    scene.is_silent = True

    scene.put()  # and no other, as if all of the camera's buffers were in use
    eventually(lambda: warnings(caplog), "the silence")
    scene.show(sink, 2)
    assert sink.formats[-1].sps == b"x264"
    assert warnings(caplog) == ["Falling back to libx264: no packet from the hardware encoder for 0.05 s"]
    scene.stop_camera()  # releases what the encoder never released


@pytest.mark.parametrize("scene", [EncoderTimeouts(silence_s=0.0)], indirect=True)
def test_no_fallback_after_pause(scene: Scene, sink: Sink) -> None:
    """The process was stopped for a while."""
    scene.show(sink)
    scene.gate.clear()
    for _ in range(5):
        scene.put()
    scene.gate.set()
    eventually(lambda: sink.packets[-1].began_s == scene.now_s)
    assert len(scene.encoders) == len(sink.formats) == 1


@pytest.mark.parametrize("scene", [EncoderTimeouts(retry_s=0.0)], indirect=True)
def test_retry_after_failure(scene: Scene, sink: Sink) -> None:
    _does_not_start(scene)
    scene.put()
    eventually(lambda: scene.encoders)
    scene.start_error = None
    scene.show(sink, 2)
    assert sink.formats[-1].sps == with_colours(SPS)


@pytest.mark.parametrize(
    ("has_hardware", "has_pyav", "can"), [(True, False, True), (False, True, True), (False, False, False)]
)
def test_require(scene: Scene, *, has_hardware: bool, has_pyav: bool, can: bool) -> None:
    scene.has_hardware, scene.has_pyav = has_hardware, has_pyav
    if can:
        scene.video.require()
        return
    with pytest.raises(NotSupported, match="no PyAV"):
        scene.video.require()


def test_packet_without_frame(scene: Scene, sink: Sink) -> None:
    scene.show(sink)
    (encoder,) = scene.encoders
    for packet, time_us in ((START + b"\x41x", 10**9), (START + b"\x67x", 0), (b"", None)):
        encoder.output.outputframe(packet, False, time_us)
    scene.show(sink)
    assert len(sink.packets) == 2


def test_exception_in_output(scene: Scene, sink: Sink, caplog: Any) -> None:
    scene.show(sink)
    (encoder,) = scene.encoders
    encoder.output.outputframe(None, False, 0)
    scene.show(sink)
    assert warnings(caplog) == ["Failed to process a packet of the hardware encoder"]


def test_no_leak_after_fifty_cycles(scene: Scene) -> None:
    for _ in range(50):
        sink = Sink()
        scene.video.subscribe(sink)
        scene.show(sink)
        scene.video.unsubscribe(sink)
    eventually(lambda: scene.threads() == 0)
