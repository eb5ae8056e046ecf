"""The pattern camera's sensor: a model of a Camera Module 3, frame by frame, without drawing.

Exposure, gain, white balance and focus follow the controls and the scene as libcamera's do, slowly enough to be seen;
`capture_shot` returns how the next frame looks and its metadata. The pattern camera's thread calls everything here
except `control_ranges` and `normalise_controls`, which have no state and may be called by any thread.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from softcam.camera.base import ControlRange, StreamRequest
from softcam.camera.pattern.lens import NEAREST_DIOPTRES, FocusOutcome, Lens
from softcam.camera.sensor_modes import Rectangle, SensorMode, SensorModes, Size
from softcam.errors import NotSupported

SENSOR_SIZE: Final = (4608, 2592)
CARD: Final[Rectangle] = (3404, 520, 816, 780)  # where the near card is in the scene
_CARD_DIOPTRES: Final = 5.0

# As Picamera2 reports them for an imx708: its modes, those of its HDR, and their limits.
_WHOLE: Final = (0, 0, *SENSOR_SIZE)
_BINNED: Final = SensorMode((2304, 1296), 10, 56.03, _WHOLE)
MODES: Final = SensorModes(
    SENSOR_SIZE,
    (SensorMode((1536, 864), 10, 120.13, (768, 432, 3072, 1728)), _BINNED, SensorMode(SENSOR_SIZE, 10, 14.35, _WHOLE)),
)
HDR_MODES: Final = SensorModes(SENSOR_SIZE, (SensorMode((2304, 1296), 10, 30.0, _WHOLE),))
_SHORTEST_EXPOSURE_US: Final = 13
_LONGEST_EXPOSURE_US: Final = 112_015_096
_LONGEST_FRAME_US: Final = 112_017_136
_SMALLEST_GAIN: Final = 1.1228070259094238
_LARGEST_GAIN: Final = 16.0
_SMALLEST_CROP: Final = 64  # pixels of the mode

_READOUT_US: Final = 300  # minimum frame duration beyond the exposure
_RIGHT_EXPOSURE_AT_1_LUX_US: Final = 9_000_000.0  # exposure times gain that shows the scene as it is
_USUAL_EXPOSURE_US: Final = (20_000, 10_000, 60_000, 20_000)  # by AeExposureMode; the gain is raised beyond it
_METERED: Final = (1.0, 0.8, 1.15, 1.0)  # by AeMeteringMode: the scene's middle is brighter than the rest
_CONSTRAINED: Final = (1.0, 0.8, 1.25, 1.0)  # by AeConstraintMode: normal, highlight, shadows, custom
_START_OF_EXPOSURE: Final = 0.25  # brightness of the first frame after opening, as on a cold camera
_START_KELVIN: Final = 3400.0
_SCENE_KELVIN: Final = 4600
# By AwbMode: auto, incandescent, tungsten, fluorescent, indoor, daylight, cloudy, custom.
_KELVIN: Final = (_SCENE_KELVIN, 3000, 3500, _SCENE_KELVIN, _SCENE_KELVIN, 5500, 7000, _SCENE_KELVIN)
_RIGHT_COLOUR_GAIN: Final = 2.0  # of red and of blue
# What libcamera reports with the frame that a control was sent with, and with no other.
_REPORTED_ONCE: Final = frozenset(
    ("AeConstraintMode", "AeExposureMode", "AeMeteringMode", "AwbMode", "Brightness", "Contrast", "ExposureValue",
     "FrameDurationLimits", "NoiseReductionMode", "Saturation", "Sharpness")
)  # fmt: skip
_NOISE: Final = (1.6, 0.8, 0.4, 1.2, 0.8)  # by NoiseReductionMode: off, fast, high quality, minimal, zsl


@dataclass(frozen=True, slots=True)
class Scene:
    """What is in front of the camera: the light, and a wall with a test card on it; a small card is closer."""

    lux: float = 400.0
    wall_dioptres: float = 1.8
    focus: FocusOutcome = "sharp"


@dataclass(frozen=True, slots=True)
class Look:
    """All parameters of a frame's unmoving parts, so that equal looks are rendered once.

    `exposure`, `red` and `blue` are relative to the correct values; blurs are in dioptres from the focus; `noise` is in
    levels; `crop` is in sensor pixels as the frame shows them: a mirrored frame is mirrored within it.
    """

    crop: Rectangle
    hflip: bool
    vflip: bool
    wall_blur: float
    card_blur: float
    exposure: float
    red: float
    blue: float
    brightness: float
    contrast: float
    saturation: float
    sharpness: float
    noise: int
    has_lifted_shadows: bool
    is_corrected: bool  # or the lens distorts


class Shot(NamedTuple):
    """The look and the metadata of one frame."""

    look: Look
    metadata: Mapping[str, Any]


def fitting_crop(size: Size, within: Rectangle) -> Rectangle:
    """The largest centred part of a mode's crop with the aspect ratio of `size`."""
    left, top, whole_width, whole_height = within
    scale = min(whole_width / size[0], whole_height / size[1])
    crop_width, crop_height = round(size[0] * scale) & ~1, round(size[1] * scale) & ~1
    return left + (whole_width - crop_width) // 2, top + (whole_height - crop_height) // 2, crop_width, crop_height


def shortest_frame_us(mode: SensorMode) -> int:
    return round(1e6 / mode.fps)


def control_ranges(size: Size, mode: SensorMode) -> dict[str, ControlRange]:
    """The controls of a stream of `size` in the form of Picamera2's `camera_controls`."""
    smallest_crop = _SMALLEST_CROP * mode.crop[2] // mode.size[0]
    return {
        "AeConstraintMode": (0, 3, 0),
        "AeEnable": (False, True, True),
        "AeExposureMode": (0, 3, 0),
        "AeFlickerMode": (0, 1, 0),
        "AeFlickerPeriod": (100, 1_000_000, None),
        "AeMeteringMode": (0, 3, 0),
        "AfMetering": (0, 1, 0),
        "AfMode": (0, 2, 0),
        "AfRange": (0, 2, 0),
        "AfSpeed": (0, 1, 0),
        "AfTrigger": (0, 1, 0),
        "AfWindows": ((0, 0, 0, 0), (65535, 65535, 65535, 65535), [(0, 0, 0, 0)]),
        "AnalogueGain": (_SMALLEST_GAIN, _LARGEST_GAIN, 1.0),
        "AwbEnable": (False, True, None),
        "AwbMode": (0, 7, 0),
        "Brightness": (-1.0, 1.0, 0.0),
        "ColourGains": (0.0, 32.0, None),
        "Contrast": (0.0, 32.0, 1.0),
        "ExposureTime": (_SHORTEST_EXPOSURE_US, _LONGEST_EXPOSURE_US, 20_000),
        "ExposureValue": (-8.0, 8.0, 0.0),
        "FrameDurationLimits": (shortest_frame_us(mode), _LONGEST_FRAME_US, (33_333, 33_333)),
        "HdrMode": (0, 4, 0),
        "LensDewarpEnable": (False, True, True),  # not available on any Raspberry Pi; here so that it can be tried
        "LensPosition": (0.0, NEAREST_DIOPTRES, 1.0),
        "NoiseReductionMode": (0, 4, 0),
        "Saturation": (0.0, 32.0, 1.0),
        "ScalerCrop": ((0, 0, smallest_crop, smallest_crop), mode.crop, fitting_crop(size, mode.crop)),
        "Sharpness": (0.0, 16.0, 1.0),
    }


_ADVERTISED: Final = control_ranges(MODES.modes[0].size, MODES.modes[0])  # with the highest rate of all


def normalise_controls(controls: Mapping[str, Any]) -> dict[str, Any]:
    """The values clamped to the controls' ranges, as libcamera does. Raises NotSupported for an unknown name."""
    return {name: _clamped(name, value) for name, value in controls.items()}


def _clamped(name: str, value: Any) -> Any:
    if name not in _ADVERTISED:
        raise NotSupported(f"{name} is not a control of this camera")
    least, most, _ = _ADVERTISED[name]
    match name:
        case "ScalerCrop" | "AfWindows":
            return tuple(value)
        case "ColourGains" | "FrameDurationLimits":
            return tuple(min(max(part, least), most) for part in value)
        case "ExposureTime" | "AnalogueGain" if value == 0:  # automatic
            return value
        case _:
            return min(max(value, least), most)


class Sensor:
    """The sensor's state between frames: `apply_controls` sets controls, `capture_shot` advances it by one frame."""

    def __init__(self, request: StreamRequest, mode: SensorMode) -> None:
        self._request = request
        self._mode = mode
        self._shortest_frame_us = shortest_frame_us(mode)
        frame_us = round(min(max(1e6 / request.fps, self._shortest_frame_us), _LONGEST_FRAME_US))
        self._values: dict[str, Any] = {
            **{name: default for name, (_, _, default) in _ADVERTISED.items()},
            "AeFlickerPeriod": 0,
            "AfWindows": (),
            "AnalogueGain": 0.0,
            "ColourGains": (0.0, 0.0),
            "ExposureTime": 0,
            "FrameDurationLimits": (frame_us, frame_us),
            "NoiseReductionMode": 1,  # Picamera2's choice for video
            "ScalerCrop": None,
        }
        self._lens = Lens()
        self._exposure_us = 0.0
        self._gain = _SMALLEST_GAIN
        self._auto_total_us = 0.0  # exposure times gain of the automatic exposure; 0 before the first frame
        self._settled_frames = 0
        self._kelvin = _START_KELVIN
        self._just_set: dict[str, Any] = {}  # what the next frame reports

    def apply_controls(self, controls: Mapping[str, Any]) -> None:
        """Set normalised controls, from the next `capture_shot` on."""
        values = self._values
        # By name, so that AeEnable, AwbEnable and AfMode are first: they decide how the others are interpreted.
        for name, value in sorted(controls.items()):
            match name:
                case "AeEnable":
                    frozen = 0 if value else round(self._exposure_us), 0.0 if value else self._gain
                    values["ExposureTime"], values["AnalogueGain"] = frozen
                case "AwbEnable":
                    values["ColourGains"] = (0.0, 0.0) if value else self._colour_gains()
                case "AfMode" | "AfRange" | "AfSpeed" | "AfTrigger" | "LensPosition":
                    self._lens.set_control(name, value)
                case _:
                    values[name] = value
            if name in _REPORTED_ONCE:
                self._just_set[name] = value

    def capture_shot(self, scene: Scene, size: Size | None = None, crop: Rectangle | None = None) -> Shot:
        """Advance the automatic controls and return the next frame: of the stream, or a still of `size`.

        `crop` overrides the one that was set.
        """
        values, request, lens = self._values, self._request, self._lens
        if size is None:
            whole = fitting_crop((request.width, request.height), self._mode.crop)
        else:
            whole = fitting_crop(size, _WHOLE)
        right_us = _RIGHT_EXPOSURE_AT_1_LUX_US / scene.lux
        least_us, most_us = (max(each_us, self._shortest_frame_us) for each_us in values["FrameDurationLimits"])
        ae_state = self._expose(right_us, min(max(least_us, most_us) - _READOUT_US, _LONGEST_EXPOSURE_US))
        exposure_us = round(self._exposure_us)
        frame_us = max(least_us, exposure_us + _READOUT_US)
        self._balance()
        red, blue = self._colour_gains()
        focus_dioptres = self._metered_dioptres(scene)
        lens.advance_frame(frame_us / 1e6, focus_dioptres, scene.focus)
        look = Look(
            crop=crop or values["ScalerCrop"] or whole,
            hflip=request.hflip,
            vflip=request.vflip,
            wall_blur=round(abs(lens.position_dioptres - scene.wall_dioptres), 2),
            card_blur=round(abs(lens.position_dioptres - _CARD_DIOPTRES), 2),
            exposure=round(exposure_us * self._gain / right_us, 4),
            red=round(red / _RIGHT_COLOUR_GAIN, 3),
            blue=round(blue / _RIGHT_COLOUR_GAIN, 3),
            brightness=values["Brightness"],
            contrast=values["Contrast"],
            saturation=values["Saturation"],
            sharpness=values["Sharpness"],
            noise=int(_NOISE[values["NoiseReductionMode"]] * math.sqrt(self._gain)),
            has_lifted_shadows=request.hdr != "off" or values["HdrMode"] != 0,
            is_corrected=values["LensDewarpEnable"],
        )
        sharpness_seen = 1 / (1 + (2 * abs(lens.position_dioptres - focus_dioptres)) ** 2)
        metadata = {
            "AeState": ae_state,
            "AfPauseState": 0,
            "AfState": int(lens.state),
            "AnalogueGain": round(self._gain, 4),
            "ColourGains": (round(red, 4), round(blue, 4)),
            "ColourTemperature": round(self._kelvin),
            "DigitalGain": 1.0,
            "ExposureTime": exposure_us,
            "FocusFoM": round(900 + 24_000 * sharpness_seen * min(1.0, look.exposure)),
            "FrameDuration": frame_us,
            "LensDewarpEnable": values["LensDewarpEnable"],
            "LensPosition": round(lens.position_dioptres, 4),
            "Lux": scene.lux,
            "ScalerCrop": look.crop,
            "SensorBlackLevels": (4096, 4096, 4096, 4096),
            "SensorTemperature": 41.0,
            **self._just_set,
        }
        self._just_set = {}
        return Shot(look, metadata)

    def _expose(self, right_us: float, longest_us: float) -> int:
        """Advance the automatic exposure and return AeState: 0 idle, 1 searching, 2 converged."""
        values = self._values
        target_us = right_us * 2 ** values["ExposureValue"] * _METERED[values["AeMeteringMode"]]
        target_us *= _CONSTRAINED[values["AeConstraintMode"]]
        # A target out of the sensor's reach would never be converged on.
        target_us = min(max(target_us, _SHORTEST_EXPOSURE_US * _SMALLEST_GAIN), longest_us * _LARGEST_GAIN)
        self._auto_total_us = self._auto_total_us or target_us * _START_OF_EXPOSURE
        stops = math.log2(target_us / self._auto_total_us)
        # Each frame halves the difference in stops; a very small one is closed at once.
        self._auto_total_us = total_us = target_us if abs(stops) < 0.02 else self._auto_total_us * 2 ** (stops / 2)
        self._settled_frames = self._settled_frames + 1 if abs(stops) < 0.1 else 0

        fixed_us, fixed_gain = values["ExposureTime"], values["AnalogueGain"]
        usual_us = _USUAL_EXPOSURE_US[values["AeExposureMode"]]
        gain = fixed_gain or min(max(total_us / usual_us, _SMALLEST_GAIN), _LARGEST_GAIN)
        exposure_us = fixed_us or total_us / gain
        period_us = values["AeFlickerPeriod"]
        if values["AeFlickerMode"] and period_us and exposure_us > period_us and not fixed_us:
            exposure_us -= exposure_us % period_us  # whole periods of the lamp, or bands would move through the image
        self._exposure_us = min(max(exposure_us, _SHORTEST_EXPOSURE_US), longest_us)
        self._gain = min(max(fixed_gain or total_us / self._exposure_us, _SMALLEST_GAIN), _LARGEST_GAIN)
        if fixed_us and fixed_gain:
            return 0
        return 2 if self._settled_frames >= 2 else 1

    def _balance(self) -> None:
        if not all(self._values["ColourGains"]):
            change = _KELVIN[self._values["AwbMode"]] - self._kelvin
            self._kelvin += change if abs(change) < 20 else change * 0.4

    def _colour_gains(self) -> tuple[float, float]:
        fixed: tuple[float, float] = self._values["ColourGains"]
        warmth = (self._kelvin / _SCENE_KELVIN) ** 0.6
        return fixed if all(fixed) else (_RIGHT_COLOUR_GAIN * warmth, _RIGHT_COLOUR_GAIN / warmth)

    def _metered_dioptres(self, scene: Scene) -> float:
        """The distance to focus on: the near card if the first window's middle is on it, or the wall."""
        if self._values["AfMetering"] == 1 and self._values["AfWindows"]:
            x, y, width, height = self._values["AfWindows"][0]
            left, top, card_width, card_height = CARD
            if 0 <= x + width / 2 - left < card_width and 0 <= y + height / 2 - top < card_height:
                return _CARD_DIOPTRES
        return scene.wall_dioptres
