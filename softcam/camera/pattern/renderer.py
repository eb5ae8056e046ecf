"""The pattern camera's frames: a scene seen through the lens and the sensor, a moving block and a clock.

The scene consists of rectangles in pixels of the whole sensor, so that it is sharp at any size and zoom: colour bars,
gratings, a near card, a lane for the block and grey steps. What does not move is drawn once for each look. Functions
without state; any thread may call them.
"""

import time
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from softcam.camera.pattern.sensor import CARD, SENSOR_SIZE, Look
from softcam.camera.sensor_modes import Rectangle
from softcam.imaging.font import draw_text, text_size
from softcam.imaging.frame import Plane

Planes = tuple[Plane, Plane, Plane]  # Y (h, w), U and V (h // 2, w // 2); h and w even
Colour = tuple[int, int, int]  # sRGB, 0 to 255

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
_WALL: Final = (92, 96, 108)
_DARK: Final = (28, 30, 36)
_LIGHT: Final = (232, 232, 228)
_PAPER: Final = (240, 234, 218)
_CARD_HEAD: Final = (214, 92, 60)
_BLOCK: Final = (250, 118, 44)

_BARS_BOTTOM: Final = 1480
_LANE: Final[Rectangle] = (0, 1560, SENSOR_SIZE[0], 320)  # the block moves along it
_STEPS_TOP: Final = 1960
_BLOCK_SIZE: Final = (300, 240)
_BLOCK_CROSSES_S: Final = 5.0  # from one side to the other

_STRIDE: Final = 64  # rows of Y are padded as on a Raspberry Pi 5
_GAMMA: Final = 2.2
# How far, as a share of the whole view's width, a point spreads when the focus is one dioptre off.
_BLUR_PER_DIOPTRE: Final = 0.0033
_MOST_BLUR_PART: Final = 16  # of the width: more of it, in a zoomed view, would take minutes and show no more
_BEND: Final = 0.16  # how much an uncorrected lens enlarges the middle; the edges are compressed
# A plane is blurred and sharpened in strips of this size, which stay in the processor's cache.
_CACHE_BYTES: Final = 1 << 16
_PLATE_DOTS: Final = (80, 42)  # size of the clock, in dots of its font
_PLATE_LEVEL: Final = 26


def allocate(width: int, height: int) -> Planes:
    """Memory for one frame, with padded rows."""
    stride = -(-width // _STRIDE) * _STRIDE
    y, u, v = (np.empty((height // part, stride // part), np.uint8) for part in (1, 2, 2))
    return y[:, :width], u[:, : width // 2], v[:, : width // 2]


def draw_background(width: int, height: int, look: Look) -> Planes:
    """Draw all that does not move."""
    planes = allocate(width, height)
    for (shape, _), levels in zip(_SHAPES, _levels([colour for _, colour in _SHAPES], look), strict=True):
        _paint(planes, shape, levels, look)
    y, u, v = (_focus(plane, look) for plane in planes)
    if look.sharpness != 1:
        y = _sharpen(y, np.float32(look.sharpness - 1))
    if look.noise:  # it stands still: noise that moves would cost more than everything else
        noise = np.random.default_rng(0).integers(-look.noise, look.noise, y.shape, np.int8, endpoint=True)
        y = _to_levels(y.astype(np.int16) + noise)
    return y, u, v


def draw_frame(planes: Planes, background: Planes, look: Look, sequence: int, unix_s: float) -> None:
    """Draw the frame of a moment; `background` is the one of its look."""
    for plane, source in zip(planes, background, strict=True):
        np.copyto(plane, source)
    way = unix_s / _BLOCK_CROSSES_S % 2
    x = round(min(way, 2 - way) * (SENSOR_SIZE[0] - _BLOCK_SIZE[0]))
    y = _LANE[1] + (_LANE[3] - _BLOCK_SIZE[1]) // 2
    _paint(planes, (x, y, *_BLOCK_SIZE), _levels([_BLOCK], look)[0], look)
    _draw_clock(planes, sequence, unix_s)


def _draw_clock(planes: Planes, sequence: int, unix_s: float) -> None:
    """Draw date, time and frame number on a dark plate, at the same place of the frame whatever the zoom."""
    y, u, v = planes
    height, width = u.shape
    scale = max(1, min(height, 2 * width) // _PLATE_DOTS[0])
    plate_width, plate_height = min(_PLATE_DOTS[0] // 2 * scale, width), min(_PLATE_DOTS[1] // 2 * scale, height)
    left, top = (width - plate_width) // 2, max(0, height * 41 // 100 - plate_height // 2)
    u[top : top + plate_height, left : left + plate_width] = 128
    v[top : top + plate_height, left : left + plate_width] = 128
    plate = y[2 * top : 2 * (top + plate_height), 2 * left : 2 * (left + plate_width)]
    plate[...] = _PLATE_LEVEL
    now = time.localtime(unix_s)
    clock = f"{time.strftime('%H:%M:%S', now)}.{int(unix_s % 1 * 100):02}"
    lines = (time.strftime("%Y-%m-%d", now), clock, f"frame {sequence:06}")
    cell_width, cell_height = text_size(" ", scale)
    for line, text in enumerate(lines):
        line_top = scale * (5 + 12 * line)
        line_left = max(0, (plate.shape[1] - len(text) * cell_width) // 2)
        for place, letter in enumerate(text):
            x = line_left + place * cell_width
            target = plate[line_top : line_top + cell_height, x : x + cell_width]
            target[...] = _letter(letter, scale)[: target.shape[0], : target.shape[1]]


@lru_cache(maxsize=128)
def _letter(letter: str, scale: int) -> Plane:
    """A letter on the plate; copying it costs a tenth of drawing it."""
    width, height = text_size(letter, scale)
    cell = np.full((height, width), _PLATE_LEVEL, np.uint8)
    draw_text(cell, letter, 0, 0, scale, 240)
    return cell


def _shapes() -> Iterator[tuple[Rectangle, Colour]]:
    """Yield what does not move; a later rectangle covers the ones before it."""
    yield (0, 0, *SENSOR_SIZE), _WALL
    yield from _row(0, _BARS_BOTTOM, _BARS)
    yield _LANE, _DARK
    yield from _row(_STEPS_TOP, SENSOR_SIZE[1], _STEPS)
    yield from _grating((200, 700, 864, 720), _LIGHT, (12, 24, 36, 72))
    x, y, width, height = CARD
    yield CARD, _PAPER
    yield (x, y, width, 120), _CARD_HEAD
    yield from _grating((x + 60, y + 180, width - 120, height - 240), _PAPER, (12, 18, 36))


def _row(top: int, bottom: int, colours: tuple[Colour, ...]) -> Iterator[tuple[Rectangle, Colour]]:
    """Yield rectangles side by side, over the whole width."""
    edges = [place * SENSOR_SIZE[0] // len(colours) for place in range(len(colours) + 1)]
    for left, right, colour in zip(edges, edges[1:], colours, strict=False):
        yield (left, top, right - left, bottom - top), colour


def _grating(panel: Rectangle, ground: Colour, strokes: tuple[int, ...]) -> Iterator[tuple[Rectangle, Colour]]:
    """Yield a panel with rows of dark vertical strokes, each row with strokes and gaps of one width."""
    yield panel, ground
    left, top, width, height = panel
    row_height = height // len(strokes)
    for row, stroke in enumerate(strokes):
        for x in range(left, left + width, 2 * stroke):
            yield (x, top + row * row_height, stroke, row_height), _DARK


_SHAPES: Final = tuple(_shapes())


def _paint(planes: Planes, shape: Rectangle, levels: Plane, look: Look) -> None:
    for plane, level in zip(planes, levels, strict=True):
        plane[_place(plane, shape, look)] = level


def _place(plane: Plane, shape: Rectangle, look: Look) -> tuple[slice, slice]:
    """The rows and columns of a rectangle of the scene."""
    x, y, width, height = shape
    if look.hflip:
        x = SENSOR_SIZE[0] - x - width
    if look.vflip:
        y = SENSOR_SIZE[1] - y - height

    def span(start: int, length: int, axis: int) -> slice:
        first, last = (2 * (edge - look.crop[axis]) / look.crop[axis + 2] - 1 for edge in (start, start + length))
        if not look.is_corrected:
            first, last = (place * (1 + _BEND) / (1 + _BEND * min(place**2, 1)) for place in (first, last))
        pixels = plane.shape[1 - axis] / 2
        return slice(max(0, round((first + 1) * pixels)), max(0, round((last + 1) * pixels)))

    return span(y, height, 1), span(x, width, 0)


def _levels(colours: list[Colour], look: Look) -> Plane:
    """Y, U and V of each colour: what the sensor and its pipeline make of the scene."""
    light = (np.array(colours) / 255) ** _GAMMA * look.exposure * (look.red, 1, look.blue)
    tone = np.minimum(light, 1) ** ((0.7 if look.has_lifted_shadows else 1) / _GAMMA)
    tone = np.clip((tone - 0.5) * look.contrast + 0.5 + look.brightness, 0, 1) * 255
    y = tone @ (0.299, 0.587, 0.114)
    u = 128 + 0.564 * (tone[:, 2] - y) * look.saturation
    v = 128 + 0.713 * (tone[:, 0] - y) * look.saturation
    return _to_levels(np.stack((y, u, v), axis=1))


def _to_levels(values: npt.NDArray[Any]) -> Plane:
    return np.clip(np.round(values), 0, 255).astype(np.uint8)


def _focus(plane: Plane, look: Look) -> Plane:
    """The plane as the lens shows it: the wall and the near card are out of focus by different amounts."""
    scale = plane.shape[1] * SENSOR_SIZE[0] / look.crop[2] * _BLUR_PER_DIOPTRE
    most = plane.shape[1] // _MOST_BLUR_PART
    card = _place(plane, CARD, look)
    blurred_card = _blur(plane[card], min(most, round(look.card_blur * scale)))
    plane = _blur(plane, min(most, round(look.wall_blur * scale)))
    plane[card] = blurred_card
    return plane


def _sharpen(plane: Plane, strength: np.float32) -> Plane:
    """Enlarge the difference from the neighbouring pixels; a negative strength reduces it."""

    def sharpen(rows: slice) -> Plane:
        difference = plane[rows] - blurred[rows].astype(np.int16)
        return _to_levels(plane[rows] + difference * strength)

    blurred = _blur(plane, 1)
    return np.concatenate([sharpen(rows) for rows in _strips(plane)])


def _blur(plane: Plane, radius: int) -> Plane:
    """The mean over about 2 * radius + 1 pixels in both directions; the edges continue beyond the plane."""
    if not radius or not plane.size:
        return plane
    padded = np.pad(plane, radius, mode="edge")
    return np.concatenate(
        [_mean(padded[rows.start : rows.stop + 2 * radius], 2 * radius) for rows in _strips(plane, radius)]
    )


def _strips(plane: Plane, margin: int = 0) -> Iterator[slice]:
    """Rows that fit into the processor's cache, but more than twice the `margin` that is computed with them."""
    rows = max(8 + _CACHE_BYTES // plane.shape[1], 2 * margin)
    return (slice(top, top + rows) for top in range(0, plane.shape[0], rows))


def _mean(plane: Plane, distance: int) -> Plane:
    """The mean over `distance` + 1 pixels in both directions, a plane that is smaller by `distance`.

    Made of means of two pixels at growing distances, which numpy computes in 8 bits.
    """
    step = 1
    while distance:
        step = min(step, distance)
        a, b = plane[step:], plane[:-step]
        a = (a & b) + ((a ^ b) >> 1)  # rounds down, and the other one up: the brightness stays
        a, b = a[:, step:], a[:, :-step]
        plane = (a | b) - ((a ^ b) >> 1)
        distance -= step
        step *= 2
    return plane
