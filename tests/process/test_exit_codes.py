"""Tests of the exit codes and the print-and-exit options of a real process."""

import signal
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

import softcam
from tests.conftest import Portal
from tests.support.http_client import StreamClient, ask, wait_for_status
from tests.support.timeouts import PATIENCE_S, TIMEOUT_FACTOR

Start = Callable[..., Portal]
GONE_WITHIN_S = 2 * 3.0 * TIMEOUT_FACTOR  # twice the documented limit from the signal to the exit
NO_PICAMERA2 = "raise ModuleNotFoundError(\"No module named 'picamera2'\", name='picamera2')\n"
TWO_CAMERAS = """
class Picamera2:
    @staticmethod
    def global_camera_info():
        return [
            {"Model": "imx708", "Location": 2, "Rotation": 180, "Id": "/base/i2c@1a", "Num": 0},
            {"Model": "imx477", "Location": 2, "Rotation": 0, "Id": "/base/i2c@2b", "Num": 1},
        ]
"""


def fake_picamera2(folder: Path, source: str) -> Mapping[str, str]:
    """An environment in which `import picamera2` imports this source."""
    package = folder / "picamera2"
    package.mkdir()
    (package / "__init__.py").write_text(source)
    (package / "platform.py").write_text("")
    (folder / "libcamera.py").write_text("")
    return {"PYTHONPATH": str(folder)}


def ends_well(portal: Portal, by: signal.Signals) -> None:
    began_s = time.monotonic()
    assert portal.stop(by) == 0
    assert time.monotonic() - began_s < GONE_WITHIN_S
    assert f"Stopping: {by.name}" in portal.log
    assert portal.log.rstrip().endswith("Stopped")
    assert "Traceback" not in portal.log
    assert "ERROR" not in portal.log


# 0: asked to stop


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGINT])
def test_stop_while_closed(portal: Portal, by: signal.Signals) -> None:
    ends_well(portal, by)
    assert "Camera open" not in portal.log


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGINT])
def test_stop_with_clients(portal: Portal, by: signal.Signals) -> None:
    with ExitStack() as stack:
        viewers = [stack.enter_context(StreamClient(portal)) for _ in range(5)]
        for viewer in viewers:
            viewer.next()
        ends_well(portal, by)
        for viewer in viewers:
            viewer.wait_for_end()
    assert "Camera closed" in portal.log


def test_stop_with_stuck_client(portal: Portal) -> None:
    with StreamClient(portal) as viewer:
        viewer.next()  # then stops reading
        with StreamClient(portal) as other:  # twenty frames later the first client's socket is full
            for _ in range(20):
                other.next()
            ends_well(portal, signal.SIGTERM)


def test_stop_with_idle_connection(portal: Portal) -> None:
    port = int(portal.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port)) as idle:
        ask(portal, "/health")
        ends_well(portal, signal.SIGTERM)
        idle.settimeout(GONE_WITHIN_S)
        assert idle.recv(1) == b""


def test_stop_while_opening(start_portal: Start, faults: Path) -> None:
    faults.write_text("hang-open")
    portal = start_portal("--pattern-faults", str(faults))
    with StreamClient(portal) as viewer:
        wait_for_status(portal, state="opening")
        portal.process.send_signal(signal.SIGTERM)
        portal.wait_for_log("Stopping")
        faults.write_text("")  # the portal waits for a slow open and closes the camera
        assert portal.wait() == 0
        assert viewer.head()[0] == b"HTTP/1.1 503 Service Unavailable"
    assert "Camera closed" in portal.log
    assert "Stopped" in portal.log


def test_stop_while_recovering(start_portal: Start, faults: Path) -> None:
    portal = start_portal("--pattern-faults", str(faults), "--watchdog-timeout", "2.5")
    with StreamClient(portal) as viewer:
        viewer.next()
        faults.write_text("hang")
        portal.wait_for_log("restarting the stream")
        began_s = time.monotonic()
        assert portal.stop() == 0, portal.log
        assert time.monotonic() - began_s < GONE_WITHIN_S
    assert "Camera closed" in portal.log


def test_exit_with_hanging_camera(start_portal: Start, faults: Path) -> None:
    portal = start_portal("--pattern-faults", str(faults))
    with StreamClient(portal) as viewer:
        viewer.next()
        faults.write_text("hang-close")
        began_s = time.monotonic()
        assert portal.stop() == 70  # not a clean stop
        assert time.monotonic() - began_s < GONE_WITHIN_S
    assert "Camera did not close in time" in portal.log


# 2 and 78: invalid configuration


@pytest.mark.parametrize(
    ("flags", "environment", "code", "expected"),
    [
        (
            ["--fps", "0", "--quality", "101", "--prot", "1"],
            {},
            2,
            ["--fps '0'", "--quality '101'", "--prot: unknown flag"],
        ),
        (["--width", "-3"], {"CAMERA_QUALITY": "best"}, 2, ["--width '-3'", "CAMERA_QUALITY 'best'"]),
        ([], {"CAMERA_FPS": "x", "CAMERA_WIDHT": "1"}, 78, ["CAMERA_FPS 'x'", "CAMERA_WIDHT: unknown variable"]),
    ],
)
def test_invalid_configuration(
    start_portal: Start, flags: list[str], environment: Mapping[str, str], code: int, expected: list[str]
) -> None:
    """Exit code and output; `tests/unit/config` has all messages."""
    portal = start_portal(*flags, environment=environment)
    check = start_portal("--check", *flags, environment=environment)
    assert portal.wait() == code
    lines = portal.log.splitlines()
    assert len(lines) == len(expected), portal.log
    for part in expected:
        assert any(part in line for line in lines), portal.log
    assert check.wait() == code
    assert check.log == portal.log


# 69: an address that cannot be bound yet


def test_port_in_use(start_portal: Start, portal: Portal) -> None:
    port = portal.url.rpartition(":")[2]
    second = start_portal("--port", port)
    assert second.wait() == 69
    assert f"ERROR host 127.0.0.1, port {port}: Address already in use" in second.log
    assert "Traceback" not in second.log


def test_port_of_exiting_portal(start_portal: Start, portal: Portal) -> None:
    port = portal.url.rpartition(":")[2]
    second = start_portal("--port", port)
    second.wait_for_log("retrying")
    assert portal.stop() == 0
    second.wait_for_log("Listening")
    ends_well(second, signal.SIGTERM)


def test_stop_while_waiting_for_address(start_portal: Start) -> None:
    portal = start_portal("--host", "192.0.2.1")  # reserved by RFC 5737
    portal.wait_for_log("host 192.0.2.1, port 0: Cannot assign requested address.*; retrying")
    ends_well(portal, signal.SIGTERM)


# 66: missing


def test_missing_camera(start_portal: Start, faults: Path) -> None:
    faults.write_text("missing")
    portal = start_portal("--pattern-faults", str(faults))
    assert portal.wait() == 66
    assert "is missing" in portal.log
    assert "Listening" not in portal.log


def test_camera_removed_while_streaming(start_portal: Start, faults: Path) -> None:
    portal = start_portal("--pattern-faults", str(faults), "--watchdog-timeout", "1")
    with StreamClient(portal) as viewer:
        viewer.next()
        faults.write_text("missing")
        viewer.next_where(is_placeholder=True)  # the last image shows the reason
        wait_for_status(portal, state="missing")  # the portal waits a moment, so that pages can read the status
        viewer.wait_for_end()
        assert portal.wait() == 66
    assert "is gone: no frame for 1 s" in portal.log


def test_camera_removed_while_closed(start_portal: Start, faults: Path) -> None:
    portal = start_portal("--pattern-faults", str(faults))
    portal.wait_for_log("Listening")
    faults.write_text("missing")
    answer = ask(portal, "/snapshot.jpg")
    assert answer.status == 503
    assert "is missing" in answer.detail
    assert portal.wait() == 66


@pytest.mark.parametrize("camera", ["0", "/base/soc/i2c0mux/i2c@1/imx708@1a"])
def test_missing_picamera2(start_portal: Start, tmp_path: Path, camera: str) -> None:
    portal = start_portal(camera=camera, environment=fake_picamera2(tmp_path, NO_PICAMERA2))
    assert portal.wait() == 66
    assert "picamera2 is missing" in portal.log
    assert "sudo apt install python3-picamera2" in portal.log
    assert "Traceback" not in portal.log


@pytest.mark.parametrize(("camera", "asked"), [("2", "number 2"), ("/base/i2c@3c", "with id /base/i2c@3c")])
def test_camera_not_listed_by_picamera2(start_portal: Start, tmp_path: Path, camera: str, asked: str) -> None:
    portal = start_portal(camera=camera, environment=fake_picamera2(tmp_path, TWO_CAMERAS))
    assert portal.wait() == 66
    assert f"camera {asked} is missing; there: 0 is imx708 (/base/i2c@1a), 1 is imx477" in portal.log


# 69: busy


def test_busy_camera(start_portal: Start, faults: Path) -> None:
    faults.write_text("busy")
    portal = start_portal("--pattern-faults", str(faults))
    answer = ask(portal, "/stream.mjpg")
    assert answer.status == 503
    assert int(answer.headers["Retry-After"]) > 0
    assert "in use by another program" in answer.detail
    assert portal.wait() == 69
    assert "in use by another program" in portal.log


def test_camera_acquired_by_another_process_while_closed(start_portal: Start, faults: Path) -> None:
    portal = start_portal("--pattern-faults", str(faults), "--watchdog-timeout", "1")
    with StreamClient(portal) as viewer:
        viewer.next()
        faults.write_text("hang busy")
        assert portal.wait() == 69


# 70: stuck


def test_recovery_fails(start_portal: Start, faults: Path) -> None:
    portal = start_portal("--pattern-faults", str(faults), "--watchdog-timeout", "1")
    with StreamClient(portal) as viewer:
        viewer.next()
        faults.write_text("hang")
        assert portal.wait() == 70
        viewer.wait_for_end()
    for line in (
        r"No frame for 1\.\d s: restarting the stream",
        "reopening the camera",
        "no frame for 1 s, after a restart of the stream and a reopening",
    ):
        portal.wait_for_log(line)


def test_hanging_calls(start_portal: Start, tmp_path: Path) -> None:
    """Uses the default limits of 10 and 20 s, so the three cases run at once."""
    orders = {word: tmp_path / word for word in ("hang-open", "hang-stop", "hang-close")}
    for path in orders.values():
        path.write_text("")
    orders["hang-open"].write_text("hang-open")
    opening, restarting, closing = (
        start_portal("--pattern-faults", str(path), "--watchdog-timeout", "1", "--linger", "0.2")
        for path in orders.values()
    )
    with StreamClient(opening) as waiting, StreamClient(restarting) as watching:
        watching.next()
        orders["hang-stop"].write_text("hang-once hang-stop")
        with StreamClient(closing) as leaving:
            leaving.next()
            orders["hang-close"].write_text("hang-close")
        assert closing.wait() == 70
        assert "closing the camera takes more than 10 s: the camera hangs" in closing.log
        assert restarting.wait() == 70
        assert "restarting the stream takes more than 10 s: the camera hangs" in restarting.log
        watching.wait_for_end()
        assert waiting.head()[0] == b"HTTP/1.1 503 Service Unavailable"
        assert opening.wait(2 * PATIENCE_S) == 70
        assert "opening the camera takes more than 20 s: the camera hangs" in opening.log


# Options that print and exit


def test_check_prints_effective_settings(start_portal: Start) -> None:
    environment = {"CAMERA_WIDTH": "1280", "cam0_quality": "70", "XDG_STATE_HOME": "/n\udce9"}
    portal = start_portal("--check", "--fps", "12", environment=environment)
    assert portal.wait() == 0
    lines = portal.log.splitlines()
    assert "camera = pattern  (--camera)" in lines
    assert "fps = 12  (--fps)" in lines
    assert "width = 1280  (CAMERA_WIDTH)" in lines
    assert "quality = 70  (cam0_quality)" in lines
    assert "linger = 5  (default)" in lines
    assert any(line.startswith(r"state_dir = /n\udce9/soft-stream  (") for line in lines)


def test_check_without_camera(start_portal: Start, tmp_path: Path) -> None:
    portal = start_portal("--check", camera="0", environment=fake_picamera2(tmp_path, NO_PICAMERA2))
    assert portal.wait() == 0


def test_list_cameras(start_portal: Start, tmp_path: Path) -> None:
    portal = start_portal("--list-cameras", camera=None, environment=fake_picamera2(tmp_path, TWO_CAMERAS))
    assert portal.wait() == 0
    assert [line.split() for line in portal.log.splitlines()[-2:]] == [
        ["0", "imx708", "/base/i2c@1a"],
        ["1", "imx477", "/base/i2c@2b"],
    ]


def test_list_cameras_without_picamera2(start_portal: Start, tmp_path: Path) -> None:
    portal = start_portal("--list-cameras", camera=None, environment=fake_picamera2(tmp_path, NO_PICAMERA2))
    assert portal.wait() == 66
    assert portal.log.startswith("pattern ")
    assert "sudo apt install python3-picamera2" in portal.log


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help(start_portal: Start, flag: str) -> None:
    portal = start_portal(flag)
    assert portal.wait() == 0
    for word in ("usage:", "--watchdog-timeout", "CAMERA_WIDTH", "Exit codes:", " 66 ", " 78 "):
        assert word in portal.log


def test_version(start_portal: Start) -> None:
    portal = start_portal("--version")
    assert portal.wait() == 0
    assert portal.log == f"soft_stream.py {softcam.__version__}\n"
