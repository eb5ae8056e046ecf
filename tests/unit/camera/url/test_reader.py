"""The thread of a URL camera with sources that fail or end: what it logs."""

import logging
import threading
from collections.abc import Callable, Iterator

import pytest

from softcam.camera.base import StreamConfig
from softcam.camera.url.reader import ImageSource, Reader
from softcam.camera.url.source import Converter, SourceImage, require_pyav
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


class OneImage:
    """A source that ends after its only image."""

    def images(self) -> Iterator[SourceImage | None]:
        yield SourceImage((64, 48), None, b"a JPEG", Converter(require_pyav()))

    def close(self) -> None: ...


def test_repeated_disconnects_are_logged_once_per_interval(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    disconnects: list[str] = []
    is_over = threading.Event()

    def count() -> None:
        disconnects.append(str(reader.disconnect_reason))
        if len(disconnects) == 3:
            is_over.set()

    config = StreamConfig(64, 48, "MJPEG", (64, 48), can_flip=False)
    reader = Reader("camera", lambda _pause: OneImage(), REQUEST, lambda _frame: None, config, count)
    reader.start(pytest.fail)
    assert is_over.wait(PATIENCE_S)
    reader.stop(PATIENCE_S)
    assert disconnects == ["camera: end of stream"] * 3
    assert caplog.messages == ["Source camera disconnected: end of stream; reconnecting", "Source camera reconnected"]
