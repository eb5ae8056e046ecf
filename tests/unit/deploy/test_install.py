"""Installing, updating, rolling back and removing releases, on a host in a folder."""

import os
import re
import shutil
import socket
import time
from pathlib import Path

import pytest

from deploy import files, instances, releases, rollback
from deploy import host as program
from deploy.system import Failed, Host
from tests.unit.deploy.fake_host import FakeHost, listener

UNITS = "etc/systemd/system"


def install(fake: FakeHost, name: str, env: str = "#CAMERA_WIDTH=1536\n", **options: object) -> str:
    folder = fake.add_release(name, env)
    program.install(fake.host(**options), name, str(folder))  # type: ignore[arg-type]
    return fake.said()


def fail_install(fake: FakeHost, name: str, env: str = "#CAMERA_WIDTH=1536\n", **options: object) -> str:
    with pytest.raises(Failed) as caught:
        install(fake, name, env, **options)
    return str(caught.value)


def current(fake: FakeHost) -> str:
    return releases.linked(fake.host(), "current")


def test_first_installation(fake: FakeHost) -> None:
    said = install(fake, "1.0-a").splitlines()
    assert said == [
        "camera 0: not bound to a device: no video nodes on this machine",
        "camera 1: not bound to a device: no video nodes on this machine",
        "camera 0: healthy, version 1.0-a",
        "camera 1: healthy, version 1.0-a",
        "done: release 1.0-a",
    ]
    assert current(fake) == "1.0-a"
    assert fake.active == {"camera-soft-cam@0.service", "camera-soft-cam@1.service"}
    found = fake.files()
    assert found["etc/camera-streamer/camera-soft-stream.env"] == "600 #CAMERA_WIDTH=1536\n"
    assert found[f"{UNITS}/camera-soft-cam@.service"] == "644 # unit of 1.0-a\n"
    assert found["etc/udev/rules.d/70-camera-soft-cam.rules"] == "644 # rule\n"
    assert f"{UNITS}/multi-user.target.wants/camera-soft-cam@1.service" in found
    assert [name for name in found if ".incoming" in name or "pending" in name or name.endswith(".new")] == []


def test_repeated_installation_restarts_nothing(fake: FakeHost) -> None:
    install(fake, "1.0-a")
    before = fake.files()
    fake.calls.clear()
    assert install(fake, "1.0-a").endswith("done: release 1.0-a, unchanged")
    assert fake.files() == before
    assert not fake.has_called("systemctl restart")


def test_update_and_rollback(fake: FakeHost) -> None:
    install(fake, "1.0-a")
    assert install(fake, "2.0-b").endswith("done: release 2.0-b, previous release 1.0-a")
    assert fake.has_called("systemctl restart camera-soft-cam@0.service camera-soft-cam@1.service")
    host = fake.host()
    program.run_command(host, "plan", "rollback")
    assert fake.said().splitlines() == [
        "would switch back from 2.0-b to release 1.0-a",
        "would restart camera-soft-cam@0.service",
        "would restart camera-soft-cam@1.service",
    ]
    program.run_command(host, "rollback")
    assert fake.said().endswith("done: release 1.0-a, previous release 2.0-b")
    assert (current(fake), releases.linked(host, "previous")) == ("1.0-a", "2.0-b")
    assert "CAMERA_WIDTH" not in host.changed.read_text()  # the settings may include keys
    assert host.unit.read_text() == "# unit of 1.0-a\n"
    program.run_command(host, "rollback")
    assert current(fake) == "2.0-b"


def test_rollback_to_a_broken_release(fake: FakeHost) -> None:
    install(fake, "1.0-a")
    install(fake, "2.0-b")
    before = fake.files()
    fake.broken = {"1.0-a"}
    with pytest.raises(Failed, match=r"release 1\.0-a does not work; 2\.0-b stays"):
        rollback.roll_back_release(fake.host())
    assert fake.files() == before


def test_rollback_without_a_previous_release(fake: FakeHost) -> None:
    install(fake, "1.0-a")
    with pytest.raises(Failed, match=r"no release before 1\.0-a"):
        rollback.roll_back_release(fake.host())
    with pytest.raises(Failed, match=r"no release before 1\.0-a"):
        rollback.plan_rollback(fake.host())


def test_broken_release_is_rolled_back(fake: FakeHost) -> None:
    install(fake, "1.0-a")
    before = fake.files()
    fake.broken = {"2.0-b"}
    fake.answer("journalctl", (0, "CAMERA_API_KEY=secret\nbroken on purpose\n", ""))
    reason = fail_install(
        fake, "2.0-b", "#CAMERA_NEW=1\n", python="/opt/other/python", bind={1: "none"}, cameras=(0, 1, 2)
    )
    assert reason == "release 2.0-b does not work; rolled back to 1.0-a"
    said = fake.said()
    assert "    CAMERA_API_KEY=(not shown)\n    broken on purpose" in said
    assert "rolling back to 1.0-a" in said
    assert fake.files() == before
    assert fake.active == {"camera-soft-cam@0.service", "camera-soft-cam@1.service"}


def test_neither_release_works(fake: FakeHost) -> None:
    install(fake, "1.0-a")
    fake.broken = {"1.0-a", "2.0-b"}
    assert fail_install(fake, "2.0-b") == "release 2.0-b does not work, and 1.0-a does not work either"
    assert current(fake) == "1.0-a"
    assert not fake.host().pending.exists()


def test_first_release_that_does_not_work_is_removed(fake: FakeHost) -> None:
    before = fake.files()
    fake.broken = {"1.0-a"}
    reason = fail_install(fake, "1.0-a")
    assert reason == "release 1.0-a does not work, and no earlier release exists: everything of it was removed"
    assert fake.files() == before
    assert [*(fake.root / "opt").iterdir()] == []
    assert not (fake.root / "etc/camera-streamer").exists()
    assert fake.active == set()


def test_same_release_that_stopped_working(fake: FakeHost) -> None:
    install(fake, "1.0-a")
    fake.broken = {"1.0-a"}
    assert fail_install(fake, "1.0-a").endswith("with this host and its settings as they are; it was not changed")


def test_python_that_does_not_work_is_not_kept(fake: FakeHost) -> None:
    install(fake, "1.0-a")
    before = fake.files()
    broken: list[str] = ["yes"]

    def check() -> tuple[int, str, str]:
        fake.passed_s += 60
        return (1, "", "") if broken.pop(0) else (0, "healthy", "")

    fake.answer("healthcheck.py health", check)
    broken += ["", "", ""]
    reason = fail_install(fake, "1.0-a", python="/opt/other/python")
    assert reason == "release 1.0-a does not work with these options; rolled back to the options before"
    assert fake.files() == before


def test_disk_full_while_writing_units(fake: FakeHost) -> None:
    install(fake, "1.0-a")
    before = fake.files()
    (fake.root / f"{UNITS}/camera-soft-cam@.service.d").write_text("a file in place of the folder")
    reason = fail_install(fake, "2.0-b", python="/opt/other/python")
    (fake.root / f"{UNITS}/camera-soft-cam@.service.d").unlink()
    assert reason.startswith("settings or units of release 2.0-b could not be written: ")
    assert reason.endswith("; rolled back to 1.0-a")
    assert fake.files() == before


def test_disk_full_before_the_first_change(fake: FakeHost) -> None:
    install(fake, "1.0-a")
    before = fake.files()
    in_the_way = fake.host().pending.with_name("pending.json.new")
    in_the_way.mkdir()
    reason = fail_install(fake, "2.0-b")
    in_the_way.rmdir()
    assert reason.startswith("nothing was changed: ")
    assert fake.files() == before


@pytest.mark.parametrize("command", ["install", "rollback"])
def test_interrupted_deployment_is_rolled_back_first(fake: FakeHost, command: str) -> None:
    install(fake, "1.0-a")
    before = fake.files()
    host = fake.host()
    releases.adopt(host, "2.0-b", str(fake.add_release("2.0-b")))
    rollback.save_point(host, [0, 1])
    releases.activate(host, "2.0-b")  # and the power fails
    program.run_command(host, "plan", "rollback")
    program.run_command(host, "plan", "install", "3.0-c")
    said = fake.said()
    assert "if so, would roll back to 1.0-a only" in said
    assert "if so, would roll back to 1.0-a first" in said
    assert current(fake) == "2.0-b"
    program.run_command(host, command, *(["1.0-a"] if command == "install" else []))
    said = fake.said()
    assert "the previous deployment was interrupted; rolling back to 1.0-a first" in said
    assert said.splitlines()[-1].startswith("done: release 1.0-a")
    shutil.rmtree(host.release("2.0-b"))
    assert fake.files() == before


def test_interrupted_first_installation(fake: FakeHost) -> None:
    host = fake.host()
    releases.adopt(host, "1.0-a", str(fake.add_release("1.0-a")))
    rollback.save_point(host, [0])
    releases.activate(host, "1.0-a")
    rollback.roll_back_release(host)
    assert fake.said().endswith("done: no release is in use")
    assert current(fake) == ""
    assert not host.unit.exists()


def test_rollback_point_of_a_release_that_is_gone(fake: FakeHost) -> None:
    install(fake, "1.0-a")
    rollback.save_point(fake.host(), [0])
    shutil.rmtree(fake.host().release("1.0-a"))
    assert rollback.recover_interrupted(fake.host()) is False
    assert not fake.host().pending.exists()


def test_interrupted_after_the_switch_of_the_previous_release(fake: FakeHost) -> None:
    install(fake, "1.0-a")
    install(fake, "2.0-b")
    before, host = fake.files(), fake.host()
    rollback.save_point(host, [0, 1])
    files.link(host.top / "previous", "releases/2.0-b")
    assert rollback.recover_interrupted(host)
    assert fake.files() == before


@pytest.mark.parametrize("edited", ["", "CAMERA_WIDTH=640\n"])
def test_recovery_keeps_settings_edited_since(fake: FakeHost, edited: str) -> None:
    install(fake, "1.0-a", "#CAMERA_OLD=1\n")
    host = fake.host()
    rollback.save_point(host, [0, 1])
    files.ship(host, b"#CAMERA_NEW=1\n", host.env_file, 0o600)
    host.env_file.write_text(f"#CAMERA_NEW=1\n{edited}")
    assert rollback.recover_interrupted(host)
    assert host.env_file.read_text() == (f"#CAMERA_NEW=1\n{edited}" if edited else "#CAMERA_OLD=1\n")
    assert files.is_edited(host, host.env_file) == bool(edited)


def test_rollback_restores_what_came_with_the_release(fake: FakeHost) -> None:
    install(fake, "1.0-a")
    before = fake.files()
    install(fake, "2.0-b", python="/opt/other/python", bind={1: "none"}, cameras=(0, 1, 2))
    host, after = fake.host(), fake.files()
    assert "ExecStart=/opt/other/python " in host.python_drop_in.read_text()
    rollback.plan_rollback(host)
    assert "would stop camera-soft-cam@2.service, which was not enabled before release 2.0-b" in fake.said()
    rollback.roll_back_release(host)
    assert "camera 2: not enabled before release 2.0-b, stopping" in fake.said()
    kept = {name: text for name, text in fake.files().items() if name.startswith("etc/")}
    assert kept == {name: text for name, text in before.items() if name.startswith("etc/")}
    assert fake.active == {"camera-soft-cam@0.service", "camera-soft-cam@1.service"}
    rollback.roll_back_release(host)
    kept = {name: text for name, text in fake.files().items() if name.startswith("etc/")}
    assert kept == {name: text for name, text in after.items() if name.startswith("etc/")}


def test_rollback_keeps_what_the_owner_changed_since(fake: FakeHost) -> None:
    install(fake, "1.0-a")
    host = fake.host()
    install(fake, "2.0-b", bind={0: "none", 1: "none"}, cameras=(0, 1, 2))
    host.binding(1).write_text("by the owner")
    (host.binding(0).parent / "own.conf").write_text("own")
    rollback.roll_back_release(host)
    assert "--bind" not in host.binding(0).read_text()
    assert host.binding(1).read_text() == "by the owner"
    assert (host.binding(0).parent / "own.conf").exists()
    assert not host.binding(2).parent.exists()


def test_old_releases_are_removed(fake: FakeHost) -> None:
    for number in range(5):
        install(fake, f"{number}.0-a")
    left = {path.name for path in (fake.root / "opt/camera-soft-stream/releases").iterdir()}
    assert len(left) == 3
    assert {"4.0-a", "3.0-a"} < left


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


def test_instance_restarts_after_its_settings_changed(fake: FakeHost) -> None:
    install(fake, "1.0-a")
    host = fake.host()
    assert not instances.needs_restart(host, 0)
    time.sleep(0.05)  # past the fake's start, which lies behind the files' dates
    host.env_file.write_text("CAMERA_WIDTH=640\n")
    assert instances.needs_restart(host, 0)
    fake.active.clear()
    assert instances.needs_restart(host, 1)


def test_uninstall(fake: FakeHost) -> None:
    install(fake, "1.0-a")
    host = fake.host()
    (host.binding(1).parent / "own.conf").write_text("own")
    fake.enable(2)
    (host.units / "camera-soft-cam@2.service").symlink_to("/dev/null")  # masked
    program.run_command(host, "plan", "uninstall")
    assert "would stop and disable camera-soft-cam@1.service" in fake.said()
    program.run_command(host, "uninstall")
    said = fake.said()
    assert said.startswith("done: uninstalled. Kept: /etc/camera-streamer (settings), ")
    assert said.endswith(f", your own {host.binding(1).parent}")
    assert not host.top.exists()
    assert fake.active == set()
    assert set(fake.files()) == {
        *("etc/os-release", "etc/camera-streamer/camera-soft-stream.env", "etc/camera-streamer/.shipped"),
        *(f"{UNITS}/camera-soft-cam@1.service.d/own.conf", f"{UNITS}/camera-soft-cam@2.service"),
    }
    # An untouched settings file that was left is updated, not taken for an edited one.
    said = install(fake, "2.0-b", "#CAMERA_NEW=1\n")
    assert "was edited" not in said
    assert host.env_file.read_text() == "#CAMERA_NEW=1\n"


def test_plan(fake: FakeHost) -> None:
    program.run_command(fake.host(nginx=True), "plan", "install", "1.0-a")
    said = fake.said()
    assert said.startswith("would copy release 1.0-a, and switch to it from nothing\nwould install ")
    assert "would enable and start camera-soft-cam@1.service" in said
    assert "would serve camera 1 at port 8082 by nginx, with a password" in said
    install(fake, "1.0-a")
    before = fake.files()
    program.run_command(fake.host(), "plan", "install", "1.0-a")
    said = fake.said()
    assert "would keep release 1.0-a, which is in use" in said
    assert "which was never edited" in said
    install(fake, "2.0-b")
    fake.host().env_file.write_text("CAMERA_WIDTH=640\n")
    before = fake.files()
    program.run_command(fake.host(), "plan", "install", "1.0-a")
    said = fake.said()
    assert "would switch from 2.0-b to release 1.0-a, which is on the host" in said
    assert "which was edited" in said
    assert fake.files() == before


def test_plan_reports_bad_settings_but_not_a_broken_release(fake: FakeHost) -> None:
    install(fake, "1.0-a")
    fake.answer("--check", (78, "bad", ""))
    with pytest.raises(Failed, match="bad settings"):
        program.plan_install(fake.host(), "2.0-b")
    fake.answer("--check", (1, "broken", ""))
    program.plan_install(fake.host(), "2.0-b")


def test_incoming_folder(fake: FakeHost) -> None:
    host = fake.host()
    program.run_command(host, "incoming", "1.0-a")
    folder = Path(fake.said())
    assert folder.parent.stat().st_mode & 0o777 == 0o700
    releases.discard(host, str(host.units))
    releases.discard(host, f"{host.top}/releases/.incoming-x/../release")
    assert host.units.is_dir()
    program.run_command(host, "discard", str(folder))
    assert not folder.parent.exists()
    install(fake, "1.0-a")
    program.run_command(host, "incoming", "1.0-a")
    assert fake.said() == ""


def test_abandoned_copies_are_removed(fake: FakeHost) -> None:
    old = fake.add_release("old").parent
    os.utime(old, (0, 0))
    program.run_command(fake.host(), "incoming", "1.0-a")
    assert not old.exists()


def test_incomplete_copy(fake: FakeHost) -> None:
    folder = fake.add_release("1.0-a")
    (folder / "soft_stream.py").unlink()
    with pytest.raises(Failed, match=r"release 1\.0-a was not copied completely"):
        program.install(fake.host(), "1.0-a", str(folder))
    assert not folder.parent.exists()
    with pytest.raises(Failed, match=r"release 1\.0-a does not exist on the host"):
        program.install(fake.host(), "1.0-a", "/etc")


def test_udev_reads_a_new_rule(fake: FakeHost) -> None:
    (fake.root / "run/udev").mkdir()
    (fake.root / "run/udev/control").touch()
    install(fake, "1.0-a")
    assert fake.has_called("udevadm control --reload")
    fake.calls.clear()
    install(fake, "2.0-b")
    assert not fake.has_called("udevadm")


def test_settings_file_is_private_also_after_an_edit(fake: FakeHost) -> None:
    install(fake, "1.0-a")
    file = fake.host().env_file
    file.write_text("CAMERA_API_KEY=secret\n")
    file.chmod(0o640)
    said = install(fake, "2.0-b", "#CAMERA_NEW=1\n")
    assert f"{file} was edited and is kept; new lines in the shipped file:\n    +#CAMERA_NEW=1\n" in said
    assert "secret" not in said
    assert (file.read_text(), file.stat().st_mode & 0o777) == ("CAMERA_API_KEY=secret\n", 0o600)
