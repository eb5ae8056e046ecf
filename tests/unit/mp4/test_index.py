"""The index of MP4 files: what is read from whole, interrupted and damaged ones, and what players read afterwards."""

import errno
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from softcam.h264.packet import Packet, VideoFormat
from softcam.mp4 import fragment, index
from softcam.mp4.index import MDAT_PLACEHOLDER, InvalidMp4
from tests.support.h264_samples import FPS, play
from tests.support.recordings import packets

FORMAT = VideoFormat(64, 48, 20.0, b"\x67\x42\xc0\x1e\x01", b"\x68\xce")
FRAGMENTS = 4
FRAMES = 10  # per fragment


def unfinished(fmt: VideoFormat, fragments: list[bytes]) -> bytes:
    """A file as the recorders write it."""
    head = fragment.initial_segment(fmt)
    ftyp_bytes = int.from_bytes(head[:4])
    return b"".join((head[:ftyp_bytes], MDAT_PLACEHOLDER, head[ftyp_bytes:], *fragments))


def made(times: list[list[float]], last_duration_s: float = 0.05) -> bytes:
    """An unfinished file with packets at these times, in fragments; the first of each is a keyframe."""
    fragments = []
    for number, moments in enumerate(times, 1):
        given = [Packet(b"\0\0\0\1\x41", moment == moments[0], moment, 0.0) for moment in moments]
        fragments.append(fragment.fragment(number, given, 0.0, last_duration_s))
    return unfinished(FORMAT, fragments)


def real(fmt: VideoFormat, taken: list[Packet]) -> bytes:
    fragments = []
    for number, at in enumerate(range(0, len(taken), FRAMES), 1):
        fragments.append(fragment.fragment(number, taken[at : at + FRAMES], taken[0].began_s, 1 / FPS))
    return unfinished(fmt, fragments)


@contextmanager
def opened(content: bytes) -> Iterator[int]:
    """A descriptor of a file in memory."""
    descriptor = os.memfd_create("video")
    try:
        os.write(descriptor, content)
        yield descriptor
    finally:
        os.close(descriptor)


def content_of(descriptor: int) -> bytes:
    return os.pread(descriptor, 1 << 24, 0)


def table(content: bytes, kind: bytes) -> list[int]:
    """The 32-bit numbers of a table in the index, after its version."""
    at = content.rindex(kind) + 8
    return [
        number
        for (number,) in struct.iter_unpack(">I", content[at : at + int.from_bytes(content[at - 12 : at - 8]) - 12])
    ]


def test_unfinished_file() -> None:
    content = made([[0.0, 0.05], [0.1, 0.2, 0.25]])
    with opened(content) as descriptor:
        mp4 = index.read_mp4(descriptor)
    assert (mp4.width, mp4.height, mp4.is_finished, mp4.end) == (64, 48, False, len(content))
    assert mp4.duration_s == pytest.approx(0.3)


def test_file_without_fragments() -> None:
    with opened(made([])) as descriptor:
        assert index.read_mp4(descriptor).duration_s == 0.0
        assert index.write_index(descriptor).is_finished
        assert index.read_mp4(descriptor).duration_s == 0.0


def test_tables_of_the_index() -> None:
    with opened(made([[0.0, 0.05], [0.15, 0.2], [0.25]], 0.1)) as descriptor:
        index.write_index(descriptor)
        content = content_of(descriptor)
    # The last packet of a fragment lasts until the next one begins, whatever was announced.
    assert table(content, b"stts") == [4, 1, 4500, 1, 9000, 2, 4500, 1, 9000]
    assert table(content, b"stss") == [3, 1, 3, 5]
    assert table(content, b"stsc") == [2, 1, 2, 1, 3, 1, 1]
    assert table(content, b"stsz") == [0, 5, *[5] * 5]
    count, *offsets = table(content, b"co64")
    assert count == 3
    for high, low in zip(offsets[0::2], offsets[1::2], strict=True):
        assert content[(high << 32) + low :][:5] == b"\0\0\0\1\x41"
    assert b"mvex" not in content[content.rindex(b"moov") :]


def test_players_read_the_index(tmp_path: Path) -> None:
    path = tmp_path / "video.mp4"
    fmt, taken = packets(FRAGMENTS * FRAMES)
    path.write_bytes(real(fmt, taken))
    before = play(path)
    with path.open("r+b") as file:
        written = index.write_index(file.fileno())
        again = index.read_mp4(file.fileno())
    assert play(path) == before
    assert written.duration_s == again.duration_s == pytest.approx(FRAGMENTS * FRAMES / FPS, abs=0.001)
    assert (again.width, again.height, again.is_finished) == (64, 48, True)
    import av

    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.frames == FRAGMENTS * FRAMES
        keyframes = [number for number, packet in enumerate(container.demux(stream)) if packet.is_keyframe]
    assert keyframes == [number for number, packet in enumerate(taken) if packet.is_keyframe]


def test_finished_file_is_not_changed() -> None:
    with opened(made([[0.0, 0.05]])) as descriptor:
        index.write_index(descriptor)
        before = content_of(descriptor)
        assert index.write_index(descriptor).is_finished
        assert content_of(descriptor) == before


def test_stream_without_placeholder_is_not_changed() -> None:
    """As saved from `/stream.mp4`."""
    content = made([[0.0, 0.05]]).replace(MDAT_PLACEHOLDER, b"")
    with opened(content) as descriptor:
        mp4 = index.write_index(descriptor)
        assert not mp4.is_finished
        assert mp4.duration_s == pytest.approx(0.1)
        assert content_of(descriptor) == content


@pytest.mark.parametrize("missing", [1, 30, 100])
def test_incomplete_fragment_is_removed(missing: int) -> None:
    whole, longer = made([[0.0, 0.05]]), made([[0.0, 0.05], [0.1, 0.15]])
    with opened(longer[:-missing]) as descriptor:
        assert index.read_mp4(descriptor).end == len(whole)
        assert index.write_index(descriptor).duration_s == pytest.approx(0.1)
        assert content_of(descriptor)[len(whole) :][4:8] == b"moov"


def test_finished_file_of_another_program() -> None:
    """With 64-bit times in its header, as some write them."""
    media = fragment.full_box(b"mdhd", 0, struct.pack(">4IHH", 0, 0, 90_000, 0, 0x55C4, 0))
    long = fragment.box(b"mdhd", struct.pack(">IQQIQHH", 1 << 24, 0, 0, 1000, 5 << 32, 0x55C4, 0))
    moov = fragment.initial_segment(FORMAT)
    grown = moov.replace(media, long)
    assert grown != moov
    for kind in (b"moov", b"trak", b"mdia"):
        at = grown.index(kind) - 4
        length = int.from_bytes(grown[at : at + 4]) + len(long) - len(media)
        grown = grown[:at] + length.to_bytes(4) + grown[at + 4 :]
    with opened(fragment.box(b"mdat", b"samples") + grown) as descriptor:
        mp4 = index.read_mp4(descriptor)
    assert (mp4.is_finished, mp4.width, mp4.duration_s) == (True, 64, (5 << 32) / 1000)


@pytest.mark.parametrize("damaged", [2, 3, 4])
@pytest.mark.parametrize("at", [0, 8, 40, 60, 90])
def test_damaged_fragment_is_the_end(damaged: int, at: int) -> None:
    """Zeros after a power cut, at a place in the description of a fragment."""
    times = [[round(0.5 * part + number / 20, 2) for number in range(10)] for part in range(4)]
    whole = made(times[: damaged - 1])
    content = bytearray(made(times))
    content[len(whole) + at : len(whole) + 60 + at] = bytes(60)
    with opened(bytes(content)) as descriptor:
        mp4 = index.read_mp4(descriptor)
        assert mp4.end == len(whole)
        assert mp4.duration_s == pytest.approx(0.5 * (damaged - 1))
        assert index.write_index(descriptor).is_finished
        assert index.read_mp4(descriptor).duration_s == pytest.approx(0.5 * (damaged - 1))
        assert content_of(descriptor)[len(whole) :][4:8] == b"moov"


def replaced(old: bytes, new: bytes) -> bytes:
    content = made([[0.0, 0.05]])
    assert old in content
    return content.replace(old, new)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param(b"", "no moov", id="empty"),
        pytest.param(bytes(100), "no moov", id="zeros"),
        pytest.param(b"\0\0\0\x10ftypiso5", "no moov", id="cut off"),
        pytest.param(b"\0\0\0\1ftyp", "no moov", id="cut off length"),
        pytest.param(replaced(b"tkhd", b"tkhx"), "damaged header", id="no track"),
        pytest.param(replaced(b"mdhd", b"mdhx"), "damaged header", id="no media header"),
        pytest.param(replaced(struct.pack(">I", 90_000), bytes(4)), "no time scale", id="no time scale"),
        pytest.param(replaced(struct.pack(">I", 0x701), struct.pack(">I", 0x301)), "damaged fragment", id="other run"),
        pytest.param(replaced(b"tfdt\1", b"tfdt\0"), "damaged fragment", id="short time"),
        pytest.param(replaced(b"tfdt\1\0\0\0\0", b"tfdt\1\0\0\0\xff"), "damaged fragment", id="time out of range"),
    ],
)
def test_invalid_file_is_rejected(content: bytes, reason: str) -> None:
    with opened(content) as descriptor:
        for call in (index.read_mp4, index.write_index):
            with pytest.raises(InvalidMp4, match=reason):
                call(descriptor)
        assert content_of(descriptor) == content


@given(st.binary(max_size=400), st.integers(0, 3000))
def test_damaged_files_are_read_or_rejected(damage: bytes, at: int) -> None:
    content = bytearray(made([[number / 20 + 0.5 * part for number in range(10)] for part in range(8)]))
    at = min(at, len(content))
    content[at : at + len(damage)] = damage
    with opened(bytes(content)) as descriptor:
        try:
            assert index.read_mp4(descriptor).duration_s >= 0
            index.write_index(descriptor)
        except InvalidMp4:
            return


def test_full_disk_leaves_the_fragments(monkeypatch: pytest.MonkeyPatch) -> None:
    content = made([[0.0, 0.05]])
    write = os.pwrite

    def write_some(descriptor: int, data: bytes, at: int) -> int:
        if at > len(content):
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data[:100], at)

    with opened(content) as descriptor:
        monkeypatch.setattr(os, "pwrite", write_some)
        with pytest.raises(OSError, match="No space left"):
            index.write_index(descriptor)
        monkeypatch.undo()
        assert content_of(descriptor) == content
        assert index.write_index(descriptor).is_finished
