"""Values of controls in the status: as the camera reports them, or else as they were set; null if unknown."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from softcam.camera.base import SessionListener, StreamRequest
from softcam.camera.pattern.camera import PatternCamera
from softcam.camera.session.manager import CameraManager, SessionState, State
from softcam.controls.controller import ControlManager
from softcam.controls.schema import BY_NAME
from softcam.controls.store import Store
from softcam.controls.writer import BackgroundWriter
from softcam.errors import CameraError
from softcam.web.api.control_values import VALUES_SHAPE
from softcam.web.api.status import StatusApi
from tests.support.background import eventually, soon, soon_s
from tests.support.control_scene import CONTROLS, ControllableCamera
from tests.support.fakes import STEADY
from tests.support.web_app import Scene, make_camera

MODES: Mapping[str, Any] = {
    "AeConstraintMode": (0, 3, 0),
    "AeExposureMode": (0, 3, 0),
    "ExposureValue": (-8.0, 8.0, 0.0),
    "NoiseReductionMode": (0, 4, 0),
}
NAMES = tuple(VALUES_SHAPE)
UNKNOWN = dict.fromkeys(NAMES[:4]) | {
    "current_limits": {"frame_duration_us": None, "effective_exposure_limit_us": None}
}
DEFAULTS = {
    "exposure_value": 0.0,
    "noise_reduction_mode": "fast",
    "ae_constraint_mode": "normal",
    "ae_exposure_mode": "normal",
    "current_limits": {
        "frame_duration_us": {"min": 50_000, "max": 50_000},
        "effective_exposure_limit_us": {"min": 10, "max": 50_000},
    },
}


class Values(Scene):
    def __init__(self, folder: Path) -> None:
        camera = ControllableCamera()
        camera.config = replace(camera.config, controls={**CONTROLS, **MODES})
        super().__init__(camera, folder=folder)

    @property
    def values(self) -> Mapping[str, Any]:
        content = self.api.content()
        return {name: content[name] for name in NAMES}

    def change(self, name: str, **values: Any) -> None:
        self.control_manager.change(BY_NAME[name], BY_NAME[name].parse(values))


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Values]:
    with Values(tmp_path) as scene:
        yield scene


def test_unknown_before_the_first_opening_unless_set(scene: Values) -> None:
    assert scene.values == UNKNOWN
    scene.change("image_processing", exposure_value=1.5)
    scene.change("ae_exposure_mode", mode="long")
    assert scene.values == UNKNOWN | {"exposure_value": 1.5, "ae_exposure_mode": "long"}


def test_defaults_of_an_open_camera(scene: Values) -> None:
    with scene.held.open():
        assert scene.values == DEFAULTS
    scene.held.end_linger()
    scene.held.wait_for(State.CLOSED)
    assert scene.values == DEFAULTS | {"current_limits": UNKNOWN["current_limits"]}


def test_values_that_were_set(scene: Values) -> None:
    with scene.held.open():
        scene.change("image_processing", exposure_value=-0.5, noise_reduction="high_quality")
        scene.change("ae_exposure_mode", mode="short")
        scene.change("ae_constraint_mode", mode="shadows")
        assert scene.values == DEFAULTS | {
            "exposure_value": -0.5,
            "noise_reduction_mode": "high_quality",
            "ae_constraint_mode": "shadows",
            "ae_exposure_mode": "short",
        }
        scene.change("day_night_mode", mode="night", night_exposure_value=2.0)
        assert scene.values["exposure_value"] == 2.0
        scene.change("exposure_limits", min_exposure_us=200_000)
        assert scene.values["current_limits"] == {
            "frame_duration_us": {"min": 201_000, "max": 201_000},
            "effective_exposure_limit_us": {"min": 200_000, "max": 201_000},
        }


@pytest.mark.parametrize(
    ("reported", "expected"),
    [
        ({"ExposureValue": 1.23456, "AeExposureMode": 2}, {"exposure_value": 1.235, "ae_exposure_mode": "long"}),
        (
            {"AeConstraintMode": 3, "NoiseReductionMode": 4},
            {"ae_constraint_mode": "custom", "noise_reduction_mode": "zsl"},
        ),
        ({"AeConstraintMode": 99}, {"ae_constraint_mode": None}),
        ({"ExposureValue": float("nan"), "AeExposureMode": None}, {}),
    ],
)
def test_values_that_the_newest_frame_reports(scene: Values, reported: Mapping[str, Any], expected: Any) -> None:
    with scene.held.open():
        scene.camera.emit({**STEADY, **reported})
        assert scene.values == DEFAULTS | expected
        scene.camera.emit()
        assert scene.values == DEFAULTS, "libcamera reports a control with one frame only"


def test_limits_that_the_newest_frame_reports(scene: Values) -> None:
    with scene.held.open():
        scene.camera.emit({**STEADY, "FrameDurationLimits": (20_000, 40_000)})
        assert scene.values["current_limits"]["frame_duration_us"] == {"min": 20_000, "max": 40_000}
        assert scene.values["current_limits"]["effective_exposure_limit_us"]["max"] == 40_000


def test_camera_without_these_controls() -> None:
    with Scene(make_camera()) as scene:
        scene.control_manager.change(BY_NAME["ae_exposure_mode"], {"mode": "long"})
        with scene.held.open():
            content = scene.api.content()
            assert {name: content[name] for name in NAMES} == UNKNOWN


# On the pattern camera, which reports what a Camera Module 3 reports


class Reports(SessionListener):
    """What the frames of a camera have reported last, by libcamera's name."""

    def __init__(self) -> None:
        self.last: dict[str, Any] = {}

    def on_frame(self, metadata: Mapping[str, Any], *, is_settled: bool) -> None:
        self.last |= metadata


CHANGES: list[tuple[str, dict[str, Any], dict[str, Any], dict[str, Any]]] = [
    ("image_processing", {"exposure_value": -1.0}, {"ExposureValue": -1.0}, {"exposure_value": -1.0}),
    ("image_processing", {"noise_reduction": "off"}, {"NoiseReductionMode": 0}, {"noise_reduction_mode": "off"}),
    ("ae_exposure_mode", {"mode": "short"}, {"AeExposureMode": 1}, {"ae_exposure_mode": "short"}),
    ("ae_constraint_mode", {"mode": "shadows"}, {"AeConstraintMode": 2}, {"ae_constraint_mode": "shadows"}),
    ("exposure_limits", {"min_exposure_us": 30_000}, {"ExposureTime": 30_000, "FrameDuration": 31_000}, {}),
    ("exposure_limits", {"min_exposure_us": None, "max_exposure_us": 2_000}, {"ExposureTime": 2_000}, {}),
]


def test_status_agrees_with_the_metadata_of_a_camera() -> None:
    request, failures = StreamRequest(160, 90, 50.0), list[CameraError]()
    camera = PatternCamera(request)
    session = SessionState(camera, linger_s=0.0, watchdog_timeout_s=0.0, on_failure=failures.append)
    manager = CameraManager(session, autofocus_timeout_s=1.0, has_autofocus=False)
    controls = ControlManager(manager, request, Store(None, "cam0"), BackgroundWriter(list[str]().append))
    reports = Reports()
    manager.subscribe(reports)
    api = StatusApi(manager, controls, lambda: 0, lambda: 0, True)
    manager.start()
    with manager.lease("hold"):
        manager.wait_ready(soon_s())
        for name, values, reported, shown in CHANGES:
            controls.change(BY_NAME[name], values)
            eventually(partial(is_part, reported, reports), f"{reported} in the metadata")
            content, last = api.content(), reports.last
            assert {field: content[field] for field in shown} == shown
            frame_us, exposure_us = content["current_limits"].values()
            assert frame_us["min"] <= last["FrameDuration"] <= frame_us["max"]
            assert exposure_us["min"] <= last["ExposureTime"] <= exposure_us["max"]
    assert exposure_us == {"min": 13, "max": 2_000}
    manager.stop()
    assert manager.wait_until_closed(soon())
    assert failures == []


def is_part(reported: Mapping[str, Any], reports: Reports) -> bool:
    return reported.items() <= reports.last.items()
