"""The thread of a URL camera with sources that fail unexpectedly."""

import logging
import threading
from collections.abc import Callable

import pytest

from softcam.camera.base import StreamConfig
from softcam.camera.url.reader import ImageSource, Reader
from tests.support.timeouts import PATIENCE_S
from tests.support.url_client import REQUEST, FrameRecorder


def test_unexpected_errors_are_logged_once_per_interval(caplog: pytest.LogCaptureFixture) -> None:
    attempts: list[str] = []
    is_over = threading.Event()

    def fail(_pause: Callable[[float], bool]) -> ImageSource:
        raise OverflowError("too large")

    def count() -> None:
        attempts.append(str(reader.disconnect_reason))
        if len(attempts) == 3:
            is_over.set()

    config = StreamConfig(64, 48, "YUV420", (64, 48), can_flip=False)
    reader = Reader("camera", fail, REQUEST, FrameRecorder(), config, count)
    reader.start(pytest.fail)
    assert is_over.wait(PATIENCE_S)
    reader.stop(PATIENCE_S)
    assert attempts == ["camera: unexpected error"] * 3
    errors = [each for each in caplog.records if each.levelno >= logging.ERROR]
    assert [(each.getMessage(), each.exc_info is None) for each in errors] == [("Failed to read camera", False)]
