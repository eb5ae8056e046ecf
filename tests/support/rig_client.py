"""Clients of a portal in the rig: requests, streams, and the comparison of images with the rig's photographs.

No product code is imported, so that both ends of the protocol have separate implementations. Each `StreamClient` has
one thread, which ends with its connection.
"""

import contextlib
import io
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt
from PIL import Image

from tests.rig.rig import BOTH, Rig, Running
from tests.support.http_client import Answer, ask, status_of, wait_for_status
from tests.support.timeouts import PATIENCE_S

_BLOCKS = (16, 9)  # images are recognised by the mean colours of this many columns and rows
_SAME = 5.0  # mean colour difference (of 255) that scaling, limited chroma and two JPEG codings may cause
_SHRUNK = (320, 180)
_POLL_S = 0.01

Picture = npt.NDArray[np.uint8]


class Part(NamedTuple):
    """One frame of a stream: the times of exposure and arrival (Unix time and monotonic clock), and the JPEG."""

    exposed_s: float
    came_s: float
    came_monotonic_s: float
    jpeg: bytes


class Portal:
    """A portal in the rig, which listens."""

    def __init__(self, running: Running) -> None:
        self.running = running
        self.url = running.wait_for_line(r"Listening on (http://\S+)")[1].rstrip("/")
        self.port = urlsplit(self.url).port or 0

    @property
    def log(self) -> str:
        return self.running.output

    def get(self, target: str, *, timeout_s: float = PATIENCE_S) -> Answer:
        return ask(self, target, timeout_s=timeout_s)

    @property
    def status(self) -> Mapping[str, Any]:
        return status_of(self)

    def wait_for_status(self, **wanted: object) -> Mapping[str, Any]:
        """Wait until the status has these values; return it."""
        return wait_for_status(self, **wanted)

    def watch(self, target: str = "/stream.mjpg") -> "StreamClient":
        return StreamClient(self.port, target)


class StreamClient:
    """Reads a stream in a thread, counts its frames and keeps the newest one."""

    def __init__(self, port: int, target: str) -> None:
        self._changed = threading.Condition(threading.Lock())  # guards the fields down to the next comment
        self._count = 0
        self._newest: Part | None = None
        self._ended = ""
        # Used only by the thread, except for shutdown().
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
        """The number of frames received."""
        with self._changed:
            return self._count

    @property
    def is_connected(self) -> bool:
        with self._changed:
            return not self._ended

    def wait_for_pictures(self, more: int, within_s: float = PATIENCE_S) -> Part:
        """Wait for this many more frames; return the newest one."""
        with self._changed:
            wanted = self._count + more
            self._changed.wait_for(lambda: self._count >= wanted or bool(self._ended), within_s)
            assert self._count >= wanted, f"{wanted - self._count} of {more} frames are missing {self._ended}"
            assert self._newest is not None
            return self._newest

    def wait_for(self, is_wanted: Callable[[Part], bool], within_s: float = PATIENCE_S) -> Part:
        """Return the next frame for which the predicate is true; frames may be skipped."""
        deadline_s = time.monotonic() + within_s
        while not is_wanted(part := self.wait_for_pictures(1, deadline_s - time.monotonic())):
            pass
        return part

    def wait_for_end(self, within_s: float = PATIENCE_S) -> str:
        """Wait until the portal closes the connection; return the error."""
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
    """Start this checkout's portal and wait until it listens. `cameras`, `fps` and `env` as for `Rig.start`."""
    return Portal(rig.start(rig.portal(*arguments), cameras=cameras, fps=fps, env=env))


def in_background(call: Callable[[], Answer]) -> Callable[[], Answer]:
    """Start a request in a thread; return a function that waits for the response."""
    answers: list[Answer] = []
    thread = threading.Thread(target=lambda: answers.append(call()), name="rig-request", daemon=True)
    thread.start()

    def wait() -> Answer:
        thread.join(PATIENCE_S)
        assert answers, f"no response within {PATIENCE_S} s"
        return answers[0]

    return wait


def wait_until(predicate: Callable[[], bool], what: Callable[[], str]) -> None:
    """Poll until the predicate is true. Raises AssertionError with `what()` after the limit."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not predicate():
        assert time.monotonic() < deadline_s, f"within {PATIENCE_S} s there was no {what()}"
        time.sleep(_POLL_S)


def decode(picture: bytes) -> Picture:
    """Decode to RGB, (height, width, 3)."""
    with Image.open(io.BytesIO(picture)) as opened:
        return np.asarray(opened.convert("RGB"))


def colours(picture: Picture) -> npt.NDArray[np.float64]:
    """The mean colours of the blocks, (9, 16, 3)."""
    return np.asarray(Image.fromarray(picture).resize(_BLOCKS, Image.Resampling.BOX), dtype=np.float64)


def psnr_db(one: Picture, other: Picture) -> float:
    """The peak signal-to-noise ratio of two images of the same size."""
    error = np.mean((one.astype(np.float64) - other.astype(np.float64)) ** 2)
    return float(10 * np.log10(255**2 / error))


def shrunk(picture: Picture) -> Picture:
    """The image at 320x180, in which differences between scaling filters no longer matter."""
    return np.asarray(Image.fromarray(picture).resize(_SHRUNK, Image.Resampling.BOX))


@cache
def photographs(root: Path) -> tuple[Picture, ...]:
    """The photographs of Virtual0 in their order, 1920x1080."""
    paths = sorted((root / "opt/rig/pictures").glob("*.jpg"), key=lambda path: int(path.stem))
    return tuple(decode(path.read_bytes()) for path in paths)


def recognise(rig: Rig, picture: Picture) -> int:
    """Return the index of the photograph with these colours. Raises AssertionError if there is none."""
    seen = colours(picture)
    differences = [float(np.abs(seen - colours(photograph)).mean()) for photograph in photographs(rig.root)]
    nearest = int(np.argmin(differences))
    assert differences[nearest] < _SAME, f"no photograph is like this: mean differences {differences}"
    return nearest


def _lines(stream: io.BufferedReader) -> list[str]:
    """Read the lines up to and including an empty one. Raises ValueError at the end of the stream."""
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
        raise ValueError(f"expected a boundary: {lines[0]!r}")
    fields = {name: value for name, _, value in (line.partition(": ") for line in lines[1:])}
    if fields["Content-Type"] != "image/jpeg":
        raise ValueError(f"expected image/jpeg: {fields}")
    jpeg = stream.read(int(fields["Content-Length"]))
    part = Part(float(fields["X-Timestamp"]), time.time(), time.monotonic(), jpeg)
    if stream.readline() != b"\r\n":
        raise ValueError("the length of a part differs from its Content-Length")
    return part
