"""Sends random requests to a running portal, over HTTP and RTSP, and reports each wrong response.

    python -m tests.endurance.fuzz --seconds 3600 --seed 7 --findings FOLDER

Wrong is a response that cannot be parsed, a status of 500 or one that the API does not have, a JSON body that is not
JSON, a client left without an answer, a traceback in the log, and a process that ends, keeps threads or grows. The
requests of a seed are always the same; their order over the connections is not.
"""

import argparse
import json
import random
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from tests.conftest import Portal, portals
from tests.endurance.mutations import http_requests, mutated, rtsp_requests
from tests.support.http_client import ask, resident_mb, wait_for_status
from tests.support.timeouts import PATIENCE_S, TIMEOUT_FACTOR

CLIENTS = 12
RTSP_SHARE = 0.15
STATUSES = frozenset(
    {200, 201, 202, 204, 206, 301, 304, 307, 308}
    | {400, 401, 403, 404, 405, 406, 408, 409, 411, 412, 413, 414, 415, 416, 417, 431, 501, 503, 505}
)
RTSP_STATUSES = frozenset(
    {200, 400, 401, 404, 405, 406, 408, 413, 414, 451, 453, 454, 455, 457, 459, 461, 501, 503, 505, 551}
)
RESPONSE_LIMIT_S = 40 * TIMEOUT_FACTOR  # longer than a snapshot or a request head may take
ENOUGH = 1 << 17  # bytes: of a longer response or of a stream, only the beginning is read
GROWTH_LIMIT_MB = 150
FLAGS = (
    *(
        "--width",
        "320",
        "--height",
        "180",
        "--fps",
        "30",
        "--linger",
        "0",
        "--rtsp-port",
        "0",
    ),
    *("--substream", "160x90@5", "--recordings-max-bytes", "20000000"),
)


class Wrong(AssertionError):
    """A response that must not be."""


def check_http(received: bytes, has_body: bool) -> int:
    """The status of the first response, 0 for none. Raises `Wrong`."""
    while received.startswith(b"HTTP/1.1 100 "):
        received = received.partition(b"\r\n\r\n")[2]
    if not received:
        return 0
    head, blank, body = received.partition(b"\r\n\r\n")
    line, *fields = head.decode("latin-1").split("\r\n")
    version, _, rest = line.partition(" ")
    code, _, _ = rest.partition(" ")
    if version != "HTTP/1.1" or not code.isdigit() or not blank or int(code) not in STATUSES:
        raise Wrong(f"status line {line!r}")
    header: dict[str, str] = {}
    for each in fields:
        name, colon, value = each.partition(": ")
        if not colon or name.lower() in header or not value.isprintable():
            raise Wrong(f"header field {each!r}")
        header[name.lower()] = value
    if has_body and header.get("content-type") == "application/json" and body:
        try:
            content = json.loads(body[: int(header["content-length"])])
        except ValueError as error:
            raise Wrong(f"JSON: {error}") from None
        if int(code) >= 400 and set(content) != {"detail"}:
            raise Wrong(f"error with {sorted(content)}")
    return int(code)


def check_rtsp(received: bytes) -> int:
    """The status of the first response, 0 for none. Raises `Wrong`."""
    if not received:
        return 0
    if received.startswith(b"HTTP/1.1 400 "):  # to a browser, which gets the right address
        return 400
    line = received.partition(b"\r\n")[0].decode("latin-1")
    version, _, rest = line.partition(" ")
    code = rest.partition(" ")[0]
    if version != "RTSP/1.0" or not code.isdigit() or int(code) not in RTSP_STATUSES:
        raise Wrong(f"status line {line!r}")
    return int(code)


@dataclass
class Findings:
    """What was seen, by the threads of the clients."""

    folder: Path | None
    statuses: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)  # guards both

    def count(self, protocol: str, status: int) -> None:
        with self._lock:
            self.statuses[f"{protocol} {status or 'closed'}"] += 1

    def add(self, what: str, request: bytes) -> None:
        with self._lock:
            self.wrong.append(f"{what}: {request[:300]!r}")
            if self.folder is not None:
                (self.folder / f"{len(self.wrong):04}.request").write_bytes(request)

    @property
    def total(self) -> int:
        with self._lock:
            return sum(self.statuses.values())


def exchange(port: int, request: bytes) -> tuple[bytes, bool]:
    """What the portal sends until it closes the connection or has sent enough, and whether that is all of it.

    Raises `Wrong` if neither happens in time.
    """
    received = bytearray()
    deadline_s = time.monotonic() + RESPONSE_LIMIT_S
    with socket.create_connection(("127.0.0.1", port), PATIENCE_S) as connection:
        try:
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)  # an incomplete request is one whose client has gone
            while len(received) < ENOUGH:
                connection.settimeout(max(0.001, deadline_s - time.monotonic()))
                chunk = connection.recv(65536)
                if not chunk:
                    return bytes(received), True
                received += chunk
        except TimeoutError:
            raise Wrong(f"no end within {RESPONSE_LIMIT_S:.0f} s, after {bytes(received[:200])!r}") from None
        except ConnectionError:
            return bytes(received), False
    return bytes(received), False


class Client(threading.Thread):
    """Sends requests, one after the other, until the time is over."""

    def __init__(
        self,
        seed: str,
        portal: Portal,
        rtsp_port: int,
        seeds: Sequence[Sequence[bytes]],
        end_s: float,
        findings: Findings,
    ) -> None:
        super().__init__(name=f"fuzz {seed}", daemon=True)
        self._generator = random.Random(seed)
        self._portal = portal
        self._http_port = urlsplit(portal.url).port or 0
        self._rtsp_port = rtsp_port
        self._http, self._rtsp = seeds
        self._end_s = end_s
        self._findings = findings

    def run(self) -> None:
        while time.monotonic() < self._end_s and self._portal.process.poll() is None:
            if self._generator.random() < RTSP_SHARE:
                self._send("RTSP", self._rtsp_port, mutated(self._generator, self._rtsp))
            else:
                self._send("HTTP", self._http_port, mutated(self._generator, self._http))

    def _send(self, protocol: str, port: int, request: bytes) -> None:
        try:
            received, is_whole = exchange(port, request)
            status = (
                check_rtsp(received)
                if protocol == "RTSP"
                else check_http(received, is_whole and not request.lstrip().startswith(b"HEAD"))
            )
        except (Wrong, OSError) as error:
            self._findings.add(f"{protocol}: {error}", request)
        else:
            self._findings.count(protocol, status)


def fuzz(portal: Portal, seconds: float, seed: int, findings: Findings) -> None:
    """Run all clients, and check the portal afterwards. AssertionError with what was wrong."""
    rtsp_port = int(portal.wait_for_log(r"Listening on rtsp://\S+:(\d+)")[1])
    description = ask(portal, "/openapi.json").json
    seeds = (http_requests(description), rtsp_requests(f"rtsp://127.0.0.1:{rtsp_port}/"))
    threads = len(portal.threads())
    memory_mb = resident_mb(portal.pid)
    end_s = time.monotonic() + seconds
    clients = [Client(f"{seed}.{number}", portal, rtsp_port, seeds, end_s, findings) for number in range(CLIENTS)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    assert portal.process.poll() is None, f"the portal ended:\n{portal.log[-3000:]}"
    assert ask(portal, "/health").status == 200
    ask(portal, "/v1/recordings/stop", method="POST")
    ask(portal, "/v1/streaming/stop", method="POST")
    ask(portal, "/camera/stop", method="POST")
    wait_for_status(portal, state="closed", viewers=0)
    deadline_s = time.monotonic() + RESPONSE_LIMIT_S
    while len(portal.threads()) > threads + 8:  # those of idle pools remain
        assert time.monotonic() < deadline_s, f"threads: {sorted(portal.threads())}"
        time.sleep(0.1)
    grown_mb = resident_mb(portal.pid) - memory_mb
    assert grown_mb < GROWTH_LIMIT_MB, f"{grown_mb:.0f} MB more memory"
    assert "Traceback" not in portal.log, portal.log[-3000:]
    assert findings.wrong == [], "\n".join(findings.wrong[:20])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--findings", type=Path, help="folder for the requests with a wrong response")
    options = parser.parse_args()
    if options.findings is not None:
        options.findings.mkdir(parents=True, exist_ok=True)
    findings = Findings(options.findings)
    with tempfile.TemporaryDirectory(prefix="soft-stream-fuzz-") as folder, portals(Path(folder) / "state") as start:
        portal = start(*FLAGS, "--recordings", folder)
        try:
            fuzz(portal, options.seconds, options.seed, findings)
        except AssertionError as error:
            sys.exit(f"seed {options.seed}: {error}")
        finally:
            print(f"{findings.total} requests in {options.seconds:.0f} s, seed {options.seed}")
            for name, count in findings.statuses.most_common():
                print(f"  {name:<14} {count}")


if __name__ == "__main__":
    main()
