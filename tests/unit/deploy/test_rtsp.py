"""--with-rtsp: the file with its settings and keys, what it reports, and what a failure leaves."""

import re
from pathlib import Path

import pytest

from deploy import host as program
from deploy.system import Failed
from softcam.config.loader import load
from tests.unit.deploy.fake_host import Answer, FakeHost, fail_install, install, listener

KEY = re.compile(r"(?m)^cam\d_(?:view|api)_key=(\S{20,})$")


def file_of(fake: FakeHost) -> Path:
    return fake.host().rtsp_file


def assignments(fake: FakeHost) -> dict[str, str]:
    """What the file sets; `made` for a generated key."""
    lines = file_of(fake).read_text().splitlines()
    found = dict(line.split("=", 1) for line in lines if not line.startswith("#"))
    return {name: "made" if len(value) == 20 else value for name, value in found.items()}


def test_installation(fake: FakeHost) -> None:
    fake.address = ""
    fake.answer("hostname -I", (0, "192.168.1.20 172.17.0.1 fd00::2 \n", ""))
    said = install(fake, "1.0-a", rtsp=True)
    file = file_of(fake)
    assert assignments(fake) == {
        "cam0_rtsp_host": "0.0.0.0",
        "cam0_rtsp_port": "8554",
        "cam0_view_key": "made",
        "cam0_api_key": "made",
        "cam1_rtsp_host": "0.0.0.0",
        "cam1_rtsp_port": "8555",
        "cam1_view_key": "made",
        "cam1_api_key": "made",
    }
    assert file.stat().st_mode & 0o777 == 0o600
    assert f"camera 0, 1: keys added in {file}; HTTP requires one too now, also on this host\n" in said
    assert "camera 1: RTSP delivers H.264\n" in said
    address = "rtsp://camera:PASSWORD@192.168.1.20:8555/"
    assert f"camera 1: H.264 at {address}, password on the host: sudo grep -i view_key= {file}\n" in said
    keys = KEY.findall(file.read_text())
    assert keys[:2] == keys[2:]  # the same for both cameras
    assert keys[0] != keys[1]
    assert not any(key in said + "\n".join(fake.calls) for key in keys)
    # The settings file, whose values override these, is read after it; also by the checks.
    read = f"EnvironmentFile=-{file} --property=EnvironmentFile=-{fake.host().env_file} "
    assert fake.has_called(f"{read}.*/healthcheck.py rtsp 1$")


def test_order_in_the_unit(fake: FakeHost) -> None:
    """The last of them has priority."""
    unit = (Path(__file__).parents[3] / "systemd/camera-soft-cam@.service").read_text()
    read = [path.removeprefix("-") for path in re.findall(r"(?m)^EnvironmentFile=(.*)$", unit)]
    assert [fake.host().path(path) for path in read] == [fake.host().rtsp_file, fake.host().env_file]


def test_repetition_changes_nothing(fake: FakeHost) -> None:
    install(fake, "1.0-a", rtsp=True)
    before = fake.files()
    fake.calls.clear()
    said = install(fake, "1.0-a", rtsp=True)
    assert "keys added" not in said
    assert "camera 0: H.264 at " in said
    assert fake.files() == before
    assert not fake.has_called("systemctl restart")
    # Without the option it stays, and is not checked.
    said = install(fake, "1.0-a")
    assert "RTSP" not in said
    assert fake.files() == before


def test_another_camera_is_added(fake: FakeHost) -> None:
    install(fake, "1.0-a", cameras=(0,), rtsp=True)
    file = file_of(fake)
    file.write_text(file.read_text().replace("cam0_rtsp_port=8554", "cam0_rtsp_port = 9554"))
    before = file.read_text()
    keys = KEY.findall(before)
    said = install(fake, "1.0-a", cameras=(0, 1), rtsp=True)
    assert file.read_text().startswith(before)
    assert KEY.findall(file.read_text()) == keys + keys
    assert assignments(fake)["cam1_rtsp_port"] == "8555"
    assert ":9554/" in said
    assert "camera 1: keys added in " in said
    file.chmod(0o644)
    install(fake, "1.0-a", cameras=(0, 1), rtsp=True)
    assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (["CAMERA_VIEW_KEY\tset"], ["cam0_rtsp_host", "cam0_rtsp_port"]),
        (["CAMERA_API_KEY\tset"], ["cam0_rtsp_host", "cam0_rtsp_port", "cam0_view_key"]),
        (["cam0_view_key\tset"], ["cam0_rtsp_host", "cam0_rtsp_port"]),
        (["CAMERA_VIEW_KEY\tset", "CAMERA_HOST\t0.0.0.0"], ["cam0_rtsp_port"]),
        (["CAMERA_VIEW_KEY\tset", "CAMERA_HOST\t192.168.1.20"], ["cam0_rtsp_port"]),
        (["CAMERA_VIEW_KEY\tset", "CAMERA_HOST\tlocalhost"], ["cam0_rtsp_host", "cam0_rtsp_port"]),
        (["CAMERA_VIEW_KEY\tset", "CAMERA_RTSP_PORT\t9554", "CAMERA_RTSP_HOST\t127.0.0.1"], []),
    ],
)
def test_settings_of_the_owner_have_priority(fake: FakeHost, settings: list[str], expected: list[str]) -> None:
    fake.settings = settings
    said = install(fake, "1.0-a", cameras=(0,), rtsp=True)
    assert sorted(assignments(fake)) == sorted(expected)
    assert "keys added" not in said


@pytest.mark.parametrize(
    ("settings", "cameras", "keys", "without"),
    [
        (["cam0_view_key\tset"], (0, 1), ["cam1_view_key", "cam1_api_key"], "1"),
        (["cam0_api_key\tset"], (0, 1), ["cam0_view_key", "cam1_view_key", "cam1_api_key"], "1"),
        (["cam1_api_key\tset"], (0,), ["cam0_view_key", "cam0_api_key"], "0"),
        (["cam0_api_key\tset", "cam1_view_key\tset"], (0, 1), ["cam0_view_key"], ""),
        (["CAMERA_API_KEY\tset", "cam1_view_key\tset"], (0, 1), ["cam0_view_key"], ""),
        (["CAMERA_VIEW_KEY\t", "cam0_view_key\tset"], (0, 1), ["cam1_view_key", "cam1_api_key"], "1"),
    ],
)
def test_no_camera_becomes_read_only(
    fake: FakeHost, settings: list[str], cameras: tuple[int, ...], keys: list[str], without: str
) -> None:
    fake.settings = settings
    said = install(fake, "1.0-a", cameras=cameras, rtsp=True)
    assert [name for name in assignments(fake) if name.endswith("_key")] == keys
    assert re.findall(r"camera (.*): keys added", said) == [without] * bool(without)


def environment_of(fake: FakeHost, owner: dict[str, str]) -> dict[str, str]:
    """The variables of every instance: those of the file, overridden by the owner's."""
    lines = file_of(fake).read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if not line.startswith("#")) | owner


def test_camera_that_was_not_requested_stays_closed(fake: FakeHost) -> None:
    """As the portal reads its settings: the file is read by all instances."""
    owner = {"cam0_view_key": "a-key-of-the-owner", "cam1_rtsp_port": "9000"}
    fake.settings = ["cam0_view_key\tset", "cam1_rtsp_port\t9000"]
    fake.enable(1)
    install(fake, "1.0-a", cameras=(0,), rtsp=True)
    environ = environment_of(fake, owner)
    requested, other = (load(["--camera", number], environ) for number in "01")
    assert (requested.rtsp_host, requested.rtsp_port, requested.view_key) == ("0.0.0.0", 8554, "a-key-of-the-owner")
    assert other == load(["--camera", "1"], owner | {"cam0_rtsp_port": "8554"})
    assert (other.host, other.rtsp_host, other.rtsp_port) == ("127.0.0.1", None, 9000)


def test_key_that_was_edited_is_shared_if_it_is_plain(fake: FakeHost) -> None:
    install(fake, "1.0-a", cameras=(0,), rtsp=True)
    file = file_of(fake)
    view, api = KEY.findall(file.read_text())
    file.write_text(file.read_text().replace(view, "my-password").replace(f"={api}", '="in quotes"'))
    install(fake, "1.0-a", cameras=(0, 1), rtsp=True)
    found = assignments(fake)
    assert (found["cam0_view_key"], found["cam1_view_key"]) == ("my-password", "my-password")
    assert (found["cam0_api_key"], found["cam1_api_key"]) == ('"in quotes"', "made")


def test_setting_for_all_cameras_that_is_overridden(fake: FakeHost) -> None:
    install(fake, "1.0-a", cameras=(0,), rtsp=True)
    fake.settings = ["CAMERA_VIEW_KEY\tset", "CAMERA_RTSP_HOST\t127.0.0.1", "CAMERA_RTSP_PORT\t"]
    said = install(fake, "1.0-a", cameras=(0,), rtsp=True)
    file, owner = file_of(fake), fake.host().env_file
    remedy = "to use the latter, delete that line and restart camera-soft-cam@0"
    assert f"cam0_rtsp_host in {file} overrides CAMERA_RTSP_HOST in {owner}; {remedy}\n" in said
    assert f"cam0_view_key in {file} overrides CAMERA_VIEW_KEY in {owner}; {remedy}\n" in said
    assert said.count(" overrides ") == 2
    assert f"sudo grep -i view_key= {file}\n" in said  # the password in effect
    fake.settings = ["cam0_view_key\tset", "CAMERA_VIEW_KEY\tset"]
    said = install(fake, "1.0-a", cameras=(0,), rtsp=True)
    assert " overrides " not in said
    assert f"sudo grep -i view_key= {owner}\n" in said


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["CAMERA_HOST\t192.168.1.21"], "H.264 at rtsp://camera:PASSWORD@192.168.1.21:8554/,"),
        (["cam0_rtsp_host\tfd00::5", "CAMERA_HOST\t::"], "H.264 at rtsp://camera:PASSWORD@[fd00::5]:8554/,"),
        (["CAMERA_HOST\t::", "cam0_rtsp_port\t9554"], "H.264 at rtsp://camera:PASSWORD@camera:9554/,"),
        (["CAMERA_RTSP_HOST\t127.0.0.1"], "RTSP for programs on this host only, as set in "),
        (["CAMERA_VIEW_KEY\tset"], "password on the host: sudo grep -i view_key= .*/camera-soft-stream.env$"),
        (["CAMERA_API_KEY\tset"], "password on the host: sudo grep -i view_key= .*/rtsp.env$"),
    ],
)
def test_reported_address(fake: FakeHost, settings: list[str], said: str) -> None:
    fake.settings = settings
    fake.address = ""
    fake.answer("^hostname$", (0, "camera\n", ""))
    reported = install(fake, "1.0-a", cameras=(0,), rtsp=True)
    pattern = said if said.endswith("$") else re.escape(said)
    assert re.search(rf"(?m)^camera 0: .*{pattern}", reported), reported


UFW = "Status: active\n\nTo         Action  From\n22/tcp     ALLOW   Anywhere\n8554/tcp   ALLOW   Anywhere\n"


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ({"^ufw status": (0, UFW, "")}, "ufw is active and was not changed; .*: sudo ufw allow 8555/tcp$"),
        ({"^ufw status": (0, f"{UFW}8555  ALLOW  Anywhere\n", "")}, ""),
        ({"^ufw status": (0, "Status: inactive\n", "")}, ""),
        (
            {"--state": (0, "running\n", ""), "--query-port=8554": (1, "no", "")},
            "firewalld is active .*: sudo firewall-cmd --permanent --add-port=8554/tcp && sudo firewall-cmd --reload$",
        ),
        ({"--state": (0, "running\n", "")}, ""),
        ({"--state": (252, "", "not running")}, ""),
    ],
)
def test_firewall(fake: FakeHost, answers: dict[str, Answer], expected: str) -> None:
    for pattern, answer in answers.items():
        fake.answer(pattern, answer)
    said = install(fake, "1.0-a", rtsp=True)
    if expected:
        assert re.search(f"(?m)^{expected}", said), said
    else:
        assert " is active" not in said
    assert not fake.has_called("ufw allow|--permanent")


def test_plan(fake: FakeHost) -> None:
    fake.answer("^ufw status", (0, UFW, ""))
    before = fake.files()
    program.run_command(fake.host(rtsp=True), "plan", "install", "1.0-a")
    said = fake.said()
    assert "would open port 8555 for RTSP of camera 1, with a password\n" in said
    assert "would add cam0_view_key: the password for RTSP" in said
    assert "would add cam1_api_key: " in said
    assert "would add cam0_rtsp" not in said
    assert "sudo ufw allow 8555/tcp" in said
    assert fake.files() == before
    install(fake, "1.0-a", rtsp=True)
    before = fake.files()
    program.run_command(fake.host(rtsp=True), "plan", "install", "1.0-a")
    said = fake.said()
    assert "would keep open port 8555 for RTSP of camera 1, with a password\n" in said
    assert "would add" not in said
    assert fake.files() == before


def test_port_in_use(fake: FakeHost) -> None:
    before = fake.files()
    fake.answer("--property=MainPID", (0, "0\n7\n", ""))
    fake.answer("ss -Hltnp sport = :8554", (0, listener("0.0.0.0", 8554, pid=7), ""))  # the portal itself
    fake.answer("ss -Hltnp sport = :8555", (0, listener("10.0.0.9", 8555, pid=5), ""))
    reason = fail_install(fake, "1.0-a", rtsp=True)
    assert reason.startswith("camera 1: RTSP's port 8555 is in use by another program (")
    assert reason.endswith(
        f", nothing was changed (maybe MediaMTX; cam1_rtsp_port in {fake.host().env_file} selects another one)"
    )
    with pytest.raises(Failed, match="RTSP's port 8555"):
        program.run_command(fake.host(rtsp=True), "plan", "install", "1.0-a")
    assert not file_of(fake).exists()
    assert {name for name in fake.files() if name not in before} == {
        name for name in fake.files() if name.startswith("opt/camera-soft-stream/releases/1.0-a/")
    }


@pytest.mark.parametrize("name", ["cam0_view_key", "cam1_api_key", "cam0_rtsp_host", "cam1_rtsp_port"])
def test_empty_value_of_the_owner_would_override(fake: FakeHost, name: str) -> None:
    fake.settings = [f"{name}\t"]
    reason = fail_install(fake, "1.0-a", rtsp=True)
    assert reason.startswith(f"{name}: empty in {fake.host().env_file}, which overrides what --with-rtsp sets; ")
    assert not file_of(fake).exists()


def test_failure_is_rolled_back(fake: FakeHost) -> None:
    install(fake, "1.0-a")
    before = fake.files()
    fake.answer("healthcheck.py rtsp 1", (1, "RTSP at port 8555 does not work: status 503\n", ""))
    reason = fail_install(fake, "2.0-b", rtsp=True)
    assert reason == "RTSP of camera 1 does not work; rolled back to 1.0-a"
    said = fake.said()
    assert "camera 0: RTSP delivers H.264\ncamera 1: RTSP at port 8555 does not work: status 503\n" in said
    assert "PASSWORD" not in said
    assert fake.files() == before
    reason = fail_install(fake, "1.0-a", rtsp=True)
    assert reason == "RTSP of camera 1 does not work with these options; rolled back to the options before"
    assert fake.files() == before


@pytest.mark.parametrize(
    ("answer", "said"),
    [((1, "", "Traceback\nValueError: no\n"), "ValueError: no"), ((1, "", ""), "the check failed without output")],
)
def test_first_installation_that_fails_leaves_nothing(fake: FakeHost, answer: Answer, said: str) -> None:
    before = fake.files()
    fake.answer("healthcheck.py rtsp", answer)
    reason = fail_install(fake, "1.0-a", rtsp=True)
    assert reason.startswith("RTSP of camera 0 does not work, and no earlier release exists")
    assert fake.said().endswith(f"camera 0: {said}")
    assert fake.files() == before
    assert not file_of(fake).parent.exists()


def test_failed_update_restores_the_file(fake: FakeHost) -> None:
    install(fake, "1.0-a", cameras=(0,), rtsp=True)
    before = fake.files()
    fake.broken = {"2.0-b"}
    fail_install(fake, "2.0-b", cameras=(0, 1), rtsp=True)
    assert fake.files() == before


def test_rollback_keeps_it_and_records_no_key(fake: FakeHost) -> None:
    install(fake, "1.0-a")
    install(fake, "2.0-b", rtsp=True)
    text = file_of(fake).read_text()
    changed = fake.host().changed.read_text()
    assert not any(key in changed for key in KEY.findall(text))
    program.run_command(fake.host(), "rollback")
    assert file_of(fake).read_text() == text


def test_missing_camera_is_not_checked(fake: FakeHost) -> None:
    fake.answer("is-active camera-soft-cam@1", (3, "", ""))
    fake.answer("--property=ExecMainStatus camera-soft-cam@1", (0, "66\n", ""))
    fake.cameras.pop()
    said = install(fake, "1.0-a", cameras=(0, 1), rtsp=True)
    assert "camera 1: missing (exit 66)\n" in said
    assert not fake.has_called("healthcheck.py rtsp 1")
    assert "camera 1: H.264 at " in said


def test_uninstall(fake: FakeHost) -> None:
    install(fake, "1.0-a", rtsp=True)
    program.run_command(fake.host(), "plan", "uninstall")
    assert str(file_of(fake)) in fake.said()
    program.run_command(fake.host(), "uninstall")
    assert not file_of(fake).exists()
