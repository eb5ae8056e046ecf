"""URL cameras that are closed at the end of the test."""

import threading
from collections.abc import Callable, Iterator

import pytest

from softcam.camera.base import StreamRequest
from softcam.camera.url.camera import UrlCamera
from tests.support.background import eventually
from tests.support.url_client import REQUEST, MakeCamera


@pytest.fixture
def make_camera() -> Iterator[MakeCamera]:
    """`make_camera(address, request, **options)`: closed at the end, without a remaining thread."""
    made: list[UrlCamera] = []

    def make(
        address: object,
        request: StreamRequest = REQUEST,
        *,
        on_crash: Callable[[str], None] = pytest.fail,
        **options: float,
    ) -> UrlCamera:
        made.append(UrlCamera(str(address), request, on_crash, **options))
        return made[-1]

    yield make
    for camera in made:
        camera.close()
    eventually(lambda: not [thread for thread in threading.enumerate() if thread.name == "url-camera"], "no reader")
