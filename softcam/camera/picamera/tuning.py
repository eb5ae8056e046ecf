"""libcamera's tuning files: which one a camera uses. Only called while cameras are constructed; no thread."""

import logging
import os
from pathlib import Path
from typing import Final

from softcam.camera.picamera.library import is_pisp, picamera2
from softcam.errors import ConfigurationError

log = logging.getLogger(__name__)

TUNING_FOLDERS: Final = ("/usr/local/share/libcamera/ipa/rpi", "/usr/share/libcamera/ipa/rpi")
_VARIABLE: Final = "LIBCAMERA_RPI_TUNING_FILE"  # libcamera reads it when it detects the camera


def find_tuning_file(name: str) -> Path | None:
    """A tuning file by its path, or by its name among libcamera's own for this machine; None if missing."""
    if "/" in name:
        return Path(name) if Path(name).is_file() else None
    folder = "pisp" if is_pisp() else "vc4"
    for root in TUNING_FOLDERS:
        path = Path(root, folder, name if name.endswith(".json") else f"{name}.json")
        if path.is_file():
            return path
    return None


def use_tuning_file(name: str) -> Path:
    """Let libcamera use a file for the cameras that it detects from now on. Raises ConfigurationError if missing."""
    path = find_tuning_file(name)
    if path is None:
        rule = "must be a file, or the name of one of libcamera's tuning files"
        raise ConfigurationError([f"tuning_file {name}: {rule}"], settings=["tuning_file"])
    os.environ[_VARIABLE] = str(path)
    return path


def use_noir_tuning(model: str) -> Path | None:
    """Use and return the file for this sensor without infrared filter; None, with a warning, if there is none."""
    name = f"{model.removesuffix('_noir')}_noir.json"
    try:
        path = use_tuning_file(name)
    except ConfigurationError:
        log.warning("No tuning file %s for a camera without infrared filter, using the usual one", name)
        return None
    log.info("Tuning file for a camera without infrared filter: %s", path)
    # Listing the cameras has loaded the usual tuning; a new camera manager loads this one.
    picamera2().Picamera2._cm.reset()
    return path
