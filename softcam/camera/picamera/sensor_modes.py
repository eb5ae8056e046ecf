"""The sensor modes and the frame duration of a camera of Picamera2; `softcam.camera.sensor_modes` chooses the mode.

Pure functions, and `ModeReader`, which reads and applies the modes of an open camera on the camera thread.
"""

import logging
import time
from collections.abc import Iterable, Mapping
from typing import Any

from softcam.camera.models import is_wide
from softcam.camera.picamera.library import LIBRARY_ERRORS, root_cause
from softcam.camera.sensor_modes import FovMode, SensorMode, SensorModes

log = logging.getLogger(__name__)


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


def frame_rate_controls(ranges: Mapping[str, Any], fps: float) -> dict[str, Any]:
    """FrameDurationLimits (microseconds) for a fixed rate within `ranges`, those of a configured camera."""
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


class ModeReader:
    """The modes of a camera, read once for each state of its HDR, which changes them, and kept over all openings."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, bool], SensorModes | None] = {}  # by libcamera's id and whether HDR is on
        self.current: SensorModes | None = None  # of the current opening; None if Picamera2 chooses the mode

    def read_modes(self, picam2: Any, camera_id: str, *, is_hdr: bool) -> None:
        """Read the modes of a camera that was just opened: Picamera2 configures each of them, some 50 ms per mode."""
        self.current = None
        # Only if Picamera2 itself sets a sensor mode: neither for USB cameras nor for libcamera's virtual ones.
        if "ColorFilterArrangement" not in picam2.camera_properties:
            return
        key = (camera_id, is_hdr)
        if key not in self._known:
            began_s = time.monotonic()
            try:
                modes = parse_modes(picam2.sensor_modes)
            except (AttributeError, KeyError, *LIBRARY_ERRORS) as error:
                log.warning("Failed to read sensor modes, Picamera2 will choose one: %s", root_cause(error))
                return
            log.info("Sensor modes: %d (read in %.2f s)", len(modes), time.monotonic() - began_s)
            width, height = picam2.camera_properties.get("PixelArraySize") or picam2.sensor_resolution
            is_wide_lens = is_wide(str(picam2.camera_properties.get("Model", "")))
            self._known[key] = SensorModes((width, height), modes, is_wide_lens) if modes else None
        self.current = self._known[key]

    def set_mode(self, config: dict[str, Any], size: tuple[int, int], fps: float, fov: FovMode) -> SensorMode | None:
        """Set the sensor mode in `config` and return it: Picamera2 would choose the nearest size, however cropped."""
        if self.current is None:
            return None
        chosen = self.current.choose_mode(size, fps, fov)
        config["sensor"] = {"output_size": chosen.size, "bit_depth": chosen.bit_depth}
        log.info(
            "Sensor mode for %dx%d: %dx%d, %d bit, up to %g fps, crop %s of %dx%d",
            *size,
            *chosen.size,
            chosen.bit_depth,
            chosen.fps,
            chosen.crop,
            *self.current.array_size,
        )
        return chosen
