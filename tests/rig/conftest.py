"""The fixtures of the tests that run on the real Picamera2."""

import os
from collections.abc import Iterator

import pytest

from tests.rig.rig import Rig, open_rig
from tests.rig.root import CannotMake

_MAY_NOT_SKIP = ("CI", "SOFT_STREAM_NO_SKIP")
_BUILD_S = 900  # the first test may have to build the root, from a slow mirror


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Raise some limits: pytest-timeout adds a session fixture's time to the first test that uses it, in any file."""
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
    """The rig; processes that a test starts end with the test."""
    yield _rig
    _rig.end_all()
