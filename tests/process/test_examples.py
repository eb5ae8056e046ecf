"""Runs the documented examples of the services that the portal replaces.

They are in the folder `examples` and unchanged except for host and port; those of version 2.8 use every route that its
documentation lists, and run on the rig, too. curl runs with `--fail`, so that an HTTP error fails the test.
"""

import base64
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Portal
from tests.support.examples import EXAMPLES, example
from tests.support.http_client import ask, ask_for_still, post, size_of, status_of
from tests.support.timeouts import RUN_LIMIT_S

Start = Callable[..., Portal]

# Shortens sleeps and endless loops; each response is checked after every round.
TWO_ROUNDS = """
import sys, time
rounds = 0

def cut(seconds):
    global rounds
    rounds += 1
    assert response.status_code == 200, response.text
    if rounds == 2:
        print("two rounds of", seconds)
        raise SystemExit

time.sleep = cut
exec(compile(open(sys.argv[1]).read(), sys.argv[1], "exec"))
"""
AS_BEFORE_IT = "import base64, requests\n"  # the imports of the page's first example


def run(*command: str | Path, folder: Path) -> str:
    environment = os.environ | {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        list(map(str, command)), cwd=folder, env=environment, capture_output=True, text=True, timeout=RUN_LIMIT_S
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture
def shell(tmp_path: Path) -> Path:
    """A folder with a curl that fails on HTTP errors."""
    real = shutil.which("curl")
    assert real is not None, "apt install curl"
    curl = tmp_path / "curl"
    curl.write_text(f'#!/bin/sh\nexec {real} -sS --fail-with-body "$@"\n')
    curl.chmod(0o755)
    return tmp_path


def test_curl_of_version_2(portal: Portal, shell: Path) -> None:
    run("bash", "-eo", "pipefail", example("pi_camera_service_v2.sh", portal, shell), folder=shell)
    assert size_of((shell / "snapshot.jpg").read_bytes()) == (1920, 1080)
    status = status_of(portal)
    assert status["awb_enabled"] is False
    assert status["autofocus_mode"] == "continuous"


@pytest.mark.parametrize("is_open", [False, True])
def test_curl_of_version_2_8(portal: Portal, shell: Path, is_open: bool) -> None:
    if is_open:
        assert ask(portal, "/camera/start", method="POST").status == 200
    output = run("bash", "-eo", "pipefail", example("pi_camera_service_v2_8.sh", portal, shell), folder=shell)
    assert "unsupported" not in output
    fields = ask(portal, "/v1/camera/controls").json["controls"]["stream"]["fields"]
    assert {name: field["value"] for name, field in fields.items()} == {"width": 640, "height": 360, "fps": 30.0}


def test_python_of_version_2_8(portal: Portal, tmp_path: Path) -> None:
    path = example("pi_camera_service_v2_8.py.txt", portal, tmp_path)
    assert run(sys.executable, path, folder=tmp_path) == ""
    assert status_of(portal)["awb_enabled"] is True
    rejected = post(portal, "/v1/camera/exposure_value", {"ev": 8.1})
    assert (rejected.status, rejected.detail) == (400, "ev: must be a number from -8 to 8")


def test_curl_of_version_1(portal: Portal, shell: Path) -> None:
    # Only the last one, which starts publishing, is rejected, as no server is configured.
    path = example("pi_camera_service_v1.sh", portal, shell)
    commands = path.read_text().split("\n\n")
    assert len(commands) == 6
    path.write_text("\n\n".join(commands[:-1]))
    run("bash", "-e", path, folder=shell)
    status = status_of(portal)
    assert status["auto_exposure"] is False
    assert status["awb_enabled"] is False
    answer = ask(portal, "/streaming/start", method="POST")
    assert answer.status == 409
    assert "rtsp_url" in answer.detail


@pytest.mark.parametrize("name", ["reachy_mini.sh", "streaming_pipeline.sh", "surveillance.sh"])
def test_curl_of_other_services(portal: Portal, shell: Path, name: str) -> None:
    run("bash", "-e", example(name, portal, shell), folder=shell)
    if "frame.jpg" in (EXAMPLES / name).read_text():
        assert size_of((shell / "frame.jpg").read_bytes()) == (1536, 864)


def test_python_of_version_2(portal: Portal, tmp_path: Path) -> None:
    output = run(sys.executable, example("pi_camera_service_v2.py.txt", portal, tmp_path), folder=tmp_path)
    assert "Snapshot saved: 1920x1080" in output
    assert size_of((tmp_path / "snapshot.jpg").read_bytes()) == (1920, 1080)
    controls = ask(portal, "/v1/camera/controls").json["controls"]
    assert controls["awb_preset"]["fields"]["preset"]["value"] == "daylight_noir"
    values = {name: field["value"] for name, field in controls["image_processing"]["fields"].items() if field["is_set"]}
    assert values == {"brightness": 0.1, "contrast": 1.2, "saturation": 1.0, "sharpness": 8.0}


def test_python_of_version_1(portal: Portal, tmp_path: Path) -> None:
    output = run(sys.executable, example("pi_camera_service_v1.py.txt", portal, tmp_path), folder=tmp_path)
    assert "Passage en manuel : {'status': 'ok', 'exposure_us': 20000, 'gain': 2.0}" in output


def test_time_lapse(portal: Portal, tmp_path: Path) -> None:
    path = example("time_lapse.py.txt", portal, tmp_path)
    # The pattern camera renders its first full-sensor image slowly, and the example does not retry.
    assert ask(portal, "/camera/start", method="POST").status == 200
    assert ask_for_still(portal, "/snapshot.jpg?full=1").status == 200
    assert run(sys.executable, "-c", TWO_ROUNDS, path, folder=tmp_path) == "two rounds of 60\n"


def test_computer_vision(portal: Portal, tmp_path: Path) -> None:
    path = example("computer_vision.py.txt", portal, tmp_path)
    path.write_text(
        f"{AS_BEFORE_IT}{path.read_text()}\nprint(snapshot['width'], snapshot['height'], image[:3].hex())\n"
    )
    assert run(sys.executable, path, folder=tmp_path) == "640 480 ffd8ff\n"


def test_javascript(portal: Portal, tmp_path: Path) -> None:
    assert shutil.which("node") is not None, "apt install nodejs"
    path = example("pi_camera_service_v2.mjs", portal, tmp_path)
    path.write_text(f"{path.read_text()}\nconsole.log(`blob of ${{blob.type}}, ${{blob.size > 1000}}`);\n")
    output = run("node", path, folder=tmp_path)
    assert "Autofocus: " in output
    assert "blob of image/jpeg, true" in output
    assert status_of(portal)["awb_enabled"] is False


def test_ffmpeg_recording(portal: Portal, tmp_path: Path) -> None:
    command = ["ffmpeg", "-nostdin", "-i", f"{portal.url}/stream.mjpg", "-c:v", "libx264", "recording.mp4"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        output = ""
        while not re.search(r"frame=\s*[1-9]", output):
            more = process.stderr.read(64)
            assert more, output
            output += more
        process.send_signal(signal.SIGINT)
        process.stderr.read()
    assert (tmp_path / "recording.mp4").stat().st_size > 1000


# Bodies and responses as documented

V1 = [
    ("auto_exposure", {"enabled": True}, {"status": "ok", "auto_exposure": True}),
    (
        "manual_exposure",
        {"exposure_us": 20000, "gain": 2.0},
        {"status": "ok", "exposure_us": 20000, "gain": 2.0},
    ),
    ("manual_exposure", {"exposure_us": 20000}, {"status": "ok", "exposure_us": 20000, "gain": 1.0}),
    ("awb", {"enabled": False}, {"status": "ok", "awb_enabled": False}),
]
V2: list[tuple[str, Mapping[str, Any]]] = [
    ("auto_exposure", {"enabled": True}),
    ("manual_exposure", {"exposure_us": 20000, "gain": 2.0}),
    ("awb", {"enabled": False}),
    ("manual_awb", {"red_gain": 1.5, "blue_gain": 1.8}),
    ("awb_preset", {"preset": "daylight_noir"}),
    ("autofocus_mode", {"mode": "continuous"}),
    ("lens_position", {"position": 5.0}),
    ("autofocus_range", {"range_mode": "normal"}),
    ("image_processing", {"brightness": 0.1, "contrast": 1.2, "saturation": 1.0, "sharpness": 8.0}),
    ("hdr", {"mode": "sensor"}),
    ("roi", {"x": 0.25, "y": 0.25, "width": 0.5, "height": 0.5}),
    ("day_night_mode", {"mode": "auto", "threshold_lux": 10.0}),
]
STATUS_V1 = {"lux", "exposure_us", "analogue_gain", "colour_temperature", "auto_exposure", "streaming"}
STATUS_V2 = STATUS_V1 | {
    "autofocus_mode",
    "lens_position",
    "focus_fom",
    "hdr_mode",
    "lens_correction_enabled",
    "scene_mode",
    "day_night_mode",
    "day_night_threshold_lux",
    "frame_duration_us",
    "sensor_black_levels",
}


@pytest.mark.parametrize("is_open", [False, True])
def test_responses_match_documentation(portal: Portal, is_open: bool) -> None:
    if is_open:
        assert ask(portal, "/camera/start", method="POST").status == 200
    for name, body, expected in V1:
        for path in (f"/camera/{name}", f"/v1/camera/{name}"):
            answer = post(portal, path, body)
            assert (answer.status, answer.json) == (200, expected)
    for name, body in V2:
        for path in (f"/camera/{name}", f"/v1/camera/{name}"):
            answer = post(portal, path, body)
            assert answer.status == 200, answer.body
            assert answer.json["status"] == "ok"
    bad = post(portal, "/camera/manual_exposure", {"exposure_us": 0})
    assert bad.status == 400
    assert bad.detail.startswith("exposure_us: ")
    assert ask(portal, "/streaming/stop", method="POST").json == {"status": "ok", "streaming": False}


def test_status_has_all_documented_fields(portal: Portal) -> None:
    assert status_of(portal).keys() >= STATUS_V2
    assert ask(portal, "/camera/start", method="POST").status == 200
    assert ask(portal, "/snapshot.jpg").status == 200  # the camera has settled
    status = status_of(portal)
    assert {field for field in STATUS_V2 if status[field] is None} == set()
    health = ask(portal, "/health").json
    assert health.keys() >= {"status", "camera_configured", "streaming_active", "version"}
    assert health["status"] == "healthy"


def test_snapshot_as_json(portal: Portal) -> None:
    options = {"width": 1920, "height": 1080, "autofocus_trigger": True}
    for path in ("/v1/camera/snapshot", "/camera/snapshot"):
        content = json.loads(post(portal, path, options).body)
        assert list(content) == ["status", "image_base64", "width", "height"]
        picture = base64.b64decode(content["image_base64"], validate=True)
        assert size_of(picture) == (content["width"], content["height"]) == (1920, 1080)
