"""The modes of the sensors that were opened, and which one a configuration gets. Of the camera thread alone."""

import logging
import time
from typing import Any

from softcam.camera.picamera_library import TROUBLES, root_cause
from softcam.camera.picamera_modes import SensorMode, choose_mode, modes_of
from softcam.errors import CameraError

log = logging.getLogger(__name__)


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
