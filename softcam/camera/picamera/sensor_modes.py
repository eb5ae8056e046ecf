"""The choice of the sensor mode and the frame duration; docs/decisions/0005-sensor-mode.md has the reasons.

Pure functions, and `SensorModes`, which reads and applies the modes of an open camera on the camera thread.
"""

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from softcam.camera.picamera.library import LIBRARY_ERRORS, root_cause

log = logging.getLogger(__name__)

# A mode without a few rows shows practically the whole field of view: an imx219's 1600x1200 has 95.03 %.
_FULL_FIELD: Final = 0.95
_RATE_SLACK: Final = 0.98  # the rates of modes are rounded: 29.97 is 30


@dataclass(frozen=True, slots=True)
class SensorMode:
    """A readout mode of a sensor: its output size in pixels, and `crop`, (x, y, width, height) of the array."""

    size: tuple[int, int]
    bit_depth: int
    fps: float
    crop: tuple[int, int, int, int]

    def field(self, array_size: tuple[int, int]) -> float:
        """Return the share of the pixel array that it shows, from 0 to 1."""
        return self.crop[2] * self.crop[3] / (array_size[0] * array_size[1])


def parse_modes(listing: Iterable[Mapping[str, Any]]) -> tuple[SensorMode, ...]:
    """Convert Picamera2's `sensor_modes`; entries without a size, as of cameras without raw images, are skipped."""
    modes = []
    for mode in listing:
        if "size" in mode:
            crop = mode["crop_limits"]
            # Old releases have libcamera's own rectangle here.
            x, y, width, height = crop if isinstance(crop, tuple | list) else crop.to_tuple()
            modes.append(SensorMode(tuple(mode["size"]), mode["bit_depth"], mode["fps"], (x, y, width, height)))
    return tuple(modes)


def choose_mode(
    modes: Sequence[SensorMode], array_size: tuple[int, int], size: tuple[int, int], fps: float
) -> SensorMode | None:
    """Return the mode for frames of `size` at `fps` (0 for any rate); None if there are no modes.

    Of the modes that are large and fast enough, it is the smallest with the whole field of view; if only cropped ones
    are fast enough, the one with the largest field. If none is both, a lower rate is accepted, and then a smaller size.
    Between equal modes the one with more bits is chosen.
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
    """Return FrameDurationLimits (microseconds) for a fixed rate within `ranges`, those of a configured camera."""
    if "FrameDurationLimits" not in ranges:
        return {}
    shortest_us, longest_us, _ = ranges["FrameDurationLimits"]
    period_us = round(1e6 / fps)
    if isinstance(shortest_us, int) and isinstance(longest_us, int) and shortest_us < longest_us:
        period_us = min(max(period_us, shortest_us), longest_us)
    return {"FrameDurationLimits": (period_us, period_us)}


def is_too_fast(ranges: Mapping[str, Any], fps: float) -> bool:
    """Whether a configured camera cannot be set to a rate this low: many USB cameras have a fixed rate."""
    if "FrameDurationLimits" not in ranges:
        return True
    longest_us = ranges["FrameDurationLimits"][1]
    return isinstance(longest_us, int) and longest_us < round(1e6 / fps)


class SensorModes:
    """The modes of a camera, read once for each state of its HDR, which changes them, and kept over all openings."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, bool], tuple[SensorMode, ...]] = {}  # by libcamera's id and whether HDR is on
        self._current: tuple[SensorMode, ...] = ()

    def read_modes(self, picam2: Any, camera_id: str, *, is_hdr: bool) -> None:
        """Read the modes of a camera that was just opened: Picamera2 configures each of them, some 50 ms per mode."""
        self._current = ()
        # Only if Picamera2 itself sets a sensor mode: neither for USB cameras nor for libcamera's virtual ones.
        if "ColorFilterArrangement" not in picam2.camera_properties:
            return
        key = (camera_id, is_hdr)
        if key not in self._known:
            began_s = time.monotonic()
            try:
                self._known[key] = parse_modes(picam2.sensor_modes)
            except (AttributeError, KeyError, *LIBRARY_ERRORS) as error:
                log.warning("Failed to read sensor modes, Picamera2 will choose one: %s", root_cause(error))
                return
            log.info("Sensor modes: %d (read in %.2f s)", len(self._known[key]), time.monotonic() - began_s)
        self._current = self._known[key]

    def set_mode(self, picam2: Any, config: dict[str, Any], size: tuple[int, int], fps: float) -> None:
        """Set the sensor mode in `config`: Picamera2 would choose the nearest size, however cropped."""
        array_size = tuple(picam2.camera_properties.get("PixelArraySize") or picam2.sensor_resolution)
        chosen = choose_mode(self._current, array_size, size, fps)
        if chosen is None:
            return
        config["sensor"] = {"output_size": chosen.size, "bit_depth": chosen.bit_depth}
        log.info(
            "Sensor mode for %dx%d: %dx%d, %d bit, up to %g fps, crop %s of %dx%d",
            *size,
            *chosen.size,
            chosen.bit_depth,
            chosen.fps,
            chosen.crop,
            *array_size,
        )
