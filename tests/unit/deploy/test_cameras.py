"""What is found on a host: cameras, settings, packages; and the checks before a deployment."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy import cameras
from deploy.system import Failed
from tests.unit.deploy.fake_host import Answer, FakeHost


def settings(fake: FakeHost, *lines: str) -> cameras.Inventory:
    """The inventory of a host with these variables, read by the program that runs there."""
    variables = dict(line.split("=", 1) for line in lines)
    done = subprocess.run(
        [sys.executable, "-c", cameras.READ_SETTINGS], env=variables, capture_output=True, text=True, check=True
    )
    fake.settings = done.stdout.splitlines()
    return cameras.take_inventory(fake.host())


@pytest.mark.parametrize(
    ("lines", "is_off"),
    [
        (["CAMERA_ENABLED=off"], True),
        (["CAMERA_ENABLED=No"], True),
        (["cam0_enabled=0"], True),
        (["cam0_enabled=false", "CAMERA_ENABLED=on"], True),
        (["CAMERA_ENABLED=off", "CAM0_ENABLED=1"], False),
        (["cam1_enabled=off"], False),
        ([], False),
    ],
)
def test_switched_off(fake: FakeHost, lines: list[str], is_off: bool) -> None:
    assert settings(fake, *lines).is_switched_off(0) is is_off


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("OTHER=1", "/base/a"),
        ("cam0_id=/base/b", "/base/b"),
        ("cam0_id=/base/c", ""),
        ("cam0_id=pattern", "pattern"),
        ("cam0_id=rtsp://user:secret@10.0.0.2/cam", "elsewhere"),
        ("cam0_id=/dev/video0", "elsewhere"),
        ("CAM0_ID=/base/b # the other one", "/base/b"),
        ("cam0_id=", "/base/a"),
        (r"cam0_id=\_SB_.I2C1", r"\_SB_.I2C1"),
    ],
)
def test_camera_id(fake: FakeHost, line: str, found: str) -> None:
    fake.cameras.append("2\tov5647\t\\_SB_.I2C1")
    assert settings(fake, line).camera_id(0) == found


@pytest.mark.parametrize("make", [Path.touch, os.mkfifo])
def test_files_and_pipes_belong_to_other_programs(fake: FakeHost, make: Callable[[Path], None]) -> None:
    make(fake.root / "clip")
    assert settings(fake, "cam0_id=/clip").camera_id(0) == "elsewhere"


def test_values_of_few_settings_are_read(fake: FakeHost) -> None:
    lines = ("CAMERA_API_KEY=secret", "CAMERA_VIEW_KEY=", "cam1_id=pattern", "cam1_rtsp_port=9554", "cam1_width=640")
    inventory = settings(fake, *lines)
    assert [*inventory.values.values()] == ["set", "", "pattern", "9554", ""]
    assert [inventory.value(1, "rtsp_port"), inventory.value(0, "rtsp_port")] == ["9554", ""]
    assert not any("rtsp.env" in call for call in fake.calls)  # only the settings of the owner


def test_disabled_cameras_stay_off(fake: FakeHost) -> None:
    host = fake.host()
    for number in range(3):
        host.binding(number).parent.mkdir()
        host.binding(number).touch()
    fake.enable(0)
    fake.enable(2)
    (host.units / "camera-soft-cam@2.service").symlink_to("/dev/null")  # masked
    listed = cameras.Inventory(host, dict.fromkeys(range(4), ("m", "i")), {})  # 3 is new
    assert cameras.wanted_cameras(host, listed) == [0, 3]
    assert cameras.wanted_cameras(fake.host(cameras=(1, 0)), listed) == [0, 1]


def test_check(fake: FakeHost) -> None:
    cameras.check(fake.host())
    assert fake.said() == "checked: Debian 13, systemd 257, Python 3.13.5, cameras: 0 imx708, 1 imx477"


def test_check_reports_lines_that_systemd_ignores(fake: FakeHost) -> None:
    host = fake.host()
    host.env_file.parent.mkdir()
    host.env_file.write_bytes(b"# \xfcber\nexport CAMERA_FPS=7\n")  # not UTF-8
    cameras.check(host)
    assert f"{host.env_file}, line 2: systemd ignores lines that begin with `export`" in fake.said()


def test_check_reports_disabled_cameras(fake: FakeHost) -> None:
    host = fake.host()
    host.binding(1).parent.mkdir()
    host.binding(1).touch()
    cameras.check(host)
    assert "camera 1: disabled on this host and stays off; --cameras 1 enables it" in fake.said()
    host.binding(0).parent.mkdir()
    host.binding(0).touch()
    with pytest.raises(Failed, match="every camera of this host is disabled"):
        cameras.check(host)


@pytest.mark.parametrize(
    ("pattern", "answer", "reason"),
    [
        ("systemctl --version", (0, "systemd 241 (241)\n", ""), "systemd 241 is too old: 247 or newer is required"),
        (
            "find_spec",
            (1, "", ""),
            "missing: python3-picamera2 python3-simplejpeg. Run again with --install-packages, ",
        ),
        ("version_info", (1, "", ""), "/usr/bin/python3 is Python 3.13.5; 3.11 or newer is required"),
        (
            "global_camera_info",
            (1, "", "Traceback\nImportError: numpy\n"),
            "picamera2 does not work with .*: ImportError",
        ),
        ("global_camera_info", (0, "", ""), "no camera found. Check the ribbon; "),
    ],
)
def test_check_fails(fake: FakeHost, pattern: str, answer: Answer, reason: str) -> None:
    fake.answer(pattern, answer)
    with pytest.raises(Failed, match=reason):
        cameras.check(fake.host())


def test_check_without_systemd(fake: FakeHost) -> None:
    (fake.root / "run/systemd/system").rmdir()
    with pytest.raises(Failed, match="systemd is not running"):
        cameras.check(fake.host())


def test_missing_python(fake: FakeHost) -> None:
    fake.answer("/opt/wrong/python -V", (127, "", ""))
    with pytest.raises(Failed, match=r"/opt/wrong/python does not exist\. --python must be a Python with picamera2"):
        cameras.check(fake.host(python="/opt/wrong/python"))


def test_missing_camera(fake: FakeHost) -> None:
    with pytest.raises(
        Failed, match=r"camera 5 not found; found: 0 imx708, 1 imx477\. Check the ribbon, and cam5_id in "
    ):
        cameras.check(fake.host(cameras=(0, 5)))
    settings(fake, "CAMERA_ENABLED=off")
    cameras.check(fake.host(cameras=(0, 5)))  # it needs none


def test_masked_camera(fake: FakeHost) -> None:
    (fake.root / "etc/systemd/system/camera-soft-cam@1.service").symlink_to("/dev/null")
    with pytest.raises(Failed, match="camera 1 is masked; to use it: sudo systemctl unmask camera-soft-cam@1"):
        cameras.check(fake.host(cameras=(1,)))


def test_missing_node(fake: FakeHost) -> None:
    with pytest.raises(Failed, match="--bind: /dev/video77 does not exist"):
        cameras.check(fake.host(bind={0: "none", 1: "/dev/video77"}))
    (fake.root / "dev").mkdir()
    (fake.root / "dev/video77").touch()
    cameras.check(fake.host(bind={1: "/dev/video77"}))


def test_packages(fake: FakeHost) -> None:
    cameras.plan_packages(fake.host())
    assert fake.said() == ""
    cameras.install_packages(fake.host())
    assert fake.said() == "packages: all installed"
    host = fake.host(nginx=True)
    cameras.plan_packages(host)
    assert fake.said() == ""
    fake.answer("command -v (nginx|openssl)", (1, "", ""))
    cameras.plan_packages(host)
    assert fake.said() == "would install nginx-light openssl; run again afterwards to see the other steps"
    cameras.install_packages(host)
    assert fake.said() == "installing nginx-light openssl\ninstalled nginx-light openssl"
    assert fake.calls[-1].endswith("install -y --no-install-recommends nginx-light openssl")
    fake.answer("apt-get -q update", (100, "", "E: no network\n"))
    with pytest.raises(Failed, match="apt could not install nginx-light openssl: E: no network"):
        cameras.install_packages(host)


def test_python_in_use(fake: FakeHost) -> None:
    host = fake.host()
    assert cameras.python_path(host) == "/usr/bin/python3"
    host.python_drop_in.parent.mkdir()
    host.python_drop_in.write_text("[Service]\nExecStart=\nExecStart=/opt/python /opt/x\n")
    assert cameras.python_path(host) == "/opt/python"
    assert cameras.python_path(fake.host(python="/new")) == "/new"
