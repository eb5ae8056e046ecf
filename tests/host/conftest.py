"""The fixtures of the tests on a real host: a booted machine, made once, with two cameras deployed."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.host.machine import ENV_FILE, Machine
from tests.rig import root as rig_root

_BUILD_S = 900  # the first test waits for the root, and maybe for the virtual machine's disk
_NEEDED = ("nsenter", "systemd-nspawn", "ssh", "ssh-keygen", "rsync", "curl")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """pytest-timeout counts a session fixture to the first test that asks for it."""
    for fixture in ("_booted", "vm_report"):
        first = next((item for item in items if fixture in getattr(item, "fixturenames", ())), None)
        if first is not None and first.get_closest_marker("timeout") is None:
            first.add_marker(pytest.mark.timeout(_BUILD_S))


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
