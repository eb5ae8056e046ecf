"""Fixtures: a running RTSP server with a fake encoder and camera; `indirect` parameters are those of `Stage`."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest

from tests.support.rtsp_viewers import ManualClock, Stage

NoLeaks = Callable[[], AbstractContextManager[None]]


@pytest.fixture
def stage(no_leaks: NoLeaks, request: pytest.FixtureRequest) -> Iterator[Stage]:
    """Checks afterwards that nothing crashed, and that all leases, descriptors and threads were released."""
    with no_leaks():
        stage = Stage(**getattr(request, "param", {}))
        yield stage
        stage.stop()


@pytest.fixture
def timed_stage(no_leaks: NoLeaks, request: pytest.FixtureRequest) -> Iterator[Stage]:
    """With the usual limits, and a clock that stands still until `advance`."""
    with no_leaks():
        stage = Stage(clock=ManualClock(), **getattr(request, "param", {}))
        yield stage
        stage.stop()
