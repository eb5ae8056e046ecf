"""Which of a sensor's modes is used, and how long a frame shall take in it. Pure arithmetic: no camera, no thread.

docs/decisions/0005-sensor-mode.md says why the choice is made here.
"""

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from softcam.camera.picamera.library import TROUBLES, root_cause
from softcam.errors import CameraError

log = logging.getLogger(__name__)

# A mode that leaves a few rows out shows the same picture to anybody: an imx219's 1600x1200 has 95.03 %.
_FULL_FIELD: Final = 0.95
_RATE_SLACK: Final = 0.98  # modes tell their rates rounded: 29.97 is 30


@dataclass(frozen=True, slots=True)
class SensorMode:
    """One way to read a sensor out: the size that comes, in pixels, and `crop`, (x, y, width, height) of the array."""

    size: tuple[int, int]
    bit_depth: int
    fps: float
    crop: tuple[int, int, int, int]

    def field(self, array_size: tuple[int, int]) -> float:
        """How much of the pixel array it shows, 0 to 1."""
        return self.crop[2] * self.crop[3] / (array_size[0] * array_size[1])

    def as_sensor(self) -> dict[str, Any]:
        """As Picamera2's configurations want it."""
        return {"output_size": self.size, "bit_depth": self.bit_depth}


def modes_of(listing: Iterable[Mapping[str, Any]]) -> tuple[SensorMode, ...]:
    """From Picamera2's `sensor_modes`; an entry without a size, as a camera without raw pictures has, is left out."""
    return tuple(
        SensorMode(
            (int(mode["size"][0]), int(mode["size"][1])),
            int(mode["bit_depth"]),
            float(mode["fps"]),
            _rectangle(mode["crop_limits"]),
        )
        for mode in listing
        if "size" in mode
    )


def choose_mode(
    modes: Sequence[SensorMode], array_size: tuple[int, int], size: tuple[int, int], fps: float
) -> SensorMode | None:
    """The mode for pictures of `size` at `fps` (0: as slow as it likes); None where the camera tells no modes.

    Of those that are at least as large and as fast, the smallest that shows the whole field; a cropped one, with as
    much of the field as can be, where only such a one is fast enough. Where none is both, the rate gives way, and then
    the size. Of equals, the one with more bits.
    """
    if not modes:
        return None

    def area(mode: SensorMode) -> int:
        return mode.size[0] * mode.size[1]

    def is_full(mode: SensorMode) -> bool:
        return mode.field(array_size) >= _FULL_FIELD

    def is_fast(mode: SensorMode) -> bool:
        return mode.fps >= fps * _RATE_SLACK

    large = [mode for mode in modes if mode.size[0] >= size[0] and mode.size[1] >= size[1]]
    if not large:
        return max(modes, key=lambda mode: (is_full(mode), area(mode), is_fast(mode), mode.bit_depth))
    fast = [mode for mode in large if is_fast(mode)]
    if not fast:
        return max(large, key=lambda mode: (is_full(mode), mode.fps, -area(mode), mode.bit_depth))
    full = [mode for mode in fast if is_full(mode)]
    if full:
        return min(full, key=lambda mode: (area(mode), -mode.bit_depth))
    return min(fast, key=lambda mode: (-mode.field(array_size), area(mode), -mode.bit_depth))


def frame_rate_controls(ranges: Mapping[str, Any], fps: float) -> dict[str, Any]:
    """FrameDurationLimits (microseconds) for a fixed rate, within `ranges`: those of a configured camera."""
    if "FrameDurationLimits" not in ranges:
        return {}
    shortest_us, longest_us, _ = ranges["FrameDurationLimits"]
    period_us = round(1e6 / fps)
    if isinstance(shortest_us, int) and isinstance(longest_us, int) and shortest_us < longest_us:
        period_us = min(max(period_us, shortest_us), longest_us)
    return {"FrameDurationLimits": (period_us, period_us)}


def is_too_fast(ranges: Mapping[str, Any], fps: float) -> bool:
    """Whether a configured camera cannot be told to be as slow: many USB cameras have a rate of their own."""
    if "FrameDurationLimits" not in ranges:
        return True
    longest_us = ranges["FrameDurationLimits"][1]
    return isinstance(longest_us, int) and longest_us < round(1e6 / fps)


def _rectangle(value: Any) -> tuple[int, int, int, int]:
    """A tuple as it is, or libcamera's own rectangle, which old releases give."""
    try:
        x, y, width, height = value if isinstance(value, tuple | list) else value.to_tuple()
    except (AttributeError, TypeError, ValueError) as error:
        raise CameraError(f"a sensor mode with a crop of {value!r}") from error
    return int(x), int(y), int(width), int(height)


class SensorModes:
    """Read once for each camera and each state of its HDR, which changes them; kept over all openings."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, bool], tuple[SensorMode, ...]] = {}  # by libcamera's id and whether HDR is on
        self._now: tuple[SensorMode, ...] = ()

    def read(self, picam2: Any, camera_id: str, *, is_hdr: bool) -> None:
        """For a camera that was just opened: Picamera2 configures it for each of its modes, some 50 ms apiece."""
        self._now = ()
        # Only where Picamera2 itself sets a sensor mode: neither for USB cameras nor for libcamera's virtual ones.
        if "ColorFilterArrangement" not in picam2.camera_properties:
            return
        key = (camera_id, is_hdr)
        if key not in self._known:
            began_s = time.monotonic()
            try:
                self._known[key] = modes_of(picam2.sensor_modes)
            except (AttributeError, KeyError, CameraError, *TROUBLES) as error:
                log.warning("The sensor's modes cannot be read, Picamera2 will choose one: %s", root_cause(error))
                return
            log.info("Sensor has %d modes (read in %.2f s)", len(self._known[key]), time.monotonic() - began_s)
        self._now = self._known[key]

    def choose(self, picam2: Any, config: dict[str, Any], size: tuple[int, int], fps: float) -> None:
        """Put the sensor mode that fits into `config`: Picamera2 would take the nearest size, however cropped."""
        array_size = tuple(picam2.camera_properties.get("PixelArraySize") or picam2.sensor_resolution)
        chosen = choose_mode(self._now, array_size, size, fps)
        if chosen is None:
            return
        config["sensor"] = chosen.as_sensor()
        log.info(
            "Sensor mode for %dx%d: %dx%d, %d bit, up to %g fps, crop %s of %dx%d",
            *size,
            *chosen.size,
            chosen.bit_depth,
            chosen.fps,
            chosen.crop,
            *array_size,
        )
