"""Releases: how a copy becomes one, what is reloaded with it, and which are kept."""

import os
from pathlib import Path

import pytest

from deploy import host as program
from deploy import releases
from deploy.system import Failed
from tests.unit.deploy.fake_host import FakeHost, install


def test_old_releases_are_removed(fake: FakeHost) -> None:
    for number in range(5):
        install(fake, f"{number}.0-a")
    left = {path.name for path in (fake.root / "opt/camera-soft-stream/releases").iterdir()}
    assert len(left) == 3
    assert {"4.0-a", "3.0-a"} < left


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
    new = fake.add_release("new").parent  # another deployment's
    program.run_command(fake.host(), "incoming", "1.0-a")
    assert (old.exists(), new.exists()) == (False, True)


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
