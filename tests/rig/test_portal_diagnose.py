"""Tests of `--diagnose` on the real Picamera2: a whole report, a busy camera, none, one without frames."""

from collections.abc import Mapping
from typing import Any

import pytest

from tests.rig.rig import PROJECT, PYTHON, Rig
from tests.support.diagnose import checks_of, parse_report
from tests.support.rig_client import start_portal
from tests.support.timeouts import RUN_LIMIT_S

_SMALL = ("--camera", "Virtual0", "--width", "640", "--height", "360", "--fps", "30")
# The virtual cameras have no other controls.
_CONTROLS = {"control.transform", "control.day_night_mode", "control.stream"}
_LIMIT_S = 2 * RUN_LIMIT_S

pytestmark = pytest.mark.timeout(2 * _LIMIT_S)


def diagnose(rig: Rig, *flags: str, **options: Any) -> tuple[int, Mapping[str, Any]]:
    """The exit code and the report."""
    command = [PYTHON, f"{PROJECT}/soft_stream.py", "--diagnose", "--json", *flags]
    done = rig.run(command, timeout_s=_LIMIT_S, **options)
    assert "Traceback" not in done.stderr
    # The rig's hardware encoder prints what it does.
    lines = [line for line in done.stdout.splitlines() if not line.startswith("rig: ")]
    return done.returncode, parse_report("\n".join(lines))


def test_report(rig: Rig) -> None:
    code, report = diagnose(rig, *_SMALL)
    checks = checks_of(report)
    failed = {name: check["message"] for name, check in checks.items() if check["status"] == "failed"}
    # The virtual camera is a thread of libcamera; a busy machine delays its frames, which the report has to say.
    assert failed.keys() <= {"frame_rate"}
    assert code == len(failed)
    assert checks["frame_rate"]["data"]["requested_fps"] == 30
    assert checks["frame_rate"]["data"]["frames"] > 10
    versions = checks["versions"]["data"]
    assert versions["picamera2"]
    assert versions["libcamera"].startswith("v0.")
    cameras = checks["cameras"]["data"]["cameras"]
    assert sorted(each["id"] for each in cameras) == ["Virtual0", "Virtual1"]
    first = checks["first_frame"]["data"]
    assert (first["backend"], first["width"], first["height"]) == ("picamera2", 640, 360)
    still = checks["still"]["data"]
    assert (still["width"], still["height"]) == (1920, 1080)
    available = {name for name, check in checks.items() if name.startswith("control.") and check["status"] == "ok"}
    assert available == _CONTROLS
    assert checks["h264"]["data"]["encoder"] == "libx264"
    openings = checks["openings"]["data"]
    assert (openings["openings"], openings["leaked_descriptors"], openings["leaked_threads"]) == (10, 0, 0)
    assert any("camera_manager.cpp" in line for line in report["libcamera_log"])


def test_hardware_encoder(rig: Rig) -> None:
    _, report = diagnose(rig, *_SMALL, env={"RIG_H264": "well"})
    checks = checks_of(report)
    h264 = checks["h264"]["data"]
    assert (h264["encoder"], h264["expected_encoder"]) == ("hardware", "hardware")
    assert h264["packets"] >= 40
    assert checks["openings"]["data"]["leaked_descriptors"] == 0


def test_hardware_encoder_that_fails(rig: Rig) -> None:
    _, report = diagnose(rig, *_SMALL, env={"RIG_H264": "broken"})
    check = checks_of(report)["h264"]
    assert (check["status"], check["data"]["encoder"]) == ("warning", "libx264")
    assert any("Falling back to libx264" in line for line in report["log"])


def test_busy_camera(rig: Rig) -> None:
    portal = start_portal(rig, *_SMALL)
    with portal.watch() as viewer:
        viewer.wait_for_pictures(3)
        code, report = diagnose(rig, *_SMALL)
        viewer.wait_for_pictures(3)
    check = checks_of(report)["first_frame"]
    assert (code, check["status"]) == (1, "failed")
    assert check["message"].startswith("camera imx708_wide (Virtual0) is busy or cannot be opened")
    assert "systemctl stop" in check["cure"]
    assert portal.status["restarts"] == 0


def test_machine_without_camera(rig: Rig) -> None:
    code, report = diagnose(rig, "--camera", "0", cameras=())
    checks = checks_of(report)
    assert code == 1
    assert (checks["cameras"]["status"], checks["cameras"]["message"]) == ("failed", "no camera found")
    assert checks["first_frame"]["message"] == "camera number 0 is missing; there: none at all"
    assert checks["openings"]["status"] == "not_applicable"


def test_camera_without_frames(rig: Rig) -> None:
    running = rig.start([PYTHON, f"{PROJECT}/soft_stream.py", "--diagnose", *_SMALL])
    running.freeze()
    assert running.wait(_LIMIT_S) == 1
    line = running.wait_for_line("^failed .*first_frame")
    assert "no frame" in line.string or "delivered no" in line.string
    running.wait_for_line("more checks")
