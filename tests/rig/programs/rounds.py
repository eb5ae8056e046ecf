"""`rounds.py PLACE COUNT`: opens and closes a camera again and again in one process; a line of JSON for each round.

Each line has what stays behind when the garbage collector ran: Picamera2's own objects refer to each other in
circles, and up to three descriptors of each round wait for it.
"""

import contextlib
import gc
import json
import sys
import threading
from pathlib import Path

from picamera2 import Picamera2


def open_descriptors():
    found = []
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the folder's own, closed since
            found.append(str(link.readlink()))
    return sorted(target.partition(":[")[0] if target.startswith(("pipe", "socket")) else target for target in found)


def one_round(place):
    has_frame = threading.Event()
    camera = Picamera2(place)
    camera.configure(camera.create_video_configuration(main={"size": (640, 360), "format": "YUV420"}))
    camera.pre_callback = lambda request: has_frame.set()
    camera.start()
    came = has_frame.wait(10)
    camera.stop()
    camera.close()
    return came


for _ in range(int(sys.argv[2])):
    came = one_round(int(sys.argv[1]))
    gc.collect()
    threads = len(list(Path("/proc/self/task").iterdir()))
    print(json.dumps({"came": came, "threads": threads, "descriptors": open_descriptors()}), flush=True)
