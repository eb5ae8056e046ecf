"""`rounds.py NUMBER COUNT`: opens and closes a camera COUNT times in one process; prints a line of JSON per round.

Each line contains the resources that remain after a garbage collection: Picamera2's objects form reference cycles,
which keep up to three descriptors per round.
"""

import contextlib
import gc
import json
import sys
import threading
from pathlib import Path

from picamera2 import Picamera2


def open_descriptors() -> list[str]:
    found = []
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the descriptor of the folder, already closed
            found.append(str(link.readlink()))
    return sorted(target.partition(":[")[0] if target.startswith(("pipe", "socket")) else target for target in found)


def one_round(place: int) -> bool:
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
