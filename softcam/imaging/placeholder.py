"""The image that stream clients get while there are no frames: dark, with a few words in the centre.

For streams only; a snapshot never shows it. Drawn once per text and size and then cached, so that sending it every
second costs nothing. Any thread may call.
"""

from collections.abc import Sequence
from functools import lru_cache
from textwrap import TextWrapper
from typing import Final

import numpy as np

from softcam.imaging.font import CELL_HEIGHT, CELL_WIDTH, draw_centred
from softcam.imaging.frame import Frame
from softcam.imaging.jpeg import encode

_BACKGROUND: Final = (30, 132, 126)  # Y, Cb, Cr: nearly black, faintly blue
_TEXT: Final = 208
_QUALITY: Final = 80  # some 50 kB at full HD, once a second; much lower shows rings around the letters
_TEXT_SHARE: Final = 0.84  # share of the width and the height for the text
_LINE_PITCH: Final = 1.25  # distance between two lines, in cells
# The largest letters, as a share of the height: a short text would otherwise be huge.
_MAX_CELL: Final = 1 / 18
_LONGEST_WORD: Final = 40  # longer ones are addresses, which are split: on a phone, smaller letters are unreadable
_CACHED: Final = 8  # two or three sizes, each with the texts of a few states


@lru_cache(maxsize=_CACHED)
def placeholder(size: tuple[int, int], lines: tuple[str, ...]) -> bytes:
    """A JPEG of `size` (width, height) with `lines` centred on it, wrapped and scaled down until they fit.

    Lines that do not fit in the smallest size are omitted at the end.
    """
    width, height = size
    half = ((height + 1) // 2, (width + 1) // 2)
    y = np.full((height, width), _BACKGROUND[0], np.uint8)
    wrapped, scale = _fit(lines, width, height)
    draw_centred(y, wrapped, scale, _TEXT)
    planes = (y, np.full(half, _BACKGROUND[1], np.uint8), np.full(half, _BACKGROUND[2], np.uint8))
    return encode(Frame(planes, "YUV420", width, height), None, _QUALITY)


def _wrap(line: str, columns: int) -> list[str]:
    """The lines of whole words; a word that is longer than a line has its own."""
    return TextWrapper(columns, break_long_words=False, break_on_hyphens=False).wrap(line) or [""]


def _fit(lines: Sequence[str], width: int, height: int) -> tuple[list[str], int]:
    """The wrapped lines, and the largest scale at which they fit into an image of this size."""
    scale = max(1, round(height * _MAX_CELL / CELL_HEIGHT))
    words = [word for line in lines for word in line.split() if len(word) <= _LONGEST_WORD]
    while True:
        columns = max(1, int(width * _TEXT_SHARE / (CELL_WIDTH * scale)))
        rows = max(1, int(height * _TEXT_SHARE / (CELL_HEIGHT * scale * _LINE_PITCH)))
        # An empty line stays one.
        whole = [part for line in lines for part in _wrap(" ".join(line.split()), columns)]
        wrapped = [part[at : at + columns] for part in whole for at in range(0, max(1, len(part)), columns)]
        has_whole_words = all(len(word) <= columns for word in words)
        if scale == 1 or (len(wrapped) <= rows and has_whole_words):
            return wrapped[:rows], scale
        scale -= 1
