"""Rolling back: failed and interrupted deployments, and --rollback, on a host in a folder."""

import shutil

import pytest

from deploy import files, releases, rollback
from deploy import host as program
from deploy.system import Failed
from tests.unit.deploy.fake_host import UNITS, FakeHost, current, fail_install, install


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


OTHER_SHAPES = ["{", "[]", "null", "5", '"text"', '{"a": 1}', '{"a": ["one"]}', "\udcff"]


@pytest.mark.parametrize(
    "record",
    [
        *OTHER_SHAPES,
        '{"release": "1.0-a", "active": [0]}',
        '{"release": "1.0-a", "active": [0], "files": []}',
        '{"release": "1.0-a", "active": [0], "files": {"name": 1}}',
        '{"release": "1.0-a", "active": 0, "files": {}}',
        '{"release": "1.0-a", "active": ["x"], "files": {}}',
        '{"release": null, "active": [0], "files": {}}',
        '{"release": "1.0-a", "active": [0], "files": {}, "more": 1}',
    ],
)
def test_rollback_point_of_another_shape(fake: FakeHost, record: str) -> None:
    install(fake, "1.0-a")
    before, host = fake.files(), fake.host()
    message = f"{host.pending}: damaged or of another version, ignored: nothing is rolled back"
    host.pending.write_text(record, errors="surrogateescape")
    program.run_command(host, "plan", "install", "2.0-b")
    assert fake.said().startswith(message)
    said = install(fake, "1.0-a")
    assert said.startswith(message)
    assert said.endswith("done: release 1.0-a, unchanged")
    assert fake.files() == before


def test_empty_record(fake: FakeHost) -> None:
    install(fake, "1.0-a")
    install(fake, "2.0-b")
    host = fake.host()
    host.pending.touch()
    host.changed.write_text("")
    rollback.roll_back_release(host)
    assert "damaged" not in fake.said()
    assert current(fake) == "1.0-a"
    assert not host.pending.exists()


@pytest.mark.parametrize("record", OTHER_SHAPES)
def test_recorded_changes_of_another_shape(fake: FakeHost, record: str) -> None:
    install(fake, "1.0-a")
    install(fake, "2.0-b", bind={1: "none"})
    host = fake.host()
    host.changed.write_text(record, errors="surrogateescape")
    message = f"{host.changed}: damaged or of another version, ignored: the host's own files stay as they are"
    program.run_command(host, "plan", "rollback")
    assert message in fake.said()
    program.run_command(host, "rollback")
    assert message in fake.said()
    assert current(fake) == "1.0-a"
    assert "--bind 1=none" in host.binding(1).read_text()
    program.run_command(host, "rollback")  # with the record that replaced the damaged one
    assert "damaged" not in fake.said()
    assert current(fake) == "2.0-b"


def test_records_of_earlier_versions_are_removed(fake: FakeHost) -> None:
    """They have copies of the settings."""
    install(fake, "1.0-a")
    before, top = fake.files(), fake.host().top
    for name in ("pending/before", "pending.new/before", "changed/after"):
        (top / name).mkdir(parents=True)
        (top / name / "camera-soft-stream.env").write_text("CAMERA_API_KEY=secret\n")
    install(fake, "1.0-a")
    assert fake.files() == before
    assert sorted(path.name for path in top.iterdir()) == ["current", "releases"]


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


def test_rollback_to_a_release_without_a_unit(fake: FakeHost) -> None:
    install(fake, "1.0-a")
    install(fake, "2.0-b")
    before = fake.files()
    unit = fake.host().release("1.0-a") / "systemd/camera-soft-cam@.service"
    text = unit.read_text()
    unit.unlink()
    with pytest.raises(Failed, match=r"release 1\.0-a does not work; 2\.0-b stays"):
        rollback.roll_back_release(fake.host())
    assert "release 1.0-a could not be activated: [Errno 2]" in fake.said()
    unit.write_text(text)
    assert fake.files() == before


def test_file_that_cannot_be_restored(fake: FakeHost) -> None:
    install(fake, "1.0-a")
    host = fake.host()
    rollback.save_point(host, [0, 1])
    shutil.rmtree(host.binding(0).parent)
    host.binding(0).parent.touch()  # a file in place of the folder
    host.binding(1).unlink()
    fake.broken = {"1.0-a"}
    assert rollback.recover_interrupted(host)
    said = fake.said()
    assert f"could not restore {host.binding(0)}: " in said
    assert host.binding(1).exists()
    assert said.endswith("1.0-a does not work either")
