"""Zoom, focus windows and rotation, by examples and by properties of all crops."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from softcam.controls.geometry import camera_flips, exif_orientation, focus_window, full_view, middle_part, zoom_crop

SENSOR = (0, 0, 4608, 2592)
SMALLEST = (128, 128)
WIDE = (1536, 864)
SQUARE = (1000, 1000)


def part(x: float, y: float, width: float, height: float) -> dict[str, float]:
    return {"x": x, "y": y, "width": width, "height": height}


def test_full_view_has_the_shape_of_the_image() -> None:
    assert full_view(SENSOR, WIDE) == SENSOR
    assert full_view(SENSOR, SQUARE) == (1008, 0, 2592, 2592)


@pytest.mark.parametrize(
    ("size", "middle"),
    [
        (WIDE, (1536, 864, 1536, 864)),
        ((4608, 864), (0, 864, 4608, 864)),
        ((5120, 2880), SENSOR),
    ],
)
def test_middle_part(size: tuple[int, int], middle: tuple[int, int, int, int]) -> None:
    assert middle_part(SENSOR, size) == middle
    assert middle_part((100, 50, 4608, 2592), size) == (middle[0] + 100, middle[1] + 50, *middle[2:])


@pytest.mark.parametrize(
    ("requested", "pixels", "shown", "note"),
    [
        (part(0, 0, 1, 1), SENSOR, part(0, 0, 1, 1), ""),
        (part(0.25, 0.25, 0.5, 0.5), (1152, 648, 2304, 1296), part(0.25, 0.25, 0.5, 0.5), ""),
        (part(0.25, 0.4, 0.5, 0.2), (1152, 648, 2304, 1296), part(0.25, 0.25, 0.5, 0.5), "aspect ratio"),
        (part(0.9, 0.9, 0.5, 0.5), (2304, 1296, 2304, 1296), part(0.5, 0.5, 0.5, 0.5), "moved"),
        (part(0.1, 0.2, 0.3, 0.7), (0, 518, 3226, 1814), part(0, 0.2, 0.7, 0.7), "aspect ratio, moved"),
        (part(0.7, 0.1, 0.3, 0.3), (3226, 259, 1382, 778), part(0.7, 0.1, 0.3, 0.3), ""),
        (part(0.5, 0.5, 0.01, 0.01), (2194, 1234, 228, 128), part(0.480309, 0.480309, 0.049383, 0.049383), "smallest"),
    ],
)
def test_crops(requested: dict[str, float], pixels: tuple[int, ...], shown: dict[str, float], note: str) -> None:
    crop = zoom_crop(requested, SENSOR, SMALLEST, WIDE)
    assert crop.shown == pytest.approx(shown, abs=0.02)
    assert crop.pixels == pytest.approx(pixels, abs=100 if "smallest" in note else 0)
    assert note in ", ".join(crop.notes)
    assert bool(crop.notes) is bool(note)


sides = st.floats(0.01, 1, allow_nan=False)
places = st.floats(0, 1, allow_nan=False)


@given(x=places, y=places, width=sides, height=sides, size=st.sampled_from([WIDE, SQUARE, (480, 640), (64, 8192)]))
def test_every_crop_lies_within_the_image_and_keeps_its_shape(
    x: Any, y: Any, width: Any, height: Any, size: Any
) -> None:
    crop = zoom_crop(part(x, y, width, height), SENSOR, SMALLEST, size)
    left, top, wide, high = crop.pixels
    view = full_view(SENSOR, size)
    assert view[0] <= left
    assert left + wide <= view[0] + view[2]
    assert view[1] <= top
    assert top + high <= view[1] + view[3]
    # Numbers of pixels are even, so the shape is kept to two pixels.
    assert abs(wide * size[1] / size[0] - high) <= 2 * max(1, size[1] / size[0]) + 2
    assert crop.shown["x"] + crop.shown["width"] <= 1.000001


def test_focus_window_moves_with_the_zoom() -> None:
    window = part(0.25, 0.25, 0.5, 0.5)
    assert focus_window(window, SENSOR) == (1152, 648, 2304, 1296)
    assert focus_window(window, (2304, 1296, 2304, 1296)) == (2880, 1620, 1152, 648)
    assert focus_window(part(1, 1, 1, 1), SENSOR) == (4608, 2592, 1, 1)


@pytest.mark.parametrize(
    ("hflip", "vflip", "rotation", "flips", "orientation"),
    [
        (False, False, 0, (False, False), 1),
        (True, False, 0, (True, False), 1),
        (False, False, 180, (True, True), 1),
        (True, True, 180, (False, False), 1),
        (False, False, 90, (False, False), 6),
        (False, False, 270, (True, True), 6),
        (True, False, 270, (False, True), 6),
    ],
)
def test_rotation_and_flips(
    hflip: bool, vflip: bool, rotation: int, flips: tuple[bool, bool], orientation: int
) -> None:
    assert camera_flips(hflip, vflip, rotation) == flips
    assert exif_orientation(rotation) == orientation
