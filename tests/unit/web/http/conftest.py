"""A running server with recording handlers for the tests of the HTTP layer."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest

from tests.support.raw_http import Handlers, Site

NoLeaks = Callable[[], AbstractContextManager[None]]


@pytest.fixture
def handlers() -> Handlers:
    return Handlers()


@pytest.fixture
def site(handlers: Handlers, no_leaks: NoLeaks) -> Iterator[Site]:
    with no_leaks():
        with Site(handlers.routes()) as site:
            yield site
            handlers.gate.set()
        for stream in handlers.detached:
            stream.close()
        handlers.detached.clear()
