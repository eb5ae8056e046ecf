"""The size limit of the recordings, full disks, and disks that are unmounted."""

import errno
import os
import shutil
from collections import namedtuple
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from softcam.recording.library import Library
from tests.support.recordings import LONG_AGO_S, STILL, open_video

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
    for step in (
        library.enforce_quota,
        library.require_writable,
        lambda: library.create_recording("video", LONG_AGO_S),
    ):
        with pytest.raises(OSError, match=r"the disk mounted at .*stick is gone"):
            step()
    assert len(list((stick / "cam0").iterdir())) == 2
    mounts.numbers[stick] = 8  # mounted again with another number
    library.add_still(STILL, LONG_AGO_S)
    assert len(library.entries()) == 3


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
    assert list(tmp_path.iterdir()) == []
