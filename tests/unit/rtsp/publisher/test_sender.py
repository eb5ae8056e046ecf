"""What one session sends, and when: reports between the packets, requests for keyframes."""

import math
import struct
from collections.abc import Iterator

import pytest

from softcam.h264.packet import Packet, VideoFormat
from softcam.h264.packet_queue import PacketQueue
from softcam.rtsp.publisher.sender import MediaSender
from softcam.rtsp.rtp import CLOCK_HZ, Packetizer

SPS, PPS = bytes.fromhex("67640028acd940"), bytes.fromhex("68ebe3cb")
FORMAT = VideoFormat(640, 360, 20.0, SPS, PPS)
LARGE = VideoFormat(1280, 720, 20.0, SPS, PPS)
FIRST_TIMESTAMP = 1000
NTP_EPOCH_S = 2_208_988_800
BEGAN_S = 1_700_000_000.0
RESOLUTION_S = 1e-4


class Session:
    """A sender with its queue, an outlet that keeps everything, and clocks that the test sets."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.unix_s = BEGAN_S
        self.unsent = 0
        self.keyframes = 0
        self._wire = bytearray()
        self.queue = PacketQueue()
        self.queue.on_format(FORMAT)
        packetizer = Packetizer(1, 0, FIRST_TIMESTAMP)
        clocks = {"clock": lambda: self.now_s, "wall_clock": lambda: self.unix_s}
        self.sender = MediaSender(self, self.queue, packetizer, self._request_keyframe, **clocks)

    def send(self, data: bytes) -> None:
        self._wire += data

    def _request_keyframe(self) -> None:
        self.keyframes += 1

    def wait(self, duration_s: float) -> None:
        self.now_s += duration_s
        self.unix_s += duration_s

    def take_frame(self, *, is_keyframe: bool = False, size: int = 20) -> None:
        """A frame that is exposed now."""
        data = size.to_bytes(4, "big") + (b"\x65" if is_keyframe else b"\x41") + bytes(size - 1)
        self.queue.on_packet(Packet(data, is_keyframe, self.now_s, self.unix_s))

    def channels(self) -> list[int]:
        """Those of the packets that were sent since the last call: 0 for media, 1 for a report."""
        return [channel for channel, _ in self._sent()]

    def reports(self) -> list[tuple[float, float]]:
        """The reports that were sent since the last call: wall clock and RTP time, both since the first exposure."""
        found = []
        for channel, content in self._sent():
            if channel == 1:
                ntp_s, fraction, timestamp = struct.unpack(">III", content[8:20])
                unix_s = ntp_s - NTP_EPOCH_S - BEGAN_S + fraction / 2**32
                found.append((unix_s, (timestamp - FIRST_TIMESTAMP) / CLOCK_HZ))
        return found

    def _sent(self) -> Iterator[tuple[int, bytes]]:
        wire, self._wire = bytes(self._wire), bytearray()
        while wire:
            length = 4 + int.from_bytes(wire[2:4], "big")
            yield wire[1], wire[4:length]
            wire = wire[length:]


@pytest.fixture
def session() -> Session:
    return Session()


def test_report_behind_the_first_packet(session: Session) -> None:
    """In front of the keyframe, whose place in time a receiver would not know otherwise."""
    session.sender.send(FORMAT)
    assert session.channels() == []
    session.take_frame(is_keyframe=True, size=5000)
    session.wait(0.05)
    session.take_frame()
    session.sender.send(FORMAT)
    assert session.channels() == [0, 1, 0, 0, 0, 0, 0, 0]
    session.wait(0.05)
    session.take_frame()
    session.sender.send(FORMAT)
    assert session.channels() == [0]


def test_reports_map_exposures_to_the_wall_clock(session: Session) -> None:
    session.take_frame(is_keyframe=True)
    session.wait(0.08)
    session.sender.send(FORMAT)
    assert session.reports() == [pytest.approx((0.08, 0.08), abs=RESOLUTION_S)]
    for _ in range(105):
        session.wait(0.1)
        session.take_frame()
        session.sender.send(FORMAT)
    reports = session.reports()
    assert len(reports) == 2
    assert [unix_s for unix_s, _ in reports] == pytest.approx([after_s for _, after_s in reports], abs=RESOLUTION_S)


@pytest.mark.parametrize("step_s", [-1.6e9, -1.0, 2.0, 1e8])
def test_wall_clock_that_is_set(session: Session, step_s: float) -> None:
    """RTP time continues; a report with the new time follows at once."""
    session.take_frame(is_keyframe=True)
    session.sender.send(FORMAT)
    session.reports()
    session.wait(0.5)
    session.take_frame()
    session.unix_s += step_s  # between the exposure and the report
    session.sender.send(FORMAT)
    assert session.reports() == [pytest.approx((0.5 + step_s, 0.5), abs=RESOLUTION_S)]
    session.wait(0.5)
    session.take_frame()
    session.sender.send(FORMAT)
    assert session.channels() == [0]


def test_no_report_while_the_clock_is_slewed(session: Session) -> None:
    session.take_frame(is_keyframe=True)
    session.sender.send(FORMAT)
    session.channels()
    for _ in range(40):
        session.wait(0.1)
        session.unix_s += 0.000_05
        session.take_frame()
        session.sender.send(FORMAT)
    assert set(session.channels()) == {0}


def test_keyframes_for_readers_that_start_late(session: Session) -> None:
    session.take_frame(is_keyframe=True)
    moments = []
    next_s = session.sender.send(FORMAT)
    for _ in range(10):
        if next_s in (None, math.inf):
            break
        assert next_s is not None
        session.wait(next_s - session.now_s)
        requested = session.keyframes
        next_s = session.sender.send(FORMAT)
        assert session.keyframes == requested + 1
        moments.append(session.now_s - 100.0)
    assert moments == pytest.approx([0.3, 0.7])
    assert next_s == math.inf


def test_missing_keyframe_is_requested_until_it_arrives(session: Session) -> None:
    session.wait(1.0)
    assert session.sender.send(FORMAT) == session.now_s + 0.5
    assert session.keyframes == 1  # not one for each that was due meanwhile
    session.wait(0.2)
    session.sender.send(FORMAT)
    assert session.keyframes == 1
    session.wait(0.3)
    session.sender.send(FORMAT)
    assert session.keyframes == 2
    session.take_frame(is_keyframe=True)
    assert session.sender.send(FORMAT) == math.inf


def test_nothing_is_sent_or_requested_behind_unsent_data(session: Session) -> None:
    session.take_frame(is_keyframe=True)
    session.unsent = 1
    session.wait(5.0)
    assert session.sender.send(FORMAT) == math.inf
    assert (session.channels(), session.keyframes, session.sender.sent_s) == ([], 0, session.now_s)
    session.unsent = 0
    session.sender.send(FORMAT)
    assert session.channels() == [0, 1, 0, 0]


def test_other_size_ends_it(session: Session) -> None:
    session.take_frame(is_keyframe=True)
    session.queue.on_format(LARGE)
    session.wait(0.05)
    session.take_frame(is_keyframe=True)
    assert session.sender.send(FORMAT) is None
    assert session.channels() == [0, 1, 0, 0]
    assert session.sender.sent == 1
