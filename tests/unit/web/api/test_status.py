"""The status has every documented field, null for unknown values, and is always valid JSON."""

import json
import socket
from collections.abc import Callable
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest

from softcam import __version__
from softcam.camera.session.manager import State
from softcam.errors import CameraBusy
from softcam.web.api.publishing import PublishingApi
from softcam.web.api.status import StatusApi
from softcam.web.http.messages import AnyResponse, Request, Response
from tests.support.background import eventually
from tests.support.fakes import AUTOFOCUS, SIZE, STEADY
from tests.support.raw_http import Site, make_request
from tests.support.sensors import IMX708, modes_of
from tests.support.web_app import Scene, make_camera, make_controls, make_presets

STATUS_PATHS = ("/v1/camera/status", "/camera/status", "/api/camera/status", "/status")

# By the program that introduced them.
KNOWN_FIELDS = {
    "the first service": "lux exposure_us analogue_gain colour_temperature auto_exposure streaming",
    "the second service": "autofocus_mode lens_position focus_fom hdr_mode lens_correction_enabled scene_mode"
    " day_night_mode day_night_threshold_lux frame_duration_us sensor_black_levels",
    "its later versions": "current_limits exposure_value noise_reduction_mode ae_constraint_mode ae_exposure_mode"
    " fov_mode is_wide_camera sensor_mode_width sensor_mode_height",
    "the robot": "available",
    "the pipeline": "backend",
    "the portal": "state backend available viewers width height fps last_error restarts uptime_s",
}
METADATA = {
    **STEADY,
    "ExposureTime": 12000,
    "AnalogueGain": 1.5004,
    "DigitalGain": 1.0,
    "Lux": 45.24,
    "ColourTemperature": 4200,
    "LensPosition": 2.5,
    "FocusFoM": 12500,
    "FrameDuration": 33321,
    "ColourGains": (1.51239, 2.0),
    "SensorBlackLevels": (4096, 4096, 4096, 4096),
    "SensorTemperature": 40.04,
}


def ask(handle: Callable[[Request], AnyResponse], status: HTTPStatus = HTTPStatus.OK) -> dict[str, Any]:
    answer = handle(make_request("/"))
    assert isinstance(answer, Response)
    assert answer.status is status
    assert answer.content_type == "application/json"

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    content = json.loads(answer.body, parse_constant=refuse)
    assert isinstance(content, dict)
    return content


# The status


@pytest.mark.parametrize("fields", KNOWN_FIELDS.values(), ids=KNOWN_FIELDS.keys())
def test_all_fields_are_present(fields: str) -> None:
    with Scene() as scene:
        assert set(fields.split()) <= ask(scene.api.status).keys()
        with scene.held.open():
            assert set(fields.split()) <= ask(scene.api.status).keys()


def test_ok_is_the_first_field() -> None:
    """Scripts of other services search each response for it."""
    with Scene() as scene:
        answer = scene.api.status(make_request("/v1/camera/status"))
        assert isinstance(answer, Response)
        assert answer.body.startswith(b'{"status":"ok","state":"closed",')


def test_sensor_mode_and_lens() -> None:
    camera = make_camera()
    camera.model = "imx708_wide_noir"
    modes = modes_of(IMX708, is_wide=True)
    camera.config = replace(camera.config, sensor_modes=modes, sensor_mode=modes.modes[1])

    def fields() -> tuple[Any, ...]:
        content = ask(scene.api.status)
        return content["is_wide_camera"], content["sensor_mode_width"], content["sensor_mode_height"]

    with Scene(camera) as scene:
        assert fields() == (True, None, None)
        with scene.held.open():
            assert fields() == (True, 2304, 1296)
        camera.model = None
        assert fields()[0] is None


def test_closed_camera() -> None:
    with Scene() as scene:
        content = ask(scene.api.status)
    expected = {"state": "closed", "backend": "fake", "available": True, "viewers": 0, "restarts": 0, "opens": 0}
    assert expected.items() <= content.items()
    for field in ("width", "height", "fps", "last_error", "lux", "exposure_us", "autofocus_mode", "colour_gains"):
        assert content[field] is None
    assert content["uptime_s"] >= 0
    assert content["version"] == __version__


def test_open_camera() -> None:
    with Scene(make_camera(controls={"AeEnable": (0, 1, 1), "AwbEnable": (0, 1, 1)})) as scene, scene.held.open():
        for _ in range(2):  # the first has another frame duration than the frame of the opening
            scene.camera.emit(METADATA)
        content = ask(scene.api.status)
        expected = {
            "state": "open",
            "available": True,
            "width": SIZE[0],
            "height": SIZE[1],
            "pixel_format": "YUV420",
            "opens": 1,
            "frames": 3,
            "lux": 45.2,
            "exposure_us": 12000,
            "analogue_gain": 1.5,
            "digital_gain": 1.0,
            "colour_temperature": 4200,
            "lens_position": 2.5,
            "focus_fom": 12500,
            "frame_duration_us": 33321,
            "colour_gains": [1.512, 2.0],
            "sensor_black_levels": [4096] * 4,
            "sensor_temperature_c": 40.0,
            "auto_exposure": True,
            "awb_enabled": True,
        }
        assert {field: content[field] for field in expected} == expected
        assert content["fps"] > 0
        assert content["autofocus"] is None  # this camera has no autofocus
    eventually(lambda: scene.held.state is State.CLOSED)


def test_autofocus_mode() -> None:
    with Scene(make_camera(controls=dict(AUTOFOCUS)), autofocus_timeout_s=5.0) as scene, scene.held.open():
        content = ask(scene.api.status)
        assert content["autofocus"] is True
        assert content["autofocus_mode"] == "auto"  # the stream's first cycle
        scene.camera.emit({**STEADY, "AfState": 1})
        scene.camera.emit({**STEADY, "AfState": 2})
        assert ask(scene.api.status)["autofocus_mode"] == "continuous"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), None, "much", [1]], ids=repr)
def test_invalid_metadata_is_null(value: object) -> None:
    with Scene() as scene, scene.held.open():
        odd = {name: value for name in METADATA if name not in STEADY and name != "ColourGains"}
        odd |= {"SensorBlackLevels": (value, 4096)}
        scene.camera.emit({**STEADY, **odd})
        content = ask(scene.api.status)
        assert content["lux"] is None
        assert content["focus_fom"] is None
        assert content["sensor_black_levels"] == [None, 4096]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_invalid_gains_are_null(value: float) -> None:
    with Scene() as scene, scene.held.open():
        scene.camera.emit({**STEADY, "ColourGains": (value, 2.0), "SensorBlackLevels": 4096})
        content = ask(scene.api.status)
        assert content["colour_gains"] == [None, 2.0]
        assert content["sensor_black_levels"] is None


def test_counters() -> None:
    with Scene() as scene:
        api = StatusApi(scene.manager, scene.control_manager, lambda: 3, lambda: 70, has_autofocus=False)
        content = ask(api.status)
    assert (content["viewers"], content["pictures_encoded"]) == (3, 70)


def test_socket_of_another_program(tmp_path: Path) -> None:
    path = tmp_path / "camera"
    with Scene() as scene:
        content = ask(scene.api.status)
        assert (content["socket_path"], content["socket_exists"]) == (None, None)
        api = StatusApi(scene.manager, scene.control_manager, lambda: 0, lambda: 0, False, socket_path=path)
        for exists in (False, True):
            content = ask(api.status)
            assert (content["socket_path"], content["socket_exists"]) == (str(path), exists)
            if not exists:
                with socket.socket(socket.AF_UNIX) as listener:
                    listener.bind(str(path))


def test_states() -> None:
    with Scene(linger_s=60.0) as scene:
        scene.camera.block("open")
        lease = scene.manager.lease("stream")
        scene.camera.wait_inside("open")
        assert ask(scene.api.status)["state"] == "opening"
        scene.camera.unblock()
        scene.held.wait_for(State.OPEN)
        scene.camera.emit()
        lease.release()
        scene.held.wait_for(State.LINGERING)
        content = ask(scene.api.status)
        assert (content["state"], content["available"]) == ("lingering", True)


def test_disabled_camera() -> None:
    with Scene() as scene:
        fields = ask(scene.api.status).keys()
    controls = make_controls()
    sections = [PublishingApi(None, has_camera=False).status, make_presets(controls).status]
    api = StatusApi(None, controls, lambda: 0, lambda: 0, True, sections)
    content = ask(api.status)
    assert content.keys() == fields
    assert (content["state"], content["available"], content["backend"]) == ("closed", False, None)
    assert "CAMERA_ENABLED" in content["last_error"]
    health = ask(api.health)  # disabled on purpose
    assert (health["status"], health["camera_configured"], health["streaming_active"]) == ("healthy", False, False)


# Health


def test_healthy() -> None:
    with Scene() as scene:
        assert ask(scene.api.health) == {
            "status": "healthy",
            "problems": [],
            "camera_configured": True,
            "streaming_active": False,
            "recording_active": False,
            "recording_interrupted": None,
            "recording_error": None,
            "version": __version__,
        }
        with scene.held.open():
            assert ask(scene.api.health)["streaming_active"] is True
        assert ask(scene.api.health)["streaming_active"] is False


def test_health_while_recovering() -> None:
    with Scene(watchdog_timeout_s=0.05) as scene:
        scene.camera.block("restart")
        lease = scene.held.open()
        scene.camera.wait_inside("restart")
        content = ask(scene.api.health, HTTPStatus.SERVICE_UNAVAILABLE)
        assert (content["status"], content["problems"]) == ("unhealthy", ["camera"])
        assert content["detail"].startswith("no frame for")
        status = ask(scene.api.status)
        assert (status["state"], status["available"], status["restarts"]) == ("recovering", False, 1)
        assert status["last_error"] == content["detail"]
        lease.release()


def test_health_missing_camera() -> None:
    with Scene() as scene:
        scene.camera.is_there = False
        lease = scene.manager.lease("stream")
        error = scene.held.take_failure()
        content = ask(scene.api.health, HTTPStatus.SERVICE_UNAVAILABLE)
        assert content["detail"] == str(error)
        status = ask(scene.api.status)
        assert (status["state"], status["available"], status["last_error"]) == ("missing", False, str(error))
        lease.release()


def test_health_failed_camera() -> None:
    """The process exits soon; until then it is unhealthy."""
    with Scene() as scene:
        scene.camera.fail_next("open", CameraBusy("another program has the camera"))
        lease = scene.manager.lease("stream")
        scene.held.take_failure()
        content = ask(scene.api.health, HTTPStatus.SERVICE_UNAVAILABLE)
        assert content["detail"] == "another program has the camera"
        status = ask(scene.api.status)
        assert (status["available"], status["last_error"]) == (False, "another program has the camera")
        lease.release()


# Over HTTP


def test_status_paths() -> None:
    with Scene() as scene, Site(scene.routes(), api_key="key") as site:
        for path in STATUS_PATHS:
            assert site.ask(path).status == 401
            reply = site.ask(path, headers={"X-API-Key": "key"})
            assert reply.json["state"] == "closed"
            assert reply.headers["Cache-Control"] == "no-store"
            assert reply.headers["Access-Control-Allow-Origin"] == "*"
            assert site.ask(path, method="HEAD", headers={"X-API-Key": "key"}).status == 200
        assert site.ask("/health").json["status"] == "healthy"  # without the key
        assert site.ask("/health", method="HEAD").status == 200
        assert scene.camera.opens == 0  # a status request does not open the camera


def test_health_shows_recordings() -> None:
    running = {"interrupted": None}
    recording = {"video": running, "timelapse": {"interrupted": 1000.5}, "last_error": "No space left on device"}
    api = StatusApi(None, make_controls(), lambda: 0, lambda: 0, True, recording=lambda: recording)
    health = ask(api.health)
    fields = ("recording_active", "recording_interrupted", "recording_error")
    assert [health[field] for field in fields] == [True, 1000.5, "No space left on device"]
    assert ask(api.status)["recording"] == recording


def test_health_shows_a_recording_that_was_cut_short() -> None:
    recording = {
        "video": None,
        "timelapse": None,
        "cut_short": {"video": 1000.5, "timelapse": None},
        "last_error": None,
    }
    api = StatusApi(None, make_controls(), lambda: 0, lambda: 0, True, recording=lambda: recording)
    health = ask(api.health)
    assert (health["recording_active"], health["recording_interrupted"]) == (False, 1000.5)
