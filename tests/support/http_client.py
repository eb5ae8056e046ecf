"""Clients of a portal process: single requests, and a stream client that checks every byte.

No product code is imported, so that both ends of the protocol have separate implementations. No threads: a client reads
when a method is called, with a timeout on its socket.
"""

import http.client
import json
import re
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt
import simplejpeg

from tests.conftest import Portal
from tests.support.timeouts import PATIENCE_S

# The placeholder is a few letters on a dark background; no camera frame is as uniform.
_DARK = 60
_EVEN = 0.8  # of all pixels
_POLL_S = 0.01


class Listening(Protocol):
    """A portal that listens on this machine: a process of the tests, or one in the rig."""

    @property
    def url(self) -> str: ...

    @property
    def log(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Answer:
    """The response to a request."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes
    took_s: float

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def exposed_s(self) -> float:
        """The time of the exposure, Unix time."""
        return float(self.headers["X-Timestamp"])

    @property
    def detail(self) -> str:
        """The message of an error, its only field."""
        content = self.json
        assert list(content) == ["detail"]
        assert isinstance(content["detail"], str)
        return content["detail"]


def ask(
    portal: Listening,
    target: str,
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
    timeout_s: float = PATIENCE_S,
) -> Answer:
    """Send one request on a new connection."""
    began_s = time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", port_of(portal), timeout=timeout_s)
    try:
        connection.request(method, target, body, headers=dict(headers or {}))
        answer = connection.getresponse()
        return Answer(answer.status, answer.headers, answer.read(), time.monotonic() - began_s)
    finally:
        connection.close()


def ask_for_still(portal: Listening, target: str) -> Answer:
    """Request a full-sensor still, again after a 503 with Retry-After.

    The pattern camera renders it in a second on an idle machine; a busy one may exceed the limit of a snapshot.
    """
    for _ in range(4):
        answer = ask(portal, target, timeout_s=60)
        if answer.status != 503 or "Retry-After" not in answer.headers:
            break
    return answer


def post(portal: Listening, target: str, content: Any, *, timeout_s: float = PATIENCE_S) -> Answer:
    """POST `content` as JSON."""
    body = json.dumps(content).encode()
    headers = {"Content-Type": "application/json"}
    return ask(portal, target, method="POST", headers=headers, body=body, timeout_s=timeout_s)


def reset(portal: Portal) -> None:
    """Reset the controls, release the camera and empty the log of a portal that tests share."""
    assert ask(portal, "/v1/camera/controls", method="DELETE").status == 200
    assert ask(portal, "/camera/stop", method="POST").status == 200
    portal.forget_log()


def port_of(portal: Listening) -> int:
    return urlsplit(portal.url).port or 0


def status_of(portal: Listening) -> Mapping[str, Any]:
    answer = ask(portal, "/v1/camera/status")
    assert answer.status == 200, answer.body
    status: Mapping[str, Any] = answer.json
    return status


def wait_for_status(portal: Listening, **wanted: object) -> Mapping[str, Any]:
    """Wait until the status has these values; return it."""
    deadline_s = time.monotonic() + PATIENCE_S
    while True:
        status = status_of(portal)
        if all(status[name] == value for name, value in wanted.items()):
            return status
        assert time.monotonic() < deadline_s, f"timed out waiting for {wanted}: {status}\n{portal.log}"
        time.sleep(_POLL_S)


@dataclass(frozen=True, slots=True)
class Part:
    """One frame of a stream: the lines of its header, the JPEG, and the arrival of its last byte (monotonic clock)."""

    lines: tuple[bytes, ...]
    jpeg: bytes
    came_s: float

    @property
    def timestamp_s(self) -> float:
        """The time of the exposure, Unix time."""
        found = [line.partition(b": ")[2] for line in self.lines if line.startswith(b"X-Timestamp: ")]
        assert len(found) == 1
        return float(found[0])

    @property
    def is_placeholder(self) -> bool:
        return is_notice(self.jpeg)


class StreamClient:
    """A client of a stream that checks every line of the protocol with assertions."""

    def __init__(
        self,
        portal: Listening,
        target: str = "/stream.mjpg",
        *,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = PATIENCE_S,
    ) -> None:
        """Send the request; do not wait for the response, whose head may take as long as the timeout."""
        self.asked_s = time.monotonic()
        self._socket = socket.create_connection(("127.0.0.1", port_of(portal)), timeout=timeout_s)
        extra = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
        self._socket.sendall(f"GET {target} HTTP/1.1\r\nHost: test\r\n{extra}\r\n".encode())
        self._stream = self._socket.makefile("rb")
        self._has_begun = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.leave()

    def head(self) -> tuple[bytes, dict[str, str]]:
        """Read the status line and the headers of the response."""
        first = self._line()
        fields = {}
        while line := self._line():
            name, _, value = line.decode("latin-1").partition(": ")
            assert name not in fields, f"{name} twice"
            fields[name] = value
        self._has_begun = True
        return first, fields

    def next(self, *, timeout_s: float = PATIENCE_S) -> Part:
        """Read the next frame. Raises TimeoutError if none arrives, and ConnectionError at the end of the stream."""
        if not self._has_begun:
            first, fields = self.head()
            assert first == b"HTTP/1.1 200 OK"
            assert fields["Content-Type"] == "multipart/x-mixed-replace;boundary=frame"
        self._socket.settimeout(timeout_s)
        assert self._line() == b"--frame"
        lines = []
        while line := self._line():
            lines.append(line)
        lengths = [line.removeprefix(b"Content-Length: ") for line in lines if line.startswith(b"Content-Length: ")]
        assert len(lengths) == 1
        length = int(lengths[0])
        jpeg = self._stream.read(length)
        assert len(jpeg) == length, "the stream ended within a frame"
        assert self._line() == b""
        return Part(tuple(lines), jpeg, time.monotonic())

    def next_where(self, is_placeholder: bool, *, timeout_s: float = PATIENCE_S) -> Part:
        """Read up to the next placeholder, or the next camera frame."""
        deadline_s = time.monotonic() + timeout_s
        while (part := self.next(timeout_s=timeout_s)).is_placeholder is not is_placeholder:
            assert time.monotonic() < deadline_s
        return part

    def boundary_came_with(self, part: Part) -> bool:
        """Whether the boundary after `part` arrived with it, long before the next frame is due."""
        boundary = b"--frame\r\n"
        while len(self._stream.peek()) < len(boundary):
            pass  # blocks until there is more
        return self._stream.peek().startswith(boundary) and time.monotonic() - part.came_s < 1

    def is_silent_for(self, seconds: float) -> bool:
        """Whether no byte arrives for this time, after all buffered frames were read."""
        self._socket.settimeout(seconds)
        try:
            while True:
                # Directly from the socket, as a buffered reader is unusable after a timeout: the client's last call.
                if not self._socket.recv(1 << 20):
                    return False
        except TimeoutError:
            return True

    def wait_for_end(self, *, timeout_s: float = PATIENCE_S) -> None:
        """Read until the portal closes the connection. Raises TimeoutError if it does not."""
        self._socket.settimeout(timeout_s)
        try:
            while self._stream.read(1 << 16):
                pass
        except ConnectionResetError:
            return

    def leave(self) -> None:
        self._stream.close()
        self._socket.close()

    def _line(self) -> bytes:
        line = self._stream.readline()
        if not line:
            raise ConnectionError("the stream ended")
        assert line.endswith(b"\r\n"), line
        return line[:-2]


def decode(jpeg: bytes) -> npt.NDArray[np.uint8]:
    """Decode to RGB, (height, width, 3)."""
    picture: npt.NDArray[np.uint8] = simplejpeg.decode_jpeg(jpeg, "RGB")
    return picture


def size_of(jpeg: bytes) -> tuple[int, int]:
    """The width and height of a JPEG."""
    height, width, _, _ = simplejpeg.decode_jpeg_header(jpeg)
    return width, height


def is_notice(jpeg: bytes) -> bool:
    """Whether this is the placeholder instead of a camera frame."""
    grey = simplejpeg.decode_jpeg(jpeg, "GRAY", min_width=1, min_height=1)[..., 0].astype(np.int16)
    ground = int(np.median(grey))
    return bool(ground < _DARK and np.mean(np.abs(grey - ground) < 8) > _EVEN)


# Process figures from the kernel


def cpu_s(pid: int) -> float:
    """The CPU time of the process in seconds, with a resolution of nanoseconds."""
    return time.clock_gettime((~pid << 3) | 2)  # CPUCLOCK_SCHED of a process, as clock_getcpuclockid(3) computes it


def resident_mb(pid: int) -> float:
    found = re.search(r"^VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024 / 1e6


def wake_ups(pid: int) -> dict[str, int]:
    """The voluntary context switches of each thread, one per wake-up."""
    counts = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        found = re.search(r"^voluntary_ctxt_switches:\s+(\d+)", (task / "status").read_text(), re.MULTILINE)
        assert found is not None
        counts[f"{(task / 'comm').read_text().strip()} {task.name}"] = int(found[1])
    return counts
