"""Controls over HTTP: their effect on images and metadata, persistence, errors, access."""

import base64
import io
import json
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import ExifTags, Image

from tests.conftest import Portal
from tests.support.http_client import (
    StreamClient,
    ask,
    ask_for_still,
    decode,
    post,
    reset,
    size_of,
    status_of,
    wait_for_status,
)

Start = Callable[..., Portal]
Picture = npt.NDArray[np.uint8]
SMALL = ("--width", "640", "--height", "360", "--fps", "30")
ORIENTATION = 0x0112
TELEPHOTO = {"x": 0.25, "y": 0.25, "width": 0.5, "height": 0.5}


@pytest.fixture(scope="module")
def faults_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pattern") / "faults"


@pytest.fixture
def faults(faults_file: Path) -> Path:
    """The file that makes the pattern camera fail; empty at first."""
    faults_file.write_text("")
    return faults_file


@pytest.fixture(scope="module")
def shared_portal(start_shared_portal: Start, faults_file: Path) -> Portal:
    faults_file.write_text("")
    return start_shared_portal(*SMALL, "--pattern-faults", str(faults_file), "--linger", "0.2")


@pytest.fixture(scope="module")
def automatic(shared_portal: Portal) -> Mapping[str, Any]:
    """The status of the open camera with all controls at their defaults, settled and in focus."""
    assert ask(shared_portal, "/camera/start", method="POST").status == 200
    picture_of(shared_portal, "autofocus=1")
    frames_later(shared_portal)
    return status_of(shared_portal)


@pytest.fixture
def portal(shared_portal: Portal, faults: Path) -> Portal:
    """The portal that all tests share, with all controls at their defaults."""
    reset(shared_portal)
    return shared_portal


@pytest.fixture
def held(portal: Portal, automatic: Mapping[str, Any]) -> Portal:
    """The shared portal, which holds its camera open; the camera has settled and is in focus."""
    assert ask(portal, "/camera/start", method="POST").status == 200
    change(portal, "autofocus", {"trigger": True})
    names = ("colour_gains", "exposure_us", "analogue_gain", "lens_position", "frame_duration_us")

    def is_settled(status: Mapping[str, Any]) -> bool:
        return all(status[name] == pytest.approx(automatic[name], rel=0.01) for name in names)

    eventually(portal, is_settled)
    portal.forget_log()
    return portal


def change(portal: Portal, name: str, content: Mapping[str, Any]) -> Mapping[str, Any]:
    answer = post(portal, f"/v1/camera/{name}", content)
    assert answer.status == 200, answer.body
    assert answer.json["status"] == "ok"
    result: Mapping[str, Any] = answer.json
    return result


def picture_of(portal: Portal, query: str = "quality=95&autofocus=0") -> Picture:
    answer = ask_for_still(portal, f"/snapshot.jpg?{query}")
    assert answer.status == 200, answer.body
    return decode(answer.body)


def eventually(portal: Portal, is_so: Callable[[Mapping[str, Any]], bool], *, timeout_s: float = 15) -> None:
    """Wait for a status: a control needs some frames to reach the sensor."""
    deadline_s = time.monotonic() + timeout_s
    while not is_so(status := status_of(portal)):
        assert time.monotonic() < deadline_s, status
        time.sleep(0.02)


def corner(picture: Picture) -> Picture:
    """The top left quarter, where nothing moves."""
    return picture[: picture.shape[0] // 4, : picture.shape[1] // 4]


def brightness(picture: Picture) -> float:
    return float(corner(picture).mean())


def colourfulness(picture: Picture) -> float:
    wide = picture.astype(np.int16)
    return float(np.abs(wide[..., 0] - wide[..., 2]).mean())


def detail(picture: Picture) -> float:
    return float(np.abs(np.diff(picture[..., 1].astype(np.int16), axis=1)).mean())


def seen_after(portal: Portal, measure: Callable[[Picture], float], is_so: Callable[[float], bool]) -> None:
    deadline_s = time.monotonic() + 15
    while not is_so(value := measure(picture_of(portal))):
        assert time.monotonic() < deadline_s, value


# Effect on images


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


def test_lens_correction_off(held: Portal) -> None:
    straight = corner(picture_of(held)).astype(np.int16)
    change(held, "lens_correction", {"enabled": False})
    assert status_of(held)["lens_correction_enabled"] is False
    seen_after(held, lambda p: float(np.abs(corner(p).astype(np.int16) - straight).mean()), lambda off: off > 3)


# Effect on the metadata


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
    ],
)
def test_status_reports_requested_value(
    held: Portal, name: str, content: Mapping[str, Any], field: str, value: object
) -> None:
    # Their effect is tested above, by images and metadata.
    assert status_of(held)[field] != value
    change(held, name, content)
    assert status_of(held)[field] == value


def frames_later(portal: Portal, number: int = 20) -> Mapping[str, Any]:
    """The status once the controls have reached the camera and its frames."""
    frames = status_of(portal)["frames"]
    eventually(portal, lambda status: status["frames"] >= frames + number)
    return status_of(portal)


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


def test_lens_follows_autofocus_mode(held: Portal) -> None:
    for _ in range(2):
        change(held, "lens_position", {"position": 7.0})
        eventually(held, lambda status: status["lens_position"] == 7.0)
        change(held, "autofocus_mode", {"mode": "manual"})
        assert frames_later(held)["lens_position"] == 7.0
        change(held, "autofocus_mode", {"mode": "continuous"})
        eventually(held, lambda status: status["lens_position"] == 1.8)


def test_manual_focus_survives_reopening(start_portal: Start) -> None:
    portal = start_portal(*SMALL, "--linger", "0.1")
    assert ask(portal, "/camera/start", method="POST").status == 200
    change(portal, "lens_position", {"position": 7.0})
    eventually(portal, lambda status: status["lens_position"] == 7.0)
    change(portal, "autofocus_mode", {"mode": "manual"})
    frames_later(portal)
    assert ask(portal, "/camera/stop", method="POST").status == 200
    wait_for_status(portal, state="closed")
    assert ask(portal, "/camera/start", method="POST").status == 200
    assert frames_later(portal)["lens_position"] == 7.0


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


def test_autofocus_range_and_window(held: Portal) -> None:
    assert change(held, "autofocus", {"trigger": True}) == {
        "status": "ok", "trigger": True, "focused": True, "lens_position": 1.8,
    }  # fmt: skip
    change(held, "autofocus_range", {"range_mode": "macro"})
    assert change(held, "autofocus", {"trigger": True, "speed": "fast"})["focused"] is False  # the wall is out of range
    change(held, "autofocus_range", {"range_mode": "full"})
    card = {"x": 0.75, "y": 0.22, "width": 0.14, "height": 0.26}  # the near card
    assert change(held, "autofocus", {"trigger": True, "window": card})["lens_position"] == 5.0
    # Zoomed in on the right half, the card is elsewhere in the image, and the window is relative to the zoom.
    change(held, "roi", {"x": 0.5, "y": 0.0, "width": 0.5, "height": 0.5})
    card = {"x": 0.5, "y": 0.44, "width": 0.28, "height": 0.52}
    assert change(held, "autofocus", {"trigger": True, "window": card})["lens_position"] == 5.0
    assert change(held, "autofocus", {"trigger": True, "window": None})["lens_position"] == 1.8


def test_manual_focus_is_not_overridden(held: Portal) -> None:
    change(held, "lens_position", {"position": 7.0})
    eventually(held, lambda status: status["lens_position"] == 7.0)
    with StreamClient(held) as client:
        client.next()
        assert ask(held, "/snapshot.jpg?autofocus=1").status == 200
        assert status_of(held)["lens_position"] == 7.0
    refused = post(held, "/v1/camera/autofocus", {"trigger": True, "speed": "fast", "window": TELEPHOTO})
    assert refused.status == 409
    assert "the focus is manual" in refused.detail
    fields = ask(held, "/v1/camera/controls").json["controls"]["autofocus"]["fields"]
    assert not any(field["is_set"] for field in fields.values())
    change(held, "autofocus_mode", {"mode": "auto"})
    with StreamClient(held) as client:
        client.next()
        held.wait_for_log("Autofocus for the stream focused")
        assert status_of(held)["autofocus_mode"] == "auto"


def test_exposure_limits_of_cold_snapshot(start_portal: Start) -> None:
    portal = start_portal(*SMALL, "--linger", "0.2")
    change(portal, "exposure_limits", {"max_exposure_us": 3000, "max_gain": 2})
    answer = ask_for_still(portal, "/snapshot.jpg?autofocus=0")
    exif = Image.open(io.BytesIO(answer.body)).getexif().get_ifd(ExifTags.IFD.Exif)
    assert exif[ExifTags.Base.ExposureTime] <= 0.00303
    assert exif[ExifTags.Base.ISOSpeedRatings] <= 202


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


def test_autofocus_trigger_with_autofocus_disabled(start_portal: Start) -> None:
    portal = start_portal(*SMALL, "--no-autofocus")
    answer = change(portal, "autofocus", {"trigger": True, "speed": "fast"})  # also opens the camera
    assert (answer["focused"], answer["lens_position"]) == (True, 1.8)


# Zoom and stills


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


# Persistence


def test_controls_persist(start_portal: Start) -> None:
    portal = start_portal(*SMALL, "--linger", "0.1")
    change(portal, "manual_exposure", {"exposure_us": 7000, "gain": 4.0})
    change(portal, "transform", {"hflip": True})
    change(portal, "lens_position", {"position": 3.5})
    assert status_of(portal)["state"] == "closed"
    for _ in range(2):
        assert ask(portal, "/snapshot.jpg").status == 200
        portal.stop()
        portal = start_portal(*SMALL, "--linger", "0.1")
        assert ask(portal, "/camera/start", method="POST").status == 200
        eventually(portal, lambda status: (status["exposure_us"], status["lens_position"]) == (7000, 3.5))
        assert status_of(portal)["transform"]["hflip"] is True
    assert ask(portal, "/v1/camera/controls", method="DELETE").status == 200
    portal.stop()
    portal = start_portal(*SMALL)
    assert status_of(portal)["transform"]["hflip"] is False


def test_frozen_exposure_persists(start_portal: Start, faults: Path) -> None:
    held = start_portal(*SMALL, "--pattern-faults", str(faults))
    assert ask(held, "/camera/start", method="POST").status == 200
    picture_of(held)
    before = status_of(held)
    change(held, "auto_exposure", {"enabled": False})
    change(held, "awb", {"enabled": False})
    faults.write_text("dark")
    eventually(held, lambda status: status["lux"] == 1.0)
    after = status_of(held)
    assert after["exposure_us"] == pytest.approx(before["exposure_us"], rel=0.05)
    held.stop()
    again = start_portal(*SMALL, "--pattern-faults", str(faults))
    assert ask(again, "/camera/start", method="POST").status == 200
    eventually(again, lambda status: status["exposure_us"] == after["exposure_us"])
    eventually(again, lambda status: status["colour_gains"] == pytest.approx(after["colour_gains"], rel=0.01))


def test_invalid_field_rejects_all_fields(held: Portal) -> None:
    change(held, "image_processing", {"brightness": 0.1})
    refused = post(held, "/v1/camera/image_processing", {"brightness": 0.5, "contrast": 99})
    assert refused.status == 400
    assert refused.detail == "contrast: must be a number from 0 to 32"
    fields = ask(held, "/v1/camera/controls").json["controls"]["image_processing"]["fields"]
    assert (fields["brightness"]["value"], fields["contrast"]["is_set"]) == (0.1, False)


def test_value_beyond_camera_range(held: Portal) -> None:
    refused = post(held, "/v1/camera/manual_exposure", {"exposure_us": 500_000_000})
    assert refused.status == 409
    assert refused.detail == "exposure_us: this camera supports 13 to 112015096"
    assert status_of(held)["auto_exposure"] is True


def test_sigkill_loses_no_controls(start_portal: Start) -> None:
    for number in range(3):
        portal = start_portal(*SMALL)
        change(portal, "lens_position", {"position": number + 0.5})
        portal.stop(signal.SIGKILL)
        again = start_portal(*SMALL)
        fields = ask(again, "/v1/camera/controls").json["controls"]["lens_position"]["fields"]
        assert fields["position"]["value"] == number + 0.5
        again.stop()


def test_state_that_breaks_start_is_quarantined(start_portal: Start, faults: Path, tmp_path: Path) -> None:
    flags = (*SMALL, "--pattern-faults", str(faults), "--state-dir", str(tmp_path / "kept"))
    portal = start_portal(*flags)
    change(portal, "transform", {"hflip": True})
    portal.stop()
    faults.write_text("refuse")  # from now on it does not open with flips
    portal = start_portal(*flags)
    assert ask(portal, "/snapshot.jpg").status == 200
    status = status_of(portal)
    assert "does not start mirrored" in status["controls_set_aside"]
    assert status["transform"]["hflip"] is False
    portal.wait_for_log("Saved controls moved to .*controls-pattern.json.bad")
    assert json.loads((tmp_path / "kept/controls-pattern.json.bad").read_text())["asked"]["transform"]["hflip"] is True
    portal.stop()
    assert ask(start_portal(*flags), "/snapshot.jpg").status == 200


def test_rejected_change_is_reverted(held: Portal, faults: Path) -> None:
    with StreamClient(held) as client:
        client.next()
        faults.write_text("refuse")
        refused = post(held, "/v1/camera/transform", {"vflip": True})
        assert refused.status == 503
        assert "does not start mirrored" in refused.detail
        assert status_of(held)["transform"]["vflip"] is False
        for _ in range(10):
            client.next()
    assert status_of(held)["controls_set_aside"] is None


def test_unwritable_state_directory(start_portal: Start, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    portal = start_portal(*SMALL, "--state-dir", str(tmp_path / "file"))
    change(portal, "lens_position", {"position": 2.0})
    assert str(tmp_path / "file") in status_of(portal)["controls_not_kept"]


def test_clients_stay_connected_while_reopening(held: Portal) -> None:
    opens = status_of(held)["opens"]
    with StreamClient(held) as client:
        client.next()
        for name, content, size in (
            ("transform", {"hflip": True}, (640, 360)),
            ("hdr", {"mode": "sensor"}, (640, 360)),
            ("stream", {"width": 320, "height": 240}, (320, 240)),
        ):
            change(held, name, content)
            changed_s = time.time()
            while (part := client.next()).timestamp_s < changed_s:
                pass
            assert size_of(part.jpeg) == size
            assert not part.is_placeholder
    assert status_of(held)["opens"] == opens + 3


# Holding the camera open, access


def test_start_and_stop_hold_camera(start_portal: Start) -> None:
    portal = start_portal(*SMALL, "--linger", "0.1")
    assert ask(portal, "/camera/start", method="POST").json == {"status": "ok", "held": True, "state": "open"}
    assert ask(portal, "/camera/start", method="POST").json["held"] is True
    assert [one["kind"] for one in status_of(portal)["held_by"]] == ["hold"]
    with StreamClient(portal) as client:
        client.next()
        assert ask(portal, "/camera/stop", method="POST").json["held"] is False
        assert ask(portal, "/camera/stop", method="POST").status == 200
        for _ in range(10):
            client.next()
    wait_for_status(portal, state="closed")


def test_view_key_is_read_only(start_portal: Start) -> None:
    portal = start_portal(*SMALL, environment={"CAMERA_API_KEY": "change", "CAMERA_VIEW_KEY": "look"})
    body, json_type = json.dumps({"mode": "auto"}).encode(), {"Content-Type": "application/json"}

    def status(method: str, path: str, headers: Mapping[str, str]) -> int:
        return ask(portal, path, method=method, headers=headers, body=body if method == "POST" else None).status

    basic = base64.b64encode(b"anyone:look").decode()
    for look in ({"X-API-Key": "look"}, {"Authorization": "Bearer look"}, {"Authorization": f"Basic {basic}"}):
        assert status("GET", "/v1/camera/controls", look) == 200
        assert status("GET", "/snapshot.jpg", look) == 200
        assert status("POST", "/v1/camera/autofocus_mode", look | json_type) == 403
        assert status("POST", "/camera/start", look | json_type) == 403
        assert status("DELETE", "/v1/camera/controls", look) == 403
        taken = ask(portal, "/v1/camera/snapshot", method="POST", headers=look)
        assert taken.status == 200
    assert status("POST", "/v1/camera/autofocus_mode", {"X-API-Key": "change"} | json_type) == 200
    assert status("POST", "/v1/camera/autofocus_mode", json_type) == 401
    assert status("GET", "/openapi.json", {}) == 401
    assert status("GET", "/health", {}) == 200


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, 200),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "http://HOST"}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
        ({"Origin": "https://cam.example", "X-Forwarded-Host": "cam.example"}, 200),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),
        ({"Origin": "http://evil.example:1", "Host": "evil.example:1", "Connection": "keep-alive"}, 403),
        ({"Origin": "http://pi.local:1", "Host": "pi.local:1", "Connection": "keep-alive"}, 200),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
        ({"Content-Type": "application/json; charset=utf-8"}, 200),
    ],
)
def test_cross_origin_requests(portal: Portal, headers: Mapping[str, str], expected: int) -> None:
    host = portal.url.removeprefix("http://")
    sent = {"Content-Type": "application/json"} | {name: text.replace("HOST", host) for name, text in headers.items()}
    answer = ask(portal, "/v1/camera/awb", method="POST", headers=sent, body=b'{"enabled": true}')
    assert answer.status == expected, answer.body
    if expected != 200:
        assert answer.detail


@pytest.mark.parametrize(
    ("body", "status", "detail"),
    [
        (b"", 400, "not valid JSON"),
        (b"{", 400, "not valid JSON"),
        (b"[]", 400, "must be a JSON object"),
        (b'{"enabled": NaN}', 400, "NaN is not a JSON number"),
        (b'{"enabled": true, "enabled": false}', 400, "enabled: duplicate key"),
        (b'{"enabled": true, "foo": 1}', 400, "'foo': unknown field"),
        (b"\xff", 400, "not valid JSON"),
        (b"[" * 60_000, 400, "not valid JSON"),
        (b" " * 70_000, 413, "65536"),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_invalid_bodies(portal: Portal, body: bytes, status: int, detail: str) -> None:
    headers = {"Content-Type": "application/json"}
    answer = ask(portal, "/v1/camera/awb", method="POST", headers=headers, body=body)
    assert answer.status == status
    assert detail in answer.detail


def test_camera_disabled(start_portal: Start, tmp_path: Path) -> None:
    flags = ("--state-dir", str(tmp_path))
    portal = start_portal(*flags, environment={"CAMERA_ENABLED": "0"})
    for path in ("/", "/docs", "/openapi.json", "/health", "/v1/camera/status", "/webrtc", "/v1/camera/controls"):
        assert ask(portal, path).status == 200, path
    for path in ("/snapshot.jpg", "/snapshot.jpg?format=dng", "/stream.mjpg", "/stream.mp4"):
        answer = ask(portal, path)
        assert answer.status == 503
        assert "Retry-After" not in answer.headers, "retrying is useless"
        assert "CAMERA_ENABLED=0" in answer.detail
    # As with a closed camera.
    change(portal, "image_processing", {"brightness": 0.5})
    change(portal, "transform", {"rotation": 90})
    assert status_of(portal)["transform"]["rotation"] == 90
    assert ask(portal, "/camera/stop", method="POST").json == {"status": "ok", "held": False, "state": "closed"}
    for path, content in (("/camera/start", None), ("/v1/camera/autofocus", {"trigger": True})):
        answer = ask(portal, path, method="POST") if content is None else post(portal, path, content)
        assert answer.status == 503
        assert "Retry-After" not in answer.headers
        assert "CAMERA_ENABLED=0" in answer.detail
    portal.stop()
    again = start_portal(*flags, environment={"CAMERA_ENABLED": "0"})
    assert (
        ask(again, "/v1/camera/controls").json["controls"]["image_processing"]["fields"]["brightness"]["value"] == 0.5
    )
    assert ask(again, "/v1/camera/controls", method="DELETE").status == 200


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


def test_minimum_exposure_slows_frame_rate(held: Portal) -> None:
    answer = change(held, "exposure_limits", {"min_exposure_us": 100_000})
    assert "frame rate is reduced" in answer["note"]
    eventually(held, lambda status: (status["exposure_us"] or 0) >= 99_000)
