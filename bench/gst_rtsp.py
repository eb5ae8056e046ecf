"""GStreamer's RTSP server, which plays an H.264 file to all viewers at its frame rate. For Debian's python3, with gi.

    /usr/bin/python3 gst_rtsp.py FILE FPS

FILE has access units in Annex B, each after its size (four bytes, little-endian). Prints `listening on PORT`.
"""

import itertools
import sys
import threading
import time
from pathlib import Path
from typing import Any

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402 - after the versions were chosen

CAPS = "video/x-h264,stream-format=byte-stream,alignment=au"
# As the portal: no packet of more than 1360 bytes of payload, parameter sets with each keyframe.
PIPELINE = (
    f"( appsrc name=source is-live=true format=time caps={CAPS} ! rtph264pay name=pay0 mtu=1372 config-interval=-1 )"
)


def read_units(path: Path) -> list[bytes]:
    data, units = path.read_bytes(), []
    while data:
        size = int.from_bytes(data[:4], "little")
        units.append(data[4 : 4 + size])
        data = data[4 + size :]
    return units


def play(source: Any, units: list[bytes], fps: float) -> None:
    began_s = time.monotonic()
    for number, unit in enumerate(itertools.cycle(units)):
        time.sleep(max(0.0, began_s + number / fps - time.monotonic()))
        buffer = Gst.Buffer.new_wrapped(unit)
        buffer.pts = buffer.dts = int(number / fps * Gst.SECOND)
        if source.emit("push-buffer", buffer) != Gst.FlowReturn.OK:
            return


def main() -> None:
    path, fps = Path(sys.argv[1]), float(sys.argv[2])
    units = read_units(path)
    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service("0")
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_shared(True)
    factory.set_launch(PIPELINE)

    def configure(_factory: Any, media: Any) -> None:
        source = media.get_element().get_by_name("source")
        threading.Thread(target=play, args=(source, units, fps), daemon=True).start()

    factory.connect("media-configure", configure)
    server.get_mount_points().add_factory("/stream", factory)
    if server.attach(None) == 0:
        sys.exit("the server does not start")
    print(f"listening on {server.get_bound_port()}", flush=True)
    GLib.MainLoop().run()


main()
