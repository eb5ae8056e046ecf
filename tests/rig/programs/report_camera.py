"""`report_camera.py NUMBER WIDTH HEIGHT`: prints what Picamera2 reports of a camera with such a stream, as JSON.

With the names of libcamera's modes by number.
"""

import json
import sys

from libcamera import controls
from picamera2 import Picamera2

ENUMERATIONS = {
    "AeConstraintMode": controls.AeConstraintModeEnum,
    "AeExposureMode": controls.AeExposureModeEnum,
    "AwbMode": controls.AwbModeEnum,
    "NoiseReductionMode": controls.draft.NoiseReductionModeEnum,
}

place, width, height = map(int, sys.argv[1:4])
camera = Picamera2(place)
sensor_modes = camera.sensor_modes
camera.configure(camera.create_video_configuration(main={"size": (width, height), "format": "YUV420"}))
report = {
    "model": camera.camera_properties["Model"],
    "resolution": list(camera.sensor_resolution),
    "controls": {name: limits[:2] for name, limits in camera.camera_controls.items()},
    "sensor_modes": sensor_modes,
    "enumerations": {
        name: {int(mode): word for word, mode in enumeration.__members__.items()}
        for name, enumeration in ENUMERATIONS.items()
    },
}
camera.close()
print(json.dumps(report, default=str))
