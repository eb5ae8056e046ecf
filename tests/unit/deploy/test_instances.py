"""The instances: checks before a deployment, starting them, and when a picture is required."""

import os
import re
import shutil
import socket
import time

import pytest

from deploy import host as program
from deploy import instances
from deploy.system import Host
from tests.unit.deploy.fake_host import FakeHost, fail_install, install, listener


@pytest.mark.parametrize(
    ("code", "output", "expected", "is_dropped"),
    [
        (
            78,
            "cam0_width 'wide': must be an integer",
            "camera 0: bad settings in .*, nothing was changed: cam0_width",
            False,
        ),
        (2, "usage", "camera 0: bad settings", False),
        (124, "", r"camera 0: checking its settings timed out after 60 s, nothing was changed", False),
        (
            1,
            "Traceback\nRuntimeError: broken\n\n",
            "release 2.0-b does not run here, nothing was changed: RuntimeError: broken",
            True,
        ),
        (5, "", "release 2.0-b does not run here, nothing was changed: exited with code 5 and no output", True),
    ],
)
def test_preflight_failure_changes_nothing(
    fake: FakeHost, code: int, output: str, expected: str, is_dropped: bool
) -> None:
    install(fake, "1.0-a")
    before = fake.files()
    fake.answer("releases/2.0-b/soft_stream.py .*--check", (code, output, ""))
    assert re.match(expected, fail_install(fake, "2.0-b"))
    # Another deployment copies a broken release again; bad settings are not its fault.
    assert fake.host().release("2.0-b").exists() is not is_dropped
    shutil.rmtree(fake.host().release("2.0-b"), ignore_errors=True)
    assert fake.files() == before


def test_settings_check_shows_no_secret(fake: FakeHost) -> None:
    fake.answer("--check", (78, "", "CAMERA_API_KEY=abc: too short"))
    assert "abc" not in fail_install(fake, "1.0-a")


def test_port_in_use(fake: FakeHost) -> None:
    install(fake, "1.0-a")
    fake.answer("healthcheck.py port 1", (0, "18999\n", ""))
    fake.answer("ss -Hltnp sport = :18999", (0, listener("127.0.0.1", 18999, pid=77), ""))
    fake.answer("--property=MainPID", (0, "0\n7\n", ""))
    assert fail_install(fake, "2.0-b").startswith("camera 1: port 18999 is in use by another program")
    fake.answer("--property=MainPID", (0, "0\n77\n", ""))  # it is the portal's own
    assert "done: release 2.0-b" in install(fake, "2.0-b")


@pytest.mark.parametrize(
    ("address", "anywhere", "expected"),
    [
        ("10.0.0.10", False, False),  # another address of this machine
        ("10.0.0.10", True, True),
        ("0.0.0.0", False, True),
        ("*", False, True),
        ("[::]", False, True),
        ("[::ffff:127.0.0.1]", False, True),
    ],
)
def test_listener_addresses(fake: FakeHost, address: str, anywhere: bool, expected: bool) -> None:
    fake.answer("^ss ", (0, listener(address, 80, pid=1), ""))
    assert instances.has_other_listener(fake.host(), 80, ["7"], anywhere=anywhere) is expected
    assert not instances.has_other_listener(fake.host(), 80, ["7", "1"], anywhere=anywhere)


@pytest.mark.skipif(shutil.which("ss") is None, reason="ss is not installed")
def test_listener_of_this_machine(fake: FakeHost) -> None:
    """The real ss prints what is expected of it."""
    host = Host()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert instances.has_other_listener(host, port, [], anywhere=False)
        assert not instances.has_other_listener(host, port, [str(os.getpid())], anywhere=True)
    assert not instances.has_other_listener(host, port, [], anywhere=True)


def test_camera_that_was_not_requested_continues(fake: FakeHost) -> None:
    install(fake, "1.0-a")
    said = install(fake, "2.0-b", cameras=(0,))
    assert "camera 1: enabled before, continues with the same release" in said
    assert "camera 1: healthy, version 2.0-b" in said
    program.plan_install(fake.host(cameras=(0,)), "3.0-c")
    assert "would continue camera 1, enabled before, with the same release" in fake.said()


@pytest.mark.parametrize("delivered", [True, False])
def test_picture_is_required_from_a_camera_that_delivered_one(fake: FakeHost, delivered: bool) -> None:
    install(fake, "1.0-a")
    if not delivered:
        fake.answer("1.0-a/deploy/healthcheck.py health 1", (3, "healthy; no snapshot", ""))
    fake.answer("2.0-b/deploy/healthcheck.py health 1", (3, "healthy; no snapshot", ""))
    if delivered:
        assert fail_install(fake, "2.0-b") == "release 2.0-b does not work; rolled back to 1.0-a"
    else:
        assert "camera 1: it delivered none before either" in install(fake, "2.0-b")


def test_missing_cameras_do_not_stop_an_update(fake: FakeHost) -> None:
    install(fake, "1.0-a")
    fake.cameras.pop()
    fake.active.discard("camera-soft-cam@1.service")
    fake.answer("--property=ExecMainStatus camera-soft-cam@1", (0, "66\n", ""))
    fake.answer("is-active camera-soft-cam@1", (3, "", ""))
    assert "camera 1: missing (exit 66)" in install(fake, "2.0-b")


def test_unplugged_device(fake: FakeHost) -> None:
    install(fake, "1.0-a")
    host = fake.host()
    bound = "# Written by deploy.sh --bind 1=/dev/video3.\n[Unit]\nBindsTo=dev-video3.device\n"
    host.binding(1).write_text(bound)
    fake.calls.clear()
    said = install(fake, "2.0-b")
    assert "camera 1: binding unchanged: /dev/video3 does not exist" in said
    assert "camera 1: its device is missing; the instance starts when it returns" in said
    assert host.binding(1).read_text() == bound
    assert not fake.has_called("restart .*@1")


def test_crashing_instance_is_given_up_early(fake: FakeHost) -> None:
    def crash() -> tuple[int, str, str]:
        fake.passed_s += 3
        return 1, "not healthy", ""

    fake.answer("healthcheck.py health 0", crash)
    fake.answer("--property=NRestarts", (0, "2\n", ""))
    fail_install(fake, "1.0-a")
    assert fake.passed_s < 10


@pytest.mark.parametrize("name", ["camera-soft-stream.env", "rtsp.env"])
def test_instance_restarts_after_its_settings_changed(fake: FakeHost, name: str) -> None:
    install(fake, "1.0-a")
    host = fake.host()
    assert not instances.needs_restart(host, 0)
    time.sleep(0.05)  # past the fake's start, which lies behind the files' dates
    (host.env_file.parent / name).write_text("CAMERA_WIDTH=640\n")
    assert instances.needs_restart(host, 0)
    fake.active.clear()
    assert instances.needs_restart(host, 1)
