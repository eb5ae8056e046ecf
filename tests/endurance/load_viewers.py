"""Many viewers in one process with one epoll loop: a load that costs little itself.

    python -m tests.endurance.load_viewers PORT MJPEG MP4 SECONDS

Prints `watching` when each viewer has received a frame, and after SECONDS one JSON object: for each kind the frames per
second of the slowest viewer and the median, and the CPU time of this process. Frames are counted by the text with which
each begins; the images are not parsed.
"""

import json
import select
import socket
import sys
import time
from dataclasses import dataclass
from statistics import median

READY_S = 60.0
KINDS = {"mjpeg": ("/stream.mjpg", b"--frame\r\n"), "mp4": ("/stream.mp4", b"moof")}


class Failed(Exception):
    """A viewer was rejected or disconnected."""


@dataclass
class Viewer:
    kind: str
    connection: socket.socket
    frames: int = 0
    tail: bytes = b""  # of what was read: a mark may be divided
    is_accepted: bool = False

    def read(self, buffer: memoryview) -> None:
        size = self.connection.recv_into(buffer)
        if not size:
            raise Failed(f"{self.kind}: disconnected")
        received = bytes(buffer[:size])
        if not self.is_accepted:
            if not received.startswith(b"HTTP/1.1 200 "):
                raise Failed(f"{self.kind}: {received[:200]!r}")
            self.is_accepted = True
        mark = KINDS[self.kind][1]
        self.frames += (self.tail + received).count(mark)
        self.tail = received[1 - len(mark) :]


def connect(port: int, kind: str) -> Viewer:
    connection = socket.create_connection(("127.0.0.1", port), READY_S)
    connection.sendall(f"GET {KINDS[kind][0]} HTTP/1.1\r\nHost: load\r\n\r\n".encode())
    return Viewer(kind, connection)


def watch(port: int, counts: dict[str, int], seconds: float) -> dict[str, float]:
    """The rates in frames per second. Raises Failed, OSError."""
    poller = select.epoll()
    viewers = [connect(port, kind) for kind, count in counts.items() for _ in range(count)]
    by_descriptor = {viewer.connection.fileno(): viewer for viewer in viewers}
    for descriptor in by_descriptor:
        poller.register(descriptor, select.EPOLLIN)
    buffer = memoryview(bytearray(1 << 20))
    waiting_until_s = time.monotonic() + READY_S
    began_s = began_cpu_s = 0.0
    while not began_s or time.monotonic() < began_s + seconds:
        for descriptor, _ in poller.poll(0.1):
            by_descriptor[descriptor].read(buffer)
        if not began_s:
            waiting = sum(viewer.frames < 2 for viewer in viewers)
            if not waiting:
                print("watching", flush=True)
                began_s, began_cpu_s = time.monotonic(), time.process_time()
                for viewer in viewers:
                    viewer.frames = 0
            elif time.monotonic() > waiting_until_s:
                raise Failed(f"{waiting} viewers without a frame")
    took_s = time.monotonic() - began_s
    result = {"cpu": (time.process_time() - began_cpu_s) / took_s}
    for kind in counts:
        rates = [viewer.frames / took_s for viewer in viewers if viewer.kind == kind]
        if rates:
            result |= {f"{kind}_slowest_fps": min(rates), f"{kind}_median_fps": median(rates)}
    return result


def main() -> None:
    port, mjpeg, mp4, seconds = sys.argv[1:]
    try:
        print(json.dumps(watch(int(port), {"mjpeg": int(mjpeg), "mp4": int(mp4)}, float(seconds))))
    except (Failed, OSError) as error:
        sys.exit(f"load_viewers: {error}")


if __name__ == "__main__":
    main()
