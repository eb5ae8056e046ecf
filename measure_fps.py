#!/usr/bin/env python3
"""Measures an MJPEG stream over HTTP: frame rate, gaps between frames, sizes and ages.

A single file that needs only the standard library, so that it can be copied to any machine. In this order: the parsers
(`JpegWalk`, `PictureReader`, without I/O, for input of any length), the `Statistics`, the client on top of
`http.client`, the report, `main`. Everything runs on the main thread.

Servers differ, so their announcements are not trusted: the delimiter between parts is learnt from the body, a part
without Content-Length is parsed from its SOI to its EOI marker, and lines may end in CRLF or LF.

Exit codes: 0 measured, 1 below --min-fps or above --max-gap, 2 usage, 3 cannot connect or no MJPEG.
"""

import argparse
import base64
import contextlib
import http.client
import io
import json
import math
import re
import signal
import socket
import ssl
import sys
import time
from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NoReturn, TextIO
from urllib.parse import quote, unquote, urljoin, urlsplit, urlunsplit

EXIT_OK: Final = 0
EXIT_MISSED: Final = 1
EXIT_USAGE: Final = 2
EXIT_NO_STREAM: Final = 3

DEFAULT_FRAMES: Final = 150
DEFAULT_DURATION_S: Final = 10.0
DEFAULT_TIMEOUT_S: Final = 10.0

RECEIVE_BYTES: Final = 256 * 1024  # larger reads gain nothing: sockets seldom hold more
LINE_LIMIT_BYTES: Final = 8 * 1024  # a longer "line" is binary data
REDIRECT_LIMIT: Final = 5
SLICE_S: Final = 0.25  # the longest single wait, so that the live line is updated
CLOCK_TOLERANCE_S: Final = 86400.0  # a larger difference means that X-Timestamp is not Unix time but, say, the uptime

Ended = Literal["frames", "duration", "stalled", "closed", "interrupted"]
ENDED_TEXT: Final[dict[Ended, str]] = {
    "frames": "enough frames",
    "duration": "enough time",
    "stalled": "no more frames",
    "closed": "the server ended the stream",
    "interrupted": "interrupted",
}


class ProbeError(Exception):
    """There is no MJPEG to measure; the message is one line for the user."""


# --- parsers, without I/O ----------------------------------------------------------------------------------------


class JpegWalk:
    """An incremental parser for one JPEG: finds its dimensions in the first few hundred bytes, and its end.

    Segments are skipped by their length, so the EOI marker of a thumbnail is not taken for the end.
    """

    _SOI, _EOI, _SOS = 0xD8, 0xD9, 0xDA
    _START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
    _WITHOUT_LENGTH = frozenset(range(0xD0, 0xD9)) | {0x01}

    __slots__ = ("_held", "_in_scan", "_skip_bytes", "_wanted_bytes", "dimensions", "has_ended", "is_jpeg")

    def __init__(self) -> None:
        self.is_jpeg = False
        self.has_ended = False
        self.dimensions: tuple[int, int] | None = None  # (width, height) in pixels
        self._held = b""
        self._wanted_bytes = 2
        self._skip_bytes = 0
        self._in_scan = False

    @property
    def is_past_header(self) -> bool:
        """Whether further bytes only show where the JPEG ends."""
        return self.dimensions is not None or self._in_scan

    def feed(self, data: memoryview) -> int:
        """The number of bytes of `data` up to the end of the JPEG, or -1 if it continues."""
        position = 0
        while position < len(data):
            if self._skip_bytes:
                step = min(self._skip_bytes, len(data) - position)
                self._skip_bytes -= step
                position += step
            elif self._in_scan:
                return self._find_end(data, position)
            else:
                piece = bytes(data[position : position + self._wanted_bytes - len(self._held)])
                position += len(piece)
                self._held += piece
                if len(self._held) == self._wanted_bytes:
                    self._on_marker(self._held)
                    if self.has_ended:
                        return position
        return -1

    def _on_marker(self, held: bytes) -> None:
        marker = held[1]
        if held[0] != 0xFF or (not self.is_jpeg and marker != self._SOI):
            self._in_scan, self._held = True, b""  # damaged, or not a JPEG: only its end can be found
            return
        if len(held) == 2:
            self.is_jpeg = True
            if marker == 0xFF:
                self._held = held[1:]  # markers may be padded in front
            elif marker == self._EOI:
                self.has_ended = True
            elif marker in self._WITHOUT_LENGTH:
                self._held = b""
            else:
                self._wanted_bytes = 9 if marker in self._START_OF_FRAME else 4
            return
        if marker in self._START_OF_FRAME:
            height, width = int.from_bytes(held[5:7], "big"), int.from_bytes(held[7:9], "big")
            self.dimensions = width, height
        self._skip_bytes = max(0, int.from_bytes(held[2:4], "big") - (len(held) - 2))
        self._in_scan = marker == self._SOS
        self._held, self._wanted_bytes = b"", 2

    def _find_end(self, data: memoryview, position: int) -> int:
        # In entropy-coded data each 0xFF is followed by a stuffed 0, so FF D9 can only be the EOI marker.
        coded = bytes(data[position:])
        if self._held and coded[0] == self._EOI:
            self.has_ended = True
            return position + 1
        at = coded.find(b"\xff\xd9")
        self.has_ended = at >= 0
        self._held = b"\xff" if coded.endswith(b"\xff") else b""
        return position + at + 2 if at >= 0 else -1


@dataclass(frozen=True, slots=True)
class Picture:
    """A completely received JPEG; `arrived_s` is the time of its last byte on the caller's clock."""

    arrived_s: float
    size_bytes: int
    dimensions: tuple[int, int] | None
    timestamp_s: float | None


class PictureReader:
    """Finds the JPEGs in a multipart body and keeps their sizes and times, not their bytes.

    Between JPEGs it reads lines. A line that starts with `--` is a delimiter, whatever boundary the server announced;
    `Name: value` is a header; an empty line after a Content-Length starts a JPEG of that length. Without a length, the
    next SOI marker starts a JPEG, which ends at its EOI marker or, if that is missing, at the next delimiter.
    """

    _SOI = b"\xff\xd8"

    def __init__(self) -> None:
        self._line = b""
        self._delimiter = b""
        self._headers: dict[bytes, bytes] = {}
        self._walk: JpegWalk | None = None  # for the current JPEG; None between JPEGs
        self._left_bytes: int | None = None  # of the current JPEG; None if its length is unknown
        self._size_bytes = 0
        self._tail = b""  # of a JPEG of unknown length: may hold the start of a delimiter
        self._fed_s = 0.0

    def feed(self, data: memoryview, now_s: float) -> list[Picture]:
        """Return the JPEGs that end in `data`, which was received at `now_s`."""
        pictures: list[Picture] = []
        while len(data):
            if self._walk is None:
                data = self._read_line(data)
            elif self._left_bytes is not None:
                data = self._count(self._walk, self._left_bytes, data, now_s, pictures)
            else:
                data = self._search(self._walk, data, now_s, pictures)
        self._fed_s = now_s
        return pictures

    def _read_line(self, data: memoryview) -> memoryview:
        piece = bytes(data[:LINE_LIMIT_BYTES])
        rest = data[len(piece) :]
        carried = len(self._line)
        line = self._line + piece
        newline, start = line.find(b"\n"), line.find(self._SOI)
        if start >= 0 and (newline < 0 or start < newline):
            self._line = b""
            self._begin(length_bytes=None)
            return memoryview(line[start:] + bytes(rest))
        if newline < 0:
            # Of an endless line only the last byte is kept: it may be the first half of an SOI marker.
            self._line = line if len(line) < LINE_LIMIT_BYTES else line[-1:]
            return rest
        self._line = b""
        self._on_line(line[:newline].strip())
        return data[newline + 1 - carried :]

    def _on_line(self, line: bytes) -> None:
        if line.startswith(b"--"):
            self._headers.clear()
            if line != self._delimiter + b"--":
                self._delimiter = line
        elif line:
            name, colon, value = line.partition(b":")
            if colon:
                self._headers[name.strip().lower()] = value.strip()
        else:
            length = self._headers.get(b"content-length", b"")
            if length.isdigit() and int(length) > 0:
                self._begin(int(length))

    def _begin(self, length_bytes: int | None) -> None:
        self._walk = JpegWalk()
        self._left_bytes = length_bytes
        self._size_bytes = 0
        self._tail = b""

    def _count(
        self, walk: JpegWalk, left_bytes: int, data: memoryview, now_s: float, pictures: list[Picture]
    ) -> memoryview:
        piece = data[:left_bytes]
        if not walk.is_past_header:
            walk.feed(piece)
        self._size_bytes += len(piece)
        self._left_bytes = left_bytes - len(piece)
        if self._left_bytes == 0:
            self._finish(walk, now_s, pictures)
        return data[len(piece) :]

    def _search(self, walk: JpegWalk, data: memoryview, now_s: float, pictures: list[Picture]) -> memoryview:
        end = walk.feed(data)
        # Two dashes alone may occur in coded data.
        needle = b"\n" + self._delimiter if len(self._delimiter) > 2 else None
        text = self._tail + bytes(data)
        found = -1 if needle is None else text.find(needle)
        cut = found - len(self._tail)
        if end >= 0 and (found < 0 or end <= cut):
            self._size_bytes += end
            self._finish(walk, now_s, pictures)
            return data[end:]
        if found >= 0:
            if text[found - 1 : found] == b"\r":
                cut -= 1
            self._size_bytes += cut
            # If the delimiter arrives with the next JPEG, this one was complete earlier.
            self._finish(walk, now_s if cut > 0 else self._fed_s, pictures)
            return memoryview(text[found + 1 :])
        self._size_bytes += len(data)
        self._tail = b"" if needle is None else text[-len(needle) :]
        return data[len(data) :]

    def _finish(self, walk: JpegWalk, arrived_s: float, pictures: list[Picture]) -> None:
        if walk.is_jpeg:
            pictures.append(Picture(arrived_s, self._size_bytes, walk.dimensions, self._read_timestamp()))
        self._walk = None
        self._headers.clear()

    def _read_timestamp(self) -> float | None:
        try:
            timestamp_s = float(self._headers.get(b"x-timestamp", b""))
        except ValueError:
            return None
        return timestamp_s if math.isfinite(timestamp_s) else None


# --- statistics --------------------------------------------------------------------------------------------------


def rank(ordered: Sequence[float], share: float) -> float | None:
    """The quantile `share` (0 to 1) of the ascending values, interpolated; None without values."""
    if not ordered:
        return None
    place = (len(ordered) - 1) * share
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


class Statistics:
    """The measurements: 24 bytes for each frame, 62 MB for a day at 30 fps."""

    def __init__(self) -> None:
        self._sizes_bytes = array("q")
        self._ages_s = array("d")
        self._arrivals_s = array("d")
        self.dimensions: Counter[tuple[int, int]] = Counter()
        self.longest_gap_s = 0.0

    def record(self, picture: Picture, unix_s: float) -> None:
        """Add a frame; `unix_s` is its arrival as Unix time, for its age."""
        if picture.dimensions is not None:
            self.dimensions[picture.dimensions] += 1
        if picture.timestamp_s is not None and abs(unix_s - picture.timestamp_s) < CLOCK_TOLERANCE_S:
            self._ages_s.append(unix_s - picture.timestamp_s)
        if self._arrivals_s:
            self.longest_gap_s = max(self.longest_gap_s, picture.arrived_s - self._arrivals_s[-1])
        self._sizes_bytes.append(picture.size_bytes)
        # Last: Ctrl+C may interrupt between any two lines, and the number of arrivals is the number of frames.
        self._arrivals_s.append(picture.arrived_s)

    @property
    def frames(self) -> int:
        return len(self._arrivals_s)

    @property
    def first_s(self) -> float | None:
        """The arrival of the first frame."""
        return self._arrivals_s[0] if self._arrivals_s else None

    @property
    def last_s(self) -> float | None:
        return self._arrivals_s[-1] if self._arrivals_s else None

    @property
    def span_s(self) -> float:
        """The time from the first arrival to the last."""
        return self._arrivals_s[-1] - self._arrivals_s[0] if self._arrivals_s else 0.0

    @property
    def fps(self) -> float | None:
        """The rate between the first arrival and the last; None without two different arrivals."""
        return (self.frames - 1) / self.span_s if self.span_s > 0 else None

    @property
    def sizes_bytes(self) -> list[int]:
        """The sizes of the frames, ascending."""
        return sorted(self._sizes_bytes[: self.frames])

    @property
    def total_bytes(self) -> int:
        return sum(self._sizes_bytes[: self.frames])

    @property
    def mbit_per_s(self) -> float | None:
        """The bandwidth of the JPEGs alone, without the first, whose transfer time is unknown."""
        if self.span_s <= 0:
            return None
        return (self.total_bytes - self._sizes_bytes[0]) * 8 / 1e6 / self.span_s

    @property
    def gaps_s(self) -> list[float]:
        """The times between arrivals, ascending."""
        arrivals_s = self._arrivals_s
        return sorted(arrivals_s[i] - arrivals_s[i - 1] for i in range(1, len(arrivals_s)))

    @property
    def ages_s(self) -> list[float]:
        """Arrival minus X-Timestamp, ascending; empty if no part had one."""
        return sorted(self._ages_s)


# --- the client --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Target:
    """The address of the stream, the credentials and the additional headers."""

    scheme: str
    host: str
    port: int
    path: str
    authorization: str | None
    headers: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, url: str, headers: Sequence[tuple[str, str]] = ()) -> "Target":
        """Raises ValueError with a message for the user."""
        parts = urlsplit(url if "://" in url else f"http://{url}")
        if parts.scheme not in ("http", "https"):
            raise ValueError(f"must be http or https, not {parts.scheme!r}")
        if not parts.hostname:
            raise ValueError("has no host")
        port = parts.port or (443 if parts.scheme == "https" else 80)
        authorization = None
        if parts.username is not None:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            authorization = "Basic " + base64.b64encode(pair.encode()).decode("ascii")
        path = quote(urlunsplit(("", "", parts.path or "/", parts.query, "")), safe="%/:=&?~#+!$,;'@()*[]")
        return cls(parts.scheme, parts.hostname, port, path, authorization, tuple(headers))

    def redirect(self, location: str) -> "Target":
        """The target of a redirect. Credentials are sent to the same host only, and never from https to http."""
        try:
            target = Target.parse(urljoin(self.url, location), self.headers)
        except ValueError as error:
            raise ProbeError(f"invalid redirect: {error}") from error
        is_trusted = target.host == self.host and target.scheme in (self.scheme, "https")
        return Target(
            target.scheme,
            target.host,
            target.port,
            target.path,
            target.authorization or (self.authorization if is_trusted else None),
            self.headers if is_trusted else (),
        )

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.scheme == "https" else 80) else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """The URL without user and password, for output."""
        return f"{self.scheme}://{self.authority}{self.path}"

    @property
    def fields(self) -> list[tuple[str, str]]:
        """The header of the request."""
        fields = {"Host": self.authority, "User-Agent": "measure_fps", "Accept": "*/*", "Connection": "close"}
        if self.authorization is not None:
            fields["Authorization"] = self.authorization
        replaced = {name.lower() for name, _ in self.headers}
        return [*((name, value) for name, value in fields.items() if name.lower() not in replaced), *self.headers]


class Wire(io.RawIOBase):
    """The socket as `http.client` reads it, with an overall deadline. It waits in slices, for the live line."""

    def __init__(self, connected: socket.socket, left_s: Callable[[], float]) -> None:
        """`left_s` is called before each wait and returns the seconds until the deadline."""
        self.left_s = left_s
        self._socket = connected

    def readable(self) -> bool:
        return True

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(self, RECEIVE_BYTES)

    def readinto(self, buffer: "memoryview") -> int:  # type: ignore[override]
        """Raises TimeoutError at the deadline."""
        while (left_s := self.left_s()) > 0:
            self._socket.settimeout(min(SLICE_S, left_s))
            with contextlib.suppress(TimeoutError):
                return self._socket.recv_into(buffer)
        raise TimeoutError


class Stream:
    """The response to the request. `target` is the address after redirects."""

    def __init__(self, target: Target, timeout_s: float, *, is_verified: bool = True) -> None:
        """Connect and read the header, each within `timeout_s`. Raises ProbeError."""
        for _ in range(REDIRECT_LIMIT + 1):
            self.target = target
            self._connection = _connect(target, timeout_s, is_verified=is_verified)
            try:
                self._request(timeout_s)
                location = self.response.getheader("Location")
                if self.response.status not in (301, 302, 303, 307, 308) or location is None:
                    self._check()
                    return
                target = target.redirect(location)
            except BaseException:
                self.close()
                raise
            self.close()
        raise ProbeError(f"more than {REDIRECT_LIMIT} redirects")

    def close(self) -> None:
        self._connection.close()

    def _request(self, timeout_s: float) -> None:
        deadline_s = time.monotonic() + timeout_s
        self.wire = Wire(self._connection.sock, lambda: deadline_s - time.monotonic())
        url = self.target.url
        try:
            self._connection.putrequest("GET", self.target.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.target.fields:
                self._connection.putheader(name, value.encode("latin-1", "replace"))
            self._connection.endheaders()
            self.response = http.client.HTTPResponse(self.wire, method="GET")  # type: ignore[arg-type]
            self.response.begin()
        except TimeoutError as error:
            raise ProbeError(f"{url}: no answer within {timeout_s:g} s") from error
        except http.client.RemoteDisconnected as error:
            raise ProbeError(f"{url}: the connection ended before an answer") from error
        except http.client.BadStatusLine as error:
            if str(error).startswith("HTTP/"):
                raise ProbeError(f"invalid status line: {str(error)[:80]!r}") from error
            raise ProbeError("the server does not speak HTTP") from error
        except http.client.HTTPException as error:
            raise ProbeError(f"invalid HTTP header: {error}") from error
        except OSError as error:
            raise ProbeError(f"{url}: {error.strerror or error}") from error

    def _check(self) -> None:
        response, url = self.response, self.target.url
        if response.status != 200:
            hint = ""
            if response.status == 401 and self.target.authorization is None:
                hint = " (use user:password@ in the URL, or --header)"
            raise ProbeError(f"{url}: the server answers {response.status} {response.reason}".rstrip() + hint)
        kind = (response.getheader("Content-Type") or "").partition(";")[0].strip().lower()
        if kind.startswith(("text/", "image/")) or kind.endswith("json"):
            raise ProbeError(f"{url}: the answer is {kind}, not an MJPEG stream")


def _connect(target: Target, timeout_s: float, *, is_verified: bool) -> http.client.HTTPConnection:
    connection = http.client.HTTPConnection(target.host, target.port, timeout=timeout_s)
    if target.scheme == "https":
        context = ssl.create_default_context()
        if not is_verified:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        connection = http.client.HTTPSConnection(target.host, target.port, timeout=timeout_s, context=context)
    try:
        connection.connect()
    except (OSError, UnicodeError) as error:
        connection.close()
        reason = str(getattr(error, "strerror", None) or error)
        if isinstance(error, TimeoutError):
            reason = f"no answer within {timeout_s:g} s"
        elif isinstance(error, ssl.SSLCertVerificationError):
            reason = f"{error.verify_message} (--insecure accepts any certificate)"
        raise ProbeError(f"cannot connect to {target.host} port {target.port}: {reason}") from error
    return connection


def measure(
    stream: Stream,
    statistics: Statistics,
    live: "LiveLine",
    *,
    frames: int | None,
    duration_s: float | None,
    timeout_s: float,
) -> Ended:
    """Read until there are enough frames, `duration_s` since the first frame, or `timeout_s` without a frame."""
    reader = PictureReader()
    started_s = time.monotonic()
    ended: Ended = "stalled"

    def left_s() -> float:
        nonlocal ended
        now_s = time.monotonic()
        live.show(statistics, now_s)
        left_s = (started_s if statistics.last_s is None else statistics.last_s) + timeout_s - now_s
        ended = "stalled"
        if duration_s is not None and statistics.first_s is not None:
            duration_left_s = statistics.first_s + duration_s - now_s
            if left_s > 0 and duration_left_s < left_s:
                ended, left_s = "duration", duration_left_s
        return left_s

    stream.wire.left_s = left_s
    try:
        while received := stream.response.read1(RECEIVE_BYTES):
            now_s, unix_s = time.monotonic(), time.time()
            for picture in reader.feed(memoryview(received), now_s):
                statistics.record(picture, unix_s)
                if statistics.frames == frames:
                    return "frames"
    except TimeoutError:
        return ended
    except (OSError, http.client.HTTPException):
        pass
    return "closed"


# --- the report --------------------------------------------------------------------------------------------------


class LiveLine:
    """A line on the terminal with the figures so far; no output if stderr is not a terminal."""

    PERIOD_S: Final = 0.25

    def __init__(self, output: TextIO) -> None:
        self._output = output if output.isatty() else None
        self._next_s = 0.0
        self._is_shown = False

    def show(self, statistics: Statistics, now_s: float) -> None:
        if self._output is None or now_s < self._next_s:
            return
        self._next_s = now_s + self.PERIOD_S
        if statistics.last_s is None:
            text = "waiting for frames"
        else:
            silence_s = now_s - statistics.last_s
            fps = "?" if statistics.fps is None else f"{statistics.fps:.2f}"
            text = (
                f"{statistics.frames} frames  {fps} fps  "
                f"{statistics.mbit_per_s or 0:.1f} Mbit/s  longest gap {statistics.longest_gap_s * 1000:.0f} ms"
            )
            if silence_s > 1:
                text += f"  silent for {silence_s:.0f} s"
        # Return to the start of the line and erase it.
        self._output.write(f"\r\x1b[K{text}")
        self._output.flush()
        self._is_shown = True

    def clear(self) -> None:
        if self._output is not None and self._is_shown:
            self._output.write("\r\x1b[K")
            self._output.flush()


@dataclass(frozen=True, slots=True)
class Report:
    """The figures, named as in the JSON output; None if unknown."""

    url: str
    ended: Ended
    frames: int
    span_s: float
    fps: float | None
    first_frame_s: float
    gap_median_s: float | None
    gap_p95_s: float | None
    gap_longest_s: float | None
    silence_at_end_s: float
    bytes: int
    mbit_per_s: float | None
    frame_min_bytes: int
    frame_median_bytes: int
    frame_max_bytes: int
    width: int | None
    height: int | None
    picture_sizes: dict[str, int]
    age_median_s: float | None
    age_p95_s: float | None
    age_longest_s: float | None
    missed: tuple[str, ...]

    def to_json(self) -> str:
        fields = {name: getattr(self, name) for name in self.__slots__}
        return json.dumps({k: round(v, 6) if isinstance(v, float) else v for k, v in fields.items()})

    def to_text(self) -> str:
        rows = [("frames", f"{self.frames} in {self.span_s:.2f} s, the first after {_ms(self.first_frame_s)}")]
        rows.append(("fps", "not known" if self.fps is None else f"{self.fps:.2f}"))
        if self.gap_longest_s is not None:
            rows.append(("gaps", _spread(self.gap_median_s, self.gap_p95_s, self.gap_longest_s)))
        pictures = ", ".join(f"{size} ({count})" for size, count in self.picture_sizes.items())
        if len(self.picture_sizes) == 1:
            pictures = f"{self.width} x {self.height}"
        rows.append(("picture", pictures or "size not known"))
        lightest, median, heaviest = self.frame_min_bytes, self.frame_median_bytes, self.frame_max_bytes
        rows.append(("bytes", f"median {median:,}, from {lightest:,} to {heaviest:,} a frame"))
        rate = "" if self.mbit_per_s is None else f", {self.mbit_per_s:.2f} Mbit/s"
        rows.append(("data", f"{self.bytes:,} bytes{rate}"))
        if self.age_longest_s is not None:
            rows.append(("age", _spread(self.age_median_s, self.age_p95_s, self.age_longest_s)))
        ended = ENDED_TEXT[self.ended]
        if self.ended == "stalled":
            ended += f" for {self.silence_at_end_s:.1f} s"
        rows.append(("ended", ended))
        rows += [("missed", text) for text in self.missed]
        return "\n".join(f"{name:<9}{text}" for name, text in rows)


def _ms(value_s: float | None) -> str:
    return "?" if value_s is None else f"{value_s * 1000:.1f} ms"


def _spread(median_s: float | None, p95_s: float | None, longest_s: float | None) -> str:
    return f"median {_ms(median_s)}, 95th {_ms(p95_s)}, longest {_ms(longest_s)}"


def judge(
    statistics: Statistics, ended: Ended, silence_s: float, min_fps: float | None, max_gap_s: float | None
) -> tuple[str, ...]:
    """A line for each missed limit; a stalled stream misses any frame rate, however fast it was before."""
    missed = []
    if min_fps is not None:
        if statistics.fps is None:
            missed.append(f"no frame rate from {statistics.frames} frame(s), wanted {min_fps:g} fps")
        elif statistics.fps < min_fps:
            missed.append(f"{statistics.fps:.2f} fps, wanted {min_fps:g}")
        elif ended == "stalled" and min_fps > 0:
            missed.append(f"no frame for the last {silence_s:.1f} s, wanted {min_fps:g} fps")
    if max_gap_s is not None and max(statistics.longest_gap_s, silence_s) > max_gap_s:
        longest_s = max(statistics.longest_gap_s, silence_s)
        missed.append(f"a gap of {longest_s:.3f} s, allowed {max_gap_s:g} s")
    return tuple(missed)


def summarise(
    url: str,
    statistics: Statistics,
    ended: Ended,
    *,
    asked_s: float,
    ended_s: float,
    min_fps: float | None,
    max_gap_s: float | None,
) -> Report:
    """Build the report of at least one frame; `asked_s` and `ended_s` are on the clock of the arrivals."""
    gaps_s, ages_s, sizes_bytes = statistics.gaps_s, statistics.ages_s, statistics.sizes_bytes
    silence_s = ended_s - (statistics.last_s or ended_s)
    dimensions = statistics.dimensions.most_common()
    width, height = dimensions[0][0] if dimensions else (None, None)
    return Report(
        url=url,
        ended=ended,
        frames=statistics.frames,
        span_s=statistics.span_s,
        fps=statistics.fps,
        first_frame_s=(statistics.first_s or ended_s) - asked_s,
        gap_median_s=rank(gaps_s, 0.5),
        gap_p95_s=rank(gaps_s, 0.95),
        gap_longest_s=gaps_s[-1] if gaps_s else None,
        silence_at_end_s=silence_s,
        bytes=statistics.total_bytes,
        mbit_per_s=statistics.mbit_per_s,
        frame_min_bytes=sizes_bytes[0],
        frame_median_bytes=round(rank(sizes_bytes, 0.5) or 0),
        frame_max_bytes=sizes_bytes[-1],
        width=width,
        height=height,
        picture_sizes={f"{w}x{h}": count for (w, h), count in dimensions},
        age_median_s=rank(ages_s, 0.5),
        age_p95_s=rank(ages_s, 0.95),
        age_longest_s=ages_s[-1] if ages_s else None,
        missed=judge(statistics, ended, silence_s, min_fps, max_gap_s),
    )


# --- main --------------------------------------------------------------------------------------------------------

EPILOG = f"""\
Without --frames and --duration it measures {DEFAULT_FRAMES} frames or {DEFAULT_DURATION_S:g} s, whichever is reached
first; with one of them, only that limit applies.
The frame rate is (frames - 1) / (last arrival - first arrival); a frame arrives when its last byte has been read.
The age is arrival minus X-Timestamp; it needs synchronised clocks on this machine and the camera's.

examples:
  measure_fps.py http://127.0.0.1:18081/stream.mjpg
  measure_fps.py http://127.0.0.1:18081/stream.mjpg --frames 150
  measure_fps.py http://user:password@camera.local:8081/stream.mjpg --duration 60
  measure_fps.py http://127.0.0.1:18081/stream.mjpg --header "X-API-Key: $KEY"
  measure_fps.py http://127.0.0.1:18081/stream.mjpg --min-fps 19 --max-gap 0.5 --json

keys of --json (null if unknown; *_s are seconds):
  url ended (frames, duration, stalled, closed, interrupted) frames span_s fps first_frame_s
  gap_median_s gap_p95_s gap_longest_s silence_at_end_s bytes mbit_per_s
  frame_min_bytes frame_median_bytes frame_max_bytes width height picture_sizes
  age_median_s age_p95_s age_longest_s missed (a line for each missed limit)

exit codes: 0 measured, 1 below --min-fps or above --max-gap, 2 usage, 3 cannot connect or no MJPEG
"""


class Parser(argparse.ArgumentParser):
    """Prints errors in one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_USAGE, f"{self.prog}: {message} (see --help)\n")


def _positive(text: str) -> float:
    value = float(text)
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"must be above 0, not {text!r}")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, not {text!r}")
    return value


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name) or re.search(r"[\r\n\0]", value):
        raise argparse.ArgumentTypeError("must look like 'Name: value'")
    return name, value.strip()


# argparse uses these names in its messages.
_positive.__name__ = "number"
_count.__name__ = "whole number"


def build_parser() -> Parser:
    parser = Parser(
        prog="measure_fps.py",
        description="Measure the frame rate of an MJPEG stream and its gaps.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("url", metavar="URL", help="http or https, user:password@ allowed; redirects are followed")
    parser.add_argument("--frames", type=_count, metavar="N", help="stop after N frames")
    parser.add_argument("--duration", type=_positive, metavar="S", help="stop S seconds after the first frame")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    parser.add_argument("--min-fps", type=_positive, metavar="F", help="exit 1 below F frames per second")
    parser.add_argument("--max-gap", type=_positive, metavar="S", help="exit 1 after a gap of more than S seconds")
    parser.add_argument(
        "--timeout",
        type=_positive,
        default=DEFAULT_TIMEOUT_S,
        metavar="S",
        help="stop after S seconds without an answer or a complete frame (%(default)g)",
    )
    parser.add_argument(
        "--header",
        type=_header,
        action="append",
        default=[],
        metavar="'NAME: VALUE'",
        help="additional header; may be repeated",
    )
    parser.add_argument("--insecure", action="store_true", help="https: accept any certificate")
    return parser


def run(options: argparse.Namespace, target: Target, statistics: Statistics) -> Report:
    """Measure with these options. Raises ProbeError if no frame arrived."""
    frames, duration_s = options.frames, options.duration
    if frames is None and duration_s is None:
        frames, duration_s = DEFAULT_FRAMES, DEFAULT_DURATION_S
    live = LiveLine(sys.stderr)
    asked_s = time.monotonic()
    ended: Ended = "interrupted"
    try:
        stream = Stream(target, options.timeout, is_verified=not options.insecure)
        target = stream.target
        with contextlib.closing(stream):
            ended = measure(stream, statistics, live, frames=frames, duration_s=duration_s, timeout_s=options.timeout)
    except KeyboardInterrupt:
        pass
    finally:
        live.clear()
    ended_s = time.monotonic()
    if not statistics.frames:
        waited = f"within {options.timeout:g} s" if ended == "stalled" else "before the stream ended"
        if ended == "interrupted":
            waited = "before the interruption"
        raise ProbeError(f"{target.url}: no JPEG {waited}")
    return summarise(
        target.url,
        statistics,
        ended,
        asked_s=asked_s,
        ended_s=ended_s,
        min_fps=options.min_fps,
        max_gap_s=options.max_gap,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = build_parser()
    options = parser.parse_args(arguments)
    try:
        target = Target.parse(options.url, options.header)
    except ValueError as error:
        parser.error(f"URL: {error}")
    # SIGTERM, as from `timeout 60 measure_fps.py …`, reports the figures as Ctrl+C does. A shell that starts a program
    # in the background makes it ignore SIGINT.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        report = run(options, target, Statistics())
    except ProbeError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return EXIT_NO_STREAM
    print(report.to_json() if options.json else report.to_text())
    return EXIT_MISSED if report.missed else EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
