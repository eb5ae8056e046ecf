"""The capabilities and the status of a camera on the real Picamera2 are those that Picamera2 reports."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.rig.rig import MODELS, PROJECT, PYTHON, Rig
from tests.support.frame_metadata import HOOK, FrameRecords, wait_for_agreement
from tests.support.http_client import ask
from tests.support.rig_client import Portal, start_portal

_SIZE = ("640", "360")
_RANGES = (
    ("exposure_limits_us", "ExposureTime"),
    ("gain_limits", "AnalogueGain"),
    ("lens_position_limits", "LensPosition"),
    ("exposure_value_range", "ExposureValue"),
)
_MODES = (
    ("supported_noise_reduction_modes", "NoiseReductionMode"),
    ("supported_ae_constraint_modes", "AeConstraintMode"),
    ("supported_ae_exposure_modes", "AeExposureMode"),
    ("supported_awb_modes", "AwbMode"),
)
# The control that each feature needs. Every camera of libcamera can be mirrored.
_FEATURES = {
    "auto_exposure": "AeEnable",
    "manual_exposure": "ExposureTime",
    "exposure_limits": "ExposureTime",
    "auto_white_balance": "AwbEnable",
    "manual_white_balance": "ColourGains",
    "exposure_value_compensation": "ExposureValue",
    "noise_reduction": "NoiseReductionMode",
    "ae_constraint_modes": "AeConstraintMode",
    "ae_exposure_modes": "AeExposureMode",
    "awb_modes": "AwbMode",
    "image_processing": "Brightness",
    "roi_digital_zoom": "ScalerCrop",
    "fov_mode": "ScalerCrop",
    "autofocus": "AfMode",
    "autofocus_trigger": "AfTrigger",
    "lens_position_control": "LensPosition",
    "lens_correction": "LensDewarpEnable",
}
_ALWAYS = {"transform"}
# As the Raspberry Pi's pipeline lists them for a sensor with autofocus.
_AUTOFOCUS = {
    "AfMode": [0, 2, 0],
    "AfTrigger": [0, 1, 0],
    "AeEnable": [False, True, True],
    "AeConstraintMode": [0, 3, 0],
    "AeExposureMode": [0, 3, 0],
    "AnalogueGain": [1.0, 22.26, 1.0],
    "AwbEnable": [False, True, None],
    "AwbMode": [0, 7, 0],
    "Brightness": [-1.0, 1.0, 0.0],
    "ColourGains": [0.0, 32.0, None],
    "ExposureTime": [114, 694_422_939, 20_000],
    "ExposureValue": [-8.0, 8.0, 0.0],
    "LensPosition": [0.0, 15.0, 1.0],
    "NoiseReductionMode": [0, 4, 0],
    "ScalerCrop": [[0, 0, 64, 64], [0, 0, 1920, 1080], [0, 0, 1920, 1080]],
}
# As an older or another pipeline may list them.
_FEWER_MODES = {
    "AeConstraintMode": [0, 1, 0],
    "AeExposureMode": [0, 2, 0],
    "AwbMode": [0, 5, 0],
    "NoiseReductionMode": [1, 3, 1],
    "ExposureValue": [-2.0, 2.0, 0.0],
}


def report(rig: Rig, camera: str, environment: Mapping[str, str]) -> Mapping[str, Any]:
    """What Picamera2 reports of a camera."""
    command = [PYTHON, f"{PROJECT}/tests/rig/programs/report_camera.py", "0", *_SIZE]
    run = rig.run(command, cameras=[camera], env=environment)
    assert run.returncode == 0, run.stderr
    reported: Mapping[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return reported


def words_in_range(reported: Mapping[str, Any], control: str) -> Iterator[str]:
    """The names of a control's modes that the camera lists: HighQuality is high_quality, ZSL is zsl."""
    low, high = reported["controls"].get(control, (1, 0))
    for number, name in reported["enumerations"][control].items():
        if low <= int(number) <= high:
            yield re.sub("(?<=[a-z])(?=[A-Z])", "_", name).lower()


@pytest.mark.parametrize(
    ("camera", "further", "is_wide", "field_degrees"),
    [
        pytest.param("Virtual0", {}, True, 102, id="Virtual0"),
        pytest.param("Virtual1", {}, False, None, id="Virtual1"),
        pytest.param("Virtual0", _AUTOFOCUS, True, 102, id="autofocus"),
        pytest.param("Virtual1", _FEWER_MODES, False, None, id="fewer modes"),
    ],
)
def test_capabilities_are_picamera2s(
    rig: Rig, camera: str, further: Mapping[str, Sequence[Any]], is_wide: bool, field_degrees: float | None
) -> None:
    environment = {"RIG_CONTROLS": json.dumps(further)}
    reported = report(rig, camera, environment)
    controls = reported["controls"]
    assert controls.keys() >= further.keys()

    flags = ("--width", _SIZE[0], "--height", _SIZE[1], "--fps", "20", "--no-autofocus")
    portal = start_portal(rig, "--camera", camera, *flags, env=environment)
    content = portal.get("/v1/camera/capabilities").json
    assert content["sensor_model"] == reported["model"] == MODELS[camera]
    size = content["sensor_resolution"]
    assert [size["width"], size["height"]] == reported["resolution"]
    for field, control in _RANGES:
        limits = controls.get(control)
        assert content[field] == (None if limits is None else {"min": limits[0], "max": limits[1]})
    for field, control in _MODES:
        assert content[field] == [*words_in_range(reported, control)], field
    assert {*content["features"]} == _ALWAYS | {name for name, control in _FEATURES.items() if control in controls}
    highest_fps = round(1e6 / controls["FrameDurationLimits"][0], 2)
    assert content["max_framerate_for_current_resolution"] == highest_fps
    assert {each["max_fps"] for each in content["framerate_limits_by_resolution"]} == {highest_fps}
    assert max(each["width"] for each in content["supported_resolutions"]) <= reported["resolution"][0]
    assert not any("size" in mode for mode in reported["sensor_modes"])
    assert (content["sensor_modes"], content["recommended_resolutions"]) == (None, [])
    assert (content["is_wide_camera"], content["field_of_view_degrees"]) == (is_wide, field_degrees)
    status = portal.status
    assert (status["opens"], status["is_wide_camera"], status["sensor_mode_width"]) == (1, is_wide, None)
    assert portal.get("/v1/camera/capabilities").json == content
    assert "Traceback" not in portal.log


@pytest.mark.parametrize(("camera", "size"), [("Virtual0", (1920, 1080)), ("Virtual1", (1280, 720))])
def test_status_is_that_of_a_frame(rig: Rig, tmp_path: Path, camera: str, size: tuple[int, int]) -> None:
    records = FrameRecords(tmp_path, "/opt/shared")
    environment = records.environment | {"PYTHONPATH": f"/opt/rig:{records.environment['PYTHONPATH']}"}
    flags = ("--camera", camera, "--width", _SIZE[0], "--height", _SIZE[1], "--hook", HOOK)
    portal = Portal(rig.start(rig.portal(*flags), env=environment, shared={"/opt/shared": tmp_path}))
    for path in ("/camera/start", "/v1/camera/framerate"):
        body = b'{"framerate":45}' if path.endswith("rate") else None
        headers = {"Content-Type": "application/json"} if body else {}
        assert ask(portal, path, method="POST", body=body, headers=headers).status == 200
        wait_for_agreement(portal, records, size, {"size": [640, 360]}, lambda: None)
    assert {"SensorTimestamp"} <= records.frames()[-1].keys()
