"""Fixtures of the package tests: the Debian package, made once, and a booted Debian 13 to install it on."""

import base64
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.machine import PROJECT, PYTHON, Machine
from tests.rig import root as rig_root
from tests.support.timeouts import RUN_LIMIT_S, TIMEOUT_FACTOR

_BUILD_S = 1800 * TIMEOUT_FACTOR  # the first test may have to make the root
_LIMIT_S = 300 * TIMEOUT_FACTOR
_NEEDED = ("nsenter", "setpriv", "systemd-nspawn", "ssh-keygen", "curl", "dpkg-buildpackage", "dh", "lintian")

# The packages of Raspberry Pi OS that Debian does not have. Their content is in the rig's Python, which runs the
# portal.
_PI_PACKAGES = """\
Package: rig-python
Version: 1
Architecture: all
Maintainer: The Soft Stream authors <maintainers@soft-stream.invalid>
Provides: python3-numpy, python3-simplejpeg, python3-picamera2, python3-av
Description: Picamera2 of the rig
"""
_PYTHON_DROP_IN = "/etc/systemd/system/camera-soft-cam@.service.d/python.conf"  # as `deploy.sh --python` writes it
_RIG_PYTHON = f"""\
[Service]
ExecStart=
ExecStart={PYTHON} /usr/share/camera-soft-stream/soft_stream.py --camera %i
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Time limits: the first test that uses the machine may have to make its root."""
    here = [item for item in items if item.path.parent == Path(__file__).parent]
    users = [item for item in here if "machine" in getattr(item, "fixturenames", ())]
    for item in users:
        item.add_marker(pytest.mark.timeout(_BUILD_S if item is users[0] else _LIMIT_S))


def make_package(tree: Path, target: Path) -> Path:
    """A package from a folder with DEBIAN/control in it."""
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "-Znone", "--build", tree, target], check=True, timeout=RUN_LIMIT_S
    )
    return target


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package of this checkout, built and checked by lintian as `make deb` does it."""
    for program in _NEEDED:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    dist = tmp_path_factory.mktemp("dist")
    argv = [sys.executable, str(PROJECT / "tools/build_release.py"), "deb", "--dist", str(dist)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=_LIMIT_S)
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())


@pytest.fixture(scope="session")
def older_package(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as an earlier version: with another number, and with other settings commented out."""
    tree = tmp_path_factory.mktemp("older") / "tree"
    subprocess.run(["dpkg-deb", "--raw-extract", package, tree], check=True, timeout=RUN_LIMIT_S)
    for name, old, new in (
        ("DEBIAN/control", "\nVersion: ", "\nVersion: 0.0.1~"),
        ("usr/share/camera-soft-stream/softcam/__init__.py", '__version__ = "', '__version__ = "0.0.1-'),
        ("etc/camera-streamer/camera-soft-stream.env", "#CAMERA_QUALITY=80", "#CAMERA_QUALITY=79"),
    ):
        text = (tree / name).read_text()
        assert old in text
        (tree / name).write_text(text.replace(old, new))
    return make_package(tree, tree.with_name("older.deb"))


@pytest.fixture(scope="session")
def machine(package: Path, older_package: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A Debian 13 with two cameras, without the package; both versions of it are in /root."""
    try:
        machine = Machine(rig_root.ensure())
    except rig_root.CannotMake as reason:
        pytest.skip(str(reason))
    try:
        tree = tmp_path_factory.mktemp("pi") / "tree"
        (tree / "DEBIAN").mkdir(parents=True)
        (tree / "DEBIAN/control").write_text(_PI_PACKAGES)
        pi_packages = make_package(tree, tree.with_name("pi.deb"))
        for path, name in ((pi_packages, "pi"), (package, "new"), (older_package, "older")):
            text = base64.b64encode(path.read_bytes()).decode()
            machine.run("sh", "-c", 'base64 --decode >"/root/$0.deb"', name, text=text)
        machine.run("dpkg", "--install", "/root/pi.deb")
        machine.write(_PYTHON_DROP_IN, _RIG_PYTHON)
        yield machine
    finally:
        machine.close()
