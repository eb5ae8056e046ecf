"""The life of the camera: it opens for a client, focuses, and closes after the last one; nothing is left."""

import re
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Portal
from tests.support.http_client import StreamClient, ask, ask_for_still, post, resident_mb, status_of, wait_for_status
from tests.support.timeouts import PATIENCE_S, TIMEOUT_FACTOR

Start = Callable[..., Portal]
SMALL = ("--width", "640", "--height", "360")
OPENINGS = 12  # each would leave its threads and descriptors


@pytest.fixture
def fresh(start_portal: Start, faults: Path) -> Portal:
    """A new portal with a short linger time and a file for injected faults."""
    return start_portal(*SMALL, "--linger", "0.3", "--pattern-faults", str(faults))


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


def test_memory_over_reopenings(start_portal: Start, wait_until: Callable[..., None]) -> None:
    """Each size has other buffers, and a full still more than all of them: none of that adds up."""
    portal = start_portal(*SMALL, "--fps", "60")
    rounds: tuple[tuple[str, Mapping[str, Any]], ...] = (
        ("stream", {"width": 1280, "height": 720}),
        ("transform", {"hflip": True}),
        ("hdr", {"mode": "sensor"}),
        ("stream", {"width": 640, "height": 360}),
        ("transform", {"hflip": False}),
        ("hdr", {"mode": "off"}),
    )
    largest_mb = list[float]()
    with StreamClient(portal) as viewer, StreamClient(portal, "/stream.mp4"):
        for _ in range(4):
            sizes_mb = [0.0]
            for name, values in rounds:
                assert post(portal, f"/v1/camera/{name}", values).status == 200
                viewer.next()
                sizes_mb.append(resident_mb(portal.pid))
            assert ask_for_still(portal, "/snapshot.jpg?full=1").status == 200
            largest_mb.append(max(sizes_mb))
        assert status_of(portal)["opens"] == 1 + 4 * len(rounds)
    print("largest resident memory of each round, in MB:", largest_mb)
    # The first rounds create what stays. A set of buffers has 9 MB, a full still 18: a leak would be more than 100 MB.
    assert max(largest_mb[2:]) < largest_mb[1] + 60.0
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
    assert min(took_s) < 2 * 0.5 * TIMEOUT_FACTOR, took_s


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
    fresh.wait_for_log(r"Autofocus for a snapshot (focused|continues beyond the time budget)")


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
    assert answer.took_s < 8 * TIMEOUT_FACTOR  # exposure settles, then 0.75 s from the request for the lens, not nine
    with StreamClient(portal) as viewer:
        # Frames continue during and after the cycle.
        verdict = r"Autofocus for a? ?\w+ (failed|timed out) after"
        while not re.search(verdict, portal.log):
            assert not viewer.next(timeout_s=2 * TIMEOUT_FACTOR).is_placeholder
        viewer.next(timeout_s=2 * TIMEOUT_FACTOR)
        answer = ask(portal, "/snapshot.jpg")
        assert answer.status == 200
    assert status_of(portal)["restarts"] == 0
