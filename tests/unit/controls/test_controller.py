"""What a camera is told: after every opening, as a difference, by day and night; what it refuses is taken back."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from softcam.camera.base import StreamRequest
from softcam.camera.session.autofocus_cycle import AfMode
from softcam.camera.session.manager import State
from softcam.controls import controller as steering_module
from softcam.controls import day_night, mapping
from softcam.controls import writer as keeper_module
from softcam.controls.controller import ControlManager
from softcam.controls.schema import BY_NAME, BadValue
from softcam.controls.state import Store
from softcam.errors import CameraBusy, CameraError, NotSupported
from tests.support.fakes import STEADY, Background, FakeCamera, Flow, Held, eventually, soon_s, waiters

WISH = StreamRequest(32, 16, 20.0)
CONTROLS: Mapping[str, Any] = {
    "AeEnable": (False, True, True),
    "AfMode": (0, 2, 0),
    "AfSpeed": (0, 1, 0),
    "AfTrigger": (0, 1, 0),
    "AnalogueGain": (1.0, 16.0, 1.0),
    "AwbEnable": (False, True, True),
    "AwbMode": (0, 7, 0),
    "Brightness": (-1.0, 1.0, 0.0),
    "ColourGains": (0.0, 32.0, None),
    "Contrast": (0.0, 4.0, 1.0),
    "ExposureTime": (10, 1_000_000, 20_000),
    "FrameDurationLimits": (10_000, 1_000_000, None),
    "LensPosition": (0.0, 15.0, 1.0),
    "Saturation": (0.0, 32.0, 1.0),
    "ScalerCrop": ((0, 0, 8, 4), (0, 0, 64, 32), (0, 0, 64, 32)),
}
DARK = {**STEADY, "Lux": 1.0}


class SteeredCamera(FakeCamera):
    """Remembers what it was prepared for, and sends nothing by itself."""

    def __init__(self) -> None:
        super().__init__(CONTROLS)
        self.wishes: list[StreamRequest] = []

    def prepare(self, wish: StreamRequest) -> None:
        self.wishes.append(wish)


class Scene:
    """A holder with a steering, on a camera in the test's hand."""

    def __init__(
        self, folder: Path, *, autofocus_timeout_s: float | None = None, watchdog_timeout_s: float = 0.0
    ) -> None:
        self.camera = SteeredCamera()
        self.held = Held(
            self.camera,
            linger_s=0.0,
            autofocus_timeout_s=autofocus_timeout_s,
            watchdog_timeout_s=watchdog_timeout_s,
        )
        self.store = Store(folder, "cam0")
        self.control_manager = ControlManager(self.held.manager, WISH, self.store)

    def change(self, name: str, **values: Any) -> None:
        self.control_manager.change(BY_NAME[name], BY_NAME[name].parse(values))

    def settle(self, metadata: Mapping[str, Any] = STEADY) -> None:
        """Frames until exposure and colours count as settled."""
        for _ in range(6):
            self.camera.emit(metadata)

    def sent(self) -> dict[str, Any]:
        """All that was sent since the last look, merged."""
        merged: dict[str, Any] = {}
        for controls in self.camera.sent:
            merged |= controls
        self.camera.sent.clear()
        return merged


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(tmp_path)
    with scene.held:
        yield scene


def test_set_while_closed_sent_on_every_opening(scene: Scene) -> None:
    scene.change("image_processing", brightness=0.5)
    scene.change("manual_exposure", exposure_us=9000, gain=2.0)
    assert scene.sent() == {}
    for _ in range(2):
        with scene.held.open():
            assert scene.sent() == {
                "Brightness": 0.5, "AeEnable": False, "ExposureTime": 9000, "AnalogueGain": 2.0,
            }  # fmt: skip
        scene.held.wait_for(State.CLOSED)


def test_only_what_is_new_is_sent_and_what_nobody_asks_for_is_given_back(scene: Scene) -> None:
    with scene.held.open():
        scene.change("image_processing", brightness=0.5)
        assert scene.sent() == {"Brightness": 0.5}
        scene.change("image_processing", contrast=2.0)
        assert scene.sent() == {"Contrast": 2.0}
        scene.change("manual_exposure", exposure_us=9000)
        assert scene.sent() == {"AeEnable": False, "ExposureTime": 9000, "AnalogueGain": 1.0}
        scene.change("auto_exposure", enabled=True)
        assert scene.sent() == {"AeEnable": True, "ExposureTime": 0, "AnalogueGain": 0.0}
        scene.control_manager.reset()
        assert scene.sent() == {"Brightness": 0.0, "Contrast": 1.0}


def test_a_long_exposure_stretches_the_frames(scene: Scene) -> None:
    with scene.held.open():
        scene.change("manual_exposure", exposure_us=200_000)
        assert scene.sent()["FrameDurationLimits"] == (201_000, 201_000)
        scene.change("manual_exposure", exposure_us=9000)
        assert scene.sent()["FrameDurationLimits"] == (50_000, 50_000)


def test_a_shortest_time_beyond_the_frame_stretches_the_frames(scene: Scene) -> None:
    def notes() -> list[str]:
        return list(
            mapping.limits_notes(scene.control_manager.asked, scene.control_manager.wish, scene.control_manager.mode)
        )

    with scene.held.open():
        scene.change("exposure_limits", min_exposure_us=200_000)
        assert scene.sent()["FrameDurationLimits"] == (201_000, 201_000)
        assert notes() == ["min_exposure_us: the frames come more slowly, 4.98 in a second"]
        scene.change("auto_exposure", enabled=False)
        scene.settle({**STEADY, "ExposureTime": 200_000})
        assert scene.sent()["FrameDurationLimits"] == (201_000, 201_000), "what is held wants it as well"
        assert notes() == ["the exposure is set by hand: the limits count when it is automatic again"]
        scene.change("auto_exposure", enabled=True)
        scene.change("exposure_limits", min_exposure_us=None, max_exposure_us=200_000)
        assert scene.sent()["FrameDurationLimits"] == (50_000, 50_000)
        assert notes() == ["max_exposure_us: the frame rate allows 49000 at the most"]
        scene.change("exposure_limits", max_exposure_us=20_000)
        assert notes() == []


def test_numbers_beyond_an_unknown_camera_are_fitted_and_told(scene: Scene) -> None:
    scene.change("manual_exposure", exposure_us=2_000_000, gain=63.0)
    scene.change("image_processing", contrast=9.0, sharpness=2.0)
    scene.change("manual_awb", red_gain=0.5, blue_gain=32.0)
    with scene.held.open():
        assert scene.sent() == {
            "AeEnable": False, "ExposureTime": 1_000_000, "AnalogueGain": 16.0, "Contrast": 4.0, "AwbEnable": False,
            "ColourGains": (0.5, 32.0), "FrameDurationLimits": (1_000_000, 1_000_000),
        }  # fmt: skip
        assert set(scene.control_manager.troubles()["controls_not_applied"]) == {
            "exposure_us: this camera takes 10 to 1000000; 1000000 is used",
            "gain: this camera takes 1 to 16; 16 is used",
            "contrast: this camera takes 0 to 4; 4 is used",
            "this camera has no Sharpness",
        }


def test_a_zoom_keeps_the_shape(scene: Scene) -> None:
    with scene.held.open():
        scene.change("roi", x=0.5, y=0.5, width=0.5, height=0.25)
        assert scene.sent() == {"ScalerCrop": (32, 12, 32, 16)}
        # A still has a sensor mode of its own, of which it takes a part in its own shape.
        ranges = {"ScalerCrop": ((0, 0, 8, 4), (0, 0, 128, 64), None)}
        whole, part = (scene.control_manager.still_view(is_whole=is_whole) for is_whole in (True, False))
        assert whole(ranges, (128, 64)) == {"ScalerCrop": (0, 0, 128, 64)}
        assert part(ranges, (16, 16)) == {"ScalerCrop": (64, 24, 32, 32)}
        assert part(ranges, (128, 64)) == {"ScalerCrop": (64, 24, 64, 32)}
        assert part({}, (16, 16)) == {}
        scene.control_manager.reset()
        assert scene.control_manager.still_view(is_whole=False)(ranges, (16, 16)) == {"ScalerCrop": (32, 0, 64, 64)}
        assert scene.sent() == {"ScalerCrop": (0, 0, 64, 32)}


def test_what_the_camera_lacks_is_refused_and_nothing_is_kept(scene: Scene) -> None:
    with scene.held.open():
        with pytest.raises(NotSupported, match="this camera has no Sharpness"):
            scene.change("image_processing", brightness=0.5, sharpness=2.0)
        with pytest.raises(NotSupported, match="contrast: this camera takes 0 to 4"):
            scene.change("image_processing", contrast=5.0)
        with pytest.raises(BadValue, match="min_exposure_us"):
            scene.change("exposure_limits", min_exposure_us=900, max_exposure_us=500)
        assert scene.sent() == {}
        assert scene.control_manager.asked.is_empty


def test_what_it_refuses_to_take_is_taken_back(scene: Scene) -> None:
    with scene.held.open():
        scene.change("image_processing", brightness=0.5)
        scene.camera.control_error = CameraError("no")
        with pytest.raises(CameraError, match="no"):
            scene.change("image_processing", brightness=0.7)
        scene.camera.control_error = None
        assert scene.control_manager.asked.get("image_processing", "brightness") == 0.5


def test_lacking_while_closed_is_told_at_the_opening(scene: Scene) -> None:
    scene.change("image_processing", brightness=0.5, sharpness=2.0)
    with scene.held.open():
        assert scene.sent() == {"Brightness": 0.5}
        assert scene.control_manager.troubles()["controls_not_applied"] == ["this camera has no Sharpness"]


def test_a_transform_opens_the_camera_again(scene: Scene) -> None:
    with scene.held.open():
        scene.change("transform", hflip=True)
        assert scene.camera.opens == 2
        assert scene.camera.wishes[-1].hflip is True


def test_a_refused_opening_goes_back_to_the_one_before(scene: Scene) -> None:
    with scene.held.open():
        scene.camera.fail_next("open", NotSupported("cannot mirror"))
        with pytest.raises(NotSupported, match="cannot mirror"):
            scene.change("transform", hflip=True)
        assert scene.control_manager.asked.is_empty
        assert scene.camera.wishes[-1].hflip is False
        scene.held.wait_for(State.OPEN)


def test_a_change_with_which_it_does_not_start_is_taken_back(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    def prepare(wish: StreamRequest) -> None:
        if wish.hflip:  # it is configured, and closed again when it does not start
            scene.control_manager.on_configured(scene.camera.mode)
            scene.control_manager.on_closing()
            scene.camera.fail_next("open", CameraError("cannot start"))

    with scene.held.open():
        scene.change("image_processing", brightness=0.5)
        monkeypatch.setattr(scene.camera, "prepare", prepare)
        with pytest.raises(CameraError, match="cannot start"):
            scene.change("transform", hflip=True)
        assert scene.control_manager.asked.get("image_processing", "brightness") == 0.5
        assert not scene.control_manager.asked.has("transform")
        assert scene.store.set_aside_because is None
        scene.held.wait_for(State.OPEN)


def test_a_busy_camera_is_not_the_states_fault(scene: Scene) -> None:
    scene.change("transform", hflip=True)
    scene.camera.fail_next("open", CameraBusy("taken"))
    lease = scene.held.manager.lease("stream")
    scene.held.take_failure()
    lease.release()
    assert scene.store.set_aside_because is None


def test_a_kept_state_that_does_not_open_is_set_aside(scene: Scene, tmp_path: Path) -> None:
    scene.change("transform", hflip=True)
    scene.camera.fail_next("open", CameraError("broken by it"))
    with scene.held.manager.lease("stream"):
        scene.held.wait_for(State.OPEN)
        assert (
            scene.control_manager.troubles()["controls_set_aside"] == "the camera does not open with it: broken by it"
        )
        assert scene.camera.wishes[-1] == WISH
        assert not (tmp_path / "cam0.json.bad").exists(), "it may be that the camera gives nothing without it either"
        scene.camera.emit()
        eventually((tmp_path / "cam0.json.bad").exists, "it starts without it")
    assert scene.control_manager.troubles()["controls_set_aside"] == "the camera does not open with it: broken by it"


def test_a_state_stays_where_the_camera_fails_without_it_too(tmp_path: Path) -> None:
    scene = Scene(tmp_path, watchdog_timeout_s=0.1)
    with scene.held:
        scene.change("transform", hflip=True)
        lease = scene.held.manager.lease("stream")
        scene.held.take_failure()
        lease.release()
        assert [wish.hflip for wish in scene.camera.wishes] == [True, False]
    assert Store(tmp_path, "cam0").load().get("transform", "hflip") is True
    assert not (tmp_path / "cam0.json.bad").exists()


def test_what_ended_two_processes_is_judged_by_a_start_without_it(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    with scene.held:
        scene.change("transform", hflip=True)
    for starts_without in (False, True):
        for _ in range(2):
            Store(tmp_path, "cam0").begin_trial()
        scene = again(tmp_path)
        assert "did not start" in scene.control_manager.troubles()["controls_set_aside"]
        with scene.held, scene.held.manager.lease("stream"):
            scene.held.wait_for(State.OPEN)
            assert scene.camera.wishes == [WISH]
            if starts_without:
                scene.camera.emit()
                eventually((tmp_path / "cam0.json.bad").exists, "it was the state")
        assert (tmp_path / "cam0.json").exists() is not starts_without
        assert again_is_empty(tmp_path) is starts_without


def again_is_empty(folder: Path) -> bool:
    return Store(folder, "cam0").load().is_empty


def test_a_change_after_a_suspicion_takes_the_states_place(scene: Scene, tmp_path: Path) -> None:
    scene.change("transform", hflip=True)
    scene.camera.fail_next("open", CameraError("broken by it"))
    with scene.held.open():
        scene.change("image_processing", brightness=0.5)
    assert (tmp_path / "cam0.json.bad").exists()
    kept = Store(tmp_path, "cam0").load()
    assert set(kept.groups) == {"image_processing"}


def test_the_night_lays_its_profile_over_and_takes_it_back(scene: Scene) -> None:
    scene.change("image_processing", saturation=1.5)
    with scene.held.open():
        scene.change("day_night_mode", mode="night")
        assert scene.sent()["Saturation"] == 0.0
        scene.change("day_night_mode", mode="day")
        assert scene.sent() == {"Saturation": 1.5}


def test_an_opening_finds_out_by_itself_whether_it_is_night(scene: Scene) -> None:
    scene.change("day_night_mode", mode="auto", threshold_lux=10)
    assert scene.control_manager.scene(None) is None
    for lux, saturation, word in ((1.0, 0.0, "night"), (400.0, 1.0, "day"), (400.0, None, "day"), (1.0, 0.0, "night")):
        scene.sent()
        with scene.held.open():
            scene.sent()
            metadata = {**STEADY, "Lux": lux}
            asked_s = time.monotonic()
            waiting = Background(partial(scene.held.manager.wait_frame, asked_s, soon_s()))
            for _ in range(4):
                scene.camera.emit(metadata)
            assert scene.sent().get("Saturation") == saturation
            assert scene.control_manager.scene(lux) == word
            scene.camera.emit(metadata)
            if saturation is not None:  # it shows some frames later only
                assert not waiting.is_over
            for _ in range(16):
                scene.camera.emit(metadata)
            waiting.result().release()
        scene.held.wait_for(State.CLOSED)
        assert scene.control_manager.scene(None) is None, "a closed camera sees nothing"


def test_an_automatic_that_is_stopped_holds_what_it_had(scene: Scene, tmp_path: Path) -> None:
    with scene.held.open():
        for _ in range(6):
            scene.camera.emit({**STEADY, "ColourGains": (2.0, 1.5)})
        scene.change("auto_exposure", enabled=False)
        scene.change("awb", enabled=False)
        scene.camera.emit({**STEADY, "ColourGains": (2.0, 1.5)})
        assert scene.sent() == {
            "AeEnable": False, "ExposureTime": 1000, "AnalogueGain": 1.0, "AwbEnable": False, "ColourGains": (2.0, 1.5),
        }  # fmt: skip
        eventually(lambda: '"ColourGains"' in (tmp_path / "cam0.json").read_text(), "it is kept")


def test_focus_by_hand_and_back(scene: Scene) -> None:
    with scene.held.open():
        scene.change("lens_position", position=5.0)
        assert scene.sent() == {"AfMode": 0, "LensPosition": 5.0}
        scene.change("autofocus_mode", mode="continuous")
        assert scene.sent() == {"AfMode": 2}


# Set again


def test_what_was_given_back_and_is_set_again_is_sent_again(scene: Scene) -> None:
    with scene.held.open():
        for _ in range(3):
            scene.change("manual_awb", red_gain=1.5, blue_gain=1.8)
            assert scene.sent() == {"AwbEnable": False, "ColourGains": (1.5, 1.8)}
            scene.change("awb", enabled=True)
            # Gains of 0 are the automatic's: what is sent once more after a still must not fix the colours again.
            assert scene.sent() == {"AwbEnable": True, "ColourGains": (0.0, 0.0)}
        for _ in range(3):
            scene.change("lens_position", position=5.0)
            assert scene.sent() == {"AfMode": 0, "LensPosition": 5.0}
            scene.change("autofocus_mode", mode="continuous")
            assert scene.sent() == {"AfMode": 2}


def test_the_second_night_is_as_the_first(scene: Scene) -> None:
    with scene.held.open():
        for _ in range(3):
            scene.change("day_night_mode", mode="night", night_awb_preset="ir_850nm")
            assert scene.sent() == {"AwbEnable": False, "ColourGains": (1.05, 1.15), "Saturation": 0.0}
            scene.change("day_night_mode", mode="day")
            assert scene.sent() == {"AwbEnable": True, "ColourGains": (0.0, 0.0), "Saturation": 1.0}


# Focus

FOCUSED = {**STEADY, "AfState": 2, "LensPosition": 1.8}


@pytest.fixture
def focusing(tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(tmp_path, autofocus_timeout_s=60.0)
    with scene.held:
        yield scene


def end_of_cycle(scene: Scene) -> None:
    for _ in range(14):
        scene.camera.emit(FOCUSED)


def test_continuous_focus_of_a_stream_outlasts_the_users(focusing: Scene) -> None:
    with focusing.held.open():
        end_of_cycle(focusing)
        focusing.change("autofocus_mode", mode="continuous")
        focusing.control_manager.reset()
        end_of_cycle(focusing)
        assert focusing.held.manager.focus.mode is AfMode.CONTINUOUS


def test_a_lens_given_back_is_focused_once(focusing: Scene) -> None:
    with focusing.held.open():
        end_of_cycle(focusing)
        focusing.change("lens_position", position=5.0)
        focusing.control_manager.reset()
        end_of_cycle(focusing)
        assert focusing.sent()["AfTrigger"] == 0
        focusing.change("image_processing", brightness=0.1)
        end_of_cycle(focusing)
        assert focusing.sent() == {"Brightness": 0.1}


def test_a_users_mode_given_back_while_closed_starts_nothing(focusing: Scene) -> None:
    focusing.change("autofocus_mode", mode="auto")
    focusing.held.open().release()
    focusing.held.wait_for(State.CLOSED)
    focusing.control_manager.reset()
    focusing.sent()
    with focusing.held.manager.lease("snapshot"):
        focusing.held.wait_for(State.OPEN)
        focusing.camera.emit()
        assert focusing.sent() == {}


def test_a_manual_lens_stays_where_it_is_over_an_opening(scene: Scene, tmp_path: Path) -> None:
    with scene.held.open():
        scene.settle(FOCUSED)
        scene.change("autofocus_mode", mode="manual")
        scene.camera.emit({**FOCUSED, "AfState": 1, "LensPosition": 1.5})  # the lens still moves
        scene.camera.emit({**FOCUSED, "AfState": 0})
        assert scene.sent() == {"AfMode": 0, "LensPosition": 1.8}
        eventually(lambda: '"LensPosition"' in (tmp_path / "cam0.json").read_text(), "it is kept")
    scene.held.wait_for(State.CLOSED)
    with scene.held.open():
        assert scene.sent() == {"AfMode": 0, "LensPosition": 1.8}
        scene.change("autofocus_mode", mode="manual")
        scene.settle({**FOCUSED, "AfState": 0, "LensPosition": 3.0})
        assert scene.sent()["LensPosition"] == 3.0


def test_a_trigger_that_is_refused_changes_nothing(scene: Scene) -> None:
    scene.change("lens_position", position=5.0)
    with scene.held.open():
        scene.sent()
        with pytest.raises(NotSupported, match="by hand"):
            scene.change("autofocus", trigger=True, speed="fast")
        assert scene.sent() == {}
        assert not scene.control_manager.asked.has("autofocus")


# Automatics that are stopped


def test_an_automatic_is_held_when_its_values_are_known(scene: Scene) -> None:
    with scene.held.open():
        scene.settle()
        scene.change("awb", enabled=False)
        scene.camera.emit()  # tells no colours
        assert scene.sent() == {}
        scene.camera.emit({**STEADY, "ColourGains": (2.0, float("nan"))})
        assert scene.sent() == {}
        scene.camera.emit({**STEADY, "ColourGains": (2.0, 1.5)})
        assert scene.sent() == {"AwbEnable": False, "ColourGains": (2.0, 1.5)}


# What is kept


def again(folder: Path, **more: Any) -> Scene:
    """The next process."""
    return Scene(folder, **more)


def test_a_busy_camera_does_not_count_against_the_state(tmp_path: Path) -> None:
    for number in range(4):
        scene = again(tmp_path)
        if number:
            assert scene.control_manager.asked.get("image_processing", "brightness") == 0.5
        scene.camera.fail_next("open", CameraBusy("taken"))
        with scene.held:
            if not number:
                scene.change("image_processing", brightness=0.5)
            lease = scene.held.manager.lease("stream")
            scene.held.take_failure()
            lease.release()


def test_ends_before_the_first_frame_do_not_count_against_the_state(tmp_path: Path) -> None:
    scene = again(tmp_path)
    with scene.held:
        scene.change("image_processing", brightness=0.5)
    for _ in range(4):
        scene = again(tmp_path)
        assert scene.control_manager.asked.get("image_processing", "brightness") == 0.5
        with scene.held:
            lease = scene.held.manager.lease("stream")
            scene.held.wait_for(State.OPEN)
            lease.release()


def test_a_change_that_gives_no_frames_costs_only_itself(tmp_path: Path) -> None:
    scene = Scene(tmp_path, watchdog_timeout_s=0.3)
    is_over = threading.Event()

    def flow() -> None:
        while not is_over.wait(0.01):
            if not scene.camera.wishes or not scene.camera.wishes[-1].vflip:
                scene.camera.emit_if_open()

    with scene.held, Flow(flow, is_over), scene.held.open():
        scene.change("image_processing", brightness=0.5)
        scene.change("transform", hflip=True)
        frames = scene.held.manager.status().frames
        eventually(lambda: scene.held.manager.status().frames > frames, "it works")
        scene.change("transform", vflip=True)  # and no frame comes any more
        eventually(lambda: scene.store.set_aside_because, "the silence is laid to the change")
        assert scene.camera.opens == 4, "it was opened with what worked"
        asked = scene.control_manager.asked
        assert asked.get("image_processing", "brightness") == 0.5
        assert (asked.get("transform", "hflip"), asked.get("transform", "vflip")) == (True, False)
        assert scene.camera.wishes[-1].vflip is False
        assert "before" in str(scene.control_manager.troubles()["controls_set_aside"])
    kept = Store(tmp_path, "cam0").load()
    assert kept.get("image_processing", "brightness") == 0.5
    assert kept.get("transform", "vflip") is False


def test_a_change_while_closed_that_does_not_open_costs_only_itself(scene: Scene, tmp_path: Path) -> None:
    scene.change("image_processing", brightness=0.5)
    scene.held.open().release()
    scene.held.wait_for(State.CLOSED)
    scene.change("transform", hflip=True)
    scene.camera.fail_next("open", CameraError("broken by it"))
    with scene.held.open():
        assert scene.control_manager.asked.get("image_processing", "brightness") == 0.5
        assert scene.camera.wishes[-1] == WISH
    assert Store(tmp_path, "cam0").load().get("image_processing", "brightness") == 0.5


def test_a_state_is_set_aside_by_silence_also_where_nobody_stays(tmp_path: Path) -> None:
    scene = Scene(tmp_path, watchdog_timeout_s=0.2)
    with scene.held:
        scene.change("transform", hflip=True)
        lease = scene.held.manager.lease("stream")
        scene.held.wait_for(State.OPEN)
        scene.camera.shut("restart")
        scene.camera.wait_inside("restart")  # the silence is noticed, and everyone leaves
        lease.release()
        scene.camera.let()
        scene.held.wait_for(State.CLOSED)
        assert "no frames" in scene.control_manager.troubles()["controls_set_aside"]
        with scene.held.open():
            assert scene.camera.wishes[-1] == WISH
            scene.camera.emit()
            eventually(lambda: scene.store.set_aside_because, "the silence is laid to the state")


def test_no_frame_waits_for_the_disk(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    writers: list[str] = []
    end_trial = scene.store.end_trial

    def end() -> None:
        writers.append(threading.current_thread().name)
        end_trial()

    monkeypatch.setattr(scene.store, "end_trial", end)
    scene.change("image_processing", brightness=0.5)
    with scene.held.open():  # emits on this very thread
        eventually(lambda: writers, "the trial's end is written")
    assert threading.current_thread().name not in writers


def test_a_disk_that_hangs_holds_nothing_up(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper_module, "_LIMIT_S", 0.05)
    answers = threading.Event()

    def hang() -> None:
        answers.wait(60)

    scene.change("image_processing", brightness=0.5)
    monkeypatch.setattr(scene.store, "end_trial", hang)
    for _ in range(2):  # closed before a frame came, which ends the trial
        lease = scene.held.manager.lease("stream")
        scene.held.wait_for(State.OPEN)
        lease.release()
        scene.held.wait_for(State.CLOSED)
    with scene.held.open():
        scene.change("image_processing", brightness=0.7)
        assert scene.sent()["Brightness"] == 0.7
        assert "the disk of the state folder" in scene.control_manager.troubles()["controls_not_kept"]
        answers.set()
        eventually(lambda: scene.control_manager.troubles()["controls_not_kept"] is None, "it answers again")


# Threads


class Gate:
    """Holds the first call of one thread up, until it is let go."""

    def __init__(self, call: Callable[..., Any], thread: str) -> None:
        self._call = call
        self._thread = thread
        self.is_inside = threading.Event()
        self._may_go = threading.Event()

    def __call__(self, *arguments: Any, **more: Any) -> Any:
        if threading.current_thread().name == self._thread and not self.is_inside.is_set():
            self.is_inside.set()
            assert self._may_go.wait(10)
        return self._call(*arguments, **more)

    def let(self) -> None:
        self._may_go.set()


def test_a_change_while_the_camera_opens_is_not_lost(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(scene.camera.prepare, "camera")
    monkeypatch.setattr(scene.camera, "prepare", gate)
    lease = scene.held.manager.lease("stream")
    assert gate.is_inside.wait(10)
    changing = Background(lambda: scene.change("transform", hflip=True))
    eventually(lambda: scene.control_manager.asked.has("transform"), "it is asked")
    gate.let()
    changing.result()
    assert scene.camera.wishes[-1].hflip is True
    lease.release()


def test_of_two_senders_the_newer_value_stays(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(day_night, "_PATIENCE_S", 0.0)
    with scene.held.open():
        scene.change("day_night_mode", mode="auto", threshold_lux=10)
        scene.settle({**STEADY, "Lux": 400.0})
        scene.sent()
        gate = Gate(scene.camera.set_controls, "frame")
        monkeypatch.setattr(scene.camera, "set_controls", gate)
        frames = threading.Thread(target=lambda: [scene.camera.emit(DARK) for _ in range(3)], name="frame")
        frames.start()
        assert gate.is_inside.wait(10), "the night is about to be sent"
        changing = Background(lambda: scene.change("day_night_mode", mode="night", night_saturation=0.7))
        eventually(lambda: waiters(scene.control_manager._idle) == 1, "it waits for its turn")
        assert scene.sent() == {}
        gate.let()
        frames.join(10)
        changing.result()
        assert [controls["Saturation"] for controls in scene.camera.sent if "Saturation" in controls][-1] == 0.7


def test_a_late_send_does_not_take_the_lens_back(focusing: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(day_night, "_PATIENCE_S", 0.0)
    with focusing.held.open():
        end_of_cycle(focusing)
        focusing.change("day_night_mode", mode="auto", threshold_lux=10)
        focusing.settle({**FOCUSED, "Lux": 400.0})
        gate = Gate(focusing.camera.set_controls, "frame")
        monkeypatch.setattr(focusing.camera, "set_controls", gate)
        frames = threading.Thread(target=lambda: [focusing.camera.emit(DARK) for _ in range(3)], name="frame")
        frames.start()
        assert gate.is_inside.wait(10)
        changing = Background(lambda: focusing.change("lens_position", position=5.0))
        eventually(lambda: focusing.control_manager.asked.has("lens_position"), "it is asked")
        gate.let()
        frames.join(10)
        changing.result()
        assert [controls["AfMode"] for controls in focusing.camera.sent if "AfMode" in controls][-1] == 0
        assert focusing.held.manager.focus.mode is AfMode.MANUAL


def test_a_hold_and_a_change_at_once_keep_both(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    with scene.held.open():
        scene.settle()
        scene.change("auto_exposure", enabled=False)
        gate = Gate(steering_module.contradiction, "changing")
        monkeypatch.setattr(steering_module, "contradiction", gate)
        changing = threading.Thread(target=lambda: scene.change("image_processing", brightness=0.5), name="changing")
        changing.start()
        assert gate.is_inside.wait(10), "the change has read what was asked"
        holding = Background(lambda: scene.camera.emit())
        gate.let()
        changing.join(10)
        holding.result()
        asked = scene.control_manager.asked
        assert asked.held["auto_exposure"] == {"ExposureTime": 1000, "AnalogueGain": 1.0}
        assert asked.get("image_processing", "brightness") == 0.5


def test_a_change_does_not_wait_for_ever_for_another(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steering_module, "_TURN_LIMIT_S", 0.05)
    with scene.held.open():
        scene.camera.shut("close")
        first = Background(lambda: scene.change("transform", hflip=True))
        scene.camera.wait_inside("close")
        with pytest.raises(CameraError, match="another change"):
            scene.change("image_processing", brightness=0.5)
        with pytest.raises(CameraError, match="another change"):
            scene.control_manager.reset()
        scene.camera.let()
        first.result()


# What it gives is less than was asked


def test_a_rate_or_a_size_that_the_camera_does_not_give_is_told(scene: Scene) -> None:
    with scene.held.open():
        scene.change("stream", fps=240.0)
        assert scene.control_manager.troubles()["controls_not_applied"] == [
            "fps: the camera gives 100 at the most, as it is"
        ]
        scene.change("stream", fps=50.0, width=64)
        assert scene.control_manager.troubles()["controls_not_applied"] == ["width: the camera gives 32"]
        scene.control_manager.reset()
        assert scene.control_manager.troubles()["controls_not_applied"] == []


@pytest.mark.parametrize("has_modes", [True, False])
@pytest.mark.parametrize("word", ["single-exp", "auto"])
def test_hdr_of_single_exposures_takes_the_right_processor(tmp_path: Path, has_modes: bool, word: str) -> None:
    scene = Scene(tmp_path)
    scene.camera.mode = replace(scene.camera.mode, controls={**CONTROLS, "HdrMode": (0, 4, 0)}, has_hdr_modes=has_modes)
    with scene.held:
        scene.change("hdr", mode=word)  # nothing is known of the camera yet
        with scene.held.open():
            assert scene.sent() == ({"HdrMode": 3} if has_modes else {})
            assert bool(scene.control_manager.troubles()["controls_not_applied"]) is not has_modes
            scene.control_manager.reset()
            if has_modes:
                scene.change("hdr", mode=word)
            else:
                with pytest.raises(NotSupported, match="HDR"):
                    scene.change("hdr", mode=word)
