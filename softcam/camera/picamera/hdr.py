"""The Camera Module 3's own HDR: a switch in the kernel's driver, for while nobody has the camera.

The switch outlives a process, and Picamera2 only prints that it could not be moved; so the driver is asked, before and
after. Of the camera thread alone.
"""

import fcntl
import logging
import struct
from typing import Any, Final

from softcam.camera.picamera.library import TROUBLES, hdr_switch, root_cause
from softcam.errors import NotSupported

log = logging.getLogger(__name__)

_GET_CONTROL: Final = 0xC008561B  # VIDIOC_G_CTRL, of two numbers of 32 bits: which control, and its value
_WIDE_DYNAMIC_RANGE: Final = 0x009A0915  # V4L2_CID_WIDE_DYNAMIC_RANGE


class SensorHdr:
    """Of one camera, over all its openings."""

    def __init__(self) -> None:
        self.is_there = False  # as found at the last opening
        self.is_on: bool | None = None  # None until it was told or switched

    def switch(self, place: int, wish: str, name: str) -> None:
        """Before an opening: on for `sensor` and, where there is one, for `auto`. Raises NotSupported."""
        is_wanted = wish != "off"
        device = hdr_switch(place)
        self.is_there = device is not None
        if device is None:
            self.is_on = None
            if wish == "sensor":
                raise NotSupported(f"camera {name}: its sensor has no HDR")
            return
        try:
            with device:
                told = is_hdr_on(device)
                before = self.is_on if told is None else told
                if before is not is_wanted:
                    device.set_sensor_hdr_mode(is_wanted)
                    told = is_hdr_on(device)
        except TROUBLES as error:
            raise NotSupported(f"camera {name}: the sensor's HDR cannot be switched: {root_cause(error)}") from error
        self.is_on = is_wanted if told is None else told
        if self.is_on is not is_wanted:
            if is_wanted:
                raise NotSupported(f"camera {name}: the sensor's HDR cannot be switched on now")
            log.warning("The sensor's HDR cannot be switched off now")


def is_hdr_on(device: Any) -> bool | None:
    """What the driver says of Picamera2's `device`; None where it cannot be asked."""
    try:
        answer = fcntl.ioctl(device.device_fd, _GET_CONTROL, struct.pack("=Ii", _WIDE_DYNAMIC_RANGE, 0))
    except (AttributeError, *TROUBLES) as error:
        log.debug("The sensor's HDR does not tell its state: %s", error)
        return None
    return bool(struct.unpack("=Ii", answer)[1])
