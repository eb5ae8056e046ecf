"""For tests of the pattern camera's sensor, lens and renderer: without a thread and without a clock."""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from softcam.camera.base import StreamRequest
from softcam.camera.pattern.renderer import Planes, allocate, draw_background, draw_frame
from softcam.camera.pattern.sensor import CARD, MODES, Scene, Sensor, Shot, normalise_controls

WIDTH, HEIGHT = 256, 144
REQUEST: Final = StreamRequest(WIDTH, HEIGHT, 20)
MODE: Final = MODES.choose_mode((WIDTH, HEIGHT), 20)
NEAR: Final = Scene(wall_dioptres=2.6)
ON_THE_CARD: Final = [(CARD[0] + 100, CARD[1] + 100, 200, 200)]


def shoot(sensor: Sensor, frames: int, scene: Scene | None = None) -> list[Shot]:
    return [sensor.capture_shot(scene or Scene()) for _ in range(frames)]


def settled_sensor(**controls: Any) -> Sensor:
    """A sensor with settled exposure and white balance, and these controls just set."""
    sensor = Sensor(REQUEST, MODE)
    shoot(sensor, 20)
    sensor.apply_controls(normalise_controls(controls))
    return sensor


def render(shot: Shot, width: int = WIDTH, height: int = HEIGHT, unix_s: float = 1_700_000_000.25) -> Planes:
    planes = allocate(width, height)
    draw_frame(planes, draw_background(width, height, shot.look), shot.look, 7, unix_s)
    return planes


def detail(plane: npt.NDArray[np.uint8]) -> float:
    """The mean difference of neighbouring pixels, which falls out of focus."""
    return float(np.abs(np.diff(plane.astype(np.int16), axis=1)).mean())
