"""What follows from the light: decided at once when the camera opens, and with patience after."""

import pytest

from softcam.controls.day_night import Light
from softcam.controls.exposure_limits import Limits
from softcam.controls.schema import BY_NAME
from softcam.controls.state import RequestedControls


def asked(**values: object) -> RequestedControls:
    return RequestedControls().with_values(BY_NAME["day_night_mode"], values)


def light(**values: object) -> Light:
    light = Light()
    light.ask(asked(**values))
    return light


def test_an_opening_decides_at_once_and_a_running_camera_does_not() -> None:
    automatic = light(mode="auto", threshold_lux=10.0)
    for now_s, lux, is_night in ((0.0, 1.0, True), (100.0, 400.0, False), (200.0, 1.0, True)):
        automatic.begin()
        assert automatic.step({"Lux": lux}, now_s) is True
        assert automatic.is_night is is_night
    assert automatic.step({"Lux": 400.0}, 200.1) is False  # a headlight, until it lasts
    assert automatic.is_night


def test_what_spoke_for_a_change_before_a_pause_does_not_after_it() -> None:
    automatic = light(mode="auto", threshold_lux=10.0)
    automatic.begin()
    automatic.step({"Lux": 400.0}, 0.0)
    automatic.step({"Lux": 1.0}, 1.0)
    automatic.begin()
    automatic.step({"Lux": 400.0}, 100.0)
    assert automatic.step({"Lux": 1.0}, 101.0) is False
    assert not automatic.is_night


@pytest.mark.parametrize("word", ["day", "night"])
def test_whoever_lets_the_light_decide_gets_that_of_now(word: str) -> None:
    by_hand = light(mode=word, threshold_lux=10.0)
    by_hand.begin()
    for lux, is_night in ((1.0, False), (400.0, True)):  # what it saw when it was opened, and hours later
        by_hand.begin()
        by_hand.step({"Lux": lux}, 0.0)
        by_hand.ask(asked(mode="auto", threshold_lux=10.0))
        assert by_hand.is_night is (word == "night"), "no change before it has looked"
        by_hand.step({"Lux": 1.0 if is_night else 400.0}, 9000.0)
        assert by_hand.is_night is is_night
        by_hand.ask(asked(mode=word))


def test_another_threshold_does_not_end_the_night() -> None:
    automatic = light(mode="auto", threshold_lux=10.0)
    automatic.begin()
    automatic.step({"Lux": 1.0}, 0.0)
    automatic.ask(asked(mode="auto", threshold_lux=5.0))
    assert automatic.is_night


@pytest.mark.parametrize(
    ("mode", "lux", "word"),
    [("auto", None, None), ("auto", 400.0, "day"), ("night", None, "night"), ("night", 400.0, "night"),
     ("day", None, None), ("day", 1.0, "low_light")],
)  # fmt: skip
def test_the_scene_of_who_sees_nothing_is_not_known(mode: str, lux: float | None, word: str | None) -> None:
    assert light(mode=mode).scene(lux) == word


def test_limits_count_for_one_opening() -> None:
    automatic = light()
    assert automatic.controls == {}
    automatic.limit(Limits(max_exposure_us=5000), 1.0)
    assert automatic.step({"ExposureTime": 20_000, "AnalogueGain": 1.0}, 0.0) is True
    assert automatic.controls["ExposureTime"] == 5000
    automatic.begin()
    assert automatic.controls == {}
