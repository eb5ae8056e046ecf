"""Snapshots of a camera that has to be opened, series of them, and the first image of a cold stream."""

import io
import re
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from PIL import ExifTags, Image

from tests.conftest import Portal
from tests.support.background import Background
from tests.support.http_client import StreamClient, ask, decode, post, status_of
from tests.support.timeouts import PATIENCE_S

Start = Callable[..., Portal]
SMALL = ("--width", "640", "--height", "360")
WALL_M, NEAR_WALL_M = 1 / 1.8, 1 / 3.2  # of the pattern camera, which focuses on it


def snapshot(portal: Portal) -> bytes:
    answer = ask(portal, "/snapshot.jpg")
    assert answer.status == 200, answer.body
    return answer.body


def focused_at_m(picture: bytes) -> float:
    exif = Image.open(io.BytesIO(picture)).getexif().get_ifd(ExifTags.IFD.Exif)
    return float(exif[ExifTags.Base.SubjectDistance])


def test_series_is_focused_once(start_portal: Start) -> None:
    portal = start_portal(*SMALL, "--linger", "60", "--autofocus-timeout", str(PATIENCE_S))
    snapshot(portal)
    portal.wait_for_log("Autofocus for a snapshot focused")
    for _ in range(20):
        assert focused_at_m(snapshot(portal)) == pytest.approx(WALL_M, rel=0.01)
    with StreamClient(portal) as viewer:
        viewer.next()
        snapshot(portal)
    # On a busy machine the first snapshot does not wait until the end of the cycle, which is a line, too.
    assert re.findall("Autofocus for (.*) started", portal.log) == ["a snapshot"], "one cycle"
    assert status_of(portal)["opens"] == 1


def test_series_follows_the_scene(start_portal: Start, faults: Path) -> None:
    portal = start_portal(*SMALL, "--linger", "60", "--pattern-faults", str(faults))
    snapshot(portal)
    portal.wait_for_log("Autofocus for a snapshot focused")
    faults.write_text("near")
    deadline_s = time.monotonic() + PATIENCE_S
    while focused_at_m(snapshot(portal)) != pytest.approx(NEAR_WALL_M, rel=0.01):
        assert time.monotonic() < deadline_s, portal.log


def measure(portal: Portal, *, has_changes: bool) -> tuple[float, float]:
    """Snapshots of 16 clients, also beside ten changes a second: how many a second, and the time of 99 % of them."""
    is_over = threading.Event()

    def take_snapshots() -> list[float]:
        times_s = [time.monotonic()]
        while not is_over.is_set():
            snapshot(portal)
            times_s.append(time.monotonic())
        return [after_s - before_s for before_s, after_s in pairwise(times_s)]

    began_s = time.monotonic()
    asking = [Background(take_snapshots) for _ in range(16)]
    for number in range(30):
        if has_changes:
            change = {"exposure_us": 5000 + 500 * (number % 9), "gain": 2.0}
            assert post(portal, "/v1/camera/manual_exposure", change).status == 200
        is_over.wait(max(0.0, began_s + (number + 1) / 10 - time.monotonic()))
    measured_s = time.monotonic() - began_s
    is_over.set()
    took_s = sorted(one_s for each in asking for one_s in each.result())
    return len(took_s) / measured_s, took_s[len(took_s) * 99 // 100]


@pytest.mark.measurement
def test_rate_beside_control_changes(start_portal: Start) -> None:
    """The next snapshots have to show each change; one that waits for it delays no other.

    60 snapshots a second, 99 % of them within half a second: that is less than a third of the rate without changes on a
    machine that reaches 200, and the bound on a slower one.
    """
    portal = start_portal("--linger", "60")
    measure(portal, has_changes=True)  # exposure and focus of the open camera settle
    for _ in range(3):  # other processes may disturb one measurement, but hardly three
        usual_rate, usual_s = measure(portal, has_changes=False)
        rate, slowest_s = measure(portal, has_changes=True)
        print(f"{rate:.0f} snapshots a second, 99 % within {slowest_s:.3f} s; alone {usual_rate:.0f}, {usual_s:.3f} s")
        if rate >= min(60, 0.3 * usual_rate) and slowest_s < max(0.5, 4 * usual_s):
            return
    pytest.fail(
        f"{rate:.0f} snapshots a second, 99 % within {slowest_s:.3f} s; alone {usual_rate:.0f}, {usual_s:.3f} s"
    )


def test_slow_camera_slows_down_after_its_start(start_portal: Start) -> None:
    """The exposure of a cold camera needs several frames, which would take seconds at its own rate."""
    portal = start_portal(*SMALL, "--fps", "1")
    with StreamClient(portal) as viewer:
        stamps_s = [viewer.next().timestamp_s]
        while len(stamps_s) < 2 or stamps_s[-1] - stamps_s[-2] < 0.9:
            stamps_s.append(viewer.next().timestamp_s)
            assert len(stamps_s) < 50, stamps_s
        viewer.next()
        assert status_of(portal)["fps"] == pytest.approx(1.0, rel=0.1), "the frames of the start do not count"


@pytest.mark.measurement
def test_time_of_cold_snapshot(start_portal: Start, faults: Path) -> None:
    """The median of five: other processes may disturb two. A portal closes its camera while the others open theirs."""
    faults.write_text("slow-open")
    limits_s = {"20": 0.9, "5": 0.9, "2": 1.6, "1": 1.6}  # by frames per second
    flags = ("--linger", "0", "--pattern-faults", str(faults))
    portals = {fps: start_portal("--fps", fps, *flags) for fps in limits_s}
    took_s: dict[str, list[float]] = {fps: [] for fps in limits_s}
    for portal in portals.values():
        portal.wait_for_log("Listening")
    for nth in range(5):
        for fps, portal in portals.items():
            if nth:
                portal.wait_for_log("Camera closed", nth=nth)
            answer = ask(portal, "/snapshot.jpg")
            assert answer.status == 200
            took_s[fps].append(answer.took_s)
        within = {fps: sum(each_s <= limits_s[fps] for each_s in all_s) for fps, all_s in took_s.items()}
        if min(within.values()) >= 3:  # so is the median of five
            break
    print(took_s)
    assert min(within.values()) >= 3, took_s


@pytest.mark.measurement
def test_rate_of_series(start_portal: Start) -> None:
    portal = start_portal()
    snapshot(portal)
    portal.wait_for_log("Autofocus for a snapshot focused")
    came_s = [time.monotonic()]
    while came_s[-1] - came_s[0] < 3:
        snapshot(portal)
        came_s.append(time.monotonic())
    rate = (len(came_s) - 1) / (came_s[-1] - came_s[0])
    print(f"{rate:.1f} snapshots/s, longest {max(after - before for before, after in pairwise(came_s)):.2f} s")
    assert rate >= 8


@pytest.mark.measurement
def test_first_image_of_cold_stream(start_portal: Start) -> None:
    """As bright as later images, and as sharp: a blurred one has fewer bytes."""
    portal = start_portal("--linger", "0")
    for nth in range(1, 4):  # on a busy machine the frames may be later than the hold
        with StreamClient(portal) as viewer:
            first = viewer.next()
            later = [viewer.next() for _ in range(20)][-1]
        portal.wait_for_log("Camera closed", nth=nth)
        brightness = [float(decode(part.jpeg).mean()) for part in (first, later)]
        sizes = [len(part.jpeg) for part in (first, later)]
        print(f"first image after {first.came_s - viewer.asked_s:.2f} s, {sizes} bytes, brightness {brightness}")
        if brightness[0] == pytest.approx(brightness[1], rel=0.03) and sizes[0] > 0.9 * sizes[1]:
            break
    else:
        pytest.fail(f"the first image has {sizes[0]} bytes, brightness {brightness[0]:.0f}; see above for later ones")
