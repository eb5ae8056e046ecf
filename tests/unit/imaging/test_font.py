import string

import numpy as np
import pytest

from softcam.imaging import font
from softcam.imaging.frame import Plane

PRINTABLE = string.ascii_letters + string.digits + string.punctuation


def written(text: str, scale: float) -> Plane:
    """A plane of just the text's size, white on black."""
    width, height = font.text_size(text, scale)
    plane = np.zeros((height, width), np.uint8)
    font.draw_text(plane, text, 0, 0, scale)
    return plane


def test_printable_characters_are_different() -> None:
    masks = {letter: written(letter, 3).tobytes() for letter in PRINTABLE}
    assert len(set(masks.values())) == len(PRINTABLE)


@pytest.mark.parametrize("scale", [1, 2, 7, 2.5])
@pytest.mark.parametrize("text", ["", " ", "A", "no frame for 10 s"])
def test_text_stays_within_text_size(text: str, scale: float) -> None:
    width, height = font.text_size(text, scale)
    plane = np.zeros((height + 20, width + 20), np.uint8)
    font.draw_text(plane, text, 10, 10, scale)
    assert np.array_equal(plane[10 : 10 + height, 10 : 10 + width], written(text, scale))
    plane[10 : 10 + height, 10 : 10 + width] = 0
    assert not plane.any()


def test_strokes_are_filled() -> None:
    mask = written("I", 8)
    assert mask.max() == 255
    assert mask.min() == 0
    assert not mask[7 * 8 + 1 :].any()  # nothing below the line
    assert written("g", 8)[7 * 8 + 1 :].any()


def test_unknown_character_is_a_question_mark() -> None:
    assert np.array_equal(written("\u00e9\n", 2), written("??", 2))


def test_space_draws_nothing() -> None:
    assert not written("   ", 4).any()


def test_only_the_area_of_the_text_changes() -> None:
    plane = np.full((40, 100), 16, np.uint8)
    font.draw_text(plane, "Hi", 20, 10, 2, level=200)
    inside = plane[10:28, 20:44]
    assert inside.max() == 200
    plane[10:28, 20:44] = 16
    assert (plane == 16).all()


def test_dark_and_bright_text() -> None:
    plane = np.full((18, 12), 200, np.uint8)
    font.draw_text(plane, "H", 0, 0, 2, level=0)
    assert plane.min() == 0
    assert plane.max() == 200


@pytest.mark.parametrize(("left", "top"), [(-7, -5), (93, 33), (-500, 0), (0, 500), (100, 40)])
def test_text_is_clipped(left: int, top: int) -> None:
    """The same pixels as on a plane that is large enough."""
    large = np.zeros((1100, 1300), np.uint8)
    font.draw_text(large, "Soft", 550 + left, 550 + top, 3)
    plane = np.zeros((40, 100), np.uint8)
    font.draw_text(plane, "Soft", left, top, 3)
    assert np.array_equal(plane, large[550:590, 550:650])


def test_padded_rows() -> None:
    memory = np.zeros((20, 64), np.uint8)
    font.draw_text(memory[:, :30], "WWWWWWWWW", 0, 0, 2)
    assert memory[:, :30].any()
    assert not memory[:, 30:].any()


def test_centred_lines() -> None:
    plane = np.zeros((200, 400), np.uint8)
    font.draw_centred(plane, ["HHHH", "HH"], 4)
    rows, columns = np.nonzero(plane)
    assert abs((columns.min() + columns.max()) / 2 - 199.5) <= 4
    assert abs((rows.min() + rows.max()) / 2 - 99.5) <= 4
