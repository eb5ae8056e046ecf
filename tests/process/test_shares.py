"""What clients of one address may hold and guess, by the whole process; a proxy on this machine reports the address."""

import contextlib
import re
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from tests.conftest import Portal
from tests.support.background import eventually
from tests.support.http_client import StreamClient, ask, status_of
from tests.support.raw_http import Client
from tests.support.rtsp_viewers import Peer

Start = Callable[..., Portal]
GREEDY, OTHER = {"X-Real-IP": "192.0.2.1"}, {"X-Real-IP": "192.0.2.2"}
NAME = "2026-01-02_03-04-05.jpg"
KEY = "a-key-that-nobody-guesses"
SHARE = 8
FILE_BYTES = 1 << 25  # more than the kernel buffers of a connection


def test_slow_readers_and_streams(start_portal: Start, tmp_path: Path) -> None:
    """More connections than the portal has threads request a recording and do not read it; then, many streams."""
    limits = "--max-clients", "12", "--max-clients-per-address", str(SHARE)
    portal = start_portal("--width", "64", "--height", "64", "--recordings", str(tmp_path), *limits)
    portal.wait_for_log("Listening")
    with (tmp_path / NAME).open("wb") as file:
        file.write(b"\xff\xd8")
        file.truncate(FILE_BYTES)
        file.seek(0, 2)
        file.write(b"\xff\xd9")
    with contextlib.ExitStack() as stack:
        statuses = []
        for _ in range(90):
            client = stack.enter_context(Client(("127.0.0.1", urlsplit(portal.url).port)))
            client.send(f"GET /v1/recordings/{NAME} HTTP/1.1\r\nHost: x\r\nX-Real-IP: 192.0.2.1\r\n\r\n".encode())
            statuses.append(client.reply_head()[0])
        assert statuses == [200] * SHARE + [503] * (len(statuses) - SHARE)
        assert len(ask(portal, f"/v1/recordings/{NAME}", headers=OTHER).body) == FILE_BYTES + 2
        assert status_of(portal)["state"] == "closed"
    eventually(lambda: ask(portal, "/v1/camera/status", headers=GREEDY).status == 200)
    with contextlib.ExitStack() as stack:
        for _ in range(SHARE):
            stack.enter_context(StreamClient(portal, headers=GREEDY)).next()
        rejected = ask(portal, "/stream.mjpg", headers=GREEDY)
        assert (rejected.status, rejected.headers["Retry-After"]) == (503, "5")
        assert rejected.detail.startswith(f"streams of this address: must be at most {SHARE}")
        with StreamClient(portal, headers=OTHER) as other, StreamClient(portal) as local:
            other.next()
            local.next()


def test_wrong_keys_by_http_and_rtsp(start_portal: Start) -> None:
    """They are counted together; the addresses of a proxy's clients are counted one by one."""
    portal = start_portal("--rtsp-port", "0", environment={"CAMERA_API_KEY": KEY})
    rtsp = urlsplit(portal.wait_for_log(r"(rtsp://\S+)")[1])
    assert rtsp.hostname is not None
    assert rtsp.port is not None
    for _ in range(3):
        assert ask(portal, "/", headers={"X-API-Key": "wrong"}).status == 401
    peer = Peer((rtsp.hostname, rtsp.port))
    for delay_s in (0.1, 0.2):
        began_s = time.monotonic()
        assert peer.request("DESCRIBE", Authorization="Basic dXNlcjp3cm9uZw==").status == 401
        assert time.monotonic() - began_s >= delay_s
    peer.close()
    slow = ask(portal, "/stream.mjpg?key=wrong")
    assert (slow.status, slow.took_s >= 0.4) == (401, True)
    assert ask(portal, "/v1/camera/status", headers={"X-API-Key": KEY}).status == 200
    assert ask(portal, "/", headers={"X-API-Key": "wrong", **OTHER}).status == 401
    assert portal.stop() == 0
    assert re.findall("Client (.*) rejected: wrong key", portal.log) == ["127.0.0.1", "192.0.2.2"]
