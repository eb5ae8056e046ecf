"""Installing, updating, planning and removing, on a host in a folder."""

import pytest

from deploy import host as program
from deploy.system import Failed
from tests.unit.deploy.conftest import Site
from tests.unit.deploy.fake_host import UNITS, FakeHost, current, fail_install, install, listener


def test_first_installation(fake: FakeHost) -> None:
    said = install(fake, "1.0-a").splitlines()
    offer = "deploy.sh --with-nginx serves it at http://camera.local:{}/ with a password"
    assert said == [
        "camera 0: not bound to a device: no video nodes on this machine",
        "camera 1: not bound to a device: no video nodes on this machine",
        "camera 0: healthy, version 1.0-a",
        "camera 1: healthy, version 1.0-a",
        f"camera 0: on the host only, http://127.0.0.1:18081/; {offer.format(8081)}",
        f"camera 1: on the host only, http://127.0.0.1:18082/; {offer.format(8082)}",
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


def test_uninstall(fake: FakeHost) -> None:
    install(fake, "1.0-a")
    host = fake.host()
    (host.binding(1).parent / "own.conf").write_text("own")
    fake.enable(2)
    (host.units / "camera-soft-cam@2.service").symlink_to("/dev/null")  # masked
    for folder in host.runtime:
        (folder / "0").mkdir(parents=True)
        (folder / "0/log.0").touch()
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


def test_settings_file_is_private_also_after_an_edit(fake: FakeHost) -> None:
    install(fake, "1.0-a")
    file = fake.host().env_file
    file.write_text("CAMERA_API_KEY=secret\n")
    file.chmod(0o640)
    said = install(fake, "2.0-b", "#CAMERA_NEW=1\n")
    assert f"{file} was edited and is kept; new in the shipped file:\n    +#CAMERA_NEW=1\n" in said
    assert "secret" not in said
    assert (file.read_text(), file.stat().st_mode & 0o777) == ("CAMERA_API_KEY=secret\n", 0o600)


def test_installation_with_nginx(fake: FakeHost, site: tuple[int, type[Site]]) -> None:
    host = fake.host(cameras=(0,), nginx=True)
    for name in ("sites-enabled", "sites-available"):
        (host.nginx / name).mkdir(parents=True)
    (host.nginx / "sites-available/camera-soft-cam0.conf").write_text(f"  listen {site[0]};\n")
    said = install(fake, "1.0-a", cameras=(0,), nginx=True)
    assert f"camera 0: open http://camera.local:{site[0]}/\n" in said
    assert f"\nuser: camera; password, on the host: sudo cat {host.nginx_password}\n" in said
    fake.answer(f"^ss .* = :{site[0]}$", (0, listener("0.0.0.0", site[0], pid=5), ""))
    assert "nginx's port" in fail_install(fake, "2.0-b", cameras=(0,), nginx=True)


def test_systemd_that_cannot_enable_again(fake: FakeHost) -> None:
    fake.answer("reenable", (1, "", ""))
    install(fake, "1.0-a", cameras=(0,))
    assert fake.has_called(r"^systemctl --quiet enable camera-soft-cam@0\.service$")


def test_release_in_use_that_no_longer_runs_is_kept(fake: FakeHost) -> None:
    install(fake, "1.0-a")
    fake.answer("--check", (1, "", "broken"))
    assert fail_install(fake, "1.0-a") == "release 1.0-a does not run here, nothing was changed: broken"
    assert fake.host().release("1.0-a").is_dir()
