"""A typical MJPEG server in Python: `http.server`, a thread per client, a condition that wakes them for each frame.

    thread_per_viewer.py REEL FPS

Plays a reel (see c/reel.h) to every client at 127.0.0.1, on a port that the system chooses. It has the structure of the
MJPEG server in Picamera2's examples, which many programs start from: header lines and JPEG are separate writes, and the
clients share only the newest JPEG.
"""

import itertools
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from reel import read_reel

STAMP_AT = slice(14, 22)  # the position of the time in a JPEG, see reel.h


class Newest:
    """The newest JPEG, and the condition that guards it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._picture = b""

    def put(self, picture: bytes) -> None:
        with self._changed:
            self._picture = picture
            self._changed.notify_all()

    def wait(self) -> bytes:
        with self._changed:
            self._changed.wait()
            return self._picture


class StreamClient(BaseHTTPRequestHandler):
    newest: Newest

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=FRAME")
        self.end_headers()
        try:
            while True:
                picture = self.newest.wait()
                self.wfile.write(b"--FRAME\r\n")
                self.send_header("Content-Type", "image/jpeg")
                self.send_header("Content-Length", str(len(picture)))
                self.end_headers()
                self.wfile.write(picture)
                self.wfile.write(b"\r\n")
        except ConnectionError:
            return  # the client disconnected

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002, ARG002  (named by the base class)
        return


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024  # a hundred clients may connect at once


def play(pictures: list[bytes], fps: float, newest: Newest) -> None:
    due_s = time.monotonic()
    for picture in itertools.cycle(pictures):
        due_s += 1 / fps
        time.sleep(max(0.0, due_s - time.monotonic()))
        stamped = bytearray(picture)
        stamped[STAMP_AT] = time.monotonic_ns().to_bytes(8, "little")
        newest.put(bytes(stamped))


def main() -> None:
    pictures, fps = read_reel(Path(sys.argv[1])), float(sys.argv[2])
    StreamClient.newest = Newest()
    with Server(("127.0.0.1", 0), StreamClient) as server:
        print(f"Listening on http://127.0.0.1:{server.server_port}/", flush=True)
        threading.Thread(target=play, args=(pictures, fps, StreamClient.newest), name="reel", daemon=True).start()
        server.serve_forever()


if __name__ == "__main__":
    main()
