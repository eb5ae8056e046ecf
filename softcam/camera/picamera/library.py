"""Picamera2 and libcamera: the only importer of both, and what they report about closed cameras.

They are imported by the first call, because they are slow to import and missing on most machines. No camera is opened
here and no thread is started; any thread may call these functions.
"""

import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from softcam.errors import CameraMissing

log = logging.getLogger(__name__)

# What Picamera2 and libcamera's binding raise for a camera that fails, for an invalid value, and for a buffer that is
# still mapped.
LIBRARY_ERRORS: Final = (RuntimeError, BufferError, TypeError, ValueError, OSError)
# libcamera's binding reports EBUSY by its text, wherever it acquires, configures or starts a camera that another
# program uses (py_main.cpp, since 0.1). Picamera2's own "Configuration failed" may have any reason.
_BUSY_TEXT: Final = "Device or resource busy"
_H264_DEVICE: Final = Path("/dev/video11")  # as in Picamera2's class
_MOSAIC: Final = re.compile(r"S?(RGGB|BGGR|GRBG|GBRG)|R(8|10|12|14|16)\b|MONO")  # libcamera's names of raw formats


@dataclass(frozen=True, slots=True)
class CameraEntry:
    """A camera in the list: its position, libcamera's id and the model of the sensor."""

    number: int
    id: str
    model: str


def list_cameras() -> list[CameraEntry]:
    """The cameras in Picamera2's order without opening any. Raises CameraMissing without Picamera2."""
    return [
        CameraEntry(place, str(info["Id"]), str(info.get("Model", "unknown")))
        for place, info in enumerate(picamera2().Picamera2.global_camera_info())
    ]


def picamera2() -> Any:
    """Import the package. Raises CameraMissing, with instructions to install or update it."""
    try:
        import picamera2
    except ImportError as error:
        raise CameraMissing(
            f"picamera2 is missing ({error}): install it with 'sudo apt install python3-picamera2', "
            "or use the built-in pattern camera with --camera pattern"
        ) from error
    try:
        import picamera2.platform  # since 0.3.14
    except ImportError as error:
        raise CameraMissing(
            f"picamera2 is too old ({error}): version 0.3.16 or newer is required; update it with "
            "'sudo apt update && sudo apt full-upgrade'"
        ) from error
    return picamera2


def libcamera() -> Any:
    import libcamera

    return libcamera


def libcamera_version() -> str | None:
    """The version of libcamera, such as `v0.5.2+99-bfd68f78`; None if its binding does not report it."""
    version = getattr(getattr(libcamera(), "CameraManager", None), "version", None)
    return version if isinstance(version, str) else None


def persistent_allocator() -> Any:
    """A new PersistentAllocator of Picamera2, None in old releases."""
    try:
        from picamera2.allocators import PersistentAllocator
    except ImportError:
        return None
    return PersistentAllocator()


def hdr_device(number: int) -> Any:
    """Picamera2's device for the HDR of the sensor, None if the sensor has no HDR."""
    try:
        from picamera2.devices.imx708 import IMX708

        return IMX708(number)
    except (ImportError, AttributeError, *LIBRARY_ERRORS) as error:
        # AttributeError: python3-libarchive-c without its library.
        log.debug("No HDR in the sensor: %s", error)
        return None


def has_raw(picam2: Any) -> bool:
    """Whether an open Picamera2 has raw images."""
    try:
        configuration = picam2.camera.generate_configuration([libcamera().StreamRole.Raw])
        # A camera without a mosaic offers another format for this role.
        return bool(configuration) and _MOSAIC.match(str(configuration.at(0).pixel_format)) is not None
    except (AttributeError, *LIBRARY_ERRORS) as error:  # an old binding does not have this role
        log.debug("No raw images: %s", error)
        return False


def is_pisp() -> bool:
    """Whether the machine has the image processor of a Pi 5, and not an older one."""
    package = picamera2()
    return bool(package.Picamera2.platform != package.platform.Platform.VC4)


def h264_encoder() -> tuple[Any, Any] | None:
    """Picamera2's H.264 encoder class for a Raspberry Pi 4 and older, and the base class of encoder outputs.

    None on a machine without that encoder.
    """
    if is_pisp() or not _H264_DEVICE.exists():
        return None
    try:
        from picamera2.encoders.h264_encoder import H264Encoder
        from picamera2.outputs import Output
    except ImportError as error:
        log.debug("No hardware H.264 encoder: %s", error)
        return None
    return H264Encoder, Output


def root_cause(error: BaseException) -> str:
    """The message of the innermost cause: Picamera2 wraps it in general ones."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error) or type(error).__name__


def is_busy(error: BaseException) -> bool:
    """Whether an acquired camera could not be configured or started because another program uses it."""
    return isinstance(error, RuntimeError | OSError) and _BUSY_TEXT in root_cause(error)
