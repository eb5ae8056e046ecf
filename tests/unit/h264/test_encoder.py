"""The shared encoder: runs while there is a sink, skips frames when it falls behind, survives bad sinks and frames."""

import logging
import math
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from itertools import pairwise
from typing import Self

import pytest

from softcam.errors import CameraError, NotSupported
from softcam.h264 import encoder
from softcam.h264.encoder import VideoEncoder
from softcam.h264.packet import Packet, VideoFormat
from softcam.h264.timing import Pacer
from softcam.imaging.frame import Frame, NewestFrame, PixelFormat
from tests.support.background import eventually, soon
from tests.support.fakes import make_frame
from tests.support.h264_backend import InstantBackend
from tests.support.timeouts import PATIENCE_S

NoLeaks = Callable[[], AbstractContextManager[None]]
FPS = 20.0
FRAME_S = 1 / FPS
SIZE = (32, 16)


def pixel_rate(size: tuple[int, int], fps: float) -> int:
    """A bit for each pixel."""
    return round(size[0] * size[1] * fps)


class FakeBackend(InstantBackend):
    """Encodes a frame as its time; can be blocked by the test, or fail."""

    def __init__(self, stage: "Stage", size: tuple[int, int], bitrate: int) -> None:
        super().__init__(size, b"sps%d" % len(stage.backends), bitrate)
        self._stage = stage
        self.is_closed = False
        self.keyframes_requested: list[bool] = []
        self.thread = threading.current_thread()

    def encode(self, frame: Frame, *, is_keyframe: bool) -> tuple[bytes, bool]:
        assert not self.is_closed
        assert threading.current_thread() is self.thread
        assert frame.planes, "frame is not held"
        self._stage.inside.set()
        assert self._stage.gate.wait(PATIENCE_S)
        if self._stage.errors:
            raise self._stage.errors.pop(0)
        is_keyframe = is_keyframe or not self.keyframes_requested
        self.keyframes_requested.append(is_keyframe)
        return b"%.3f" % frame.began_s, is_keyframe

    def close(self) -> None:
        self.is_closed = True


class Sink:
    """Records formats and packets."""

    def __init__(self) -> None:
        self.formats: list[VideoFormat] = []
        self.packets: list[Packet] = []
        self.error: Exception | None = None

    def on_format(self, fmt: VideoFormat) -> None:
        self.formats.append(fmt)

    def on_packet(self, packet: Packet) -> None:
        if self.error is not None:
            raise self.error
        assert self.formats, "packet before its format"
        self.packets.append(packet)

    @property
    def keyframes(self) -> list[bool]:
        return [packet.is_keyframe for packet in self.packets]


class Stage:
    """An encoder that reads a slot into which the test puts frames with chosen times."""

    def __init__(self, stall_limit_s: float = 10.0, max_fps: float = math.inf, thread_name: str = "h264") -> None:
        self.slot = NewestFrame()
        self.backends: list[FakeBackend] = []
        self.errors: list[Exception] = []
        self.gate = threading.Event()
        self.gate.set()
        self.inside = threading.Event()
        self.crashes: list[str] = []
        self.missing: NotSupported | None = None
        self.fps = FPS
        self.max_fps = max_fps
        self.thread_name = thread_name
        self.now_s = 100.0
        self.frames = 0
        self.given_back = 0
        self.encoder = VideoEncoder(
            self.slot,
            lambda: self.fps,
            pixel_rate,
            self.crashes.append,
            require=self._require,
            open_backend=self._open,
            max_fps=max_fps,
            thread_name=thread_name,
            stall_limit_s=stall_limit_s,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.gate.set()
        self.encoder.stop(soon())
        self.slot.clear()
        assert not self.threads()
        assert self.crashes == []
        assert all(backend.is_closed for backend in self.backends)
        assert self.frames == self.given_back

    def put(self, after_s: float = FRAME_S, size: tuple[int, int] = SIZE) -> None:
        self.now_s += after_s
        self.frames += 1
        self.slot.put_frame(make_frame(size=size, began_s=self.now_s, on_release=self._came_back))
        self.encoder.on_frame()

    def show(self, sink: Sink, count: int = 1, after_s: float = FRAME_S, size: tuple[int, int] = SIZE) -> None:
        """Put `count` frames, each after the sink has received the one before."""
        for _ in range(count):
            before = len(sink.packets)
            self.put(after_s, size)
            eventually(lambda: len(sink.packets) > before, "a packet")  # noqa: B023 - waited for here

    def threads(self) -> list[str]:
        return [thread.name for thread in threading.enumerate() if thread.name == self.thread_name]

    def _came_back(self) -> None:
        self.given_back += 1

    def _require(self) -> None:
        if self.missing is not None:
            raise self.missing

    def _open(
        self, size: tuple[int, int], pixel_format: PixelFormat, fps: float, bitrate: int, _wake: Callable[[], None]
    ) -> FakeBackend:
        assert (pixel_format, fps) == ("YUV420", min(self.fps, self.max_fps))
        backend = FakeBackend(self, size, bitrate)
        self.backends.append(backend)
        return backend


@pytest.fixture
def stage(no_leaks: NoLeaks) -> Iterator[Stage]:
    with no_leaks(), Stage() as stage:
        yield stage


def test_runs_while_there_is_a_sink(stage: Stage) -> None:
    stage.put()
    assert stage.threads() == []
    for number in range(1, 4):
        one, other = Sink(), Sink()
        stage.encoder.subscribe(one)
        assert stage.threads() == ["h264"]
        stage.show(one, 2)
        stage.encoder.subscribe(other)
        stage.show(other, 2)
        stage.encoder.unsubscribe(one)
        stage.show(other)
        stage.encoder.unsubscribe(other)
        stage.encoder.unsubscribe(other)
        eventually(lambda: not stage.threads(), "the thread's end")
        assert len(stage.backends) == number
        eventually(lambda: stage.backends[-1].is_closed)
        assert stage.encoder.status().fmt is None
        assert stage.encoder.status().backend is None


def test_frame_in_the_slot_is_encoded_first(stage: Stage) -> None:
    stage.put()
    sink = Sink()
    stage.encoder.subscribe(sink)
    eventually(lambda: sink.packets)
    assert sink.packets[0].data == b"%.3f" % stage.now_s


def test_later_sink_starts_with_format_and_keyframe(stage: Stage) -> None:
    first, later = Sink(), Sink()
    stage.encoder.subscribe(first)
    stage.show(first, 7)
    stage.encoder.subscribe(later)
    stage.show(first, 3)
    assert first.keyframes == [True] + [False] * 6 + [True] + [False] * 2
    assert later.keyframes == [True, False, False]
    assert first.formats == later.formats == [VideoFormat(*SIZE, FPS, b"sps0", b"pps")]
    assert first.packets[7:] == later.packets
    for packet, frame_s in zip(first.packets, (100 + n * FRAME_S for n in range(1, 11)), strict=True):
        assert packet.began_s == pytest.approx(frame_s)


def test_keyframe_interval_is_time(stage: Stage) -> None:
    sink = Sink()
    stage.encoder.subscribe(sink)
    stage.show(sink, 3, after_s=0.1)
    stage.show(sink, 61, after_s=0.1)
    at = [packet.began_s for packet in sink.packets if packet.is_keyframe]
    assert len(at) == 4
    assert all(later - earlier == pytest.approx(2.0, abs=0.11) for earlier, later in pairwise(at))


def test_requested_keyframes_keep_a_distance_and_are_not_lost(stage: Stage) -> None:
    sink = Sink()
    stage.encoder.subscribe(sink)
    for _ in range(20):
        stage.encoder.request_keyframe()
        stage.show(sink)
    at = [packet.began_s for packet in sink.packets if packet.is_keyframe]
    assert len(at) == 4  # in one second
    assert all(later - earlier >= 0.25 - 1e-6 for earlier, later in pairwise(at))
    stage.show(sink)
    stage.encoder.request_keyframe()
    stage.show(sink, 6)
    assert sum(sink.keyframes[-6:]) == 1


def test_keyframe_after_gap(stage: Stage) -> None:
    sink = Sink()
    stage.encoder.subscribe(sink)
    stage.show(sink, 3)
    for lost, is_keyframe in ((1, False), (2, False), (4, True)):
        stage.show(sink, after_s=FRAME_S * (1 + lost))
        assert sink.packets[-1].is_keyframe is is_keyframe
        stage.show(sink, 2)
    stage.show(sink, 2, after_s=0.4)
    assert sink.keyframes[-2:] == [True, False]  # a lower rate: a gap only for the first frame


def test_slow_encoder_takes_the_newest_frame(stage: Stage) -> None:
    sink = Sink()
    stage.encoder.subscribe(sink)
    stage.show(sink)
    stage.gate.clear()
    stage.inside.clear()
    stage.put()
    assert stage.inside.wait(PATIENCE_S)
    for _ in range(5):
        stage.put()
    stage.gate.set()
    eventually(lambda: len(sink.packets) == 3)
    assert sink.packets[-1].began_s == stage.now_s
    status = stage.encoder.status()
    assert (status.encoded, status.skipped, status.backend) == (3, 4, "libx264")


def test_other_size_or_rate_opens_another_backend(stage: Stage) -> None:
    sink, other = Sink(), Sink()
    stage.encoder.subscribe(sink)
    stage.encoder.subscribe(other)
    stage.show(sink, 2)
    stage.show(sink, 2, size=(64, 48))
    stage.fps = 10.0
    stage.show(sink, 2, size=(64, 48))
    assert [(fmt.width, fmt.height, fmt.fps, fmt.sps) for fmt in sink.formats] == [
        (32, 16, 20.0, b"sps0"),
        (64, 48, 20.0, b"sps1"),
        (64, 48, 10.0, b"sps2"),
    ]
    assert sink.keyframes == [True, False] * 3
    eventually(lambda: other.packets == sink.packets)
    assert other.formats == sink.formats
    assert [backend.is_closed for backend in stage.backends] == [True, True, False]


def test_times_increase_even_if_the_camera_repeats_them(stage: Stage) -> None:
    sink = Sink()
    stage.encoder.subscribe(sink)
    stage.show(sink, 2)
    for after_s in (0.0, -1.0):
        stage.put(after_s)
    stage.show(sink, after_s=2.0)
    assert all(earlier.began_s < later.began_s for earlier, later in pairwise(sink.packets))
    assert len(sink.packets) == 3


def test_raising_sink_is_unsubscribed(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    bad, good = Sink(), Sink()
    stage.encoder.subscribe(bad)
    stage.encoder.subscribe(good)
    stage.show(good)
    bad.error = RuntimeError("no room")
    stage.show(good, 3)
    assert len(bad.packets) == 1
    assert stage.encoder.status().sinks == 1
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == [
        "Packet sink Sink unsubscribed: it raised an exception"
    ]
    stage.encoder.unsubscribe(bad)


def test_bad_frame_is_skipped(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    sink = Sink()
    stage.encoder.subscribe(sink)
    stage.show(sink)
    stage.errors.append(CameraError("a damaged picture"))
    stage.put()
    eventually(lambda: stage.encoder.status().last_error == "a damaged picture")
    stage.show(sink, 2)
    assert len(stage.backends) == 1
    assert stage.encoder.status().last_error is None
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == [
        "Failed to encode frame as H.264: a damaged picture"
    ]


def test_failing_backend_is_reopened(stage: Stage) -> None:
    sink = Sink()
    stage.encoder.subscribe(sink)
    stage.show(sink)
    for number in range(3):
        stage.errors.append(ValueError(f"broken {number}"))
        stage.put()
        eventually(lambda: stage.encoder.status().last_error == f"broken {number}")  # noqa: B023 - waited for here
    stage.show(sink)
    assert len(stage.backends) == 2
    assert len(sink.formats) == 2
    assert sink.keyframes == [True, True]


def test_subscribing_without_pyav_is_not_supported(stage: Stage) -> None:
    stage.missing = NotSupported("no PyAV here")
    with pytest.raises(NotSupported, match="no PyAV"):
        stage.encoder.subscribe(Sink())
    with pytest.raises(NotSupported, match="no PyAV"):
        stage.encoder.require()
    assert stage.threads() == []


def test_subscribing_without_thread_is_an_error(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    sink = Sink()
    with monkeypatch.context() as patch:
        patch.setattr(encoder, "spawn", fail)
        with pytest.raises(CameraError, match="can't start new thread"):
            stage.encoder.subscribe(sink)
    assert stage.encoder.status().sinks == 0
    stage.encoder.subscribe(sink)
    stage.show(sink)
    assert sink.keyframes == [True]


def test_each_encoder_names_its_thread() -> None:
    with Stage() as stage, Stage(thread_name="h264-sub") as smaller:
        smaller.encoder.subscribe(Sink())
        assert (stage.threads(), smaller.threads()) == ([], ["h264-sub"])
        stage.encoder.subscribe(Sink())
        assert (stage.threads(), smaller.threads()) == (["h264"], ["h264-sub"])


def test_stop_is_final(stage: Stage) -> None:
    sink = Sink()
    stage.encoder.subscribe(sink)
    stage.show(sink)
    stage.encoder.stop(soon())
    assert stage.threads() == []
    stage.encoder.subscribe(sink)
    stage.put()
    assert stage.threads() == []


def test_status(stage: Stage) -> None:
    assert stage.encoder.status().bitrate is None
    sink = Sink()
    stage.encoder.subscribe(sink)
    stage.show(sink, 4)
    eventually(lambda: stage.encoder.status().encoded == 4)
    status = stage.encoder.status()
    assert status.fmt == sink.formats[0]
    assert (status.sinks, status.keyframes, status.skipped, status.last_error) == (1, 1, 0, None)
    assert status.bitrate == pytest.approx(sum(len(packet.data) for packet in sink.packets) * 8 / 2)


def test_bitrate_follows_size_and_frame_rate(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    sink = Sink()
    stage.encoder.subscribe(sink)
    assert stage.encoder.status().target_bitrate is None
    for size, fps in ((SIZE, FPS), ((64, 32), FPS), ((64, 32), 10.0)):
        stage.fps = fps
        stage.show(sink, 1, size=size)
        eventually(lambda: sink.formats[-1].fps == fps)  # noqa: B023
        assert stage.backends[-1].bitrate == stage.encoder.status().target_bitrate == pixel_rate(size, fps)
    assert len(stage.backends) == 3
    assert "Encoding H.264: 64x32, 40960 bit/s" in caplog.text


def test_frame_rate_limit(no_leaks: NoLeaks) -> None:
    with no_leaks(), Stage(max_fps=5.0) as stage:
        sink, pacer, selected = Sink(), Pacer(5.0), 0
        stage.encoder.subscribe(sink)
        for _ in range(16):
            stage.put()
            if stage.now_s > pacer.not_before_s:
                pacer.select(stage.now_s)
                selected += 1
                eventually(lambda: len(sink.packets) == selected, "the packet that is due")  # noqa: B023
        assert selected == 4
        assert stage.encoder.status().skipped == 0, "the limit left them out, not a slow encoder"


def test_health_error_of_stalled_encoder(no_leaks: NoLeaks) -> None:
    with no_leaks(), Stage(stall_limit_s=0.0) as stage:
        assert stage.encoder.health_error() is None
        sink = Sink()
        stage.encoder.subscribe(sink)
        stage.gate.clear()
        stage.put()
        assert stage.inside.wait(PATIENCE_S)
        for _ in range(3):
            stage.put()
        eventually(lambda: stage.encoder.health_error() is not None)
        assert "the H.264 encoder has accepted none" in (stage.encoder.health_error() or "")
        stage.gate.set()
        eventually(lambda: stage.encoder.health_error() is None)


def test_50_rounds_of_subscribing_leak_nothing(stage: Stage) -> None:
    for _ in range(50):
        sink = Sink()
        stage.encoder.subscribe(sink)
        stage.put()
        eventually(lambda: sink.packets)  # noqa: B023 - waited for here
        stage.encoder.unsubscribe(sink)
    eventually(lambda: not stage.threads())
