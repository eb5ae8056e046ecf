"""Camera sessions that the tests of `CameraManager` share."""

from collections.abc import Iterator

import pytest

from tests.support.fakes import SessionRig


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
