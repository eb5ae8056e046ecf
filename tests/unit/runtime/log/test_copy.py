"""`LogCopy`: saved soon after a warning, rarely otherwise, and at the end; never on the thread that logs."""

import logging
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from softcam.runtime.log.copy import CopyIntervals, LogCopy
from tests.support.background import eventually, soon

AT_ONCE = CopyIntervals(urgent_s=0.0, other_s=600.0, pause_s=0.0)


class Rig:
    """A copy whose content counts how often it was read."""

    def __init__(self, path: Path, intervals: CopyIntervals) -> None:
        self.path = path
        self.saves = 0
        self.crashes: list[str] = []
        self.copy = LogCopy(path, self._content, intervals)
        self.copy.start(self.crashes.append)

    def _content(self) -> bytes:
        self.saves += 1
        return b"save %d\n" % self.saves


Make = Callable[[CopyIntervals], Rig]


@pytest.fixture
def make(tmp_path: Path, no_leaks: Callable[[], AbstractContextManager[None]]) -> Iterator[Make]:
    made: list[Rig] = []

    def make_rig(intervals: CopyIntervals) -> Rig:
        made.append(Rig(tmp_path / "state" / "log.jsonl", intervals))
        return made[-1]

    with no_leaks():
        yield make_rig
        for rig in made:
            rig.copy.close(soon(), must_save=False)
    assert [rig.crashes for rig in made] == [[] for _ in made]


def test_part_of_an_earlier_copy_is_removed(tmp_path: Path, make: Make) -> None:
    (part := tmp_path / "state" / ".log.jsonl").parent.mkdir()
    part.write_text("a crash")
    make(CopyIntervals())
    eventually(lambda: not part.exists())


def test_warning_is_saved_soon(make: Make) -> None:
    rig = make(AT_ONCE)
    rig.copy.note_line(logging.WARNING)
    eventually(rig.path.exists)
    assert stat.S_IMODE(rig.path.stat().st_mode) == 0o600
    eventually(lambda: rig.path.read_bytes() == b"save 1\n")
    rig.copy.note_line(logging.ERROR)
    eventually(lambda: rig.path.read_bytes() == b"save 2\n")


def test_other_lines_are_saved_at_the_end(make: Make) -> None:
    rig = make(AT_ONCE)
    for _ in range(1000):
        rig.copy.note_line(logging.INFO)
    rig.copy.close(soon())
    assert rig.path.read_bytes() == b"save 1\n"


def test_other_lines_are_saved_after_their_interval(make: Make) -> None:
    rig = make(CopyIntervals(urgent_s=600.0, other_s=0.01, pause_s=0.0))
    rig.copy.note_line(logging.INFO)
    eventually(rig.path.exists)


def test_warning_does_not_wait_for_the_interval_of_other_lines(make: Make) -> None:
    rig = make(CopyIntervals(urgent_s=0.0, other_s=600.0, pause_s=0.0))
    rig.copy.note_line(logging.INFO)
    rig.copy.note_line(logging.WARNING)
    eventually(rig.path.exists)


def test_repeated_warnings_are_saved_together(make: Make) -> None:
    rig = make(CopyIntervals(urgent_s=0.0, other_s=600.0, pause_s=600.0))
    rig.copy.note_line(logging.WARNING)
    eventually(rig.path.exists)
    for _ in range(1000):
        rig.copy.note_line(logging.WARNING)
    rig.copy.close(soon())
    assert rig.path.read_bytes() == b"save 2\n"


def test_nothing_new_is_not_saved(make: Make) -> None:
    rig = make(AT_ONCE)
    rig.copy.close(soon())
    assert rig.saves == 0


def test_end_without_a_save(make: Make) -> None:
    rig = make(AT_ONCE)
    rig.copy.note_line(logging.INFO)
    rig.copy.close(soon(), must_save=False)
    assert rig.saves == 0


def test_failure_is_logged_once(make: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    (tmp_path / "state").touch()  # not a folder
    rig = make(AT_ONCE)
    for number in range(1, 4):
        rig.copy.note_line(logging.WARNING)
        eventually(lambda number=number: rig.saves >= number)  # type: ignore[misc]
    (tmp_path / "state").unlink()
    eventually(rig.path.exists)  # without another line
    rig.copy.close(soon())
    failed, saved = caplog.messages
    assert failed.startswith(f"Failed to save the log to {rig.path}: ")
    assert saved == f"The log is saved again: {rig.path}"


def test_disk_that_does_not_respond(tmp_path: Path) -> None:
    is_inside, may_end = threading.Event(), threading.Event()

    def content() -> bytes:
        is_inside.set()
        assert may_end.wait(60)
        return b""

    copy = LogCopy(tmp_path / "log.jsonl", content, AT_ONCE)
    copy.start(list[str]().append)
    copy.note_line(logging.WARNING)
    assert is_inside.wait(60)
    for _ in range(1000):
        copy.note_line(logging.WARNING)
    from softcam.runtime.deadline import Deadline

    copy.close(Deadline.after(0.01))
    may_end.set()
    copy.close(soon())
