"""The folder of recordings: names, the list, what files contain, and deletion."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from softcam.errors import NoRecording, RecordingError
from softcam.h264.packet import Packet
from softcam.mp4 import index
from softcam.mp4.index import Mp4Info
from softcam.recording.catalog import View
from softcam.recording.library import Library
from softcam.recording.mp4_file import Mp4Writer
from tests.support.h264_samples import FPS, play
from tests.support.recordings import LONG_AGO_S, STILL, contents, make_video, open_video, packets
from tests.support.timeouts import PATIENCE_S

FFPROBE = ("ffprobe", "-v", "error", "-show_entries")


def test_names(tmp_path: Path) -> None:
    library = Library(tmp_path / "deep" / "folder", None)
    names = [library.create_recording(kind, LONG_AGO_S) for kind in ("video", "video", "timelapse", "still")]
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
    assert library.catalog.entries() == []
    for after_s in (0, 0, 3600, 60):
        library.add_still(STILL, LONG_AGO_S + after_s)
    assert [entry.name[11:] for entry in library.catalog.entries()] == [
        "00-15-02.jpg",
        "23-16-02.jpg",
        "23-15-02-2.jpg",
        "23-15-02.jpg",
    ]
    first = library.catalog.entries()[-1]
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
    assert library.catalog.entries() == []
    assert library.catalog.used_bytes() == 0
    library.enforce_quota()
    assert len(contents(tmp_path)) == 3


def test_invalid_file_is_listed_without_duration(tmp_path: Path) -> None:
    library = Library(tmp_path, None)
    for content in (bytes(100), b"\0\0\0\x10ftypisom", os.urandom(5000)):
        (tmp_path / "2026-02-31_23-15-02.mp4").write_bytes(content)
        (tmp_path / "2026-11-20_23-15-02.jpg").write_bytes(content)
        entries = library.catalog.entries()
        assert [(entry.duration_s, entry.width) for entry in entries] == [(None, None)] * 2
        assert library.recover() == 0
    for entry in entries:
        library.delete_recording(entry.name)
    assert library.catalog.entries() == []


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
def test_invalid_names_are_not_found(name: str, tmp_path: Path) -> None:
    library = Library(tmp_path / "folder", None)
    (tmp_path / "2026-11-20_23-15-02.mp4").touch()
    (tmp_path / "folder" / ".2026-11-20_23-15-02.mp4.jpg").touch()
    catalog = library.catalog
    for call in (catalog.open_recording, library.delete_recording, catalog.entry, catalog.thumbnail):
        with pytest.raises(NoRecording, match=r"^no (recording|thumbnail)"):
            call(name)
    assert (tmp_path / "2026-11-20_23-15-02.mp4").exists()


@given(name=st.text(max_size=30))
def test_any_other_name_is_not_found(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    library = Library(tmp_path_factory.getbasetemp(), None)
    with pytest.raises(NoRecording):
        library.catalog.open_recording(name)


def test_links_and_fifos_are_not_opened(tmp_path: Path) -> None:
    library = Library(tmp_path / "folder", None)
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "folder" / "2026-11-20_23-15-02.mp4").symlink_to(tmp_path / "secret")
    with pytest.raises(RecordingError):
        library.catalog.open_recording("2026-11-20_23-15-02.mp4")
    os.mkfifo(tmp_path / "folder" / "2026-11-20_23-15-03.mp4")  # opening it would wait for a writer
    with pytest.raises(NoRecording):
        library.catalog.open_recording("2026-11-20_23-15-03.mp4")
    assert library.catalog.entries() == []
    assert library.recover() == 0


def test_missing_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    library = Library(tmp_path / "file" / "folder", None)
    with pytest.raises(OSError, match="Not a directory"):
        library.catalog.entries()
    with pytest.raises(OSError, match="Not a directory"):
        library.enforce_quota()
    with pytest.raises(OSError, match="Not a directory"):
        library.add_still(STILL, LONG_AGO_S)


def test_finished_file(tmp_path: Path) -> None:
    library = Library(tmp_path, None)
    name = make_video(library)
    (entry,) = library.catalog.entries()
    assert entry.duration_s == pytest.approx(2.0, abs=0.001)
    assert (entry.width, entry.height, entry.is_running) == (64, 48, False)
    file, whole = library.catalog.open_recording(name)
    with file:
        assert whole == entry.size == len(file.read())
    seen = play(tmp_path / name)
    assert len(seen.numbers) == 40
    assert seen.duration_s == pytest.approx(2.0, abs=0.01)


def viewed(library: Library, name: str) -> bytes:
    """What players get of a file."""
    file, view = library.catalog.open_view(name, has_index=True)
    with file:
        return view.head + file.read()[len(view.head) : view.whole] + view.tail


def test_view_of_unfinished_file_is_that_of_the_finished_one(tmp_path: Path) -> None:
    library = Library(tmp_path, None)
    video = open_video(library)
    with (tmp_path / video.name).open("ab") as end:
        end.write(b"half a fragment")
    running = viewed(library, video.name)
    file, view = library.catalog.open_view(video.name)
    file.close()
    assert (view.whole, view.head, view.tail) == (video.size, b"", b""), "a download can be continued"
    video.close()
    assert running == viewed(library, video.name) == (tmp_path / video.name).read_bytes()


def test_view_remains_the_same_while_it_is_played(tmp_path: Path) -> None:
    fmt, taken = packets(40)
    for view_s, is_same in ((3600.0, True), (0.0, False)):
        library = Library(tmp_path / str(view_s), None, view_s=view_s)
        video = Mp4Writer(library, "video", fmt, LONG_AGO_S, taken[0].began_s)
        video.add_fragment(taken[:20], 1 / FPS)
        before = viewed(library, video.name)
        video.add_fragment(taken[20:], 1 / FPS)
        assert (viewed(library, video.name) == before) == is_same
        video.close()
        assert viewed(library, video.name) == (tmp_path / str(view_s) / video.name).read_bytes()


def test_requests_at_once_share_a_view(tmp_path: Path) -> None:
    library = Library(tmp_path, None)
    video = open_video(library)
    start, views = threading.Barrier(8), list[View]()

    def request() -> None:
        start.wait(PATIENCE_S)
        file, view = library.catalog.open_view(video.name, has_index=True)
        file.close()
        views.append(view)

    threads = [threading.Thread(target=request) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert len(views) == 8
    assert all(view is views[0] for view in views)
    assert views[0].tail
    video.close()


def test_view_that_is_no_longer_used_is_dropped_by_the_list(tmp_path: Path) -> None:
    library = Library(tmp_path, None, view_s=0.0)
    video = open_video(library)
    file, view = library.catalog.open_view(video.name, has_index=True)
    file.close()
    uses = sys.getrefcount(view)
    library.catalog.entries()
    assert sys.getrefcount(view) == uses - 1
    video.close()


def test_running_file_ends_with_its_last_whole_fragment(tmp_path: Path) -> None:
    library = Library(tmp_path, None)
    video = open_video(library)
    (entry,) = library.catalog.entries()
    assert (entry.is_running, entry.size) == (True, video.size)
    assert entry.duration_s == pytest.approx(2.0, abs=0.001)
    with (tmp_path / video.name).open("ab") as end:
        end.write(b"half a fragment")
    file, whole = library.catalog.open_recording(video.name)
    with file:
        assert whole == video.size
    with pytest.raises(RecordingError, match="stop the recording first"):
        library.delete_recording(video.name)
    assert library.recover() == 0
    video.close()
    assert len(play(tmp_path / video.name).numbers) == 40
    library.delete_recording(video.name)
    assert contents(tmp_path) == []


def test_growing_file_is_read_once(tmp_path: Path) -> None:
    reads: list[int] = []

    def read(descriptor: int) -> Mp4Info:
        reads.append(descriptor)
        return index.read_mp4(descriptor)

    library = Library(tmp_path, None, read)
    _, given = packets(1)
    video = open_video(library, 40)
    last = library.catalog.entries()[0]
    for number in range(40, 60):
        video.add_fragment([Packet(given[0].data, True, video.zero_s + number / FPS, 0.0)], 1 / FPS)
        (entry,) = library.catalog.entries()
        assert entry.duration_s == pytest.approx((number + 1) / FPS, abs=0.001)
        assert (entry.is_running, entry.size, entry.width) == (True, video.size, last.width)
    assert len(reads) == 1
    video.close()
    (entry,) = library.catalog.entries()
    assert (entry.is_running, entry.size) == (False, (tmp_path / video.name).stat().st_size)
    assert entry.duration_s == pytest.approx(60 / FPS, abs=0.001)


def test_10000_frames_at_uneven_times(tmp_path: Path) -> None:
    library = Library(tmp_path, None)
    fmt, (keyframe, other, *_) = packets(2)
    video = Mp4Writer(library, "video", fmt, LONG_AGO_S, 0.0)
    at_s = 0.0
    for number in range(10_000):
        at_s += 0.001 * (number % 7 + 1)
        data = (keyframe if number % 20 == 0 else other).data
        video.add_fragment([Packet(data, number % 20 == 0, at_s, at_s)], 0.001)
    video.close()
    answer = subprocess.run(
        [*FFPROBE, "packet=pts_time,flags:stream=nb_frames", "-of", "csv=p=0", str(tmp_path / video.name)],
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE_S,
    )
    *lines, count = answer.stdout.split()
    assert int(count) == len(lines) == 10_000
    assert [line.partition(",")[2][0] for line in lines[:40]] == ["K", *"_" * 19] * 2
    assert float(lines[-1].partition(",")[0]) == pytest.approx(at_s - 0.001, abs=0.001)


def test_delete_timelapse_with_stills(tmp_path: Path) -> None:
    library = Library(tmp_path, None)
    fmt, taken = packets(1)
    video = Mp4Writer(library, "timelapse", fmt, LONG_AGO_S, taken[0].began_s)
    video.add_fragment(taken, 0.04)
    for number in (1, 2):
        library.add_to_timelapse(video.name, number, STILL)
    video.close()
    (entry,) = library.catalog.entries()
    assert entry.kind == "timelapse"
    assert entry.size == library.catalog.used_bytes() == (tmp_path / video.name).stat().st_size + 2 * len(STILL)
    folder = tmp_path / "2026-11-20_23-15-02_timelapse"
    assert sorted(path.name for path in folder.iterdir()) == ["000001.jpg", "000002.jpg"]
    library.delete_recording(video.name)
    assert contents(tmp_path) == []


def test_stills_are_not_summed_again_for_each_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = Library(tmp_path, None)
    name = "2026-11-20_23-15-02_timelapse.mp4"
    folder = tmp_path / name.removesuffix(".mp4")
    scandir, scanned = os.scandir, list[Path]()

    def scan(path: Path) -> Any:
        scanned.append(path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", scan)
    for number in range(1, 10):
        library.add_to_timelapse(name, number, STILL)
        assert library.catalog.used_bytes() == number * len(STILL)
    assert scanned.count(folder) == 1, "when it was empty"
    (folder / "000005.jpg").unlink()
    os.utime(folder, (1, 1))
    assert library.catalog.used_bytes() == 8 * len(STILL)
    library.add_to_timelapse(name, 10, STILL)
    assert library.catalog.used_bytes() == 9 * len(STILL)
    assert scanned.count(folder) == 2


def test_stills_without_video_count_and_are_deleted(tmp_path: Path) -> None:
    library = Library(tmp_path, None)
    lonely = "2026-11-20_23-15-02_timelapse.mp4"
    library.add_to_timelapse(lonely, 1, STILL)
    assert library.catalog.used_bytes() == len(STILL)
    library.delete_recording(lonely)
    assert contents(tmp_path) == []
    library.add_to_timelapse(lonely, 1, STILL)
    library.recover()
    library.add_still(STILL, LONG_AGO_S + 10)
    Library(tmp_path, len(STILL)).enforce_quota()
    assert [path.name for path in contents(tmp_path)] == ["2026-11-20_23-15-12.jpg"]


def test_listing_while_another_thread_deletes(tmp_path: Path) -> None:
    library = Library(tmp_path, None)
    is_over = threading.Event()
    faults: list[Any] = []

    def churn() -> None:
        try:
            while not is_over.is_set():
                library.delete_recording(library.add_still(STILL, LONG_AGO_S).name)
        except Exception as error:  # noqa: BLE001 - asserted below
            faults.append(error)

    thread = threading.Thread(target=churn)
    thread.start()
    until_s = time.monotonic() + 0.5
    while time.monotonic() < until_s:
        assert len(library.catalog.entries()) <= 1
        assert library.catalog.used_bytes() <= len(STILL)
    is_over.set()
    thread.join(PATIENCE_S)
    assert faults == []
