"""`Segmenter`: where packets are cut into segments, and which segments are discontinuous."""

import struct
from itertools import pairwise

import pytest

from softcam.h264.packet import Packet, VideoFormat
from softcam.streaming.hls.segmenter import Media, Segmenter

SPS = b"\x67\x42\xc0\x1e"
PARAMETER_SETS = b"\0\0\0\4" + SPS + b"\0\0\0\1\x68"
NOW_S = 5000.0
UNIX_S = 1_700_000_000.0


class Encoder:
    """Delivers packets to a segmenter; the one after a request is a keyframe."""

    def __init__(self, fps: float = 20.0, first_segments: int = 0, first_picture_s: float = 0.0) -> None:
        self.segments: list[Media] = []
        self.requests = 0
        self.now_s = NOW_S
        self.clock_s = UNIX_S - NOW_S  # Unix time minus monotonic time
        self.is_due = True
        self.is_deaf = False  # to requests
        self.segmenter = Segmenter(
            self.segments.append,
            self.request_keyframe,
            zero_s=NOW_S - 60,
            first_segments=first_segments,
            first_picture_s=first_picture_s,
        )
        self.start_format(fps)

    def request_keyframe(self) -> None:
        self.requests += 1
        self.is_due = not self.is_deaf

    def start_format(self, fps: float = 20.0, *, sps: bytes = SPS, size: tuple[int, int] = (64, 48)) -> None:
        self.fps = fps
        self.is_due = True
        self.segmenter.on_format(VideoFormat(*size, fps, sps, b"\x68"))

    def send(self, count: int, *, after_s: float | None = None, is_keyframe: bool = False) -> None:
        """Send frames; `after_s` is the interval before the first of them."""
        for _ in range(count):
            self.now_s += 1 / self.fps if after_s is None else after_s
            after_s = None
            is_due, self.is_due = self.is_due or is_keyframe, False
            data = b"\0\0\0\1\x65" if is_due else b"\0\0\0\1\x41"
            self.segmenter.on_packet(Packet(data, is_due, self.now_s, self.clock_s + self.now_s))

    @property
    def durations_s(self) -> list[float]:
        return [round(each.duration_s, 3) for each in self.segments]

    @property
    def discontinuities(self) -> list[bool]:
        return [each.is_discontinuous for each in self.segments]


def times_of(media: Media) -> tuple[float, float]:
    """Start and end in media time, from the boxes of a segment."""
    (ticks,) = struct.unpack_from(">Q", media.data, media.data.index(b"tfdt") + 8)
    at = media.data.index(b"trun") + 4
    (count,) = struct.unpack_from(">I", media.data, at + 4)
    durations = [struct.unpack_from(">I", media.data, at + 12 + 12 * number)[0] for number in range(count)]
    return ticks / 90_000, (ticks + sum(durations)) / 90_000


@pytest.mark.parametrize(
    ("fps", "duration_s"), [(60.0, 1.0), (20.0, 1.0), (7.0, 1.0), (3.0, 1.0), (1.5, 1.0), (1.0, 1.0), (0.2, 5.0)]
)
def test_length_of_segments(fps: float, duration_s: float) -> None:
    encoder = Encoder(fps)
    encoder.send(int(fps * 10) + 5)
    assert len(encoder.segments) >= 5
    expected_s = [duration_s] * len(encoder.segments)
    assert encoder.durations_s == pytest.approx(expected_s, abs=0.51 / fps)
    assert sum(encoder.durations_s) == pytest.approx(sum(expected_s), abs=0.51 / fps)  # they follow the time
    assert max(encoder.durations_s) < 1.45 or fps < 1
    assert encoder.discontinuities == [True] + [False] * (len(encoder.segments) - 1)


def test_first_segments_are_shorter() -> None:
    encoder = Encoder(first_segments=3)
    encoder.send(71)
    assert encoder.durations_s == [0.5, 0.5, 0.5, 1.0, 1.0]


def test_first_picture_is_shown_longer() -> None:
    encoder = Encoder(first_segments=3, first_picture_s=0.9)
    encoder.send(41)
    assert encoder.durations_s == [1.4, 0.5, 0.5]
    first, second, _ = encoder.segments
    assert first.timestamp_s == pytest.approx(UNIX_S + 0.05 - 0.9)
    assert second.timestamp_s == pytest.approx(UNIX_S + 0.05 + 0.5)
    assert times_of(first) == pytest.approx((60.05 - 0.9, 60.05 + 0.5), abs=2 / 90_000)


def test_first_picture_makes_no_segment_too_long() -> None:
    for fps, expected_s in ((1.0, 1.45), (0.2, 5.0)):
        encoder = Encoder(fps, first_segments=3, first_picture_s=0.9)
        encoder.send(3)
        assert encoder.durations_s[0] == expected_s


def test_segments_follow_each_other() -> None:
    encoder = Encoder()
    encoder.send(65)
    assert len(encoder.segments) == 3
    for before, after in pairwise(encoder.segments):
        assert times_of(before)[1] == pytest.approx(times_of(after)[0], abs=2 / 90_000)
        assert after.timestamp_s - before.timestamp_s == pytest.approx(before.duration_s, abs=1e-6)
        assert after.time_s - before.time_s == pytest.approx(before.duration_s, abs=1e-6)
        assert after.fmt is before.fmt
    assert encoder.segments[0].timestamp_s == pytest.approx(UNIX_S + 0.05)


def test_segment_starts_with_keyframe_and_has_all_frames() -> None:
    encoder = Encoder()
    encoder.send(41)
    media, later = encoder.segments
    at = media.data.index(b"mdat") + 4
    assert media.data[at:] == PARAMETER_SETS + b"\0\0\0\1\x65" + 19 * b"\0\0\0\1\x41"
    assert later.data.count(PARAMETER_SETS) == 0


def test_keyframes_for_others_do_not_cut() -> None:
    encoder = Encoder()
    for _ in range(4):
        encoder.send(8)
        encoder.send(1, is_keyframe=True)
    assert encoder.durations_s == [1.0]


def test_one_request_for_each_segment() -> None:
    encoder = Encoder()
    encoder.send(61)
    assert (len(encoder.segments), encoder.requests) == (3, 3)


def test_encoder_that_is_late_with_keyframes() -> None:
    encoder = Encoder()
    encoder.is_deaf = True
    for _ in range(3):
        encoder.send(1, is_keyframe=True)
        encoder.send(23)
    assert encoder.durations_s == [1.2, 1.2]
    assert encoder.discontinuities == [True, False]


def test_short_pause_extends_the_frame_before_it() -> None:
    encoder = Encoder()
    encoder.send(5)
    encoder.send(1, after_s=0.9, is_keyframe=True)
    encoder.send(30)
    assert encoder.durations_s[0] == pytest.approx(1.1, abs=0.06)
    assert encoder.discontinuities == [True, False]


@pytest.mark.parametrize("frames", [1, 10, 19])
def test_long_pause_is_left_out(frames: int) -> None:
    encoder = Encoder()
    encoder.send(frames)
    encoder.send(1, after_s=12.0, is_keyframe=True)
    encoder.send(41)
    assert encoder.durations_s[0] == round(frames * 0.05, 3)
    assert max(encoder.durations_s[1:]) == 1.0
    assert encoder.discontinuities[:3] == [True, True, False]
    assert encoder.segments[1].timestamp_s == pytest.approx(UNIX_S + frames * 0.05 + 12.0)


def test_long_exposures_become_usual() -> None:
    encoder = Encoder()
    encoder.send(30)
    encoder.fps = 0.1
    encoder.send(10, is_keyframe=True)
    assert encoder.durations_s[-3:] == [10.0, 10.0, 10.0]
    assert encoder.discontinuities[-2:] == [False, False]


def test_frames_that_are_missing_on_a_busy_machine_make_no_segment_longer() -> None:
    encoder = Encoder()
    for after_s in (0.05, 0.3, 0.6, 0.9, 1.6, 0.3, 0.05, 0.7, 1.4):
        encoder.send(1, after_s=after_s)
        encoder.send(1)
        encoder.is_due |= after_s > 0.3
    assert max(encoder.durations_s) < 1.5


def test_new_format_ends_the_segment() -> None:
    encoder = Encoder()
    encoder.send(25)
    encoder.start_format(size=(128, 96))
    encoder.send(21)
    assert encoder.durations_s == [1.0, 0.25, 1.0]
    assert encoder.discontinuities == [True, False, True]
    first, second, third = (each.fmt for each in encoder.segments)
    assert first is second
    assert (first.video.width, third.video.width) == (64, 128)
    assert struct.pack(">HH", 64, 48) in first.initial
    assert struct.pack(">HH", 128, 96) in third.initial


def test_same_format_again_changes_nothing() -> None:
    encoder = Encoder()
    encoder.send(25)
    encoder.segmenter.on_format(VideoFormat(64, 48, 20.0, SPS, b"\x68"))
    encoder.send(20)
    assert encoder.discontinuities == [True, False]
    assert encoder.segments[0].fmt is encoder.segments[1].fmt


@pytest.mark.parametrize("step_s", [3600.0, -3600.0, 0.6])
def test_clock_that_is_set(step_s: float) -> None:
    encoder = Encoder()
    encoder.send(30)
    encoder.clock_s += step_s
    encoder.send(40)
    assert encoder.discontinuities == [True, False, True]
    assert encoder.durations_s == [1.0, 1.0, 1.0]
    before, after = encoder.segments[1:]
    assert after.timestamp_s - before.timestamp_s == pytest.approx(1.0 + step_s)
    assert times_of(before)[0] == pytest.approx(before.time_s, abs=1e-4)
    assert times_of(after)[0] - times_of(before)[0] == pytest.approx(1.0)


def test_clock_that_is_corrected_slightly() -> None:
    encoder = Encoder()
    encoder.send(30)
    encoder.clock_s += 0.1
    encoder.send(40)
    assert encoder.discontinuities == [True, False, False]


def test_packets_without_a_format_or_from_long_ago_are_ignored() -> None:
    segments: list[Media] = []
    segmenter = Segmenter(segments.append, lambda: None, zero_s=NOW_S - 60)
    segmenter.on_packet(Packet(b"early", True, NOW_S, UNIX_S))
    segmenter.on_format(VideoFormat(64, 48, 20.0, SPS, b"\x68"))
    segmenter.on_packet(Packet(b"old", True, NOW_S - 100.0, UNIX_S))
    segmenter.on_packet(Packet(b"part", False, NOW_S, UNIX_S))
    for began_s in (NOW_S + 1, NOW_S + 2, NOW_S + 3):
        segmenter.on_packet(Packet(b"frame", True, began_s, UNIX_S))
    assert segments
    assert b"early" not in segments[0].data
    assert b"old" not in segments[0].data
    assert b"part" not in segments[0].data
