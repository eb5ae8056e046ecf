"""The folder of recordings: names, the list, limits, what is deleted, and what a crash left."""

import errno
import fcntl
import io
import os
import subprocess
import sys
import threading
import time
from collections import namedtuple
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from softcam.errors import NoRecording, RecordingError
from softcam.h264.packet import Packet, VideoFormat
from softcam.imaging import jpeg
from softcam.imaging.exif import with_orientation
from softcam.mp4 import index
from softcam.mp4.index import InvalidMp4, Mp4Info
from softcam.recording import thumbnail
from softcam.recording.library import Library
from softcam.recording.mp4_file import Mp4Writer
from tests.support.fakes import make_frame
from tests.support.h264_samples import FPS, FakeSource, numbered_frame, play

LONG_AGO_S = 1_795_216_502.0  # 2026-11-20 23:15:02 UTC
FFPROBE = ("ffprobe", "-v", "error", "-show_entries")
STILL = jpeg.encode(make_frame(size=(32, 16)), None, 80)


class Tape:
    """A sink that keeps what it gets."""

    def __init__(self) -> None:
        self.packets: list[Packet] = []
        self.fmt: VideoFormat | None = None

    def on_format(self, fmt: VideoFormat) -> None:
        self.fmt = fmt

    def on_packet(self, packet: Packet) -> None:
        self.packets.append(packet)


def packets(count: int) -> tuple[VideoFormat, list[Packet]]:
    source, tape = FakeSource(), Tape()
    source.subscribe(tape)
    source.give(count)
    assert tape.fmt is not None
    return tape.fmt, tape.packets


def begin_movie(library: Library, count: int = 40, began_s: float = LONG_AGO_S) -> Mp4Writer:
    """A file with fragments of ten pictures, which is not closed."""
    fmt, taken = packets(count)
    movie = Mp4Writer(library, "video", fmt, began_s, taken[0].began_s)
    for place in range(0, count, 10):
        movie.add(taken[place : place + 10], 1 / FPS)
    return movie


def make_movie(library: Library, began_s: float = LONG_AGO_S) -> str:
    movie = begin_movie(library, began_s=began_s)
    movie.close()
    return movie.name


def cut(movie: Mp4Writer) -> None:
    """As a crash leaves it: closed, and unlocked, by the kernel."""
    os.close(movie._descriptor)
    movie._library._running.clear()


# --- Names and the list


def test_names_tell_when_and_what(tmp_path: Path) -> None:
    library = Library(tmp_path / "deep" / "folder", None)
    names = [library.create(kind, LONG_AGO_S) for kind in ("video", "video", "timelapse", "still")]
    for _, descriptor in names:
        os.close(descriptor)
    assert [name for name, _ in names] == [
        "2026-11-20_23-15-02.mp4",
        "2026-11-20_23-15-02-2.mp4",
        "2026-11-20_23-15-02_timelapse.mp4",
        "2026-11-20_23-15-02.jpg",
    ]


def test_the_newest_is_first(tmp_path: Path) -> None:
    library = Library(tmp_path, None)
    assert library.entries() == []
    for after_s in (0, 0, 3600, 60):
        library.add_still(STILL, LONG_AGO_S + after_s)
    assert [entry.name[11:] for entry in library.entries()] == [
        "00-15-02.jpg",
        "23-16-02.jpg",
        "23-15-02-2.jpg",
        "23-15-02.jpg",
    ]
    first = library.entries()[-1]
    assert (first.kind, first.began_s, first.size, first.width, first.height) == (
        "still",
        LONG_AGO_S,
        len(STILL),
        32,
        16,
    )
    assert (first.duration_s, first.is_running, first.has_thumbnail) == (None, False, False)


def test_what_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "holiday.mp4").write_bytes(b"x" * 1000)
    (tmp_path / "2026-11-20_23-15-02.txt").touch()
    (tmp_path / "2026-11-20_23-15-02").mkdir()
    library = Library(tmp_path, 10)
    assert library.entries() == []
    assert library.used_bytes() == 0
    library.enforce_quota()
    assert len(list(tmp_path.iterdir())) == 3


def test_what_is_no_movie_is_listed_without_a_length(tmp_path: Path) -> None:
    library = Library(tmp_path, None)
    for content in (b"", b"\0" * 100, b"\0\0\0\x10ftypiso5", os.urandom(5000)):
        (tmp_path / "2026-02-31_23-15-02.mp4").write_bytes(content)
        (tmp_path / "2026-11-20_23-15-02.jpg").write_bytes(content)
        entries = library.entries()
        assert [(entry.duration_s, entry.width) for entry in entries] == [(None, None)] * 2
        assert library.recover() == 0
    for entry in entries:
        library.delete(entry.name)
    assert library.entries() == []


BAD_NAMES = (
    "..",
    ".",
    "",
    "/etc/passwd",
    "../2026-11-20_23-15-02.mp4",
    "2026-11-20_23-15-02.mp4/..",
    ".2026-11-20_23-15-02.mp4.jpg",
    "2026-11-20_23-15-02.mp4\n",
    "2026-11-20_23-15-02.mp4\0",
    "2026-11-20_23-15-02.mp5",
    "٢٠٢٦-11-20_23-15-02.mp4",
    "2026-11-20_23-15-02-1000.mp4",
)


@pytest.mark.parametrize("name", BAD_NAMES)
def test_fail_other_names(name: str, tmp_path: Path) -> None:
    library = Library(tmp_path / "folder", None)
    (tmp_path / "2026-11-20_23-15-02.mp4").touch()
    (tmp_path / "folder" / ".2026-11-20_23-15-02.mp4.jpg").touch()
    for call in (library.open, library.delete, library.entry, library.thumbnail):
        with pytest.raises(NoRecording, match="there is no"):
            call(name)
    assert (tmp_path / "2026-11-20_23-15-02.mp4").exists()


@given(name=st.text(max_size=30))
def test_any_other_name_is_none(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    library = Library(tmp_path_factory.getbasetemp(), None)
    with pytest.raises(NoRecording):
        library.open(name)


def test_no_link_leads_out(tmp_path: Path) -> None:
    library = Library(tmp_path / "folder", None)
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "folder" / "2026-11-20_23-15-02.mp4").symlink_to(tmp_path / "secret")
    with pytest.raises(RecordingError):
        library.open("2026-11-20_23-15-02.mp4")
    os.mkfifo(tmp_path / "folder" / "2026-11-20_23-15-03.mp4")  # would wait for a writer
    with pytest.raises(NoRecording):
        library.open("2026-11-20_23-15-03.mp4")
    assert library.entries() == []
    assert library.recover() == 0


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    library = Library(tmp_path / "file" / "folder", None)
    with pytest.raises(OSError, match="Not a directory"):
        library.entries()
    with pytest.raises(OSError, match="Not a directory"):
        library.enforce_quota()
    with pytest.raises(OSError, match="Not a directory"):
        library.add_still(STILL, LONG_AGO_S)


# --- Movies


def test_a_whole_movie(tmp_path: Path) -> None:
    library = Library(tmp_path, None)
    name = make_movie(library)
    (entry,) = library.entries()
    assert entry.duration_s == pytest.approx(2.0, abs=0.001)
    assert (entry.width, entry.height, entry.is_running) == (64, 48, False)
    file, whole = library.open(name)
    with file:
        assert whole == entry.size == len(file.read())
    seen = play(tmp_path / name)
    assert len(seen.numbers) == 40
    assert seen.duration_s == pytest.approx(2.0, abs=0.01)


def test_a_running_movie_ends_with_its_last_whole_fragment(tmp_path: Path) -> None:
    library = Library(tmp_path, None)
    movie = begin_movie(library)
    (entry,) = library.entries()
    assert (entry.is_running, entry.size) == (True, movie.size)
    assert entry.duration_s == pytest.approx(2.0, abs=0.001)
    os.pwrite(movie._descriptor, b"half a fragment", movie.size)
    file, whole = library.open(movie.name)
    with file:
        assert whole == movie.size
    with pytest.raises(RecordingError, match="stop the recording first"):
        library.delete(movie.name)
    assert library.recover() == 0
    movie.close()
    assert len(play(tmp_path / movie.name).numbers) == 40
    library.delete(movie.name)
    assert list(tmp_path.iterdir()) == []


def test_a_movie_that_grows_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[int] = []
    read_mp4 = index.read_mp4

    def read(descriptor: int) -> Mp4Info:
        reads.append(descriptor)
        return read_mp4(descriptor)

    monkeypatch.setattr(index, "read_mp4", read)
    library = Library(tmp_path, None)
    _, given = packets(1)
    movie = begin_movie(library, 40)
    last = library.entries()[0]
    for number in range(40, 60):
        movie.add([Packet(given[0].data, True, movie.zero_s + number / FPS, 0.0)], 1 / FPS)
        (entry,) = library.entries()
        assert entry.duration_s == pytest.approx((number + 1) / FPS, abs=0.001)
        assert (entry.is_running, entry.size, entry.width) == (True, movie.size, last.width)
    assert len(reads) == 1
    movie.close()
    (entry,) = library.entries()
    assert (entry.is_running, entry.size) == (False, (tmp_path / movie.name).stat().st_size)
    assert entry.duration_s == pytest.approx(60 / FPS, abs=0.001)


@pytest.mark.parametrize("missing", [0, 1, 100, 3000])
def test_a_cut_movie_is_told_as_long_as_it_plays_and_is_mended(missing: int, tmp_path: Path) -> None:
    library = Library(tmp_path, None)
    movie = begin_movie(library)
    cut(movie)
    path = tmp_path / movie.name
    os.truncate(path, path.stat().st_size - missing)
    (entry,) = library.entries()
    assert not entry.is_running
    assert entry.duration_s == pytest.approx(
        2.0 if not missing else 1.5 if missing < 3000 else entry.duration_s, abs=0.01
    )
    assert library.recover() == 1
    (mended,) = library.entries()
    seen = play(path)
    assert mended.duration_s == pytest.approx(entry.duration_s, abs=0.001)
    assert seen.duration_s == pytest.approx(mended.duration_s, abs=0.01)
    assert len(seen.numbers) == pytest.approx(seen.duration_s * FPS)
    assert library.recover() == 0


def test_every_cut_leaves_a_movie_or_nothing(tmp_path: Path) -> None:
    """At any byte: the pictures of the whole fragments are there, and mending it does not fail."""
    library = Library(tmp_path, None)
    movie = begin_movie(library, count=20)
    cut(movie)
    path = tmp_path / movie.name
    content = path.read_bytes()
    lengths = set()
    for end in range(0, len(content), 41):
        path.write_bytes(content[:end])
        library.recover()
        duration_s = library.entry(movie.name).duration_s
        lengths.add(None if duration_s is None else round(duration_s, 2))
        if duration_s:
            assert len(play(path).numbers) == round(duration_s * FPS)
    assert lengths == {None, 0.0, 0.5}


@given(st.binary(max_size=400), st.integers(0, 3000))
def test_damaged_movies_are_read_or_refused(damage: bytes, at: int) -> None:
    content = bytearray(_whole_movie())
    at = min(at, len(content))
    content[at : at + len(damage)] = damage
    descriptor = os.memfd_create("damaged")
    try:
        os.write(descriptor, content)
        try:
            movie = index.read_mp4(descriptor)
        except InvalidMp4 as error:
            told = str(error)
            assert told
        else:
            assert movie.duration_s >= 0
    finally:
        os.close(descriptor)


_KEPT: list[bytes] = []


def _whole_movie() -> bytes:
    if not _KEPT:
        from tempfile import TemporaryDirectory

        with TemporaryDirectory() as folder:
            library = Library(Path(folder), None)
            movie = begin_movie(library, count=20)
            _KEPT.append((library.folder / movie.name).read_bytes())
            movie.close()
    return _KEPT[0]


def test_a_movie_of_ten_thousand_pictures_and_uneven_times(tmp_path: Path) -> None:
    library = Library(tmp_path, None)
    fmt, (keyframe, other, *_) = packets(2)
    movie = Mp4Writer(library, "video", fmt, LONG_AGO_S, 0.0)
    at_s = 0.0
    for number in range(10_000):
        at_s += 0.001 * (number % 7 + 1)
        data = (keyframe if number % 20 == 0 else other).data
        movie.add([Packet(data, number % 20 == 0, at_s, at_s)], 0.001)
    movie.close()
    answer = subprocess.run(
        [*FFPROBE, "packet=pts_time,flags:stream=nb_frames", "-of", "csv=p=0", str(tmp_path / movie.name)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    *lines, count = answer.stdout.split()
    assert int(count) == len(lines) == 10_000
    assert [line.partition(",")[2][0] for line in lines[:40]] == ["K", *"_" * 19] * 2
    assert float(lines[-1].partition(",")[0]) == pytest.approx(at_s - 0.001, abs=0.001)


def test_a_lock_keeps_other_portals_away(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Two portals may record into one folder."""
    program = (
        "import fcntl, os, sys\n"
        "file = open(sys.argv[1], 'r+b')\n"
        "fcntl.flock(file, fcntl.LOCK_EX)\n"
        "print('locked', flush=True)\n"
        "sys.stdin.read()\n"
    )
    library = Library(tmp_path, 10)
    movie = begin_movie(library)
    cut(movie)
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / movie.name)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"locked\n"
        assert library.entries()[0].is_running
        assert library.recover() == 0
        assert caplog.text == ""
        with pytest.raises(RecordingError):
            library.delete(movie.name)
        with pytest.raises(OSError, match="no older recording"):
            library.enforce_quota()
        other.communicate(b"")
    assert not library.entries()[0].is_running
    library.enforce_quota()
    assert library.entries() == []


# --- Limits


def test_the_oldest_go(tmp_path: Path) -> None:
    library = Library(tmp_path, 5 * (len(STILL) + 1000) - 1)
    for after_s in range(10):
        library.add_still(STILL, LONG_AGO_S + after_s, bytes(1000))
    assert [entry.name[17:19] for entry in library.entries()] == ["11", "10", "09", "08"]
    assert library.used_bytes() == 4 * (len(STILL) + 1000)  # a thumbnail fills as well
    assert len(list(tmp_path.iterdir())) == 8  # their thumbnails, and no other


def test_what_runs_stays_though_it_is_the_oldest(tmp_path: Path) -> None:
    library = Library(tmp_path, 20_000_000)
    movie = begin_movie(library)
    library.add_still(STILL, LONG_AGO_S + 100)
    library.max_bytes = 1
    with pytest.raises(OSError, match="no older recording"):
        library.enforce_quota()
    assert [entry.name for entry in library.entries()] == [movie.name]
    movie.close()


def test_a_timelapse_goes_with_its_stills(tmp_path: Path) -> None:
    library = Library(tmp_path, None)
    fmt, taken = packets(1)
    movie = Mp4Writer(library, "timelapse", fmt, LONG_AGO_S, taken[0].began_s)
    movie.add(taken, 0.04)
    for number in (1, 2):
        library.add_to_timelapse(movie.name, number, STILL)
    movie.close()
    (entry,) = library.entries()
    assert entry.kind == "timelapse"
    assert entry.size == library.used_bytes() == (tmp_path / movie.name).stat().st_size + 2 * len(STILL)
    folder = tmp_path / "2026-11-20_23-15-02_timelapse"
    assert sorted(path.name for path in folder.iterdir()) == ["000001.jpg", "000002.jpg"]
    library.delete(movie.name)
    assert list(tmp_path.iterdir()) == []


def test_stills_whose_movie_is_gone_count_and_go(tmp_path: Path) -> None:
    library = Library(tmp_path, None)
    lonely = "2026-11-20_23-15-02_timelapse.mp4"
    library.add_to_timelapse(lonely, 1, STILL)
    assert library.used_bytes() == len(STILL)
    library.delete(lonely)
    assert list(tmp_path.iterdir()) == []
    library.add_to_timelapse(lonely, 1, STILL)
    library.add_still(STILL, LONG_AGO_S + 10)
    library.max_bytes = len(STILL)
    library.enforce_quota()
    assert [path.name for path in tmp_path.iterdir()] == ["2026-11-20_23-15-12.jpg"]


def test_a_running_file_that_is_taken_away_is_noticed(tmp_path: Path) -> None:
    folder = tmp_path / "stick"
    library = Library(folder, None)
    movie = begin_movie(library)
    library.check(movie.name)
    folder.rename(tmp_path / "away")
    with pytest.raises(FileNotFoundError, match="No such file"):
        library.check(movie.name)
    folder.mkdir()
    with pytest.raises(FileNotFoundError, match="taken away"):
        library.check(movie.name)
    (folder / movie.name).write_bytes(b"another one")
    with pytest.raises(FileNotFoundError, match="taken away"):
        library.check(movie.name)
    movie.close()
    assert (folder / movie.name).read_bytes() == b"another one"


def test_a_new_file_is_locked_though_others_look_at_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library, other = Library(tmp_path, None), Library(tmp_path, None)
    flock, asked = fcntl.flock, list[int]()

    def looked_at(file: Any, operation: int) -> None:
        asked.append(operation)
        if len(asked) == 1:
            assert [entry.is_running for entry in library.entries()] == [True]
            assert len(asked) == 1  # our own list leaves the lock alone
            raise BlockingIOError  # another portal does not
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", looked_at)
    name, descriptor = library.create("video", LONG_AGO_S)
    monkeypatch.undo()
    assert [entry.is_running for entry in other.entries()] == [True]
    os.close(descriptor)
    library.close_recording(name)


Disk = namedtuple("Disk", "f_bavail f_frsize f_blocks")  # noqa: PYI024 - as statvfs has it


@contextmanager
def disk(monkeypatch: pytest.MonkeyPatch, free: int, total: int) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setattr(os, "statvfs", lambda _: Disk(free, 1, total))
        yield


@pytest.mark.parametrize(("free", "total"), [(199_000_000, 10**12), (400_000, 10_000_000)])
def test_without_a_limit_nothing_goes_and_some_room_is_left(
    free: int, total: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = Library(tmp_path, None)
    library.add_still(STILL, LONG_AGO_S)
    with disk(monkeypatch, free, total), pytest.raises(OSError, match="the disk is full") as raised:
        library.enforce_quota()
    assert raised.value.errno == errno.ENOSPC
    with disk(monkeypatch, free + 2_000_000, total):
        library.enforce_quota()
    assert len(library.entries()) == 1


def test_with_a_limit_the_oldest_go_on_a_full_disk_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = Library(tmp_path, 10**12)
    for after_s in range(3):
        library.add_still(STILL, LONG_AGO_S + after_s)
    with disk(monkeypatch, 500_000 - len(STILL) - 1, 10_000_000):
        library.enforce_quota()
    assert [entry.name[17:19] for entry in library.entries()] == ["04"]


def test_the_limit_is_what_the_disk_can_give_where_that_is_less(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = Library(tmp_path, 10**12)
    library.add_still(STILL, LONG_AGO_S)
    with disk(monkeypatch, 700_000, 10_000_000):
        library.enforce_quota()
    assert library.quota == 200_000 + len(STILL)
    library.max_bytes = 100_000
    library.enforce_quota()
    assert library.quota == 100_000


class Mounts:
    """Which folders a disk is mounted at, each with a number of its own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.numbers: dict[Path, int] = {}
        self._stat = Path.stat
        monkeypatch.setattr(Path, "stat", lambda path, **how: self._told(path, **how))

    def _told(self, path: Path, **how: Any) -> os.stat_result:
        told = self._stat(path, **how)
        for mount, number in self.numbers.items():
            if path.is_relative_to(mount):
                return os.stat_result((told[0], told[1], number, *told[3:]))
        return told


def test_a_disk_that_is_gone_is_not_replaced_by_its_mount_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounts = Mounts(monkeypatch)
    stick = tmp_path / "stick"
    library = Library(stick / "cam0", None)
    library.add_still(STILL, LONG_AGO_S)
    mounts.numbers[stick] = 7  # mounted above the folder that was there
    library.add_still(STILL, LONG_AGO_S)
    mounts.numbers.clear()
    for step in (library.enforce_quota, library.check_writable, lambda: library.create("video", LONG_AGO_S)):
        with pytest.raises(OSError, match=r"the disk that was mounted at .*stick is gone"):
            step()
    assert len(list((stick / "cam0").iterdir())) == 2
    mounts.numbers[stick] = 8  # back, under another number
    library.add_still(STILL, LONG_AGO_S)
    assert len(library.entries()) == 3


def test_a_still_that_does_not_fit_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = Library(tmp_path, None)

    def fail(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fdatasync", fail)
    with pytest.raises(OSError, match="No space left"):
        library.add_still(STILL, LONG_AGO_S)
    assert list(tmp_path.iterdir()) == []


def test_listing_beside_a_thread_that_deletes(tmp_path: Path) -> None:
    library = Library(tmp_path, None)
    is_over = threading.Event()
    faults: list[Any] = []

    def churn() -> None:
        try:
            while not is_over.is_set():
                library.delete(library.add_still(STILL, LONG_AGO_S).name)
        except Exception as error:  # noqa: BLE001 - told below
            faults.append(error)

    thread = threading.Thread(target=churn)
    thread.start()
    until_s = time.monotonic() + 0.5
    while time.monotonic() < until_s:
        assert len(library.entries()) <= 1
        assert library.used_bytes() <= len(STILL)
    is_over.set()
    thread.join(10)
    assert faults == []


# --- Thumbnails


def test_thumbnails_are_small() -> None:
    large = jpeg.encode(numbered_frame(3, (1536, 864)), None, 90)
    small = thumbnail.of_jpeg(large)
    assert jpeg.size_of(small) == (320, 180)
    assert len(small) < 30_000
    assert jpeg.size_of(thumbnail.of_jpeg(STILL)) == (32, 16)


@pytest.mark.parametrize("size", [(640, 360), (64, 36)])
def test_the_thumbnail_of_a_picture_that_is_turned_is_turned(size: tuple[int, int]) -> None:
    turned = with_orientation(jpeg.encode(numbered_frame(3, size), None, 90), 6)
    small = thumbnail.of_jpeg(turned)
    assert Image.open(io.BytesIO(small)).getexif().get(0x0112) == 6
    assert small.count(b"Exif") == 1
