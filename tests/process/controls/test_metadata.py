"""Controls in the metadata and the status: exposure, white balance, frame rate, dependent controls."""

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import ExifTags, Image

from tests.conftest import Portal
from tests.support.control_client import change, eventually, frames_later, picture_of
from tests.support.http_client import ask, ask_for_still, status_of, wait_for_status


@pytest.mark.parametrize(
    ("name", "content", "field", "is_so"),
    [
        ("manual_exposure", {"exposure_us": 12000, "gain": 3.0}, "exposure_us", lambda v: v == 12000),
        ("manual_exposure", {"exposure_us": 12000, "gain": 3.0}, "analogue_gain", lambda v: v == 3.0),
        ("manual_exposure", {"exposure_us": 200_000}, "frame_duration_us", lambda v: v >= 200_000),
        ("exposure_limits", {"max_exposure_us": 4000}, "exposure_us", lambda v: v <= 4040),
        ("exposure_limits", {"min_gain": 3.0}, "analogue_gain", lambda v: v >= 2.9),
        ("manual_awb", {"red_gain": 1.5, "blue_gain": 1.8}, "colour_gains", lambda v: v == [1.5, 1.8]),
        ("awb_preset", {"preset": "daylight"}, "colour_temperature", lambda v: v >= 5400),
        ("lens_position", {"position": 5.0}, "lens_position", lambda v: v == 5.0),
        ("image_processing", {"flicker": "50hz", "exposure_value": 2.0}, "exposure_us", lambda v: v % 10_000 == 0),
        ("day_night_mode", {"mode": "auto", "threshold_lux": 500}, "scene_mode", lambda v: v == "night"),
        ("day_night_mode", {"threshold_lux": 100}, "scene_mode", lambda v: v == "low_light"),
        ("stream", {"width": 320, "height": 240}, "height", lambda v: v == 240),
        ("stream", {"fps": 10}, "frame_duration_us", lambda v: v == 100_000),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, str | dict) else "",
)
def test_control_changes_metadata(
    held: Portal, name: str, content: Mapping[str, Any], field: str, is_so: Callable[[Any], bool]
) -> None:
    change(held, name, content)
    eventually(held, lambda status: status[field] is not None and is_so(status[field]))


@pytest.mark.parametrize(
    ("name", "content", "field", "value"),
    [
        ("manual_exposure", {"exposure_us": 12000, "gain": 3.0}, "auto_exposure", False),
        ("auto_exposure", {"enabled": False}, "auto_exposure", False),
        ("manual_awb", {"red_gain": 1.5, "blue_gain": 1.8}, "awb_enabled", False),
        ("awb", {"enabled": False}, "awb_enabled", False),
        ("lens_position", {"position": 5.0}, "autofocus_mode", "manual"),
        ("autofocus_mode", {"mode": "continuous"}, "autofocus_mode", "continuous"),
        ("hdr", {"mode": "sensor"}, "hdr_mode", "sensor"),
        ("lens_correction", {"enabled": False}, "lens_correction_enabled", False),
    ],
)
def test_status_reports_requested_value(
    held: Portal, name: str, content: Mapping[str, Any], field: str, value: object
) -> None:
    assert status_of(held)[field] != value
    change(held, name, content)
    assert status_of(held)[field] == value


@pytest.mark.parametrize(
    ("name", "content", "reported"),
    [
        ("manual_exposure", {"exposure_us": 9000}, {"auto_exposure.enabled": False}),
        ("auto_exposure", {"enabled": True}, {"manual_exposure.exposure_us": None, "manual_exposure.gain": None}),
        ("manual_awb", {"red_gain": 2.0, "blue_gain": 2.0}, {"awb.enabled": False, "awb_preset.preset": None}),
        ("awb_preset", {"preset": "ir_850nm"}, {"awb.enabled": False, "manual_awb.red_gain": None}),
        ("lens_position", {"position": 2.0}, {"autofocus_mode.mode": "manual"}),
        ("day_night_mode", {"mode": "night"}, {"image_processing.saturation": 0.0}),
        ("roi", {"x": 0.5, "y": 0.5, "width": 0.2, "height": 0.5}, {"roi.x": 0.35, "roi.width": 0.5}),
        ("stream", {"width": 320}, {"stream.width": 320, "stream.height": 360, "stream.fps": 30.0}),
    ],
)
def test_linked_controls(held: Portal, name: str, content: dict[str, Any], reported: dict[str, Any]) -> None:
    change(held, name, content)
    controls = ask(held, "/v1/camera/controls").json["controls"]
    status = status_of(held)
    for place, value in reported.items():
        group, field = place.split(".")
        assert controls[group]["fields"][field]["value"] == value, place
    assert controls["auto_exposure"]["fields"]["enabled"]["value"] == status["auto_exposure"]
    assert controls["awb"]["fields"]["enabled"]["value"] == status["awb_enabled"]
    assert controls["autofocus_mode"]["fields"]["mode"]["value"] == status["autofocus_mode"]


def test_freeze_and_release_white_balance(held: Portal) -> None:
    automatic = status_of(held)["colour_gains"]
    change(held, "awb_preset", {"preset": "cloudy"})
    eventually(held, lambda status: status["colour_gains"] != automatic)
    cloudy = frames_later(held)["colour_gains"]
    change(held, "awb", {"enabled": False})  # also resets the range of the preset
    assert frames_later(held)["colour_gains"] == pytest.approx(cloudy, rel=0.01)
    change(held, "awb", {"enabled": True})
    eventually(held, lambda status: status["colour_gains"] == automatic)


def test_freeze_and_release_exposure(held: Portal, faults: Path) -> None:
    bright = status_of(held)
    change(held, "auto_exposure", {"enabled": False})
    faults.write_text("dark")
    eventually(held, lambda status: status["lux"] == 1.0)
    dark = frames_later(held)
    for name in ("exposure_us", "analogue_gain"):
        assert dark[name] == pytest.approx(bright[name], rel=0.05)
    change(held, "auto_exposure", {"enabled": True})
    eventually(held, lambda status: status["exposure_us"] * status["analogue_gain"] > 4 * bright["exposure_us"])


def test_set_and_reset_repeatedly(held: Portal) -> None:
    automatic = status_of(held)["colour_gains"]
    for _ in range(3):
        change(held, "manual_awb", {"red_gain": 1.5, "blue_gain": 1.8})
        eventually(held, lambda status: status["colour_gains"] == [1.5, 1.8])
        change(held, "awb", {"enabled": True})
        eventually(held, lambda status: status["colour_gains"] == automatic)
        # After a still, the stream restarts with the controls sent before.
        picture_of(held, "full=1&width=640&autofocus=0")
        assert frames_later(held)["colour_gains"] == automatic


def test_unsupported_frame_rate_is_reported(held: Portal) -> None:
    assert change(held, "stream", {"fps": 20})["note"] is None
    note = change(held, "stream", {"fps": 240})["note"]
    assert note.startswith("fps: the camera delivers ")
    assert status_of(held)["controls_not_applied"] == [note]
    assert change(held, "stream", {"fps": 20})["note"] is None
    assert status_of(held)["controls_not_applied"] == []


def test_minimum_exposure_slows_frame_rate(held: Portal) -> None:
    answer = change(held, "exposure_limits", {"min_exposure_us": 100_000})
    assert "frame rate is reduced" in answer["note"]
    eventually(held, lambda status: (status["exposure_us"] or 0) >= 99_000)


def test_exposure_limits_of_cold_snapshot(portal: Portal) -> None:
    wait_for_status(portal, state="closed")
    change(portal, "exposure_limits", {"max_exposure_us": 3000, "max_gain": 2})
    answer = ask_for_still(portal, "/snapshot.jpg?autofocus=0")
    exif = Image.open(io.BytesIO(answer.body)).getexif().get_ifd(ExifTags.IFD.Exif)
    assert exif[ExifTags.Base.ExposureTime] <= 0.00303
    assert exif[ExifTags.Base.ISOSpeedRatings] <= 202
