"""Tests of controls on the real Picamera2; controls that libcamera's virtual camera does not support are rejected."""

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.rig.rig import Rig
from tests.support.examples import example
from tests.support.http_client import Answer, ask
from tests.support.rig_client import Portal, start_portal
from tests.support.timeouts import RUN_LIMIT_S

CAMERA = ("--camera", "Virtual0", "--width", "640", "--height", "360", "--linger", "0.2")
# The documented bodies of earlier services, and more; a virtual camera supports few of them.
CHANGES: list[tuple[str, Mapping[str, Any]]] = [
    ("auto_exposure", {"enabled": True}),
    ("manual_exposure", {"exposure_us": 20000, "gain": 2.0}),
    ("exposure_limits", {"max_exposure_us": 5000}),
    ("awb", {"enabled": False}),
    ("manual_awb", {"red_gain": 1.5, "blue_gain": 1.8}),
    ("awb_preset", {"preset": "daylight_noir"}),
    ("awb_preset", {"preset": "cloudy"}),
    ("autofocus", {"trigger": True}),
    ("autofocus_mode", {"mode": "continuous"}),
    ("exposure_value", {"ev": 1.5}),
    ("noise_reduction", {"mode": "fast"}),
    ("ae_constraint_mode", {"mode": "shadows"}),
    ("ae_exposure_mode", {"mode": "long"}),
    ("awb_mode", {"mode": "cloudy"}),
    ("autofocus_trigger", {}),
    ("lens_position", {"position": 5.0}),
    ("autofocus_range", {"range_mode": "normal"}),
    ("image_processing", {"brightness": 0.1, "contrast": 1.2, "saturation": 1.0, "sharpness": 8.0}),
    ("hdr", {"mode": "sensor"}),
    ("hdr", {"mode": "single-exp"}),
    ("hdr", {"mode": "off"}),
    ("roi", {"x": 0.25, "y": 0.25, "width": 0.5, "height": 0.5}),
    ("fov_mode", {"mode": "crop"}),
    ("fov_mode", {"mode": "scale"}),
    ("lens_correction", {"enabled": True}),
    ("lens_correction", {"enabled": False}),
    ("transform", {"hflip": True}),
    ("transform", {"rotation": 180}),
    ("transform", {"rotation": 90}),
    ("day_night_mode", {"mode": "auto", "threshold_lux": 10.0}),
    ("day_night_mode", {"mode": "night"}),
    ("stream", {"width": 320, "height": 180}),
]


def send(portal: Portal, method: str, target: str, content: Mapping[str, Any] | None = None) -> Answer:
    body = None if content is None else json.dumps(content).encode()
    return ask(portal, target, method=method, body=body, headers={"Content-Type": "application/json"} if body else {})


def test_unsupported_controls_are_rejected(rig: Rig) -> None:
    portal = start_portal(rig, *CAMERA)
    assert send(portal, "POST", "/camera/start").status == 200
    with portal.watch() as viewer:
        viewer.wait_for_pictures(1)
        answers = {}
        for name, content in CHANGES:
            answer = send(portal, "POST", f"/v1/camera/{name}", content)
            assert answer.status in (200, 409), (name, answer.body, portal.running.output)
            if answer.status == 409:
                assert "camera" in answer.json["detail"]
            answers[name, str(content)] = answer.status
            viewer.wait_for_pictures(3)
        assert viewer.is_connected
        rejected = [key for key, status in answers.items() if status == 409]
        print(f"rejected: {rejected}")
        assert ("autofocus", "{'trigger': True}") in rejected
        assert ("hdr", "{'mode': 'sensor'}") in rejected
        assert ("fov_mode", "{'mode': 'crop'}") in rejected
        assert answers["stream", "{'width': 320, 'height': 180}"] == 200
        assert answers["transform", "{'rotation': 90}"] == 200
    described = send(portal, "GET", "/v1/camera/controls").json
    assert described["controls"]["lens_position"]["fields"]["position"]["available"] is False
    assert (
        described["controls"]["lens_position"]["fields"]["position"]["reason"]
        == "position: this camera does not support LensPosition"
    )
    assert "Traceback" not in portal.running.output
    assert send(portal, "DELETE", "/v1/camera/controls").status == 200


def test_raw_still_is_rejected(rig: Rig) -> None:
    portal = start_portal(rig, *CAMERA)
    answer = portal.get("/snapshot.jpg?format=dng")
    assert answer.status == 409
    assert answer.json["detail"] == "format: must be jpeg, this camera has no raw images"
    assert portal.get("/snapshot.jpg").status == 200


def test_snapshot_as_json(rig: Rig) -> None:
    portal = start_portal(rig, *CAMERA)
    answer = send(portal, "POST", "/v1/camera/snapshot", {"width": 320, "height": 180, "autofocus_trigger": True})
    assert answer.status == 200
    assert (answer.json["width"], answer.json["height"]) == (320, 180)


@pytest.mark.parametrize("name", ["lens_position", "roi"])
def test_unsupported_saved_controls_are_reported(rig: Rig, name: str) -> None:
    portal = start_portal(rig, *CAMERA)
    content = dict(next(content for each, content in CHANGES if each == name))
    assert (
        send(portal, "POST", f"/v1/camera/{name}", content).status == 200
    )  # the camera's capabilities are not known yet
    assert portal.get("/snapshot.jpg").status == 200
    not_applied = portal.status["controls_not_applied"]
    assert not_applied
    assert "this camera does not support" in not_applied[0]


# Of Pi Camera Service 2.8; libcamera's virtual cameras have none of these controls.
UNSUPPORTED = {
    *("ae_constraint_mode", "ae_exposure_mode", "autofocus_trigger", "awb_mode", "exposure_value", "fov_mode"),
    *("noise_reduction", "resolution"),  # to crop
}


@pytest.mark.parametrize("name", ["pi_camera_service_v2_8.py.txt", "pi_camera_service_v2_8.sh"])
def test_client_of_another_service(rig: Rig, name: str, tmp_path: Path) -> None:
    portal = start_portal(rig, *CAMERA)
    assert send(portal, "POST", "/camera/start").status == 200
    program = ["bash", "-eo", "pipefail"] if name.endswith(".sh") else [sys.executable]
    done = subprocess.run(
        [*program, example(name, portal, tmp_path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=RUN_LIMIT_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr + portal.log
    assert {*re.findall(r"^unsupported (\w+)$", done.stdout, re.MULTILINE)} == UNSUPPORTED
    assert "Traceback" not in portal.log


def test_frame_rate_is_the_one_that_the_response_and_the_limits_say(rig: Rig) -> None:
    portal = start_portal(rig, *CAMERA)
    with portal.watch() as viewer:
        viewer.wait_for_pictures(1)
        answer = send(portal, "POST", "/v1/camera/framerate", {"framerate": 500}).json
        assert answer == {
            "status": "ok",
            "requested_framerate": 500.0,
            "applied_framerate": 60.0,
            "max_framerate_for_resolution": 60.0,
            "resolution": "640x360",
            "clamped": True,
            "note": None,
        }
        limits = portal.status["current_limits"]
        assert limits == {"frame_duration_us": {"min": 16_667, "max": 16_667}, "effective_exposure_limit_us": None}
        viewer.wait_for_pictures(2)  # with the new rate
        exposed_s = [viewer.wait_for_pictures(1).exposed_s for _ in range(40)]
    gaps_s = sorted(after - before for before, after in pairwise(exposed_s))
    assert gaps_s[len(gaps_s) // 4] == pytest.approx(1 / 60, rel=0.25), "a busy machine skips frames"


def test_status_of_controls(rig: Rig) -> None:
    portal = start_portal(rig, *CAMERA)
    assert send(portal, "POST", "/camera/start").status == 200
    portal.get("/snapshot.jpg")
    status = portal.status
    for field in ("lens_position", "lens_correction_enabled", "autofocus_mode", "colour_temperature"):
        assert status[field] is None, field
    for field in ("exposure_value", "noise_reduction_mode", "ae_constraint_mode", "ae_exposure_mode"):
        assert status[field] is None, field
    # 20 fps was requested, and the camera delivers at least 30.
    assert status["current_limits"] == {
        "frame_duration_us": {"min": 33_333, "max": 33_333},
        "effective_exposure_limit_us": None,
    }
    assert [one["kind"] for one in status["held_by"]] == ["hold"]
