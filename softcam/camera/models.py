"""The lens of a camera module, by the model that libcamera reports. Pure functions, for any thread.

The fields of view are those of Raspberry Pi's own modules as published: Raspberry Pi documentation, Camera, Hardware
Specification (documentation/asciidoc/accessories/camera/camera_hardware.adoc in github.com/raspberrypi/documentation).
Modules of other makers may have another lens in front of the same sensor, which libcamera does not report. Missing
here: imx477 and imx296, whose lenses are exchangeable, and sensors of which Raspberry Pi makes no module.
"""

from typing import Final

_WIDE: Final = "_wide"
_NOIR: Final = "_noir"

_HORIZONTAL_FIELDS: Final = {  # in degrees, of the whole sensor
    "ov5647": 53.5,
    "imx219": 62.2,
    "imx500": 66.0,
    "imx708": 66.0,
    "imx708_wide": 102.0,
}


def is_wide(model: str) -> bool:
    """Whether the lens is a wide one: the Camera Module 3 Wide reports `imx708_wide` or `imx708_wide_noir`."""
    return model.removesuffix(_NOIR).endswith(_WIDE)


def horizontal_field_degrees(model: str) -> float | None:
    """The published horizontal field of view of the module; None if it is unknown or depends on the lens."""
    return _HORIZONTAL_FIELDS.get(model.removesuffix(_NOIR))
