"""Fixtures of the deployment tests: a booted machine, made once, with two cameras deployed."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy import virtual
from tests.deploy.machine import ENV_FILE, Machine, copy_project
from tests.rig import root as rig_root
from tests.support.timeouts import TIMEOUT_FACTOR

_BUILD_S = 1800 * TIMEOUT_FACTOR  # the first test may have to make the root
_DEPLOYMENTS_S = 600 * TIMEOUT_FACTOR  # a test has up to three, each of ten seconds on an idle machine
# The virtual machine is a PC with this machine's Debian, so it can only be made on a PC.
collect_ignore = [] if os.uname().machine == "x86_64" else ["test_devices.py"]
_NEEDED = ("nsenter", "setpriv", "systemd-nspawn", "ssh", "ssh-keygen", "rsync", "curl")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Time limits: pytest-timeout adds a session fixture's time to the first test that uses it, in any file.

    The virtual machine has a limit on its silence instead (virtual.py).
    """
    users = [(item, {*getattr(item, "fixturenames", ())}) for item in items]
    first = {item.path: item for item, names in reversed(users) if "_booted" in names}
    for item, names in users:
        if "vm_report" in names:
            item.add_marker(pytest.mark.timeout(0))
        elif "machine" in names and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(_BUILD_S if item is first.get(item.path) else _DEPLOYMENTS_S))


@pytest.fixture(scope="session")
def rig_folder() -> Path:
    """The rig's root. If it cannot be made, its tests are skipped; in CI that is a failure."""
    for program in _NEEDED:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    try:
        return rig_root.ensure()
    except rig_root.CannotMake as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="module")
def vm_report(
    rig_folder: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[dict[str, str]]:
    """The results of the checks in the virtual machine, by name. A report that fails a test is not kept."""
    for program in ("qemu-system-x86_64", "debugfs", "cp"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    try:
        base = virtual.make_base(rig_folder, rig_folder.parent)
    except rig_root.CannotMake as reason:
        pytest.skip(str(reason))
    work = tmp_path_factory.mktemp("vm")
    try:
        path = virtual.make_report(rig_folder, base, work)
    finally:
        (work / "disk.img").unlink(missing_ok=True)  # more than a gigabyte, and pytest would keep three of them
    report = path.read_text()
    print(report)
    failed = request.session.testsfailed
    yield dict(line.split(": ", 1) for line in report.splitlines() if ": " in line and not line.startswith("install:"))
    if request.session.testsfailed > failed:
        path.unlink(missing_ok=True)


@pytest.fixture(scope="session")
def _booted(rig_folder: Path) -> Iterator[Machine]:
    machine = Machine(rig_folder)
    yield machine
    machine.close()


@pytest.fixture(scope="session")
def _deployed(_booted: Machine) -> Machine:
    """Two cameras behind nginx. The output of deploy.sh is in `first_words`."""
    _booted.first_words = _booted.deploy("--cameras", "0,1", "--with-nginx").stdout
    _booted.run("cp", "-p", ENV_FILE, f"{ENV_FILE}.deployed")
    return _booted


@pytest.fixture
def machine(_deployed: Machine) -> Iterator[Machine]:
    """Two working cameras; changes by the previous test are reverted."""
    _deployed.put_right()
    yield _deployed
    if os.environ.get("SOFT_STREAM_SHOW_JOURNAL"):
        print(_deployed.run("journalctl", "--no-pager", "-n", "200").stdout)


@pytest.fixture
def project(machine: Machine, tmp_path: Path) -> Path:
    """A copy of the deployed project, to be changed."""
    return copy_project(machine.project, tmp_path / "soft stream")  # with a space in its path
