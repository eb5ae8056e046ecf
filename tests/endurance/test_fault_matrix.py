"""What clients of every kind see of each fault of the pattern camera: the tables in docs/reliability.md."""

import re
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing

import pytest

from softcam.camera.pattern.faults import KNOWN
from tests.conftest import PROJECT, Portal
from tests.endurance.fault_matrix import RECOVERY_SLACK_S, WATCHDOG_S, Seen, Stage
from tests.endurance.fault_rows import FAULTS, RIG, WAITING, Fault
from tests.support.publishing_server import PublishingServer

SURVIVED = [row for row in FAULTS if row.exit_code is None and not row.flags]
SEPARATE = [row for row in FAULTS if row not in SURVIVED]


@pytest.fixture(scope="module")
def server() -> Iterator[PublishingServer]:
    with closing(PublishingServer()) as server:
        yield server


@pytest.fixture(scope="module")
def separate(
    start_shared_portal: Callable[..., Portal], tmp_path_factory: pytest.TempPathFactory, server: PublishingServer
) -> Iterator[dict[str, Future[Seen]]]:
    """The rows with a portal of their own. They run at the same time, as most of it is waiting."""
    folder = tmp_path_factory.mktemp("faults")
    stages = [
        Stage(start_shared_portal, folder / row.name, server, *row.flags, is_publishing=row.is_open) for row in SEPARATE
    ]
    with ThreadPoolExecutor(len(stages)) as pool:
        yield {row.name: pool.submit(stage.run, row) for row, stage in zip(SEPARATE, stages, strict=True)}


@pytest.fixture(scope="module")
def stage(
    start_shared_portal: Callable[..., Portal], tmp_path_factory: pytest.TempPathFactory, server: PublishingServer
) -> Stage:
    """The portal that outlives its rows. The first run leaves what is created once."""
    stage = Stage(start_shared_portal, tmp_path_factory.mktemp("shared"), server)
    stage.run(FAULTS[0])
    return stage


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


@pytest.mark.parametrize("row", SURVIVED, ids=lambda row: row.name)
def test_fault(stage: Stage, separate: dict[str, Future[Seen]], row: Fault) -> None:
    check(row, stage.run(row))


@pytest.mark.parametrize("row", SEPARATE, ids=lambda row: row.name)
def test_fault_of_separate_portal(separate: dict[str, Future[Seen]], row: Fault) -> None:
    check(row, separate[row.name].result())


def test_each_word_has_a_row() -> None:
    assert {word for row in FAULTS for word in row.words.split()} == KNOWN


def test_tests_of_the_rig_exist() -> None:
    for _, _, test in RIG:
        path, _, name = test.partition("::")
        assert f"def {name}(" in (PROJECT / path).read_text(), test
