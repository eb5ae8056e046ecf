"""Geometry of zoom, focus windows and rotation: fractions of the image to pixels of the sensor. Pure functions."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

Rectangle = tuple[int, int, int, int]  # x, y, width, height in pixels of the largest ScalerCrop
Size = tuple[int, int]

_EPSILON: Final = 1e-6  # of the image's side: rounding errors of sums of fractions
_LARGEST_WINDOW: Final = 65_535  # the autofocus algorithm stores the numbers of AfWindows in 16 bits


@dataclass(frozen=True, slots=True)
class Crop:
    """The crop that a requested part of the image results in.

    `shown` is the part in fractions of the unzoomed image; `notes` describe how it differs from the request.
    """

    pixels: Rectangle
    shown: Mapping[str, float]
    notes: tuple[str, ...]


def full_view(largest: Rectangle, size: Size) -> Rectangle:
    """The largest centred rectangle of the shape of `size` within `largest`: the unzoomed image."""
    x, y, width, height = largest
    factor = min(width / size[0], height / size[1])
    shown_width, shown_height = _even(size[0] * factor, width), _even(size[1] * factor, height)
    return x + (width - shown_width) // 2, y + (height - shown_height) // 2, shown_width, shown_height


def middle_part(largest: Rectangle, size: Size) -> Rectangle:
    """The middle `size` pixels of `largest`, or as many as there are."""
    x, y, width, height = largest
    middle_width, middle_height = min(size[0], width), min(size[1], height)
    return x + (width - middle_width) // 2, y + (height - middle_height) // 2, middle_width, middle_height


def zoom_crop(part: Mapping[str, float], largest: Rectangle, smallest: Size, size: Size) -> Crop:
    """The crop that shows `part` (x, y, width, height from 0 to 1) in an image of `size`.

    A part of another shape is enlarged to the image's shape, and one below the sensor's minimum (`smallest`, pixels) to
    that minimum; then it is moved to lie within the image.
    """
    view = full_view(largest, size)
    notes = []
    # Both sides are fractions of a view that has the image's shape, so equal fractions keep the shape.
    side = max(part["width"], part["height"])
    if part["width"] != part["height"]:
        notes.append("enlarged to keep the aspect ratio")
    lowest = min(1.0, max(smallest[0] / view[2], smallest[1] / view[3]))
    if side < lowest:
        side = lowest
        notes.append("enlarged to the sensor's smallest crop")
    wanted_left = part["x"] + (part["width"] - side) / 2  # enlarged around its centre
    wanted_top = part["y"] + (part["height"] - side) / 2
    left = min(max(wanted_left, 0.0), 1.0 - side)
    top = min(max(wanted_top, 0.0), 1.0 - side)
    if max(abs(left - wanted_left), abs(top - wanted_top)) > _EPSILON:
        notes.append("moved to lie within the image")
    width, height = _even(view[2] * side, view[2]), _even(view[3] * side, view[3])
    pixels = (
        view[0] + min(round(view[2] * left), view[2] - width),
        view[1] + min(round(view[3] * top), view[3] - height),
        width,
        height,
    )
    shown = {"x": round(left, 6), "y": round(top, 6), "width": round(side, 6), "height": round(side, 6)}
    return Crop(pixels, shown, tuple(notes))


def focus_window(part: Mapping[str, float], crop: Rectangle) -> Rectangle:
    """A part of the zoomed image as an AfWindow: in pixels of the largest ScalerCrop, whatever the zoom."""
    x, y, width, height = crop
    left, top = min(part["x"], 1.0), min(part["y"], 1.0)
    return (
        min(x + round(width * left), _LARGEST_WINDOW),
        min(y + round(height * top), _LARGEST_WINDOW),
        max(1, round(width * min(part["width"], 1.0 - left))),
        max(1, round(height * min(part["height"], 1.0 - top))),
    )


def exif_orientation(rotation: int) -> int:
    """The EXIF orientation for the quarter turn in `rotation`, which the viewer does; the camera does 180 degrees."""
    return 6 if rotation in (90, 270) else 1


def camera_flips(hflip: bool, vflip: bool, rotation: int) -> tuple[bool, bool]:
    """The flips that the camera does: 180 degrees is both; 270 is both and a quarter turn by the viewer."""
    is_half_turn = rotation in (180, 270)
    return hflip != is_half_turn, vflip != is_half_turn


def _even(value: float, largest: int) -> int:
    """The nearest even number from 2 to `largest`: chroma is subsampled by two."""
    return min(max(2, 2 * round(value / 2)), largest // 2 * 2)
