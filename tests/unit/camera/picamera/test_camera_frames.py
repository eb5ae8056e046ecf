"""The Picamera2 backend's frames: callbacks, releases, and waiting for them before the camera stops."""

import gc
import threading
from collections.abc import Callable

import pytest

from softcam.camera.picamera.camera import PicameraCamera
from softcam.imaging.frame import Frame
from tests.support.fake_picamera2 import PATIENCE_S, REQUEST, FakePicamera2, OpenedCamera

pytestmark = pytest.mark.usefixtures("fake")


def test_exception_in_callback(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[Frame] = []

    def fail(frame: Frame) -> None:
        frame.release()
        seen.append(frame)
        raise ValueError("a hook failed")

    camera = PicameraCamera(0, None, REQUEST)
    camera.open(fail)
    picam2 = FakePicamera2.made[-1]()
    assert picam2 is not None
    picam2.deliver(bytearray(640 * 360 * 3 // 2))
    picam2.deliver(bytearray(10))  # too short for the negotiated stream
    picam2.deliver(bytearray(640 * 360 * 3 // 2))
    assert len(seen) == 2
    assert picam2.out == set()
    assert caplog.text.count("Failed to process frame") == 3
    assert "a hook failed" in caplog.text


def test_rejected_control_on_release(caplog: pytest.LogCaptureFixture) -> None:
    opened = OpenedCamera()
    opened.picam2.deliver(bytearray(640 * 360 * 3 // 2))
    opened.picam2.release_error = TypeError("a rectangle has four numbers")
    opened.frames[0].release()
    assert "a rectangle has four numbers" in caplog.text
    opened.camera.close()  # it counts as released
    assert "not released" not in caplog.text


def test_release_errors_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    opened = OpenedCamera()
    for _ in range(2):
        opened.picam2.deliver(bytearray(640 * 360 * 3 // 2))
    opened.picam2.release_error = AssertionError("no request")
    for frame in opened.frames:
        frame.release()
    (logged,) = [record for record in caplog.records if "Failed to release request: no request" in record.message]
    assert logged.levelname == "WARNING"
    assert logged.exc_info
    opened.camera.close()
    assert "Frames not released in time" not in caplog.text


@pytest.mark.parametrize("call", [PicameraCamera.close, PicameraCamera.restart, lambda camera: camera.still(None)])
def test_waits_for_held_frames(call: Callable[[PicameraCamera], object]) -> None:
    opened = OpenedCamera()
    opened.picam2.on_start = opened.deliver_still
    frame = opened.deliver()
    thread = threading.Thread(target=call, args=(opened.camera,))
    thread.start()
    thread.join(0.1)
    assert thread.is_alive()
    assert opened.picam2.out_at == []
    frame.release()
    thread.join(PATIENCE_S)
    assert opened.picam2.out_at[0] == ("stop", 0)


def test_frame_never_released(caplog: pytest.LogCaptureFixture) -> None:
    opened = OpenedCamera(return_timeout_s=0.01)
    frame = opened.deliver()
    opened.camera.close()
    assert opened.picam2.steps[-1] == "close"
    assert "Frames not released in time: 1" in caplog.text
    frame.release()


def test_late_release_does_not_change_count(caplog: pytest.LogCaptureFixture) -> None:
    opened = OpenedCamera(return_timeout_s=0.01)
    late = opened.deliver()
    opened.camera.restart()  # does not wait for it any longer
    held = opened.deliver()
    late.release()
    caplog.clear()
    opened.camera.restart()
    assert "Frames not released in time: 1" in caplog.text
    held.release()


def test_no_frame_after_close() -> None:
    opened = OpenedCamera()
    opened.camera.close()
    opened.picam2.is_started = True  # a request that completes meanwhile
    opened.picam2.deliver(bytearray(640 * 360 * 3 // 2))
    assert opened.frames == []
    opened.camera.close()  # has no effect
    assert opened.picam2.steps.count("close") == 1


def test_no_references_after_close(fake: type[FakePicamera2]) -> None:
    camera = PicameraCamera(0, None, REQUEST)
    camera.open(lambda frame: frame.release())
    picam2 = fake.made[-1]
    gc.disable()  # the collector would find it some day; its descriptors must be closed at once
    try:
        camera.close()
        assert picam2() is None
    finally:
        gc.enable()
