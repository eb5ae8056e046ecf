"""Tests of the portal's lifecycle on the real Picamera2: opening, closing without clients, recovery, exit, stop."""

import signal
import time
from collections import Counter

import pytest

from tests.rig.rig import Rig
from tests.support.http_client import ask_for_still, post, resident_mb
from tests.support.rig_client import Portal, decode, in_background, recognise, start_portal, wait_until
from tests.support.timeouts import TIMEOUT_FACTOR

_PHOTOGRAPHS = ("--camera", "Virtual0")  # the camera that shows photographs
_SMALL = (*_PHOTOGRAPHS, "--width", "640", "--height", "360", "--fps", "30")
_OPENINGS = 12  # each would leave its threads and descriptors
_LINGER_S = 3.0
_STOP_LIMIT_S = 3.0 * TIMEOUT_FACTOR  # the documented limit for the exit


def _kinds(portal: Portal) -> Counter[str]:
    """The kinds of open descriptors, without the numbers of pipes, and without sockets."""
    targets = (target.partition(":[")[0] for target in portal.running.descriptors().values())
    return Counter(target for target in targets if target != "socket")


def _has_camera(portal: Portal) -> bool:
    return any("rig-locks" in target or "dma-heap" in target for target in portal.running.descriptors().values())


def test_camera_is_open_with_clients_and_during_linger_time(rig: Rig) -> None:
    portal = start_portal(rig, *_SMALL, "--linger", str(_LINGER_S))
    assert portal.status["state"] == "closed"
    assert portal.get("/health").status == 200
    assert portal.get("/").status == 200
    assert not _has_camera(portal)
    with portal.watch() as viewer:
        viewer.wait_for_pictures(3)
        assert portal.status["state"] == "open"
        assert portal.status["viewers"] == 1
        assert _has_camera(portal)
    portal.running.wait_for_line("Client .* disconnected")
    # A client that returns during the linger time uses the open camera.
    with portal.watch() as viewer:
        viewer.wait_for_pictures(3)
        assert (portal.status["state"], portal.status["opens"]) == ("open", 1)
    lingers_from_s = time.monotonic()
    portal.wait_for_status(state="closed")
    assert time.monotonic() - lingers_from_s > _LINGER_S - 0.1
    assert not _has_camera(portal)
    status = portal.status
    assert (status["viewers"], status["width"], status["fps"], status["available"]) == (0, None, None, True)
    assert portal.get("/snapshot").status == 200
    portal.wait_for_status(viewers=0, opens=2)
    lines = [line.partition(" INFO ")[2] for line in portal.running.output.splitlines()]
    logged = [line for line in lines if line.startswith(("Camera ", "Client "))]
    assert [" ".join(line.split()[:2]) for line in logged if line.startswith("Camera ")] == [
        *("Camera open", "Camera closed", "Camera open")
    ]
    assert sum(" connected; " in line for line in logged) == 2
    assert sum("disconnected (" in line for line in logged) == 2


def test_openings_without_leaks(rig: Rig) -> None:
    portal = start_portal(rig, *_SMALL, "--linger", "0", fps=60)
    settled: list[tuple[Counter[str], Counter[str]]] = []
    for number in range(1, _OPENINGS + 1):
        if number % 2:
            assert portal.get("/snapshot").status == 200
        else:
            with portal.watch() as viewer:
                viewer.wait_for_pictures(1)
        portal.wait_for_status(state="closed", opens=number)
        if number in (2, _OPENINGS):  # the first rounds create objects that stay until the process ends
            wait_until(lambda: len(portal.running.threads()) <= _threads(settled), lambda: "end of threads")
            settled.append((_kinds(portal), Counter(portal.running.threads())))
    (first_kinds, first_threads), (last_kinds, last_threads) = settled
    assert last_kinds == first_kinds
    assert (
        not last_threads - first_threads
    )  # fewer threads are fine: request threads of the first rounds may have ended


def test_memory_over_reopenings(rig: Rig) -> None:
    """Sizes and full stills take turns, each with its own buffers."""
    portal = start_portal(rig, *_SMALL, "--linger", "0", fps=60)
    largest_mb = list[float]()
    with portal.watch() as viewer:
        viewer.wait_for_pictures(1)
        for number in range(8):
            size = {"width": 1280, "height": 720} if number % 2 else {"width": 640, "height": 360}
            assert post(portal, "/v1/camera/stream", {**size, "fps": 30 + number}).status == 200
            assert ask_for_still(portal, "/snapshot?full=1").status == 200
            viewer.wait_for_pictures(1)
            largest_mb.append(resident_mb(portal.running.pid))
    print("resident memory after each round, in MB:", largest_mb)
    # The first rounds create what stays; a leak of a set of buffers in each would be 70 MB and more.
    assert max(largest_mb[4:]) < max(largest_mb[:4]) + 40.0
    assert portal.status["opens"] >= 5


def _threads(settled: list[tuple[Counter[str], Counter[str]]]) -> int:
    """The highest allowed number of threads; request threads end a moment after their responses."""
    return settled[0][1].total() if settled else 1000


def test_camera_in_two_processes(rig: Rig) -> None:
    first, second = start_portal(rig, *_SMALL), start_portal(rig, *_SMALL)
    with first.watch() as viewer:
        viewer.wait_for_pictures(3)
        assert second.status["state"] == "closed"
        answer = second.get("/snapshot")
        assert answer.status == 503
        assert int(answer.headers["Retry-After"]) > 0
        reason = "camera imx708_wide (Virtual0) is busy or cannot be opened: Failed to acquire camera: "
        assert answer.json["detail"].startswith(reason)
        assert second.running.wait() == 69
        assert f"ERROR Camera failed, exiting with code 69: {reason}" in second.running.output
        assert "Traceback" not in second.running.output
        viewer.wait_for_pictures(10)
    assert first.status["restarts"] == 0


def test_recovery_by_restarting_stream(rig: Rig) -> None:
    portal = start_portal(rig, *_SMALL, "--watchdog-timeout", "1")
    with portal.watch() as viewer:
        viewer.wait_for_pictures(5)
        portal.running.freeze()
        portal.running.wait_for_line(r"No frame for 1\.\d s: restarting the stream")
        status = portal.wait_for_status(state="recovering")
        assert status["last_error"] == "no frame for 1 s"
        assert not status["available"]
        assert portal.get("/health").status == 503

        def is_placeholder(jpeg: bytes) -> bool:
            picture = decode(jpeg)
            assert picture.shape == (360, 640, 3)
            return bool(picture.mean() < 40)

        viewer.wait_for(lambda part: is_placeholder(part.jpeg))
        portal.running.thaw()
        portal.running.wait_for_line("Camera recovered")
        viewer.wait_for_pictures(5)
        recognise(rig, decode(viewer.wait_for_pictures(5).jpeg))
        status = portal.wait_for_status(state="open")
        assert 1 <= status["restarts"] <= 2
        assert (status["viewers"], status["available"]) == (1, True)
        assert portal.get("/health").status == 200
        assert portal.get("/snapshot").status == 200
        assert viewer.is_connected


def test_recovery_by_reopening_camera(rig: Rig) -> None:
    portal = start_portal(rig, *_SMALL, "--watchdog-timeout", "1")
    with portal.watch() as viewer:
        viewer.wait_for_pictures(5)
        portal.running.freeze()
        portal.running.wait_for_line("reopening the camera")
        portal.running.thaw()
        portal.wait_for_status(state="open")
        recognise(rig, decode(viewer.wait_for_pictures(5).jpeg))
    status = portal.status
    assert (status["restarts"], status["opens"]) == (2, 2)


def test_exit_when_recovery_fails(rig: Rig) -> None:
    portal = start_portal(rig, *_SMALL, "--watchdog-timeout", "1")
    with portal.watch() as viewer:
        viewer.wait_for_pictures(5)
        portal.running.freeze()
        portal.running.wait_for_line("reopening the camera")
        answer = in_background(lambda: portal.get("/snapshot"))
        assert portal.running.wait() == 70
        viewer.wait_for_end()
    reason = "no frame for 1 s, after a restart of the stream and a reopening"
    assert f"ERROR Camera failed, exiting with code 70: {reason}" in portal.running.output
    assert portal.running.output.endswith("Stopped")
    # On a busy machine the response may be sent earlier, during the recovery.
    assert answer().status == 503
    assert answer().json["detail"] in (
        reason,
        "no frame from the camera in time (it is recovering: no frame for 1 s)",
    )


def test_frozen_camera_without_clients_is_closed(rig: Rig) -> None:
    portal = start_portal(rig, *_SMALL, "--watchdog-timeout", "1", "--linger", "0")
    with portal.watch() as viewer:
        viewer.wait_for_pictures(5)
        portal.running.freeze()
    portal.wait_for_status(state="closed")
    portal.running.thaw()
    assert portal.get("/snapshot").status == 200


def test_unplugged_while_streaming(rig: Rig) -> None:
    portal = start_portal(rig, *_SMALL, "--watchdog-timeout", "1")
    with portal.watch() as viewer:
        viewer.wait_for_pictures(5)
        portal.running.unplug("Virtual0")
        portal.running.freeze()  # libcamera reports no error, frames just stop
        assert portal.running.wait() == 66
        viewer.wait_for_end()
    assert (
        "ERROR Camera failed, exiting with code 66: camera imx708_wide (Virtual0) is gone: no frame for 1 s"
        in portal.running.output
    )


def test_unplugged_while_closed(rig: Rig) -> None:
    portal = start_portal(rig, *_SMALL, "--linger", "0")
    assert portal.get("/snapshot").status == 200
    portal.wait_for_status(state="closed")
    portal.running.unplug("Virtual0")
    answer = portal.get("/snapshot")
    assert (answer.status, answer.json) == (503, {"detail": "camera imx708_wide (Virtual0) is missing"})
    assert portal.running.wait() == 66


@pytest.mark.parametrize(
    ("arguments", "cameras", "message"),
    [
        pytest.param(
            ["--camera", "7"],
            ["Virtual0", "Virtual1"],
            "camera number 7 is missing; there: 0 is imx477 (Virtual1), 1 is imx708_wide (Virtual0)",
            id="number",
        ),
        pytest.param(
            ["--camera", "/base/soc/i2c0mux/i2c@1/imx708@1a"],
            ["Virtual0"],
            "camera with id /base/soc/i2c0mux/i2c@1/imx708@1a is missing; there: 0 is imx708_wide (Virtual0)",
            id="id",
        ),
        pytest.param(["--camera", "0"], [], "camera number 0 is missing; there: none at all", id="no camera at all"),
    ],
)
def test_camera_missing_at_start(rig: Rig, arguments: list[str], cameras: list[str], message: str) -> None:
    done = rig.run(rig.portal(*arguments), cameras=cameras)
    assert done.returncode == 66
    assert f"ERROR {message}\n" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop_with_clients(rig: Rig, number: signal.Signals) -> None:
    portal = start_portal(rig, *_SMALL)
    with portal.watch() as one, portal.watch("/stream.mjpg?width=320") as other:
        for viewer in (one, other):
            viewer.wait_for_pictures(5)
        asked_s = time.monotonic()
        portal.running.signal(number)
        assert portal.running.wait() == 0
        assert time.monotonic() - asked_s < _STOP_LIMIT_S
        for viewer in (one, other):
            viewer.wait_for_end()
    assert [line.partition("INFO ")[2] for line in portal.running.output.splitlines()[-2:]] == [
        *("Camera closed", "Stopped")
    ]
    assert "Traceback" not in portal.running.output


def test_stop_with_frozen_camera(rig: Rig) -> None:
    portal = start_portal(rig, *_SMALL)
    with portal.watch() as viewer:
        viewer.wait_for_pictures(5)
        portal.running.freeze()
        asked_s = time.monotonic()
        portal.running.signal(signal.SIGTERM)
        assert portal.running.wait() == 0
        assert time.monotonic() - asked_s < _STOP_LIMIT_S
    assert "Camera closed" in portal.running.output
