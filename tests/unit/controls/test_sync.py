"""Controls sent to the camera: after each opening, as a difference, at night, with frozen automatics, in order."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from softcam.camera.session.autofocus_cycle import AfMode
from softcam.camera.session.manager import State
from softcam.camera.session.sent_controls import CONTROL_FRAMES
from softcam.errors import NotSupported
from tests.support.background import Background, eventually, soon_s
from tests.support.control_scene import CONTROLS, DARK, FOCUSED, ControlScene
from tests.support.fakes import STEADY
from tests.support.timeouts import PATIENCE_S


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[ControlScene]:
    scene = ControlScene(tmp_path)
    with scene.held:
        yield scene


@pytest.fixture
def focusing(tmp_path: Path) -> Iterator[ControlScene]:
    """With autofocus."""
    scene = ControlScene(tmp_path, autofocus_timeout_s=60.0, light_delay_s=0.0)
    with scene.held:
        yield scene


# Differences


def test_sent_on_every_opening(scene: ControlScene) -> None:
    scene.change("image_processing", brightness=0.5)
    scene.change("manual_exposure", exposure_us=9000, gain=2.0)
    assert scene.take_sent() == {}
    for _ in range(2):
        with scene.held.open():
            assert scene.take_sent() == {
                "Brightness": 0.5, "AeEnable": False, "ExposureTime": 9000, "AnalogueGain": 2.0,
            }  # fmt: skip
        scene.held.wait_for(State.CLOSED)


def test_only_differences_are_sent(scene: ControlScene) -> None:
    with scene.held.open():
        scene.change("image_processing", brightness=0.5)
        assert scene.take_sent() == {"Brightness": 0.5}
        scene.change("image_processing", contrast=2.0)
        assert scene.take_sent() == {"Contrast": 2.0}
        scene.change("manual_exposure", exposure_us=9000)
        assert scene.take_sent() == {"AeEnable": False, "ExposureTime": 9000, "AnalogueGain": 1.0}
        scene.change("auto_exposure", enabled=True)
        assert scene.take_sent() == {"AeEnable": True, "ExposureTime": 0, "AnalogueGain": 0.0}
        scene.control_manager.reset()
        assert scene.take_sent() == {"Brightness": 0.0, "Contrast": 1.0}


def test_released_control_is_sent_again(scene: ControlScene) -> None:
    with scene.held.open():
        for _ in range(3):
            scene.change("manual_awb", red_gain=1.5, blue_gain=1.8)
            assert scene.take_sent() == {"AwbEnable": False, "ColourGains": (1.5, 1.8)}
            scene.change("awb", enabled=True)
            # Gains of 0 are the automatic's: all controls are sent again after a still, which must not fix the colours.
            assert scene.take_sent() == {"AwbEnable": True, "ColourGains": (0.0, 0.0)}
        for _ in range(3):
            scene.change("lens_position", position=5.0)
            assert scene.take_sent() == {"AfMode": 0, "LensPosition": 5.0}
            scene.change("autofocus_mode", mode="continuous")
            assert scene.take_sent() == {"AfMode": 2}


def test_long_exposure_lengthens_frames(scene: ControlScene) -> None:
    with scene.held.open():
        scene.change("manual_exposure", exposure_us=200_000)
        assert scene.take_sent()["FrameDurationLimits"] == (201_000, 201_000)
        scene.change("manual_exposure", exposure_us=9000)
        assert scene.take_sent()["FrameDurationLimits"] == (50_000, 50_000)


def test_slow_stream_starts_faster(tmp_path: Path) -> None:
    scene = ControlScene(tmp_path, fps=2.0, autofocus_timeout_s=60.0)
    with scene.held, scene.held.open():
        assert scene.take_sent()["FrameDurationLimits"] == (50_000, 500_000)
        scene.settle()
        assert "FrameDurationLimits" not in scene.take_sent(), "the lens is not in focus"
        for _ in range(CONTROL_FRAMES + 1):
            scene.camera.emit(FOCUSED)
        assert scene.take_sent()["FrameDurationLimits"] == (500_000, 500_000)
        scene.settle()
        assert scene.take_sent() == {}


def test_start_respects_long_exposures(tmp_path: Path) -> None:
    scene = ControlScene(tmp_path, fps=2.0)
    scene.change("manual_exposure", exposure_us=900_000)
    with scene.held, scene.held.open():
        scene.settle()
        assert scene.take_sent()["FrameDurationLimits"] == (901_000, 901_000)


def test_transform_reopens_the_camera(scene: ControlScene) -> None:
    with scene.held.open():
        scene.change("transform", hflip=True)
        assert scene.camera.opens == 2
        assert scene.camera.requests[-1].hflip is True


@pytest.mark.parametrize("has_modes", [True, False])
@pytest.mark.parametrize("word", ["single-exp", "auto"])
def test_single_exposure_hdr_needs_the_processor(tmp_path: Path, has_modes: bool, word: str) -> None:
    scene = ControlScene(tmp_path)
    controls = {**CONTROLS, "HdrMode": (0, 4, 0)}
    scene.camera.config = replace(scene.camera.config, controls=controls, has_hdr_modes=has_modes)
    with scene.held:
        scene.change("hdr", mode=word)  # nothing is known of the camera yet
        with scene.held.open():
            assert scene.take_sent() == ({"HdrMode": 3} if has_modes else {})
            assert bool(scene.problem("not_applied")) is not has_modes
            scene.control_manager.reset()
            if has_modes:
                scene.change("hdr", mode=word)
            else:
                with pytest.raises(NotSupported, match="HDR"):
                    scene.change("hdr", mode=word)


# Night


def test_night_profile(scene: ControlScene) -> None:
    scene.change("image_processing", saturation=1.5)
    with scene.held.open():
        scene.change("day_night_mode", mode="night")
        assert scene.take_sent()["Saturation"] == 0.0
        scene.change("day_night_mode", mode="day")
        assert scene.take_sent() == {"Saturation": 1.5}


def test_night_profile_again(scene: ControlScene) -> None:
    with scene.held.open():
        for _ in range(3):
            scene.change("day_night_mode", mode="night", night_awb_preset="ir_850nm")
            assert scene.take_sent() == {"AwbEnable": False, "ColourGains": (1.05, 1.15), "Saturation": 0.0}
            scene.change("day_night_mode", mode="day")
            assert scene.take_sent() == {"AwbEnable": True, "ColourGains": (0.0, 0.0), "Saturation": 1.0}


def test_opening_measures_the_light(scene: ControlScene) -> None:
    scene.change("day_night_mode", mode="auto", threshold_lux=10)
    assert scene.control_manager.scene(None) is None
    for lux, saturation, word in ((1.0, 0.0, "night"), (400.0, 1.0, "day"), (400.0, None, "day"), (1.0, 0.0, "night")):
        scene.take_sent()
        with scene.held.open():
            scene.take_sent()
            metadata = {**STEADY, "Lux": lux}
            snapshot = Background(partial(scene.held.manager.wait_frame, time.monotonic(), soon_s()))
            for _ in range(4):
                scene.camera.emit(metadata)
            assert scene.take_sent().get("Saturation") == saturation
            assert scene.control_manager.scene(lux) == word
            scene.camera.emit(metadata)
            if saturation is not None:  # the control shows some frames later
                assert not snapshot.is_over
            for _ in range(16):
                scene.camera.emit(metadata)
            snapshot.result().release()
        scene.held.wait_for(State.CLOSED)
        assert scene.control_manager.scene(None) is None, "a closed camera measures nothing"


# Automatics that are switched off


def test_automatic_freezes_at_its_current_values(scene: ControlScene, tmp_path: Path) -> None:
    with scene.held.open():
        for _ in range(6):
            scene.camera.emit({**STEADY, "ColourGains": (2.0, 1.5)})
        scene.change("auto_exposure", enabled=False)
        scene.change("awb", enabled=False)
        scene.camera.emit({**STEADY, "ColourGains": (2.0, 1.5)})
        assert scene.take_sent() == {
            "AeEnable": False, "ExposureTime": 1000, "AnalogueGain": 1.0, "AwbEnable": False, "ColourGains": (2.0, 1.5),
        }  # fmt: skip
        eventually(lambda: '"ColourGains"' in (tmp_path / "cam0.json").read_text(), "it is saved")


def test_freeze_waits_for_valid_values(scene: ControlScene) -> None:
    with scene.held.open():
        scene.settle()
        scene.change("awb", enabled=False)
        scene.camera.emit()  # without colour gains
        assert scene.take_sent() == {}
        scene.camera.emit({**STEADY, "ColourGains": (2.0, float("nan"))})
        assert scene.take_sent() == {}
        scene.camera.emit({**STEADY, "ColourGains": (2.0, 1.5)})
        assert scene.take_sent() == {"AwbEnable": False, "ColourGains": (2.0, 1.5)}


def test_frame_thread_does_not_write(scene: ControlScene, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[str] = []
    end_attempt = scene.store.end_attempt

    def record() -> None:
        threads.append(threading.current_thread().name)
        end_attempt()

    monkeypatch.setattr(scene.store, "end_attempt", record)
    scene.change("image_processing", brightness=0.5)
    with scene.held.open():  # emits on this very thread
        eventually(lambda: threads, "the mark is removed")
    assert threading.current_thread().name not in threads


# Focus


def finish_cycle(scene: ControlScene) -> None:
    for _ in range(14):
        scene.camera.emit(FOCUSED)


def test_manual_focus_and_back(scene: ControlScene) -> None:
    with scene.held.open():
        scene.change("lens_position", position=5.0)
        assert scene.take_sent() == {"AfMode": 0, "LensPosition": 5.0}
        scene.change("autofocus_mode", mode="continuous")
        assert scene.take_sent() == {"AfMode": 2}


def test_stream_keeps_continuous_focus_after_a_reset(focusing: ControlScene) -> None:
    with focusing.held.open():
        finish_cycle(focusing)
        focusing.change("autofocus_mode", mode="continuous")
        focusing.control_manager.reset()
        finish_cycle(focusing)
        assert focusing.held.manager.autofocus.mode is AfMode.CONTINUOUS


def test_reset_of_a_manual_lens_focuses_once(focusing: ControlScene) -> None:
    with focusing.held.open():
        finish_cycle(focusing)
        focusing.change("lens_position", position=5.0)
        focusing.control_manager.reset()
        finish_cycle(focusing)
        assert focusing.take_sent()["AfTrigger"] == 0
        focusing.change("image_processing", brightness=0.1)
        finish_cycle(focusing)
        assert focusing.take_sent() == {"Brightness": 0.1}


def test_reset_of_the_focus_mode_while_closed_starts_nothing(focusing: ControlScene) -> None:
    focusing.change("autofocus_mode", mode="auto")
    focusing.held.open().release()
    focusing.held.wait_for(State.CLOSED)
    focusing.control_manager.reset()
    focusing.take_sent()
    with focusing.held.manager.lease("snapshot"):
        focusing.held.wait_for(State.OPEN)
        focusing.camera.emit()
        assert focusing.take_sent() == {}


def test_manual_mode_freezes_the_lens_over_an_opening(scene: ControlScene, tmp_path: Path) -> None:
    with scene.held.open():
        scene.settle(FOCUSED)
        scene.change("autofocus_mode", mode="manual")
        scene.camera.emit({**FOCUSED, "AfState": 1, "LensPosition": 1.5})  # the lens still moves
        scene.camera.emit({**FOCUSED, "AfState": 0})
        assert scene.take_sent() == {"AfMode": 0, "LensPosition": 1.8}
        eventually(lambda: '"LensPosition"' in (tmp_path / "cam0.json").read_text(), "it is saved")
    scene.held.wait_for(State.CLOSED)
    with scene.held.open():
        assert scene.take_sent() == {"AfMode": 0, "LensPosition": 1.8}
        scene.change("autofocus_mode", mode="manual")
        scene.settle({**FOCUSED, "AfState": 0, "LensPosition": 3.0})
        assert scene.take_sent()["LensPosition"] == 3.0


# Threads


class Gate:
    """Blocks the first call of one thread until it is opened."""

    def __init__(self, call: Callable[..., Any], thread: str) -> None:
        self._call = call
        self._thread = thread
        self.is_inside = threading.Event()
        self._is_open = threading.Event()

    def __call__(self, *arguments: Any, **more: Any) -> Any:
        if threading.current_thread().name == self._thread and not self.is_inside.is_set():
            self.is_inside.set()
            assert self._is_open.wait(PATIENCE_S)
        return self._call(*arguments, **more)

    def open(self) -> None:
        self._is_open.set()


def test_change_while_the_camera_opens(scene: ControlScene, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(scene.camera.prepare, "camera")
    monkeypatch.setattr(scene.camera, "prepare", gate)
    lease = scene.held.manager.lease("stream")
    assert gate.is_inside.wait(PATIENCE_S)
    changing = Background(lambda: scene.change("transform", hflip=True))
    eventually(lambda: scene.control_manager.requested.has("transform"), "it is requested")
    gate.open()
    changing.result()
    assert scene.camera.requests[-1].hflip is True
    lease.release()


def test_newer_value_is_sent_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = ControlScene(tmp_path, light_delay_s=0.0)
    with scene.held, scene.held.open():
        scene.change("day_night_mode", mode="auto", threshold_lux=10)
        scene.settle({**STEADY, "Lux": 400.0})
        scene.take_sent()
        gate = Gate(scene.camera.set_controls, "frame")
        monkeypatch.setattr(scene.camera, "set_controls", gate)
        frames = threading.Thread(target=lambda: [scene.camera.emit(DARK) for _ in range(3)], name="frame")
        frames.start()
        assert gate.is_inside.wait(PATIENCE_S), "the night profile is about to be sent"
        changing = Background(lambda: scene.change("day_night_mode", mode="night", night_saturation=0.7))
        eventually(lambda: scene.value("day_night_mode", "night_saturation") == 0.7, "it is requested")
        assert scene.take_sent() == {}
        assert not changing.is_over, "it waits for its turn"
        gate.open()
        frames.join(PATIENCE_S)
        changing.result()
        assert [controls["Saturation"] for controls in scene.camera.sent if "Saturation" in controls][-1] == 0.7


def test_late_send_does_not_return_the_lens_to_autofocus(
    focusing: ControlScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    with focusing.held.open():
        finish_cycle(focusing)
        focusing.change("day_night_mode", mode="auto", threshold_lux=10)
        focusing.settle({**FOCUSED, "Lux": 400.0})
        gate = Gate(focusing.camera.set_controls, "frame")
        monkeypatch.setattr(focusing.camera, "set_controls", gate)
        frames = threading.Thread(target=lambda: [focusing.camera.emit(DARK) for _ in range(3)], name="frame")
        frames.start()
        assert gate.is_inside.wait(PATIENCE_S)
        changing = Background(lambda: focusing.change("lens_position", position=5.0))
        eventually(lambda: focusing.control_manager.requested.has("lens_position"), "it is requested")
        gate.open()
        frames.join(PATIENCE_S)
        changing.result()
        assert [controls["AfMode"] for controls in focusing.camera.sent if "AfMode" in controls][-1] == 0
        assert focusing.held.manager.autofocus.mode is AfMode.MANUAL
