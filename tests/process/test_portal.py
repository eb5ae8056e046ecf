"""What every program meets: addresses, the wire, the camera that opens for a viewer and closes behind the last, a key.

Pictures are small where their size is not the matter, so that the machine shows the portal and not the camera.
"""

import base64
import re
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.conftest import Portal
from tests.support.http_client import StreamClient, ask, ask_for_still, decode, size_of, status_of, wait_for_status
from tests.support.timeouts import PATIENCE_S

Start = Callable[..., Portal]
SMALL = ("--width", "640", "--height", "360")
OPENINGS = 12  # each would leave its threads and descriptors
STREAMS = (
    "/stream.mjpg",
    "/stream",
    "/?action=stream",
    "/api/camera/stream",
    "/?action=stream?nonce=1",  # OctoPrint appends this to any URL
    "/?action=stream&bypassCache=17&timestamp=1",
    "/stream.mjpg?cacheBust=99",
)
SNAPSHOTS = (
    "/snapshot.jpg",
    "/snapshot",
    "/frame",
    "/?action=snapshot",
    "/api/camera/frame",
    "/?action=snapshot?nonce=1",
    "/snapshot?timestamp=1",
)
STATUSES = ("/v1/camera/status", "/camera/status", "/api/camera/status")
PAGES = ("/", "/index.html", "/webrtc", "/assets/page.css", "/assets/page.js", "/assets/icon.svg")
KEY = "a-key-that-nobody-guesses"


@pytest.fixture(scope="module")
def portal_flags() -> tuple[str, ...]:
    return (*SMALL, "--linger", "0.3")


@pytest.fixture
def faults(tmp_path: Path) -> Path:
    """The file that injects faults into the pattern camera; initially empty."""
    path = tmp_path / "faults"
    path.write_text("")
    return path


@pytest.fixture
def fresh(start_portal: Start, portal_flags: tuple[str, ...], faults: Path) -> Portal:
    """A new portal, for tests of its log and its counters, with a file for injected faults."""
    return start_portal(*portal_flags, "--pattern-faults", str(faults))


# Paths


def test_stream_paths(portal: Portal) -> None:
    for target in STREAMS:
        with StreamClient(portal, target) as viewer:
            first, fields = viewer.head()
            assert first == b"HTTP/1.1 200 OK", target
            assert fields["Content-Type"] == "multipart/x-mixed-replace;boundary=frame"
            assert fields["Cache-Control"] == "no-store"
            assert fields["X-Accel-Buffering"] == "no"
            assert fields["Access-Control-Allow-Origin"] == "*"
            assert fields["Connection"] == "close"
            assert size_of(viewer.next().jpeg) == (640, 360)


def test_snapshot_paths(portal: Portal) -> None:
    with StreamClient(portal) as viewer:  # keeps the camera open and in focus, so that responses are quick
        viewer.next()
        for target in SNAPSHOTS:
            asked_s = time.time()
            answer = ask(portal, target)
            assert answer.status == 200, target
            assert answer.headers["Content-Type"] == "image/jpeg"
            assert answer.headers["Cache-Control"] == "no-store"
            assert answer.headers["Access-Control-Allow-Origin"] == "*"
            assert int(answer.headers["Content-Length"]) == len(answer.body)
            assert "GMT" in answer.headers["Last-Modified"]
            assert asked_s - 0.01 <= float(answer.headers["X-Timestamp"]) <= time.time()
            assert decode(answer.body).shape == (360, 640, 3)


def test_status_paths(fresh: Portal) -> None:
    for target in STATUSES:
        answer = ask(fresh, target)
        assert answer.status == 200
        assert answer.headers["Content-Type"] == "application/json"
        assert answer.json["state"] == "closed"
        assert answer.json["backend"] == "pattern"
        assert answer.json["available"] is True
        assert (answer.json["viewers"], answer.json["restarts"]) == (0, 0)
        assert [answer.json[name] for name in ("width", "height", "fps", "last_error", "lux")] == [None] * 5
        assert answer.json["uptime_s"] >= 0


def test_status_of_open_camera(portal: Portal) -> None:
    with StreamClient(portal) as viewer:
        for _ in range(15):
            viewer.next()
        status = status_of(portal)
    assert (status["state"], status["viewers"]) == ("open", 1)
    assert (status["width"], status["height"]) == (640, 360)
    assert 2 < status["fps"] < 30
    assert status["exposure_us"] > 0
    assert status["lux"] > 0
    assert status["colour_temperature"] > 1000


def test_head_does_not_open_camera(fresh: Portal) -> None:
    for target in (*STREAMS, *SNAPSHOTS, *STATUSES, *PAGES, "/health"):
        answer = ask(fresh, target, method="HEAD")
        assert answer.status == 200, target
        assert answer.body == b""
        assert answer.headers["Content-Type"] != ""
    assert "multipart" in ask(fresh, "/stream.mjpg", method="HEAD").headers["Content-Type"]
    assert status_of(fresh)["opens"] == 0  # the camera stayed closed
    assert fresh.log.count("\n") == 1


def test_pages(portal: Portal) -> None:
    for target in PAGES:
        answer = ask(portal, target)
        assert answer.status == 200, target
        assert int(answer.headers["Content-Length"]) == len(answer.body) > 0
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        again = ask(portal, target, headers={"If-None-Match": answer.headers["ETag"]})
        assert (again.status, again.body) == (304, b"")
    assert sum(len(ask(portal, target).body) for target in PAGES) < 150_000
    page = ask(portal, "/").body.decode()
    assert not re.search(r"<style|\son\w+=|\sstyle=|<script>|(href|src)=\"(https?:|//|/)", page)


@pytest.mark.parametrize(
    ("method", "target", "status", "expected"),
    [
        ("GET", "/nothing", 404, "/nothing"),
        ("GET", "/?action=dance", 400, "action 'dance'"),
        ("POST", "/snapshot.jpg", 405, "GET, HEAD"),
        ("DELETE", "/", 405, "DELETE"),
        ("GET", "/snapshot?quality=101", 400, "quality '101'"),
        ("GET", "/snapshot?max_age=-1", 400, "max_age '-1'"),
        ("GET", "/stream?fps=fast", 400, "fps 'fast'"),
        ("GET", "/stream?width=3.5", 400, "width '3.5'"),
    ],
)
def test_bad_requests(portal: Portal, method: str, target: str, status: int, expected: str) -> None:
    opens = status_of(portal)["opens"]
    answer = ask(portal, target, method=method)
    assert answer.status == status
    assert expected in answer.detail
    if status == 405:
        assert set(answer.headers["Allow"].split(", ")) == {"GET", "HEAD", "OPTIONS"}
    assert status_of(portal)["opens"] == opens


# Format of the stream


def test_multipart_format(portal: Portal) -> None:
    """The parts of the format that `StreamClient` does not check."""
    with StreamClient(portal) as viewer:
        parts = [viewer.next() for _ in range(10)]
    for part in parts:
        names = [line.partition(b": ")[0] for line in part.lines]
        assert names == [b"Content-Type", b"Content-Length", b"X-Timestamp"]
        assert part.lines[0] == b"Content-Type: image/jpeg"
        assert re.fullmatch(rb"X-Timestamp: \d{10}\.\d{6}", part.lines[2])
        assert part.jpeg.startswith(b"\xff\xd8")
        assert part.jpeg.endswith(b"\xff\xd9")
        assert abs(time.time() - part.timestamp_s) < 60
    stamps = [part.timestamp_s for part in parts]
    assert stamps == sorted(set(stamps))
    assert len({part.jpeg for part in parts}) == len(parts)


def test_boundary_follows_jpeg_immediately(start_portal: Start) -> None:
    """Browsers show a frame only after the next boundary; here the next frame is two seconds away."""
    portal = start_portal(*SMALL, "--fps", "0.5")
    with StreamClient(portal) as viewer:
        first = viewer.next()
        assert viewer.boundary_came_with(first)


def test_stream_parameters(portal: Portal) -> None:
    with StreamClient(portal) as usual, StreamClient(portal, "/stream?width=321&quality=20") as coarse:
        large, little = usual.next().jpeg, coarse.next().jpeg
        assert size_of(little) == (320, 180)
        assert len(little) < len(large) / 2
    with StreamClient(portal, "/stream?fps=2") as slow:
        stamps = [slow.next().timestamp_s for _ in range(4)]
        assert 1.2 < stamps[-1] - stamps[0] < 9
    answer = ask(portal, "/snapshot?width=160&quality=30&max_age=5")
    assert size_of(answer.body) == (160, 90)


def test_full_resolution_during_stream(portal: Portal) -> None:
    with StreamClient(portal) as viewer:
        viewer.next()
        opens = status_of(portal)["opens"]
        answer = ask_for_still(portal, "/snapshot.jpg?full=1")
        assert size_of(answer.body) == (4608, 2592)
        at_s = float(answer.headers["X-Timestamp"])
        while viewer.next().timestamp_s < at_s:
            pass
        assert status_of(portal)["opens"] == opens


# Lifecycle of the camera


def test_camera_is_open_only_with_clients(fresh: Portal) -> None:
    assert status_of(fresh)["state"] == "closed"
    assert "Camera" not in fresh.log
    with StreamClient(fresh) as viewer:
        viewer.next()
        assert status_of(fresh)["state"] == "open"
    fresh.wait_for_log(r"Client 127\.0\.0\.1 disconnected")
    fresh.wait_for_log("Camera closed")
    status = wait_for_status(fresh, state="closed", viewers=0)
    assert status["opens"] == 1
    fresh.wait_for_log(r"Camera open after \d+\.\d\d s: Pattern camera .*, streaming 640x360 YUV420")
    assert ask(fresh, "/snapshot.jpg").status == 200
    fresh.wait_for_log("Camera closed", nth=2)


def test_client_during_linger_time(start_portal: Start) -> None:
    portal = start_portal(*SMALL, "--linger", "60")
    for _ in range(3):
        with StreamClient(portal) as viewer:
            viewer.next()
        wait_for_status(portal, state="lingering", viewers=0)
    assert status_of(portal)["opens"] == 1
    assert "Camera closed" not in portal.log


def test_clients_share_one_opening(fresh: Portal, faults: Path) -> None:
    faults.write_text("hang-open")
    with ExitStack() as stack:
        viewers = [stack.enter_context(StreamClient(fresh)) for _ in range(8)]
        wait_for_status(fresh, state="opening")
        faults.write_text("")
        for viewer in viewers:
            viewer.next()
        status = status_of(fresh)
        assert (status["opens"], status["viewers"]) == (1, 8)
        # All clients get the same bytes: of eight, many have a frame in common.
        pictures = Counter(viewer.next().jpeg for viewer in viewers for _ in range(5))
        assert max(pictures.values()) > 1


def test_release_while_opening(fresh: Portal, faults: Path) -> None:
    with StreamClient(fresh) as viewer:
        viewer.next()
    fresh.wait_for_log("Camera closed")
    before = (sorted(fresh.threads()), fresh.descriptors())
    for target in ("/stream.mjpg", "/snapshot.jpg"):
        opened = status_of(fresh)["opens"]
        faults.write_text("hang-open")
        with StreamClient(fresh, target):
            wait_for_status(fresh, state="opening")
        faults.write_text("")
        wait_for_status(fresh, opens=opened + 1)
        wait_for_status(fresh, state="closed", viewers=0)
    _expect_nothing_left(fresh, before)
    assert "Traceback" not in fresh.log


def test_openings_without_leaks(start_portal: Start) -> None:
    portal = start_portal(*SMALL, "--fps", "60", "--linger", "0")
    before = None
    for nth in range(1, OPENINGS + 1):
        with StreamClient(portal) as viewer:
            viewer.next()
        portal.wait_for_log("Camera closed", nth=nth)
        if nth == 2:  # objects that are created once exist now
            before = (sorted(portal.threads()), portal.descriptors())
    assert before is not None
    _expect_nothing_left(portal, before)
    assert status_of(portal)["opens"] == OPENINGS
    assert portal.stop() == 0


def _expect_nothing_left(portal: Portal, before: tuple[list[str], list[str]]) -> None:
    """Wait, as the thread and socket of a request may end a moment later."""
    wait_for_status(portal, state="closed", viewers=0)
    deadline_s = time.monotonic() + PATIENCE_S
    # Sockets are named by their inodes; only their number is compared.
    while _counted(portal) != (before[0], len(before[1])):
        assert time.monotonic() < deadline_s, f"before {before}, now {portal.threads()}, {portal.descriptors()}"


def _counted(portal: Portal) -> tuple[list[str], int]:
    return sorted(portal.threads()), len(portal.descriptors())


def test_first_frame_of_closed_camera(start_portal: Start) -> None:
    """The limit includes the camera's opening, two frames, and the time for a JPEG on a busy machine."""
    portal = start_portal("--fps", "2", "--linger", "0")
    took_s = []
    for nth in range(1, 4):
        with StreamClient(portal) as viewer:
            took_s.append(viewer.next().came_s - viewer.asked_s)
        opening_s = float(portal.wait_for_log(r"Camera open after (\d+\.\d+) s", nth=nth)[1])
        took_s[-1] -= opening_s
        portal.wait_for_log("Camera closed", nth=nth)
    assert min(took_s) < 2 * 0.5, took_s


def test_max_clients(start_portal: Start) -> None:
    portal = start_portal(*SMALL, "--max-clients", "2")
    with StreamClient(portal) as first, StreamClient(portal) as second:
        first.next()
        second.next()
        answer = ask(portal, "/stream.mjpg")
        assert answer.status == 503
        assert int(answer.headers["Retry-After"]) > 0
        assert "2" in answer.detail
        assert ask(portal, "/snapshot.jpg").status == 200


# Autofocus


def test_autofocus_at_stream_start(fresh: Portal) -> None:
    with StreamClient(fresh) as viewer:
        while "focused" not in fresh.log:
            viewer.next()
        wait_for_status(fresh, autofocus_mode="continuous")
    lines = [line.partition("Autofocus ")[2] for line in fresh.log.splitlines() if "Autofocus " in line]
    assert lines[0] == "for the stream started"
    assert re.fullmatch(r"for the stream focused after \d\.\d\d s, lens at \d\.\d\d dioptres", lines[1])


def test_autofocus_before_snapshot(fresh: Portal) -> None:
    assert ask(fresh, "/snapshot.jpg").status == 200
    fresh.wait_for_log("Autofocus for a snapshot started")
    fresh.wait_for_log(r"Autofocus for a snapshot (focused|timed out, continuing)")


def test_autofocus_disabled(start_portal: Start) -> None:
    portal = start_portal(*SMALL, "--no-autofocus")
    with StreamClient(portal) as viewer:
        for _ in range(5):
            viewer.next()
    assert ask(portal, "/snapshot.jpg").status == 200
    assert "Autofocus" not in portal.log


@pytest.mark.parametrize("word", ["no-focus", "endless-focus"])
def test_failing_autofocus_does_not_delay_frames(start_portal: Start, faults: Path, word: str) -> None:
    faults.write_text(word)
    portal = start_portal(*SMALL, "--pattern-faults", str(faults), "--autofocus-timeout", "9")
    answer = ask(portal, "/snapshot.jpg")
    assert answer.status == 200
    assert answer.took_s < 8  # cold: exposure settles, then 0.6 s for the lens; without the budget nine and more
    with StreamClient(portal) as viewer:
        # Frames continue during and after the cycle.
        verdict = r"Autofocus for a? ?\w+ (failed|timed out) after"
        while not re.search(verdict, portal.log):
            assert not viewer.next(timeout_s=2).is_placeholder
        viewer.next(timeout_s=2)
        answer = ask(portal, "/snapshot.jpg")
        assert answer.status == 200
    assert status_of(portal)["restarts"] == 0


# API key


def test_api_key_gives_full_access(start_portal: Start) -> None:
    portal = start_portal(*SMALL, "--log-level", "DEBUG", environment={"CAMERA_API_KEY": KEY})
    for target in (*STREAMS, *SNAPSHOTS, *STATUSES, *PAGES):
        answer = ask(portal, target)
        assert answer.status == 401, target
        assert answer.headers["WWW-Authenticate"].startswith("Basic ")
        assert "API key" in answer.detail
        assert ask(portal, target, method="HEAD").status == 401
    assert ask(portal, "/health").status == 200
    assert status_of_with(portal, {"X-API-Key": KEY}) == 200
    assert status_of_with(portal, {"Authorization": f"Bearer {KEY}"}) == 200
    basic = base64.b64encode(f"anyone:{KEY}".encode()).decode()
    assert status_of_with(portal, {"Authorization": f"Basic {basic}"}) == 200
    for wrong in ({"X-API-Key": KEY[:-1]}, {"Authorization": f"Bearer {KEY}x"}, {"X-API-Key": ""}):
        assert status_of_with(portal, wrong) == 401
    assert ask(portal, f"/v1/camera/status?api_key={KEY}").status == 401  # URLs are logged by other programs
    with StreamClient(portal, headers={"X-API-Key": KEY}) as viewer:
        viewer.next()
    assert portal.stop() == 0
    assert KEY not in portal.log
    assert basic not in portal.log
    assert "DEBUG" in portal.log


def status_of_with(portal: Portal, headers: dict[str, str]) -> int:
    return ask(portal, "/v1/camera/status", headers=headers).status


def test_api_key_is_never_shown(start_portal: Start) -> None:
    check = start_portal("--check", "--log-level", "DEBUG", environment={"CAMERA_API_KEY": KEY})
    assert check.wait() == 0
    assert "api_key = set" in check.log
    assert KEY not in check.log
    portal = start_portal(environment={"CAMERA_API_KEY": KEY})
    portal.wait_for_log("Listening")
    assert KEY not in Path(f"/proc/{portal.pid}/cmdline").read_text()
    bad = start_portal(environment={"CAMERA_API_KEY": f"{KEY} # which it is"})
    assert bad.wait() == 78
    assert KEY not in bad.log
