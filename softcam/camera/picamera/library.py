"""Picamera2 and libcamera themselves: the only importer of both, and what they tell of a camera that is closed.

They are imported when first asked for, never before: slow to import, and absent on most machines. No camera is opened
here and no thread started; any thread may call.
"""

import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from softcam.errors import CameraMissing

log = logging.getLogger(__name__)

TUNING_FOLDERS: Final = ("/usr/local/share/libcamera/ipa/rpi", "/usr/share/libcamera/ipa/rpi")
# What Picamera2 and libcamera's binding raise for a camera that fails, for a value that is none, and for a buffer that
# somebody still looks into.
TROUBLES: Final = (RuntimeError, BufferError, TypeError, ValueError, OSError)
# libcamera's binding tells EBUSY by its text, wherever it acquires, configures or starts a camera that another program
# has (py_main.cpp, since 0.1). Picamera2's own "Configuration failed" names no reason: it may be any other.
_BUSY_SIGN: Final = "Device or resource busy"
_H264_DEVICE: Final = Path("/dev/video11")  # a name that stands in Picamera2's class, too
_MOSAIC: Final = re.compile(r"S?(RGGB|BGGR|GRBG|GBRG)|R(8|10|12|14|16)\b|MONO")  # as libcamera names raw formats


@dataclass(frozen=True, slots=True)
class CameraEntry:
    """A line of the list of cameras: its place in it, libcamera's id and the model of the sensor."""

    number: int
    id: str
    model: str


def list_cameras() -> list[CameraEntry]:
    """The cameras in Picamera2's order; opens none. Raises CameraMissing when there is no Picamera2."""
    return [
        CameraEntry(place, str(info["Id"]), str(info.get("Model", "unknown")))
        for place, info in enumerate(picamera2().Picamera2.global_camera_info())
    ]


def picamera2() -> Any:
    """The package. Raises CameraMissing with the way to install it."""
    try:
        import picamera2
        import picamera2.platform
    except ImportError as error:
        raise CameraMissing(
            f"picamera2 is missing ({error}): install it with 'sudo apt install python3-picamera2', "
            "or use the embedded camera with --camera pattern"
        ) from error
    return picamera2


def libcamera() -> Any:
    import libcamera

    return libcamera


def persistent_allocator() -> Any:
    """A new PersistentAllocator of Picamera2's, None in an old release."""
    try:
        from picamera2.allocators import PersistentAllocator
    except ImportError:
        return None
    return PersistentAllocator()


def find_tuning_file(name: str) -> Path | None:
    """A tuning file by its path, or by its name among libcamera's own for this machine; None where there is none."""
    if "/" in name:
        return Path(name) if Path(name).is_file() else None
    folder = "pisp" if is_pisp() else "vc4"
    for root in TUNING_FOLDERS:
        path = Path(root, folder, name if name.endswith(".json") else f"{name}.json")
        if path.is_file():
            return path
    return None


def hdr_switch(place: int) -> Any:
    """Picamera2's way to the sensor's HDR, None where the camera is none that has it."""
    try:
        from picamera2.devices.imx708 import IMX708

        return IMX708(place)
    except (ImportError, AttributeError, *TROUBLES) as error:
        # AttributeError: python3-libarchive-c without its library.
        log.debug("No HDR in the sensor: %s", error)
        return None


def has_raw(picam2: Any) -> bool:
    """Whether an opened Picamera2 has raw pictures."""
    try:
        wanted = picam2.camera.generate_configuration([libcamera().StreamRole.Raw])
        # A camera without a mosaic gives what it has under that name, too.
        return bool(wanted) and _MOSAIC.match(str(wanted.at(0).pixel_format)) is not None
    except (AttributeError, *TROUBLES) as error:  # an old binding has no such role
        log.debug("No raw pictures: %s", error)
        return False


def is_pisp() -> bool:
    """Whether the machine has a Pi 5's image processor, and not an older one's."""
    package = picamera2()
    return bool(package.Picamera2.platform != package.platform.Platform.VC4)


def h264_encoder() -> tuple[Any, Any] | None:
    """Picamera2's class for the H.264 encoder of a Raspberry Pi 4 and older, and the one of which encoders' outputs
    are; None on a machine without it."""
    if is_pisp() or not _H264_DEVICE.exists():
        return None
    try:
        from picamera2.encoders.h264_encoder import H264Encoder
        from picamera2.outputs import Output
    except ImportError as error:
        log.debug("No H.264 in hardware: %s", error)
        return None
    return H264Encoder, Output


def root_cause(error: BaseException) -> str:
    """Picamera2 wraps the telling message in general ones; the innermost says what happened."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error) or type(error).__name__


def is_busy(error: BaseException) -> bool:
    """Whether a camera that was acquired could not be configured or started because another program streams."""
    return isinstance(error, RuntimeError | OSError) and _BUSY_SIGN in root_cause(error)
