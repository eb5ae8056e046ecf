"""`stay_open.py NUMBER`: keeps a camera open until SIGTERM and prints a line per frame; exits with 69 if it is busy."""

import signal
import sys

from picamera2 import Picamera2

try:
    camera = Picamera2(int(sys.argv[1]))
except RuntimeError as error:
    print(f"busy: {error.__cause__}", flush=True)
    sys.exit(69)
signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
camera.configure(camera.create_video_configuration(main={"size": (640, 360), "format": "YUV420"}))
camera.pre_callback = lambda request: print("frame", flush=True)
camera.start()
print("open", flush=True)
try:
    while True:
        signal.pause()
finally:
    camera.close()
    print("closed", flush=True)
