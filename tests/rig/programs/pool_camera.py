"""`pool_camera.py SOCKET FILE CAPS…`: a GStreamer pipeline with a pool of two buffers, as cameras have few.

Once a client is connected, sends FILE 30 times a second to `unixfdsink`, with the next caps after each 60 images, and
prints a line for each image that got a buffer from the pool, which it waits for. Ends after all caps.
"""

import sys
import time
from pathlib import Path

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstAllocators", "1.0")
from gi.repository import Gst, GstAllocators  # noqa: E402 - after the choice of the version

Gst.init(None)
socket_path, data = sys.argv[1], Path(sys.argv[2]).read_bytes()
sink = f"unixfdsink socket-path={socket_path} wait-for-connection=true"
pipeline = Gst.parse_launch(f"appsrc name=source is-live=true format=time ! {sink}")
source = pipeline.get_by_name("source")
GstAllocators.ShmAllocator.init_once()
allocator = GstAllocators.ShmAllocator.get()
pipeline.set_state(Gst.State.PLAYING)
number = 0
for text in sys.argv[3:]:
    caps = Gst.Caps.from_string(text)
    source.set_property("caps", caps)
    pool = Gst.BufferPool.new()
    config = pool.get_config()
    Gst.BufferPool.config_set_params(config, caps, len(data), 2, 2)
    Gst.BufferPool.config_set_allocator(config, allocator, None)
    pool.set_config(config)
    pool.set_active(True)
    for _ in range(60):
        buffer = pool.acquire_buffer(None).buffer
        buffer.fill(0, data)
        buffer.pts = number * Gst.SECOND // 30
        source.emit("push-buffer", buffer)
        del buffer
        number += 1
        print(f"image {number}", flush=True)
        time.sleep(1 / 30)
pipeline.set_state(Gst.State.NULL)
print("ended", flush=True)
