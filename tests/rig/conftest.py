"""The fixtures of the tests that run on the real Picamera2."""

import os
from collections.abc import Iterator

import pytest

from tests.rig.rig import Rig, open_rig
from tests.rig.root import CannotMake

_MAY_NOT_SKIP = ("CI", "SOFT_STREAM_NO_SKIP")
_BUILD_S = 900  # the first test waits for the root to be made, from a mirror that may be slow


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """pytest-timeout counts a session fixture to the test that asks for it first, be it of any file."""
    for item in {item.path: item for item in reversed(items) if "rig" in getattr(item, "fixturenames", ())}.values():
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(_BUILD_S))


@pytest.fixture(scope="session")
def _rig() -> Iterator[Rig]:
    reason = ""
    try:
        rig = open_rig()
    except CannotMake as error:
        reason = str(error)
    if reason and any(os.environ.get(name) for name in _MAY_NOT_SKIP):
        pytest.fail(f"no rig, and none of its tests may be skipped here: {reason}", pytrace=False)
    if reason:
        pytest.skip(reason)
    yield rig
    rig.close()


@pytest.fixture
def rig(_rig: Rig) -> Iterator[Rig]:
    """The rig; what a test starts in it ends with the test."""
    yield _rig
    _rig.end_all()
