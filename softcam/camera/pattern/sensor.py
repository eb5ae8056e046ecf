"""The pattern camera's sensor: a model of a Camera Module 3, frame by frame, without a picture.

Exposure, gain, white balance and focus follow the controls and the scene as libcamera's do, slowly enough to be seen;
`shoot` returns how the next frame looks and its metadata. The pattern camera's thread calls everything here except
`advertise` and `normalise`, which have no state and may be called by any thread.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from softcam.camera.base import ControlRange
from softcam.camera.pattern.lens import FocusOutcome, Lens
from softcam.camera.session.autofocus_cycle import AfMode
from softcam.errors import NotSupported

Rectangle = tuple[int, int, int, int]  # x, y, width, height in pixels of the sensor

SENSOR_SIZE: Final = (4608, 2592)
CARD: Final[Rectangle] = (3404, 520, 816, 780)  # where the near card is in the scene

# As Picamera2 reports them for an imx708 in its 2304x1296 mode, which a stream of the whole view uses.
SHORTEST_EXPOSURE_US: Final = 13
_LONGEST_EXPOSURE_US: Final = 112_015_096
_SHORTEST_FRAME_US: Final = 17_849
_LONGEST_FRAME_US: Final = 112_017_136
_SMALLEST_GAIN: Final = 1.1228070259094238
_LARGEST_GAIN: Final = 16.0
_SMALLEST_CROP: Final = 128  # 64 pixels of a mode that reads every second one

_READOUT_US: Final = 300  # minimum frame duration beyond the exposure
_RIGHT_EXPOSURE_AT_1_LUX_US: Final = 9_000_000.0  # exposure times gain that shows the scene as it is
_USUAL_EXPOSURE_US: Final = (20_000, 5_000, 66_666, 20_000)  # by AeExposureMode: the gain is raised beyond it
_METERED: Final = (1.0, 0.8, 1.15, 1.0)  # by AeMeteringMode: the scene's middle is brighter than the rest
_CONSTRAINED: Final = (1.0, 0.8, 1.25, 1.0)  # by AeConstraintMode: normal, protect highlights, lift shadows
_START_OF_EXPOSURE: Final = 0.25  # brightness of the first frame after opening, as on a cold camera
_SCENE_COLOUR_TEMPERATURE: Final = 4600
_START_COLOUR_TEMPERATURE: Final = 3400

# By AwbMode: auto, incandescent, tungsten, fluorescent, indoor, daylight, cloudy, custom (kelvin).
_AWB_RANGES: Final = (
    (2500, 8000),
    (2500, 3000),
    (3000, 3500),
    (4000, 4700),
    (3000, 5000),
    (5500, 6500),
    (7000, 8500),
    (2500, 8000),
)
# The gains of red and blue that are right at these colour temperatures (kelvin).
_LIGHTS: Final = (2500, 3500, 4600, 5500, 6500, 8500)
_RED_GAINS: Final = (1.25, 1.65, 2.0, 2.2, 2.4, 2.65)
_BLUE_GAINS: Final = (3.1, 2.45, 2.0, 1.8, 1.62, 1.45)

_NOISE: Final = (1.6, 0.8, 0.4, 1.2, 0.8)  # by NoiseReductionMode: off, fast, high quality, minimal, zsl


@dataclass(frozen=True, slots=True)
class Scene:
    """What is in front of the camera: the light, a wall with a test card on it, and a small card closer to the lens."""

    lux: float = 400.0
    wall_dioptres: float = 1.8
    card_dioptres: float = 5.0
    focus: FocusOutcome = "sharp"


@dataclass(frozen=True, slots=True)
class Look:
    """All parameters of a frame's unmoving parts, so that equal looks are rendered once.

    `exposure`, `red` and `blue` are relative to the correct values; blurs are in dioptres from the focus; `crop` is in
    sensor pixels as the frame shows them: a mirrored frame is mirrored within it. `noise` is the standard deviation in
    levels. A lens that is not corrected distorts.
    """

    crop: Rectangle
    wall_blur: float
    card_blur: float
    exposure: float
    red: float
    blue: float
    brightness: float
    contrast: float
    saturation: float
    sharpness: float
    noise: float
    lifts_shadows: bool
    hflip: bool = False
    vflip: bool = False
    is_corrected: bool = True

    @property
    def seen(self) -> Rectangle:
        """The part of the scene that this crop shows: the opposite one where the frame is mirrored."""
        x, y, width, height = self.crop
        return (
            SENSOR_SIZE[0] - x - width if self.hflip else x,
            SENSOR_SIZE[1] - y - height if self.vflip else y,
            width,
            height,
        )


@dataclass(frozen=True, slots=True)
class Shot:
    """The parameters and the metadata of one frame."""

    look: Look
    exposure_us: int
    frame_duration_us: int
    metadata: Mapping[str, Any]


def fitting_crop(width: int, height: int) -> Rectangle:
    """Return the largest centred part of the sensor with the aspect ratio of width x height."""
    whole_width, whole_height = SENSOR_SIZE
    scale = min(whole_width / width, whole_height / height)
    crop_width, crop_height = round(width * scale) & ~1, round(height * scale) & ~1
    return (whole_width - crop_width) // 2, (whole_height - crop_height) // 2, crop_width, crop_height


def advertise(width: int, height: int) -> dict[str, ControlRange]:
    """Return the controls of a stream of width x height pixels in the form of Picamera2's `camera_controls`."""
    return {
        "AeConstraintMode": (0, 3, 0),
        "AeEnable": (False, True, True),
        "AeExposureMode": (0, 3, 0),
        "AeFlickerMode": (0, 1, 0),
        "AeFlickerPeriod": (100, 1_000_000, None),
        "AeMeteringMode": (0, 3, 0),
        "AfMetering": (0, 1, 0),
        "AfMode": (0, 2, 0),
        "AfPause": (0, 2, 0),
        "AfRange": (0, 2, 0),
        "AfSpeed": (0, 1, 0),
        "AfTrigger": (0, 1, 0),
        "AfWindows": ((0, 0, 0, 0), (65535, 65535, 65535, 65535), [(0, 0, 0, 0)]),
        "AnalogueGain": (_SMALLEST_GAIN, _LARGEST_GAIN, 1.0),
        "AwbEnable": (False, True, None),
        "AwbMode": (0, 7, 0),
        "Brightness": (-1.0, 1.0, 0.0),
        "ColourGains": (0.0, 32.0, None),
        "ColourTemperature": (100, 100_000, None),
        "Contrast": (0.0, 32.0, 1.0),
        "ExposureTime": (SHORTEST_EXPOSURE_US, _LONGEST_EXPOSURE_US, 20_000),
        "ExposureValue": (-8.0, 8.0, 0.0),
        "FrameDurationLimits": (_SHORTEST_FRAME_US, _LONGEST_FRAME_US, (33_333, 33_333)),
        "HdrMode": (0, 4, 0),
        "LensDewarpEnable": (False, True, True),  # not available on any Raspberry Pi; here so that it can be tried
        "LensPosition": (0.0, Lens.NEAREST_DIOPTRES, 1.0),
        "NoiseReductionMode": (0, 4, 0),
        "Saturation": (0.0, 32.0, 1.0),
        "ScalerCrop": ((0, 0, _SMALLEST_CROP, _SMALLEST_CROP), (0, 0, *SENSOR_SIZE), fitting_crop(width, height)),
        "Sharpness": (0.0, 16.0, 1.0),
    }


_ADVERTISED: Final = advertise(*SENSOR_SIZE)
_ZERO_IS_AUTOMATIC: Final = ("ExposureTime", "AnalogueGain")


def normalise(name: str, value: Any) -> Any:
    """Return the value in the sensor's type, clamped to the control's range as libcamera does.

    Raises NotSupported for an unknown name and for a value that cannot be converted.
    """
    if name not in _ADVERTISED:
        raise NotSupported(f"{name} is not a control of this camera")
    least, most, _ = _ADVERTISED[name]
    try:
        match name:
            case "ScalerCrop":
                return _clamp_crop(value)
            case "AfWindows":
                windows = [value] if isinstance(value[0], int) else value
                return tuple((int(x), int(y), int(width), int(height)) for x, y, width, height in windows)
            case "ColourGains" | "FrameDurationLimits":
                first, second = (min(max(type(least)(part), least), most) for part in value)
                return first, second
            case _:
                number = type(least)(value)
                if number != number:  # NaN passes any clamp
                    raise ValueError(name)
                if number == 0 and name in _ZERO_IS_AUTOMATIC:
                    return number
                return min(max(number, least), most)
    except (TypeError, ValueError, IndexError, OverflowError) as error:
        raise NotSupported(f"{name} cannot be {value!r}") from error


class Sensor:
    """The sensor's state between frames: `apply` sets controls, `shoot` advances it by one frame."""

    def __init__(
        self,
        width: int,
        height: int,
        fps: float,
        *,
        hflip: bool = False,
        vflip: bool = False,
        is_hdr: bool = False,
    ) -> None:
        frame_us = round(min(max(1e6 / fps, _SHORTEST_FRAME_US), _LONGEST_FRAME_US))
        self._values: dict[str, Any] = {
            **{name: default for name, (_, _, default) in _ADVERTISED.items()},
            "AeFlickerPeriod": 0,
            "AfWindows": (),
            "FrameDurationLimits": (frame_us, frame_us),
            "NoiseReductionMode": 1,  # Picamera2's choice for video
        }
        self._crop: Rectangle | None = None  # None: the largest with the frame's aspect ratio
        self._lens = Lens()
        self._exposure_us = 0.0  # 0 before the first frame
        self._gain = 1.0
        self._fixed_exposure_us = 0  # 0 is automatic, as in libcamera
        self._fixed_gain = 0.0
        self._auto_total_us = 0.0  # exposure times gain of the automatic exposure; 0 before the first frame
        self._settled_frames = 0
        self._colour_temperature = float(_START_COLOUR_TEMPERATURE)
        self._fixed_colour_gains: tuple[float, float] | None = None
        self._size = (width, height)
        self._flips = (hflip, vflip)
        self._is_hdr = is_hdr

    def apply(self, controls: Mapping[str, Any]) -> None:
        """Set normalised controls, from the next `shoot` on."""
        # The switches first: AeEnable and AfMode decide how the others are interpreted.
        for name in sorted(controls, key=lambda name: name not in ("AeEnable", "AwbEnable", "AfMode", "AfRange")):
            self._apply_one(name, controls[name])

    def _apply_one(self, name: str, value: Any) -> None:
        match name:
            case "AeEnable":
                self._fixed_exposure_us = 0 if value else round(self._exposure_us)
                self._fixed_gain = 0.0 if value else self._gain
            case "ExposureTime":
                self._fixed_exposure_us = value
            case "AnalogueGain":
                self._fixed_gain = value
            case "AwbEnable":
                self._fixed_colour_gains = None if value else self._colour_gains()
            case "ColourGains":
                self._fixed_colour_gains = value if all(value) else None
            case "ColourTemperature":
                # Unlike gains, it has an effect only while the automatic white balance is off.
                if self._fixed_colour_gains is not None:
                    self._colour_temperature = float(value)
                    self._fixed_colour_gains = _gains_under(value)
            case "ScalerCrop":
                self._crop = value
            case "AfMode":
                self._lens.set_mode(AfMode(value))
            case "AfTrigger":
                self._lens.trigger() if value == 0 else self._lens.cancel()
            case "AfPause":
                self._lens.pause(value)
            case "AfRange":
                self._lens.range = value
            case "AfSpeed":
                self._lens.speed = value
            case "LensPosition":
                self._lens.set_position(value)
            case _:
                self._values[name] = value

    def shoot(self, scene: Scene, size: tuple[int, int] | None = None, crop: Rectangle | None = None) -> Shot:
        """Advance the automatic controls and return the next frame, of `size` (width, height) or the stream's.

        `crop` overrides the one that was set.
        """
        values = self._values
        right_us = _RIGHT_EXPOSURE_AT_1_LUX_US / scene.lux
        least_us, most_us = values["FrameDurationLimits"]
        longest_us = max(SHORTEST_EXPOSURE_US, max(least_us, most_us) - _READOUT_US)
        ae_state = self._expose(right_us, min(longest_us, _LONGEST_EXPOSURE_US))
        self._balance()
        exposure_us = round(self._exposure_us)
        frame_us = max(least_us, exposure_us + _READOUT_US)

        focus_dioptres = self._metered_dioptres(scene)
        self._lens.step(frame_us / 1e6, focus_dioptres, scene.focus)
        lens_dioptres = self._lens.position_dioptres

        red, blue = self._colour_gains()
        right_red, right_blue = _gains_under(_SCENE_COLOUR_TEMPERATURE)
        crop = crop or self._crop or fitting_crop(*(size or self._size))
        look = Look(
            crop=crop,
            wall_blur=round(abs(lens_dioptres - scene.wall_dioptres), 2),
            card_blur=round(abs(lens_dioptres - scene.card_dioptres), 2),
            exposure=round(exposure_us * self._gain / right_us, 4),
            red=round(red / right_red, 3),
            blue=round(blue / right_blue, 3),
            brightness=values["Brightness"],
            contrast=values["Contrast"],
            saturation=values["Saturation"],
            sharpness=values["Sharpness"],
            noise=round(_NOISE[values["NoiseReductionMode"]] * math.sqrt(self._gain), 1),
            lifts_shadows=self._is_hdr or values["HdrMode"] != 0,
            hflip=self._flips[0],
            vflip=self._flips[1],
            is_corrected=values["LensDewarpEnable"],
        )
        sharpness_seen = 1 / (1 + (2 * abs(lens_dioptres - focus_dioptres)) ** 2)
        metadata = {
            "AeState": ae_state,
            "AfPauseState": int(self._lens.pause_state),
            "AfState": int(self._lens.state),
            "AnalogueGain": round(self._gain, 4),
            "ColourGains": (round(red, 4), round(blue, 4)),
            "ColourTemperature": round(self._colour_temperature),
            "DigitalGain": 1.0,
            "ExposureTime": exposure_us,
            "FocusFoM": round(900 + 24_000 * sharpness_seen * min(1.0, look.exposure)),
            "FrameDuration": frame_us,
            "LensDewarpEnable": values["LensDewarpEnable"],
            "LensPosition": round(lens_dioptres, 4),
            "Lux": scene.lux,
            "ScalerCrop": crop,
            "SensorBlackLevels": (4096, 4096, 4096, 4096),
            "SensorTemperature": 41.0,
        }
        return Shot(look, exposure_us, frame_us, metadata)

    def _expose(self, right_us: float, longest_us: float) -> int:
        """Advance the automatic exposure and return AeState: 0 idle, 1 searching, 2 converged."""
        values = self._values
        target_us = right_us * 2 ** values["ExposureValue"]
        target_us *= _METERED[values["AeMeteringMode"]] * _CONSTRAINED[values["AeConstraintMode"]]
        # A target out of the sensor's reach would never be converged on.
        target_us = min(max(target_us, SHORTEST_EXPOSURE_US * _SMALLEST_GAIN), longest_us * _LARGEST_GAIN)
        if self._auto_total_us == 0:
            self._auto_total_us = target_us * _START_OF_EXPOSURE
        stops = math.log2(target_us / self._auto_total_us)
        # Each frame halves the difference in stops; a very small one is closed at once.
        self._auto_total_us = target_us if abs(stops) < 0.02 else self._auto_total_us * 2 ** (stops / 2)
        self._settled_frames = self._settled_frames + 1 if abs(stops) < 0.1 else 0

        total_us = self._auto_total_us
        if self._fixed_exposure_us:
            exposure_us = float(self._fixed_exposure_us)
        elif self._fixed_gain:
            exposure_us = total_us / self._fixed_gain
        else:
            exposure_us = min(total_us / _SMALLEST_GAIN, _USUAL_EXPOSURE_US[values["AeExposureMode"]])
            exposure_us = max(exposure_us, total_us / _LARGEST_GAIN)
        period_us = values["AeFlickerPeriod"]
        if values["AeFlickerMode"] and period_us and exposure_us > period_us and not self._fixed_exposure_us:
            exposure_us -= exposure_us % period_us  # whole periods of the lamp, or bands would move through the picture
        self._exposure_us = min(max(exposure_us, SHORTEST_EXPOSURE_US), longest_us)
        gain = self._fixed_gain or total_us / self._exposure_us
        self._gain = min(max(gain, _SMALLEST_GAIN), _LARGEST_GAIN)
        if self._fixed_exposure_us and self._fixed_gain:
            return 0
        return 2 if self._settled_frames >= 2 else 1

    def _balance(self) -> None:
        """Advance the automatic white balance."""
        if self._fixed_colour_gains is not None:
            return
        lowest, highest = _AWB_RANGES[self._values["AwbMode"]]
        change = min(max(_SCENE_COLOUR_TEMPERATURE, lowest), highest) - self._colour_temperature
        self._colour_temperature += change if abs(change) < 20 else change * 0.4

    def _colour_gains(self) -> tuple[float, float]:
        return self._fixed_colour_gains or _gains_under(self._colour_temperature)

    def _metered_dioptres(self, scene: Scene) -> float:
        """Return the distance to focus on: the near card if the first window's middle is on it, or the wall."""
        windows: Sequence[Rectangle] = self._values["AfWindows"]
        if self._values["AfMetering"] == 1 and windows:
            x, y, width, height = windows[0]
            left, top, card_width, card_height = CARD
            if 0 <= x + width / 2 - left < card_width and 0 <= y + height / 2 - top < card_height:
                return scene.card_dioptres
        return scene.wall_dioptres


def _gains_under(colour_temperature: float) -> tuple[float, float]:
    red = np.interp(colour_temperature, _LIGHTS, _RED_GAINS)
    blue = np.interp(colour_temperature, _LIGHTS, _BLUE_GAINS)
    return float(red), float(blue)


def _clamp_crop(value: Any) -> Rectangle:
    x, y, width, height = (int(part) for part in value)
    width = min(max(width, _SMALLEST_CROP), SENSOR_SIZE[0])
    height = min(max(height, _SMALLEST_CROP), SENSOR_SIZE[1])
    return min(max(x, 0), SENSOR_SIZE[0] - width), min(max(y, 0), SENSOR_SIZE[1] - height), width, height
