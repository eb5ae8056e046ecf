"""The HDR of the Camera Module 3's sensor: a control of the kernel's driver, which can be set only while it is closed.

The control outlives the process, and Picamera2 only prints that it could not be set; so the driver is read before and
after. Only the camera thread calls this.
"""

import fcntl
import logging
import struct
from typing import Any, Final

from softcam.camera.base import HdrMode
from softcam.camera.picamera.library import LIBRARY_ERRORS, hdr_device, root_cause
from softcam.errors import NotSupported

log = logging.getLogger(__name__)

_GET_CONTROL: Final = 0xC008561B  # VIDIOC_G_CTRL, of two numbers of 32 bits: which control, and its value
_WIDE_DYNAMIC_RANGE: Final = 0x009A0915  # V4L2_CID_WIDE_DYNAMIC_RANGE


class SensorHdr:
    """The HDR control of one camera, over all its openings."""

    def __init__(self) -> None:
        self.is_available = False  # at the last opening
        self.is_on: bool | None = None  # None if unknown

    def switch_mode(self, number: int, mode: HdrMode, name: str) -> None:
        """Set the control before an opening: on for `sensor` and, if available, for `auto`. Raises NotSupported."""
        is_requested = mode != "off"
        device = hdr_device(number)
        self.is_available = device is not None
        if device is None:
            self.is_on = None
            if mode == "sensor":
                raise NotSupported(f"camera {name}: its sensor has no HDR")
            return
        try:
            with device:
                reported = is_hdr_on(device)
                before = self.is_on if reported is None else reported
                if before is not is_requested:
                    device.set_sensor_hdr_mode(is_requested)
                    reported = is_hdr_on(device)
        except LIBRARY_ERRORS as error:
            raise NotSupported(f"camera {name}: the sensor's HDR cannot be switched: {root_cause(error)}") from error
        self.is_on = is_requested if reported is None else reported
        if self.is_on is not is_requested:
            if is_requested:
                raise NotSupported(f"camera {name}: the sensor's HDR cannot be switched on now")
            log.warning("Failed to switch off the sensor's HDR")


def is_hdr_on(device: Any) -> bool | None:
    """Read the control of Picamera2's `device` from the driver; None if that fails."""
    try:
        answer = fcntl.ioctl(device.device_fd, _GET_CONTROL, struct.pack("=Ii", _WIDE_DYNAMIC_RANGE, 0))
    except (AttributeError, *LIBRARY_ERRORS) as error:
        log.debug("Failed to read the sensor's HDR: %s", error)
        return None
    return bool(struct.unpack("=Ii", answer)[1])
