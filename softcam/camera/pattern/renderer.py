"""The pattern camera's pictures: the scene through the lens and the sensor, and what moves in it.

Drawing is cheap because it is done in stages, each kept until its inputs change: the sharp scene (size, crop), the
scene out of focus (lens), the developed picture (exposure, colours, …). A frame is then a copy of the last stage, a
ball, a bead on the dial and a few letters. One thread at a time may use a `Painter`: the pattern camera's own.
"""

import math
import time
from dataclasses import dataclass
from typing import Final

import numpy as np

from softcam.camera.pattern.scene import (
    DIAL,
    FLOOR,
    WIDTH,
    Canvas,
    Colour,
    Grey,
    Planes,
    card_box,
    draw_card,
    draw_wall,
    ycc,
)
from softcam.camera.pattern.sensor import SENSOR_SIZE, Look, Rectangle
from softcam.imaging import font

_GAMMA: Final = 2.2
# How far, in parts of the whole view's width, a point spreads (one sigma) when the focus is one dioptre off.
_BLUR_PER_DIOPTRE: Final = 0.0022
_LEAST_BLUR_PX: Final = 0.35  # less cannot be seen
_BENT: Final = 0.16  # how much further out a corner is seen than the middle
_LEAST_GRAIN: Final = 0.9  # levels; less would be lost in the JPEG

_BALL_RADIUS: Final = 0.05
_BALL_CROSSES_S: Final = 5.0  # from one side to the other
_BALL_BOUNCE_S: Final = 1.25
_BALL_HEIGHT: Final = 0.21
_BEAD_RADIUS: Final = 0.017
_LARGEST_SPRITE_PX: Final = 1200  # beyond, at a high zoom, a moving thing is left out rather than slow

_CLOCK_LETTERS: Final = len("00:00:00.00")
_CLOCK_WIDTH: Final = 0.52  # of the frame's height, which leaves it inside of the dial


@dataclass(frozen=True, slots=True)
class _Sprite:
    """A thing that moves: its colours and how much it covers, both at full and at half size."""

    planes: Planes
    cover: tuple[Grey, Grey]


@dataclass(frozen=True, slots=True)
class _Clock:
    """Where the clock stands in a frame of some size: the dark plate below it, in pixels, and the letters' sizes."""

    left: int
    top: int
    width: int
    height: int
    scale: int

    @property
    def small(self) -> float:
        return max(1.0, self.scale * 0.5)


@dataclass(frozen=True, slots=True)
class _Still:
    """All that does not move in frames of one look."""

    key: tuple[int, int, Look]
    planes: Planes
    ball: _Sprite | None
    bead: _Sprite | None
    clock: _Clock


class Painter:
    """Draws frames; keeps the stages of the last look, and nothing else."""

    def __init__(self) -> None:
        self._sharp: tuple[tuple[int, int, Rectangle], Planes, Planes] | None = None
        self._focused: tuple[object, Planes] | None = None
        self._still: _Still | None = None

    def paint(self, planes: Planes, look: Look, sequence: int, unix_s: float) -> None:
        """Draw the frame of a moment into Y (h, w), U and V (h // 2, w // 2); h and w even, rows of any stride."""
        height, width = planes[0].shape
        still = self._still
        if still is None or still.key != (width, height, look):
            still = self._still = self._prepare(width, height, look)
        for target, source in zip(planes, still.planes, strict=True):
            np.copyto(target, source)
        across, down = _ball_at(unix_s)
        _place(planes, still.ball, look, across, down)
        turn = unix_s % 60 * math.pi / 30
        bead_x, bead_y = DIAL[0] + DIAL[2] * math.sin(turn), DIAL[1] - DIAL[2] * math.cos(turn)
        _place(planes, still.bead, look, bead_x, bead_y)
        _write_clock(planes, still, sequence, unix_s)

    def _prepare(self, width: int, height: int, look: Look) -> _Still:
        focused = self._focus(width, height, look)
        planes = _turn(_develop(focused, look), look)
        clock = _place_clock(width, height)
        _darken_plate(planes, clock)
        px = height * SENSOR_SIZE[1] / look.seen[3]
        blur_px = _blur_px(width, look, look.wall_blur)
        return _Still(
            key=(width, height, look),
            planes=planes,
            ball=_sprite(_BALL_RADIUS * px, blur_px, ycc(250, 118, 44), look),
            bead=_sprite(_BEAD_RADIUS * px, blur_px, ycc(255, 214, 96), look),
            clock=clock,
        )

    def _focus(self, width: int, height: int, look: Look) -> Planes:
        """The scene as the lens throws it on the sensor."""
        wall, card = self._draw(width, height, look.seen)
        key = (width, height, look.seen, look.wall_blur, look.card_blur)
        if self._focused is None or self._focused[0] != key:
            planes = _soften_planes(wall, _blur_px(width, look, look.wall_blur))
            near = _soften_planes(card, _blur_px(width, look, look.card_blur))
            if near[0].size:
                planes = (planes[0].copy(), planes[1].copy(), planes[2].copy())
                left, top, _ = _card_pixels(width, height, look.seen)
                cover = _soft_edges(near[0].shape, _blur_px(width, look, look.card_blur))
                for index, (target, source) in enumerate(zip(planes, near, strict=True)):
                    step = 1 if index == 0 else 2
                    _blend(target, source, cover[::step, ::step], left // step, top // step)
            self._focused = (key, planes)
        return self._focused[1]

    def _draw(self, width: int, height: int, crop: Rectangle) -> tuple[Planes, Planes]:
        key = (width, height, crop)
        if self._sharp is None or self._sharp[0] != key:
            canvas = Canvas(width, height, crop)
            draw_wall(canvas)
            _, _, part = _card_pixels(width, height, crop)
            card = Canvas(part[0], part[1], part[2])
            if part[0] and part[1]:
                draw_card(card)
            self._sharp = (key, canvas.planes, card.planes)
        return self._sharp[1], self._sharp[2]


def _card_pixels(width: int, height: int, crop: Rectangle) -> tuple[int, int, tuple[int, int, Rectangle]]:
    """Where the near card is in a frame (left, top, both even), and what a canvas for it alone needs.

    The crop of that canvas is in sensor pixels, rounded: the card may be off by one of them.
    """
    scale_x, scale_y = width / crop[2], height / crop[3]
    box = [edge * SENSOR_SIZE[1] for edge in card_box()]
    left = min(max(round((box[0] - crop[0]) * scale_x), 0), width) & ~1
    top = min(max(round((box[1] - crop[1]) * scale_y), 0), height) & ~1
    right = min(max(round((box[2] - crop[0]) * scale_x), 0), width) & ~1
    bottom = min(max(round((box[3] - crop[1]) * scale_y), 0), height) & ~1
    if right <= left or bottom <= top:
        return 0, 0, (0, 0, crop)
    part = (
        crop[0] + round(left / scale_x),
        crop[1] + round(top / scale_y),
        max(1, round((right - left) / scale_x)),
        max(1, round((bottom - top) / scale_y)),
    )
    return left, top, (right - left, bottom - top, part)


def _blur_px(width: int, look: Look, dioptres: float) -> float:
    return dioptres * _BLUR_PER_DIOPTRE * width * SENSOR_SIZE[0] / look.seen[2]


# Out of focus


def _soften_planes(planes: Planes, sigma_px: float) -> Planes:
    return _soften(planes[0], sigma_px), _soften(planes[1], sigma_px / 2), _soften(planes[2], sigma_px / 2)


def _soften(plane: Grey, sigma_px: float) -> Grey:
    """Blur by about a Gaussian: halve the picture until the blur is small, blur it, double it again."""
    if sigma_px < _LEAST_BLUR_PX or not plane.size:
        return plane
    if sigma_px > 0.85 and min(plane.shape) >= 8:
        half = _soften(_halve(plane), sigma_px / 2)
        return _double(half, plane.shape[0], plane.shape[1])
    blurred = plane
    for _ in range(max(1, round(2 * sigma_px**2))):  # each pass of 1 2 1 has a variance of a half
        blurred = _smooth(_smooth(blurred).T).T
    return blurred


def _soft_edges(shape: tuple[int, ...], sigma_px: float) -> Grey:
    """How much a rectangle out of focus covers: all in its middle, less and less towards its edges."""
    slope = [np.minimum(np.arange(side), np.arange(side)[::-1]) + 1.0 for side in shape]
    rows, columns = (np.minimum(away / max(1.0, 2.5 * sigma_px), 1) for away in slope)
    cover: Grey = (rows[:, None] * columns[None, :] * 255).astype(np.uint8)
    return cover


def _halve(plane: Grey) -> Grey:
    height, width = plane.shape
    padded = np.pad(plane, ((0, height % 2), (0, width % 2)), mode="edge").astype(np.uint16)
    rows = padded[0::2] + padded[1::2]
    halved: Grey = ((rows[:, 0::2] + rows[:, 1::2] + 2) >> 2).astype(np.uint8)
    return halved


def _double(plane: Grey, height: int, width: int) -> Grey:
    return np.ascontiguousarray(_double_rows(_double_rows(plane).T).T[:height, :width])


def _double_rows(plane: Grey) -> Grey:
    """Twice the rows, each three parts of the row it lies in and one of the next one."""
    wide = np.pad(plane, ((1, 1), (0, 0)), mode="edge").astype(np.uint16)
    middle = wide[1:-1] * np.uint16(3) + np.uint16(2)
    doubled = np.empty((2 * plane.shape[0], plane.shape[1]), np.uint8)
    doubled[0::2] = (middle + wide[:-2]) >> 2
    doubled[1::2] = (middle + wide[2:]) >> 2
    return doubled


def _smooth(plane: Grey) -> Grey:
    """Each row mixed with the ones beside it, 1 2 1."""
    wide = np.pad(plane, ((1, 1), (0, 0)), mode="edge").astype(np.uint16)
    smoothed: Grey = ((wide[:-2] + (wide[1:-1] << 1) + wide[2:] + np.uint16(2)) >> 2).astype(np.uint8)
    return smoothed


# Development


def _develop(planes: Planes, look: Look) -> Planes:
    """What the sensor and its pipeline make of the light: new planes, of the same shapes."""
    y, u, v = planes
    light = np.linspace(0, 1, 256) * look.exposure ** (1 / _GAMMA)
    tone = np.minimum(light, 1)
    if look.lifts_shadows:
        tone = tone**0.7
    tone = (tone - 0.5) * look.contrast + 0.5 + look.brightness
    curve = (np.clip(tone, 0, 1) * 255 + 0.5).astype(np.uint8)
    # Colour grows with the light, and fades where the light is too much for the sensor.
    colour = (look.saturation * look.exposure ** (1 / _GAMMA) * np.clip(2 - light, 0, 1)).astype(np.float32)
    strength = colour[y[::2, ::2]]
    developed_y = curve[y]
    cb = (u - np.float32(128)) * strength
    cr = (v - np.float32(128)) * strength
    if abs(look.red - 1) > 0.004 or abs(look.blue - 1) > 0.004:
        half = developed_y[::2, ::2].astype(np.float32)
        more_red = np.clip(half + 1.402 * cr, 0, 255) * np.float32(look.red ** (1 / _GAMMA) - 1)
        more_blue = np.clip(half + 1.772 * cb, 0, 255) * np.float32(look.blue ** (1 / _GAMMA) - 1)
        more_y = np.float32(0.299) * more_red + np.float32(0.114) * more_blue
        cb += np.float32(0.564) * (more_blue - more_y)
        cr += np.float32(0.713) * (more_red - more_y)
        developed_y = _add(developed_y, more_y.astype(np.int16).repeat(2, axis=0).repeat(2, axis=1))
    if abs(look.sharpness - 1) > 0.01:
        edges = developed_y.astype(np.int16) - _smooth(_smooth(developed_y).T).T
        developed_y = _add(developed_y, (edges * np.float32(look.sharpness - 1)).astype(np.int16))
    if look.grain >= _LEAST_GRAIN:
        developed_y = _add(developed_y, _grain(developed_y.shape, look.grain))
    return developed_y, _from_colour(cb), _from_colour(cr)


def _add(plane: Grey, change: np.ndarray[tuple[int, ...], np.dtype[np.int16]]) -> Grey:
    changed: Grey = np.clip(plane + change, 0, 255).astype(np.uint8)
    return changed


def _from_colour(difference: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> Grey:
    plane: Grey = np.clip(difference + np.float32(128.5), 0, 255).astype(np.uint8)
    return plane


def _grain(shape: tuple[int, ...], strength: float) -> np.ndarray[tuple[int, ...], np.dtype[np.int16]]:
    """Noise of so many levels; a tile of it, and still, because noise that moves would cost more than all the rest."""
    side = 256
    tile = np.random.default_rng(708).normal(0, strength, (side, side)).astype(np.int16)
    return np.tile(tile, (-(-shape[0] // side), -(-shape[1] // side)))[: shape[0], : shape[1]]


def _turn(planes: Planes, look: Look) -> Planes:
    """Mirrored as the camera was told, and bent where nothing corrects the lens."""
    y, u, v = planes
    if look.hflip:
        y, u, v = y[:, ::-1], u[:, ::-1], v[:, ::-1]
    if look.vflip:
        y, u, v = y[::-1], u[::-1], v[::-1]
    if look.is_straight:
        return y, u, v
    return _bend(y), _bend(u), _bend(v)


def _bend(plane: Grey) -> Grey:
    """As a wide lens shows it: straight lines bow out, and the middle is larger."""
    height, width = plane.shape
    y, x = np.linspace(-1, 1, height, dtype=np.float32)[:, None], np.linspace(-1, 1, width, dtype=np.float32)[None, :]
    more = (1 + _BENT * (x * x + y * y) / 2) / np.float32(1 + _BENT)
    rows = np.clip((y * more + 1) / 2 * (height - 1) + 0.5, 0, height - 1).astype(np.intp)
    columns = np.clip((x * more + 1) / 2 * (width - 1) + 0.5, 0, width - 1).astype(np.intp)
    bent: Grey = plane[rows, columns]
    return bent


# What moves


def _ball_at(unix_s: float) -> tuple[float, float]:
    """The middle of the ball, in scene units: from side to side, in arcs, up and down on the floor."""
    way = unix_s / _BALL_CROSSES_S % 2
    across = way if way < 1 else 2 - way
    bounce = unix_s / _BALL_BOUNCE_S % 1
    height = 4 * bounce * (1 - bounce) * _BALL_HEIGHT
    return _BALL_RADIUS + across * (WIDTH - 2 * _BALL_RADIUS), FLOOR - 0.004 - _BALL_RADIUS - height


def _sprite(radius_px: float, blur_px: float, colour: Colour, look: Look) -> _Sprite | None:
    """A lit ball, developed like the rest of the picture; None where it would be too large or too small."""
    side = 2 * math.ceil(radius_px + 2 * blur_px + 1)
    if side > _LARGEST_SPRITE_PX or radius_px < 0.5:
        return None
    place = (np.arange(side, dtype=np.float32) + 0.5 - side / 2) / np.float32(radius_px)
    x, y = place[None, :], place[:, None]
    soft = radius_px / max(1.0, 2.5 * blur_px)
    cover = np.clip(0.5 + (1 - np.hypot(x, y)) * soft, 0, 1)
    lit = np.clip(np.hypot(x + 0.35, y + 0.4), 0, 1.6)
    glint = np.clip(1.5 - 6 * np.hypot(x + 0.38, y + 0.42), 0, 0.8)
    light = np.minimum(colour[0] * (1.32 - 0.55 * lit), 250)
    shade = (light + (250 - light) * glint).astype(np.uint8)
    half = (side // 2, side // 2)
    planes = _develop((shade, np.full(half, colour[1], np.uint8), np.full(half, colour[2], np.uint8)), look)
    covers = (cover * 255).astype(np.uint8)
    return _Sprite(planes, (covers, _halve(covers)))


def _place(planes: Planes, sprite: _Sprite | None, look: Look, x: float, y: float) -> None:
    """Blend a sprite into the frame with its middle at a point of the scene."""
    if sprite is None:
        return
    height, width = planes[0].shape
    side = sprite.planes[0].shape[0]
    # Whole pixels of the half-size planes, so that all three move together.
    crop = look.seen
    across = (x * SENSOR_SIZE[1] - crop[0]) * width / crop[2]
    down = (y * SENSOR_SIZE[1] - crop[1]) * height / crop[3]
    left = round(((width - across if look.hflip else across) - side / 2) / 2)
    top = round(((height - down if look.vflip else down) - side / 2) / 2)
    for index, (target, source) in enumerate(zip(planes, sprite.planes, strict=True)):
        step = 2 if index == 0 else 1
        _blend(target, source, sprite.cover[0 if index == 0 else 1], left * step, top * step)


def _blend(target: Grey, source: Grey, cover: Grey, left: int, top: int) -> None:
    """As `glyphs.blend`, with a level for each pixel."""
    x0, y0 = max(left, 0), max(top, 0)
    x1, y1 = min(left + source.shape[1], target.shape[1]), min(top + source.shape[0], target.shape[0])
    if x0 >= x1 or y0 >= y1:
        return
    window = (slice(y0 - top, y1 - top), slice(x0 - left, x1 - left))
    part, much = target[y0:y1, x0:x1], cover[window].astype(np.uint16)
    mixed = part * (255 - much) + source[window] * much + np.uint16(128)
    part[...] = (mixed + (mixed >> 8)) >> 8


# The clock


def _place_clock(width: int, height: int) -> _Clock:
    """The clock stands in the frame, not in the scene: no zoom loses it, and in the whole view the dial is round it."""
    scale = max(1, int(min(height * _CLOCK_WIDTH, width * 0.9) / (font.CELL_WIDTH * _CLOCK_LETTERS)))
    plate_width = (font.CELL_WIDTH * _CLOCK_LETTERS + 6) * scale & ~1
    plate_height = 27 * scale & ~1
    left, top = (width - plate_width) // 2 & ~1, (round(height * DIAL[1]) - plate_height // 2) & ~1
    return _Clock(max(0, left), max(0, top), plate_width, plate_height, scale)


def _darken_plate(planes: Planes, clock: _Clock) -> None:
    """A dark, nearly grey plate, on which white is readable whatever the exposure."""
    for index, plane in enumerate(planes):
        step = 1 if index == 0 else 2
        top, left = clock.top // step, clock.left // step
        part = plane[top : top + clock.height // step, left : left + clock.width // step]
        part[...] = part * np.float32(0.22) + 10 if index == 0 else 128 + (part - np.float32(128)) * np.float32(0.3)


def _write_clock(planes: Planes, still: _Still, sequence: int, unix_s: float) -> None:
    clock = still.clock
    scale, small = clock.scale, clock.small
    # What moves stays behind the plate.
    for index, (plane, source) in enumerate(zip(planes, still.planes, strict=True)):
        step = 1 if index == 0 else 2
        top, left = clock.top // step, clock.left // step
        window = (slice(top, top + clock.height // step), slice(left, left + clock.width // step))
        plane[window] = source[window]
    now = time.localtime(unix_s)
    middle = clock.left + clock.width // 2
    lines = (
        (time.strftime("%Y-%m-%d", now), clock.top + 3 * scale, small, 190),
        (f"{time.strftime('%H:%M:%S', now)}.{int(unix_s % 1 * 100):02}", clock.top + 10 * scale, float(scale), 245),
        (f"frame {sequence:06}", clock.top + round(20.5 * scale), small, 190),
    )
    for text, top, size, level in lines:
        font.draw_text(planes[0], text, middle - font.text_size(text, size)[0] // 2, top, size, level)
