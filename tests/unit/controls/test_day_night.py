"""Day and night: patience, hysteresis, words."""

import pytest

from softcam.controls.day_night import DayNight, scene_of

FPS = 20


def feed(scene: DayNight, lux: float, seconds: float, from_s: float = 0.0) -> float:
    for frame in range(round(seconds * FPS)):
        scene.step(lux, from_s + frame / FPS)
    return from_s + seconds


def test_it_gets_dark_and_light_again() -> None:
    scene = DayNight(10.0, 2.0)
    now_s = feed(scene, 400, 5)
    assert not scene.is_night
    now_s = feed(scene, 5, 1.5, now_s)
    assert not scene.is_night  # a hand before the lens
    now_s = feed(scene, 5, 1.5, now_s)
    assert scene.is_night
    now_s = feed(scene, 15, 10, now_s)
    assert scene.is_night  # above the threshold, and below where it is day again
    now_s = feed(scene, 25, 1, now_s)
    now_s = feed(scene, 5, 1, now_s)
    feed(scene, 25, 1.5, now_s)
    assert scene.is_night  # headlights
    feed(scene, 25, 3, now_s + 1.5)
    assert not scene.is_night


def test_a_light_at_the_threshold_does_not_flap() -> None:
    scene = DayNight(10.0, 2.0)
    changes = 0
    for frame in range(60 * FPS):
        before = scene.is_night
        changes += scene.step(9.0 if frame // 70 % 2 else 11.0, frame / FPS) is not before
    assert changes <= 1


@pytest.mark.parametrize(
    ("lux", "is_night", "word"),
    [(400, False, "day"), (50, False, "day"), (49, False, "low_light"), (9, False, "low_light"), (9, True, "night"),
     (None, False, None), (None, True, "night")],
)  # fmt: skip
def test_words(lux: float | None, is_night: bool, word: str | None) -> None:
    assert scene_of(lux, 10.0, is_night=is_night) == word
