"""What every program meets: addresses, the wire, the camera that opens for a viewer and closes behind the last, a key.

Pictures are small where their size is not the matter, so that the machine shows the portal and not the camera.
"""

import base64
import re
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.conftest import Portal
from tests.support.http_client import StreamClient, ask, ask_for_still, decode, post, size_of, status_of
from tests.support.rtsp_viewers import Peer

Start = Callable[..., Portal]
SMALL = ("--width", "640", "--height", "360")
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
STATUSES = ("/v1/camera/status", "/camera/status", "/api/camera/status", "/status")
PAGES = ("/", "/index.html", "/webrtc", "/assets/page.css", "/assets/page.js", "/assets/icon.svg")
KEY = "a-key-that-nobody-guesses"
SHARED_FLAGS = (*SMALL, "--linger", "0.3")


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


def test_status_paths(start_portal: Start) -> None:
    fresh = start_portal()
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


def test_head_does_not_open_camera(start_portal: Start) -> None:
    fresh = start_portal()
    for target in (*STREAMS, *SNAPSHOTS, *STATUSES, *PAGES, "/health"):
        answer = ask(fresh, target, method="HEAD")
        assert answer.status == 200, target
        assert answer.body == b""
        assert answer.headers["Content-Type"] != ""
    assert "multipart" in ask(fresh, "/stream.mjpg", method="HEAD").headers["Content-Type"]
    assert status_of(fresh)["opens"] == 0  # the camera stayed closed
    assert fresh.log.count("\n") == 2, fresh.log


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
        ("GET", "/?action=dance", 400, "action: must be one of "),
        ("POST", "/snapshot.jpg", 405, "method: must be one of GET, HEAD"),
        ("DELETE", "/", 405, "method: must be one of GET, HEAD"),
        ("GET", "/snapshot?quality=101", 400, "quality: must be "),
        ("GET", "/snapshot?max_age=-1", 400, "max_age: must be "),
        ("GET", "/stream?fps=fast", 400, "fps: must be "),
        ("GET", "/stream?width=3.5", 400, "width: must be "),
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


def test_view_key_in_the_query(start_portal: Start) -> None:
    """As an <img> in another page sends it; only what is embedded accepts it, and only the view key."""
    environment = {"CAMERA_API_KEY": KEY, "CAMERA_VIEW_KEY": "seen & heard"}
    portal = start_portal(*SMALL, "--log-level", "DEBUG", environment=environment)
    with StreamClient(portal, "/?action=stream&key=seen+%26+heard") as viewer:
        _, headers = viewer.head()
        viewer.next()
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cross-Origin-Resource-Policy"] == "cross-origin"
    assert ask(portal, "/snapshot.jpg?key=seen%20%26%20heard").status == 200
    assert ask(portal, "/stream.mp4?key=seen%20%26%20heard", method="HEAD").status == 200
    assert ask(portal, "/snapshot.jpg?key=seen").status == 401
    rejected = ask(portal, f"/snapshot.jpg?key={KEY}")
    assert (rejected.status, "CAMERA_API_KEY is not accepted in a URL" in rejected.detail) == (401, True)
    for target in (*STATUSES, *PAGES):
        assert ask(portal, f"{target}?key=seen%20%26%20heard").status == 401
    assert portal.stop() == 0
    assert "seen" not in portal.log
    assert KEY not in portal.log


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


# The camera's name


def test_name(start_portal: Start, tmp_path: Path) -> None:
    """In every place, from a variable in the environment."""
    name = "Gärten #2 <b>"
    flags = ("--rtsp-port", "0", "--recordings", str(tmp_path))
    portal = start_portal(*SMALL, *flags, environment={"cam0_name": name})
    rtsp = urlsplit(portal.wait_for_log(r"(rtsp://\S+)")[1])
    assert status_of(portal)["name"] == name
    assert "<title>Gärten #2 &lt;b&gt;</title>" in ask(portal, "/").body.decode()
    snapshot = ask(portal, "/snapshot.jpg")
    assert name.encode() + b"\0" in snapshot.body[:1000]
    assert "filename*=UTF-8''G%C3%A4rten-%232-b-20" in snapshot.headers["Content-Disposition"]
    peer = Peer((str(rtsp.hostname), rtsp.port or 0))
    assert f"s={name}\r\n".encode() in peer.request("DESCRIBE").body
    peer.close()
    assert post(portal, "/v1/recordings/start", {}).status == 200
    assert post(portal, "/v1/recordings/stop", {}).status == 200
    (video,) = tmp_path.glob("*.mp4")
    assert name.encode() in video.read_bytes()
    saved = ask(portal, f"/v1/recordings/{video.name}?download=1").headers["Content-Disposition"]
    assert saved.endswith(f"filename*=UTF-8''G%C3%A4rten-%232-b-{video.name}")


# The first lines of the log


def test_first_lines_of_the_log(start_portal: Start, tmp_path: Path) -> None:
    portal = start_portal(*SMALL, "--fps", "12.5", "--host", "0.0.0.0", "--state-dir", str(tmp_path))
    port = portal.url.rpartition(":")[2]
    portal.wait_for_log("No API key")
    starting, listening, warning = (line.split(" ", 2)[2] for line in portal.log.splitlines()[:3])
    assert re.fullmatch(
        rf"INFO Starting Soft Stream \S+: camera pattern, 640x360 at 12\.5 fps, state folder {tmp_path}", starting
    )
    assert listening == f"INFO Listening on http://127.0.0.1:{port}/ and all other addresses of this machine (0.0.0.0)"
    assert warning.startswith("WARNING No API key is set: ")
    assert "CAMERA_API_KEY" in warning
