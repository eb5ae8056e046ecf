"""The Debian package on a booted Debian 13: installed, upgraded, removed and purged, with two virtual cameras."""

import json
import re
from collections.abc import Iterator

import pytest

import softcam
from tests.deploy.machine import ENV_FILE, Machine

PACKAGE = "camera-soft-stream"
# With a terminal, dpkg asks what to do with edited settings; here the option is the answer.
APT = ("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", "-y", "-o", "Dpkg::Options::=--force-confold")
FOLDERS = (
    "/etc",
    "/opt",
    "/usr/bin",
    "/usr/sbin",
    "/usr/lib/systemd",
    "/usr/lib/udev",
    "/usr/share",
    "/var/lib/private",
)
# What dpkg, apt and udev keep about every package, and what a running systemd changes.
CHANGING = r"/etc/(\.pwd\.lock|machine-id|resolv\.conf|mtab|ld\.so\.cache)|/usr/share/(python3|doc|man|lintian)(/.*)?"


def apt(machine: Machine, *words: str) -> str:
    return machine.run(*APT, *words).stdout


def command(machine: Machine, *words: str, code: int = 0) -> str:
    """The output of the package's command."""
    done = machine.run(PACKAGE, *words, check=False)
    assert done.returncode == code, done.stdout
    return done.stdout


def version_of(machine: Machine, camera: int) -> str:
    code, body = machine.get(f"http://127.0.0.1:{18081 + camera}/health")
    assert code == 200
    return str(json.loads(body)["version"])


def assert_picture(machine: Machine, camera: int) -> None:
    code, _ = machine.get(f"http://127.0.0.1:{18081 + camera}/snapshot.jpg", "-o", "/dev/null")
    assert code == 200
    assert machine.status(camera)["backend"] == "picamera2"


def found_files(machine: Machine) -> set[str]:
    done = machine.run("find", *FOLDERS, "-name", "__pycache__", "-prune", "-o", "-print", check=False)
    return {path for path in done.stdout.splitlines() if not re.fullmatch(CHANGING, path)}


@pytest.fixture
def clean(machine: Machine) -> Iterator[Machine]:
    """The machine without the package and its settings."""
    yield machine
    machine.run("dpkg", "--purge", PACKAGE)


def test_install_enable_and_disable(clean: Machine) -> None:
    assert f"sudo {PACKAGE} enable 0" in apt(clean, "install", "/root/new.deb")
    assert not clean.is_active(0)
    assert clean.run("stat", "-c", "%U %a", ENV_FILE).stdout == "root 600\n"
    assert re.search(r"(?m)^0: imx\w+ Virtual\d: disabled, inactive$", command(clean, "list"))
    assert "no password and no key is set" in command(clean, "password", code=1)

    shown = command(clean, "enable", "0", "1")
    for camera in (0, 1):
        assert re.search(
            rf"(?m)^camera {camera}: healthy at http://127\.0\.0\.1:{18081 + camera}, .*snapshot of", shown
        )
        assert_picture(clean, camera)
    assert clean.run("systemd-analyze", "verify", "--man=no", "camera-soft-cam@0.service").stdout == ""
    assert clean.show(0, "FragmentPath")["FragmentPath"] == "/usr/lib/systemd/system/camera-soft-cam@.service"
    documentation = clean.show(0, "Documentation")["Documentation"].removeprefix("file:")
    assert documentation in clean.run("dpkg", "--listfiles", PACKAGE).stdout.splitlines()
    assert version_of(clean, 0) == softcam.__version__
    assert command(clean, "list").count(": enabled, active") == 2

    command(clean, "disable", "1")
    assert (clean.is_active(0), clean.is_active(1)) == (True, False)
    assert command(clean, "list").count(": enabled, active") == 1


def test_upgrade_keeps_settings_and_restarts(clean: Machine) -> None:
    apt(clean, "install", "/root/older.deb")
    clean.run("sh", "-c", f"echo 'cam0_name=Door' >>{ENV_FILE}")
    command(clean, "enable", "0")
    assert version_of(clean, 0).startswith("0.0.1-")
    pid = clean.pid(0)

    apt(clean, "install", "/root/new.deb")
    clean.wait_for_fresh(0, pid)
    assert version_of(clean, 0) == softcam.__version__
    assert clean.status(0)["name"] == "Door"
    assert_picture(clean, 0)
    assert not clean.is_active(1)
    # The settings were edited here and changed there: the owner's stay, and the new ones are beside them.
    assert "#CAMERA_QUALITY=80" in clean.run("cat", f"{ENV_FILE}.dpkg-dist").stdout


def test_remove_keeps_and_purge_removes_everything(clean: Machine) -> None:
    before = found_files(clean)
    apt(clean, "install", "/root/new.deb")
    clean.run("sh", "-c", f"echo CAMERA_API_KEY=key-of-the-owner >>{ENV_FILE}")
    assert re.search(r"(?m)^camera 0: open http://\S+:8081/$", command(clean, "enable", "0", "--with-nginx"))
    words = command(clean, "password")
    user = re.search(r"(?m)^user camera: (\S+)", words)
    assert user is not None
    assert "CAMERA_API_KEY: key-of-the-owner" in words
    assert clean.get("http://127.0.0.1:8081/health", "-u", f"camera:{user[1]}")[0] == 200

    apt(clean, "remove", PACKAGE)
    assert not clean.is_active(0)
    assert "key-of-the-owner" in clean.run("cat", ENV_FILE).stdout
    apt(clean, "install", "/root/new.deb")
    clean.wait_until(lambda: clean.is_active(0), "the camera, enabled before")

    apt(clean, "purge", PACKAGE)
    assert not clean.is_active(0)
    assert found_files(clean) - before == set()
    assert clean.run("nginx", "-t", "-q").stdout == ""


def test_errors(clean: Machine) -> None:
    apt(clean, "install", "/root/new.deb")
    assert "must be the number of a camera, 0 to 99" in command(clean, "enable", "front", code=2)
    done = clean.run("runuser", "-u", "pi", "--", f"/usr/sbin/{PACKAGE}", "list", check=False)
    assert (done.returncode, done.stdout) == (1, f"{PACKAGE}: must be run as root: sudo {PACKAGE} …\n")
    clean.run("sh", "-c", f"echo CAMERA_FPS=fast >>{ENV_FILE}")
    assert "bad settings in" in command(clean, "enable", "0", code=1)
    assert not clean.is_active(0)
    clean.run("touch", "/etc/systemd/system/camera-soft-cam@.service")
    try:
        assert "is of deploy.sh" in command(clean, "enable", "0", code=1)
    finally:
        clean.run("rm", "/etc/systemd/system/camera-soft-cam@.service")
