"""`LogMemory`: bounded, in pages, by position, and across runs."""

import logging
import threading
from itertools import pairwise

import pytest

from softcam.runtime.log.memory import ALL, LogMemory, Selection


def add(memory: LogMemory, *messages: str, level: int = logging.INFO) -> None:
    for message in messages:
        memory.append(1_700_000_000.0, level, "softcam", "camera", [message])


def messages(memory: LogMemory, limit: int = 100, selection: Selection = ALL, before: int | None = None) -> list[str]:
    return [line.message for line in memory.newest(limit, selection, before)[0]]


@pytest.fixture
def memory() -> LogMemory:
    return LogMemory()


def test_newest_lines_in_order(memory: LogMemory) -> None:
    add(memory, "a", "b", "c")
    assert messages(memory, 2) == ["b", "c"]
    assert memory.newest(2)[1], "there are more"
    assert not memory.newest(3)[1]
    assert [line.id for line in memory.newest(3)[0]] == [1, 2, 3]
    assert memory.last_id == 3


def test_lines_of_one_record_have_their_own_numbers(memory: LogMemory) -> None:
    lines = memory.append(1_700_000_000.0, logging.ERROR, "softcam", "camera", ["Failed", "| Traceback"])
    assert [(line.id, line.message) for line in lines] == [(1, "Failed"), (2, "| Traceback")]


def test_number_of_lines_is_bounded() -> None:
    memory = LogMemory(max_lines=10)
    for number in range(1, 1000):
        add(memory, str(number))
        kept = messages(memory)
        assert len(kept) <= 10
        assert kept == [str(each) for each in range(number - len(kept) + 1, number + 1)]
    assert len(kept) >= 9


def test_size_of_the_text_is_bounded() -> None:
    memory = LogMemory(max_bytes=1000)
    for _ in range(100):
        add(memory, "x" * 150)
        assert sum(len(line.text) for line in memory.newest(100)[0]) <= 1000
    add(memory, "y" * 5000)
    assert messages(memory) == ["y" * 5000], "the newest line is kept in any case"
    add(memory, "z")
    assert messages(memory) == ["z"]


def test_level_and_above(memory: LogMemory) -> None:
    for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL):
        add(memory, str(level), level=level)
    assert messages(memory, selection=Selection(logging.WARNING)) == ["30", "40", "50"]


def test_search_in_any_case(memory: LogMemory) -> None:
    add(memory, "Camera open", "CAMERA closed", "Straße", "other")
    assert messages(memory, selection=Selection(search="camera")) == ["Camera open", "CAMERA closed"]
    assert messages(memory, selection=Selection(search="strasse")) == ["Straße"]
    assert messages(memory, selection=Selection(search=" info other")) == ["other"], "in the whole text"


def test_pages(memory: LogMemory) -> None:
    add(memory, *(f"{'even' if number % 2 == 0 else 'odd'} {number}" for number in range(1, 8)))
    even = Selection(search="even")
    lines, has_more = memory.newest(2, even)
    assert ([line.message for line in lines], has_more) == (["even 4", "even 6"], True)
    lines, has_more = memory.newest(2, even, before=lines[0].id)
    assert ([line.message for line in lines], has_more) == (["even 2"], False)
    assert memory.newest(2, even, before=1) == ([], False)
    assert messages(memory, 1, before=1000) == ["odd 7"]


def test_what_follows_a_position() -> None:
    memory = LogMemory(max_lines=10)
    assert memory.after(0, 5) == ([], 0)
    add(memory, *map(str, range(1, 9)))
    assert [line.message for line in memory.after(0, 3)[0]] == ["1", "2", "3"]
    assert [line.message for line in memory.after(6, 3)[0]] == ["7", "8"]
    assert memory.after(8, 3) == memory.after(99, 3) == ([], 0)
    add(memory, *map(str, range(9, 13)))
    lines, lost = memory.after(1, 3)
    assert lines[0].id == lost + 2
    assert lost > 0


def test_tail_has_a_size(memory: LogMemory) -> None:
    add(memory, "a", "b", "c")
    size = len(memory.newest(1)[0][0].text)
    assert [line.message for line in memory.tail(2 * size)] == ["b", "c"]
    assert len(memory.tail(10_000)) == 3
    assert memory.tail(1) == []


def test_earlier_runs_come_first(memory: LogMemory) -> None:
    previous = LogMemory()
    add(previous, "a", "b", "c")
    add(memory, "early")
    own = memory.restore(previous.newest(2)[0])
    assert [(line.id, line.run, line.message) for line in own] == [(4, 2, "early")]
    add(memory, "late")
    assert [(line.id, line.run, line.message) for line in memory.newest(9)[0]] == [
        (2, 1, "b"), (3, 1, "c"), (4, 2, "early"), (5, 2, "late")
    ]  # fmt: skip
    assert memory.run == 2


def test_numbers_that_no_line_has() -> None:
    """A run that skips those of lost lines; a client has seen some of these."""
    memory = LogMemory(max_lines=10)
    add(previous := LogMemory(), "a", "b")
    add(memory, "early")
    assert [line.id for line in memory.restore(previous.newest(2)[0], 1000)] == [1001]
    for position, expected in ((0, [1, 2, 1001]), (1, [2, 1001]), (2, [1001]), (500, [1001])):
        lines, lost = memory.after(position, 5)
        assert ([line.id for line in lines], lost) == (expected, 0)
    add(memory, *map(str, range(20)))
    first = memory.newest(100)[0][0].id
    for position, lost in ((0, first - 1001), (500, first - 1001), (1001, first - 1002)):
        assert memory.after(position, 1)[1] == lost, "without the numbers that no line had"


def test_lines_before_the_start_are_kept() -> None:
    """However much is logged afterwards; in pages and by position, with one gap."""
    memory = LogMemory(max_lines=10)
    add(previous := LogMemory(), *(f"old {number}" for number in range(1, 8)))
    memory.restore(previous.newest(7)[0])
    add(memory, "Previous run ended unexpectedly")
    memory.keep_newest(max_lines=3)
    reason = ["old 6", "old 7", "Previous run ended unexpectedly"]
    assert messages(memory) == ["old 1", "old 2", "old 3", "old 4", "old 5", *reason], "none of them twice"
    for number in range(9, 40):
        add(memory, str(number))
        shown = messages(memory)
        begin = shown.index(str(number)) - shown.index(reason[-1])
        assert shown[shown.index("old 6") :] == reason + [str(each) for each in range(number - begin + 1, number + 1)]
    assert len(shown) <= 13

    first_new = int(shown[3])
    page, has_more = memory.newest(len(shown) - 3)
    assert ([line.id for line in page], has_more) == (list(range(first_new, 40)), True)
    page, has_more = memory.newest(2, before=first_new)
    assert ([line.id for line in page], has_more) == ([7, 8], True)
    page, has_more = memory.newest(2, before=7)
    assert ([line.id for line in page], has_more) == ([6], False)
    assert messages(memory, 1, Selection(search="unexpectedly")) == reason[-1:]
    assert messages(memory, before=20)[:3] == reason, "a page that begins in the gap"

    assert [[line.id for line in memory.after(position, 5)[0]] for position in (0, 6, 7)] == [[6, 7, 8], [7, 8], [8]]
    assert memory.after(2, 1)[1] == 3
    for position, lost in ((8, first_new - 9), (20, first_new - 21)):
        lines, skipped = memory.after(position, 2)
        assert ([line.id for line in lines], skipped) == ([first_new, first_new + 1], lost)


def test_size_of_kept_lines_is_bounded() -> None:
    memory = LogMemory(max_lines=10)
    add(memory, *["x" * 100] * 4)
    memory.keep_newest(max_bytes=300)
    add(memory, *"abcdefghijklmnop")
    assert [message for message in messages(memory) if "x" in message] == ["x" * 100] * 2


def test_first_run(memory: LogMemory) -> None:
    add(memory, "early")
    assert [line.id for line in memory.restore([])] == [1]
    assert memory.run == 1


def test_listeners(memory: LogMemory) -> None:
    seen: list[str] = []
    memory.subscribe(lambda: seen.append(memory.newest(1)[0][0].message))
    add(memory, "a", "b")
    assert seen == ["a", "b"]


def test_reading_while_lines_are_added() -> None:
    """Without a lock: a destructor that logs may run within a reader."""
    memory = LogMemory(max_lines=100)
    is_over = threading.Event()

    def log() -> None:
        for number in range(1, 3001):
            add(memory, str(number))
        is_over.set()

    thread = threading.Thread(target=log)
    thread.start()
    position = 0
    while not is_over.is_set() or position < 3000:
        lines, lost = memory.after(position, 7)
        numbers = [line.id for line in lines]
        assert numbers == list(range(position + lost + 1, position + lost + 1 + len(lines)))
        assert [int(line.message) for line in lines] == numbers
        position = numbers[-1] if numbers else position
        for found in (memory.newest(50)[0], memory.tail(1000)):
            assert all(after.id == before.id + 1 for before, after in pairwise(found))
    thread.join()
