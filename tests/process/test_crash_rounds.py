"""SIGKILL at random moments while things change; a hundred rounds: `python3 -m tests.support.crash_rounds`."""

import random
from collections.abc import Callable
from pathlib import Path

from tests.conftest import HAS_FRESH_CASES, Portal
from tests.support.crash_rounds import Rounds

ROUNDS = 5


def test_nothing_acknowledged_is_lost(start_portal: Callable[..., Portal], tmp_path: Path) -> None:
    seed = random.randrange(10**6) if HAS_FRESH_CASES else 4
    print(f"seed {seed}")
    rounds = Rounds(start_portal, tmp_path, seed)
    for _ in range(ROUNDS):
        rounds.run()
    rounds.finish()
    print(dict(rounds.figures))
    assert rounds.faults == []
    assert rounds.figures["acknowledged: controls"] > ROUNDS
    assert rounds.figures["acknowledged: presets saved"] > ROUNDS
    assert rounds.figures["files played"] > 0
