"""`Settling`: from which frame of an opening on the camera is settled."""

from typing import Any

import pytest

from softcam.camera.session.sent_controls import CONTROL_FRAMES, SentControls
from softcam.camera.session.settling import Settling

STEADY = {"ExposureTime": 1000, "AnalogueGain": 1.0, "AeState": 2}


class Rig:
    def __init__(self, frame_s: float = 0.05) -> None:
        self.frame_s = frame_s
        self.sent = SentControls()
        self.settling = Settling(self.sent)
        self.now_s = 0.0
        self.begin()

    def begin(self) -> None:
        self.settling.reset()
        self.sent.clear()

    def frames(self, count: int, sends: dict[str, Any] | None = None, at: int | None = None, **metadata: Any) -> int:
        """How many until they count, at most `count`; `sends` is sent at the first one that is at rest.

        `metadata` is that of all of them, or of that `at` this place alone.
        """
        for number in range(1, count + 1):
            self.now_s += self.frame_s
            shown = {**STEADY, **(metadata if at in (None, number) else {})}
            if self.settling.is_exposure_settled(shown, self.now_s) and sends is not None:
                self.sent.record(sends, self.now_s)
                sends = None
            self.sent.count_frame()
            self.settling.process_frame(shown, self.now_s)
            if self.settling.is_settled:
                return number
        raise AssertionError("they never count")


def test_settled_without_controls() -> None:
    rig = Rig()
    assert rig.frames(10) == 4
    assert rig.frames(1) == 1
    rig.begin()
    assert rig.frames(10) == 4, "each opening anew"


@pytest.mark.parametrize(("frame_s", "frames"), [(0.01, 4), (0.05, 4), (0.1, 3), (0.2, 2), (0.9, 2)])
def test_settled_at_the_pace_of_the_camera(frame_s: float, frames: int) -> None:
    assert Rig(frame_s).frames(10) == frames


def test_exposure_has_to_be_stable() -> None:
    rig = Rig(0.2)
    for exposure_us in (500, 700, 900):
        with pytest.raises(AssertionError, match="never count"):
            rig.frames(1, ExposureTime=exposure_us)
    assert rig.frames(10) == 2


def test_settled_once_controls_are_visible() -> None:
    rig = Rig()
    assert CONTROL_FRAMES < rig.frames(40, {"Saturation": 0.0}) <= CONTROL_FRAMES + 8
    rig.begin()
    assert rig.frames(40, {"Contrast": 1.5}, Contrast=1.5) <= 8, "the metadata reports it"
    rig.begin()
    assert rig.frames(40, {"Contrast": 1.5}, at=7, Contrast=1.5) == 10, "reported once, as libcamera does"


def test_camera_without_metadata_is_settled() -> None:
    settling = Settling(SentControls())
    assert settling.is_exposure_settled({}, 0.0)
    settling.process_frame({}, 0.0)
    assert settling.is_settled
