import string

import numpy as np
import pytest

from softcam import glyphs

PRINTABLE = string.ascii_letters + string.digits + string.punctuation


def test_every_printable_character_looks_different():
    masks = {letter: glyphs.text_mask(letter, 3).tobytes() for letter in PRINTABLE}
    assert len(set(masks.values())) == len(PRINTABLE)


@pytest.mark.parametrize("scale", [1, 2, 7, 2.5])
@pytest.mark.parametrize("text", ["", " ", "A", "no frame for 10 s"])
def test_mask_has_the_size_that_was_told(text, scale):
    mask = glyphs.text_mask(text, scale)
    assert mask.dtype == np.uint8
    assert (mask.shape[1], mask.shape[0]) == glyphs.text_size(text, scale)


def test_letters_fill_strokes_and_leave_the_rest_empty():
    mask = glyphs.text_mask("I", 8)
    assert mask.max() == 255
    assert mask.min() == 0
    assert not mask[7 * 8 + 1 :].any()  # nothing below the line
    assert glyphs.text_mask("g", 8)[7 * 8 + 1 :].any()


def test_unknown_characters_show_as_a_question_mark():
    assert np.array_equal(glyphs.text_mask("\u00e9\n", 2), glyphs.text_mask("??", 2))


def test_space_draws_nothing():
    assert not glyphs.text_mask("   ", 4).any()


def test_drawing_changes_only_the_place_of_the_text():
    plane = np.full((40, 100), 16, np.uint8)
    glyphs.draw_text(plane, "Hi", 20, 10, 2, level=200)
    inside = plane[10:28, 20:44]
    assert inside.max() == 200
    plane[10:28, 20:44] = 16
    assert (plane == 16).all()


def test_drawing_darkens_as_well_as_brightens():
    plane = np.full((18, 12), 200, np.uint8)
    glyphs.draw_text(plane, "H", 0, 0, 2, level=0)
    assert plane.min() == 0
    assert plane.max() == 200


@pytest.mark.parametrize(("left", "top"), [(-7, -5), (93, 33), (-500, 0), (0, 500), (100, 40)])
def test_text_that_does_not_fit_is_cut_off(left, top):
    """The same pixels as on a plane that is large enough."""
    large = np.zeros((1100, 1300), np.uint8)
    glyphs.draw_text(large, "Soft", 550 + left, 550 + top, 3)
    plane = np.zeros((40, 100), np.uint8)
    glyphs.draw_text(plane, "Soft", left, top, 3)
    assert np.array_equal(plane, large[550:590, 550:650])


def test_drawing_honours_padded_rows():
    memory = np.zeros((20, 64), np.uint8)
    glyphs.draw_text(memory[:, :30], "WWWWWWWWW", 0, 0, 2)
    assert memory[:, :30].any()
    assert not memory[:, 30:].any()


def test_fitting_scale_is_the_largest_that_fits():
    lines = ["camera is being brought back", "no frame for 10 s"]
    scale = glyphs.fitting_scale(lines, 640, 360)
    assert glyphs.text_size(lines[0], scale)[0] <= 640
    assert glyphs.text_size(lines[0], scale + 1)[0] > 640
    assert glyphs.fitting_scale(lines, 10, 10) == 1
    assert glyphs.fitting_scale([], 10, 10) == 1


def test_centred_lines_are_in_the_middle():
    plane = np.zeros((200, 400), np.uint8)
    glyphs.draw_centred(plane, ["HHHH", "HH"], 4)
    rows, columns = np.nonzero(plane)
    assert abs((columns.min() + columns.max()) / 2 - 199.5) <= 4
    assert abs((rows.min() + rows.max()) / 2 - 99.5) <= 4


def test_masks_are_shared_and_cannot_be_spoiled():
    first = glyphs.text_mask("x", 2)
    first[:] = 7
    assert not np.array_equal(glyphs.text_mask("x", 2), first)
