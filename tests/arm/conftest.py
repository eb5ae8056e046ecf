"""The fixture of the ARM tests: the root of each processor."""

from pathlib import Path

import pytest

from tests.arm.root import MACHINES, Machine, ensure
from tests.rig.root import CannotMake
from tests.support.timeouts import TIMEOUT_FACTOR

_LIMIT_S = 900 * TIMEOUT_FACTOR  # the first test may have to build the root


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.timeout(_LIMIT_S))


@pytest.fixture(params=list(MACHINES))
def machine(request: pytest.FixtureRequest) -> tuple[Machine, Path]:
    """The processor and its root."""
    machine = MACHINES[request.param]
    try:
        return machine, ensure(machine)
    except CannotMake as reason:
        pytest.skip(str(reason))
