"""Requests: validation against the camera, saving, and errors of the camera."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from softcam.camera.session.manager import State
from softcam.controls import mapping
from softcam.controls.controller import ControlManager
from softcam.controls.schema import BY_NAME
from softcam.controls.store import Store
from softcam.controls.writer import BackgroundWriter
from softcam.errors import BadValue, CameraError, NotSupported
from tests.support.background import Background, eventually
from tests.support.control_scene import CONFIGURED, CONTROLS, ControlScene
from tests.support.fakes import STEADY
from tests.support.timeouts import PATIENCE_S


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[ControlScene]:
    scene = ControlScene(tmp_path)
    with scene.held:
        yield scene


def test_unsupported_values_are_rejected(scene: ControlScene) -> None:
    with scene.held.open():
        with pytest.raises(NotSupported, match="sharpness: this camera does not support Sharpness"):
            scene.change("image_processing", brightness=0.5, sharpness=2.0)
        with pytest.raises(NotSupported, match="contrast: this camera supports 0 to 4"):
            scene.change("image_processing", contrast=5.0)
        with pytest.raises(NotSupported, match=r"gain: this camera supports 0\.1 to 16$"):
            scene.change("manual_exposure", exposure_us=500, gain=17.0)
        with pytest.raises(BadValue, match="min_exposure_us"):
            scene.change("exposure_limits", min_exposure_us=900, max_exposure_us=500)
        assert scene.take_sent() == {}
        assert scene.control_manager.requested.is_empty


def test_gain_below_the_minimum_of_the_sensor_sets_it(scene: ControlScene) -> None:
    with scene.held.open():
        scene.change("manual_exposure", exposure_us=500, gain=0.1)
        assert scene.take_sent()["AnalogueGain"] == 1.0


@pytest.mark.parametrize(
    ("name", "values", "reason"),
    [
        ("autofocus", {"trigger": True}, "trigger: this camera does not support AfMode"),
        ("autofocus_mode", {"mode": "auto"}, "mode: this camera does not support AfMode"),
        ("awb_preset", {"preset": "ir_850nm"}, "preset: this camera does not support ColourGains"),
        ("awb_preset", {"preset": "cloudy"}, "preset: this camera does not support AwbMode"),
        ("hdr", {"mode": "sensor"}, "mode: this camera does not support sensor (its sensor has no HDR)"),
        ("roi", dict.fromkeys(("x", "y", "width", "height"), 0.5), "width: this camera does not support ScalerCrop"),
    ],
)
def test_rejection_names_the_field(scene: ControlScene, name: str, values: dict[str, Any], reason: str) -> None:
    scene.camera.config = replace(scene.camera.config, controls={})
    with scene.held.open(), pytest.raises(NotSupported) as caught:
        scene.change(name, **values)
    assert reason in str(caught.value).split("; ")


def test_value_that_the_camera_rejects_is_reverted(scene: ControlScene) -> None:
    with scene.held.open():
        scene.change("image_processing", brightness=0.5)
        scene.camera.control_error = CameraError("no")
        with pytest.raises(CameraError, match="no"):
            scene.change("image_processing", brightness=0.7)
        scene.camera.control_error = None
        assert scene.value("image_processing", "brightness") == 0.5


def test_values_set_before_the_first_opening_are_clamped(scene: ControlScene, caplog: pytest.LogCaptureFixture) -> None:
    scene.change("manual_exposure", exposure_us=2_000_000, gain=63.0)
    scene.change("image_processing", contrast=9.0, sharpness=2.0)
    scene.change("manual_awb", red_gain=0.5, blue_gain=32.0)
    with scene.held.open():
        assert scene.take_sent() == {
            "AeEnable": False, "ExposureTime": 1_000_000, "AnalogueGain": 16.0, "Contrast": 4.0, "AwbEnable": False,
            "ColourGains": (0.5, 32.0), "FrameDurationLimits": (1_000_000, 1_000_000),
        }  # fmt: skip
        assert set(scene.problem("not_applied")) == {
            "exposure_us: this camera supports 10 to 1000000; using 1000000",
            "gain: this camera supports 0.1 to 16; using 16",
            "contrast: this camera supports 0 to 4; using 4",
            "sharpness: this camera does not support Sharpness",
        }
    lines = [record.getMessage() for record in caplog.records]
    assert "Unsupported controls ignored: sharpness: this camera does not support Sharpness" in lines
    assert any(line.startswith("Controls limited by the camera: exposure_us: this camera supports") for line in lines)


def test_unsupported_control_set_while_closed_is_reported(scene: ControlScene) -> None:
    scene.change("image_processing", brightness=0.5, sharpness=2.0)
    with scene.held.open():
        assert scene.take_sent() == {"Brightness": 0.5}
        assert scene.problem("not_applied") == ["sharpness: this camera does not support Sharpness"]


def test_unlisted_mode_set_while_closed_is_not_sent(scene: ControlScene) -> None:
    scene.camera.config = replace(
        scene.camera.config, controls={**CONTROLS, "AeConstraintMode": (0, 2, 0), "AeExposureMode": (0, 3, 0)}
    )
    scene.change("ae_constraint_mode", mode="custom")
    scene.change("ae_exposure_mode", mode="custom")
    with scene.held.open():
        assert scene.take_sent() == {"AeExposureMode": 3}
        assert scene.problem("not_applied") == ["mode: this camera supports normal, highlight, shadows"]
        scene.change("ae_constraint_mode", mode="shadows")
        assert scene.take_sent() == {"AeConstraintMode": 2}
        scene.control_manager.reset()
        assert scene.take_sent() == {"AeConstraintMode": 0, "AeExposureMode": 0}


def test_different_rate_or_size_is_reported(scene: ControlScene) -> None:
    with scene.held.open():
        scene.change("stream", fps=240.0)
        assert scene.problem("not_applied") == ["fps: the camera delivers at most 100 in its current mode"]
        scene.change("stream", fps=50.0, width=64)
        assert scene.problem("not_applied") == ["width: the camera delivers 32"]
        scene.control_manager.reset()
        assert scene.problem("not_applied") == []


def test_rate_of_the_stream_follows_a_size_that_lowers_it(scene: ControlScene) -> None:
    scene.change("stream", fps=100.0)
    assert scene.control_manager.stream_fps == 100.0
    with scene.held.open():
        assert scene.control_manager.stream_fps == 100.0
    scene.change("stream", width=4000, height=720)
    assert scene.control_manager.stream_fps == 100.0, "nothing else is known before the camera is opened"
    scene.camera.config = replace(
        scene.camera.config, width=4000, height=720, controls={**CONTROLS, "FrameDurationLimits": (69_686, 10**6, None)}
    )
    with scene.held.open():
        assert (scene.control_manager.stream_fps, scene.control_manager.stream_request.fps) == (14.35, 100.0)
    assert scene.control_manager.stream_fps == 14.35, "also after the closing"


def test_exposure_limit_notes(scene: ControlScene) -> None:
    def notes() -> list[str]:
        manager = scene.control_manager
        return list(mapping.limits_notes(manager.requested, manager.stream_request, manager.config))

    with scene.held.open():
        scene.change("exposure_limits", min_exposure_us=200_000)
        assert scene.take_sent()["FrameDurationLimits"] == (201_000, 201_000)
        assert notes() == ["min_exposure_us: the frame rate is reduced to 4.98 fps"]
        scene.change("auto_exposure", enabled=False)
        scene.settle({**STEADY, "ExposureTime": 200_000})
        assert scene.take_sent()["FrameDurationLimits"] == (201_000, 201_000), "the frozen exposure needs it too"
        assert notes() == ["the exposure is fixed; the limits apply once it is automatic again"]
        scene.change("auto_exposure", enabled=True)
        scene.change("exposure_limits", min_exposure_us=None, max_exposure_us=200_000)
        assert scene.take_sent()["FrameDurationLimits"] == (50_000, 50_000)
        assert notes() == ["max_exposure_us: the frame rate limits the exposure time to 49000"]
        scene.change("exposure_limits", max_exposure_us=20_000)
        assert notes() == []


def test_rejected_autofocus_trigger_changes_nothing(scene: ControlScene) -> None:
    scene.change("lens_position", position=5.0)
    with scene.held.open():
        scene.take_sent()
        with pytest.raises(NotSupported, match="the focus is manual"):
            scene.change("autofocus", trigger=True, speed="fast")
        assert scene.take_sent() == {}
        assert not scene.control_manager.requested.has("autofocus")


def test_zoom_keeps_the_shape(scene: ControlScene) -> None:
    with scene.held.open():
        scene.change("roi", x=0.5, y=0.5, width=0.5, height=0.25)
        assert scene.take_sent() == {"ScalerCrop": (32, 12, 32, 16)}
        # A still has another sensor mode, and its own shape.
        ranges = {"ScalerCrop": ((0, 0, 8, 4), (0, 0, 128, 64), None)}
        whole, part = (scene.control_manager.still_view(is_whole=is_whole) for is_whole in (True, False))
        assert whole(ranges, (128, 64)) == {"ScalerCrop": (0, 0, 128, 64)}
        assert part(ranges, (16, 16)) == {"ScalerCrop": (64, 24, 32, 32)}
        assert part(ranges, (128, 64)) == {"ScalerCrop": (64, 24, 64, 32)}
        assert part({}, (16, 16)) == {}
        scene.control_manager.reset()
        assert scene.control_manager.still_view(is_whole=False)(ranges, (16, 16)) == {"ScalerCrop": (32, 0, 64, 64)}
        assert scene.take_sent() == {"ScalerCrop": (0, 0, 64, 32)}


def test_change_waits_for_another_within_a_limit(tmp_path: Path) -> None:
    scene = ControlScene(tmp_path, change_timeout_s=0.05)
    with scene.held, scene.held.open():
        scene.camera.block("close")
        first = Background(lambda: scene.change("transform", hflip=True))
        scene.camera.wait_inside("close")
        with pytest.raises(CameraError, match="another control change is in progress"):
            scene.change("image_processing", brightness=0.5)
        with pytest.raises(CameraError, match="another control change is in progress"):
            scene.control_manager.reset()
        scene.camera.unblock()
        first.result()


def test_unresponsive_disk_delays_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    responds = threading.Event()
    scene = ControlScene(tmp_path, writer=BackgroundWriter(list[str]().append, timeout_s=0.05))
    with scene.held:
        scene.change("image_processing", brightness=0.5)
        monkeypatch.setattr(scene.store, "end_attempt", lambda: responds.wait(PATIENCE_S))
        for _ in range(2):  # closed before a frame arrived, which ends the attempt
            lease = scene.held.manager.lease("stream")
            scene.held.wait_for(State.OPEN)
            lease.release()
            scene.held.wait_for(State.CLOSED)
        with scene.held.open():
            scene.change("image_processing", brightness=0.7)
            assert scene.take_sent()["Brightness"] == 0.7
            assert "state directory has not responded" in scene.problem("not_kept")
            responds.set()
            eventually(lambda: scene.problem("not_kept") is None, "it responds again")


def test_deleted_quarantine_is_noticed_without_waiting_for_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cam0.json").write_text("{")
    scene = ControlScene(tmp_path)
    refresh, checks, responds = scene.store.refresh_quarantine, list[None](), threading.Event()

    def refresh_on_a_slow_disk() -> None:
        checks.append(None)
        responds.wait(PATIENCE_S)
        refresh()

    monkeypatch.setattr(scene.store, "refresh_quarantine", refresh_on_a_slow_disk)
    with scene.held:
        (tmp_path / "cam0.json.bad").unlink()
        for _ in range(5):
            assert "Expecting" in scene.problem("set_aside")
        responds.set()
        eventually(lambda: scene.problem("set_aside") is None, "the reason ends")
    assert len(checks) == 1, "not one for each request"


def test_disabled_camera_saves_and_validates(tmp_path: Path) -> None:
    manager = ControlManager(None, CONFIGURED, Store(tmp_path, "cam0"), BackgroundWriter(list[str]().append))
    manager.change(BY_NAME["day_night_mode"], {"mode": "night"})
    assert manager.is_night
    assert manager.scene(None) == "night"
    assert Store(tmp_path, "cam0").load().get("day_night_mode", "mode") == "night"
