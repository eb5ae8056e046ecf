"""What clients of every kind see of each fault of the pattern camera: the tables in docs/reliability.md."""

import re
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing

import pytest

from softcam.camera.pattern.faults import KNOWN
from tests.conftest import PROJECT, Portal
from tests.endurance.fault_matrix import RECOVERY_SLACK_S, WATCHDOG_S, Seen, Stage
from tests.endurance.fault_rows import FAULTS, RIG, WAITING, Fault
from tests.support.publishing_server import PublishingServer

SURVIVED = [row for row in FAULTS if row.exit_code is None and not row.flags]
SEPARATE = [row for row in FAULTS if row not in SURVIVED]  # each has its own portal
SHARED_PORTALS = 3


@pytest.fixture(scope="module")
def seen(
    start_shared_portal: Callable[..., Portal], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Future[Seen]]]:
    """Runs all rows: each portal has a thread for its rows, as most of it is waiting."""
    folder = tmp_path_factory.mktemp("faults")
    with closing(PublishingServer()) as server, ExitStack() as pools:
        stages = [
            (Stage(start_shared_portal, folder / row.name, server, *row.flags, is_publishing=row.is_open), [row])
            for row in SEPARATE
        ]
        for number in range(SHARED_PORTALS):
            stage = Stage(start_shared_portal, folder / f"shared{number}", server)
            # The first run leaves what is created once.
            stages.append((stage, [FAULTS[0], *SURVIVED[number::SHARED_PORTALS]]))
        runs: dict[str, Future[Seen]] = {}
        for stage, rows in stages:
            pool = pools.enter_context(ThreadPoolExecutor(1))
            runs |= {row.name: pool.submit(stage.run, row) for row in rows}
        yield runs


def check(row: Fault, seen: Seen) -> None:
    # In a recovery of a moment, a viewer may see the notice or not.
    viewer = {
        seen.clients["viewer"],
        seen.clients["viewer"].replace("notice, ends", "ends").replace("notice,", "pauses,"),
    }
    assert row.seen["viewer"] in viewer
    assert dict(seen.clients) | {"viewer": row.seen["viewer"]} == row.seen
    assert seen.exit_code == row.exit_code
    assert seen.counted == row.counted
    left = [*seen.logged]
    for pattern in row.logged:
        found = next((line for line in left if re.match(pattern, line)), None)
        assert found is not None, (pattern, seen.logged)
        left.remove(found)
    # On a busy machine, an interruption of two seconds may take the three after which publishing reports it.
    assert [line for line in left if not re.match(WAITING, line)] == []
    if row.exit_code is None:
        assert seen.outage_s < row.recovery * WATCHDOG_S + RECOVERY_SLACK_S


@pytest.mark.parametrize("row", FAULTS, ids=lambda row: row.name)
def test_fault(seen: dict[str, Future[Seen]], row: Fault) -> None:
    check(row, seen[row.name].result())


def test_each_word_has_a_row() -> None:
    assert {word for row in FAULTS for word in row.words.split()} == KNOWN


def test_tests_of_the_rig_exist() -> None:
    for _, _, test in RIG:
        path, _, name = test.partition("::")
        assert f"def {name}(" in (PROJECT / path).read_text(), test
