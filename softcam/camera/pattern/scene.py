"""The pattern camera's scene: colour bars, gratings, a near card, a lane and grey steps, all made of rectangles.

Coordinates are pixels of the whole sensor, so that the scene is sharp at any size and zoom. It is drawn as palette
indices; `renderer` turns those into colours. Pure functions without state; any thread may call them.
"""

from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

from softcam.camera.pattern.sensor import CARD, SENSOR_SIZE, Rectangle

Plane = npt.NDArray[np.uint8]

LANE: Final[Rectangle] = (0, 1560, SENSOR_SIZE[0], 320)  # the block moves along it
_BARS_BOTTOM: Final = 1480
_STEPS_TOP: Final = 1960

# sRGB from 0 to 255: seven bars from left to right, eleven grey steps, and the rest by name.
_BARS: Final = (
    (168, 168, 168),
    (168, 160, 48),
    (48, 160, 164),
    (52, 156, 60),
    (156, 56, 152),
    (164, 52, 56),
    (52, 64, 164),
)
_STEPS: Final = tuple((level, level, level) for level in range(12, 243, 23))
_WALL, _DARK, _LIGHT, BLOCK, _PAPER, _CARD_HEAD = range(len(_BARS) + len(_STEPS), len(_BARS) + len(_STEPS) + 6)
PALETTE: Final = np.array(
    (*_BARS, *_STEPS, (92, 96, 108), (28, 30, 36), (232, 232, 228), (250, 118, 44), (240, 234, 218), (214, 92, 60))
)


def draw_scene(width: int, height: int, seen: Rectangle) -> Plane:
    """Draw what the sensor sees in the rectangle `seen` as palette indices, (height, width)."""
    indices = np.full((height, width), _WALL, np.uint8)
    for shape, index in _SHAPES:
        left, top, right, bottom = to_pixels(shape, width, height, seen)
        indices[top:bottom, left:right] = index
    return indices


def to_pixels(shape: Rectangle, width: int, height: int, seen: Rectangle) -> Rectangle:
    """(left, top, right, bottom) of a rectangle of the scene in a frame of `seen`, cut to the frame."""
    x, y, shape_width, shape_height = shape
    across, down = width / seen[2], height / seen[3]
    left, right = ((edge - seen[0]) * across for edge in (x, x + shape_width))
    top, bottom = ((edge - seen[1]) * down for edge in (y, y + shape_height))
    return (
        min(max(round(left), 0), width),
        min(max(round(top), 0), height),
        min(max(round(right), 0), width),
        min(max(round(bottom), 0), height),
    )


def _shapes() -> Iterator[tuple[Rectangle, int]]:
    sensor_width, sensor_height = SENSOR_SIZE
    for place in range(len(_BARS)):  # each to the right end, where the next one covers it: no gap at any size
        left = place * sensor_width // len(_BARS)
        yield (left, 0, sensor_width - left, _BARS_BOTTOM), place
    yield LANE, _DARK
    for place in range(len(_STEPS)):
        left = place * sensor_width // len(_STEPS)
        yield (left, _STEPS_TOP, sensor_width - left, sensor_height), len(_BARS) + place
    yield from _grating((200, 700, 864, 720), _LIGHT, (12, 24, 36, 72))
    x, y, width, height = CARD
    yield CARD, _PAPER
    yield (x, y, width, 120), _CARD_HEAD
    yield from _grating((x + 60, y + 180, width - 120, height - 240), _PAPER, (12, 18, 36))


def _grating(panel: Rectangle, ground: int, strokes: tuple[int, ...]) -> Iterator[tuple[Rectangle, int]]:
    """A panel with rows of dark vertical strokes, each row with strokes and gaps of one width."""
    yield panel, ground
    left, top, width, height = panel
    row_height = height // len(strokes)
    for row, stroke in enumerate(strokes):
        for x in range(left, left + width, 2 * stroke):
            yield (x, top + row * row_height, stroke, row_height), _DARK


_SHAPES: Final = tuple(_shapes())
