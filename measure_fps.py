#!/usr/bin/env python3
"""Measures an MJPEG stream over HTTP: frame rate, gaps between frames, sizes and ages.

A single file that needs only the standard library, so that it can be copied to any machine. In this order: the parsers
(`JpegWalk`, `PictureReader`, without I/O), the `Statistics`, the client on top of `http.client`, the report, `main`.
Everything runs on the main thread.

Servers differ, so their announcements are not trusted: the delimiter between parts is learnt from the body, a part
without Content-Length is parsed from its SOI to its EOI marker, and lines may end in CRLF or LF.

Exit codes: 0 measured, 1 below --min-fps or above --max-gap, 2 usage, 3 cannot connect or no MJPEG.
"""

import argparse
import base64
import contextlib
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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from http.client import BadStatusLine, HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection, RemoteDisconnected
from itertools import pairwise
from statistics import median, quantiles
from typing import Any, Final, NamedTuple, NoReturn, TextIO
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
JPEG_LIMIT_BYTES: Final = 64 * 1024 * 1024  # a longer "JPEG" is something else
REDIRECT_LIMIT: Final = 5
DEFAULT_PORTS: Final = {"http": 80, "https": 443}
SLICE_S: Final = 0.25  # the longest single wait, so that the live line is updated
CLOCK_TOLERANCE_S: Final = 86400.0  # a larger difference means that X-Timestamp is not Unix time but, say, the uptime

SOI: Final = b"\xff\xd8"  # the markers at the start and at the end of a JPEG
EOI: Final = b"\xff\xd9"

Figures = dict[str, Any]  # named as in the JSON output; None if unknown
ENDED_TEXT: Final = {
    "frames": "frame limit reached",
    "duration": "time limit reached",
    "stalled": "stream stalled",
    "closed": "the server closed the stream",
    "interrupted": "interrupted",
}


class ProbeError(Exception):
    """There is no MJPEG to measure; the message is one line for the user."""


class JpegWalk:
    """Finds the dimensions and the end of the JPEG at the start of a buffer that grows.

    Segments are skipped by their length, so the EOI marker of a thumbnail is not taken for the end.
    """

    _EOI, _SOS = 0xD9, 0xDA
    _START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
    _WITHOUT_LENGTH = frozenset(range(0xD0, 0xD9)) | {0x01}
    _LONGEST_HEADER = 9  # of a frame, up to its width

    def __init__(self, length_bytes: int = 0) -> None:
        self.length_bytes = length_bytes  # as announced; 0 if unknown
        self.dimensions: tuple[int, int] | None = None  # (width, height) in pixels
        self._at = len(SOI)
        self._is_in_scan = False
        self._searched_bytes = 0  # for a delimiter

    def find_end(self, data: bytes | bytearray) -> int:
        """The length of the JPEG, or -1 if it continues after `data`, which starts with what it was before."""
        while not self._is_in_scan and self._at + self._LONGEST_HEADER <= len(data):
            header = data[self._at : self._at + self._LONGEST_HEADER]
            marker = header[1]
            if header[0] != 0xFF:
                self._is_in_scan = True  # damaged: only its end can be found
            elif marker == 0xFF:
                self._at += 1  # markers may be padded in front
            elif marker == self._EOI:
                return self._at + 2
            elif marker in self._WITHOUT_LENGTH:
                self._at += 2
            else:
                if marker in self._START_OF_FRAME:
                    self.dimensions = int.from_bytes(header[7:9], "big"), int.from_bytes(header[5:7], "big")
                self._at += 2 + max(2, int.from_bytes(header[2:4], "big"))
                self._is_in_scan = marker == self._SOS
        if not self._is_in_scan:
            return -1
        # In entropy-coded data each 0xFF is followed by a stuffed 0, so FF D9 can only be the EOI marker.
        end = data.find(EOI, self._at)
        self._at = max(self._at, len(data) - 1)
        return -1 if end < 0 else end + len(EOI)

    def find_delimiter(self, data: bytearray, delimiter: bytes) -> int:
        """The position of the delimiter, or -1 if it is not in `data`, which starts with what it was before."""
        found = data.find(delimiter, self._searched_bytes)
        self._searched_bytes = max(0, len(data) - len(delimiter))
        return found


class Picture(NamedTuple):
    """A completely received JPEG; `arrived_s` is the time of its last byte on the caller's clock."""

    arrived_s: float
    size_bytes: int
    dimensions: tuple[int, int] | None
    timestamp_s: float  # not finite if unknown


class PictureReader:
    """Finds the JPEGs in a multipart body.

    Between JPEGs it reads lines. A line that starts with `--` is a delimiter, whatever boundary the server announced;
    `Name: value` is a header; an empty line after a Content-Length starts a JPEG of that length. Without a length, the
    next SOI marker starts a JPEG, which ends at its EOI marker or, if that is missing, at the next delimiter.
    """

    def __init__(self) -> None:
        self._data = bytearray()  # that was not read yet
        self._fresh_bytes = 0  # at the end of that: what arrived with the latest `feed`
        self._fed_s = 0.0
        self._delimiter = b""
        self._headers: dict[bytes, bytes] = {}
        self._walk: JpegWalk | None = None  # for the current JPEG; None between JPEGs

    def feed(self, data: bytes | memoryview, now_s: float) -> list[Picture]:
        """The JPEGs that end in `data`, which was received at `now_s`."""
        self._data += data
        self._fresh_bytes = len(data)
        pictures: list[Picture] = []
        while self._read_line() if self._walk is None else self._read_jpeg(self._walk, now_s, pictures):
            pass
        self._fed_s = now_s
        return pictures

    def _read_line(self) -> bool:
        """Read a line, or what precedes a JPEG; False if neither is complete."""
        newline = self._data.find(b"\n")
        start = self._data.find(SOI, 0, newline if newline >= 0 else len(self._data))
        if start >= 0:
            del self._data[:start]
            self._walk = JpegWalk()
        elif newline >= 0:
            line = bytes(self._data[:newline]).strip()
            del self._data[: newline + 1]
            self._on_line(line)
        else:
            if len(self._data) > LINE_LIMIT_BYTES:
                del self._data[:-1]  # the last byte may be the first half of an SOI marker
            return False
        return True

    def _on_line(self, line: bytes) -> None:
        name, colon, value = line.partition(b":")
        if line.startswith(b"--"):
            self._headers.clear()
            if line != self._delimiter + b"--":
                self._delimiter = line
        elif colon:
            self._headers[name.strip().lower()] = value.strip()
        elif not line:
            length = self._headers.get(b"content-length", b"")
            if length.isdigit() and 0 < int(length) <= JPEG_LIMIT_BYTES:
                self._walk = JpegWalk(int(length))

    def _read_jpeg(self, walk: JpegWalk, now_s: float, pictures: list[Picture]) -> bool:
        """Read the rest of the current JPEG; False if it continues after the data."""
        end = walk.length_bytes
        if end:
            if len(self._data) < end:
                return False
            walk.find_end(self._data[:end])
        else:
            end = walk.find_end(self._data)
            # Two dashes alone may occur in coded data.
            found = walk.find_delimiter(self._data, b"\n" + self._delimiter) if len(self._delimiter) > 2 else -1
            if found >= 0 and not 0 <= end <= found:
                end = found - (self._data[found - 1 : found] == b"\r")
            if end < 0:
                if len(self._data) <= JPEG_LIMIT_BYTES:
                    return False
                end = len(self._data)
        if self._data.startswith(SOI) and end <= JPEG_LIMIT_BYTES:
            try:
                timestamp_s = float(self._headers.get(b"x-timestamp", b""))
            except ValueError:
                timestamp_s = math.nan
            # If the delimiter arrived with the next JPEG, this one was complete earlier.
            arrived_s = now_s if end > len(self._data) - self._fresh_bytes else self._fed_s
            pictures.append(Picture(arrived_s, end, walk.dimensions, timestamp_s))
        del self._data[:end]
        self._walk = None
        self._headers.clear()
        return True


class Statistics:
    """The measurements: 24 bytes for each frame, 62 MB for a day at 30 fps."""

    def __init__(self) -> None:
        self.arrivals_s = array("d")
        self.sizes_bytes = array("q")
        self.ages_s = array("d")  # arrival minus X-Timestamp, of the frames that have one
        self.dimensions: Counter[tuple[int, int]] = Counter()
        self.longest_gap_s = 0.0

    def record(self, picture: Picture, unix_s: float) -> None:
        """Add a frame; `unix_s` is its arrival as Unix time, for its age."""
        if picture.dimensions is not None:
            self.dimensions[picture.dimensions] += 1
        if abs(unix_s - picture.timestamp_s) < CLOCK_TOLERANCE_S:
            self.ages_s.append(unix_s - picture.timestamp_s)
        if self.arrivals_s:
            self.longest_gap_s = max(self.longest_gap_s, picture.arrived_s - self.arrivals_s[-1])
        self.sizes_bytes.append(picture.size_bytes)
        # Last: Ctrl+C may interrupt between any two lines, and the number of arrivals is the number of frames.
        self.arrivals_s.append(picture.arrived_s)

    @property
    def frames(self) -> int:
        return len(self.arrivals_s)

    @property
    def span_s(self) -> float:
        """The time from the first arrival to the last."""
        return self.arrivals_s[-1] - self.arrivals_s[0] if self.arrivals_s else 0.0

    @property
    def fps(self) -> float | None:
        """The rate between the first arrival and the last; None without two different arrivals."""
        return (self.frames - 1) / self.span_s if self.span_s > 0 else None

    @property
    def mbit_per_s(self) -> float | None:
        """The bandwidth of the JPEGs alone, without the first, whose transfer time is unknown."""
        return sum(self.sizes_bytes[1 : self.frames]) * 8 / 1e6 / self.span_s if self.span_s > 0 else None


def spread(name: str, values: Sequence[float]) -> dict[str, float | None]:
    """The median, the 95th percentile and the maximum; None without values."""
    p95 = quantiles(values, n=20, method="inclusive")[-1] if len(values) > 1 else max(values, default=None)
    middle = median(values) if values else None
    return {f"{name}_median_s": middle, f"{name}_p95_s": p95, f"{name}_longest_s": max(values, default=None)}


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
        if parts.scheme not in DEFAULT_PORTS:
            raise ValueError(f"must be http or https, not {parts.scheme!r}")
        if not parts.hostname:
            raise ValueError("must have a host")
        port = parts.port or DEFAULT_PORTS[parts.scheme]
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
        if target.host == self.host and target.scheme in (self.scheme, "https"):
            return replace(target, authorization=target.authorization or self.authorization)
        return replace(target, headers=())

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """The URL without user, password and key, for output."""
        return f"{self.scheme}://{self.authority}" + re.sub(r"(?<=[?&]key=)[^&]*", "***", self.path)

    @property
    def fields(self) -> list[tuple[str, str]]:
        """The header of the request."""
        fields = {"Host": self.authority, "User-Agent": "measure_fps", "Accept": "*/*", "Connection": "close"}
        if self.authorization is not None:
            fields["Authorization"] = self.authorization
        replaced = {name.lower() for name, _ in self.headers}
        return [*((name, value) for name, value in fields.items() if name.lower() not in replaced), *self.headers]


class Wire(io.RawIOBase):
    """The socket as `http.client` reads it, with a deadline for all reads. Calls `on_wait` at least every `SLICE_S`."""

    def __init__(self, connected: socket.socket, timeout_s: float, on_wait: Callable[[float], None]) -> None:
        self._socket = connected
        self._deadline_s = time.monotonic() + timeout_s
        self._on_wait = on_wait

    def set_deadline(self, deadline_s: float) -> None:
        self._deadline_s = deadline_s

    def readable(self) -> bool:
        return True

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(self, RECEIVE_BYTES)

    def readinto(self, buffer: "memoryview") -> int:  # type: ignore[override]
        """Raises TimeoutError at the deadline."""
        while (now_s := time.monotonic()) < self._deadline_s:
            self._on_wait(now_s)
            self._socket.settimeout(min(SLICE_S, self._deadline_s - now_s))
            with contextlib.suppress(TimeoutError):
                return self._socket.recv_into(buffer)
        raise TimeoutError


@contextlib.contextmanager
def open_stream(
    target: Target, timeout_s: float, on_wait: Callable[[float], None], *, is_verified: bool
) -> Iterator[tuple[Target, Wire, HTTPResponse]]:
    """The response, and the target after redirects. Connecting and the header may take `timeout_s` each."""
    for _ in range(REDIRECT_LIMIT + 1):
        with contextlib.closing(_connect(target, timeout_s, is_verified=is_verified)) as connection:
            wire = Wire(connection.sock, timeout_s, on_wait)
            response = _request(target, connection, wire, timeout_s)
            location = response.getheader("Location")
            if response.status in (301, 302, 303, 307, 308) and location is not None:
                target = target.redirect(location)
                continue
            if response.status != 200:
                needs_hint = response.status == 401 and target.authorization is None
                hint = " (use user:password@ in the URL, or --header)" if needs_hint else ""
                status = f"{response.status} {response.reason}".rstrip()
                raise ProbeError(f"{target.url}: the server returned {status}{hint}")
            kind = response.getheader("Content-Type", "").partition(";")[0].strip().lower()
            if kind.startswith(("text/", "image/")) or kind.endswith("json"):
                raise ProbeError(f"{target.url}: the server returned {kind}, not an MJPEG stream")
            yield target, wire, response
            return
    raise ProbeError(f"more than {REDIRECT_LIMIT} redirects")


def _connect(target: Target, timeout_s: float, *, is_verified: bool) -> HTTPConnection:
    connection = HTTPConnection(target.host, target.port, timeout=timeout_s)
    if target.scheme == "https":
        context = ssl.create_default_context()
        if not is_verified:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        connection = HTTPSConnection(target.host, target.port, timeout=timeout_s, context=context)
    try:
        connection.connect()
    except (OSError, UnicodeError) as error:
        connection.close()
        reason = str(getattr(error, "strerror", None) or error)
        if isinstance(error, TimeoutError):
            reason = f"no response within {timeout_s:g} s"
        elif isinstance(error, ssl.SSLCertVerificationError):
            reason = f"{error.verify_message} (--insecure accepts any certificate)"
        raise ProbeError(f"cannot connect to {target.host} port {target.port}: {reason}") from error
    return connection


def _request(target: Target, connection: HTTPConnection, wire: Wire, timeout_s: float) -> HTTPResponse:
    response = HTTPResponse(wire, method="GET")  # type: ignore[arg-type]
    try:
        connection.putrequest("GET", target.path, skip_host=True, skip_accept_encoding=True)
        for name, value in target.fields:
            connection.putheader(name, value.encode("latin-1", "replace"))
        connection.endheaders()
        response.begin()
    except TimeoutError as error:
        raise ProbeError(f"{target.url}: no response within {timeout_s:g} s") from error
    except RemoteDisconnected as error:
        raise ProbeError(f"{target.url}: the server closed the connection without a response") from error
    except BadStatusLine as error:
        if str(error).startswith("HTTP/"):
            raise ProbeError(f"invalid status line: {str(error)[:80]!r}") from error
        raise ProbeError("the server does not speak HTTP") from error
    except HTTPException as error:
        raise ProbeError(f"invalid HTTP header: {error}") from error
    except OSError as error:
        raise ProbeError(f"{target.url}: {error.strerror or error}") from error
    return response


class LiveLine:
    """A line on the terminal with the figures so far; no output if `output` is not a terminal."""

    def __init__(self, output: TextIO) -> None:
        self._output = output
        self._next_s = 0.0

    def show(self, statistics: Statistics, now_s: float) -> None:
        """Update the line, unless that was done a moment ago."""
        if now_s < self._next_s:
            return
        self._next_s = now_s + SLICE_S
        text = "waiting for frames"
        if statistics.frames:
            fps = "?" if statistics.fps is None else f"{statistics.fps:.2f}"
            text = (
                f"{statistics.frames} frames  {fps} fps  "
                f"{statistics.mbit_per_s or 0:.1f} Mbit/s  longest gap {statistics.longest_gap_s * 1000:.0f} ms"
            )
            silence_s = now_s - statistics.arrivals_s[-1]
            if silence_s > 1:
                text += f"  silent for {silence_s:.0f} s"
        self.write(text)

    def write(self, text: str) -> None:
        if self._output.isatty():
            # Return to the start of the line and erase it.
            print(f"\r\x1b[K{text}", end="", file=self._output, flush=True)


def measure(wire: Wire, response: HTTPResponse, statistics: Statistics, options: argparse.Namespace) -> str:
    """Read until there are enough frames, `duration` since the first one, or `timeout` without one."""
    reader = PictureReader()
    stall_s = deadline_s = time.monotonic() + options.timeout
    wire.set_deadline(deadline_s)
    try:
        while received := response.read1(RECEIVE_BYTES):
            now_s, unix_s = time.monotonic(), time.time()
            for picture in reader.feed(received, now_s):
                statistics.record(picture, unix_s)
                stall_s = picture.arrived_s + options.timeout
                deadline_s = min(stall_s, statistics.arrivals_s[0] + (options.duration or math.inf))
                wire.set_deadline(deadline_s)
                if statistics.frames == options.frames:
                    return "frames"
    except TimeoutError:
        return "stalled" if deadline_s == stall_s else "duration"
    except (OSError, HTTPException):
        pass
    return "closed"


def summarise(url: str, statistics: Statistics, ended: str, asked_s: float, ended_s: float) -> Figures:
    """The figures of at least one frame; `asked_s` and `ended_s` are on the clock of the arrivals."""
    arrivals_s, sizes_bytes = statistics.arrivals_s, statistics.sizes_bytes[: statistics.frames]
    dimensions = statistics.dimensions.most_common()
    width, height = dimensions[0][0] if dimensions else (None, None)
    return {
        "url": url,
        "ended": ended,
        "frames": statistics.frames,
        "span_s": statistics.span_s,
        "fps": statistics.fps,
        "first_frame_s": arrivals_s[0] - asked_s,
        **spread("gap", [after - before for before, after in pairwise(arrivals_s)]),
        "silence_at_end_s": ended_s - arrivals_s[-1],
        "bytes": sum(sizes_bytes),
        "mbit_per_s": statistics.mbit_per_s,
        "frame_min_bytes": min(sizes_bytes),
        "frame_median_bytes": round(median(sizes_bytes)),
        "frame_max_bytes": max(sizes_bytes),
        "width": width,
        "height": height,
        "picture_sizes": {f"{w}x{h}": count for (w, h), count in dimensions},
        **spread("age", statistics.ages_s),
    }


def judge(figures: Figures, min_fps: float | None, max_gap_s: float | None) -> list[str]:
    """A line for each missed limit; a stalled stream misses any frame rate, however fast it was before."""
    missed = []
    fps, silence_s = figures["fps"], figures["silence_at_end_s"]
    if min_fps is not None:
        if fps is None:
            missed.append(f"fps: unknown after {figures['frames']} frame(s); minimum {min_fps:g}")
        elif fps < min_fps:
            missed.append(f"fps: {fps:.2f}; minimum {min_fps:g}")
        elif figures["ended"] == "stalled":
            missed.append(f"fps: no frame for the last {silence_s:.1f} s; minimum {min_fps:g}")
    longest_s = max(figures["gap_longest_s"] or 0, silence_s)
    if max_gap_s is not None and longest_s > max_gap_s:
        missed.append(f"longest gap: {longest_s:.3f} s; maximum {max_gap_s:g} s")
    return missed


def to_text(figures: Figures) -> str:
    def ms(name: str) -> str:
        return f"{figures[name] * 1000:.1f} ms"

    def spread_of(kind: str) -> str | None:
        if figures[f"{kind}_longest_s"] is None:
            return None
        return f"median {ms(f'{kind}_median_s')}, 95th {ms(f'{kind}_p95_s')}, longest {ms(f'{kind}_longest_s')}"

    fps, mbit_per_s, sizes = figures["fps"], figures["mbit_per_s"], figures["picture_sizes"]
    pictures = ", ".join(f"{size} ({count})" for size, count in sizes.items()) or "unknown size"
    lightest, middle, heaviest = (figures[f"frame_{which}_bytes"] for which in ("min", "median", "max"))
    stall = f": no frame for {figures['silence_at_end_s']:.1f} s" if figures["ended"] == "stalled" else ""
    rows = (
        ("frames", f"{figures['frames']} in {figures['span_s']:.2f} s, first frame after {ms('first_frame_s')}"),
        ("fps", "unknown" if fps is None else f"{fps:.2f}"),
        ("gaps", spread_of("gap")),
        ("picture", f"{figures['width']} x {figures['height']}" if len(sizes) == 1 else pictures),
        ("bytes", f"median {middle:,}, from {lightest:,} to {heaviest:,} a frame"),
        ("data", f"{figures['bytes']:,} bytes" + ("" if mbit_per_s is None else f", {mbit_per_s:.2f} Mbit/s")),
        ("age", spread_of("age")),
        ("ended", ENDED_TEXT[figures["ended"]] + stall),
        *(("missed", text) for text in figures["missed"]),
    )
    return "\n".join(f"{name:<9}{text}" for name, text in rows if text is not None)


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
        self.exit(EXIT_USAGE, f"{self.prog}: {message.removeprefix('argument ')} (see --help)\n")


def _positive(parse: Callable[[str], float], kind: str) -> Callable[[str], float]:
    def parse_positive(text: str) -> float:
        with contextlib.suppress(ValueError):
            if 0 < (value := parse(text)) < math.inf:
                return value
        raise argparse.ArgumentTypeError(f"must be {kind} above 0, not {text!r}")

    return parse_positive


def _header(text: str) -> tuple[str, str]:
    match = re.fullmatch(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):([^\r\n\0]*)", text)
    if match is None:
        raise argparse.ArgumentTypeError("must be 'Name: value'")
    return match[1], match[2].strip()


def build_parser() -> Parser:
    parser = Parser(
        prog="measure_fps.py",
        description="Measure the frame rate of an MJPEG stream and its gaps.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add, seconds, count = parser.add_argument, _positive(float, "a number"), _positive(int, "an integer")
    add("url", metavar="URL", help="http or https, optionally with user:password@; redirects are followed")
    add("--frames", type=count, metavar="N", help="stop after N frames")
    add("--duration", type=seconds, metavar="S", help="stop S seconds after the first frame")
    add("--json", action="store_true", help="print one JSON object instead of the table")
    add("--min-fps", type=seconds, metavar="F", help="exit 1 below F frames per second")
    add("--max-gap", type=seconds, metavar="S", help="exit 1 after a gap of more than S seconds")
    patience = "stop after S seconds without a response or a complete frame (%(default)g)"
    add("--timeout", type=seconds, default=DEFAULT_TIMEOUT_S, metavar="S", help=patience)
    header_help = "additional header; may be repeated"
    add("--header", type=_header, action="append", default=[], metavar="'NAME: VALUE'", help=header_help)
    add("--insecure", action="store_true", help="https: accept any certificate")
    return parser


def run(options: argparse.Namespace, target: Target) -> Figures:
    """The figures of a measurement with these options. Raises ProbeError if no frame arrived."""
    timeout_s = options.timeout
    if options.frames is None and options.duration is None:
        options.frames, options.duration = DEFAULT_FRAMES, DEFAULT_DURATION_S
    statistics, live = Statistics(), LiveLine(sys.stderr)
    on_wait = partial(live.show, statistics)
    asked_s = time.monotonic()
    ended = "interrupted"
    try:
        with open_stream(target, timeout_s, on_wait, is_verified=not options.insecure) as (target, wire, response):
            ended = measure(wire, response, statistics, options)
    except KeyboardInterrupt:
        pass
    finally:
        live.write("")
    if not statistics.frames:
        waited = {"stalled": f"within {timeout_s:g} s", "interrupted": "before the interruption"}
        raise ProbeError(f"{target.url}: no JPEG {waited.get(ended, 'before the stream ended')}")
    figures = summarise(target.url, statistics, ended, asked_s, time.monotonic())
    return figures | {"missed": judge(figures, options.min_fps, options.max_gap)}


def main(arguments: Sequence[str] | None = None) -> int:
    if isinstance(sys.stdout, io.TextIOWrapper):  # what is shown need not be text in the encoding of the terminal
        sys.stdout.reconfigure(errors="backslashreplace")
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
        figures = run(options, target)
    except ProbeError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return EXIT_NO_STREAM
    if options.json:
        print(json.dumps({name: round(v, 6) if isinstance(v, float) else v for name, v in figures.items()}))
    else:
        print(to_text(figures))
    return EXIT_MISSED if figures["missed"] else EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
