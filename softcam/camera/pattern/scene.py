"""The pattern camera's scene, drawn as a vector picture: sharp at any size and any zoom.

Every shape is given in scene units, where 1 is the height of the sensor's whole view, as a function of distance to
its edge; colours are full-range YCbCr. What a lens and a sensor do to it is pattern_picture's. Only the pattern
camera's own thread draws, and what it draws here is drawn once per size and crop.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

import numpy as np
import numpy.typing as npt

from softcam.camera.pattern.sensor import CARD, SENSOR_SIZE, Rectangle
from softcam.imaging import font

Grey = npt.NDArray[np.uint8]
Planes = tuple[Grey, Grey, Grey]  # Y (h, w), U and V (h // 2, w // 2); h and w even
Reals = npt.NDArray[np.float32]
Distance = Callable[[Reals, Reals], Reals]  # of points (x as a row, y as a column) to an edge; negative inside
Colour = tuple[float, float, float]
Box = tuple[float, float, float, float]  # left, top, right, bottom
Edges = tuple[int, int, int, int]  # the same in whole pixels

WIDTH: Final = SENSOR_SIZE[0] / SENSOR_SIZE[1]
DIAL: Final = (WIDTH / 2, 0.41, 0.30)  # the ring round the clock: middle x, y and radius
FLOOR: Final = 0.80  # the ball bounces here, and the colour bars begin

_STAR: Final = (0.31, 0.41, 0.19)
_TILE_PX: Final = 128  # fits a processor's cache
_ALL: Final[Reals] = np.ones((1, 1), np.float32)
_LARGEST_LETTER_PX: Final = 400  # a zoom beyond it shows the paper between the strokes anyway


def ycc(red: float, green: float, blue: float) -> Colour:
    """Full-range YCbCr (BT.601, as in JPEG) of an RGB colour from 0 to 255."""
    y = 0.299 * red + 0.587 * green + 0.114 * blue
    return y, 128 + 0.564 * (blue - y), 128 + 0.713 * (red - y)


_BARS: Final = tuple(
    ycc(red, green, blue)
    for red, green, blue in (
        (200, 200, 200),
        (200, 196, 24),
        (24, 190, 196),
        (32, 184, 48),
        (184, 40, 176),
        (196, 36, 40),
        (32, 52, 196),
    )
)
_WHITE: Final = ycc(244, 244, 240)
_BLACK: Final = ycc(16, 18, 24)
# From the top of the wall down to its foot: an evening sky.
_SKY_HEIGHTS: Final = (0.0, 0.35, 0.62, FLOOR)
_SKY: Final = tuple(ycc(*colour) for colour in ((18, 28, 66), (58, 52, 122), (176, 88, 132), (252, 178, 120)))


class Canvas:
    """Three planes that show a rectangle of the scene."""

    def __init__(self, width: int, height: int, crop: Rectangle) -> None:
        unit = float(SENSOR_SIZE[1])
        self.left, self.top = crop[0] / unit, crop[1] / unit
        self.px_x, self.px_y = width * unit / crop[2], height * unit / crop[3]  # pixels per scene unit
        half = (height // 2, width // 2)
        self.planes: Planes = (
            np.empty((height, width), np.uint8),
            np.empty(half, np.uint8),
            np.empty(half, np.uint8),
        )

    def fill(self, colour: Colour) -> None:
        for plane, level in zip(self.planes, colour, strict=True):
            plane[...] = round(level)

    def sky(self) -> None:
        """Fill everything with the wall's gradient, a little darker towards both sides."""
        for index, plane in enumerate(self.planes):
            x, y = self._points(index, (0, 0, plane.shape[1], plane.shape[0]))
            down = np.interp(y, _SKY_HEIGHTS, [colour[index] for colour in _SKY]).astype(np.float32)
            across = 1 - 0.35 * ((x - WIDTH / 2) / WIDTH * 2) ** 2 if index == 0 else np.ones_like(x)
            for top in range(0, plane.shape[0], 64):  # by strips, or a whole sensor would want 48 MB at once
                plane[top : top + 64] = down[top : top + 64] * across + 0.5

    def shape(self, box: Box, distance: Distance, colour: Colour, opacity: float = 1.0) -> None:
        """Paint what lies within the distance function's edge; nothing outside of `box` is touched."""
        for index, plane in enumerate(self.planes):
            for (x0, y0, x1, y1), cover in self._tiles(index, box, distance):
                part = plane[y0:y1, x0:x1]
                if cover is _ALL and opacity == 1:
                    part[...] = int(colour[index] + 0.5)
                else:
                    part[...] = part + (colour[index] - part) * (cover * opacity) + 0.5

    def _tiles(self, index: int, box: Box, distance: Distance) -> Iterator[tuple[Edges, Reals]]:
        """The tiles of a plane that a shape touches, and how much it covers there; a whole sensor is mostly not edge.

        No distance grows faster than the way, so a tile far within or without is known by its middle.
        """
        edges = self._pixels(index, box)
        if edges is None:
            return
        step = 1 if index == 0 else 2
        soft = step / self.px_y  # an edge is a pixel wide
        reach = 1.05 * np.hypot(_TILE_PX / 2 * step / self.px_x, _TILE_PX / 2 * step / self.px_y) + soft
        x0, y0, x1, y1 = edges
        x, y = self._points(index, (x0, y0, x1 + _TILE_PX, y1 + _TILE_PX))
        middles = distance(x[:, _TILE_PX // 2 :: _TILE_PX], y[_TILE_PX // 2 :: _TILE_PX])
        for row, top in enumerate(range(y0, y1, _TILE_PX)):
            for column, left in enumerate(range(x0, x1, _TILE_PX)):
                if middles[row, column] > reach:
                    continue
                tile = (left, top, min(left + _TILE_PX, x1), min(top + _TILE_PX, y1))
                if middles[row, column] < -reach:
                    yield tile, _ALL
                else:
                    yield tile, np.clip(0.5 - distance(*self._points(index, tile)) / np.float32(soft), 0, 1)

    def rectangle(self, box: Box, colour: Colour, opacity: float = 1.0) -> None:
        self.shape(_wider(box), partial(_to_rectangle, box), colour, opacity)

    def text(self, text: str, middle_x: float, top: float, dot: float, level: int) -> None:
        """Write in grey, with letters' dots of `dot` scene units."""
        scale = dot * self.px_y
        if 0.5 < scale * font.CELL_HEIGHT < _LARGEST_LETTER_PX:
            left = round((middle_x - self.left) * self.px_x) - font.text_size(text, scale)[0] // 2
            font.draw_text(self.planes[0], text, left, round((top - self.top) * self.px_y), scale, level)

    def _pixels(self, index: int, box: Box) -> Edges | None:
        """The box in whole pixels of a plane, cut to it; None where they do not meet."""
        height, width = self.planes[index].shape
        step = 1 if index == 0 else 2
        x0 = max(0, int((box[0] - self.left) * self.px_x / step))
        y0 = max(0, int((box[1] - self.top) * self.px_y / step))
        x1 = min(width, int((box[2] - self.left) * self.px_x / step) + 2)
        y1 = min(height, int((box[3] - self.top) * self.px_y / step) + 2)
        return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None

    def _points(self, index: int, edges: Edges) -> tuple[Reals, Reals]:
        """The middles of a plane's pixels in scene units: x as a row, y as a column."""
        x0, y0, x1, y1 = edges
        step = 1 if index == 0 else 2
        x = (np.arange(x0, x1, dtype=np.float32) + 0.5) * np.float32(step / self.px_x) + np.float32(self.left)
        y = (np.arange(y0, y1, dtype=np.float32) + 0.5) * np.float32(step / self.px_y) + np.float32(self.top)
        return x[None, :], y[:, None]


def draw_wall(canvas: Canvas) -> None:
    """Everything that hangs on the wall: sky, grid, focus star, dial, colour bars and steps of grey."""
    canvas.sky()
    for line in range(1, 16):
        x = line * WIDTH / 16
        canvas.rectangle((x - 0.0008, 0, x + 0.0008, FLOOR), _WHITE, 0.16)
    for line in range(1, 8):
        y = line / 9
        canvas.rectangle((0, y - 0.0008, WIDTH, y + 0.0008), _WHITE, 0.16)
    _draw_star(canvas)
    _draw_dial(canvas)
    canvas.text("SOFT STREAM", DIAL[0], 0.215, 0.0050, 250)
    canvas.text("pattern camera", DIAL[0], 0.560, 0.0038, 236)
    # Each bar reaches to the right end, and the next one covers it: no seam shows what is below.
    for place, colour in enumerate(_BARS):
        canvas.rectangle((place * WIDTH / len(_BARS), FLOOR, WIDTH + 1, 1), colour)
    for place in range(11):
        canvas.rectangle((place * WIDTH / 11, 0.93, WIDTH + 1, 2), (12.0 + place * 23, 128.0, 128.0))
    canvas.rectangle((0, FLOOR - 0.004, WIDTH, FLOOR), _BLACK)


def draw_card(canvas: Canvas) -> None:
    """Cover a canvas with the near card: fine lines and small print, sharp only when the lens is set to it."""
    left, top, right, bottom = card_box()
    middle = (left + right) / 2
    canvas.fill(ycc(250, 244, 226))
    canvas.rectangle((left - 1, top - 1, right + 1, top + 0.052), ycc(214, 92, 60))
    canvas.text("NEAR CARD", middle, top + 0.010, 0.0042, 250)
    for row, (x, half) in enumerate((x, 0.0010 + 0.0008 * row) for row in range(4) for x in range(6)):
        line_top = top + 0.07 + (row // 6) * 0.042
        line_x = middle - 0.12 + x * 0.045
        for stroke in range(3):
            at = line_x + stroke * half * 4
            canvas.rectangle((at - half, line_top, at + half, line_top + 0.033), _BLACK)
    canvas.text("focus on me:", middle, bottom - 0.062, 0.0026, 40)
    canvas.text("AfMetering 1, AfWindows here", middle, bottom - 0.033, 0.0016, 40)


def card_box() -> Box:
    """Where the near card is, in scene units."""
    x, y, width, height = (part / SENSOR_SIZE[1] for part in CARD)
    return x, y, x + width, y + height


def _draw_star(canvas: Canvas) -> None:
    """Spokes that run together in the middle: the classic way to see how sharp a lens is."""
    middle_x, middle_y, radius = _STAR
    around = (middle_x - radius - 0.02, middle_y - radius - 0.02, middle_x + radius + 0.02, middle_y + radius + 0.02)
    canvas.shape(around, lambda x, y: np.hypot(x - middle_x, y - middle_y) - np.float32(radius + 0.012), _WHITE)

    def to_spokes(x: Reals, y: Reals) -> Reals:
        away = np.hypot(x - middle_x, y - middle_y)
        spokes = np.sin(np.arctan2(y - middle_y, x - middle_x) * 18) * away / 18
        to_edge: Reals = np.maximum(np.maximum(spokes, away - np.float32(radius)), np.float32(0.012) - away)
        return to_edge

    canvas.shape(around, to_spokes, _BLACK)


def _draw_dial(canvas: Canvas) -> None:
    middle_x, middle_y, radius = DIAL
    edge = radius + 0.05
    around = (middle_x - edge, middle_y - edge, middle_x + edge, middle_y + edge)

    def to_disc(x: Reals, y: Reals) -> Reals:
        to_edge: Reals = np.hypot(x - middle_x, y - middle_y) - np.float32(radius)
        return to_edge

    canvas.shape(around, to_disc, _BLACK, 0.28)
    canvas.shape(around, lambda x, y: np.abs(to_disc(x, y)) - np.float32(0.0035), _WHITE)
    for second in range(60):
        angle = second * np.pi / 30
        half = 0.0042 if second % 5 == 0 else 0.0022
        inner, outer = radius + 0.012, radius + (0.034 if second % 5 == 0 else 0.024)
        sine, cosine = float(np.sin(angle)), float(-np.cos(angle))
        ends = sorted((middle_x + inner * sine, middle_x + outer * sine))
        sides = sorted((middle_y + inner * cosine, middle_y + outer * cosine))
        box = (ends[0] - half, sides[0] - half, ends[1] + half, sides[1] + half)
        canvas.shape(_wider(box), partial(_to_tick, (sine, cosine), (inner, outer), half), _WHITE, 0.9)


def _to_tick(direction: tuple[float, float], reach: tuple[float, float], half: float, x: Reals, y: Reals) -> Reals:
    along = (x - DIAL[0]) * np.float32(direction[0]) + (y - DIAL[1]) * np.float32(direction[1])
    aside = (x - DIAL[0]) * np.float32(direction[1]) - (y - DIAL[1]) * np.float32(direction[0])
    outside = np.maximum(np.float32(reach[0]) - along, along - np.float32(reach[1]))
    to_edge: Reals = np.maximum(outside, np.abs(aside) - np.float32(half))
    return to_edge


def _to_rectangle(box: Box, x: Reals, y: Reals) -> Reals:
    left, top, right, bottom = (np.float32(edge) for edge in box)
    to_edge: Reals = np.maximum(np.maximum(left - x, x - right), np.maximum(top - y, y - bottom))
    return to_edge


def _wider(box: Box) -> Box:
    """With room for a soft edge, which is a pixel wide: at 64 lines that is 0.016."""
    return box[0] - 0.01, box[1] - 0.01, box[2] + 0.01, box[3] + 0.01
