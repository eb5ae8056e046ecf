"""Fixtures: a running fan-out, by both ways of sending, and a running pool of JPEG encoders."""

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest

from softcam.imaging import jpeg
from softcam.net.io_uring import BatchSender
from tests.support.jpeg_pool import Encoder, Pool
from tests.support.stream_clients import Stage

NoLeaks = Callable[[], AbstractContextManager[None]]


def check(stage: Stage) -> None:
    """No thread crashed, and each client was disconnected exactly once."""
    assert stage.crashes == []
    assert sorted(stage.disconnected) == list(range(stage.added))


@pytest.fixture(params=[1, math.inf], ids=["ring", "loop"])
def sender(request: pytest.FixtureRequest) -> BatchSender:
    """Sends through io_uring, or by one system call per client."""
    return BatchSender(request.param)


@pytest.fixture
def stage(no_leaks: NoLeaks, sender: BatchSender) -> Iterator[Stage]:
    with no_leaks():
        stage = Stage(sender=sender)
        yield stage
        stage.stop()
    check(stage)


@pytest.fixture
def impatient_stage(no_leaks: NoLeaks) -> Iterator[Stage]:
    """Disconnects a client that accepts nothing for 0.1 s."""
    with no_leaks():
        stage = Stage(stall_timeout_s=0.1)
        yield stage
        stage.stop()
    check(stage)


@pytest.fixture
def encoder(monkeypatch: pytest.MonkeyPatch) -> Encoder:
    encoder = Encoder()
    monkeypatch.setattr(jpeg, "encode", encoder)
    return encoder


@pytest.fixture
def pool(no_leaks: NoLeaks) -> Iterator[Pool]:
    with no_leaks():
        pool = Pool()
        yield pool
        pool.stop()
    assert pool.crashes == []
    assert pool.frames_out == 0, "every frame is released"
