"""A small font, and drawing of text on a grey plane.

The glyphs are part of this project: five dots wide and seven high, with two more below the baseline. A glyph is not
scaled as squares: adjacent dots are joined by round strokes, so that it is smooth at any size. Any thread may call.
Hook authors use `draw_text` and `text_size` through `softcam.hook_api`.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

Grey = npt.NDArray[np.uint8]

CELL_WIDTH: Final = 6  # dots from one glyph to the next
CELL_HEIGHT: Final = 9  # dots of a line, including descenders

_FIRST: Final = 0x20
_STROKE_DOTS: Final = 0.5  # half the width of a stroke: strokes at the edge then just stay within the cell
_MAX_CACHED_SCALE: Final = 24  # such a glyph has 31 kB; larger ones are rare, and would fill the memory

# The printable characters of ASCII in order, nineteen per band; a band ends with the last row that has a dot.
_DRAWN: Final = """
    ..... ..#.. .#.#. .#.#. ..#.. ##..# .##.. ..#.. ...#. .#... ..... ..... ..... ..... ..... ....# .###. ..#.. .###.
    ..... ..#.. .#.#. .#.#. .#### ##..# #..#. ..#.. ..#.. ..#.. #.#.# ..#.. ..... ..... ..... ....# #...# .##.. #...#
    ..... ..#.. ..... ##### #.#.. ...#. #..#. ..... .#... ...#. .###. ..#.. ..... ..... ..... ...#. #...# #.#.. ....#
    ..... ..#.. ..... .#.#. .###. ..#.. .##.. ..... .#... ...#. ##### ##### ..... ##### ..... ..#.. #.#.# ..#.. ...#.
    ..... ..#.. ..... ##### ..#.# .#... #.#.# ..... .#... ...#. .###. ..#.. ..... ..... ..... .#... #...# ..#.. ..#..
    ..... ..... ..... .#.#. ####. #..## #..#. ..... ..#.. ..#.. #.#.# ..#.. ..#.. ..... ..... #.... #...# ..#.. .#...
    ..... ..#.. ..... .#.#. ..#.. #..## .##.# ..... ...#. .#... ..... ..... ..#.. ..... ..#.. #.... .###. ##### #####
    ..... ..... ..... ..... ..... ..... ..... ..... ..... ..... ..... ..... .#... ..... ..... ..... ..... ..... .....

    ##### ...#. ##### ..##. ##### .###. .###. ..... ..... ....# ..... #.... .###. .###. ..#.. ####. .###. ####. #####
    ...#. ..##. #.... .#... ....# #...# #...# ..... ..... ...#. ..... .#... #...# #...# .#.#. #...# #...# #...# #....
    ..#.. .#.#. ####. #.... ...#. #...# #...# ..#.. ..#.. ..#.. ##### ..#.. ....# #.### #...# #...# #.... #...# #....
    .###. #..#. ....# ####. ...#. .###. .#### ..... ..... .#... ..... ...#. ..##. #.#.# #...# ####. #.... #...# ####.
    ....# ##### ....# #...# ..#.. #...# ....# ..... ..... ..#.. ##### ..#.. ..#.. #.##. ##### #...# #.... #...# #....
    #...# ...#. #...# #...# ..#.. #...# ...#. ..... ..#.. ...#. ..... .#... ..... #.... #...# #...# #...# #...# #....
    .###. ...#. .###. .###. ..#.. .###. .##.. ..#.. ..#.. ....# ..... #.... ..#.. .###. #...# ####. .###. ####. #####
    ..... ..... ..... ..... ..... ..... ..... ..... .#... ..... ..... ..... ..... ..... ..... ..... ..... ..... .....

    ##### .###. #...# .###. ..### #...# #.... #...# #...# .###. ####. .###. ####. .###. ##### #...# #...# #...# #...#
    #.... #...# #...# ..#.. ....# #..#. #.... ##.## ##..# #...# #...# #...# #...# #...# ..#.. #...# #...# #...# #...#
    #.... #.... #...# ..#.. ....# #.#.. #.... #.#.# #.#.# #...# #...# #...# #...# #.... ..#.. #...# #...# #...# .#.#.
    ####. #.### ##### ..#.. ....# ##... #.... #.#.# #.#.# #...# ####. #...# ####. .###. ..#.. #...# .#.#. #.#.# ..#..
    #.... #...# #...# ..#.. ....# #.#.. #.... #...# #..## #...# #.... #.#.# #.#.. ....# ..#.. #...# .#.#. #.#.# .#.#.
    #.... #...# #...# ..#.. #...# #..#. #.... #...# #...# #...# #.... #..#. #..#. #...# ..#.. #...# .#.#. #.#.# #...#
    #.... .###. #...# .###. .###. #...# ##### #...# #...# .###. #.... .##.# #...# .###. ..#.. .###. ..#.. .#.#. #...#

    #...# ##### .###. #.... .###. ..#.. ..... .#... ..... #.... ..... ....# ..... ..##. ..... #.... ..#.. ...#. #....
    #...# ....# .#... #.... ...#. .#.#. ..... ..#.. ..... #.... ..... ....# ..... .#... ..... #.... ..... ..... #....
    .#.#. ...#. .#... .#... ...#. #...# ..... ..... .###. ####. .###. .#### .###. ####. .#### ####. .##.. ..##. #..#.
    ..#.. ..#.. .#... ..#.. ...#. ..... ..... ..... ....# #...# #...# #...# #...# .#... #...# #...# ..#.. ...#. #.#..
    ..#.. .#... .#... ...#. ...#. ..... ..... ..... .#### #...# #.... #...# ##### .#... #...# #...# ..#.. ...#. ##...
    ..#.. #.... .#... ....# ...#. ..... ..... ..... #...# #...# #...# #...# #.... .#... #...# #...# ..#.. ...#. #.#..
    ..#.. ##### .###. ....# .###. ..... ..... ..... .#### ####. .###. .#### .###. .#... .#### #...# .###. ...#. #..#.
    ..... ..... ..... ..... ..... ..... ##### ..... ..... ..... ..... ..... ..... ..... ....# ..... ..... ...#. .....
    ..... ..... ..... ..... ..... ..... ..... ..... ..... ..... ..... ..... ..... ..... .###. ..... ..... .##.. .....

    .##.. ..... ..... ..... ..... ..... ..... ..... .#... ..... ..... ..... ..... ..... ..... ...## ..#.. ##... .....
    ..#.. ..... ..... ..... ..... ..... ..... ..... .#... ..... ..... ..... ..... ..... ..... ..#.. ..#.. ..#.. .....
    ..#.. ####. ####. .###. ####. .#### #.##. .#### ####. #...# #...# #...# #...# #...# ##### ..#.. ..#.. ..#.. .#...
    ..#.. #.#.# #...# #...# #...# #...# ##... #.... .#... #...# #...# #...# .#.#. #...# ...#. .#... ..#.. ...#. #.#.#
    ..#.. #.#.# #...# #...# #...# #...# #.... .###. .#... #...# .#.#. #.#.# ..#.. #...# ..#.. ..#.. ..#.. ..#.. ...#.
    ..#.. #.#.# #...# #...# #...# #...# #.... ....# .#... #...# .#.#. #.#.# .#.#. #...# .#... ..#.. ..#.. ..#.. .....
    .###. #.#.# #...# .###. ####. .#### #.... ####. ..##. .#### ..#.. .#.#. #...# .#### ##### ...## ..#.. ##... .....
    ..... ..... ..... ..... #.... ....# ..... ..... ..... ..... ..... ..... ..... ....# ..... ..... ..... ..... .....
    ..... ..... ..... ..... #.... ....# ..... ..... ..... ..... ..... ..... ..... .###. ..... ..... ..... ..... .....
"""


def text_size(text: str, scale: float) -> tuple[int, int]:
    """(width, height) in pixels of one line of text."""
    return round(CELL_WIDTH * scale) * len(text), round(CELL_HEIGHT * scale)


def blend(plane: Grey, mask: Grey, left: int, top: int, level: int) -> None:
    """Draw `mask` on the plane in place with grey `level`; clipped to the plane."""
    height, width = plane.shape
    x0, y0 = max(left, 0), max(top, 0)
    x1, y1 = min(left + mask.shape[1], width), min(top + mask.shape[0], height)
    if x0 >= x1 or y0 >= y1:
        return
    target = plane[y0:y1, x0:x1]
    cover = mask[y0 - top : y1 - top, x0 - left : x1 - left].astype(np.uint16)
    # (a * (255 - m) + b * m) / 255 in 16 bits without a division: x / 255 = (x + x / 256) / 256, rounded.
    mixed = target * (255 - cover) + cover * np.uint16(level) + np.uint16(128)
    target[...] = (mixed + (mixed >> 8)) >> 8


def draw_text(plane: Grey, text: str, left: int, top: int, scale: float, level: int = 255) -> None:
    """Draw one line of text on a plane in place, clipped to it; `left` and `top` in pixels.

    `plane` is uint8 (height, width): a Y plane, or one channel of an image. `scale` is the size of a dot in pixels: a
    capital is seven dots high. `level` is the grey level, 0 to 255. A character that is not printable ASCII is drawn as
    `?`.
    """
    advance = round(CELL_WIDTH * scale)
    mask = _cached_letter if scale <= _MAX_CACHED_SCALE else _draw_letter
    for place, letter in enumerate(text):
        if letter != " ":
            blend(plane, mask(letter, scale), left + place * advance, top, level)


def draw_centred(plane: Grey, lines: Sequence[str], scale: float, level: int = 255) -> None:
    height, width = plane.shape
    line_height = round(CELL_HEIGHT * scale * 1.25)
    # The descenders of the last line are not counted, or the text would look too high.
    top = (height - line_height * (len(lines) - 1) - round(7 * scale)) // 2
    for line in lines:
        draw_text(plane, line, (width - text_size(line, scale)[0]) // 2, top, scale, level)
        top += line_height


@lru_cache(maxsize=1)
def _dots() -> dict[str, tuple[tuple[int, int], ...]]:
    """The dots (column, row) of each character."""
    dots: dict[str, tuple[tuple[int, int], ...]] = {}
    for band in _DRAWN.strip().split("\n\n"):
        for art in zip(*(line.split() for line in band.splitlines()), strict=True):
            lit = tuple((x, y) for y, line in enumerate(art) for x, dot in enumerate(line) if dot == "#")
            dots[chr(_FIRST + len(dots))] = lit
    return dots


def _strokes(lit: Sequence[tuple[int, int]]) -> list[tuple[int, int, int, int]]:
    """The lines (x0, y0, x1, y1) that join dots; a single dot is a line of length 0.

    Diagonal neighbours are joined only if no dot next to both joins them already; otherwise corners would be filled.
    """
    there = set(lit)
    strokes = [(x, y, x, y) for x, y in lit]
    for x, y in lit:
        strokes += [(x, y, x + dx, y + dy) for dx, dy in ((1, 0), (0, 1)) if (x + dx, y + dy) in there]
        for dx in (-1, 1):
            if (x + dx, y + 1) in there and (x + dx, y) not in there and (x, y + 1) not in there:
                strokes.append((x, y, x + dx, y + 1))
    return strokes


def _draw_letter(letter: str, scale: float) -> Grey:
    """The coverage of one glyph's cell, uint8 (height, width): 255 inside a stroke, 0 outside, smooth in between."""
    dots = _dots()
    height, width = round(CELL_HEIGHT * scale), round(CELL_WIDTH * scale)
    y = ((np.arange(height, dtype=np.float32) + 0.5) / scale - 0.5)[:, None]
    x = ((np.arange(width, dtype=np.float32) + 0.5) / scale - 1.0)[None, :]  # half a dot of space on either side
    nearest = np.full((height, width), np.inf, np.float32)
    for x0, y0, x1, y1 in _strokes(dots.get(letter, dots["?"])):
        along = np.clip((x - x0) * (x1 - x0) + (y - y0) * (y1 - y0), 0, None)
        along = np.clip(along / max((x1 - x0) ** 2 + (y1 - y0) ** 2, 1), 0, 1)
        nearest = np.minimum(nearest, np.hypot(x - x0 - along * (x1 - x0), y - y0 - along * (y1 - y0)))
    mask: Grey = (np.clip(0.5 + (_STROKE_DOTS - nearest) * scale, 0, 1) * 255).astype(np.uint8)
    mask.setflags(write=False)
    return mask


_cached_letter = lru_cache(maxsize=512)(_draw_letter)  # five sizes of all characters
