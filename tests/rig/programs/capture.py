"""`capture.py NUMBER WIDTH HEIGHT COUNT FILE`: captures COUNT frames and saves them as one array in FILE.

Prints the negotiated stream and the arrival times of the frames (monotonic seconds) as JSON.
"""

import json
import sys
import threading
import time
from typing import Any

import numpy as np
from picamera2 import MappedArray, Picamera2

place, width, height, count = map(int, sys.argv[1:5])
came_s: list[float] = []
pictures: list[np.ndarray] = []
is_done = threading.Event()


def keep_frame(request: Any) -> None:
    came_s.append(time.monotonic())
    if len(pictures) < 9:  # copies take time, and the frame rate is measured over all frames
        with MappedArray(request, "main") as mapped:
            pictures.append(mapped.array.copy())
    if len(came_s) == count:
        is_done.set()


camera = Picamera2(place)
camera.configure(camera.create_video_configuration(main={"size": (width, height), "format": "YUV420"}, queue=False))
camera.pre_callback = keep_frame
camera.start()
in_time = is_done.wait(30)
stream = camera.camera_configuration()["main"]
camera.close()
np.save(sys.argv[5], np.stack(pictures))
size = list(stream["size"])
print(json.dumps({"format": stream["format"], "size": size, "stride": stream["stride"], "came_s": came_s}))
sys.exit(0 if in_time else 1)
