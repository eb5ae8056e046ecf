"""Day and night: delay, hysteresis, the mode of an opening, scenes; exposure limits within one opening."""

import pytest

from softcam.controls.day_night import Light
from softcam.controls.exposure_limits import Limits
from softcam.controls.schema import BY_NAME
from softcam.controls.state import RequestedControls

FPS = 20


def requested(**values: object) -> RequestedControls:
    return RequestedControls().with_values(BY_NAME["day_night_mode"], values)


def light(**values: object) -> Light:
    light = Light()
    light.configure(requested(**values))
    return light


def test_delay_and_hysteresis() -> None:
    automatic, now_s = light(mode="auto", threshold_lux=10.0, hysteresis=2.0), 0.0
    for lux, seconds, is_night, why in (
        (400, 5, False, "day"),
        (5, 1.5, False, "a hand in front of the lens"),
        (5, 1.5, True, "night"),
        (15, 10, True, "between the threshold and the start of the day"),
        (25, 1, True, "headlights"),
        (5, 1, True, "night"),
        (25, 1.5, True, "headlights again"),
        (25, 3, False, "day"),
    ):
        for _ in range(round(seconds * FPS)):
            automatic.process_metadata({"Lux": lux}, now_s)
            now_s += 1 / FPS
        assert automatic.is_night is is_night, why


def test_no_flapping_at_the_threshold() -> None:
    automatic = light(mode="auto", threshold_lux=10.0, hysteresis=2.0)
    lux = (9.0 if frame // 70 % 2 else 11.0 for frame in range(60 * FPS))
    changes = [automatic.process_metadata({"Lux": each}, frame / FPS) for frame, each in enumerate(lux)]
    assert sum(changes) <= 1


def test_opening_decides_without_delay() -> None:
    automatic = light(mode="auto", threshold_lux=10.0)
    for now_s, lux, is_night in ((0.0, 1.0, True), (100.0, 400.0, False), (200.0, 1.0, True)):
        automatic.reset()
        assert automatic.process_metadata({"Lux": lux}, now_s) is True
        assert automatic.is_night is is_night
    assert automatic.process_metadata({"Lux": 400.0}, 200.1) is False  # a running camera waits
    assert automatic.is_night


def test_change_before_a_pause_does_not_count() -> None:
    automatic = light(mode="auto", threshold_lux=10.0)
    automatic.reset()
    automatic.process_metadata({"Lux": 400.0}, 0.0)
    automatic.process_metadata({"Lux": 1.0}, 1.0)
    automatic.reset()
    automatic.process_metadata({"Lux": 400.0}, 100.0)
    assert automatic.process_metadata({"Lux": 1.0}, 101.0) is False
    assert not automatic.is_night


@pytest.mark.parametrize("mode", ["day", "night"])
def test_change_to_auto_decides_by_the_next_frame(mode: str) -> None:
    fixed = light(mode=mode, threshold_lux=10.0)
    fixed.reset()
    for lux, is_night in ((1.0, False), (400.0, True)):  # the light at the opening differs from that of hours later
        fixed.reset()
        fixed.process_metadata({"Lux": lux}, 0.0)
        fixed.configure(requested(mode="auto", threshold_lux=10.0))
        assert fixed.is_night is (mode == "night"), "no change before a frame"
        fixed.process_metadata({"Lux": 1.0 if is_night else 400.0}, 9000.0)
        assert fixed.is_night is is_night
        fixed.configure(requested(mode=mode))


def test_forced_night_does_not_count_for_the_hysteresis() -> None:
    fixed = light(mode="night", threshold_lux=10.0, hysteresis=2.0)
    fixed.configure(requested(mode="auto", threshold_lux=10.0, hysteresis=2.0))
    fixed.reset()  # the camera is opened
    assert fixed.process_metadata({"Lux": 15.0}, 0.0) is True
    assert not fixed.is_night


def test_measured_night_counts_for_the_hysteresis_of_the_next_opening() -> None:
    automatic = light(mode="auto", threshold_lux=10.0, hysteresis=2.0)
    for lux in (5.0, 15.0):
        automatic.reset()
        automatic.process_metadata({"Lux": lux}, 0.0)
        assert automatic.is_night


def test_new_threshold_does_not_end_the_night() -> None:
    automatic = light(mode="auto", threshold_lux=10.0)
    automatic.reset()
    automatic.process_metadata({"Lux": 1.0}, 0.0)
    automatic.configure(requested(mode="auto", threshold_lux=5.0))
    assert automatic.is_night


@pytest.mark.parametrize(
    ("mode", "lux", "scene"),
    [("auto", None, None), ("auto", 400.0, "day"), ("auto", 50.0, "day"), ("auto", 49.0, "low_light"),
     ("auto", 9.0, "low_light"), ("night", None, "night"), ("night", 9.0, "night"), ("night", 400.0, "night"),
     ("day", None, None), ("day", 1.0, "low_light")],
)  # fmt: skip
def test_scene(mode: str, lux: float | None, scene: str | None) -> None:
    assert light(mode=mode, threshold_lux=10.0).scene(lux) == scene


def test_exposure_limits_end_with_the_opening() -> None:
    automatic = light()
    assert automatic.controls == {}
    automatic.set_limits(Limits(max_exposure_us=5000), 1.0)
    assert automatic.process_metadata({"ExposureTime": 20_000, "AnalogueGain": 1.0}, 0.0) is True
    assert automatic.controls["ExposureTime"] == 5000
    automatic.reset()
    assert automatic.controls == {}
