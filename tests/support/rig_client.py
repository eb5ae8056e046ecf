"""The portal in the rig, seen by its clients: ask it for something, watch its stream, compare what it shows.

Nothing of the portal is imported here, and MJPEG is read with a few lines of this file's own, so that both ends of it
are not one and the same code. Each `StreamClient` has one thread, which ends with its connection.
"""

import contextlib
import http.client
import io
import json
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt
from PIL import Image

from tests.rig.rig import BOTH, Rig, Running

PATIENCE_S = 20.0
_BLOCKS = (16, 9)  # pictures are recognised by the mean colours of so many columns and rows
_SAME = 5.0  # of 255: what scaling, limited chroma and two JPEG codings may make of a colour
_SHRUNK = (320, 180)
_POLL_S = 0.01  # the status can only be asked for

Picture = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back on one request."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes
    took_s: float

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def picture(self) -> Picture:
        return decode(self.body)

    @property
    def exposed_s(self) -> float:
        """When the picture was exposed, Unix time."""
        return float(self.headers["X-Timestamp"])


class Part(NamedTuple):
    """One picture of a stream: when it was exposed and came (Unix time, and on the monotonic clock), and its bytes."""

    exposed_s: float
    came_s: float
    came_monotonic_s: float
    jpeg: bytes


class Portal:
    """A portal that runs in the rig and listens."""

    def __init__(self, running: Running) -> None:
        self.running = running
        self.url = running.wait_for_line(r"Listening on (http://\S+)")[1].rstrip("/")
        self.port = urlsplit(self.url).port or 0

    def get(self, target: str, *, timeout_s: float = PATIENCE_S) -> Answer:
        began_s = time.monotonic()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_s)
        with contextlib.closing(connection):
            connection.request("GET", target)
            answer = connection.getresponse()
            body = answer.read()
        return Answer(answer.status, answer.headers, body, time.monotonic() - began_s)

    @property
    def status(self) -> Mapping[str, Any]:
        answer = self.get("/v1/camera/status")
        assert answer.status == 200, answer.body
        status: Mapping[str, Any] = answer.json
        return status

    def wait_for_status(self, within_s: float = PATIENCE_S, **wanted: object) -> Mapping[str, Any]:
        """The status as soon as it has these values."""
        seen: Mapping[str, Any] = {}

        def has_come() -> bool:
            nonlocal seen
            seen = self.status
            return all(seen[name] == value for name, value in wanted.items())

        wait_until(has_come, within_s, lambda: f"{wanted} in {seen}; the log:\n{self.running.output}")
        return seen

    def watch(self, target: str = "/stream.mjpg") -> "StreamClient":
        return StreamClient(self.port, target)


class StreamClient:
    """Watches a stream from construction on, and keeps when each picture came and the newest one."""

    def __init__(self, port: int, target: str) -> None:
        self._changed = threading.Condition(threading.Lock())  # guards the fields down to the next comment
        self._count = 0
        self._newest: Part | None = None
        self._ended = ""
        # Of the thread alone from here on, but for shutdown().
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
        self._target = target
        self._thread = threading.Thread(target=self._watch, name="rig-viewer", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.leave()

    @property
    def count(self) -> int:
        """How many pictures came so far."""
        with self._changed:
            return self._count

    @property
    def is_connected(self) -> bool:
        with self._changed:
            return not self._ended

    def wait_for_pictures(self, more: int, within_s: float = PATIENCE_S) -> Part:
        """The newest picture, when so many more than now have come."""
        with self._changed:
            wanted = self._count + more
            self._changed.wait_for(lambda: self._count >= wanted or bool(self._ended), within_s)
            assert self._count >= wanted, f"{wanted - self._count} of {more} pictures are missing {self._ended}"
            assert self._newest is not None
            return self._newest

    def wait_for(self, is_wanted: Callable[[Part], bool], within_s: float = PATIENCE_S) -> Part:
        """The first picture from now on that is wanted; not every picture may be asked about."""
        deadline_s = time.monotonic() + within_s
        while not is_wanted(part := self.wait_for_pictures(1, deadline_s - time.monotonic())):
            pass
        return part

    def wait_for_end(self, within_s: float = PATIENCE_S) -> str:
        """Why the connection ended, which the other side did."""
        self._thread.join(within_s)
        with self._changed:
            assert self._ended, f"still connected after {within_s} s"
            return self._ended

    def leave(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(PATIENCE_S)

    def _watch(self) -> None:
        try:
            with self._socket, self._socket.makefile("rb") as stream:
                self._socket.sendall(f"GET {self._target} HTTP/1.1\r\nHost: rig\r\n\r\n".encode())
                head = _lines(stream)
                if " 200 " not in head[0]:
                    raise ValueError(f"{head[0]}: {stream.read(4096)!r}")
                while True:
                    self._take(_part(stream))
        except (OSError, ValueError) as error:
            with self._changed:
                self._ended = f"({error})"
                self._changed.notify_all()

    def _take(self, part: Part) -> None:
        with self._changed:
            self._count += 1
            self._newest = part
            self._changed.notify_all()


def start_portal(
    rig: Rig,
    *arguments: str,
    cameras: Sequence[str] = BOTH,
    fps: float | None = None,
    env: Mapping[str, str] = {},
) -> Portal:
    """This checkout's portal with these flags, as soon as it listens. `cameras`, `fps` and `env` as in `Rig.start`."""
    return Portal(rig.start(rig.portal(*arguments), cameras=cameras, fps=fps, env=env))


def in_background(call: Callable[[], Answer]) -> Callable[[], Answer]:
    """Start a request in a thread; return a function that waits for the response."""
    answers: list[Answer] = []
    thread = threading.Thread(target=lambda: answers.append(call()), name="rig-request", daemon=True)
    thread.start()

    def wait() -> Answer:
        thread.join(PATIENCE_S)
        assert answers, f"no answer within {PATIENCE_S} s"
        return answers[0]

    return wait


def wait_until(predicate: Callable[[], bool], within_s: float, what: Callable[[], str]) -> None:
    """For what nobody announces; an AssertionError that says `what` did not come."""
    deadline_s = time.monotonic() + within_s
    while not predicate():
        assert time.monotonic() < deadline_s, f"within {within_s} s there was no {what()}"
        time.sleep(_POLL_S)


def decode(picture: bytes) -> Picture:
    """(height, width, 3) of red, green and blue."""
    with Image.open(io.BytesIO(picture)) as opened:
        return np.asarray(opened.convert("RGB"))


def colours(picture: Picture) -> npt.NDArray[np.float64]:
    """The mean colours of its blocks, (9, 16, 3)."""
    return np.asarray(Image.fromarray(picture).resize(_BLOCKS, Image.Resampling.BOX), dtype=np.float64)


def psnr_db(one: Picture, other: Picture) -> float:
    """How near two pictures of one size are."""
    error = np.mean((one.astype(np.float64) - other.astype(np.float64)) ** 2)
    return float(10 * np.log10(255**2 / error))


def shrunk(picture: Picture) -> Picture:
    """A sixth of a photograph, in which the filter that scaled it before no longer shows."""
    return np.asarray(Image.fromarray(picture).resize(_SHRUNK, Image.Resampling.BOX))


@cache
def photographs(root: Path) -> tuple[Picture, ...]:
    """What Virtual0 shows, in its order, 1920x1080 each."""
    paths = sorted((root / "opt/rig/pictures").glob("*.jpg"), key=lambda path: int(path.stem))
    return tuple(decode(path.read_bytes()) for path in paths)


def recognise(rig: Rig, picture: Picture) -> int:
    """Which of the photographs this is, by its colours; AssertionError when it is none of them."""
    seen = colours(picture)
    differences = [float(np.abs(seen - colours(photograph)).mean()) for photograph in photographs(rig.root)]
    nearest = int(np.argmin(differences))
    assert differences[nearest] < _SAME, f"no photograph is like this: mean differences {differences}"
    return nearest


def _lines(stream: io.BufferedReader) -> list[str]:
    """Up to an empty line, which is read too; the stream's end raises ValueError."""
    lines: list[str] = []
    while line := stream.readline():
        text = line.decode().rstrip("\r\n")
        if not text:
            return lines
        lines.append(text)
    raise ValueError("the stream ended")


def _part(stream: io.BufferedReader) -> Part:
    lines = _lines(stream)
    if lines[0] != "--frame":
        raise ValueError(f"no boundary but {lines[0]!r}")
    fields = {name: value for name, _, value in (line.partition(": ") for line in lines[1:])}
    if fields["Content-Type"] != "image/jpeg":
        raise ValueError(f"no picture but {fields}")
    jpeg = stream.read(int(fields["Content-Length"]))
    part = Part(float(fields["X-Timestamp"]), time.time(), time.monotonic(), jpeg)
    if stream.readline() != b"\r\n":
        raise ValueError("a part longer or shorter than its Content-Length")
    return part
