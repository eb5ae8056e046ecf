"""Fixtures of the container tests: a Docker engine, made once."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.container.engine import Engine, ensure, running
from tests.rig.root import CannotMake
from tests.support.timeouts import TIMEOUT_FACTOR

_BUILD_S = 1800 * TIMEOUT_FACTOR  # the first test may have to make the engine


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Time limits: the first test that uses the engine may have to make it."""
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.timeout(_BUILD_S))


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    try:
        made = ensure()
    except CannotMake as reason:
        pytest.skip(str(reason))
    with running(made) as engine:
        yield engine
