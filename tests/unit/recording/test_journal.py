"""The journal: what survives a process, and where a resumed recording began."""

import json
import logging
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from softcam.recording.journal import Entry, Journal, boot_clock

ENTRY = Entry(
    {"segment_s": 60.0},
    1000.0,
    50.0,
    1050.0,
    is_automatic=False,
    name="1970-01-01_00-16-40.mp4",
    boot_id="this boot",
    boot_s=200.0,
)


def test_entries_survive(tmp_path: Path) -> None:
    path = tmp_path / "state" / "recordings-cam0.json"
    journal = Journal(path)
    journal.save("video", ENTRY)
    journal.save("timelapse", ENTRY)
    journal.save("timelapse", None)
    assert Journal(path).load() == {"video": ENTRY}


def test_part_of_an_entry_is_removed(tmp_path: Path) -> None:
    """A crash while the file was written."""
    (tmp_path / ".recordings-cam0.json").write_text('{"video": {"opt')
    Journal(tmp_path / "recordings-cam0.json").remove_leftover()
    assert list(tmp_path.iterdir()) == []


def test_entry_of_an_earlier_version(tmp_path: Path) -> None:
    path = tmp_path / "journal.json"
    values = asdict(ENTRY)
    del values["boot_id"], values["boot_s"]
    path.write_text(json.dumps({"video": values}))
    assert Journal(path).load() == {"video": replace(ENTRY, boot_id="", boot_s=0.0)}


def test_full_disk(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    folder = tmp_path / "folder"
    folder.write_text("a file in place of the folder")
    retried: list[Callable[[], bool]] = []
    journal = Journal(folder / "journal.json", retried.append)
    journal.save("video", ENTRY)
    journal.save("timelapse", ENTRY)
    assert journal.error is not None
    assert [retry() for retry in retried] == [False, False]
    folder.unlink()
    journal.save("timelapse", None)
    assert Journal(folder / "journal.json").load() == {"video": ENTRY}
    assert journal.error is None
    assert retried[0]()
    failed, saved = caplog.messages
    assert failed.startswith(f"A restart will not resume what is recorded now: {folder / 'journal.json'}: ")
    assert saved == f"A restart will resume what is recorded now: {folder / 'journal.json'} is saved again"


def test_missing_file(tmp_path: Path) -> None:
    assert Journal(tmp_path / "journal.json").load() == {}
    assert Journal().load() == {}


WRONG: tuple[dict[str, object], ...] = (
    {"began_s": None},
    {"elapsed_s": "50"},
    {"saved_s": True},
    {"saved_s": 1e300},
    {"saved_s": float("nan")},
    {"elapsed_s": -1.0},
    {"is_automatic": 1},
    {"name": 7},
    {"boot_id": None},
    {"boot_s": []},
)


@pytest.mark.parametrize(
    "content",
    [
        *("", "[]", "{", '{"video": 1}', '{"video": {"name": "x"}}', "\udcff", "[" * 100_000),
        *(json.dumps({"video": {**asdict(ENTRY), **wrong}}) for wrong in WRONG),
    ],
)
def test_damaged_file(content: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "journal.json"
    path.write_bytes(content.encode(errors="surrogateescape"))
    assert Journal(path).load() == {}
    assert "not resumed" in caplog.text


def test_failure_to_save_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "state").write_text("a file in place of the folder")
    with caplog.at_level(logging.WARNING):
        Journal(tmp_path / "state" / "journal.json").save("video", ENTRY)
        assert "A restart will not resume what is recorded now" in caplog.text
        caplog.clear()
        Journal(tmp_path / "state" / "journal.json").save("timelapse", None)
    assert caplog.messages == [], "there is nothing to resume"


@pytest.mark.parametrize(
    ("written_s", "now_s", "boot", "interrupted_s", "elapsed_s"),
    [
        (1080.0, 1100.0, ("next boot", 5.0), 1080.0, 100.0),
        (1080.0, 1100.0, ("", 5.0), 1080.0, 100.0),
        (0.0, 1100.0, ("next boot", 5.0), 1050.0, 100.0),  # the file cannot be read
        (1080.0, 30.0, ("next boot", 5.0), 1080.0, 80.0),  # the clock is behind after a power cut
        (1080.0, 1111.0, ("this boot", 260.0), 1080.0, 110.0),
    ],
)
def test_origin(
    written_s: float, now_s: float, boot: tuple[str, float], interrupted_s: float, elapsed_s: float
) -> None:
    origin = ENTRY.origin(written_s, now_s, *boot)
    assert (origin.began_s, origin.interrupted_s, origin.is_automatic) == (1000.0, interrupted_s, False)
    assert time.monotonic() - origin.started_s == pytest.approx(elapsed_s, abs=1.0)


@pytest.mark.parametrize(
    ("written_s", "step_s", "interrupted_s"),
    [
        (1080.0, 1e9, 1e9 + 1080.0),
        (1e9 + 1080.0, 1e9, 1e9 + 1080.0),  # written after the clock was set
        (0.0, 1e9, 1e9 + 1050.0),  # the file cannot be read
        (1080.0, -500.0, 580.0),
    ],
)
def test_origin_after_the_clock_was_set(written_s: float, step_s: float, interrupted_s: float) -> None:
    origin = ENTRY.origin(written_s, 1110.0 + step_s, "this boot", 260.0)
    assert (origin.began_s, origin.interrupted_s) == (1000.0 + step_s, interrupted_s)
    assert time.monotonic() - origin.started_s == pytest.approx(110.0, abs=1.0)
    again = origin.after_step(5.0)
    assert (again.began_s, again.interrupted_s) == (1005.0 + step_s, interrupted_s + 5.0)


def test_origin_of_another_boot_does_not_follow_the_clock() -> None:
    origin = ENTRY.origin(1080.0, 1100.0, "next boot", 5.0).after_step(1e9)
    assert (origin.began_s, origin.interrupted_s) == (1000.0, 1080.0)
    origin = replace(ENTRY, is_of_boot=False).origin(1080.0, 1e9, "this boot", 260.0)
    assert (origin.began_s, origin.is_of_this_boot, origin.is_interrupted_in_this_boot) == (1000.0, False, True)


@pytest.mark.parametrize(
    ("written_s", "boot", "recorded_s"),
    [
        (1080.0, ("this boot", 260.0), 40.0 + 30.0),  # the newest file began when the entry was saved
        (1080.0, ("next boot", 5.0), 40.0 + 30.0),
        (0.0, ("this boot", 260.0), 40.0),  # it cannot be read
        (900.0, ("this boot", 260.0), 40.0),  # it was paused
        (5000.0, ("this boot", 260.0), 40.0 + 60.0),  # no more than has passed
    ],
)
def test_recorded_time_excludes_the_interruption(written_s: float, boot: tuple[str, float], recorded_s: float) -> None:
    origin = replace(ENTRY, recorded_s=40.0).origin(written_s, 1110.0, *boot)
    assert origin.recorded_s == recorded_s


def test_boot_clock() -> None:
    (first_id, first_s), (second_id, second_s) = boot_clock(), boot_clock()
    assert first_id == second_id != ""
    assert 0.0 < first_s <= second_s < first_s + 60.0


def test_unknown_boots_are_different() -> None:
    entry = replace(ENTRY, boot_id="")
    origin = entry.origin(1080.0, 1100.0, "", 260.0)
    assert time.monotonic() - origin.started_s == pytest.approx(100.0, abs=1.0)
