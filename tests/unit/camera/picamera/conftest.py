"""The fake Picamera2 in the place of the modules, with one CSI camera."""

from collections.abc import Iterator

import pytest

from tests.support.fake_picamera2 import FakePicamera2, fake_picamera2


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[FakePicamera2]]:
    with fake_picamera2(monkeypatch) as fake:
        yield fake
