"""Camera sessions that the tests of `CameraManager` share."""

from collections.abc import Iterator

import pytest

from tests.support.fakes import SessionRig

WATCHDOG_S = 60.0  # is never reached


@pytest.fixture
def held() -> Iterator[SessionRig]:
    """A long linger, no watchdog, no autofocus."""
    with SessionRig() as held:
        yield held


@pytest.fixture
def brief() -> Iterator[SessionRig]:
    """No linger."""
    with SessionRig(linger_s=0.0) as held:
        yield held


@pytest.fixture
def calm() -> Iterator[SessionRig]:
    """A watchdog and a long linger: for what happens when frames arrive again."""
    with SessionRig(watchdog_timeout_s=WATCHDOG_S) as held:
        yield held
