"""Runs one fault of the pattern camera with clients of every kind, and reports what each of them saw.

A `Stage` is one portal; the clients of a row are threads that read until the row is over. The rows are in `fault_rows`.
"""

import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.conftest import Portal
from tests.endurance import fault_rows as rows
from tests.endurance.fault_rows import Fault
from tests.support.http_client import Listening, StreamClient, ask, port_of, post, status_of, wait_for_status
from tests.support.pattern_client import FaultsFile
from tests.support.publishing_server import PublishingServer
from tests.support.recording_client import listed, probe, videos
from tests.support.rtsp_viewers import TCP, Peer
from tests.support.timeouts import PATIENCE_S, TIMEOUT_FACTOR

WATCHDOG_S = 2.0  # less than publishing waits for frames before it says so, and more than half of that
RESPONSE_S = 3 * PATIENCE_S  # of clients that wait for the longest call into the camera
RECOVERY_SLACK_S = 6.0 * TIMEOUT_FACTOR  # beyond the watchdog's time, for an opening and the first frames
FLAGS = (
    *("--width", "320", "--height", "180", "--fps", "20", "--bitrate", "200000", "--linger", "0"),
    *("--autofocus-timeout", "2", "--rtsp-port", "0"),
)
COUNTERS = re.compile(r"^(soft_stream_\w+_total) (\S+)$", re.MULTILINE)
OF_FRAMES = frozenset({"soft_stream_frames_total", "soft_stream_pictures_encoded_total"})
FOCUSED = re.compile("Autofocus for the stream (focused|failed|timed out)")
REPORTED = re.compile(r" (?:WARNING|ERROR|CRITICAL) (.*)")


@dataclass(frozen=True, slots=True)
class Seen:
    """What the clients of a row saw, by the names of a row's fields, and what the portal reported."""

    clients: Mapping[str, str]
    outage_s: float  # between two images of the MJPEG viewer, without the time for which the fault was held
    exit_code: int | None
    counted: Mapping[str, int]
    logged: list[str]  # warnings and errors


class Client(threading.Thread):
    """Reads a stream until the row is over or the portal ends it."""

    def __init__(self, portal: Listening, name: str, read: Callable[["Client"], None]) -> None:
        super().__init__(name=name, daemon=True)
        self.portal = portal
        self.status = 0
        self.media_s: list[float] = []  # times of arrival
        self.notices = 0
        self.has_ended = False
        self.is_over = threading.Event()
        self._read = read
        self.start()

    def run(self) -> None:
        try:
            self._read(self)
        except (AssertionError, OSError):  # the end of the connection, as `StreamClient` and `Peer` report it
            self.has_ended = True

    def __str__(self) -> str:
        return f"{self.name}, status {self.status}, {len(self.media_s)} images"

    def keep_status(self, status: int, has_retry_after: bool) -> None:
        """A 503 without a hint when to try again is none."""
        self.status = status if status != 503 or has_retry_after else 0

    def has_media(self, after_s: float) -> bool:
        return bool(self.media_s) and self.media_s[-1] > after_s

    def summary(self, *, is_open: bool) -> str:
        """In the words of a row."""
        if self.status != 200:
            return str(self.status)
        if self.has_ended:
            return rows.NOTICE_ENDS if self.notices else rows.ENDS
        before_s, after_s = longest_gap(self.media_s)
        if after_s - before_s < WATCHDOG_S:
            return rows.CONTINUES if is_open else rows.WAITS
        return rows.NOTICES if self.notices else rows.PAUSES


def longest_gap(times_s: Sequence[float]) -> tuple[float, float]:
    """The moments before and after it."""
    return max(pairwise([*times_s]), key=lambda pair: pair[1] - pair[0], default=(0.0, 0.0))


def read_mjpeg(client: Client) -> None:
    with StreamClient(client.portal, timeout_s=RESPONSE_S) as stream:
        first, fields = stream.head()
        client.keep_status(int(first.split()[1]), "Retry-After" in fields)
        while client.status == 200 and not client.is_over.is_set():
            part = stream.next()
            if part.is_placeholder:
                client.notices += 1
            else:
                client.media_s.append(part.came_s)


def read_mp4(client: Client) -> None:
    address = ("127.0.0.1", port_of(client.portal))
    with socket.create_connection(address, RESPONSE_S) as connection:
        connection.sendall(b"GET /stream.mp4 HTTP/1.1\r\nHost: test\r\n\r\n")
        head = connection.recv(1 << 16)
        client.keep_status(int(head.split()[1]) if head else 0, b"\r\nRetry-After: " in head)
        while chunk := connection.recv(1 << 20):
            if b"moof" in chunk:
                client.media_s.append(time.monotonic())
            if client.is_over.is_set():
                return
        client.has_ended = True


def read_rtsp(client: Client) -> None:
    address = urlsplit(status_of(client.portal)["rtsp"]["url"])
    peer = Peer((address.hostname or "", address.port or 0))
    peer.url = f"rtsp://127.0.0.1:{address.port}/stream"  # for any camera
    try:
        peer.socket.settimeout(RESPONSE_S)
        response = peer.request("DESCRIBE")
        client.keep_status(response.status, "retry-after" in response.fields)
        if client.status != 200:
            return
        peer.set_up(TCP)
        peer.request("PLAY")
        while not client.is_over.is_set():
            if peer.packet()[0] == 0:
                client.media_s.append(time.monotonic())
    finally:
        peer.close()


class Stage:
    """One portal, its faults file, its recordings, and the server that it publishes to under a separate path."""

    def __init__(
        self,
        start: Callable[..., Portal],
        folder: Path,
        server: PublishingServer,
        *flags: str,
        is_publishing: bool = False,
    ) -> None:
        """`is_publishing`: from the start on, as configured; otherwise each row starts and stops it."""
        self.folder = folder / "recordings"
        self.folder.mkdir(parents=True)
        self._faults = FaultsFile(folder / "faults")
        self._faults.inject()
        self._server, self._path = server, folder.name
        self._is_publishing = is_publishing
        self._start_portal: Callable[[], Portal] = partial(
            start,
            *FLAGS,
            *("--watchdog-timeout", str(WATCHDOG_S), *flags),
            *("--pattern-faults", str(self._faults.path), "--recordings", str(self.folder)),
            *("--state-dir", str(folder / "state"), "--rtsp-url", f"rtsp://127.0.0.1:{server.port}/{self._path}"),
            *(() if is_publishing else ("--no-rtsp-autostart",)),
        )
        self.portal: Portal = self._start_portal()
        self._idle: tuple[Counter[str], int] | None = None

    def run(self, row: Fault) -> Seen:
        """Run a row, and check that nothing of it is left."""
        files = set(videos(self.folder))
        published = len(self._published_s)
        if not row.is_open:
            self._faults.inject("hang-open")  # until all clients wait for the camera
            counted = self._counters()
        clients = {
            "viewer": Client(self.portal, "viewer", read_mjpeg),
            "mp4": Client(self.portal, "mp4", read_mp4),
            "rtsp": Client(self.portal, "rtsp", read_rtsp),
        }
        recording = Request(self.portal, "POST", "/v1/recordings/start", {})
        if not self._is_publishing:
            assert post(self.portal, "/v1/streaming/start", {}).status == 200
        if row.is_open:
            self._wait_for_all(clients, 0.0)
            self.portal.wait_for_log(FOCUSED)  # a cycle that the fault interrupts would be reported, too
            counted = self._counters()
            self.portal.forget_log()
            self._faults.inject(*row.words.split())
            requests = [Request(self.portal, *row.request)] if row.request is not None else []
            time.sleep(0.3)  # for the frame that is being exposed
        else:
            requests = []
        snapshot = Request(self.portal, "GET", "/snapshot.jpg?autofocus=0", None)
        if not row.is_open:
            self._wait_until(self._has_all_leases, "leases")
            self._faults.inject(*row.words.split())
        requests += [snapshot, recording]
        code = self._wait_for_end(row, clients)
        for request in requests:
            request.join(RESPONSE_S)
        seen = {name: client.summary(is_open=row.is_open) for name, client in clients.items()}
        seen["snapshot"] = snapshot.summary()
        before_s, after_s = longest_gap(clients["viewer"].media_s)
        reported = [match[1] for match in REPORTED.finditer(self.portal.log)]
        if code is None:
            changed = self._counters() - counted
            seen["publishing"] = self._summarise_publishing(published, is_open=row.is_open)
            has_paused = "Video recording: no frames from the camera" in self.portal.log
            self._end(clients)
            seen["recording"] = self._summarise_recording(files, has_paused=has_paused, is_open=row.is_open)
        else:
            changed = Counter[str]()
            seen |= self._restart(recording)
            assert bool(set(videos(self.folder)) - files) is (recording.status == 200)
        for path in set(videos(self.folder)) - files:
            assert probe(path)[0] > 0, path
        return Seen(seen, after_s - before_s - row.hold_s, code, dict(changed), reported)

    def _wait_for_end(self, row: Fault, clients: Mapping[str, Client]) -> int | None:
        """Of the portal, or of the fault and of its effects; the exit code."""
        if row.exit_code is not None:
            code = self.portal.wait(RESPONSE_S)
            for client in clients.values():
                client.join(PATIENCE_S)
            return code
        if row.until:
            self.portal.wait_for_log(row.until)
        time.sleep(row.hold_s)
        self._faults.inject()
        self._wait_for_all(clients, time.monotonic())
        if row.noted:
            self.portal.wait_for_log(row.noted)
        return None

    # --- while it runs

    def _wait_for_all(self, clients: Mapping[str, Client], after_s: float) -> None:
        """Each stream has an image after that moment, something is recorded, and the server receives the stream."""
        for name, client in clients.items():
            self._wait_until(partial(client.has_media, after_s), name)
        self._wait_until(self._is_recording, "recording")
        self._wait_until(lambda: bool(self._published_s) and self._published_s[-1] > after_s, "publishing")
        self._wait_until(lambda: status_of(self.portal)["publishing"]["state"] == "publishing", "publishing")
        wait_for_status(self.portal, state="open")

    def _has_all_leases(self) -> bool:
        held = {lease["kind"]: lease["count"] for lease in status_of(self.portal)["held_by"]}
        return held == {"stream": 2, "rtsp": 1, "snapshot": 1, "recording": 1, "publish": 1}

    def _is_recording(self) -> bool:
        running = listed(self.portal)["running"]["video"]
        return running is not None and running["paused"] is None and running["segments"] > 0

    def _wait_until(self, is_true: Callable[[], bool], what: str) -> None:
        deadline_s = time.monotonic() + PATIENCE_S
        while not is_true():
            assert time.monotonic() < deadline_s, f"timed out waiting for {what}:\n{self.portal.log}"
            time.sleep(0.02)

    def _counters(self) -> Counter[str]:
        found = COUNTERS.findall(ask(self.portal, "/metrics").body.decode())
        return Counter({name: int(value) for name, value in found if name not in OF_FRAMES})

    @property
    def _published_s(self) -> list[float]:
        """When the server received media."""
        return self._server.media_s.get(self._path, [])

    @property
    def _records(self) -> int:
        return self._server.count(f"RECORD rtsp://127.0.0.1:{self._server.port}/{self._path}")

    def _summarise_publishing(self, before: int, *, is_open: bool) -> str:
        assert status_of(self.portal)["publishing"]["reconnects"] == 0
        if not is_open:
            return rows.WAITS
        before_s, after_s = longest_gap(self._published_s[before:])
        return rows.PAUSES if after_s - before_s >= WATCHDOG_S else rows.CONTINUES

    def _summarise_recording(self, before: set[Path], *, has_paused: bool, is_open: bool) -> str:
        files = sorted(set(videos(self.folder)) - before)
        assert len(files) == 1 + has_paused, files
        if has_paused:
            return rows.NEW_FILE
        before_s, after_s = longest_gap(probe(files[0])[2])
        if after_s - before_s >= WATCHDOG_S:
            return rows.PAUSES
        return rows.CONTINUES if is_open else rows.WAITS

    # --- afterwards

    def _end(self, clients: Mapping[str, Client]) -> None:
        for client in clients.values():
            client.is_over.set()
        for client in clients.values():
            client.join(PATIENCE_S)
            assert not client.is_alive(), client.name
        for path in ("/v1/recordings/stop", "/v1/streaming/stop"):
            assert post(self.portal, path, {}).status == 200
        assert ask(self.portal, "/v1/camera/controls", method="DELETE").status == 200
        wait_for_status(self.portal, state="closed", viewers=0)
        self.portal.forget_log()
        if self._idle is None:  # what is created once exists now
            self._idle = self._open()
            return
        threads, descriptors = self._idle
        self._wait_until(
            lambda: not self._open()[0] - threads and self._open()[1] <= descriptors,
            f"{threads} and {descriptors} descriptors, not {self._open()}, {self.portal.descriptors()}",
        )

    def _open(self) -> tuple[Counter[str], int]:
        return Counter(self.portal.threads()), len(self.portal.descriptors())

    def _restart(self, recording: "Request") -> dict[str, str]:
        """As systemd does, once the fault is over: what was recorded, and published as configured, continues."""
        self._faults.inject()
        if recording.status != 200:
            return {"recording": str(recording.status), "publishing": rows.ENDS}
        records = self._records
        self.portal = self._start_portal()
        self._wait_until(lambda: self._records > records, "publishing after a restart")
        self.portal.wait_for_log("Video recording resumed")
        self._wait_until(self._is_recording, "recording after a restart")
        self.portal.stop()
        return {"recording": rows.RESUMED, "publishing": rows.RESUMED}


class Request(threading.Thread):
    """A request in the background: its status, and for how long it waited."""

    def __init__(self, portal: Listening, method: str, path: str, content: Any) -> None:
        super().__init__(name=path, daemon=True)
        self._portal, self._method, self._path, self._content = portal, method, path, content
        self.status = 0
        self._took_s = 0.0
        self._error = ""
        self.start()

    def run(self) -> None:
        try:
            if self._method == "POST":
                answer = post(self._portal, self._path, self._content, timeout_s=RESPONSE_S)
            else:
                answer = ask(self._portal, self._path, method=self._method, timeout_s=RESPONSE_S)
        except OSError as error:
            self._error = str(error)
            return
        if answer.status == 503:
            assert int(answer.headers["Retry-After"]) > 0
            assert answer.detail
        self.status, self._took_s = answer.status, answer.took_s

    def summary(self) -> str:
        return str(self.status or self._error)
