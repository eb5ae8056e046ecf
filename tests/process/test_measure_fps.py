"""Tests of measure_fps.py against stub servers, and of its parsers with any chunking.

Each stub server listens on a port that the system chooses, serves in its own thread, and stops at the end of the test.
"""

import contextlib
import json
import os
import pty
import random
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from hypothesis import given
from hypothesis import strategies as st

import measure_fps as probe

SCRIPT = Path(probe.__file__)
LIMIT_S = 30.0  # reached only by a failing test

# --- test data ---------------------------------------------------------------------------------------------------


def encode(width: int, height: int, seed: int = 0) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return bytes(simplejpeg.encode_jpeg(pixels, quality=80))


SMALL = encode(64, 48)
OTHER = encode(80, 32, seed=1)
# A JPEG with a thumbnail in its APP1 segment, whose EOI is not the end.
WITH_THUMBNAIL = SMALL[:2] + b"\xff\xe1" + (len(OTHER) + 8).to_bytes(2, "big") + b"Exif\0\0" + OTHER + SMALL[2:]


def part(
    picture: bytes, *, end: bytes = b"\r\n", boundary: bytes = b"frame", length: bool = True, stamp: str = ""
) -> bytes:
    lines = [b"--" + boundary, b"Content-Type: image/jpeg"]
    if length:
        lines.append(b"Content-Length: %d" % len(picture))
    if stamp:
        lines.append(b"X-Timestamp: " + stamp.encode())
    return end.join(lines) + end + end + picture + end


def head(
    content_type: str = "multipart/x-mixed-replace;boundary=frame",
    *,
    version: str = "1.1",
    end: str = "\r\n",
    extra: Sequence[str] = (),
) -> bytes:
    return (end.join([f"HTTP/{version} 200 OK", f"Content-Type: {content_type}", *extra]) + end + end).encode()


def chunked(body: bytes, seed: int = 1) -> bytes:
    chance = random.Random(seed)
    out = b""
    while body:
        size = chance.randint(1, 3000)
        out += b"%x;why=not\r\n" % len(body[:size]) + body[:size] + b"\r\n"
        body = body[size:]
    return out + b"0\r\n\r\n"


# --- the stub server ---------------------------------------------------------------------------------------------

Answer = Callable[[socket.socket, bytes], None]


class Stub:
    """Calls `answer(connection, request)` for each connection, then closes it."""

    def __init__(self, answer: Answer) -> None:
        self.requests: list[bytes] = []
        self.has_ended = threading.Event()  # set at the end of the test, for responses that keep a connection open
        self._answer = answer
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/stream.mjpg"
        self._thread = threading.Thread(target=self._serve, name="stub server")
        self._thread.start()

    def _serve(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            with connection:
                if self.has_ended.is_set():
                    return
                connection.settimeout(LIMIT_S)
                request = b""
                while not request.endswith(b"\r\n\r\n"):
                    request += connection.recv(4096)
                self.requests.append(request)
                # The probe disconnects when it has enough frames, which is not an error.
                with contextlib.suppress(ConnectionError):
                    self._answer(connection, request)

    def close(self) -> None:
        self.has_ended.set()
        socket.create_connection(("127.0.0.1", self.port)).close()
        self._thread.join(LIMIT_S)
        self._listener.close()
        assert not self._thread.is_alive()


ServerFactory = Callable[[Answer], Stub]


@pytest.fixture
def serve() -> Iterator[ServerFactory]:
    stubs: list[Stub] = []

    def start(answer: Answer) -> Stub:
        stubs.append(Stub(answer))
        return stubs[-1]

    yield start
    for stub in stubs:
        stub.close()


def send(data: bytes) -> Answer:
    return lambda connection, request: connection.sendall(data)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, SCRIPT, *arguments], capture_output=True, text=True, timeout=LIMIT_S, check=False
    )


def measured(*arguments: str) -> dict[str, object]:
    done = run(*arguments, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    figures = json.loads(done.stdout)
    assert isinstance(figures, dict)
    return figures


def assert_fails(done: subprocess.CompletedProcess[str], code: int, pattern: str) -> None:
    assert done.returncode == code
    assert done.stdout == ""
    assert re.fullmatch(r"measure_fps\.py: [^\n]+\n", done.stderr)
    assert re.search(pattern, done.stderr)


# --- servers of every habit --------------------------------------------------------------------------------------

PLAIN = [part(SMALL) for _ in range(6)]
HABITS = {
    "well behaved": head() + b"".join(PLAIN) + b"--frame\r\n",
    "closing delimiter": head() + b"".join(PLAIN) + b"--frame--\r\n",
    "no length": head() + b"".join(part(SMALL, length=False) for _ in range(6)) + b"--frame\r\n",
    "no length, thumbnails": head() + b"".join(part(WITH_THUMBNAIL, length=False) for _ in range(6)),
    "no length, no EOI": head() + b"".join(part(SMALL[:-2], length=False) for _ in range(6)) + b"--frame\r\n",
    "chunked": head(extra=["Transfer-Encoding: chunked"]) + chunked(b"".join(PLAIN)),
    "chunked, no length": head(extra=["Transfer-Encoding: Chunked"])
    + chunked(b"".join(part(SMALL, length=False) for _ in range(6))),
    "HTTP/1.0": head(version="1.0") + b"".join(PLAIN),
    "LF alone": head(end="\n") + b"".join(part(SMALL, end=b"\n") for _ in range(6)),
    "LF alone, no length": head(end="\n") + b"".join(part(SMALL, end=b"\n", length=False) for _ in range(6)),
    "quoted boundary": head('multipart/x-mixed-replace; boundary="frame"') + b"".join(PLAIN),
    "boundary with dashes": head("multipart/x-mixed-replace; boundary=--frame") + b"".join(PLAIN),
    "dashes doubled": head("multipart/x-mixed-replace; boundary=--frame")
    + b"".join(part(SMALL, boundary=b"--frame") for _ in range(6)),
    "another boundary than announced": head() + b"".join(part(SMALL, boundary=b"other") for _ in range(6)),
    "boundary without dashes": head() + b"".join(part(SMALL)[2:] for _ in range(6)),
    "no boundary announced": head("multipart/x-mixed-replace") + b"".join(PLAIN),
    "no content type": b"HTTP/1.1 200 OK\r\n\r\n" + b"".join(PLAIN),
    "nothing between the pictures": head("video/x-motion-jpeg") + SMALL * 6,
    "no first boundary": head() + b"".join(PLAIN)[len(b"--frame\r\n") :],
    "no line end behind the picture": head() + b"".join(one[:-2] for one in PLAIN),
    "a preamble": head() + b"This is a stream.\r\nNote: patience\r\n\r\n" + b"".join(PLAIN),
    "parts that are no pictures": head()
    + b"".join(one + b"--frame\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello\r\n" for one in PLAIN),
    "header names in capitals": head() + b"".join(one.replace(b"Content-Length", b"CONTENT-LENGTH") for one in PLAIN),
    "100 Continue first": b"HTTP/1.1 100 Continue\r\n\r\n" + head() + b"".join(PLAIN),
}


@pytest.mark.parametrize("habit", HABITS)
def test_stream_formats(serve: ServerFactory, habit: str) -> None:
    figures = measured(serve(send(HABITS[habit])).url)
    assert figures["frames"] == 6
    assert figures["ended"] == "closed"
    assert (figures["width"], figures["height"]) == (64, 48)
    size = {"no length, no EOI": len(SMALL) - 2, "no length, thumbnails": len(WITH_THUMBNAIL)}.get(habit, len(SMALL))
    assert figures["frame_min_bytes"] == figures["frame_max_bytes"] == size
    assert figures["bytes"] == 6 * size


def test_table_without_json(serve: ServerFactory) -> None:
    done = run(serve(send(HABITS["well behaved"])).url)
    assert (done.returncode, done.stderr) == (0, "")
    rows = dict(line.split(None, 1) for line in done.stdout.splitlines())
    assert list(rows) == ["frames", "fps", "gaps", "picture", "bytes", "data", "ended"]
    assert rows["frames"].startswith("6 in ")
    assert rows["picture"] == "64 x 48"
    assert rows["ended"] == "the server ended the stream"


def test_json_keys_match_help(serve: ServerFactory) -> None:
    figures = measured(serve(send(HABITS["well behaved"])).url)
    keys = run("--help").stdout.partition("keys of --json")[2].partition("exit codes")[0]
    assert all(re.search(rf"\b{key}\b", keys) for key in figures)
    numbers = ["frames", "span_s", "first_frame_s", "gap_median_s", "gap_p95_s", "gap_longest_s", "silence_at_end_s"]
    assert all(isinstance(figures[key], int | float) for key in numbers)
    assert [figures[key] for key in ("age_median_s", "age_p95_s", "age_longest_s", "missed")] == [None, None, None, []]
    assert figures["picture_sizes"] == {"64x48": 6}


@pytest.mark.measurement
def test_rate_of_steady_stream(serve: ServerFactory) -> None:
    sent_s: list[float] = []

    def answer(connection: socket.socket, request: bytes) -> None:
        connection.sendall(head())
        pace = threading.Event()
        for _ in range(20):
            connection.sendall(part(SMALL))
            sent_s.append(time.monotonic())
            pace.wait(0.02)

    figures = measured(serve(answer).url, "--frames", "20")
    assert figures["ended"] == "frames"
    rate = 19 / (sent_s[-1] - sent_s[0])
    assert figures["fps"] == pytest.approx(rate, rel=0.3)
    assert figures["gap_median_s"] <= figures["gap_p95_s"] <= figures["gap_longest_s"]  # type: ignore[operator]


def test_stop_after_frames(serve: ServerFactory) -> None:
    stub = serve(send(head() + part(SMALL) * 50))
    assert measured(stub.url, "--frames", "7")["frames"] == 7


def test_duration_starts_with_first_frame(serve: ServerFactory) -> None:
    def answer(connection: socket.socket, request: bytes) -> None:
        connection.sendall(head())
        for _ in range(100_000):
            connection.sendall(part(SMALL))

    figures = measured(serve(answer).url, "--duration", "0.3")
    assert figures["ended"] == "duration"
    assert isinstance(figures["frames"], int)
    assert figures["frames"] > probe.DEFAULT_FRAMES  # --duration disables the default


def test_ages_from_timestamps(serve: ServerFactory) -> None:
    def answer(connection: socket.socket, request: bytes) -> None:
        connection.sendall(head() + part(SMALL, stamp=f"{time.time() - 2:.6f}") * 3)
        # An uptime or an invalid value in that header is not an age.
        connection.sendall(part(SMALL, stamp="1234.5") + part(SMALL, stamp="nan") + part(SMALL, stamp="soon"))

    figures = measured(serve(answer).url)
    assert figures["frames"] == 6
    # Delays on a busy machine increase the ages; nothing decreases them.
    assert 2 <= figures["age_median_s"] <= figures["age_longest_s"] < 2 + LIMIT_S  # type: ignore[operator]


def test_frames_of_several_sizes(serve: ServerFactory) -> None:
    figures = measured(serve(send(head() + part(SMALL) * 3 + part(OTHER))).url)
    assert figures["picture_sizes"] == {"64x48": 3, "80x32": 1}
    assert (figures["width"], figures["height"]) == (64, 48)


def test_disconnect_within_a_frame(serve: ServerFactory) -> None:
    figures = measured(serve(send(head() + part(SMALL) * 4 + part(SMALL)[:-300])).url)
    assert (figures["frames"], figures["ended"]) == (4, "closed")


def test_damaged_chunks_end_stream(serve: ServerFactory) -> None:
    body = chunked(part(SMALL) * 4).removesuffix(b"0\r\n\r\n") + b"pardon?\r\n"
    figures = measured(serve(send(head(extra=["Transfer-Encoding: chunked"]) + body)).url)
    assert (figures["frames"], figures["ended"]) == (4, "closed")


# --- requests ----------------------------------------------------------------------------------------------------


def test_credentials_and_headers(serve: ServerFactory) -> None:
    stub = serve(send(HABITS["well behaved"]))
    url = stub.url.replace("http://", "http://ann:p%40ss@") + "?quality=50&x=ä"
    figures = measured(url, "--header", "X-API-Key: s3cret", "--header", "user-agent: other")
    request = stub.requests[0].decode()
    assert request.startswith("GET /stream.mjpg?quality=50&x=%C3%A4 HTTP/1.1\r\n")
    assert "\r\nAuthorization: Basic YW5uOnBAc3M=\r\n" in request
    assert "\r\nX-API-Key: s3cret\r\n" in request
    assert re.findall("(?i)user-agent: (.*)\r", request) == ["other"]
    assert f"\r\nHost: 127.0.0.1:{stub.port}\r\n" in request
    assert "ann" not in str(figures["url"])


def test_url_without_scheme(serve: ServerFactory) -> None:
    assert measured(serve(send(HABITS["well behaved"])).url.removeprefix("http://"))["frames"] == 6


def test_redirect_to_same_host_keeps_key(serve: ServerFactory) -> None:
    end = serve(send(HABITS["well behaved"]))
    start = serve(send(f"HTTP/1.1 302 Found\r\nLocation: {end.url}?moved\r\n\r\n".encode()))
    figures = measured(start.url, "--header", "X-API-Key: s3cret")
    assert figures["url"] == f"{end.url}?moved"
    assert b"s3cret" in end.requests[0]


def test_redirect_to_another_host_omits_key(serve: ServerFactory) -> None:
    end = serve(send(HABITS["well behaved"]))
    elsewhere = end.url.replace("127.0.0.1", "localhost")
    start = serve(send(f"HTTP/1.1 307 Moved\r\nLocation: {elsewhere}\r\n\r\n".encode()))
    measured(start.url.replace("http://", "http://ann:pass@"), "--header", "X-API-Key: s3cret")
    assert b"Authorization" in start.requests[0]
    assert b"s3cret" not in end.requests[0]
    assert b"Authorization" not in end.requests[0]


def test_relative_redirect() -> None:
    target = probe.Target.parse("https://ann:pass@host:8443/a/b?c").redirect("../d")
    assert (target.url, target.authorization is None) == ("https://host:8443/d", False)
    assert target.redirect("http://host/d").authorization is None


# --- exit codes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "pattern"),
    [
        (b"HTTP/1.1 404 Not Found\r\n\r\n", "404 Not Found"),
        (b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic\r\n\r\n", "401 Unauthorized .*user:password"),
        (b"HTTP/1.0 503\r\n\r\n", "503"),
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html>", "text/html, not an MJPEG"),
        (b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\n\r\n" + SMALL, "image/jpeg, not an MJPEG"),
        (head() + b"--frame\r\nContent-Length: 3\r\n\r\nabc", "no JPEG before the stream ended"),
        (head() + part(SMALL)[:-50], "no JPEG"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "does not speak HTTP"),
        (b"HTTP/1.1 whatever\r\n\r\n", "status line"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20_000, "invalid HTTP header"),
        (b"", "ended before an answer"),
        (b"HTTP/1.1 302 Found\r\nLocation: ftp://127.0.0.1/\r\n\r\n", "invalid redirect"),
        (b"HTTP/1.1 302 Found\r\nLocation: /again\r\n\r\n", "more than 5 redirects"),
    ],
)
def test_exit_3_without_mjpeg(serve: ServerFactory, answer: bytes, pattern: str) -> None:
    assert_fails(run(serve(send(answer)).url), 3, pattern)


def test_exit_3_for_refused_connection() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but not listening: no other process can get the port
        port = taken.getsockname()[1]
        assert_fails(
            run(f"http://127.0.0.1:{port}/"), 3, f"cannot connect to 127.0.0.1 port {port}: Connection refused"
        )


def test_exit_3_for_https_at_plain_server() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def reply() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=reply)
        thread.start()
        assert_fails(run(f"https://127.0.0.1:{port}/"), 3, "cannot connect")
        thread.join(LIMIT_S)


@pytest.mark.parametrize(
    ("arguments", "pattern"),
    [
        ([], "URL"),
        (["ftp://127.0.0.1/"], "must be http or https"),
        (["http://"], "has no host"),
        (["http://127.0.0.1:99999/"], "[Pp]ort"),
        (["http://127.0.0.1/", "--frames", "0"], "--frames"),
        (["http://127.0.0.1/", "--frames", "many"], "--frames.*whole number"),
        (["http://127.0.0.1/", "--duration", "nan"], "--duration"),
        (["http://127.0.0.1/", "--timeout", "-1"], "--timeout"),
        (["http://127.0.0.1/", "--header", "X-API-Key"], "--header"),
        (["http://127.0.0.1/", "--header", "X: a\r\nY: b"], "--header"),
        (["http://127.0.0.1/", "--fps", "3"], "--fps"),
    ],
)
def test_exit_2_for_usage(arguments: list[str], pattern: str) -> None:
    assert_fails(run(*arguments), 2, pattern)


def paced(count: int, pause_s: float) -> Answer:
    def answer(connection: socket.socket, request: bytes) -> None:
        connection.sendall(head())
        pace = threading.Event()
        for _ in range(count):
            connection.sendall(part(SMALL))
            pace.wait(pause_s)

    return answer


@pytest.mark.parametrize(
    ("limits", "missed"),
    [
        (["--min-fps", "1"], []),
        (["--max-gap", "25"], []),
        (["--min-fps", "1000"], ["fps, wanted 1000"]),
        (["--max-gap", "0.01"], ["allowed 0.01 s"]),
        (["--min-fps", "1000", "--max-gap", "0.01"], ["fps, wanted 1000", "allowed 0.01 s"]),
    ],
)
def test_exit_1_for_missed_limits(serve: ServerFactory, limits: list[str], missed: list[str]) -> None:
    done = run(serve(paced(5, 0.02)).url, "--json", *limits)
    assert done.returncode == (1 if missed else 0)
    lines = json.loads(done.stdout)["missed"]
    assert len(lines) == len(missed)
    assert all(wanted in line for wanted, line in zip(missed, lines, strict=True))


def test_one_frame_has_no_rate(serve: ServerFactory) -> None:
    done = run(serve(send(head() + part(SMALL))).url, "--min-fps", "1")
    assert done.returncode == 1
    assert "no frame rate from 1 frame" in done.stdout


# --- stalls and interruptions ------------------------------------------------------------------------------------


def stalling(serve: ServerFactory, data: bytes) -> Stub:
    def answer(connection: socket.socket, request: bytes) -> None:
        connection.sendall(data)
        with contextlib.suppress(ConnectionError):
            connection.recv(1)  # until the probe disconnects

    return serve(answer)


@pytest.mark.parametrize("limit", [["--min-fps", "1"], ["--max-gap", "0.2"]])
def test_stall_misses_any_limit(serve: ServerFactory, limit: list[str]) -> None:
    done = run(stalling(serve, head() + part(SMALL) * 5).url, "--json", "--timeout", "0.3", *limit)
    figures = json.loads(done.stdout)
    assert (done.returncode, figures["ended"], figures["frames"]) == (1, "stalled", 5)
    assert figures["silence_at_end_s"] >= 0.3


def test_stall_without_limits(serve: ServerFactory) -> None:
    done = run(stalling(serve, head() + part(SMALL) * 5).url, "--timeout", "0.3")
    assert done.returncode == 0
    assert "no more frames for 0.3 s" in done.stdout


@pytest.mark.parametrize(
    ("data", "pattern"),
    [
        (b"", "no answer within 0.3 s"),
        (b"HTTP/1.1 200 OK\r\nContent-", "no answer within 0.3 s"),
        (head(), "no JPEG within 0.3 s"),
        (head() + part(SMALL)[:-50], "no JPEG within 0.3 s"),
    ],
)
def test_exit_3_for_stall_before_first_frame(serve: ServerFactory, data: bytes, pattern: str) -> None:
    assert_fails(run(stalling(serve, data).url, "--timeout", "0.3"), 3, pattern)


def test_exit_3_for_trickle_without_frame(serve: ServerFactory) -> None:
    def answer(connection: socket.socket, request: bytes) -> None:
        connection.sendall(head() + b"--frame\r\nContent-Length: 1000000\r\n\r\n\xff\xd8")
        pace = threading.Event()
        for _ in range(1000):
            connection.sendall(b"\0")
            pace.wait(0.02)

    assert_fails(run(serve(answer).url, "--timeout", "0.3"), 3, "no JPEG within 0.3 s")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("count", [0, 5])
def test_interruption_prints_figures(serve: ServerFactory, number: signal.Signals, count: int) -> None:
    begun = threading.Event()

    def answer(connection: socket.socket, request: bytes) -> None:
        connection.sendall(head() + part(SMALL) * count)
        begun.set()
        with contextlib.suppress(ConnectionError):
            connection.recv(1)

    stub = serve(answer)
    # A terminal as stderr gets the live line, which shows when the frames are counted.
    controller, terminal = pty.openpty()
    with subprocess.Popen(
        [sys.executable, SCRIPT, stub.url, "--json"], stdout=subprocess.PIPE, stderr=terminal, text=True
    ) as process:
        os.close(terminal)
        shown = read_until(controller, b"5 frames" if count else b"waiting for frames")
        assert begun.wait(LIMIT_S)
        process.send_signal(number)
        out, _ = process.communicate(timeout=LIMIT_S)
    shown += read_until(controller, None)
    os.close(controller)
    if count:
        figures = json.loads(out)
        assert (process.returncode, figures["ended"], figures["frames"]) == (0, "interrupted", 5)
        assert b"fps" in shown
    else:
        assert (process.returncode, out) == (3, "")
        assert b"no JPEG before the interruption" in shown


def read_until(descriptor: int, wanted: bytes | None) -> bytes:
    """Read the terminal's output up to `wanted`, or to its end."""
    shown = b""
    deadline_s = time.monotonic() + LIMIT_S
    while wanted is None or wanted not in shown:
        ready, _, _ = select.select([descriptor], [], [], max(0, deadline_s - time.monotonic()))
        assert ready, f"{wanted!r} not in {shown!r}"
        try:
            shown += os.read(descriptor, 4096)
        except OSError:  # EIO: the last process has closed the terminal
            assert wanted is None, shown
            break
    return shown


# --- the parsers, without I/O ------------------------------------------------------------------------------------


def cut(data: bytes, places: Sequence[int]) -> list[memoryview]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [memoryview(data)[low:high] for low, high in pairwise(edges)]


def read_all(pieces: Sequence[memoryview]) -> list[probe.Picture]:
    reader = probe.PictureReader()
    return [picture for number, piece in enumerate(pieces) for picture in reader.feed(piece, float(number))]


PLACES = st.lists(st.integers(0, 1 << 30), max_size=40)
PICTURES = st.lists(st.sampled_from([SMALL, OTHER, WITH_THUMBNAIL]), min_size=1, max_size=4)


@given(
    PICTURES, PLACES, st.sampled_from([b"\r\n", b"\n"]), st.booleans(), st.sampled_from([b"frame", b"--f", b"x" * 70])
)
def test_any_chunking(pictures: list[bytes], places: list[int], end: bytes, length: bool, boundary: bytes) -> None:
    body = b"".join(part(one, end=end, length=length, boundary=boundary, stamp="7.5") for one in pictures)
    found = read_all(cut(body + b"--" + boundary + end, places))
    assert [one.size_bytes for one in found] == [len(one) for one in pictures]
    assert [one.dimensions for one in found] == [(80, 32) if one is OTHER else (64, 48) for one in pictures]
    assert {one.timestamp_s for one in found} == {7.5}


@given(PLACES)
def test_any_chunking_of_truncated_frames(places: list[int]) -> None:
    assert [one.size_bytes for one in read_all(cut(SMALL * 3, places))] == [len(SMALL)] * 3
    body = part(SMALL[:-2], length=False) * 3 + b"--frame"
    assert [one.size_bytes for one in read_all(cut(body, places))] == [len(SMALL) - 2] * 3


@given(st.lists(st.binary(max_size=300), max_size=20))
def test_random_input(pieces: list[bytes]) -> None:
    views = [memoryview(piece) for piece in pieces]
    found = read_all(views)
    assert sum(one.size_bytes for one in found) <= sum(len(piece) for piece in pieces)


def test_arrival_time_is_that_of_last_byte() -> None:
    one, cut_one = part(SMALL), part(SMALL[:-2], length=False)
    reader = probe.PictureReader()
    assert reader.feed(memoryview(one[:-10]), 1.0) == []
    assert [picture.arrived_s for picture in reader.feed(memoryview(one[-10:]), 2.0)] == [2.0]
    # A delimiter that arrives with the next frame ends a JPEG that was complete earlier.
    assert reader.feed(memoryview(cut_one), 3.0) == []
    assert [picture.arrived_s for picture in reader.feed(memoryview(b"--frame\r\n"), 9.0)] == [3.0]


def test_statistics() -> None:
    statistics = probe.Statistics()
    for arrived_s in (10.0, 10.1, 10.2, 10.6):
        statistics.record(probe.Picture(arrived_s, 1_000_000, (640, 480), None), 0.0)
    report = probe.summarise("http://x/", statistics, "duration", asked_s=9.5, ended_s=11.6, min_fps=4.9, max_gap_s=0.5)
    assert report.fps == pytest.approx(5.0)
    assert report.first_frame_s == pytest.approx(0.5)
    assert report.gap_median_s == pytest.approx(0.1)
    assert report.gap_longest_s == pytest.approx(0.4)
    assert report.gap_p95_s == pytest.approx(0.1 + 0.9 * 0.3)
    assert report.mbit_per_s == pytest.approx(40.0)
    assert (report.bytes, report.width, report.height) == (4_000_000, 640, 480)
    assert report.missed == ("a gap of 1.000 s, allowed 0.5 s",)  # the silence at the end counts as a gap


def test_standard_library_only() -> None:
    imported = set(re.findall(r"^(?:import|from) (\w+)", SCRIPT.read_text(), re.MULTILINE))
    assert imported <= sys.stdlib_module_names
