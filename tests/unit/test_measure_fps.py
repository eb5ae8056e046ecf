"""measure_fps.py against servers of many habits; its `main` runs in this process."""

import json
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pytest

import measure_fps as probe
from tests.support.mjpeg_server import (
    HABITS,
    OTHER,
    SMALL,
    WITH_THUMBNAIL,
    Answer,
    Stub,
    chunked,
    head,
    paced,
    part,
    send,
    stalling,
)
from tests.support.timeouts import PATIENCE_S

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


@dataclass
class Done:
    returncode: int
    stdout: str
    stderr: str


class Probe:
    def __init__(self, output: pytest.CaptureFixture[str]) -> None:
        self._output = output

    def run(self, *arguments: str) -> Done:
        try:
            code = probe.main(arguments)
        except SystemExit as leaving:
            code = int(leaving.code or 0)
        return Done(code, *self._output.readouterr())

    def measure(self, *arguments: str) -> dict[str, object]:
        done = self.run(*arguments, "--json")
        assert (done.returncode, done.stderr) == (0, "")
        figures = json.loads(done.stdout)
        assert isinstance(figures, dict)
        return figures

    def assert_fails(self, arguments: Sequence[str], code: int, pattern: str) -> None:
        done = self.run(*arguments)
        assert done.returncode == code
        assert done.stdout == ""
        assert re.fullmatch(r"measure_fps\.py: [^\n]+\n", done.stderr)
        assert re.search(pattern, done.stderr)


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Iterator[Probe]:
    """The command line; its signal handlers are removed afterwards."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield Probe(capsys)
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("habit", HABITS)
def test_stream_formats(command: Probe, serve: ServerFactory, habit: str) -> None:
    figures = command.measure(serve(send(HABITS[habit])).url)
    assert figures["frames"] == 6
    assert figures["ended"] == "closed"
    assert (figures["width"], figures["height"]) == (64, 48)
    size = {"no length, no EOI": len(SMALL) - 2, "no length, thumbnails": len(WITH_THUMBNAIL)}.get(habit, len(SMALL))
    assert figures["frame_min_bytes"] == figures["frame_max_bytes"] == size
    assert figures["bytes"] == 6 * size


def test_table_without_json(command: Probe, serve: ServerFactory) -> None:
    done = command.run(serve(send(HABITS["well behaved"])).url)
    assert (done.returncode, done.stderr) == (0, "")
    rows = dict(line.split(None, 1) for line in done.stdout.splitlines())
    assert list(rows) == ["frames", "fps", "gaps", "picture", "bytes", "data", "ended"]
    assert rows["frames"].startswith("6 in ")
    assert rows["picture"] == "64 x 48"
    assert rows["ended"] == "the server closed the stream"


def test_json_keys_match_help(command: Probe, serve: ServerFactory) -> None:
    figures = command.measure(serve(send(HABITS["well behaved"])).url)
    keys = command.run("--help").stdout.partition("keys of --json")[2].partition("exit codes")[0]
    assert all(re.search(rf"\b{key}\b", keys) for key in figures)
    numbers = ["frames", "span_s", "first_frame_s", "gap_median_s", "gap_p95_s", "gap_longest_s", "silence_at_end_s"]
    assert all(isinstance(figures[key], int | float) for key in numbers)
    assert [figures[key] for key in ("age_median_s", "age_p95_s", "age_longest_s", "missed")] == [None, None, None, []]
    assert figures["picture_sizes"] == {"64x48": 6}


def test_stop_after_frames(command: Probe, serve: ServerFactory) -> None:
    stub = serve(send(head() + part(SMALL) * 50))
    assert command.measure(stub.url, "--frames", "7")["frames"] == 7


def test_duration_starts_with_first_frame(command: Probe, serve: ServerFactory) -> None:
    def answer(connection: socket.socket, request: bytes) -> None:
        connection.sendall(head())
        for _ in range(100_000):
            connection.sendall(part(SMALL))

    figures = command.measure(serve(answer).url, "--duration", "0.3")
    assert figures["ended"] == "duration"
    assert isinstance(figures["frames"], int)
    assert figures["frames"] > probe.DEFAULT_FRAMES  # --duration disables the default


def test_ages_from_timestamps(command: Probe, serve: ServerFactory) -> None:
    def answer(connection: socket.socket, request: bytes) -> None:
        connection.sendall(head() + part(SMALL, stamp=f"{time.time() - 2:.6f}") * 3)
        # An uptime or an invalid value in that header is not an age.
        connection.sendall(part(SMALL, stamp="1234.5") + part(SMALL, stamp="nan") + part(SMALL, stamp="soon"))

    figures = command.measure(serve(answer).url)
    assert figures["frames"] == 6
    # Delays on a busy machine increase the ages; nothing decreases them.
    assert 2 <= figures["age_median_s"] <= figures["age_longest_s"] < 2 + PATIENCE_S  # type: ignore[operator]


def test_frames_of_several_sizes(command: Probe, serve: ServerFactory) -> None:
    figures = command.measure(serve(send(head() + part(SMALL) * 3 + part(OTHER))).url)
    assert figures["picture_sizes"] == {"64x48": 3, "80x32": 1}
    assert (figures["width"], figures["height"]) == (64, 48)


def test_disconnect_within_a_frame(command: Probe, serve: ServerFactory) -> None:
    figures = command.measure(serve(send(head() + part(SMALL) * 4 + part(SMALL)[:-300])).url)
    assert (figures["frames"], figures["ended"]) == (4, "closed")


def test_damaged_chunks_end_stream(command: Probe, serve: ServerFactory) -> None:
    body = chunked(part(SMALL) * 4).removesuffix(b"0\r\n\r\n") + b"pardon?\r\n"
    figures = command.measure(serve(send(head(extra=["Transfer-Encoding: chunked"]) + body)).url)
    assert (figures["frames"], figures["ended"]) == (4, "closed")


# --- requests ----------------------------------------------------------------------------------------------------


def test_credentials_and_headers(command: Probe, serve: ServerFactory) -> None:
    stub = serve(send(HABITS["well behaved"]))
    url = stub.url.replace("http://", "http://ann:p%40ss@") + "?quality=50&x=ä"
    figures = command.measure(url, "--header", "X-API-Key: s3cret", "--header", "user-agent: other")
    request = stub.requests[0].decode()
    assert request.startswith("GET /stream.mjpg?quality=50&x=%C3%A4 HTTP/1.1\r\n")
    assert "\r\nAuthorization: Basic YW5uOnBAc3M=\r\n" in request
    assert "\r\nX-API-Key: s3cret\r\n" in request
    assert re.findall("(?i)user-agent: (.*)\r", request) == ["other"]
    assert f"\r\nHost: 127.0.0.1:{stub.port}\r\n" in request
    assert "ann" not in str(figures["url"])


def test_key_in_query_is_not_shown(command: Probe, serve: ServerFactory) -> None:
    stub = serve(send(HABITS["well behaved"]))
    figures = command.measure(f"{stub.url}?quality=50&key=s3cret&fps=5")
    assert stub.requests[0].startswith(b"GET /stream.mjpg?quality=50&key=s3cret&fps=5 HTTP/1.1\r\n")
    assert figures["url"] == f"{stub.url}?quality=50&key=***&fps=5"


def test_url_without_scheme(command: Probe, serve: ServerFactory) -> None:
    assert command.measure(serve(send(HABITS["well behaved"])).url.removeprefix("http://"))["frames"] == 6


def test_redirect_to_same_host_keeps_key(command: Probe, serve: ServerFactory) -> None:
    end = serve(send(HABITS["well behaved"]))
    start = serve(send(f"HTTP/1.1 302 Found\r\nLocation: {end.url}?moved\r\n\r\n".encode()))
    figures = command.measure(start.url, "--header", "X-API-Key: s3cret")
    assert figures["url"] == f"{end.url}?moved"
    assert b"s3cret" in end.requests[0]


def test_redirect_to_another_host_omits_key(command: Probe, serve: ServerFactory) -> None:
    end = serve(send(HABITS["well behaved"]))
    elsewhere = end.url.replace("127.0.0.1", "localhost")
    start = serve(send(f"HTTP/1.1 307 Moved\r\nLocation: {elsewhere}\r\n\r\n".encode()))
    command.measure(start.url.replace("http://", "http://ann:pass@"), "--header", "X-API-Key: s3cret")
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
        (b"HTTP/1.1 404 Not Found\r\n\r\n", "the server returned 404 Not Found"),
        (b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic\r\n\r\n", "401 Unauthorized .*user:password"),
        (b"HTTP/1.0 503\r\n\r\n", "503"),
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html>", "text/html, not an MJPEG"),
        (b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\n\r\n" + SMALL, "image/jpeg, not an MJPEG"),
        (head() + b"--frame\r\nContent-Length: 3\r\n\r\nabc", "no JPEG before the stream ended"),
        (head() + part(SMALL)[:-50], "no JPEG"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "does not speak HTTP"),
        (b"HTTP/1.1 whatever\r\n\r\n", "status line"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20_000, "invalid HTTP header"),
        (b"", "closed the connection without a response"),
        (b"HTTP/1.1 302 Found\r\nLocation: ftp://127.0.0.1/\r\n\r\n", "invalid redirect"),
        (b"HTTP/1.1 302 Found\r\nLocation: /again\r\n\r\n", "more than 5 redirects"),
    ],
)
def test_exit_3_without_mjpeg(command: Probe, serve: ServerFactory, answer: bytes, pattern: str) -> None:
    command.assert_fails([serve(send(answer)).url], 3, pattern)


def test_exit_3_for_refused_connection(command: Probe) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but not listening: no other process can get the port
        port = taken.getsockname()[1]
        message = f"cannot connect to 127.0.0.1 port {port}: Connection refused"
        command.assert_fails([f"http://127.0.0.1:{port}/"], 3, message)


def test_exit_3_for_https_at_plain_server(command: Probe) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def reply() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=reply)
        thread.start()
        command.assert_fails([f"https://127.0.0.1:{port}/"], 3, "cannot connect")
        thread.join(PATIENCE_S)


@pytest.mark.parametrize(
    ("arguments", "pattern"),
    [
        ([], "URL"),
        (["ftp://127.0.0.1/"], "must be http or https"),
        (["http://"], "URL: must have a host"),
        (["http://127.0.0.1:99999/"], "[Pp]ort"),
        (["http://127.0.0.1/", "--frames", "0"], ": --frames: must be an integer above 0, not '0'"),
        (["http://127.0.0.1/", "--frames", "many"], ": --frames: must be an integer above 0, not 'many'"),
        (["http://127.0.0.1/", "--duration", "nan"], ": --duration: must be a number above 0"),
        (["http://127.0.0.1/", "--timeout", "-1"], "--timeout"),
        (["http://127.0.0.1/", "--header", "X-API-Key"], ": --header: must be 'Name: value'"),
        (["http://127.0.0.1/", "--header", "X: a\r\nY: b"], "--header"),
        (["http://127.0.0.1/", "--fps", "3"], "--fps"),
    ],
)
def test_exit_2_for_usage(command: Probe, arguments: list[str], pattern: str) -> None:
    command.assert_fails(arguments, 2, pattern)


@pytest.mark.parametrize(
    ("limits", "missed"),
    [
        (["--min-fps", "1"], []),
        (["--max-gap", "25"], []),
        (["--min-fps", "1000"], ["; minimum 1000"]),
        (["--max-gap", "0.01"], ["; maximum 0.01 s"]),
        (["--min-fps", "1000", "--max-gap", "0.01"], ["; minimum 1000", "; maximum 0.01 s"]),
    ],
)
def test_exit_1_for_missed_limits(command: Probe, serve: ServerFactory, limits: list[str], missed: list[str]) -> None:
    done = command.run(serve(paced(5, 0.02)).url, "--json", *limits)
    assert done.returncode == (1 if missed else 0)
    lines = json.loads(done.stdout)["missed"]
    assert len(lines) == len(missed)
    assert all(limit in line for limit, line in zip(missed, lines, strict=True))


def test_one_frame_has_no_rate(command: Probe, serve: ServerFactory) -> None:
    done = command.run(serve(send(head() + part(SMALL))).url, "--min-fps", "1")
    assert done.returncode == 1
    assert "fps: unknown after 1 frame(s); minimum 1" in done.stdout


# --- stalls and interruptions ------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [["--min-fps", "1"], ["--max-gap", "0.2"]])
def test_stall_misses_any_limit(command: Probe, serve: ServerFactory, limit: list[str]) -> None:
    done = command.run(serve(stalling(head() + part(SMALL) * 5)).url, "--json", "--timeout", "0.3", *limit)
    figures = json.loads(done.stdout)
    assert (done.returncode, figures["ended"], figures["frames"]) == (1, "stalled", 5)
    assert figures["silence_at_end_s"] >= 0.3


def test_stall_without_limits(command: Probe, serve: ServerFactory) -> None:
    done = command.run(serve(stalling(head() + part(SMALL) * 5)).url, "--timeout", "0.3")
    assert done.returncode == 0
    assert re.search(r"stream stalled: no frame for \d+\.\d s", done.stdout)


@pytest.mark.parametrize(
    ("data", "pattern"),
    [
        (b"", "no response within 0.3 s"),
        (b"HTTP/1.1 200 OK\r\nContent-", "no response within 0.3 s"),
        (head(), "no JPEG within 0.3 s"),
        (head() + part(SMALL)[:-50], "no JPEG within 0.3 s"),
    ],
)
def test_exit_3_for_stall_before_first_frame(command: Probe, serve: ServerFactory, data: bytes, pattern: str) -> None:
    command.assert_fails([serve(stalling(data)).url, "--timeout", "0.3"], 3, pattern)


def test_exit_3_for_trickle_without_frame(command: Probe, serve: ServerFactory) -> None:
    def answer(connection: socket.socket, request: bytes) -> None:
        connection.sendall(head() + b"--frame\r\nContent-Length: 1000000\r\n\r\n\xff\xd8")
        pace = threading.Event()
        for _ in range(1000):
            connection.sendall(b"\0")
            pace.wait(0.02)

    command.assert_fails([serve(answer).url, "--timeout", "0.3"], 3, "no JPEG within 0.3 s")
