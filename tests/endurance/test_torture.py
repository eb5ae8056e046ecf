"""Some calls that fail. `python -m tests.endurance.torture` makes each call of each kind fail, for ten minutes."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Portal
from tests.endurance.torture import KINDS, USES, Torture
from tests.support.timeouts import TIMEOUT_FACTOR

STEP = 20


@pytest.mark.timeout(600 * TIMEOUT_FACTOR)
def test_calls_that_fail(start_portal: Callable[..., Portal], tmp_path: Path) -> None:
    with Torture(start_portal, tmp_path) as running:
        running.run(list(KINDS), USES, STEP)
    assert running.outcome.wrong == []
    failed = {name.partition(":")[0] for name in running.outcome.counts if "not reached" not in name}
    assert failed == set(KINDS)
