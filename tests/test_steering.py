"""What a camera is told: after every opening, as a difference, by day and night; what it refuses is taken back."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from softcam.camera.base import StreamWish
from softcam.camera.holder import State
from softcam.camera.steering import Steering
from softcam.controls.state import Store
from softcam.controls.table import BY_NAME, BadValue
from softcam.errors import CameraBusy, CameraError, NotSupported
from tests.fakes import STEADY, FakeCamera, Held, eventually

WISH = StreamWish(32, 16, 20.0)
CONTROLS: Mapping[str, Any] = {
    "AeEnable": (False, True, True),
    "AfMode": (0, 2, 0),
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
        self.wishes: list[StreamWish] = []

    def prepare(self, wish: StreamWish) -> None:
        self.wishes.append(wish)


class Scene:
    """A holder with a steering, on a camera in the test's hand."""

    def __init__(self, folder: Path) -> None:
        self.camera = SteeredCamera()
        self.held = Held(self.camera, linger_s=0.0)
        self.store = Store(folder, "cam0")
        self.steering = Steering(self.held.holder, WISH, self.store)

    def change(self, name: str, **values: Any) -> None:
        self.steering.change(BY_NAME[name], BY_NAME[name].parse(values))

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
        scene.steering.reset()
        assert scene.sent() == {"Brightness": 0.0, "Contrast": 1.0}


def test_a_long_exposure_stretches_the_frames(scene: Scene) -> None:
    with scene.held.open():
        scene.change("manual_exposure", exposure_us=200_000)
        assert scene.sent()["FrameDurationLimits"] == (201_000, 201_000)
        scene.change("manual_exposure", exposure_us=9000)
        assert scene.sent()["FrameDurationLimits"] == (50_000, 50_000)


def test_a_zoom_keeps_the_shape(scene: Scene) -> None:
    with scene.held.open():
        scene.change("roi", x=0.5, y=0.5, width=0.5, height=0.25)
        assert scene.sent() == {"ScalerCrop": (32, 12, 32, 16)}
        assert scene.steering.still_controls(None) == {"ScalerCrop": (0, 0, 64, 32)}
        _, _, width, height = scene.steering.still_controls((16, 16))["ScalerCrop"]
        assert width == height
        scene.steering.reset()
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
        assert scene.steering.asked.is_empty


def test_what_it_refuses_to_take_is_taken_back(scene: Scene) -> None:
    with scene.held.open():
        scene.change("image_processing", brightness=0.5)
        scene.camera.control_error = CameraError("no")
        with pytest.raises(CameraError, match="no"):
            scene.change("image_processing", brightness=0.7)
        scene.camera.control_error = None
        assert scene.steering.asked.get("image_processing", "brightness") == 0.5


def test_lacking_while_closed_is_told_at_the_opening(scene: Scene) -> None:
    scene.change("image_processing", brightness=0.5, sharpness=2.0)
    with scene.held.open():
        assert scene.sent() == {"Brightness": 0.5}
        assert scene.steering.troubles()["controls_not_applied"] == ["this camera has no Sharpness"]


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
        assert scene.steering.asked.is_empty
        assert scene.camera.wishes[-1].hflip is False
        scene.held.wait_for(State.OPEN)


def test_a_busy_camera_is_not_the_states_fault(scene: Scene) -> None:
    scene.change("transform", hflip=True)
    scene.camera.fail_next("open", CameraBusy("taken"))
    lease = scene.held.holder.lease("stream")
    scene.held.take_failure()
    lease.release()
    assert scene.store.set_aside_because is None


def test_a_kept_state_that_does_not_open_is_set_aside(scene: Scene, tmp_path: Path) -> None:
    scene.change("transform", hflip=True)
    scene.camera.fail_next("open", CameraError("broken by it"))
    with scene.held.open():
        assert scene.steering.troubles()["controls_set_aside"] == "the camera does not open with it: broken by it"
        assert scene.camera.wishes[-1] == WISH
    assert (tmp_path / "cam0.json.bad").exists()


def test_the_night_lays_its_profile_over_and_takes_it_back(scene: Scene) -> None:
    scene.change("image_processing", saturation=1.5)
    with scene.held.open():
        scene.change("day_night_mode", mode="night")
        assert scene.sent()["Saturation"] == 0.0
        scene.change("day_night_mode", mode="day")
        assert scene.sent() == {"Saturation": 1.5}


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
