"""The list of the folder: selections, and when it is scanned again."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from softcam.recording.folder import Folder, Selection
from softcam.recording.names import sort_key, sort_key_at

NAMES = (
    "2026-11-19_23-59-59.mp4",
    "2026-11-20_00-00-00.jpg",
    "2026-11-20_12-00-00.mp4",
    "2026-11-20_12-00-00-2.mp4",
    "2026-11-20_12-00-00-10.mp4",
    "2026-11-20_12-00-01_timelapse.mp4",
    "2026-11-21_00-00-00.mp4",
)
NOON_S = 1_795_176_000.0  # of 2026-11-20


def fill(folder: Path, names: tuple[str, ...] = NAMES) -> Folder:
    for name in names:
        (folder / name).write_bytes(b"12345")
    return Folder(folder, settled_s=0.0)


@pytest.mark.parametrize(
    ("selection", "places", "total"),
    [
        (Selection(), (6, 5, 4, 3, 2, 1, 0), 7),
        (Selection(limit=2), (6, 5), 7),
        (Selection(end=sort_key(NAMES[5]), limit=2), (4, 3), 5),
        (Selection(end=sort_key(NAMES[3])), (2, 1, 0), 3),
        (Selection(first=sort_key(NAMES[5])), (6, 5), 2),
        (Selection(first=sort_key_at(NOON_S)), (6, 5, 4, 3, 2), 5),
        (Selection(first=sort_key_at(NOON_S + 0.5)), (6, 5), 2),
        (Selection(end=sort_key_at(NOON_S)), (1, 0), 2),
        (Selection(first=sort_key_at(NOON_S + 1), end=sort_key_at(NOON_S)), (), 0),
        (Selection(kind="video", limit=2), (6, 4), 5),
        (Selection(kind="still"), (1,), 1),
        (Selection(day="2026-11-20"), (5, 4, 3, 2, 1), 5),
        (Selection(day="2026-11-20", kind="timelapse"), (5,), 1),
        (Selection(day="2026-11-18"), (), 0),
        (Selection(cursor=sort_key(NAMES[5]), limit=2), (4, 3), 7),
        (Selection(cursor=sort_key(NAMES[2])), (1, 0), 7),
        (Selection(cursor=sort_key(NAMES[0])), (), 7),
        (Selection(cursor=sort_key(NAMES[4]), kind="video", limit=1), (3,), 5),
        (Selection(cursor=sort_key(NAMES[4]), first=sort_key(NAMES[2]), end=sort_key(NAMES[6]), limit=2), (3, 2), 4),
    ],
)
def test_selection(selection: Selection, places: tuple[int, ...], total: int, tmp_path: Path) -> None:
    listing = fill(tmp_path).read()
    assert listing.select(selection)[:2] == ([NAMES[place] for place in places], total)


@pytest.mark.parametrize("selection", [Selection(), Selection(kind="video"), Selection(end=sort_key(NAMES[5]))])
@pytest.mark.parametrize("limit", [1, 2, 3, 7])
def test_total_is_the_same_on_all_pages(selection: Selection, limit: int, tmp_path: Path) -> None:
    listing = fill(tmp_path).read()
    everything, total, _ = listing.select(selection)
    found, has_more = list[str](), True
    while has_more:
        cursor = sort_key(found[-1]) if found else None
        page, of_page, has_more = listing.select(replace(selection, cursor=cursor, limit=limit))
        assert of_page == total == len(everything)
        found += page
    assert found == everything


def test_marks_to_keep(tmp_path: Path) -> None:
    folder = fill(tmp_path)
    (tmp_path / f".{NAMES[0]}.keep").touch()
    (tmp_path / f".{NAMES[2]}.keep").touch()
    (tmp_path / ".2001-01-01_00-00-00.mp4.keep").touch()
    assert folder.read().kept == {NAMES[0], NAMES[2]}
    (tmp_path / NAMES[0]).unlink()
    folder.discard([NAMES[0]])
    assert folder.read().kept == {NAMES[2]}


def test_unchanged_folder_is_scanned_once(tmp_path: Path) -> None:
    folder = fill(tmp_path)
    assert folder.read() is folder.read()
    assert folder.scans == 1
    (tmp_path / NAMES[0]).unlink()
    assert list(folder.read().names) == list(NAMES[1:])
    (tmp_path / f".{NAMES[1]}.jpg").write_bytes(b"123")
    assert folder.read().sizes[NAMES[1]] == 8
    assert folder.read().thumbnails == {f".{NAMES[1]}.jpg"}
    assert folder.scans == 3


def test_size_is_read_again_on_request(tmp_path: Path) -> None:
    folder = fill(tmp_path)
    folder.read()
    (tmp_path / NAMES[0]).write_bytes(b"123456789")
    assert folder.read().sizes[NAMES[0]] == 5
    folder.invalidate()
    assert folder.read().sizes[NAMES[0]] == 9


def test_own_deletions_cause_no_scan(tmp_path: Path) -> None:
    fill(tmp_path)
    folder = Folder(tmp_path, settled_s=3600.0)
    folder.read()
    (tmp_path / NAMES[0]).unlink()
    folder.discard([NAMES[0]])
    assert list(folder.read().names) == list(NAMES[1:])
    assert folder.read().select(Selection(first=sort_key(NAMES[1]), limit=1)) == ([NAMES[-1]], 6, True)
    assert sum(folder.read().sizes.values()) == 5 * 6
    assert folder.scans == 1
    folder.invalidate()
    folder.read()
    assert folder.read().names == list(NAMES[1:])
    assert folder.scans == 3, "as after any other change"


def test_others_may_change_the_folder_together_with_own_deletions(tmp_path: Path) -> None:
    folder = fill(tmp_path)
    folder.read()
    (tmp_path / NAMES[0]).unlink()
    (tmp_path / NAMES[1]).unlink()
    folder.discard([NAMES[0]])
    for _ in range(2):
        assert list(folder.read().names) == list(NAMES[2:])
    assert folder.scans == 2


@pytest.mark.parametrize("limits", [{"settled_s": 3600.0}, {"settled_s": 0.0, "max_age_s": 0.0}])
def test_scanned_again_after_a_change_and_after_some_time(limits: dict[str, float], tmp_path: Path) -> None:
    """A second change may have the modification time of the first one; sizes may change without any."""
    fill(tmp_path)
    folder = Folder(tmp_path, **limits)
    for _ in range(3):
        folder.read()
    assert folder.scans == 3


def test_sum_of_stills(tmp_path: Path) -> None:
    name = NAMES[5]
    folder, stills = Folder(tmp_path), tmp_path / name.removesuffix(".mp4")
    assert folder.stills_bytes(name) == 0
    stills.mkdir()
    (stills / "000001.jpg").write_bytes(b"12345")
    assert folder.stills_bytes(name) == 5
    (stills / "000002.jpg").write_bytes(b"123")
    folder.set_stills_bytes(name, 1000)
    assert folder.stills_bytes(name) == 1000, "not read again"
    os.utime(stills, (1, 1))
    assert folder.stills_bytes(name) == 8
    with pytest.raises(FileNotFoundError):
        folder.set_stills_bytes(NAMES[5].replace("20", "19"), 5)


def test_missing_folder(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "folder")
    with pytest.raises(FileNotFoundError):
        folder.read()
    (tmp_path / "folder").mkdir()
    assert folder.read().names == []
