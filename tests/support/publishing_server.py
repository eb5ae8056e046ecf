"""An RTSP server in the test's process that accepts every stream: each request succeeds, and everything is read."""

import contextlib
import socket
import threading
import time
from urllib.parse import urlsplit

from tests.support.timeouts import PATIENCE_S


class PublishingServer:
    """A thread per connection, and one that listens. `is_overriding`: a publisher that starts ends all others."""

    def __init__(self, *, is_overriding: bool = False) -> None:
        self._is_overriding = is_overriding
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._changed = threading.Condition()  # guards the fields down here
        self.requests: list[str] = []
        self.media = 0  # bytes of RTP
        self.media_s: dict[str, list[float]] = {}  # when RTP packets arrived, by the path of the stream
        self.connections: list[socket.socket] = []
        self.is_reading = True
        self.is_answering = True
        self._threads = [threading.Thread(target=self._listen, name="test server", daemon=True)]
        self._threads[0].start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.drop()
        with self._changed:
            self.is_reading = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(PATIENCE_S)

    def drop(self, but: socket.socket | None = None) -> None:
        """End all connections, except for `but`."""
        with self._changed:
            for connection in self.connections:
                if connection is not but:
                    with contextlib.suppress(OSError):
                        connection.shutdown(socket.SHUT_RDWR)

    def resume_reading(self) -> None:
        with self._changed:
            self.is_reading = True
            self._changed.notify_all()

    def count(self, method: str) -> int:
        with self._changed:
            return sum(line.startswith(method) for line in self.requests)

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                with self._changed:
                    self.connections.append(connection)
                thread = threading.Thread(target=self._serve, args=(connection,), name="test session", daemon=True)
                self._threads.append(thread)
                thread.start()

    def _serve(self, connection: socket.socket) -> None:
        path = ""
        with connection, connection.makefile("rb") as stream, contextlib.suppress(OSError, ValueError):
            while first := stream.read(1):
                with self._changed:
                    self._changed.wait_for(lambda: self.is_reading)
                if first == b"$":
                    channel, *length = stream.read(3)
                    stream.read(int.from_bytes(bytes(length), "big"))
                    with self._changed:
                        if channel == 0:
                            self.media += int.from_bytes(bytes(length), "big")
                            self.media_s.setdefault(path, []).append(time.monotonic())
                    continue
                line = (first + stream.readline()).decode().strip()
                fields = {}
                while field := stream.readline().decode().strip():
                    name, _, value = field.partition(": ")
                    fields[name] = value
                stream.read(int(fields.get("Content-Length", "0")))
                if line.startswith("ANNOUNCE "):
                    path = urlsplit(line.split()[1]).path.removeprefix("/")
                with self._changed:
                    self.requests.append(line)
                    if not self.is_answering:
                        continue
                if self._is_overriding and line.startswith("RECORD "):
                    self.drop(but=connection)
                extra = "Session: 1\r\nTransport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n"
                connection.sendall(f"RTSP/1.0 200 OK\r\nCSeq: {fields['CSeq']}\r\n{extra}\r\n".encode())
