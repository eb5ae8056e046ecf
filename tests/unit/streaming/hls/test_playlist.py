"""`Playlist`: its text, its numbers, and what is removed when."""

import re
from dataclasses import replace
from datetime import datetime
from itertools import pairwise

import pytest

from softcam.h264.packet import Packet, VideoFormat
from softcam.mp4 import fragment
from softcam.streaming.hls.playlist import Playlist, is_playlist_name
from softcam.streaming.hls.segmenter import Format, Media

STARTED_S = 1_735_689_600 + 104  # discontinuities from 40
ZERO_S = 1_800_000_000.25
FORMAT = Format(VideoFormat(640, 360, 20.0, b"\x67\x42\xc0\x1f", b"\x68"), b"initial")
OTHER_FORMAT = Format(VideoFormat(320, 180, 7.5, b"\x67\x4d\x40\x1e", b"\x68"), b"other")
TIME_S = 1_735_689_600 + 208.2345  # media time of the first segment, whose number is 208
OVERHEAD = len(fragment.fragment(1, [Packet(b"", True, 1.0, 1.0)], 0.0, 1.0))  # of the boxes
NAME = "abc-1-1735689808234.m3u8"


def make_media(
    number: int,
    *,
    fmt: Format = FORMAT,
    duration_s: float = 1.0,
    is_discontinuous: bool = False,
    size: int = 200,
    timestamp_s: float | None = None,
) -> Media:
    began_s = ZERO_S + number if timestamp_s is None else timestamp_s
    packet = Packet((b"%d" % number).ljust(size - OVERHEAD), True, TIME_S + number, began_s)
    data = fragment.fragment(number + 1, [packet], 0.0, duration_s)
    return Media(data, fmt, TIME_S + number, duration_s, began_s, is_discontinuous)


def time_of(content: bytes | None) -> float:
    assert content is not None
    return fragment.parse_moof(content[: OVERHEAD - 8])[0] / fragment.TIMESCALE


def make_playlist(count: int = 0, **options: int) -> Playlist:
    playlist = Playlist(STARTED_S, token="abc", **options)
    for number in range(count):
        playlist.append(make_media(number, is_discontinuous=number == 0))
    return playlist


def number_of(text: str, tag: str) -> int:
    (found,) = re.findall(rf"^#EXT-X-{tag}:(\d+)$", text, re.MULTILINE)
    return int(found)


def segments_of(text: str) -> dict[int, int]:
    """For each media sequence number its discontinuity number, as a player counts them (RFC 8216, 6.3.3)."""
    number, era = number_of(text, "MEDIA-SEQUENCE"), number_of(text, "DISCONTINUITY-SEQUENCE")
    found = {}
    for line in text.splitlines():
        era += line == "#EXT-X-DISCONTINUITY"
        if not line.startswith("#"):
            found[number] = era
            number += 1
    return found


def test_variants() -> None:
    playlist = make_playlist(2)
    peak = 8 * 200
    expected = (
        "#EXTM3U\n"
        "#EXT-X-VERSION:7\n"
        "#EXT-X-INDEPENDENT-SEGMENTS\n"
        f'#EXT-X-STREAM-INF:BANDWIDTH={peak},CODECS="avc1.42c01f",RESOLUTION=640x360,FRAME-RATE=20.000\n'
        "hls/abc-%d-1735689808234.m3u8?key=a\n"
    )
    assert playlist.variants("hls/", "?key=a") == expected % 1
    assert playlist.variants("hls/", "?key=a") == expected % 2


def test_text() -> None:
    assert make_playlist(2).text(NAME, "../", "?key=a") == (
        "#EXTM3U\n"
        "#EXT-X-VERSION:7\n"
        "#EXT-X-TARGETDURATION:1\n"
        "#EXT-X-MEDIA-SEQUENCE:208\n"
        "#EXT-X-DISCONTINUITY-SEQUENCE:40\n"
        "#EXT-X-INDEPENDENT-SEGMENTS\n"
        "#EXT-X-DISCONTINUITY\n"
        '#EXT-X-MAP:URI="../abc-208.mp4?key=a"\n'
        "#EXT-X-PROGRAM-DATE-TIME:2027-01-15T08:00:00.250Z\n"
        "#EXTINF:1.000000,\n"
        "../abc-208-1735689808234.m4s?key=a\n"
        "#EXT-X-PROGRAM-DATE-TIME:2027-01-15T08:00:01.250Z\n"
        "#EXTINF:1.000000,\n"
        "../abc-209-1735689808234.m4s?key=a\n"
    )


def test_contents_by_name() -> None:
    playlist = make_playlist(2)
    content = playlist.find("abc-209-0.m4s")
    assert content == make_media(1).data
    assert playlist.find("abc-208.mp4") == b"initial"
    for name in (
        *("abc-210-0.m4s", "abc-209.mp4", "abd-201-0.m4s", "", "abc-209", "../abc-209-0.m4s", "abc-209.m4s"),
        *(
            "abc-209-0.mp4",
            "abc-209--1.m4s",
            "abc-209-0.m4s\n",
            "abc-\u0662-0.m4s",
            NAME,
            "abc-209-" + 99 * "9" + ".m4s",
        ),
    ):
        assert playlist.find(name) is None


def test_each_viewer_starts_near_time_zero() -> None:
    playlist = make_playlist(30)
    (base,) = re.findall(r"abc-1-(\d+)\.m3u8", playlist.variants())
    names = re.findall(r"^\S+\.m4s$", playlist.text(f"abc-1-{base}.m3u8"), re.MULTILINE)
    assert [time_of(playlist.find(name)) for name in names] == pytest.approx(range(8), abs=0.001)
    assert time_of(playlist.find("abc-237-0.m4s")) == pytest.approx(TIME_S + 29, abs=1e-4)
    assert time_of(playlist.find("abc-237-9999999999999.m4s")) == 0.0


def test_playlist_of_an_earlier_process() -> None:
    """The viewer's time continues."""
    text = make_playlist(2).text("0123abcd-7-5000.m3u8")
    assert "\nabc-208-5000.m4s\n" in text


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        (NAME, True),
        ("0123abcd-7-5000.m3u8", True),
        ("abc-1.m3u8", False),
        ("abc-1-1735689808234.m4s", False),
        ("", False),
    ],
)
def test_names_of_playlists(name: str, is_one: bool) -> None:
    assert is_playlist_name(name) is is_one


def test_initial_segment_is_named_in_every_playlist() -> None:
    playlist = make_playlist(12)
    assert playlist.text(NAME).count("#EXT-X-MAP") == 1
    assert '#EXT-X-MAP:URI="abc-208.mp4"' in playlist.text(NAME)
    assert playlist.find("abc-208.mp4") == b"initial"


def test_new_format() -> None:
    playlist = make_playlist(3)
    playlist.append(make_media(3, fmt=OTHER_FORMAT, is_discontinuous=True))
    playlist.append(make_media(4, fmt=OTHER_FORMAT))
    text = playlist.text(NAME)
    assert text.index("abc-210-1735689808234.m4s") < text.index('#EXT-X-DISCONTINUITY\n#EXT-X-MAP:URI="abc-211.mp4"\n')
    assert text.count("#EXT-X-MAP") == 2
    assert playlist.find("abc-208.mp4") == b"initial"
    assert playlist.find("abc-211.mp4") == b"other"
    assert 'CODECS="avc1.4d401e",RESOLUTION=320x180,FRAME-RATE=7.500\n' in playlist.variants()


def test_numbers_of_a_segment_never_change() -> None:
    playlist = make_playlist()
    seen: dict[int, int] = {}
    for number in range(60):
        playlist.append(make_media(number, is_discontinuous=number in (0, 5, 6, 20, 33)))
        listed = segments_of(playlist.text(NAME))
        assert list(listed) == list(range(208 + max(0, number - 7), 208 + number + 1))
        for each, era in listed.items():
            assert seen.setdefault(each, era) == era
    assert len(set(seen.values())) == 5


def test_removed_segments_remain_available() -> None:
    """For the length of the longest playlist, and one segment more."""
    playlist = make_playlist()
    text = ""
    for number in range(60):
        playlist.append(make_media(number, is_discontinuous=number == 0))
        for name in re.findall(r"^\S+\.m4s$", text, re.MULTILINE):
            assert playlist.find(name) is not None
        text = playlist.text(NAME) if number % 8 == 0 else text
    assert playlist.duration_s == 17.0
    assert playlist.find("abc-208-0.m4s") is None


def test_memory_is_limited() -> None:
    playlist = make_playlist(max_bytes=10_000)
    for number in range(50):
        playlist.append(make_media(number, size=1000))
        assert playlist.size_bytes == min(10, number + 1) * 1000
    for number in range(50, 60):
        playlist.append(make_media(number, size=8000))
    assert list(segments_of(playlist.text(NAME))) == [265, 266, 267]


@pytest.mark.parametrize(
    ("durations_s", "target_s"), [((1.0, 1.05), 1), ((1.49,), 1), ((0.05,), 1), ((1.0, 1.5), 2), ((10.0, 1.0), 10)]
)
def test_target_duration(durations_s: tuple[float, ...], target_s: int) -> None:
    playlist = make_playlist()
    for number, duration_s in enumerate(durations_s):
        playlist.append(make_media(number, duration_s=duration_s))
    for number in range(20):
        playlist.append(make_media(number))
        assert number_of(playlist.text(NAME), "TARGETDURATION") == target_s
    playlist.clear()
    playlist.append(make_media(0))
    assert number_of(playlist.text(NAME), "TARGETDURATION") == 1


def test_numbers_continue_after_a_break() -> None:
    playlist = make_playlist(5)
    before = segments_of(playlist.text(NAME))
    playlist.clear()
    assert (playlist.duration_s, playlist.size_bytes, playlist.find("abc-208-0.m4s")) == (0, 0, None)
    playlist.append(make_media(0, is_discontinuous=True))
    assert segments_of(playlist.text(NAME)) == {213: max(before.values()) + 1}


def test_numbers_follow_the_time() -> None:
    playlist = make_playlist(5)
    playlist.clear()
    playlist.append(make_media(100, is_discontinuous=True))
    assert list(segments_of(playlist.text(NAME))) == [308]


@pytest.mark.parametrize("later_s", [1, 3, 20, 90])
def test_numbers_after_a_restart(later_s: int) -> None:
    first, second = Playlist(STARTED_S), Playlist(STARTED_S + later_s)
    for number in range(later_s):
        first.append(make_media(number, is_discontinuous=number < 5))
    second.append(make_media(later_s, is_discontinuous=True))
    ((number, era),) = segments_of(second.text(NAME)).items()
    before = segments_of(first.text(NAME))
    assert number == max(before) + 1
    assert era not in before.values()
    assert era < 1002
    assert not set(re.findall(r"\S+\.m4s", first.text(NAME))) & set(re.findall(r"\S+\.m4s", second.text(NAME)))


def test_clock_that_was_never_set() -> None:
    playlist = Playlist(5.0, token="abc")
    playlist.append(replace(make_media(0, timestamp_s=6.5), time_s=6.5))
    assert "#EXT-X-MEDIA-SEQUENCE:0\n" in playlist.text(NAME)
    assert "#EXT-X-PROGRAM-DATE-TIME:1970-01-01T00:00:06.500Z\n" in playlist.text(NAME)


def test_dates_are_read_as_written() -> None:
    text = make_playlist(8).text(NAME)
    dates = [datetime.fromisoformat(each) for each in re.findall(r"PROGRAM-DATE-TIME:(\S+)", text)]
    assert dates[0].timestamp() == ZERO_S
    assert all((after - before).total_seconds() == 1.0 for before, after in pairwise(dates))
