"""Files of `/proc` and `/sys` are read whole, up to a limit, and never block; numbers are plausible or None."""

import os
from pathlib import Path

import pytest

from softcam.system.reader import Reader, decimal, whole


def test_text(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"a\xffb\n")
    reader = Reader(tmp_path)
    assert reader.text("file") == "a\N{REPLACEMENT CHARACTER}b\n"
    assert reader.lines("file") == ["a\N{REPLACEMENT CHARACTER}b"]
    assert reader.text("missing") is None
    assert reader.lines("missing") == []


def test_unreadable_is_none(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    reader = Reader(tmp_path)
    assert reader.text("folder") is None
    assert reader.text("loop") is None


def test_pipe_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    writer = os.open(tmp_path / "pipe", os.O_RDWR)
    try:
        assert Reader(tmp_path).text("pipe") is None
    finally:
        os.close(writer)


def test_long_file_is_cut(tmp_path: Path) -> None:
    (tmp_path / "long").write_bytes(b"9" * 2_000_000)
    assert len(Reader(tmp_path).text("long") or "") == 256 * 1024


def test_files_of_this_machine() -> None:
    assert (Reader().text("proc/self/stat") or "").startswith(str(os.getpid()))


def test_names_are_in_order(tmp_path: Path) -> None:
    for name in ("zone10", "zone2", "zone", "zonex", "other1", "zone-1", "zone²"):
        (tmp_path / "all" / name).mkdir(parents=True)
    assert Reader(tmp_path).names("all", "zone") == ["zone2", "zone10"]
    assert Reader(tmp_path).names("missing", "zone") == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        (" 42\n", 42),
        ("-1", None),
        ("1.5", None),
        ("", None),
        ("²", None),
        ("9" * 19, 10**19 - 1),
        ("9" * 20, None),
    ],
)
def test_whole(text: str, expected: int | None) -> None:
    assert whole(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.25", 0.25),
        ("-5000\n", -5000.0),
        ("1e9", None),
        ("nan", None),
        ("inf", None),
        ("9" * 5000, None),
        ("٣", None),
    ],
)
def test_decimal(text: str, expected: float | None) -> None:
    assert decimal(text) == expected
