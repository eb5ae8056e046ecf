"""Zoom and focus windows: from fractions of the picture to pixels of the sensor. No camera, no thread."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

Rectangle = tuple[int, int, int, int]  # x, y, width, height in pixels of the largest ScalerCrop
Size = tuple[int, int]

_SAME: Final = 1e-6  # of the picture's side: what sums of fractions lack of each other
_LONGEST_WINDOW: Final = 65_535  # AfWindows' numbers have 16 bits in the algorithm


@dataclass(frozen=True, slots=True)
class Crop:
    """What a wish for a part of the picture came to.

    `shown` is the part in fractions of the picture without zoom; `notes` say in words what was changed, and why.
    """

    pixels: Rectangle
    shown: Mapping[str, float]
    notes: tuple[str, ...]


def whole_view(most: Rectangle, size: Size) -> Rectangle:
    """The largest rectangle of the shape of `size` in the middle of `most`: the picture without zoom."""
    x, y, width, height = most
    factor = min(width / size[0], height / size[1])
    shown_width, shown_height = _even(size[0] * factor, width), _even(size[1] * factor, height)
    return x + (width - shown_width) // 2, y + (height - shown_height) // 2, shown_width, shown_height


def crop_for(part: Mapping[str, float], most: Rectangle, least: Size, size: Size) -> Crop:
    """The crop that shows `part` (x, y, width, height from 0 to 1) in a picture of `size`.

    A part of another shape grows until it has the picture's; one that is smaller than the sensor can (`least`, pixels)
    grows too; then it is moved to lie within the picture.
    """
    view = whole_view(most, size)
    notes = []
    # Both sides are fractions of a view of the picture's shape, so equal fractions are that shape.
    side = max(part["width"], part["height"])
    if part["width"] != part["height"]:
        notes.append("grown to keep the aspect ratio")
    smallest = min(1.0, max(least[0] / view[2], least[1] / view[3]))
    if side < smallest:
        side = smallest
        notes.append("grown to the smallest part that the sensor can show")
    wanted_left = part["x"] + (part["width"] - side) / 2  # it grows around its middle
    wanted_top = part["y"] + (part["height"] - side) / 2
    left = min(max(wanted_left, 0.0), 1.0 - side)
    top = min(max(wanted_top, 0.0), 1.0 - side)
    if max(abs(left - wanted_left), abs(top - wanted_top)) > _SAME:
        notes.append("moved to lie within the picture")
    width, height = _even(view[2] * side, view[2]), _even(view[3] * side, view[3])
    pixels = (
        view[0] + min(round(view[2] * left), view[2] - width),
        view[1] + min(round(view[3] * top), view[3] - height),
        width,
        height,
    )
    shown = {"x": round(left, 6), "y": round(top, 6), "width": round(side, 6), "height": round(side, 6)}
    return Crop(pixels, shown, tuple(notes))


def window_for(part: Mapping[str, float], crop: Rectangle) -> Rectangle:
    """A part of the picture that is shown, as an AfWindow: pixels of the largest ScalerCrop, whatever the zoom."""
    x, y, width, height = crop
    left, top = min(part["x"], 1.0), min(part["y"], 1.0)
    return (
        min(x + round(width * left), _LONGEST_WINDOW),
        min(y + round(height * top), _LONGEST_WINDOW),
        max(1, round(width * min(part["width"], 1.0 - left))),
        max(1, round(height * min(part["height"], 1.0 - top))),
    )


def exif_orientation(rotation: int) -> int:
    """EXIF's number for a picture that its viewer is to turn by 0 or 90 degrees clockwise; 180 is the camera's."""
    return 6 if rotation in (90, 270) else 1


def camera_flips(hflip: bool, vflip: bool, rotation: int) -> tuple[bool, bool]:
    """What the camera mirrors: half a turn is both; 270 is that, and a quarter for the viewer."""
    is_half_turn = rotation in (180, 270)
    return hflip != is_half_turn, vflip != is_half_turn


def _even(value: float, most: int) -> int:
    """The nearest even number, at least 2 and at most `most`: colour is stored for every second pixel."""
    return min(max(2, 2 * round(value / 2)), most // 2 * 2)
