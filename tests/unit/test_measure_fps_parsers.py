"""The parsers of measure_fps.py with any chunking, and its statistics: no I/O."""

import math
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

import measure_fps as probe
from tests.support.mjpeg_server import OTHER, SMALL, WITH_THUMBNAIL, part


def cut(data: bytes, places: Sequence[int]) -> list[memoryview]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [memoryview(data)[low:high] for low, high in pairwise(edges)]


def read_all(pieces: Sequence[memoryview]) -> list[probe.Picture]:
    reader = probe.PictureReader()
    return [picture for number, piece in enumerate(pieces) for picture in reader.feed(piece, float(number))]


PLACES = st.lists(st.integers(0, 1 << 30), max_size=40)
PICTURES = st.lists(st.sampled_from([SMALL, OTHER, WITH_THUMBNAIL]), min_size=1, max_size=4)


@given(
    PICTURES, PLACES, st.sampled_from([b"\r\n", b"\n"]), st.booleans(), st.sampled_from([b"frame", b"--f", b"x" * 70])
)
def test_any_chunking(pictures: list[bytes], places: list[int], end: bytes, length: bool, boundary: bytes) -> None:
    body = b"".join(part(one, end=end, length=length, boundary=boundary, stamp="7.5") for one in pictures)
    found = read_all(cut(body + b"--" + boundary + end, places))
    assert [one.size_bytes for one in found] == [len(one) for one in pictures]
    assert [one.dimensions for one in found] == [(80, 32) if one is OTHER else (64, 48) for one in pictures]
    assert {one.timestamp_s for one in found} == {7.5}


@given(PLACES)
def test_any_chunking_of_truncated_frames(places: list[int]) -> None:
    assert [one.size_bytes for one in read_all(cut(SMALL * 3, places))] == [len(SMALL)] * 3
    body = part(SMALL[:-2], length=False) * 3 + b"--frame"
    assert [one.size_bytes for one in read_all(cut(body, places))] == [len(SMALL) - 2] * 3


@given(st.lists(st.binary(max_size=300), max_size=20))
def test_random_input(pieces: list[bytes]) -> None:
    views = [memoryview(piece) for piece in pieces]
    found = read_all(views)
    assert sum(one.size_bytes for one in found) <= sum(len(piece) for piece in pieces)


def test_arrival_time_is_that_of_last_byte() -> None:
    one, cut_one = part(SMALL), part(SMALL[:-2], length=False)
    reader = probe.PictureReader()
    assert reader.feed(memoryview(one[:-10]), 1.0) == []
    assert [picture.arrived_s for picture in reader.feed(memoryview(one[-10:]), 2.0)] == [2.0]
    # A delimiter that arrives with the next frame ends a JPEG that was complete earlier.
    assert reader.feed(memoryview(cut_one), 3.0) == []
    assert [picture.arrived_s for picture in reader.feed(memoryview(b"--frame\r\n"), 9.0)] == [3.0]


def test_statistics() -> None:
    statistics = probe.Statistics()
    for arrived_s in (10.0, 10.1, 10.2, 10.6):
        statistics.record(probe.Picture(arrived_s, 1_000_000, (640, 480), math.nan), 0.0)
    figures = probe.summarise("http://x/", statistics, "duration", asked_s=9.5, ended_s=11.6)
    assert figures["fps"] == pytest.approx(5.0)
    assert figures["first_frame_s"] == pytest.approx(0.5)
    assert figures["gap_median_s"] == pytest.approx(0.1)
    assert figures["gap_longest_s"] == pytest.approx(0.4)
    assert figures["gap_p95_s"] == pytest.approx(0.1 + 0.9 * 0.3)
    assert figures["mbit_per_s"] == pytest.approx(40.0)
    assert (figures["bytes"], figures["width"], figures["height"]) == (4_000_000, 640, 480)
    missed = probe.judge(figures, min_fps=4.9, max_gap_s=0.5)
    assert missed == ["longest gap: 1.000 s; maximum 0.5 s"]  # the silence at the end counts as a gap


def test_endless_input_uses_little_memory() -> None:
    reader = probe.PictureReader()
    assert reader.feed(b"--frame\r\n\r\n\xff\xd8\xff\xda\0\4", 0.0) == []
    for number in range(probe.JPEG_LIMIT_BYTES // 2**20 + 2):
        assert reader.feed(bytes(2**20), float(number)) == []
    assert [one.size_bytes for one in reader.feed(b"\r\n" + part(SMALL), 99.0)] == [len(SMALL)]
