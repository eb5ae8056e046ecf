"""The folder of recordings: names, the list, the quota, deletion, and recovery after a crash."""

import errno
import fcntl
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

from softcam.errors import NoRecording, RecordingError
from softcam.h264.packet import Packet, VideoFormat
from softcam.imaging import jpeg
from softcam.mp4 import index
from softcam.mp4.index import Mp4Info
from softcam.recording.library import Library
from softcam.recording.mp4_file import Mp4Writer
from tests.support.fakes import make_frame
from tests.support.h264_samples import FPS, FakeSource, play

LONG_AGO_S = 1_795_216_502.0  # 2026-11-20 23:15:02 UTC
FFPROBE = ("ffprobe", "-v", "error", "-show_entries")
STILL = jpeg.encode(make_frame(size=(32, 16)), None, 80)


class Tape:
    """A sink that records packets."""

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


def open_video(library: Library, count: int = 40, began_s: float = LONG_AGO_S) -> Mp4Writer:
    """An open file with fragments of ten frames."""
    fmt, taken = packets(count)
    video = Mp4Writer(library, "video", fmt, began_s, taken[0].began_s)
    for place in range(0, count, 10):
        video.add(taken[place : place + 10], 1 / FPS)
    return video


def make_video(library: Library, began_s: float = LONG_AGO_S) -> str:
    video = open_video(library, began_s=began_s)
    video.close()
    return video.name


def interrupt(video: Mp4Writer, library: Library) -> None:
    """Leave the file as a crash does: without an index, and not locked."""
    path = library.folder / video.name
    content = path.read_bytes()
    video.close()
    path.write_bytes(content)


# --- Names and the list


def test_names(tmp_path: Path) -> None:
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


def test_entries_start_with_the_newest(tmp_path: Path) -> None:
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


def test_other_files_are_ignored(tmp_path: Path) -> None:
    (tmp_path / "holiday.mp4").write_bytes(b"x" * 1000)
    (tmp_path / "2026-11-20_23-15-02.txt").touch()
    (tmp_path / "2026-11-20_23-15-02").mkdir()
    library = Library(tmp_path, 10)
    assert library.entries() == []
    assert library.used_bytes() == 0
    library.enforce_quota()
    assert len(list(tmp_path.iterdir())) == 3


def test_invalid_file_is_listed_without_duration(tmp_path: Path) -> None:
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
def test_fail_invalid_names(name: str, tmp_path: Path) -> None:
    library = Library(tmp_path / "folder", None)
    (tmp_path / "2026-11-20_23-15-02.mp4").touch()
    (tmp_path / "folder" / ".2026-11-20_23-15-02.mp4.jpg").touch()
    for call in (library.open, library.delete, library.entry, library.thumbnail):
        with pytest.raises(NoRecording, match=r"^no (recording|thumbnail)"):
            call(name)
    assert (tmp_path / "2026-11-20_23-15-02.mp4").exists()


@given(name=st.text(max_size=30))
def test_fail_any_other_name(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    library = Library(tmp_path_factory.getbasetemp(), None)
    with pytest.raises(NoRecording):
        library.open(name)


def test_links_and_fifos_are_not_opened(tmp_path: Path) -> None:
    library = Library(tmp_path / "folder", None)
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "folder" / "2026-11-20_23-15-02.mp4").symlink_to(tmp_path / "secret")
    with pytest.raises(RecordingError):
        library.open("2026-11-20_23-15-02.mp4")
    os.mkfifo(tmp_path / "folder" / "2026-11-20_23-15-03.mp4")  # opening it would wait for a writer
    with pytest.raises(NoRecording):
        library.open("2026-11-20_23-15-03.mp4")
    assert library.entries() == []
    assert library.recover() == 0


def test_fail_missing_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    library = Library(tmp_path / "file" / "folder", None)
    with pytest.raises(OSError, match="Not a directory"):
        library.entries()
    with pytest.raises(OSError, match="Not a directory"):
        library.enforce_quota()
    with pytest.raises(OSError, match="Not a directory"):
        library.add_still(STILL, LONG_AGO_S)


# --- MP4 files


def test_finished_file(tmp_path: Path) -> None:
    library = Library(tmp_path, None)
    name = make_video(library)
    (entry,) = library.entries()
    assert entry.duration_s == pytest.approx(2.0, abs=0.001)
    assert (entry.width, entry.height, entry.is_running) == (64, 48, False)
    file, whole = library.open(name)
    with file:
        assert whole == entry.size == len(file.read())
    seen = play(tmp_path / name)
    assert len(seen.numbers) == 40
    assert seen.duration_s == pytest.approx(2.0, abs=0.01)


def test_running_file_ends_with_its_last_whole_fragment(tmp_path: Path) -> None:
    library = Library(tmp_path, None)
    video = open_video(library)
    (entry,) = library.entries()
    assert (entry.is_running, entry.size) == (True, video.size)
    assert entry.duration_s == pytest.approx(2.0, abs=0.001)
    os.pwrite(video._descriptor, b"half a fragment", video.size)
    file, whole = library.open(video.name)
    with file:
        assert whole == video.size
    with pytest.raises(RecordingError, match="stop the recording first"):
        library.delete(video.name)
    assert library.recover() == 0
    video.close()
    assert len(play(tmp_path / video.name).numbers) == 40
    library.delete(video.name)
    assert list(tmp_path.iterdir()) == []


def test_growing_file_is_read_once(tmp_path: Path) -> None:
    reads: list[int] = []

    def read(descriptor: int) -> Mp4Info:
        reads.append(descriptor)
        return index.read_mp4(descriptor)

    library = Library(tmp_path, None, read)
    _, given = packets(1)
    video = open_video(library, 40)
    last = library.entries()[0]
    for number in range(40, 60):
        video.add([Packet(given[0].data, True, video.zero_s + number / FPS, 0.0)], 1 / FPS)
        (entry,) = library.entries()
        assert entry.duration_s == pytest.approx((number + 1) / FPS, abs=0.001)
        assert (entry.is_running, entry.size, entry.width) == (True, video.size, last.width)
    assert len(reads) == 1
    video.close()
    (entry,) = library.entries()
    assert (entry.is_running, entry.size) == (False, (tmp_path / video.name).stat().st_size)
    assert entry.duration_s == pytest.approx(60 / FPS, abs=0.001)


@pytest.mark.parametrize("missing", [0, 1, 100, 3000])
def test_interrupted_file_is_recovered(missing: int, tmp_path: Path) -> None:
    library = Library(tmp_path, None)
    video = open_video(library)
    interrupt(video, library)
    path = tmp_path / video.name
    os.truncate(path, path.stat().st_size - missing)
    (entry,) = library.entries()
    assert not entry.is_running
    assert entry.duration_s == pytest.approx(
        2.0 if not missing else 1.5 if missing < 3000 else entry.duration_s, abs=0.01
    )
    assert library.recover() == 1
    (recovered,) = library.entries()
    seen = play(path)
    assert recovered.duration_s == pytest.approx(entry.duration_s, abs=0.001)
    assert seen.duration_s == pytest.approx(recovered.duration_s, abs=0.01)
    assert len(seen.numbers) == pytest.approx(seen.duration_s * FPS)
    assert library.recover() == 0


def test_interruption_at_any_byte(tmp_path: Path) -> None:
    """At any byte: the frames of whole fragments are readable, and recovery does not fail."""
    library = Library(tmp_path, None)
    video = open_video(library, count=20)
    interrupt(video, library)
    path = tmp_path / video.name
    content = path.read_bytes()
    lengths = set()
    for end in range(0, len(content), 41):
        path.write_bytes(content[:end])
        library.recover()
        duration_s = library.entry(video.name).duration_s
        lengths.add(None if duration_s is None else round(duration_s, 2))
        if duration_s:
            assert len(play(path).numbers) == round(duration_s * FPS)
    assert lengths == {None, 0.0, 0.5}


def test_10000_frames_at_uneven_times(tmp_path: Path) -> None:
    library = Library(tmp_path, None)
    fmt, (keyframe, other, *_) = packets(2)
    video = Mp4Writer(library, "video", fmt, LONG_AGO_S, 0.0)
    at_s = 0.0
    for number in range(10_000):
        at_s += 0.001 * (number % 7 + 1)
        data = (keyframe if number % 20 == 0 else other).data
        video.add([Packet(data, number % 20 == 0, at_s, at_s)], 0.001)
    video.close()
    answer = subprocess.run(
        [*FFPROBE, "packet=pts_time,flags:stream=nb_frames", "-of", "csv=p=0", str(tmp_path / video.name)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    *lines, count = answer.stdout.split()
    assert int(count) == len(lines) == 10_000
    assert [line.partition(",")[2][0] for line in lines[:40]] == ["K", *"_" * 19] * 2
    assert float(lines[-1].partition(",")[0]) == pytest.approx(at_s - 0.001, abs=0.001)


def test_locked_file_of_another_portal(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Two portals may record to one folder."""
    program = (
        "import fcntl, os, sys\n"
        "file = open(sys.argv[1], 'r+b')\n"
        "fcntl.flock(file, fcntl.LOCK_EX)\n"
        "print('locked', flush=True)\n"
        "sys.stdin.read()\n"
    )
    library = Library(tmp_path, 10)
    video = open_video(library)
    interrupt(video, library)
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / video.name)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"locked\n"
        assert library.entries()[0].is_running
        assert library.recover() == 0
        assert caplog.text == ""
        with pytest.raises(RecordingError):
            library.delete(video.name)
        with pytest.raises(OSError, match="no older recording"):
            library.enforce_quota()
        other.communicate(b"")
    assert not library.entries()[0].is_running
    library.enforce_quota()
    assert library.entries() == []


# --- Quota


def test_quota_deletes_the_oldest(tmp_path: Path) -> None:
    library = Library(tmp_path, 5 * (len(STILL) + 1000) - 1)
    for after_s in range(10):
        library.add_still(STILL, LONG_AGO_S + after_s, bytes(1000))
    assert [entry.name[17:19] for entry in library.entries()] == ["11", "10", "09", "08"]
    assert library.used_bytes() == 4 * (len(STILL) + 1000)  # thumbnails count
    assert len(list(tmp_path.iterdir())) == 8  # with their thumbnails


def test_quota_keeps_running_file(tmp_path: Path) -> None:
    library = Library(tmp_path, 20_000_000)
    video = open_video(library)
    library.add_still(STILL, LONG_AGO_S + 100)
    with pytest.raises(OSError, match="no older recording"):
        Library(tmp_path, 1).enforce_quota()
    assert [entry.name for entry in library.entries()] == [video.name]
    video.close()


def test_delete_timelapse_with_stills(tmp_path: Path) -> None:
    library = Library(tmp_path, None)
    fmt, taken = packets(1)
    video = Mp4Writer(library, "timelapse", fmt, LONG_AGO_S, taken[0].began_s)
    video.add(taken, 0.04)
    for number in (1, 2):
        library.add_to_timelapse(video.name, number, STILL)
    video.close()
    (entry,) = library.entries()
    assert entry.kind == "timelapse"
    assert entry.size == library.used_bytes() == (tmp_path / video.name).stat().st_size + 2 * len(STILL)
    folder = tmp_path / "2026-11-20_23-15-02_timelapse"
    assert sorted(path.name for path in folder.iterdir()) == ["000001.jpg", "000002.jpg"]
    library.delete(video.name)
    assert list(tmp_path.iterdir()) == []


def test_stills_without_video_count_and_are_deleted(tmp_path: Path) -> None:
    library = Library(tmp_path, None)
    lonely = "2026-11-20_23-15-02_timelapse.mp4"
    library.add_to_timelapse(lonely, 1, STILL)
    assert library.used_bytes() == len(STILL)
    library.delete(lonely)
    assert list(tmp_path.iterdir()) == []
    library.add_to_timelapse(lonely, 1, STILL)
    library.add_still(STILL, LONG_AGO_S + 10)
    Library(tmp_path, len(STILL)).enforce_quota()
    assert [path.name for path in tmp_path.iterdir()] == ["2026-11-20_23-15-12.jpg"]


def test_removed_running_file_is_detected(tmp_path: Path) -> None:
    folder = tmp_path / "stick"
    library = Library(folder, None)
    video = open_video(library)
    library.check(video.name)
    folder.rename(tmp_path / "away")
    with pytest.raises(FileNotFoundError, match="No such file"):
        library.check(video.name)
    folder.mkdir()
    with pytest.raises(FileNotFoundError, match="was removed"):
        library.check(video.name)
    (folder / video.name).write_bytes(b"another one")
    with pytest.raises(FileNotFoundError, match="was removed"):
        library.check(video.name)
    video.close()
    assert (folder / video.name).read_bytes() == b"another one"


def test_new_file_is_locked_while_others_check_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library, other = Library(tmp_path, None), Library(tmp_path, None)
    flock, asked = fcntl.flock, list[int]()

    def looked_at(file: Any, operation: int) -> None:
        asked.append(operation)
        if len(asked) == 1:
            assert [entry.is_running for entry in library.entries()] == [True]
            assert len(asked) == 1  # our own list does not try the lock
            raise BlockingIOError  # as if another portal did
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
def test_without_limit_nothing_is_deleted_and_a_reserve_is_kept(
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


def test_quota_deletes_the_oldest_on_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = Library(tmp_path, 10**12)
    for after_s in range(3):
        library.add_still(STILL, LONG_AGO_S + after_s)
    with disk(monkeypatch, 500_000 - len(STILL) - 1, 10_000_000):
        library.enforce_quota()
    assert [entry.name[17:19] for entry in library.entries()] == ["04"]


def test_quota_is_limited_by_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = Library(tmp_path, 10**12)
    library.add_still(STILL, LONG_AGO_S)
    with disk(monkeypatch, 700_000, 10_000_000):
        library.enforce_quota()
    assert library.quota == 200_000 + len(STILL)
    small = Library(tmp_path, 100_000)
    small.enforce_quota()
    assert small.quota == 100_000


class Mounts:
    """The mount points of disks with their device numbers."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.numbers: dict[Path, int] = {}
        self._stat = Path.stat
        monkeypatch.setattr(Path, "stat", lambda path, **how: self._stat_of(path, **how))

    def _stat_of(self, path: Path, **how: Any) -> os.stat_result:
        status = self._stat(path, **how)
        for mount, number in self.numbers.items():
            if path.is_relative_to(mount):
                return os.stat_result((status[0], status[1], number, *status[3:]))
        return status


def test_fail_unmounted_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = Mounts(monkeypatch)
    stick = tmp_path / "stick"
    library = Library(stick / "cam0", None)
    library.add_still(STILL, LONG_AGO_S)
    mounts.numbers[stick] = 7  # mounted above the existing folder
    library.add_still(STILL, LONG_AGO_S)
    mounts.numbers.clear()
    for step in (library.enforce_quota, library.check_writable, lambda: library.create("video", LONG_AGO_S)):
        with pytest.raises(OSError, match=r"the disk mounted at .*stick is gone"):
            step()
    assert len(list((stick / "cam0").iterdir())) == 2
    mounts.numbers[stick] = 8  # mounted again with another number
    library.add_still(STILL, LONG_AGO_S)
    assert len(library.entries()) == 3


def test_failed_still_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = Library(tmp_path, None)

    def fail(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fdatasync", fail)
    with pytest.raises(OSError, match="No space left"):
        library.add_still(STILL, LONG_AGO_S)
    assert list(tmp_path.iterdir()) == []


def test_listing_while_another_thread_deletes(tmp_path: Path) -> None:
    library = Library(tmp_path, None)
    is_over = threading.Event()
    faults: list[Any] = []

    def churn() -> None:
        try:
            while not is_over.is_set():
                library.delete(library.add_still(STILL, LONG_AGO_S).name)
        except Exception as error:  # noqa: BLE001 - asserted below
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
