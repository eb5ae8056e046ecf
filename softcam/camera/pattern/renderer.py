"""The pattern camera's pictures: the scene through the lens and the sensor, a moving block and a clock.

All that does not move is a `Background`, rendered when the look changes: palette indices, a colour table for
exposure, gains and image controls, a box blur for the lens, noise. A `Buffer` keeps the background that it shows, so
that a frame costs a few small rectangles. One thread at a time may use these objects: the pattern camera's own.
"""

import time
from functools import lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from softcam.camera.pattern.scene import BLOCK, LANE, PALETTE, Plane, draw_scene, to_pixels
from softcam.camera.pattern.sensor import CARD, SENSOR_SIZE, Look
from softcam.imaging import font

Planes = tuple[Plane, Plane, Plane]  # Y (h, w), U and V (h // 2, w // 2); h and w even
_Box = tuple[slice, slice]  # rows and columns of Y, at even places

_STRIDE: Final = 64  # rows of Y are padded as on a Raspberry Pi 5
_GAMMA: Final = 2.2
# How far, as a share of the whole view's width, a point spreads when the focus is one dioptre off.
_BLUR_PER_DIOPTRE: Final = 0.0033
_BEND: Final = 0.16  # how much closer to the middle an uncorrected lens shows the edge
_LEAST_NOISE: Final = 0.9  # levels; less would be lost in the JPEG
_NOISE_TILE_PX: Final = 256
_CACHE_BYTES: Final = 1 << 16  # a plane is blurred in strips of this size, which stay in the processor's cache

_BLOCK_SIZE: Final = (300, 240)  # sensor pixels
_BLOCK_CROSSES_S: Final = 5.0  # from one side to the other

_PLATE_LEVEL: Final = 26
_CLOCK_WIDTH: Final = 0.52  # of the frame's height
_CLOCK_MIDDLE: Final = 0.41  # of the frame's height, from the top


class Background:
    """All that does not move in frames of one size and look; immutable."""

    def __init__(self, width: int, height: int, look: Look) -> None:
        self.size = (width, height)
        self.look = look
        self.colours = _colour_tables(look)
        indices = draw_scene(width, height, look.seen)
        y, u, v = (
            _focus(_apply_table(table, part), look)
            for table, part in zip(self.colours, (indices, indices[::2, ::2], indices[::2, ::2]), strict=True)
        )
        if look.sharpness != 1:
            y = _to_levels(y + (y - _box_blur(y, 1).astype(np.int16)) * (look.sharpness - 1))
        if look.noise >= _LEAST_NOISE:
            y = _to_levels(y + _noise(y.shape, look.noise))
        self.planes: Planes = (_orient(y, look), _orient(u, look), _orient(v, look))

    def block_box(self, unix_s: float) -> _Box:
        """Where the moving block is at that time."""
        width, height = self.size
        seen = self.look.seen
        way = unix_s / _BLOCK_CROSSES_S % 2
        x = round((way if way < 1 else 2 - way) * (SENSOR_SIZE[0] - _BLOCK_SIZE[0]))
        y = LANE[1] + (LANE[3] - _BLOCK_SIZE[1]) // 2
        left, top, right, bottom = to_pixels((x, y, *_BLOCK_SIZE), width, height, seen)
        if self.look.hflip:
            left, right = width - right, width - left
        if self.look.vflip:
            top, bottom = height - bottom, height - top
        return slice(top & ~1, bottom & ~1), slice(left & ~1, right & ~1)


class Buffer:
    """Memory for one frame, which remembers what it shows; rows are padded as a Raspberry Pi 5 pads them."""

    def __init__(self, width: int, height: int) -> None:
        stride = -(-width // _STRIDE) * _STRIDE
        block = np.empty(stride * height * 3 // 2, np.uint8)
        y, chroma = block[: stride * height], block[stride * height :]
        u, v = chroma.reshape(2, height // 2, stride // 2)
        self.planes: Planes = (y.reshape(height, stride)[:, :width], u[:, : width // 2], v[:, : width // 2])
        self._clock = _Clock(width, height)
        self._shown: Background | None = None
        self._block: _Box = (slice(0, 0), slice(0, 0))

    def draw(self, background: Background, sequence: int, unix_s: float) -> None:
        """Draw the frame of a moment."""
        if background is self._shown:
            _copy(self.planes, background.planes, self._block)
        else:
            _copy(self.planes, background.planes, (slice(None), slice(None)))
            self._shown = background
        self._block = background.block_box(unix_s)
        for plane, box, table in zip(self.planes, _boxes(self._block), background.colours, strict=True):
            plane[box] = table[BLOCK]
        self._clock.draw(self.planes, sequence, unix_s)


class _Clock:
    """Date, time and frame number on a dark plate; at the same place of the frame whatever the zoom."""

    def __init__(self, width: int, height: int) -> None:
        letter_px = font.CELL_WIDTH * 2 * len("00:00:00.00")  # of the time, in the smallest size
        self._scale = max(1, int(min(height * _CLOCK_WIDTH, width * 0.9) / letter_px))
        plate_width, plate_height = min(144 * self._scale, width) & ~1, min(60 * self._scale, height) & ~1
        left = (width - plate_width) // 2 & ~1
        top = max(0, round(height * _CLOCK_MIDDLE) - plate_height // 2) & ~1
        self._plate = np.full((plate_height, plate_width), _PLATE_LEVEL, np.uint8)
        self._box: _Box = (slice(top, top + plate_height), slice(left, left + plate_width))

    def draw(self, planes: Planes, sequence: int, unix_s: float) -> None:
        now = time.localtime(unix_s)
        self._write(time.strftime("%Y-%m-%d", now), 6)
        self._write(f"{time.strftime('%H:%M:%S', now)}.{int(unix_s % 1 * 100):02}", 20, 2)
        self._write(f"frame {sequence:06}", 43)
        y, u, v = _boxes(self._box)
        planes[0][y], planes[1][u], planes[2][v] = self._plate, 128, 128

    def _write(self, text: str, top: int, times: int = 1) -> None:
        """Write a line into the middle of the plate, `times` as large as the others; what does not fit is cut off."""
        letters = np.concatenate([_letter(letter, self._scale) for letter in text], axis=1)
        if times > 1:
            letters = letters.repeat(times, axis=0).repeat(times, axis=1)
        left = max(0, (self._plate.shape[1] - letters.shape[1]) // 2)
        target = self._plate[top * self._scale :, left:][: letters.shape[0], : letters.shape[1]]
        target[...] = letters[: target.shape[0], : target.shape[1]]


@lru_cache(maxsize=128)
def _letter(letter: str, scale: int) -> Plane:
    image = np.full((font.CELL_HEIGHT * scale, font.CELL_WIDTH * scale), _PLATE_LEVEL, np.uint8)
    font.draw_text(image, letter, 0, 0, scale, 240)
    return image


def _boxes(box: _Box) -> tuple[_Box, _Box, _Box]:
    """The box of Y, and of U and V, which have half the size."""
    if box == (slice(None), slice(None)):
        return box, box, box
    rows, columns = (slice(part.start // 2, part.stop // 2) for part in box)
    return box, (rows, columns), (rows, columns)


def _copy(planes: Planes, source: Planes, box: _Box) -> None:
    for target, plane, part in zip(planes, source, _boxes(box), strict=True):
        target[part] = plane[part]


def _colour_tables(look: Look) -> tuple[Plane, Plane, Plane]:
    """Y, U and V by palette index: what the sensor and its pipeline make of the scene's colours."""
    light = (PALETTE / 255) ** _GAMMA * look.exposure * (look.red, 1, look.blue)
    tone = np.minimum(light, 1) ** ((0.7 if look.lifts_shadows else 1) / _GAMMA)
    tone = np.clip((tone - 0.5) * look.contrast + 0.5 + look.brightness, 0, 1) * 255
    y = tone @ (0.299, 0.587, 0.114)
    u = 128 + 0.564 * (tone[:, 2] - y) * look.saturation
    v = 128 + 0.713 * (tone[:, 0] - y) * look.saturation
    return _to_levels(y), _to_levels(u), _to_levels(v)


def _apply_table(table: Plane, indices: Plane) -> Plane:
    # Several times as fast as numpy's indexing.
    levels = indices.tobytes().translate(table.tobytes().ljust(256, b"\0"))
    return np.frombuffer(levels, np.uint8).reshape(indices.shape)


def _focus(plane: Plane, look: Look) -> Plane:
    """The plane as the lens shows it: the wall and the near card are out of focus by different amounts."""
    scale = plane.shape[1] * SENSOR_SIZE[0] / look.seen[2] * _BLUR_PER_DIOPTRE
    blurred = _box_blur(plane, round(look.wall_blur * scale))
    left, top, right, bottom = to_pixels(CARD, plane.shape[1], plane.shape[0], look.seen)
    card = plane[top:bottom, left:right]
    if look.card_blur != look.wall_blur and card.size:
        blurred = blurred.copy()
        blurred[top:bottom, left:right] = _box_blur(card, round(look.card_blur * scale))
    return blurred


def _box_blur(plane: Plane, radius: int) -> Plane:
    """Mean over about 2 * radius + 1 pixels in both directions; the levels of the edges continue beyond them."""
    if not radius:
        return plane
    padded = np.pad(plane, radius, mode="edge")
    blurred = np.empty_like(plane)
    rows = max(8, _CACHE_BYTES // plane.shape[1])
    for top in range(0, plane.shape[0], rows):
        blurred[top : top + rows] = _average(padded[top : top + rows + 2 * radius], 2 * radius)
    return blurred


def _average(padded: Plane, distance: int) -> Plane:
    """Average over `distance` + 1 pixels in both directions; the result is smaller by `distance`.

    Made of averages of two pixels at growing distances, which numpy computes in 8 bits: (a + b) // 2 without a carry.
    """
    step = 1
    while distance:
        step = min(step, distance)
        a, b = padded[step:], padded[:-step]
        a = (a & b) + ((a ^ b) >> 1)  # rounds down, and the other one up: the brightness stays
        a, b = a[:, step:], a[:, :-step]
        padded = (a | b) - ((a ^ b) >> 1)
        distance -= step
        step *= 2
    return padded


def _to_levels(values: npt.NDArray[Any]) -> Plane:
    return np.clip(np.round(values), 0, 255).astype(np.uint8)


def _noise(shape: tuple[int, ...], strength: float) -> npt.NDArray[np.int16]:
    """Noise of that standard deviation in levels. It stands still: noise that moves would cost more than the rest."""
    side = _NOISE_TILE_PX
    tile = np.random.default_rng(708).normal(0, strength, (side, side)).astype(np.int16)
    return np.tile(tile, (-(-shape[0] // side), -(-shape[1] // side)))[: shape[0], : shape[1]]


def _orient(plane: Plane, look: Look) -> Plane:
    """Mirror as requested; an uncorrected lens enlarges the middle and compresses the edges."""
    plane = plane[:: -1 if look.vflip else 1, :: -1 if look.hflip else 1]
    if not look.is_corrected:
        rows, columns = (_bend(side) for side in plane.shape)
        plane = plane[rows[:, None], columns]
    return np.ascontiguousarray(plane)


def _bend(side: int) -> npt.NDArray[np.intp]:
    place = np.linspace(-1, 1, side)
    bent: npt.NDArray[np.intp] = ((place * (1 + _BEND * place**2) / (1 + _BEND) + 1) / 2 * (side - 1) + 0.5).astype(
        np.intp
    )
    return bent
