"""Controls and images: exposure, colours, sharpness, geometry, zoom, day and night."""

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.conftest import Portal
from tests.support.control_client import (
    TELEPHOTO,
    Picture,
    brightness,
    change,
    colourfulness,
    corner,
    detail,
    eventually,
    picture_of,
    seen_after,
)
from tests.support.http_client import StreamClient, ask, status_of, wait_for_status

ORIENTATION = 0x0112


@pytest.mark.parametrize(
    ("name", "content", "measure", "factor"),
    [
        ("image_processing", {"brightness": 0.3}, brightness, 1.3),
        ("image_processing", {"brightness": -0.15}, brightness, 0.8),
        ("image_processing", {"contrast": 0.4}, lambda p: float(p.std()), 0.7),
        ("image_processing", {"saturation": 0.0}, colourfulness, 0.1),
        ("image_processing", {"saturation": 1.6}, colourfulness, 1.2),
        ("image_processing", {"sharpness": 8.0}, detail, 1.2),
        ("image_processing", {"exposure_value": -2.0}, brightness, 0.7),
        ("image_processing", {"exposure_value": 1.0}, brightness, 1.15),
        ("image_processing", {"metering": "spot"}, brightness, 0.97),
        ("manual_exposure", {"exposure_us": 2000, "gain": 2.0}, brightness, 0.7),
        ("manual_awb", {"red_gain": 4.0, "blue_gain": 1.0}, lambda p: float(p[..., 0].mean() / p[..., 2].mean()), 1.5),
        ("awb_preset", {"preset": "ir_850nm"}, lambda p: float(p[..., 1].mean() / p[..., 0].mean()), 1.15),
        ("awb_preset", {"preset": "cloudy"}, lambda p: float(p[..., 0].mean() / p[..., 2].mean()), 1.1),
        ("lens_position", {"position": 12.0}, detail, 0.7),
        ("roi", TELEPHOTO, detail, 0.8),
        ("hdr", {"mode": "single-exp"}, brightness, 1.1),
        ("hdr", {"mode": "sensor"}, brightness, 1.1),
        ("hdr", {"mode": "auto"}, brightness, 1.1),
        ("day_night_mode", {"mode": "night"}, colourfulness, 0.1),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, str | dict) else "",
)
def test_control_changes_image(
    held: Portal, name: str, content: Mapping[str, Any], measure: Callable[[Picture], float], factor: float
) -> None:
    before = measure(picture_of(held))
    change(held, name, content)
    limit = before * factor
    seen_after(held, measure, (lambda value: value >= limit) if factor > 1 else (lambda value: value <= limit))
    # A reset removes the effect.
    answer = ask(held, "/v1/camera/controls", method="DELETE")
    assert answer.status == 200
    seen_after(held, measure, lambda value: value == pytest.approx(before, rel=0.06))


def test_mirror_and_rotate(held: Portal) -> None:
    plain = corner(picture_of(held)).astype(np.int16)

    def is_like(part: Callable[[Picture], Picture]) -> None:
        seen_after(held, lambda p: float(np.abs(part(p).astype(np.int16) - plain).mean()), lambda off: off < 6)

    change(held, "transform", {"hflip": True})
    is_like(lambda p: corner(p[:, ::-1]))
    change(held, "transform", {"hflip": False, "vflip": True})
    is_like(lambda p: corner(p[::-1]))
    change(held, "transform", {"vflip": False, "rotation": 180})
    is_like(lambda p: corner(p[::-1, ::-1]))


def test_quarter_turn_in_exif(held: Portal) -> None:
    upright = ask(held, "/snapshot.jpg").body
    assert Image.open(io.BytesIO(upright)).getexif()[ORIENTATION] == 1
    change(held, "transform", {"rotation": 90})
    turned = Image.open(io.BytesIO(ask(held, "/snapshot.jpg").body))
    assert turned.size == (640, 360)
    assert turned.getexif()[ORIENTATION] == 6
    with StreamClient(held) as client:
        client.next()
        assert Image.open(io.BytesIO(client.next().jpeg)).getexif()[ORIENTATION] == 6


def test_day_night_follows_light(held: Portal, faults: Path) -> None:
    change(held, "day_night_mode", {"mode": "auto", "threshold_lux": 10, "night_awb_preset": "ir_850nm"})
    assert status_of(held)["scene_mode"] == "day"
    for night in (1, 2):
        faults.write_text("dark")
        held.wait_for_log("Night at 1.0 lux", nth=night)
        eventually(held, lambda status: status["scene_mode"] == "night" and status["colour_gains"] == [1.05, 1.15])
        seen_after(held, colourfulness, lambda value: value < 3)
        faults.write_text("")
        held.wait_for_log("Day at 400.0 lux", nth=night)
        eventually(held, lambda status: status["scene_mode"] == "day" and status["colour_gains"] != [1.05, 1.15])
        seen_after(held, colourfulness, lambda value: value > 10)


def test_day_night_of_cold_snapshots(held: Portal, faults: Path) -> None:
    """A camera that opens for single snapshots closes before a change of the light has lasted long enough."""
    change(held, "day_night_mode", {"mode": "auto", "threshold_lux": 10})
    assert ask(held, "/camera/stop", method="POST").status == 200
    for fault, is_colourful in (("dark", False), ("", True), ("dark", False)):
        faults.write_text(fault)
        for _ in range(2):
            wait_for_status(held, state="closed")
            assert status_of(held)["scene_mode"] is None
            assert (colourfulness(picture_of(held)) > 5) is is_colourful


def test_roi_reports_adjusted_region(held: Portal) -> None:
    assert change(held, "roi", TELEPHOTO) == {"status": "ok", **TELEPHOTO, "note": None}
    grown = change(held, "roi", {"x": 0.2, "y": 0.4, "width": 0.4, "height": 0.1})
    assert (grown["width"], grown["height"]) == (0.4, 0.4)
    assert "aspect ratio" in grown["note"]
    moved = change(held, "roi", {"x": 0.9, "y": 0.9, "width": 0.5, "height": 0.5})
    assert (moved["x"], moved["y"]) == (0.5, 0.5)
    assert "within" in moved["note"]
    assert status_of(held)["roi"] == {"x": 0.5, "y": 0.5, "width": 0.5, "height": 0.5}


def test_full_still_ignores_roi(held: Portal) -> None:
    whole = picture_of(held, "full=1&width=640&autofocus=0")
    change(held, "roi", {"x": 0.0, "y": 0.0, "width": 0.25, "height": 0.25})
    zoomed = picture_of(held, "full=1&width=640&autofocus=0")
    off = np.abs(corner(zoomed).astype(np.int16) - corner(whole)).mean()
    assert off < 6
    tall = picture_of(held, "width=1000&height=1000&autofocus=0")  # within the zoom, not stretched
    assert tall.shape == (1000, 1000, 3)


def test_no_raw_still(held: Portal) -> None:
    answer = ask(held, "/snapshot.jpg?format=dng")
    assert answer.status == 409
    assert "raw" in answer.detail
    assert ask(held, "/snapshot.jpg?format=tiff").status == 400
