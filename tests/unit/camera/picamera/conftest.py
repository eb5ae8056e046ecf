"""The fake Picamera2 in the place of the modules, with one CSI camera."""

import gc
from collections.abc import Iterator

import pytest

from tests.support.fake_picamera2 import FakePicamera2, fake_picamera2


@pytest.fixture(scope="package", autouse=True)
def cheap_collections() -> Iterator[None]:
    """The garbage collection after each test only checks objects that were created since."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[FakePicamera2]]:
    with fake_picamera2(monkeypatch) as fake:
        yield fake
