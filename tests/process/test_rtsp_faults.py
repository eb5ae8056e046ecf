"""What happens to RTSP viewers, by TCP and by UDP, when the camera or the portal fails: the table in docs/h264.md."""

import contextlib
import re
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from softcam.runtime.http_auth import authorization
from tests.conftest import Portal
from tests.support.http_client import post, status_of, wait_for_status
from tests.support.rtsp_viewers import TCP, Peer, UdpReceiver, is_goodbye

Start = Callable[..., Portal]
FPS, CLOCK_HZ = 20, 90_000
SIZE = (320, 180)
STALL_S = 1.5
FLAGS = (
    *("--width", str(SIZE[0]), "--height", str(SIZE[1]), "--fps", str(FPS), "--bitrate", "200000"),
    *("--watchdog-timeout", str(STALL_S), "--linger", "0", "--rtsp-port"),
)
SHARED_FLAGS = (*FLAGS, "0")
PARAMETER_SETS = 7  # the NAL unit type with which a keyframe's packets begin
DISCONNECTED = re.compile(r"RTSP viewer \S+ disconnected")


@dataclass(frozen=True, slots=True)
class Picture:
    """An access unit as it was sent; `time` is in units of the RTP clock."""

    ssrc: int
    time: int
    is_keyframe: bool

    def ticks_since(self, other: "Picture") -> int:
        return (self.time - other.time) % 2**32


class Viewer:
    """A client of a portal by TCP or UDP, which plays; fails on a gap within the sequence numbers."""

    def __init__(self, url: str, kind: str) -> None:
        address = urlsplit(url)
        self.peer = Peer((address.hostname or "", address.port or 0))
        self.ports = UdpReceiver() if kind == "udp" else None
        self._next: int | None = None  # sequence number

    def play(self) -> None:
        self.peer.play(TCP if self.ports is None else self.ports.transport)

    def picture(self) -> Picture:
        """The next one, which follows the last one without a loss."""
        packets = [self._packet()]
        while not packets[-1][1] & 0x80:
            packets.append(self._packet())
        numbers = [struct.unpack(">H", packet[2:4])[0] for packet in packets]
        expected = numbers[0] if self._next is None else self._next
        assert numbers == [(expected + index) % 2**16 for index in range(len(numbers))]
        self._next = (numbers[-1] + 1) % 2**16
        ((stamp, ssrc),) = {struct.unpack(">II", packet[4:12]) for packet in packets}
        return Picture(ssrc, stamp, packets[0][12] & 0x1F == PARAMETER_SETS)

    def pictures(self) -> Iterator[tuple[Picture, Picture]]:
        """Each of the same source, with the one before it."""
        before = self.picture()
        while True:
            after = self.picture()
            assert after.ssrc == before.ssrc
            yield before, after
            before = after

    def wait_for_end(self) -> None:
        """Until the portal says goodbye and closes the connection."""
        assert self.peer.has_ended()
        if self.ports is None:
            assert is_goodbye(self.peer.rest)
        else:
            while not is_goodbye(self.ports.rtcp.recv(2048)):
                pass

    def close(self) -> None:
        """Leave, where the portal has not ended the session; one by UDP would outlive its connection."""
        with contextlib.suppress(OSError):
            self.peer.send_request("TEARDOWN")
        self.peer.close()
        if self.ports is not None:
            self.ports.close()

    def _packet(self) -> bytes:
        if self.ports is not None:
            return self.ports.rtp.recv(65536)
        while True:
            channel, data = self.peer.packet()
            if channel == 0:
                return data


def rtsp_url(portal: Portal) -> str:
    url = status_of(portal)["rtsp"]["url"]
    assert isinstance(url, str)
    return url


@contextlib.contextmanager
def viewers(portal: Portal) -> Iterator[list[Viewer]]:
    """One by TCP and one by UDP, which play."""
    both = [Viewer(rtsp_url(portal), kind) for kind in ("tcp", "udp")]
    try:
        for viewer in both:
            viewer.play()
            assert viewer.picture().is_keyframe
        yield both
    finally:
        for viewer in both:
            viewer.close()


def assert_session_continues(portal: Portal, both: list[Viewer]) -> None:
    for viewer in both:
        viewer.peer.send_request("GET_PARAMETER")
        assert viewer.peer.response().status == 200
    assert status_of(portal)["rtsp"]["viewers"] == len(both)
    assert DISCONNECTED.search(portal.log) is None


def test_camera_is_held_by_viewers_alone(portal: Portal) -> None:
    wait_for_status(portal, state="closed", held_by=[])
    with viewers(portal) as both:
        held = status_of(portal)["held_by"]
        assert [(lease["kind"], lease["count"]) for lease in held] == [("rtsp", 2)]
        assert both[0].peer.request("TEARDOWN").status == 200
        wait_for_status(portal, viewers=1, state="open")
    wait_for_status(portal, viewers=0, held_by=[], state="closed")


def test_recovery_keeps_sessions(portal: Portal, shared_faults: Path) -> None:
    with viewers(portal) as both:
        began_s = time.monotonic()
        shared_faults.write_text("hang-once")
        portal.wait_for_log("restarting the stream")
        shared_faults.write_text("")
        portal.wait_for_log("Camera recovered")
        for viewer in both:
            pause, after = next(
                (ticks / CLOCK_HZ, after)
                for before, after in viewer.pictures()
                if (ticks := after.ticks_since(before)) > STALL_S * CLOCK_HZ
            )
            assert after.is_keyframe
            assert pause < time.monotonic() - began_s
            assert viewer.picture().ticks_since(after) < STALL_S * CLOCK_HZ
        assert_session_continues(portal, both)


@pytest.mark.parametrize(
    ("path", "content", "size"),
    [
        ("/v1/camera/stream", {"width": 240, "height": 136}, (240, 136)),
        ("/v1/camera/resolution", {"width": 400, "height": 224}, (400, 224)),
    ],
    ids=["stream", "resolution"],
)
def test_size_change_ends_sessions(portal: Portal, path: str, content: Any, size: tuple[int, int]) -> None:
    with viewers(portal) as both:
        assert post(portal, path, content).status == 200
        for viewer in both:
            viewer.wait_for_end()
        for nth in (1, 2):
            portal.wait_for_log(r"RTSP viewer \S+ disconnected \(the size of the video changed\)", nth=nth)
    again = Viewer(rtsp_url(portal), "tcp")
    assert f"a=framesize:96 {size[0]}-{size[1]}\r\n".encode() in again.peer.request("DESCRIBE").body
    again.play()
    assert again.picture().is_keyframe
    again.close()


def test_rate_change_keeps_sessions(portal: Portal) -> None:
    with viewers(portal) as both:
        assert post(portal, "/v1/camera/stream", {"fps": FPS / 2}).status == 200
        is_slower = 1.5 * CLOCK_HZ / FPS
        for viewer in both:
            has_new_parameters = False
            for before, after in viewer.pictures():
                has_new_parameters |= after.is_keyframe
                if has_new_parameters and after.ticks_since(before) > is_slower:
                    break
        assert b"a=framerate:10\r\n" in both[0].peer.request("DESCRIBE").body
        assert_session_continues(portal, both)


def test_other_controls_keep_sessions(portal: Portal) -> None:
    with viewers(portal) as both:
        assert post(portal, "/v1/camera/roi", {"x": 0.25, "y": 0.25, "width": 0.5, "height": 0.5}).status == 200
        for viewer in both:
            for count, (before, after) in enumerate(viewer.pictures()):
                assert after.ticks_since(before) < STALL_S * CLOCK_HZ
                if count == FPS:
                    break
        assert_session_continues(portal, both)


@pytest.mark.parametrize(("fault", "code"), [("missing", 66), ("hang", 70)])
def test_exit_ends_sessions(start_portal: Start, faults: Path, fault: str, code: int) -> None:
    """The camera is unplugged, or cannot be recovered; one that asks for the description meanwhile gets a reason."""
    portal = start_portal("--pattern-faults", str(faults), *FLAGS, "0")
    with viewers(portal) as both:
        another = Viewer(rtsp_url(portal), "tcp")
        faults.write_text(fault)
        if fault == "hang":
            portal.wait_for_log("restarting the stream")
            refused = another.peer.request("DESCRIBE")
            assert refused.status == 503
            assert refused["Retry-After"] == "5"
            assert refused.body
        for viewer in both:
            viewer.wait_for_end()
        assert another.peer.has_ended()
        another.close()
        assert portal.wait() == code, portal.log


def test_restart_of_the_portal(start_portal: Start) -> None:
    """Viewers connect again at the same address; what they send for the old nonce is challenged once more, as stale."""
    key = {"CAMERA_VIEW_KEY": "secret-of-the-test"}
    portal = start_portal(*FLAGS, "0", environment=key)
    url = portal.wait_for_log(r"Listening on (rtsp://\S+)")[1]
    challenges: list[str] = []

    def describe(viewer: Viewer) -> int:
        """The status of a request with the credentials for the last challenge, whose successor is kept."""
        value = authorization(challenges, "DESCRIBE", viewer.peer.url, ("any", "secret-of-the-test"), 1)
        response = viewer.peer.request("DESCRIBE", Authorization=value)
        challenges[:] = response.fields.get("www-authenticate", challenges)
        return response.status

    first = Viewer(url, "tcp")
    challenges += first.peer.request("DESCRIBE").fields["www-authenticate"]
    assert "stale" not in "".join(challenges)
    assert describe(first) == 200
    first.play()
    before = first.picture()
    assert portal.stop() == 0
    first.wait_for_end()
    first.close()

    portal = start_portal(*FLAGS, str(urlsplit(url).port), environment=key)
    portal.wait_for_log(re.escape(url))
    again = Viewer(url, "tcp")
    assert describe(again) == 401
    assert ", stale=true" in "".join(challenges)
    assert describe(again) == 200
    again.play()
    after = again.picture()
    assert after.is_keyframe
    assert after.ssrc != before.ssrc
    again.close()
    assert "wrong key" not in portal.log
