"""Fragmented MP4: its boxes, and what FFmpeg reads from complete and truncated streams."""

import io
import struct
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from softcam.h264 import timing
from softcam.h264.packet import Packet, VideoFormat
from softcam.imaging.frame import Frame
from softcam.mp4 import fragment

SIZE = (64, 48)
FPS = 25.0
FORM = VideoFormat(*SIZE, FPS, b"\x67\x42\xc0\x1e\x01", b"\x68\xce")
CONTAINERS = {b"moov", b"trak", b"mdia", b"minf", b"stbl", b"mvex", b"moof", b"traf", b"dinf"}


def boxes(data: bytes, path: str = "") -> Iterator[tuple[str, bytes]]:
    """(path, content) of every box; insists that they fill the space."""
    at = 0
    while at < len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        assert 8 <= size <= len(data) - at
        name = f"{path}/{kind.decode()}"
        content = data[at + 8 : at + size]
        yield name, content
        if kind in CONTAINERS:
            yield from boxes(content, name)
        at += size


def packet(began_s: float, *, is_keyframe: bool = False, data: bytes = b"\0\0\0\1\x41") -> Packet:
    return Packet(data, is_keyframe, began_s, 0.0)


def samples(fragment: bytes) -> list[tuple[int, int, int]]:
    """(ticks, bytes, flags) of each."""
    run = dict(boxes(fragment))["/moof/traf/trun"]
    flags, count, _ = struct.unpack_from(">III", run)
    assert flags == 0x701
    return [struct.unpack_from(">III", run, 12 + 12 * n) for n in range(count)]


def decode_time(fragment: bytes) -> int:
    time: int = struct.unpack(">IQ", dict(boxes(fragment))["/moof/traf/tfdt"])[1]
    return time


def test_initial_segment() -> None:
    found = dict(boxes(fragment.initial_segment(FORM)))
    assert [path for path in found if path.count("/") < 3] == [
        "/ftyp",
        "/moov",
        "/moov/mvhd",
        "/moov/trak",
        "/moov/mvex",
    ]
    lengths = {"mvhd": 100, "trak/tkhd": 84, "trak/mdia/mdhd": 24, "trak/mdia/minf/vmhd": 12, "mvex/trex": 24}
    assert {path: len(found[f"/moov/{path}"]) for path in lengths} == lengths  # as the standard has them
    header = found["/moov/trak/tkhd"]
    assert struct.unpack(">II", header[-8:]) == (64 << 16, 48 << 16)
    description = found["/moov/trak/mdia/minf/stbl/stsd"]
    assert len(description) == 8 + 86 + (8 + 11 + 5 + 2) + 19 + 16
    inside = dict(boxes(description[8 + 86 :]))
    assert inside["/avcC"] == b"\x01\x42\xc0\x1e\xff\xe1\0\5" + FORM.sps + b"\x01\0\2" + FORM.pps
    assert inside["/colr"] == b"nclx" + struct.pack(">HHHB", 1, 13, 6, 0x80)
    assert inside["/pasp"] == struct.pack(">II", 1, 1)


@pytest.mark.parametrize(
    ("created_s", "since_1904_s"),
    [(None, 0), (0.9, 2_082_844_800), (1_795_216_502.0, 3_878_061_302), (2.3e9, 0xFFFFFFFF)],
    ids=["none", "1970", "2026", "2042"],
)
def test_dates(created_s: float | None, since_1904_s: int) -> None:
    found = dict(boxes(fragment.initial_segment(FORM, created_s=created_s)))
    for path in ("mvhd", "trak/tkhd", "trak/mdia/mdhd"):
        version, created, modified = struct.unpack_from(">B3xII", found[f"/moov/{path}"])
        assert (version, created, modified) == (0, since_1904_s, since_1904_s)


def test_title() -> None:
    assert fragment.initial_segment(FORM, title="Gärten 庭").count("Gärten 庭".encode()) == 1
    assert fragment.initial_segment(FORM, title="Door").startswith(fragment.FTYP)


def test_fragment_of_one_packet() -> None:
    data = fragment.fragment(7, [packet(12.5, is_keyframe=True)], 10.0, 0.04)
    found = dict(boxes(data))
    assert [path for path, _ in boxes(data)][:1] == ["/moof"]
    assert found["/moof/mfhd"][-4:] == struct.pack(">I", 7)
    assert decode_time(data) == 225_000
    assert samples(data) == [(3600, 5, 0x02000000)]
    assert found["/mdat"] == b"\0\0\0\1\x41"
    offset = struct.unpack_from(">I", found["/moof/traf/trun"], 8)[0]
    assert data[offset:] == found["/mdat"]


def test_fragment_of_several_packets() -> None:
    packets = [packet(1.0, is_keyframe=True, data=b"a"), packet(1.05, data=b"bb"), packet(1.15, data=b"ccc")]
    data = fragment.fragment(1, packets, 1.0, 0.5)
    assert decode_time(data) == 0
    assert samples(data) == [(4500, 1, 0x02000000), (9000, 2, 0x01010000), (45000, 3, 0x01010000)]
    assert dict(boxes(data))["/mdat"] == b"abbccc"


def test_long_time() -> None:
    month_s = 31 * 86400.0
    assert decode_time(fragment.fragment(2**32 + 1, [packet(month_s)], 0.0, 0.04)) == round(month_s * 90_000)


@pytest.mark.parametrize(("packets", "zero_s"), [([], 0.0), ([packet(1.0)], 1.5)])
def test_packets_must_exist_and_follow_zero(packets: list[Packet], zero_s: float) -> None:
    with pytest.raises(ValueError, match=r"fragment|zero"):
        fragment.fragment(1, packets, zero_s, 0.04)


@given(st.lists(st.floats(0.0005, 3), min_size=1, max_size=50), st.floats(0, 1e6))
@settings(deadline=None)
def test_rounding_errors_do_not_accumulate(deltas: list[float], zero_s: float) -> None:
    """The end of each fragment of several is the beginning of the next."""
    moments = [zero_s]
    for delta in deltas:
        moments.append(moments[-1] + delta)
    cut = len(moments) // 2
    first = fragment.fragment(1, [packet(moment) for moment in moments[: cut or 1]], zero_s, 0.04)
    if cut:
        whole = fragment.fragment(1, [packet(moment) for moment in moments], zero_s, 0.04)
        rest = fragment.fragment(2, [packet(moment) for moment in moments[cut:]], zero_s, 0.04)
        begun = decode_time(whole) + sum(ticks for ticks, _, _ in samples(whole)[:cut])
        assert decode_time(rest) == begun
        assert abs(begun / 90_000 - (moments[cut] - zero_s)) < 1e-5
    assert decode_time(first) == 0


# Read by a stranger


@pytest.fixture(scope="module")
def units() -> tuple[VideoFormat, list[tuple[bytes, bool]]]:
    """Sixty pictures, of which every twentieth is a keyframe."""
    pytest.importorskip("av")
    from softcam.h264.x264 import X264

    encoder = X264(SIZE, "YUV420", FPS, 500_000)
    made = []
    for n in range(60):
        luma = np.full((48, 64), 4 * n, np.uint8)
        chroma = np.full((24, 32), 128, np.uint8)
        frame = Frame((luma, chroma, chroma), "YUV420", *SIZE)
        made.append(encoder.encode(frame, is_keyframe=n % 20 == 0))
    return VideoFormat(*SIZE, FPS, *encoder.parameter_sets), made


def read(data: bytes) -> tuple[Any, list[tuple[float, float]]]:
    """The stream, and (time in s, mean brightness) of each picture, by FFmpeg."""
    import av

    with av.open(io.BytesIO(data), "r") as container:
        stream = container.streams.video[0]
        pictures = [(frame.time, float(np.mean(frame.to_ndarray()[:48]))) for frame in container.decode(stream)]
        return stream.time_base, pictures


def movie(units: tuple[VideoFormat, list[tuple[bytes, bool]]], moments: list[float], first: int = 0) -> list[bytes]:
    """Initial segment and fragments of one packet, as the live stream has them."""
    fmt, made = units
    parts, last = [fragment.initial_segment(fmt)], moments[first]
    for n in range(first, len(made)):
        last_duration_s = timing.sample_duration_s(moments[n] - last, fmt.fps)
        last = moments[n]
        parts.append(fragment.fragment(n + 1, [Packet(*made[n], moments[n], 0.0)], 0.0, last_duration_s))
    return parts


def test_ffmpeg_reads_times(units: tuple[VideoFormat, list[tuple[bytes, bool]]]) -> None:
    uneven = np.random.default_rng(3).uniform(0.01, 0.1, 60)
    uneven[40] = 5.0
    moments = [float(moment) for moment in np.cumsum(uneven)]
    time_base, pictures = read(b"".join(movie(units, moments)))
    assert time_base == Fraction(1, 90_000)
    assert [time for time, _ in pictures] == pytest.approx(moments, abs=1e-5)
    assert [level for _, level in pictures] == pytest.approx([4 * n for n in range(60)], abs=6)


@pytest.mark.parametrize(("orientation", "degrees"), [(1, 0), (6, -90)])  # FFmpeg counts against the clock
def test_ffmpeg_reads_rotation(
    units: tuple[VideoFormat, list[tuple[bytes, bool]]], orientation: int, degrees: int
) -> None:
    import av

    fmt, _ = units
    _, *fragments = movie(units, [n / FPS for n in range(60)])
    with av.open(io.BytesIO(fragment.initial_segment(fmt, orientation) + b"".join(fragments)), "r") as container:
        frame = next(container.decode(video=0))
        assert (frame.width, frame.height) == SIZE
        assert frame.rotation == degrees


def test_ffmpeg_starts_at_any_keyframe(units: tuple[VideoFormat, list[tuple[bytes, bool]]]) -> None:
    moments = [100 + n / FPS for n in range(60)]
    _, pictures = read(b"".join(movie(units, moments, first=40)))
    assert [time for time, _ in pictures] == pytest.approx(moments[40:], abs=1e-5)


def test_truncated_stream_plays(units: tuple[VideoFormat, list[tuple[bytes, bool]]]) -> None:
    parts = movie(units, [n / FPS for n in range(60)])
    whole = b"".join(parts)
    last_whole = b"".join(parts[:51])
    _, pictures = read(whole[: len(last_whole) + 60])
    assert len(pictures) >= 50


def test_packets_per_fragment_make_no_difference(units: tuple[VideoFormat, list[tuple[bytes, bool]]]) -> None:
    fmt, made = units
    moments = [n / FPS for n in range(60)]
    packets = [Packet(*unit, moment, 0.0) for unit, moment in zip(made, moments, strict=True)]
    data = fragment.initial_segment(fmt)
    for number, at in enumerate(range(0, 60, 12), 1):
        data += fragment.fragment(number, packets[at : at + 12], 0.0, 1 / FPS)
    assert read(data) == read(b"".join(movie(units, moments)))


def test_moved_back() -> None:
    packets = [Packet(b"first", True, 7.5, 0.0), Packet(b"second", False, 7.55, 0.0)]
    content = fragment.fragment(1, packets, 0.0, 0.05)
    moved = fragment.moved_back(content, 7 * fragment.TIMESCALE)
    assert moved == fragment.fragment(1, packets, 7.0, 0.05)
    assert fragment.moved_back(content, 0) == content
    assert fragment.moved_back(content, 1 << 62) == fragment.fragment(1, packets, 7.5, 0.05)
