"""The pattern camera's sensor, lens and painter, with no thread and no clock."""

import math
from typing import Any

import numpy as np
import pytest

from softcam.camera.pattern.lens import AfState
from softcam.camera.pattern.renderer import Painter
from softcam.camera.pattern.sensor import (
    CARD,
    SENSOR_SIZE,
    Scene,
    Sensor,
    Shot,
    advertise,
    fitting_crop,
    normalise,
)
from softcam.errors import NotSupported

WIDTH, HEIGHT, FPS = 256, 144, 20
NEAR = Scene(wall_dioptres=2.6)
ON_THE_CARD = [(CARD[0] + 100, CARD[1] + 100, 200, 200)]

# For every control: what holds already, and what is then set.
CHANGES: dict[str, tuple[dict[str, Any], Any]] = {
    "AeConstraintMode": ({}, 1),
    "AeEnable": ({"ExposureTime": 2000, "AnalogueGain": 2.0}, True),
    "AeExposureMode": ({}, 1),
    "AeFlickerMode": ({"AeFlickerPeriod": 8333}, 1),
    "AeFlickerPeriod": ({"AeFlickerMode": 1}, 8333),
    "AeMeteringMode": ({}, 1),
    "AfMetering": ({"AfMode": 2, "AfWindows": ON_THE_CARD}, 1),
    "AfMode": ({}, 2),
    "AfPause": ({"AfMode": 2}, 0),
    "AfRange": ({"AfMode": 2}, 1),
    "AfSpeed": ({"AfMode": 2}, 1),
    "AfTrigger": ({"AfMode": 1}, 0),
    "AfWindows": ({"AfMode": 2, "AfMetering": 1}, ON_THE_CARD),
    "AnalogueGain": ({}, 4.0),
    "AwbEnable": ({"ColourGains": (1.2, 3.0)}, True),
    "AwbMode": ({}, 6),
    "Brightness": ({}, 0.3),
    "ColourGains": ({}, (3.0, 1.5)),
    "ColourTemperature": ({"AwbEnable": False}, 8000),
    "Contrast": ({}, 1.5),
    "ExposureTime": ({}, 5000),
    "ExposureValue": ({}, -1.0),
    "FrameDurationLimits": ({}, (100_000, 100_000)),
    "HdrMode": ({}, 1),
    "LensDewarpEnable": ({}, False),
    "LensPosition": ({"AfMode": 0}, 8.0),
    "NoiseReductionMode": ({"AnalogueGain": 8.0}, 2),
    "Saturation": ({}, 0.0),
    "ScalerCrop": ({}, (1000, 500, 2304, 1296)),
    "Sharpness": ({}, 4.0),
}


def orders(controls: dict[str, Any]) -> dict[str, Any]:
    return {name: normalise(name, value) for name, value in controls.items()}


def shoot(sensor: Sensor, frames: int, scene: Scene | None = None) -> list[Shot]:
    return [sensor.shoot(scene or Scene()) for _ in range(frames)]


def opened(**controls: Any) -> Sensor:
    """A sensor that has settled."""
    sensor = Sensor(WIDTH, HEIGHT, FPS)
    shoot(sensor, 20)
    sensor.apply(orders(controls))
    return sensor


def picture(shot: Shot, width: int = WIDTH, height: int = HEIGHT) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    half = (height // 2, width // 2)
    planes = (np.empty((height, width), np.uint8), np.empty(half, np.uint8), np.empty(half, np.uint8))
    Painter().paint(planes, shot.look, 7, 1_700_000_000.25)
    return planes


def detail(plane: np.ndarray) -> float:
    return float(np.abs(np.diff(plane.astype(np.int16), axis=1)).mean())


def states(shots: list[Shot]) -> list[int]:
    """The AfState of the frames, repetitions left out."""
    seen = [shot.metadata["AfState"] for shot in shots]
    return [state for place, state in enumerate(seen) if place == 0 or state != seen[place - 1]]


# Controls


def test_every_control_is_tried_below():
    assert set(CHANGES) == set(advertise(WIDTH, HEIGHT))


@pytest.mark.parametrize("name", sorted(CHANGES))
def test_every_control_changes_picture_or_metadata(name):
    before, value = CHANGES[name]

    def run(with_it: bool) -> tuple[list[Shot], Shot]:
        sensor = opened(**before)
        shoot(sensor, 3)
        if with_it:
            sensor.apply(orders({name: value}))
        shots = shoot(sensor, 5) + shoot(sensor, 25, NEAR)
        return shots, shots[-1]

    with_it, last_with = run(True)
    without, last_without = run(False)
    looks_different = any(
        not np.array_equal(one, other) for one, other in zip(picture(last_with), picture(last_without), strict=True)
    )
    assert looks_different or [s.metadata for s in with_it] != [s.metadata for s in without]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Zoom", 1),
        ("Brightness", "bright"),
        ("Brightness", math.nan),
        ("ExposureTime", None),
        ("ExposureTime", math.inf),
        ("ScalerCrop", (0, 0, 10)),
        ("ColourGains", 3.0),
        ("FrameDurationLimits", (1, 2, 3)),
        ("AfWindows", []),
    ],
)
def test_fail_normalise(name, value):
    with pytest.raises(NotSupported, match=name):
        normalise(name, value)


@pytest.mark.parametrize(
    ("name", "value", "taken"),
    [
        ("Brightness", 7, 1.0),
        ("ExposureTime", 0, 0),  # hand back to the automatic
        ("ExposureTime", 1, 13),
        ("AnalogueGain", 0, 0.0),
        ("AnalogueGain", 100, 16.0),
        ("LensPosition", 99, 15.0),
        ("FrameDurationLimits", (1, 6_000_000), (17_849, 6_000_000)),
        ("ScalerCrop", (4000, 2000, 2304, 1296), (2304, 1296, 2304, 1296)),
        ("ScalerCrop", (-5, 0, 1, 1), (0, 0, 128, 128)),
        ("AfWindows", (1, 2, 3, 4), ((1, 2, 3, 4),)),
        ("AfMode", 2, 2),
    ],
)
def test_ok_normalise(name, value, taken):
    assert normalise(name, value) == taken


def test_default_crop_has_the_shape_of_the_picture():
    assert fitting_crop(1536, 864) == (0, 0, *SENSOR_SIZE)
    assert fitting_crop(640, 480) == (576, 0, 3456, 2592)
    assert advertise(640, 480)["ScalerCrop"][2] == (576, 0, 3456, 2592)


# Exposure and colour


def test_exposure_converges_after_open():
    shots = shoot(Sensor(WIDTH, HEIGHT, FPS), 20)
    brightness = [float(picture(shot)[0].mean()) for shot in shots]
    assert brightness[0] < 0.8 * brightness[-1]
    assert brightness == sorted(brightness)
    seen = [shot.metadata["AeState"] for shot in shots]
    assert seen[0] == 1
    assert seen[-1] == 2
    assert seen == sorted(seen)
    assert shots[-1].look.exposure == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize(("exposure_us", "factor"), [(2000, 0.11), (10_000, 0.56), (40_000, 2.2)])
def test_exposure_time_and_gain_are_exact_and_shown(exposure_us, factor):
    sensor = opened(ExposureTime=exposure_us, AnalogueGain=1.25)
    shot = sensor.shoot(Scene())
    assert shot.metadata["ExposureTime"] == exposure_us
    assert shot.metadata["AnalogueGain"] == 1.25
    assert shot.metadata["AeState"] == 0
    assert shot.look.exposure == pytest.approx(factor, rel=0.02)
    usual = picture(opened().shoot(Scene()))[0].mean()
    assert (picture(shot)[0].mean() > usual) == (factor > 1)


def test_a_fixed_exposure_alone_leaves_the_gain_automatic():
    sensor = opened(ExposureTime=5000)
    shot = shoot(sensor, 10)[-1]
    assert shot.metadata["AnalogueGain"] == pytest.approx(4.5, rel=0.02)
    assert shot.look.exposure == pytest.approx(1, abs=0.01)
    sensor.apply(orders({"ExposureTime": 0}))
    assert shoot(sensor, 5)[-1].metadata["ExposureTime"] > 15_000


def test_ae_off_holds_what_it_had_come_to():
    sensor = opened()
    settled = sensor.shoot(Scene()).metadata
    sensor.apply({"AeEnable": False})
    dark = shoot(sensor, 10, Scene(lux=20))[-1]
    assert dark.metadata["ExposureTime"] == settled["ExposureTime"]
    assert dark.metadata["AnalogueGain"] == pytest.approx(settled["AnalogueGain"], rel=1e-3)
    assert dark.look.exposure < 0.1


def test_in_the_dark_the_automatic_reaches_its_limits_and_says_that_it_has_converged():
    shot = shoot(opened(), 20, Scene(lux=1.0))[-1]
    assert shot.metadata["Lux"] == 1.0
    assert shot.metadata["AnalogueGain"] == 16.0
    assert shot.metadata["AeState"] == 2
    assert picture(shot)[0].mean() < 0.7 * picture(opened().shoot(Scene()))[0].mean()


def test_frame_duration_limits_bound_exposure_and_rate():
    sensor = opened(ExposureTime=6_000_000)
    clamped = sensor.shoot(Scene())
    assert clamped.metadata["FrameDuration"] == 50_000
    assert 45_000 < clamped.metadata["ExposureTime"] < 50_000
    sensor.apply(orders({"FrameDurationLimits": (33_333, 10_000_000)}))
    slow = sensor.shoot(Scene())
    assert slow.metadata["ExposureTime"] == 6_000_000
    assert slow.metadata["FrameDuration"] >= 6_000_000
    sensor.apply(orders({"ExposureTime": 1000}))
    assert sensor.shoot(Scene()).metadata["FrameDuration"] == 33_333


def test_white_balance_converges_and_gains_tint():
    first, *_, last = shoot(Sensor(WIDTH, HEIGHT, FPS), 20)
    assert first.metadata["ColourTemperature"] < last.metadata["ColourTemperature"] == 4600
    neutral = picture(last)
    red = picture(opened(ColourGains=(4.0, 2.0)).shoot(Scene()))
    blue = picture(opened(ColourGains=(2.0, 4.0)).shoot(Scene()))
    assert red[2].mean() > neutral[2].mean() + 3
    assert blue[1].mean() > neutral[1].mean() + 3


def test_saturation_brightness_and_contrast_show():
    usual = picture(opened().shoot(Scene()))
    grey = picture(opened(Saturation=0).shoot(Scene()))
    assert set(np.unique(grey[1])) == {128}
    assert picture(opened(Brightness=0.2).shoot(Scene()))[0].mean() > usual[0].mean() + 20
    assert picture(opened(Contrast=1.6).shoot(Scene()))[0].std() > usual[0].std() + 5


def test_crop_zooms():
    whole = picture(opened(LensPosition=1.8).shoot(Scene()))[0].astype(int)
    zoomed = picture(opened(LensPosition=1.8, ScalerCrop=(0, 0, 2304, 1296)).shoot(Scene()))[0]
    quarter = whole[: HEIGHT // 2, : WIDTH // 2].repeat(2, axis=0).repeat(2, axis=1)
    left_of_the_clock = (slice(None), slice(0, WIDTH // 3))
    off = np.abs(zoomed - quarter)[left_of_the_clock].mean()
    assert off < 0.4 * np.abs(zoomed - whole)[left_of_the_clock].mean()


# Focus


def test_manual_position_blurs_and_sharpens():
    sharp = opened(LensPosition=1.8).shoot(Scene())
    blurred = opened(LensPosition=9.0).shoot(Scene())
    assert sharp.metadata["LensPosition"] == 1.8
    assert sharp.metadata["AfState"] == AfState.IDLE
    assert detail(picture(sharp)[0]) > 1.3 * detail(picture(blurred)[0])
    assert sharp.metadata["FocusFoM"] > 5 * blurred.metadata["FocusFoM"]


def test_position_is_honoured_in_manual_mode_only():
    sensor = opened(AfMode=1)
    sensor.apply(orders({"LensPosition": 9.0}))
    assert sensor.shoot(Scene()).metadata["LensPosition"] == 1.0
    sensor.apply(orders({"LensPosition": 9.0, "AfMode": 0}))
    assert sensor.shoot(Scene()).metadata["LensPosition"] == 9.0


def test_one_scan_moves_the_lens_and_ends_focused():
    sensor = opened(AfMode=1)
    assert states(shoot(sensor, 5)) == [AfState.IDLE]
    sensor.apply({"AfTrigger": 0})
    shots = shoot(sensor, 20)
    assert states(shots) == [AfState.SCANNING, AfState.FOCUSED]
    scanning = [shot for shot in shots if shot.metadata["AfState"] == AfState.SCANNING]
    assert 6 <= len(scanning) <= 12  # 0.4 s at 20 fps
    assert len({shot.metadata["LensPosition"] for shot in scanning}) >= 6
    assert shots[-1].metadata["LensPosition"] == pytest.approx(1.8)
    assert shots[-1].metadata["FocusFoM"] > 2 * shots[0].metadata["FocusFoM"]


@pytest.mark.parametrize(
    ("scene", "controls"),
    [(Scene(focus="never"), {}), (Scene(), {"AfRange": 1}), (Scene(wall_dioptres=14), {"AfRange": 0})],
    ids=["told to", "nearer than macro", "beyond normal"],
)
def test_a_scan_that_finds_nothing_fails(scene, controls):
    sensor = opened(AfMode=1, AfTrigger=0, **controls)
    assert states(shoot(sensor, 20, scene)) == [AfState.SCANNING, AfState.FAILED]


def test_a_scan_may_never_end_and_can_be_cancelled():
    sensor = opened(AfMode=1, AfTrigger=0)
    shots = shoot(sensor, 200, Scene(focus="endless"))
    assert states(shots) == [AfState.SCANNING]
    assert len({shot.metadata["LensPosition"] for shot in shots[100:]}) > 5
    sensor.apply({"AfTrigger": 1})
    assert states(shoot(sensor, 5, Scene(focus="endless"))) == [AfState.IDLE]


def test_after_a_failure_the_next_scan_may_succeed():
    sensor = opened(AfMode=1, AfTrigger=0)
    shoot(sensor, 20, Scene(focus="never"))
    sensor.apply({"AfTrigger": 0})
    assert states(shoot(sensor, 20)) == [AfState.SCANNING, AfState.FOCUSED]


def test_continuous_focus_follows_the_scene():
    sensor = opened(AfMode=2)
    assert states(shoot(sensor, 20)) == [AfState.SCANNING, AfState.FOCUSED]
    assert states(shoot(sensor, 20)) == [AfState.FOCUSED]
    shots = shoot(sensor, 20, NEAR)
    assert states(shots) == [AfState.SCANNING, AfState.FOCUSED]
    assert shots[-1].metadata["LensPosition"] == pytest.approx(2.6)


def test_continuous_focus_can_be_paused():
    sensor = opened(AfMode=2)
    shoot(sensor, 20)
    sensor.apply({"AfPause": 0})
    paused = shoot(sensor, 10, NEAR)
    assert states(paused) == [AfState.FOCUSED]
    assert paused[-1].metadata["AfPauseState"] == 2
    sensor.apply({"AfPause": 2})
    assert states(shoot(sensor, 20, NEAR)) == [AfState.SCANNING, AfState.FOCUSED]


def test_a_deferred_pause_waits_for_the_scan():
    sensor = opened(AfMode=2)
    shoot(sensor, 2)
    sensor.apply({"AfPause": 1})
    shots = shoot(sensor, 20)
    assert shots[0].metadata["AfPauseState"] == 1
    assert shots[-1].metadata["AfPauseState"] == 2
    assert shots[-1].metadata["AfState"] == AfState.FOCUSED


def test_leaving_continuous_focus_for_manual_is_idle():
    sensor = opened(AfMode=2)
    shoot(sensor, 3)
    sensor.apply({"AfMode": 0})
    assert states(shoot(sensor, 3)) == [AfState.IDLE]


def test_a_window_on_the_near_card_focuses_it():
    sensor = opened(AfMode=2, AfMetering=1, AfWindows=ON_THE_CARD)
    shot = shoot(sensor, 20)[-1]
    assert shot.metadata["LensPosition"] == pytest.approx(5.0)
    assert shot.look.card_blur == 0
    wall = shoot(opened(AfMode=2), 20)[-1]
    x, y, width, height = (part * WIDTH // SENSOR_SIZE[0] for part in CARD)
    window = (slice(y, y + height), slice(x, x + width))
    assert detail(picture(shot)[0][window]) > detail(picture(wall)[0][window])


# Drawing


def test_equal_moments_give_equal_pictures_and_others_differ_little():
    shot = opened().shoot(Scene())
    painter = Painter()
    half = (HEIGHT // 2, WIDTH // 2)
    pictures = []
    for sequence, unix_s in ((1, 1000.0), (1, 1000.0), (2, 1000.05)):
        planes = (np.empty((HEIGHT, WIDTH), np.uint8), np.empty(half, np.uint8), np.empty(half, np.uint8))
        painter.paint(planes, shot.look, sequence, unix_s)
        pictures.append(planes[0])
    assert np.array_equal(pictures[0], pictures[1])
    changed = (pictures[0] != pictures[2]).mean()
    assert 0 < changed < 0.2


@pytest.mark.parametrize("size", [(32, 32), (34, 480), (640, 32), (640, 480), (300, 700)])
def test_every_size_can_be_drawn(size):
    sensor = Sensor(*size, FPS)
    planes = picture(sensor.shoot(Scene()), *size)
    assert planes[0].shape == (size[1], size[0])
    assert planes[0].std() > 5


@pytest.mark.parametrize("crop", [(0, 0, 128, 128), (4480, 2464, 128, 128), (3500, 600, 400, 225), (0, 0, 4608, 300)])
def test_every_crop_can_be_drawn(crop):
    shot = opened(ScalerCrop=crop, AfMode=2).shoot(Scene())
    assert shot.metadata["ScalerCrop"] == crop
    assert picture(shot)[0].std() > 1


def test_padded_rows_are_left_alone():
    shot = opened().shoot(Scene())
    block = np.full((HEIGHT, WIDTH + 64), 77, np.uint8)
    _, u, v = picture(shot)
    Painter().paint((block[:, :WIDTH], u, v), shot.look, 7, 1_700_000_000.25)
    assert (block[:, WIDTH:] == 77).all()
    assert np.array_equal(block[:, :WIDTH], picture(shot)[0])
