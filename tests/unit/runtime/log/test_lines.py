"""From records to lines and back: whatever is logged, a line is one printable line."""

import logging
import random
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from softcam.runtime.log.lines import MAX_ID, MAX_MESSAGE, LogLine, decode, encode, make_line, messages_of, printable


def record(message: object, *args: object, exc_info: Any = None) -> logging.LogRecord:
    return logging.LogRecord("softcam.test", logging.ERROR, __file__, 1, message, args, exc_info)


def line(number: int = 1, message: str = "Camera open", **fields: Any) -> LogLine:
    values: dict[str, Any] = {
        "run": 1,
        "time_s": 1_700_000_000.25,
        "level": 20,
        "logger": "softcam",
        "thread": "camera",
    } | fields
    return make_line(number, message=message, **values)


def test_text_is_as_on_a_terminal() -> None:
    formatter = logging.Formatter("%(asctime)s %(levelname)s %(message)s")
    logged = record("Camera %s", "open")
    made = make_line(1, 1, logged.created, logged.levelno, "softcam", "camera", "Camera open")
    assert made.text == formatter.format(logged)
    assert (made.message, made.level_name) == ("Camera open", "ERROR")


@pytest.mark.parametrize(
    ("level", "name"), [(1, "DEBUG"), (10, "DEBUG"), (25, "INFO"), (30, "WARNING"), (49, "ERROR"), (99, "CRITICAL")]
)
def test_level_in_between_has_the_lower_name(level: int, name: str) -> None:
    assert line(level=level).level_name == name


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ünï 摄像头 \U0001f4f7", "plain ünï 摄像头 \U0001f4f7"),
        ("two\n2026-01-31 12:00:00,000 ERROR lines", "two\\n2026-01-31 12:00:00,000 ERROR lines"),
        ("\r\n\x00\t\x1b[31m", "\\r\\n\\x00\\t\\x1b[31m"),
        ("lone \udc80", "lone \\udc80"),
        ("right\u202eto left", "right\\u202eto left"),
        ("line\u2028separator\x85", "line\\u2028separator\\x85"),
    ],
)
def test_printable(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text())
def test_any_text_becomes_one_line(text: str) -> None:
    shown = printable(text, 40)
    assert shown.isprintable()
    assert len(shown) <= 40
    assert len(shown.encode()) >= len(shown)


def test_long_line_is_cut_with_a_mark() -> None:
    assert printable("x" * MAX_MESSAGE) == "x" * MAX_MESSAGE
    for text in ("x" * (MAX_MESSAGE + 1), "\0" * MAX_MESSAGE):
        shown = printable(text)
        assert len(shown) == MAX_MESSAGE
        assert shown.endswith(" … (cut)")
        assert printable(shown) == shown


def test_traceback_follows_the_message() -> None:
    try:
        raise ValueError("first\n2026-01-31 12:00:00,000 ERROR forged")
    except ValueError:
        messages = messages_of(record("Failed: %d", 7, exc_info=sys.exc_info()))
    assert messages[:2] == ["Failed: 7", "| Traceback (most recent call last):"]
    assert messages[-2:] == ["| ValueError: first", "| 2026-01-31 12:00:00,000 ERROR forged"]


def test_long_traceback_is_shortened() -> None:
    error: Exception = ValueError("the first")
    for number in range(100):
        try:
            raise RuntimeError(number) from error
        except RuntimeError as raised:
            error = raised
    messages = messages_of(record("Failed", exc_info=(type(error), error, error.__traceback__)))
    assert len(messages) == 1 + 40 + 1 + 80
    assert messages[1] == "| ValueError: the first"
    assert "lines omitted" in messages[41]
    assert messages[-1] == "| RuntimeError: 99"


def test_arguments_that_do_not_fit() -> None:
    assert messages_of(record("%d frames", "some")) == ["%d frames (cannot be formatted: TypeError)"]


def test_exception_that_cannot_be_converted() -> None:
    class Bad(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    try:
        raise Bad
    except Bad as error:
        first, *rest = messages_of(record(error, exc_info=sys.exc_info()))
    assert first == "Bad (cannot be formatted: RuntimeError)"
    assert rest[-1].startswith("| ")


def test_no_exception_is_being_handled() -> None:
    assert messages_of(record("Failed", exc_info=(None, None, None))) == ["Failed"]


# In files


def test_file_and_back() -> None:
    lines = [line(1), line(2, 'ünï \\x00 | "quoted"'), line(7, "x" * MAX_MESSAGE, level=40, run=3, thread="")]
    assert [*decode(encode(lines))] == lines
    assert encode(lines).isascii()


def test_incomplete_and_foreign_lines_are_skipped() -> None:
    first, second = encode([line(1)]), encode([line(2)])
    bad = [b"", b"{}", b"[]", b"null", b"7", b"\xff\xfe\x00", b"[" * 100_000, b"9" * 10_000, first.rstrip()[:-3]]
    assert [*decode(first + b"\n".join(bad) + b"\n" + second)] == [line(1), line(2)]


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (0, 0), (0, -1), (0, 2**70), (0, True), (0, 1.5), (0, "1"), (0, None), (1, 0), (1, MAX_ID + 1), (2, "now"),
        (2, -1.0), (2, 1e300), (2, None), (2, float("nan")), (2, float("inf")), (3, 0), (3, 101), (4, None), (5, 5),
        (6, ["a"]),
    ],
)  # fmt: skip
def test_fields_out_of_range(place: int, value: object) -> None:
    import json

    fields: list[object] = [1, 1, 1_700_000_000.25, 20, "softcam", "camera", "Camera open"]
    fields[place] = value
    assert [*decode(json.dumps(fields).encode())] == []


def test_foreign_text_becomes_printable() -> None:
    content = b'[1, 1, 0, 20, "a\\nb", "\\u0000", "one\\ntwo\\ud800"]\n'
    (found,) = decode(content)
    assert (found.logger, found.thread, found.message) == ("a\\nb", "\\x00", "one\\ntwo\\ud800")


def test_numbers_must_increase() -> None:
    assert [each.id for each in decode(encode([line(5), line(3), line(5), line(6)]))] == [5, 6]


@given(st.binary(max_size=300))
def test_any_content_is_read(content: bytes) -> None:
    assert all(each.text.isprintable() for each in decode(content))


def test_damaged_files() -> None:
    chance = random.Random(1)
    content = encode([line(number, "Camera open") for number in range(1, 20)])
    for _ in range(300):
        damaged = bytearray(content)
        for _ in range(chance.randrange(1, 10)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        numbers = [each.id for each in decode(bytes(damaged[: chance.randrange(len(damaged))]))]
        assert numbers == sorted(set(numbers))
