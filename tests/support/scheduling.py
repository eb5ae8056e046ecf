"""The order of the tests: the longest groups first, measurements last and alone. A pytest plugin, used by the conftest.

With `pytest -n`, a group runs on one worker from its first test to its last. A group is a file unless `_GROUPS` names
it. The long groups start first, so that all workers have work until the end.

Tests marked `measurement` compare a duration, a rate or a processor share with a promised bound. They are one group
that starts after all other tests have finished and all but one worker have exited.
"""

import os
import tempfile
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

_GROUPS = (
    ("tests/deploy/test_devices.py", "virtual machine"),
    ("tests/deploy/", "container"),  # one machine for all of them, which also check what is left in /tmp
    ("tests/package/", None),
    ("tests/container/", None),
    ("tests/endurance/", None),
    ("tests/process/", None),
    ("tests/browser/", None),
    ("tests/rig/", None),
    ("", None),
)
_MEASUREMENT = "measurement"
_RUNS_MEASUREMENTS = "container"  # the worker that has booted the machine keeps it for the measurements there


def _place(nodeid: str) -> tuple[int, str]:
    """The position of the test's group and the group's name."""
    path = nodeid.partition("::")[0]
    position, name = next((position, name) for position, (start, name) in enumerate(_GROUPS) if path.startswith(start))
    return position, name or path


def _is_measurement(item: pytest.Item) -> bool:
    return item.get_closest_marker("measurement") is not None


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "measurement: compares a time or a rate with a bound, so it runs last and alone")


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Runs in the controller for each worker; the workers write the ids of the measurements to this file."""
    if not hasattr(node.config, "measurements"):
        folder = tempfile.TemporaryDirectory(prefix="soft-stream-tests-")
        node.config.add_cleanup(folder.cleanup)
        node.config.measurements = Path(folder.name) / "measurements"
    node.workerinput["measurements"] = str(node.config.measurements)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    workerinput = getattr(config, "workerinput", None)
    if workerinput is None:  # one after the other, the quick tests come first
        items.sort(key=_is_measurement)
        return
    items.sort(key=lambda item: (_is_measurement(item), _place(item.nodeid)[0]))
    whole = Path(workerinput["measurements"])
    part = whole.with_suffix(f".{os.getpid()}")
    part.write_text("\n".join(item.nodeid for item in items if _is_measurement(item)))
    part.replace(whole)  # all workers write the same


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: Any, log: Any) -> Any:
    from xdist.scheduler import LoadScopeScheduling  # only where it is installed

    class GroupScheduling(LoadScopeScheduling):
        """Hands out the groups in the order of the collection, and the measurements to the last worker."""

        @cached_property
        def _measurements(self) -> frozenset[str]:
            return frozenset(config.measurements.read_text().splitlines())

        def _split_scope(self, nodeid: str) -> str:
            return _MEASUREMENT if nodeid in self._measurements else _place(nodeid)[1]

        def _assign_work_unit(self, node: Any) -> None:
            if _MEASUREMENT in self.workqueue:
                self.workqueue.move_to_end(_MEASUREMENT)  # a crashed worker's groups were put behind it
            if not self._must_wait():
                super()._assign_work_unit(node)

        def _reschedule(self, node: Any) -> None:
            if not self._must_wait():
                super()._reschedule(node)
            elif node is not self._last_worker() and not node.shutting_down:
                node.shutdown()  # after the tests that it was given

        def remove_node(self, node: Any) -> str | None:
            crashed: str | None = super().remove_node(node)
            for other in self.nodes:
                self._reschedule(other)
            return crashed

        def _must_wait(self) -> bool:
            """Whether only the measurements are left, and other workers are still busy."""
            return set(self.workqueue) == {_MEASUREMENT} and len(self.nodes) > 1

        def _last_worker(self) -> Any:
            running = [node for node in self.nodes if not node.shutting_down]
            preferred = [node for node in running if _RUNS_MEASUREMENTS in self.assigned_work[node]]
            return (preferred or running or [None])[0]

    config.option.loadscopereorder = False  # keeps the order of the collection
    return GroupScheduling(config, log)
