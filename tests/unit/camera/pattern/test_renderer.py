"""The pattern camera's picture: what controls, focus and zoom change in it."""

import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from softcam.camera.base import StreamRequest
from softcam.camera.pattern.renderer import allocate, draw_background, draw_frame
from softcam.camera.pattern.sensor import (
    CARD,
    MODES,
    SENSOR_SIZE,
    Scene,
    Sensor,
    Shot,
    control_ranges,
    normalise_controls,
)
from softcam.camera.sensor_modes import Rectangle
from softcam.camera.session.autofocus_cycle import AfState
from tests.support.pattern_sensor import (
    HEIGHT,
    MODE,
    NEAR,
    ON_THE_CARD,
    REQUEST,
    WIDTH,
    detail,
    render,
    settled_sensor,
    shoot,
)
from tests.support.timeouts import TIMEOUT_FACTOR

# For every control: the controls that were set before, and the value that is set.
CHANGES: dict[str, tuple[dict[str, Any], Any]] = {
    "AeConstraintMode": ({}, 2),
    "AeEnable": ({"ExposureTime": 2000, "AnalogueGain": 2.0}, True),
    "AeExposureMode": ({}, 1),
    "AeFlickerMode": ({"AeFlickerPeriod": 8333}, 1),
    "AeFlickerPeriod": ({"AeFlickerMode": 1}, 8333),
    "AeMeteringMode": ({}, 1),
    "AfMetering": ({"AfMode": 2, "AfWindows": ON_THE_CARD}, 1),
    "AfMode": ({}, 2),
    "AfRange": ({"AfMode": 2}, 1),
    "AfSpeed": ({"AfMode": 2}, 1),
    "AfTrigger": ({"AfMode": 1}, 0),
    "AfWindows": ({"AfMode": 2, "AfMetering": 1}, ON_THE_CARD),
    "AnalogueGain": ({}, 4.0),
    "AwbEnable": ({"ColourGains": (1.2, 3.0)}, True),
    "AwbMode": ({}, 6),
    "Brightness": ({}, 0.3),
    "ColourGains": ({}, (3.0, 1.5)),
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


def test_table_has_every_control() -> None:
    assert set(CHANGES) == set(control_ranges((WIDTH, HEIGHT), MODE))


@pytest.mark.parametrize("name", sorted(CHANGES))
def test_every_control_changes_picture_or_metadata(name: str) -> None:
    before, value = CHANGES[name]

    def run(*, with_it: bool) -> tuple[list[Shot], Shot]:
        sensor = settled_sensor(**before)
        shoot(sensor, 3)
        if with_it:
            sensor.apply_controls(normalise_controls({name: value}))
        shots = shoot(sensor, 5) + shoot(sensor, 25, NEAR)
        return shots, shots[-1]

    with_it, last_with = run(with_it=True)
    without, last_without = run(with_it=False)
    looks_different = any(
        not np.array_equal(one, other) for one, other in zip(render(last_with), render(last_without), strict=True)
    )
    # The report of the control itself proves nothing.
    with_it_seen, without_seen = ([{**shot.metadata, name: None} for shot in shots] for shots in (with_it, without))
    assert looks_different or with_it_seen != without_seen


def test_exposure_converges_after_open() -> None:
    shots = shoot(Sensor(REQUEST, MODE), 20)
    brightness = [float(render(shot)[0].mean()) for shot in shots]
    assert brightness[0] < 0.8 * brightness[-1]
    assert brightness == sorted(brightness)
    seen = [shot.metadata["AeState"] for shot in shots]
    assert seen[0] == 1
    assert seen[-1] == 2
    assert seen == sorted(seen)
    assert shots[-1].look.exposure == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize(("exposure_us", "factor"), [(2000, 0.11), (10_000, 0.56), (40_000, 2.2)])
def test_manual_exposure(exposure_us: int, factor: float) -> None:
    sensor = settled_sensor(ExposureTime=exposure_us, AnalogueGain=1.25)
    shot = sensor.capture_shot(Scene())
    assert shot.metadata["ExposureTime"] == exposure_us
    assert shot.metadata["AnalogueGain"] == 1.25
    assert shot.metadata["AeState"] == 0
    assert shot.look.exposure == pytest.approx(factor, rel=0.02)
    usual = render(settled_sensor().capture_shot(Scene()))[0].mean()
    assert (render(shot)[0].mean() > usual) == (factor > 1)


def test_auto_exposure_converges_at_its_limits_in_the_dark() -> None:
    shot = shoot(settled_sensor(), 20, Scene(lux=1.0))[-1]
    assert shot.metadata["Lux"] == 1.0
    assert shot.metadata["AnalogueGain"] == 16.0
    assert shot.metadata["AeState"] == 2
    assert render(shot)[0].mean() < 0.7 * render(settled_sensor().capture_shot(Scene()))[0].mean()


def test_white_balance() -> None:
    first, *_, last = shoot(Sensor(REQUEST, MODE), 20)
    assert first.metadata["ColourTemperature"] < last.metadata["ColourTemperature"] == 4600
    neutral = render(last)
    red = render(settled_sensor(ColourGains=(4.0, 2.0)).capture_shot(Scene()))
    blue = render(settled_sensor(ColourGains=(2.0, 4.0)).capture_shot(Scene()))
    assert red[2].mean() > neutral[2].mean() + 3
    assert blue[1].mean() > neutral[1].mean() + 3


def test_saturation_brightness_and_contrast() -> None:
    usual = render(settled_sensor().capture_shot(Scene()))
    grey = render(settled_sensor(Saturation=0).capture_shot(Scene()))
    assert set(np.unique(grey[1])) == {128}
    assert render(settled_sensor(Brightness=0.2).capture_shot(Scene()))[0].mean() > usual[0].mean() + 20
    assert render(settled_sensor(Contrast=1.6).capture_shot(Scene()))[0].std() > usual[0].std() + 5


def test_zoom() -> None:
    whole = render(settled_sensor(LensPosition=1.8).capture_shot(Scene()))[0].astype(int)
    zoomed = render(settled_sensor(LensPosition=1.8, ScalerCrop=(0, 0, 2304, 1296)).capture_shot(Scene()))[0]
    quarter = whole[: HEIGHT // 2, : WIDTH // 2].repeat(2, axis=0).repeat(2, axis=1)
    left_of_the_clock = (slice(None), slice(0, WIDTH // 3))
    off = np.abs(zoomed - quarter)[left_of_the_clock].mean()
    assert off < 0.4 * np.abs(zoomed - whole)[left_of_the_clock].mean()


def test_manual_focus() -> None:
    sharp = settled_sensor(LensPosition=1.8).capture_shot(Scene())
    blurred = settled_sensor(LensPosition=9.0).capture_shot(Scene())
    assert sharp.metadata["LensPosition"] == 1.8
    assert sharp.metadata["AfState"] == AfState.IDLE
    assert detail(render(sharp)[0]) > 1.3 * detail(render(blurred)[0])
    assert sharp.metadata["FocusFoM"] > 5 * blurred.metadata["FocusFoM"]


def test_window_on_near_card() -> None:
    sensor = settled_sensor(AfMode=2, AfMetering=1, AfWindows=ON_THE_CARD)
    shot = shoot(sensor, 20)[-1]
    assert shot.metadata["LensPosition"] == pytest.approx(5.0)
    assert shot.look.card_blur == 0
    wall = shoot(settled_sensor(AfMode=2), 20)[-1]
    x, y, width, height = (part * WIDTH // SENSOR_SIZE[0] for part in CARD)
    window = (slice(y, y + height), slice(x, x + width))
    assert detail(render(shot)[0][window]) > detail(render(wall)[0][window])


@pytest.mark.parametrize(("hflip", "vflip"), [(True, False), (False, True), (True, True)])
@pytest.mark.parametrize("crop", [(0, 0, *SENSOR_SIZE), (2304, 1296, 2304, 1296)])
def test_flips(crop: Rectangle, hflip: bool, vflip: bool) -> None:
    look = settled_sensor(ScalerCrop=crop).capture_shot(Scene()).look
    x, y, width, height = crop
    seen = (SENSOR_SIZE[0] - x - width if hflip else x, SENSOR_SIZE[1] - y - height if vflip else y, width, height)
    plain = draw_background(WIDTH, HEIGHT, replace(look, crop=seen))[0]
    mirrored = plain[:: -1 if vflip else 1, :: -1 if hflip else 1]
    flipped = draw_background(WIDTH, HEIGHT, replace(look, hflip=hflip, vflip=vflip))[0].astype(int)
    off = np.abs(flipped - mirrored).mean()  # rounding may move an edge by a pixel
    assert off < 0.1 * np.abs(flipped - plain).mean()


def test_same_time_renders_same_frame() -> None:
    look = settled_sensor().capture_shot(Scene()).look
    background = draw_background(WIDTH, HEIGHT, look)
    frames = []
    for sequence, unix_s in ((1, 1000.0), (1, 1000.0), (2, 1000.05)):
        planes = allocate(WIDTH, HEIGHT)
        draw_frame(planes, background, look, sequence, unix_s)
        frames.append(planes[0])
    assert np.array_equal(frames[0], frames[1])
    assert 0 < (frames[0] != frames[2]).mean() < 0.2


def test_reused_buffer() -> None:
    """Nothing of an earlier frame remains in a buffer."""
    look = settled_sensor().capture_shot(Scene()).look
    background = draw_background(WIDTH, HEIGHT, look)
    reused = allocate(WIDTH, HEIGHT)
    for tenth in range(60):
        fresh = allocate(WIDTH, HEIGHT)
        for planes in (reused, fresh):
            draw_frame(planes, background, look, tenth, 1000 + tenth / 10)
        assert all(np.array_equal(one, other) for one, other in zip(reused, fresh, strict=True))


@pytest.mark.parametrize("size", [(32, 32), (34, 480), (640, 32), (640, 480), (300, 700)])
def test_sizes(size: tuple[int, int]) -> None:
    planes = render(Sensor(StreamRequest(*size, 20), MODES.choose_mode(size, 20)).capture_shot(Scene()), *size)
    assert planes[0].shape == (size[1], size[0])
    assert planes[0].std() > 5


@pytest.mark.parametrize("crop", [(0, 0, 128, 128), (4480, 2464, 128, 128), (3500, 600, 400, 225), (0, 0, 4608, 300)])
def test_crops(crop: Rectangle) -> None:
    shot = settled_sensor(ScalerCrop=crop, AfMode=2).capture_shot(Scene())
    assert shot.metadata["ScalerCrop"] == crop
    assert render(shot)[0].std() > 1


def test_unfocused_view_of_a_small_part() -> None:
    """It would spread each point over many widths of the image, which took minutes for a still."""
    look = settled_sensor(LensPosition=9.0).capture_shot(Scene()).look
    began_s = time.thread_time()
    y, _, _ = draw_background(*SENSOR_SIZE, replace(look, crop=(0, 0, SENSOR_SIZE[0] // 100, SENSOR_SIZE[1])))
    assert y.shape == (SENSOR_SIZE[1], SENSOR_SIZE[0])
    assert time.thread_time() - began_s < 5 * TIMEOUT_FACTOR  # half a second, of the processor
