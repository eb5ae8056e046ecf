"""Faults of the real Picamera2 with clients of every kind: what they see is as in the fault matrix."""

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial

from tests.endurance.fault_matrix import Client, Request, read_mjpeg, read_mp4, read_rtsp
from tests.endurance.fault_rows import ENDS, NOTICE_ENDS, NOTICES, PAUSES
from tests.rig.rig import Rig
from tests.support.http_client import post
from tests.support.publishing_server import PublishingServer
from tests.support.recording_client import listed
from tests.support.rig_client import Portal, start_portal, wait_until

FLAGS = (
    *("--camera", "Virtual0", "--width", "640", "--height", "360", "--fps", "20", "--watchdog-timeout", "2"),
    *("--rtsp-port", "0", "--recordings", "/run/recordings", "--rtsp-url"),
)


class Clients:
    """One of every kind; each has received images when the object is complete."""

    def __init__(self, portal: Portal, server: PublishingServer) -> None:
        self.portal, self._server = portal, server
        self.streams = [Client(portal, read.__name__, read) for read in (read_mjpeg, read_mp4, read_rtsp)]
        assert post(portal, "/v1/recordings/start", {}).status == 200
        self.wait_for_media(0.0)

    def wait_for_media(self, after_s: float) -> None:
        """All have an image from after that moment."""
        for stream in self.streams:
            wait_until(partial(stream.has_media, after_s), partial(str, stream))
        wait_until(lambda: self._server.media_s.get("rig", [0.0])[-1] > after_s, lambda: f"{self.portal.status}")


@contextmanager
def all_clients(rig: Rig) -> Iterator[Clients]:
    with closing(PublishingServer()) as server:
        yield Clients(start_portal(rig, *FLAGS, f"rtsp://127.0.0.1:{server.port}/rig"), server)


def test_all_clients_continue_after_recovery(rig: Rig) -> None:
    with all_clients(rig) as clients:
        portal = clients.portal
        portal.running.freeze()
        portal.running.wait_for_line("restarting the stream")
        portal.running.thaw()
        portal.running.wait_for_line("Camera recovered")
        clients.wait_for_media(time.monotonic())
        for stream in clients.streams:
            stream.is_over.set()
            stream.join()
            assert stream.summary(is_open=True) in (PAUSES, NOTICES), stream.name
        running = listed(portal)["running"]["video"]
        assert (running["segments"], running["paused"]) == (1, None)
        publishing = portal.status["publishing"]
        assert (publishing["state"], publishing["reconnects"]) == ("publishing", 0)


def test_all_clients_end_when_unplugged(rig: Rig) -> None:
    with all_clients(rig) as clients:
        portal = clients.portal
        portal.running.unplug("Virtual0")
        portal.running.freeze()  # libcamera reports no error, frames just stop
        time.sleep(0.3)  # for the frame that is being exposed
        snapshot = Request(portal, "GET", "/snapshot.jpg", None)
        assert portal.running.wait() == 66
        for stream in clients.streams:
            stream.join()
            assert stream.summary(is_open=True) in (ENDS, NOTICE_ENDS), stream.name
        snapshot.join()
        assert snapshot.status == 503
    assert "Traceback" not in portal.running.output
