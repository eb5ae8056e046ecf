"""The host that the tests of deploy/ work on."""

from pathlib import Path

import pytest

from tests.unit.deploy.fake_host import FakeHost


@pytest.fixture
def fake(tmp_path: Path) -> FakeHost:
    return FakeHost(tmp_path / "root")
