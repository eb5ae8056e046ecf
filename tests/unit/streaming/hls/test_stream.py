"""`HlsStream`: opens the camera for the first request, and releases it when requests cease."""

import logging
import re
import threading
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from softcam.errors import CameraBusy, CameraError, NoPicture
from softcam.h264.packet import Packet, VideoFormat
from softcam.net.event_loop import EventLoop, Timer
from softcam.runtime.deadline import Clock, Deadline
from softcam.streaming.hls.stream import HlsStream
from tests.support.background import Background, eventually, soon
from tests.support.fmp4_clients import FakeVideo


class ManualLoop(EventLoop):
    """Makes calls at once, and those that are due later when the test says so."""

    def __init__(self, clock: Clock) -> None:
        super().__init__("manual", list[str]().append, clock=clock)
        self.due: list[tuple[float, Callable[[], None]]] = []

    def call(self, function: Callable[[], None]) -> bool:
        function()
        return True

    def call_later(self, delay_s: float, function: Callable[[], None]) -> Timer:
        self.due.append((self.clock() + delay_s, function))
        return Timer(function)

    def run_due(self) -> None:
        while due := [each for each in self.due if each[0] <= self.clock()]:
            self.due.remove(due[0])
            due[0][1]()


class Stage:
    """A stream, whose camera and encoder record their use; the test provides packets and time."""

    def __init__(self) -> None:
        self.video = FakeVideo()
        self.now_s = 1000.0
        self.reserved = 0
        self.released = 0
        self.error: CameraError | None = None
        self.gate = threading.Event()
        self.gate.set()
        self.loop = ManualLoop(lambda: self.now_s)
        self.stream = HlsStream(self.video, self.reserve, self.loop, idle_s=10.0)

    def reserve(self) -> Callable[[], None]:
        self.gate.wait()
        if self.error is not None:
            raise self.error
        self.reserved += 1
        return self.release

    def release(self) -> None:
        self.released += 1

    def request(self, viewer: int | None = 1) -> str:
        """A viewer's playlist; None is a new viewer."""
        name = None if viewer is None else f"abc-{viewer}-0.m3u8"
        return self.stream.playlist(name, "192.0.2.1", soon())

    def start(self) -> str:
        """The playlist of a stream that this starts."""
        answer = Background(self.request)
        self.wait_for_sink()
        self.send_segment()
        answer.result()
        return self.request()

    def wait_for_sink(self) -> None:
        eventually(lambda: self.video.sinks, "a subscription")

    def send_segment(self) -> None:
        """Three keyframes a second apart: two segments, and the beginning of another."""
        for sink in list(self.video.sinks):
            sink.on_format(VideoFormat(64, 48, 1.0, b"\x67\x42\xc0\x1e", b"\x68"))
            for second in range(3):
                sink.on_packet(Packet(b"%d" % second, True, 1e9 + second, 1e9 + second))

    def tick(self, after_s: float = 1.0) -> None:
        self.now_s += after_s
        self.loop.run_due()

    def is_closed(self) -> bool:
        return self.reserved == self.released and not self.video.sinks and not self.loop.due


@pytest.fixture
def stage() -> Iterator[Stage]:
    stage = Stage()
    yield stage
    stage.loop.stop(soon())
    stage.tick(20.0)
    assert stage.is_closed()


def names_of(text: str) -> list[str]:
    """The addresses in a playlist."""
    return [line for line in text.splitlines() if not line.startswith("#")]


def test_nothing_is_open_before_the_first_request(stage: Stage) -> None:
    assert stage.stream.segment("x.m4s") is None
    assert stage.stream.viewer_count == 0
    assert (stage.reserved, stage.video.subscriptions) == (0, 0)


def test_first_response_waits_for_video(stage: Stage) -> None:
    """Players start with more than a second of it: Chromium gives up where the first playlist has one segment."""
    answer = Background(stage.request)
    stage.wait_for_sink()
    assert not answer.is_over
    stage.send_segment()
    assert len(names_of(answer.result())) == 2


def test_addresses_lead_to_the_segments(stage: Stage) -> None:
    stage.start()
    (playlist,) = names_of(stage.stream.playlist(None, "192.0.2.1", soon(), prefix="hls/", suffix="?key=a"))
    assert re.fullmatch(r"hls/[0-9a-f]{8}-\d+-\d+\.m3u8\?key=a", playlist)
    name = playlist.removeprefix("hls/").removesuffix("?key=a")
    text = stage.stream.playlist(name, "192.0.2.1", soon(), prefix="../", suffix="?key=a")
    assert names_of(text)
    for name in names_of(text):
        assert name.startswith("../")
        assert name.endswith(".m4s?key=a")
        content = stage.stream.segment(name.removeprefix("../").removesuffix("?key=a"))
        assert content is not None
        assert content[4:8] == b"moof"


def test_one_session_for_all_viewers(stage: Stage) -> None:
    stage.gate.clear()
    answers = [Background(partial(stage.request, number)) for number in range(5)]
    stage.gate.set()
    stage.wait_for_sink()
    stage.send_segment()
    assert len({names_of(answer.result())[0] for answer in answers}) == 1
    assert (stage.reserved, stage.video.subscriptions, len(stage.loop.due)) == (1, 1, 1)
    assert stage.stream.viewer_count == 5


def test_idle_stream_ends(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    name = names_of(stage.start())[0]
    for _ in range(9):
        stage.tick()
    assert (stage.released, stage.stream.viewer_count) == (0, 1)
    assert stage.stream.segment(name) is not None  # counts as a request
    for _ in range(9):
        stage.tick()
    assert stage.released == 0
    stage.tick()
    assert stage.is_closed()
    assert stage.stream.segment(name) is None
    assert [record.message for record in caplog.records] == [
        "HLS started for client 192.0.2.1",
        "HLS stopped: no request for 10 s",
    ]


def test_requests_for_what_is_gone_do_not_keep_it_open(stage: Stage) -> None:
    stage.start()
    for _ in range(10):
        assert stage.stream.segment("old.m4s") is None
        stage.tick()
    assert stage.is_closed()


def test_waiting_request_keeps_it_open(stage: Stage) -> None:
    answer = Background(stage.request)
    stage.wait_for_sink()
    eventually(lambda: stage.loop.due)
    for _ in range(30):
        stage.tick()
    assert stage.released == 0
    stage.send_segment()
    answer.result()
    stage.tick(9.0)
    assert stage.released == 0


def test_next_session_continues_the_numbers(stage: Stage) -> None:
    first = names_of(stage.start())
    old = stage.video.sinks[0]
    stage.tick(20.0)
    assert stage.is_closed()
    text = stage.start()
    assert "#EXT-X-DISCONTINUITY\n" in text
    numbers = [int(name.split("-")[1]) for name in (*first, *names_of(text))]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    for second in range(5):  # a call of the encoder that was in progress
        old.on_packet(Packet(b"old", True, 2e9 + second, 2e9 + second))
    assert stage.request() == text


def test_viewers_are_forgotten(stage: Stage) -> None:
    stage.start()
    for number in range(3):
        stage.request(number + 1)
    stage.request(None)  # counted when it requests its playlist
    assert stage.stream.viewer_count == 3
    stage.now_s += 9.0
    stage.request(7)
    stage.now_s += 2.0
    assert stage.stream.viewer_count == 1


def test_number_of_counted_viewers_is_limited(stage: Stage) -> None:
    stage.start()
    for number in range(1500):
        stage.request(number)
    assert stage.stream.viewer_count == 1000


def test_camera_that_cannot_be_opened(stage: Stage) -> None:
    stage.error = CameraBusy("another program has the camera")
    with pytest.raises(CameraBusy):
        stage.request()
    stage.error = None
    assert names_of(stage.start())


def test_waiting_viewers_try_in_turn(stage: Stage) -> None:
    """Each gets the error of the own attempt."""
    stage.gate.clear()
    stage.error = CameraBusy("another program has the camera")
    answers = [Background(stage.request) for _ in range(3)]
    stage.gate.set()
    for answer in answers:
        with pytest.raises(CameraBusy):
            answer.result()


def test_encoder_that_cannot_be_started(stage: Stage) -> None:
    stage.video.error = CameraError("too many threads")
    with pytest.raises(CameraError, match="too many threads"):
        stage.request()
    assert (stage.reserved, stage.released, stage.loop.due) == (1, 1, [])
    stage.video.error = None
    assert names_of(stage.start())


def test_deadline(stage: Stage) -> None:
    with pytest.raises(NoPicture, match="no video from the camera in time"):
        stage.stream.playlist(None, "192.0.2.1", Deadline(0.0))
    with pytest.raises(NoPicture):
        stage.stream.playlist(None, "192.0.2.1", Deadline(0.0))
    assert stage.reserved == 1  # still open for the next attempt
    stage.tick(10.0)
    assert stage.is_closed()


def test_stop_wakes_waiting_requests(stage: Stage) -> None:
    answer = Background(stage.request)
    stage.wait_for_sink()
    eventually(lambda: stage.loop.due)
    stage.loop.stop(soon())
    with pytest.raises(NoPicture, match="the portal is stopping"):
        answer.result()
    assert stage.released == 1
    with pytest.raises(NoPicture, match="the portal is stopping"):
        stage.request()


def test_stop_while_the_camera_is_opening(stage: Stage) -> None:
    stage.gate.clear()
    answer = Background(stage.request)
    stage.loop.stop(soon())
    stage.gate.set()
    with pytest.raises(NoPicture, match="the portal is stopping"):
        answer.result()
    assert stage.reserved == stage.released
