"""The picture that viewers see while there is none: dark, with a few words in the middle.

It is for streams alone; a snapshot never shows it. Drawn once for each text and size and then kept, so that sending it
every second costs nothing. Any thread may call.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import numpy as np

from softcam.imaging.font import CELL_HEIGHT, CELL_WIDTH, draw_centred
from softcam.imaging.frame import Frame
from softcam.imaging.jpeg import encode

_BACKGROUND: Final = (30, 132, 126)  # Y, Cb, Cr: nearly black, faintly blue
_TEXT: Final = 208
_QUALITY: Final = 80  # some 50 kB at full HD, once a second; much lower shows rings around the letters
_ROOM: Final = 0.84  # how much of the width and the height the text may take
_LINE_PITCH: Final = 1.25  # a line's height with the space to the next one, in cells
# Letters no larger than this part of the height, or a short word would shout.
_LARGEST_CELL: Final = 1 / 18
_KEPT: Final = 8  # one camera, two or three sizes, and the texts between two states


def placeholder(size: tuple[int, int], lines: Sequence[str]) -> bytes:
    """A JPEG of `size` (width, height) with `lines` centred on it, wrapped and made smaller until they fit.

    What does not fit even in the smallest letters is left out at the end.
    """
    return _draw(size, tuple(lines))


@lru_cache(maxsize=_KEPT)
def _draw(size: tuple[int, int], lines: tuple[str, ...]) -> bytes:
    width, height = size
    half = ((height + 1) // 2, (width + 1) // 2)
    y = np.full((height, width), _BACKGROUND[0], np.uint8)
    wrapped, scale = _fit(lines, width, height)
    draw_centred(y, wrapped, scale, _TEXT)
    planes = (y, np.full(half, _BACKGROUND[1], np.uint8), np.full(half, _BACKGROUND[2], np.uint8))
    return encode(Frame(planes, "YUV420", width, height), None, _QUALITY)


def _fit(lines: Sequence[str], width: int, height: int) -> tuple[list[str], int]:
    """The lines, wrapped, and the largest scale at which they fit into a picture of this size."""
    scale = max(1, round(height * _LARGEST_CELL / CELL_HEIGHT))
    while True:
        columns = max(1, int(width * _ROOM / (CELL_WIDTH * scale)))
        rows = max(1, int(height * _ROOM / (CELL_HEIGHT * scale * _LINE_PITCH)))
        wrapped = [part for line in lines for part in _wrap(line, columns)]
        has_whole_words = all(len(word) <= columns for line in lines for word in line.split())
        if scale == 1 or (len(wrapped) <= rows and has_whole_words):
            return wrapped[:rows], scale
        scale -= 1


def _wrap(line: str, columns: int) -> list[str]:
    """`line` in parts of at most `columns` letters, between words where possible; an empty line stays one."""
    parts = [""]
    for word in line.split():
        if parts[-1] and len(parts[-1]) + 1 + len(word) <= columns:
            parts[-1] += " " + word
            continue
        pieces = [word[at : at + columns] for at in range(0, len(word), columns)]
        parts[-1:] = pieces if not parts[-1] else [parts[-1], *pieces]
    return parts
