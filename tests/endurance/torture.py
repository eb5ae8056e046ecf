"""Makes each call of the C library that may fail do so, one after the other, while a portal is used.

    python -m tests.endurance.torture

A portal runs with `torture.c` preloaded. For each use of it and each kind of call, the first call of that kind fails,
then the second, and so on, until the use makes no further ones. Whatever fails: a response with 200 is true, the
portal answers in time, continues or exits with a documented code, and works as before afterwards, without a thread or a
descriptor more.
"""

import argparse
import contextlib
import errno
import http.client
import mmap
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import simplejpeg

from softcam.controls.state import RequestedControls
from tests.conftest import Portal, portals
from tests.support.http_client import Answer, StreamClient, ask, port_of, post, wait_for_status
from tests.support.rtsp_viewers import TCP, Peer
from tests.support.timeouts import PATIENCE_S

FLAGS = (
    *("--width", "320", "--height", "180", "--fps", "30", "--linger", "0", "--watchdog-timeout", "3"),
    *("--rtsp-port", "0"),
)
# What fails, with the numbers of `torture.c`, and how.
KINDS: Mapping[str, tuple[int, int]] = {
    "open": (1, errno.EMFILE),
    "write": (2, errno.ENOSPC),
    "sync": (3, errno.EIO),
    "rename": (4, errno.EROFS),
    "socket": (5, errno.EMFILE),
    "send": (6, errno.ECONNRESET),
    "thread": (7, errno.EAGAIN),
    "memory": (8, errno.ENOMEM),
    "poll": (9, errno.ENOMEM),
}
EXIT_CODES = frozenset({69, 70})  # a fresh process is the cure
MAX_CALLS = 60  # of one kind that fail one after the other in one use
ANSWER_LIMIT_S = PATIENCE_S


class Words:
    """The memory that the test shares with the portal: which call fails."""

    def __init__(self, path: Path) -> None:
        path.write_bytes(bytes(12))
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 12)

    def arm(self, kind: str, nth: int) -> None:
        number, error = KINDS[kind]
        self._memory[4:12] = struct.pack("=ii", nth, error)
        self._memory[0:4] = struct.pack("=i", number)

    def disarm(self) -> bool:
        """Whether the call was made, and failed."""
        self._memory[0:4] = bytes(4)
        (left,) = struct.unpack("=i", self._memory[4:8])
        return bool(left <= 0)

    def close(self) -> None:
        self._memory.close()


class Failed(Exception):
    """The use of the portal failed in a way that is allowed: an error was reported, or the connection was closed."""


@dataclass
class Outcome:
    """How the uses ended, by kind of call, and what was wrong."""

    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


# --- the uses; each raises AssertionError if a response is not true, and `Failed` if it reports an error


def _checked(answer: Answer) -> Answer:
    if answer.status >= 400:
        detail = answer.detail if answer.headers["Content-Type"] == "application/json" else ""
        assert detail or answer.status == 404, answer
        raise Failed(f"{answer.status} {detail}")
    return answer


def _check_jpeg(content: bytes) -> None:
    height, width, _, _ = simplejpeg.decode_jpeg_header(content)
    assert simplejpeg.decode_jpeg(content).shape == (height, width, 3)


def _saved_brightness(portal: Portal) -> object:
    path = Path(portal.environment["XDG_STATE_HOME"]) / "soft-stream" / "controls-pattern.json"
    return RequestedControls.from_json(path.read_text())[0].get("image_processing", "brightness")


def set_control(portal: Portal) -> None:
    for value in (0.25, 0.0):
        answer = _checked(post(portal, "/v1/camera/image_processing", {"brightness": value}))
        if "lost with the next restart" not in (answer.json.get("note") or ""):
            assert _saved_brightness(portal) == value, "acknowledged, but not saved"
        controls = _checked(ask(portal, "/v1/camera/controls")).json["controls"]
        assert controls["image_processing"]["fields"]["brightness"]["value"] == value


def save_preset(portal: Portal) -> None:
    name = "/v1/presets/Torture"
    _checked(ask(portal, name, method="PUT", headers={"Content-Type": "application/json"}, body=b"{}"))
    try:
        assert "Torture" in [each["name"] for each in _checked(ask(portal, "/v1/presets")).json["presets"]]
    finally:
        answer = ask(portal, name, method="DELETE")
    _checked(answer)


def save_photo(portal: Portal) -> None:
    name = _checked(post(portal, "/v1/recordings/still", {})).json["recording"]["name"]
    _check_jpeg(_checked(ask(portal, f"/v1/recordings/{name}")).body)
    _checked(ask(portal, f"/v1/recordings/{name}", method="DELETE"))


def record_video(portal: Portal) -> None:
    _checked(post(portal, "/v1/recordings/start", {}))
    time.sleep(0.4)
    _checked(post(portal, "/v1/recordings/stop", {}))
    listed = _checked(ask(portal, "/v1/recordings")).json["recordings"]
    for entry in listed:
        content = _checked(ask(portal, f"/v1/recordings/{entry['name']}")).body
        # A file that could not be finished is sent with an index.
        assert entry["kind"] == "still" or content[4:8] == b"ftyp", content[:20]
        assert len(content) >= entry["bytes"], (len(content), entry)
        _checked(ask(portal, f"/v1/recordings/{entry['name']}", method="DELETE"))


def watch(portal: Portal) -> None:
    with StreamClient(portal) as viewer:
        status, _ = viewer.head()
        if status != b"HTTP/1.1 200 OK":
            raise Failed(status.decode())
        for _ in range(3):
            _check_jpeg(viewer.next(timeout_s=ANSWER_LIMIT_S).jpeg)


def watch_mp4(portal: Portal) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port_of(portal), timeout=ANSWER_LIMIT_S)
    with contextlib.closing(connection):
        connection.request("GET", "/stream.mp4")
        response = connection.getresponse()
        if response.status != 200:
            raise Failed(str(response.status))
        if len(begin := response.read(2000)) < 2000:
            raise Failed("the stream ended")
        assert begin[4:8] == b"ftyp"


def take_snapshot(portal: Portal) -> None:
    _check_jpeg(_checked(ask(portal, "/snapshot.jpg")).body)


def take_still(portal: Portal) -> None:
    _check_jpeg(_checked(ask(portal, "/snapshot.jpg?width=640")).body)


def play_rtsp(portal: Portal) -> None:
    peer = Peer(("127.0.0.1", int(portal.wait_for_log(r"Listening on rtsp://\S+:(\d+)")[1])))
    with contextlib.closing(peer.socket):
        described = peer.request("DESCRIBE")
        if described.status != 200:
            raise Failed(f"DESCRIBE {described.status}")
        peer.set_up(TCP)
        if peer.request("PLAY").status != 200:
            raise Failed("PLAY")
        peer.packet()


USES: Sequence[Callable[[Portal], None]] = (
    *(set_control, save_preset, save_photo, record_video),
    *(watch, watch_mp4, take_snapshot, take_still, play_rtsp),
)


class Torture:
    """A portal with the library preloaded, which is replaced where it exits."""

    def __init__(self, start: Callable[..., Portal], folder: Path) -> None:
        self._start, self._folder = start, folder
        library = folder / "torture.so"
        source = Path(__file__).with_suffix(".c")
        subprocess.run(["gcc", "-O2", "-Wall", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"], check=True)
        (folder / "recordings").mkdir()
        self._words = Words(folder / "words")
        self._environment = {"LD_PRELOAD": str(library), "TORTURE_FILE": str(folder / "words")}
        self.outcome = Outcome()
        self._portal = self._new_portal()
        self._threads = self._descriptors = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._words.close()

    def run(self, kinds: Sequence[str], uses: Sequence[Callable[[Portal], None]], step: int = 1) -> None:
        """Every `step`th call of each of these kinds fails in each of these uses."""
        for use in uses:
            use(self._portal)
            self._rest()
            self._threads, self._descriptors = len(self._portal.threads()), len(self._portal.descriptors())
            for kind in kinds:
                for nth in range(1, MAX_CALLS, step):
                    if not self._try(use, kind, nth):
                        break
                self._check_recovery(use, kind)

    def _try(self, use: Callable[[Portal], None], kind: str, nth: int) -> bool:
        """Whether the use makes so many calls of this kind."""
        what = f"{use.__name__}, {kind} {nth}"
        self._words.arm(kind, nth)
        try:
            use(self._portal)
            how = "works"
        except Failed:
            how = "error"
        except (ConnectionError, http.client.HTTPException):
            how = "closed"
        except (AssertionError, TimeoutError, ValueError, OSError) as error:
            how = "wrong"
            if self._has_exited() is None and "the connection " not in str(error):
                self.outcome.wrong.append(f"{what}: {type(error).__name__}: {error}")
        has_failed = self._words.disarm()
        try:
            self._rest()
        except ConnectionError:
            pass
        except (AssertionError, TimeoutError) as error:
            self.outcome.wrong.append(f"{what}, afterwards: {error}")
            self._portal.end()
        code = self._has_exited()
        if code is not None:
            how = f"exit {code}"
            if code not in EXIT_CODES:
                self.outcome.wrong.append(f"{what}: exit code {code}:\n{self._portal.log[-1500:]}")
            self._portal = self._new_portal()
        self.outcome.counts[f"{kind}: {how if has_failed else 'not reached'}"] += 1
        return has_failed

    def _has_exited(self) -> int | None:
        """The exit code; an exit takes a moment in which nothing listens any longer."""
        with contextlib.suppress(ConnectionError):
            ask(self._portal, "/health")
            return self._portal.process.poll()
        return self._portal.wait()

    def _new_portal(self) -> Portal:
        portal = self._start(*FLAGS, "--recordings", str(self._folder / "recordings"), environment=self._environment)
        assert portal.url
        return portal

    def _rest(self) -> None:
        """Wait until nobody uses the camera."""
        for path in ("/v1/recordings/stop", "/camera/stop"):
            with contextlib.suppress(ConnectionError, http.client.HTTPException):
                post(self._portal, path, {})
        wait_for_status(self._portal, state="closed", viewers=0)

    def _check_recovery(self, use: Callable[[Portal], None], kind: str) -> None:
        what = f"{use.__name__} after failures of {kind}"
        deadline_s = time.monotonic() + PATIENCE_S
        while True:
            try:
                use(self._portal)
            except (Failed, AssertionError, OSError, http.client.HTTPException) as error:
                if time.monotonic() > deadline_s:
                    self.outcome.wrong.append(f"{what}: {type(error).__name__}: {error}")
                    return
                time.sleep(0.2)
            else:
                break
        self._rest()
        while (
            len(self._portal.descriptors()) > self._descriptors + 2 or len(self._portal.threads()) > self._threads + 4
        ):
            if time.monotonic() > deadline_s:
                left = sorted(self._portal.descriptors()), sorted(self._portal.threads())
                self.outcome.wrong.append(f"{what}: {self._descriptors} and {self._threads} before, now {left}")
                return
            time.sleep(0.1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--uses", nargs="+", choices=[use.__name__ for use in USES])
    parser.add_argument("--step", type=int, default=1, help="leave out calls")
    options = parser.parse_args()
    uses = [use for use in USES if not options.uses or use.__name__ in options.uses]
    with tempfile.TemporaryDirectory(prefix="soft-stream-torture-") as folder, portals(Path(folder) / "state") as start:
        running = Torture(start, Path(folder))
        running.run(options.kinds, uses, options.step)
    for name, count in sorted(running.outcome.counts.items()):
        print(f"{count:6} {name}")
    if running.outcome.wrong:
        sys.exit("\n".join(running.outcome.wrong))


if __name__ == "__main__":
    main()
