"""A portal behind a fake camera, for the tests of the API."""

from collections.abc import Iterator

import pytest

from tests.support.web_app import IMPATIENT, Scene


@pytest.fixture
def scene() -> Iterator[Scene]:
    with Scene() as scene:
        yield scene


@pytest.fixture
def flowing(scene: Scene) -> Iterator[Scene]:
    """The camera delivers frames by itself."""
    with scene.camera.flowing():
        yield scene


@pytest.fixture
def impatient() -> Iterator[Scene]:
    """Requests time out soon."""
    with Scene(**IMPATIENT) as scene:
        yield scene
