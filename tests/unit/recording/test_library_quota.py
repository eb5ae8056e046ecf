"""The size limit of the recordings, full disks, and disks that are unmounted."""

import errno
import os
import shutil
import time
from collections import namedtuple
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from softcam.errors import NoRecording
from softcam.recording.catalog import Catalog
from softcam.recording.library import Library
from softcam.recording.mp4_file import Mp4Writer
from tests.support.background import Background
from tests.support.recordings import LONG_AGO_S, STILL, contents, make_video, open_video, packets

Disk = namedtuple("Disk", "f_bavail f_frsize f_blocks")  # noqa: PYI024 - as statvfs has it


@contextmanager
def disk(monkeypatch: pytest.MonkeyPatch, free: int, total: int) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setattr(os, "statvfs", lambda _: Disk(free, 1, total))
        yield


def test_quota_deletes_the_oldest(tmp_path: Path) -> None:
    library = Library(tmp_path, 5 * (len(STILL) + 1000) - 1)
    for after_s in range(10):
        library.add_still(STILL, LONG_AGO_S + after_s, bytes(1000))
    assert [entry.name[17:19] for entry in library.catalog.entries()] == ["11", "10", "09", "08"]
    assert library.catalog.used_bytes() == 4 * (len(STILL) + 1000)  # thumbnails count
    assert len(contents(tmp_path)) == 8  # with their thumbnails


def test_small_recordings_are_deleted_many_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One percent of the limit, with one sync of the folder."""
    library = Library(tmp_path, None)
    for after_s in range(20):
        library.add_still(STILL, LONG_AGO_S + after_s)
    library = Library(tmp_path, 500 * len(STILL))
    library.enforce_quota()
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    library.enforce_quota(481 * len(STILL) + 1)
    assert [entry.name[17:19] for entry in library.catalog.entries()][::-1] == [
        f"{second:02}" for second in range(8, 22)
    ]
    assert len(synced) == 1
    library.enforce_quota(485 * len(STILL))
    assert len(library.catalog.entries()) == 14, "within the limit, nothing is deleted"
    assert len(synced) == 1


def test_many_deletions_have_one_line_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    library = Library(tmp_path, None)
    names = [library.add_still(STILL, LONG_AGO_S + after_s).name for after_s in range(20)]
    with caplog.at_level("INFO"):
        Library(tmp_path, 5 * len(STILL)).enforce_quota()
        Library(tmp_path, 4 * len(STILL)).enforce_quota()
    assert caplog.messages == [
        f"Deleted 15 recordings, the oldest, to free space: {names[0]} to {names[14]}, {15 * len(STILL) / 1e6:.1f} MB",
        f"Deleted {names[15]}, the oldest recording, to free space",
    ]


def test_nothing_is_deleted_if_that_makes_too_little_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is full of other files."""
    library = Library(tmp_path, 10**12)
    library.add_still(STILL, LONG_AGO_S)
    with disk(monkeypatch, 1000, 10_000_000), pytest.raises(OSError, match="no older recording to delete"):
        library.enforce_quota()
    assert len(library.catalog.entries()) == 1


def test_share_of_a_file_is_an_eighth_of_what_is_not_kept(tmp_path: Path) -> None:
    library = Library(tmp_path, 80_000)
    assert library.share == 10_000
    name = library.add_still(STILL, LONG_AGO_S).name
    library.mark(name, is_kept=True)
    library.enforce_quota()
    assert library.share == (80_000 - len(STILL)) // 8
    assert Library(tmp_path, None).share is None


def test_no_further_recording_is_deleted_if_it_exceeds_the_slack(tmp_path: Path) -> None:
    library = Library(tmp_path, None)
    for after_s in range(4):
        library.add_still(STILL, LONG_AGO_S + after_s)
    Library(tmp_path, 3 * len(STILL)).enforce_quota()
    assert len(library.catalog.entries()) == 3


def test_quota_keeps_running_file(tmp_path: Path) -> None:
    library = Library(tmp_path, 20_000_000)
    video = open_video(library)
    library.add_still(STILL, LONG_AGO_S + 100)
    with pytest.raises(OSError, match="no older recording"):
        Library(tmp_path, 1).enforce_quota()
    assert [entry.name for entry in library.catalog.entries()] == [video.name]
    video.close()


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
    assert len(library.catalog.entries()) == 1


def test_quota_deletes_the_oldest_on_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = Library(tmp_path, 10**12)
    for after_s in range(3):
        library.add_still(STILL, LONG_AGO_S + after_s)
    with disk(monkeypatch, 500_000 - len(STILL) - 1, 10_000_000):
        library.enforce_quota()
    assert [entry.name[17:19] for entry in library.catalog.entries()] == ["04"]


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


def test_unmounted_disk_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = Mounts(monkeypatch)
    stick = tmp_path / "stick"
    library = Library(stick / "cam0", None)
    library.add_still(STILL, LONG_AGO_S)
    mounts.numbers[stick] = 7  # mounted above the existing folder
    library.add_still(STILL, LONG_AGO_S)
    mounts.numbers.clear()
    for step in (
        library.enforce_quota,
        library.require_writable,
        lambda: library.create_recording("video", LONG_AGO_S),
    ):
        with pytest.raises(OSError, match=r"the disk mounted at .*stick is gone"):
            step()
    assert len(contents(stick / "cam0")) == 2
    mounts.numbers[stick] = 8  # mounted again with another number
    library.add_still(STILL, LONG_AGO_S)
    assert len(library.catalog.entries()) == 3


def test_running_file_is_hidden_by_a_mounted_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = Mounts(monkeypatch)
    stick = tmp_path / "stick"
    library = Library(stick / "cam0", None)
    video = open_video(library)
    mounts.numbers[stick] = 7
    with pytest.raises(FileNotFoundError, match="another disk was mounted over the folder, which hides the file"):
        library.require_present(video.name)
    (stick / "cam0" / video.name).unlink()  # as if it had been on that disk
    mounts.numbers.clear()
    with pytest.raises(OSError, match=r"the disk mounted at .*stick is gone"):
        library.require_present(video.name)
    video.close()


def test_folder_is_created_on_disk_that_is_mounted_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = Mounts(monkeypatch)
    stick = tmp_path / "stick"
    library = Library(stick / "videos" / "cam0", None)
    library.add_still(STILL, LONG_AGO_S)
    shutil.rmtree(stick / "videos")
    with pytest.raises(OSError, match="No such file"):  # removed by hand
        library.enforce_quota()
    mounts.numbers[stick] = 7
    library.add_still(STILL, LONG_AGO_S)
    mounts.numbers.clear()
    shutil.rmtree(stick / "videos")
    with pytest.raises(OSError, match="No such file"):  # unmounted
        library.enforce_quota()
    assert not (stick / "videos").exists()


def test_failed_still_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = Library(tmp_path, None)

    def fail(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        library.add_still(STILL, LONG_AGO_S)
    assert contents(tmp_path) == []


def test_photo_is_saved_without_its_thumbnail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    library = Library(tmp_path, None)
    fsync, synced = os.fsync, list[int]()

    def fail(descriptor: int) -> None:
        synced.append(descriptor)
        if len(synced) > 2:  # after the photo and its name
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fail)
    with caplog.at_level("DEBUG"):
        entry = library.add_still(STILL, LONG_AGO_S, STILL)
    assert not entry.has_thumbnail
    assert len(synced) == 3
    assert [path.read_bytes() for path in contents(tmp_path)] == [STILL]
    assert caplog.messages == [f"No thumbnail of {entry.name}: [Errno 28] No space left on device"]


DAY_S = 86_400


def names_of(library: Library) -> set[str]:
    return {entry.name for entry in library.catalog.entries()}


@pytest.mark.parametrize("offset_s", [-56 * 365 * DAY_S, -3600, 3600, 12 * 365 * DAY_S], ids=str)
def test_quota_keeps_what_ended_last_whatever_the_clock_says(offset_s: int, tmp_path: Path) -> None:
    """The clock is behind or ahead, and is set between two recordings."""
    library = Library(tmp_path, 2 * len(STILL))
    wrong = [library.add_still(STILL, LONG_AGO_S + offset_s + at_s).name for at_s in (0, 1)]
    right = library.add_still(STILL, LONG_AGO_S).name
    assert names_of(library) == {wrong[1], right}
    wrong.append(library.add_still(STILL, LONG_AGO_S + offset_s + 5).name)
    assert names_of(Library(tmp_path, None)) == {right, wrong[2]}


def test_files_of_a_clock_that_ran_ahead_go_first(tmp_path: Path) -> None:
    """Also those of another version, which has not saved an order."""
    ahead = [f"2038-01-0{day}_00-00-00.jpg" for day in (1, 2)]
    for name in ahead:
        (tmp_path / name).write_bytes(STILL)
    library = Library(tmp_path, 2 * len(STILL))
    library.recover()
    fresh = [library.add_still(STILL, LONG_AGO_S + at_s).name for at_s in range(3)]
    assert names_of(library) == set(fresh[1:])


def test_files_copied_in_are_as_new_as_their_arrival(tmp_path: Path) -> None:
    library = Library(tmp_path, 3 * len(STILL))
    first = library.add_still(STILL, LONG_AGO_S).name
    copied = tmp_path / "2019-01-01_00-00-00.jpg"
    copied.write_bytes(STILL)
    os.utime(copied, (0, 0))
    library.enforce_quota()
    second = library.add_still(STILL, LONG_AGO_S + 1).name
    third = library.add_still(STILL, LONG_AGO_S + 2).name
    assert names_of(library) == {copied.name, second, third}, f"without {first}"
    library.add_still(STILL, LONG_AGO_S + 3)
    assert not copied.exists()


def test_timelapse_is_as_old_as_its_end(tmp_path: Path) -> None:
    """It began before all others."""
    library = Library(tmp_path, 10**5)
    fmt, taken = packets(1)
    lapse = Mp4Writer(library, "timelapse", fmt, LONG_AGO_S - DAY_S, taken[0].began_s)
    lapse.add_fragment(taken, 0.04)
    videos = [make_video(library, LONG_AGO_S + at_s) for at_s in (0, 10)]
    lapse.close()
    last = make_video(library, LONG_AGO_S + 20)
    for left in ({videos[1], lapse.name, last}, {lapse.name, last}, {last}):
        used = library.catalog.used_bytes()
        library.enforce_quota(10**5 - used + 1)
        assert names_of(library) == left


def test_interrupted_recording_is_newer_than_what_ended_before(tmp_path: Path) -> None:
    library = Library(tmp_path, None)
    video = open_video(library, began_s=LONG_AGO_S - DAY_S)
    photo = library.add_still(STILL, LONG_AGO_S).name
    content = (tmp_path / video.name).read_bytes()
    video.close()
    # As a crash leaves the folder.
    (tmp_path / video.name).write_bytes(content)
    (tmp_path / ".order").write_text(f"{photo}\n")
    again = Library(tmp_path, 10**5)
    assert again.recover() == 1
    again.enforce_quota(10**5 - again.catalog.used_bytes() + 1)
    assert names_of(again) == {video.name}


def test_kept_recordings_are_not_deleted(tmp_path: Path) -> None:
    library = Library(tmp_path, 2 * len(STILL))
    kept = library.add_still(STILL, LONG_AGO_S).name
    library.mark(kept, is_kept=True)
    others = [library.add_still(STILL, LONG_AGO_S + at_s).name for at_s in (1, 2)]
    assert {entry.name: entry.is_kept for entry in library.catalog.entries()} == {kept: True, others[1]: False}
    library.recover()
    library.mark(kept, is_kept=False)
    library.add_still(STILL, LONG_AGO_S + 3)
    assert kept not in names_of(library)
    with pytest.raises(NoRecording):
        library.mark(kept, is_kept=True)


def test_mark_during_a_deletion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Library(tmp_path, None).add_still(STILL, LONG_AGO_S)
    library = Library(tmp_path, 1)
    marks: list[Background] = []
    is_kept = Catalog.is_kept

    def is_kept_and_marked_late(catalog: Catalog, name: str) -> bool:
        """Another thread marks the recording when it is about to be deleted."""
        found = is_kept(catalog, name)
        if not marks:
            marks.append(Background(lambda: library.mark(name, is_kept=True)))
            time.sleep(0.3)  # enough for a mark that does not wait for the deletion
        return found

    monkeypatch.setattr(Catalog, "is_kept", is_kept_and_marked_late)
    library.enforce_quota()
    with pytest.raises(NoRecording):
        marks[0].result()
    assert contents(tmp_path) == []


def test_marks_are_removed_with_their_recordings(tmp_path: Path) -> None:
    library = Library(tmp_path, None)
    for at_s in (0, 1):
        library.mark(library.add_still(STILL, LONG_AGO_S + at_s).name, is_kept=True)
    first, second = sorted(names_of(library))
    library.delete_recording(first)
    (tmp_path / second).unlink()
    (tmp_path / f"..{second}.keep").touch()  # a power cut interrupted another mark
    assert len(contents(tmp_path)) == 2
    library.recover()
    assert contents(tmp_path) == []
