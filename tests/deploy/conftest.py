"""The fixtures of the tests on a real host: a booted machine, made once, with two cameras deployed."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy import virtual
from tests.deploy.machine import ENV_FILE, Machine
from tests.rig import root as rig_root

_BUILD_S = 1800  # the first test waits for the root, and maybe for the virtual machine's disk and boots
_DEPLOYMENTS_S = 600  # a test has up to five, each of ten seconds on an idle machine
# The virtual machine is a PC with this machine's Debian, so only a PC can make it.
collect_ignore = [] if os.uname().machine == "x86_64" else ["test_devices.py"]
_NEEDED = ("nsenter", "systemd-nspawn", "ssh", "ssh-keygen", "rsync", "curl")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """pytest-timeout counts a session fixture to the test that asks for it first, be it of any file."""
    first = {
        item.path: item for item in reversed(items) if {"_booted", "vm_report"} & {*getattr(item, "fixturenames", ())}
    }
    for item in items:
        if "machine" in getattr(item, "fixturenames", ()) and item not in first.values():
            item.add_marker(pytest.mark.timeout(_DEPLOYMENTS_S))
    for item in first.values():
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(_BUILD_S))


@pytest.fixture(scope="session")
def rig_folder() -> Path:
    """The rig's root. Where it cannot be made, its tests are skipped; in CI that is a failure."""
    for program in _NEEDED:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    try:
        return rig_root.ensure()
    except rig_root.CannotMake as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="session")
def vm_report(rig_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the checks in the virtual machine found."""
    for program in ("qemu-system-x86_64", "debugfs", "cp"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    try:
        base = virtual.make_base(rig_folder, rig_folder.parent)
    except rig_root.CannotMake as reason:
        pytest.skip(str(reason))
    work = tmp_path_factory.mktemp("vm")
    try:
        report = virtual.run_checks(rig_folder, base, work)
    finally:
        (work / "disk.img").unlink(missing_ok=True)  # more than a gigabyte, of which pytest would keep three
    print(report)
    return dict(line.split(": ", 1) for line in report.splitlines() if ": " in line and not line.startswith("install:"))


@pytest.fixture(scope="session")
def _booted(rig_folder: Path) -> Iterator[Machine]:
    machine = Machine(rig_folder)
    yield machine
    machine.close()


@pytest.fixture(scope="session")
def _deployed(_booted: Machine) -> Machine:
    """Two cameras behind nginx. What deploy.sh said is in `first_words`."""
    _booted.first_words = _booted.deploy("--cameras", "0,1", "--with-nginx").stdout
    _booted.run("cp", "-p", ENV_FILE, f"{ENV_FILE}.deployed")
    return _booted


@pytest.fixture
def machine(_deployed: Machine) -> Iterator[Machine]:
    """Two cameras that run well; what a test changed about them is put right behind it."""
    _deployed.put_right()
    yield _deployed
    if os.environ.get("SOFT_STREAM_SHOW_JOURNAL"):
        print(_deployed.run("journalctl", "--no-pager", "-n", "200").stdout)
