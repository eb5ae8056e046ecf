"""Numbers with nouns."""

from softcam.runtime.plural import counted


def test_counted() -> None:
    assert [counted(number, "frame") for number in (0, 1, 2)] == ["0 frames", "1 frame", "2 frames"]
