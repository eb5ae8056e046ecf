"""An error that is kept, or passed to another thread, does not keep the frames of where it was raised."""

import logging
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from softcam.camera.base import OnConfigured, OnFrame, RawStill, StillControls, StreamConfig, ignore_config, no_controls
from softcam.camera.picamera.still import Still
from softcam.errors import CameraError, NoPicture, without_stack
from softcam.h264.bitrate import fixed_bitrate
from softcam.imaging import jpeg
from softcam.imaging.frame import Frame, NewestFrame
from softcam.imaging.snapshot import Snapshot
from softcam.recording.library import Library
from softcam.recording.timelapse import TimelapseOptions, TimelapseRecorder
from softcam.streaming.jpeg_encoder import JpegEncoderPool
from tests.support.background import eventually, soon, soon_s
from tests.support.control_scene import ControllableCamera, ControlScene
from tests.support.cycles import without_collector
from tests.support.fakes import SessionRig, make_frame


def fail_with_a_frame(text: str = "no image") -> Any:
    """Raise an error from where there is a large image."""
    image = np.zeros((1000, 1000), np.uint8)
    try:
        raise OSError(text)
    except OSError as error:
        raise CameraError(f"{text}, {image.size} pixels") from error


class FailingCamera(ControllableCamera):
    is_failing = False

    def still(self, size: tuple[int, int] | None, controls_for: StillControls = no_controls) -> Frame:
        frame: Frame = fail_with_a_frame()
        return frame

    def open(self, on_frame: OnFrame, on_configured: OnConfigured = ignore_config) -> StreamConfig:
        if self.is_failing:
            self.is_failing = False
            fail_with_a_frame()
        return super().open(on_frame, on_configured)


@pytest.fixture
def large_in_cycles(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], list[str]]]:
    caplog.set_level(logging.CRITICAL, "softcam")  # pytest keeps the arguments of what is logged
    with without_collector() as large:
        yield large


def test_failed_still(large_in_cycles: Callable[[], list[str]]) -> None:
    with SessionRig(FailingCamera(), linger_s=0.0) as held, held.open():
        for _ in range(2):  # the camera's thread may keep the last job
            with pytest.raises(CameraError, match="no image"):
                held.manager.still(None, soon_s())
        assert large_in_cycles() == []


def test_raw_still_is_not_kept(large_in_cycles: Callable[[], list[str]]) -> None:
    class Tracked(RawStill):
        """One without slots, which can be watched."""

    camera, stills = ControllableCamera(), list[weakref.ref[RawStill]]()

    def raw_still() -> RawStill:
        still = Tracked(b"a raw picture", 0.0)
        stills.append(weakref.ref(still))
        return still

    with pytest.MonkeyPatch.context() as patch, SessionRig(camera, linger_s=0.0) as held, held.open():
        patch.setattr(camera, "raw_still", raw_still)
        assert held.manager.raw_still(soon_s()).dng == b"a raw picture"
        eventually(lambda: stills[0]() is None, "the end of the still, with an open camera")
        assert large_in_cycles() == []


def test_refused_reopening(tmp_path: Path, large_in_cycles: Callable[[], list[str]]) -> None:
    camera = FailingCamera()
    scene = ControlScene(tmp_path, camera=camera)
    with scene.held, scene.held.open():
        for _ in range(2):
            camera.is_failing = True
            with pytest.raises(CameraError, match="no image"):
                scene.change("transform", hflip=True)
        assert large_in_cycles() == []


def test_failed_snapshot(monkeypatch: pytest.MonkeyPatch, large_in_cycles: Callable[[], list[str]]) -> None:
    monkeypatch.setattr(jpeg, "encode", lambda *_, **__: fail_with_a_frame())
    pool = JpegEncoderPool(NewestFrame(), (640, 360))
    frame = make_frame(size=(1280, 720))
    with pytest.raises(CameraError, match="no image"):
        pool.snapshot(frame, (640, 640), 80)
    frame.release()
    del frame
    assert large_in_cycles() == []
    pool.stop(soon())


def test_failed_still_of_a_time_lapse(tmp_path: Path, large_in_cycles: Callable[[], list[str]]) -> None:
    crashes = list[str]()

    def take(_full_sensor: bool) -> Snapshot:
        snapshot: Snapshot = fail_with_a_frame()
        return snapshot

    recorder = TimelapseRecorder(Library(tmp_path, None), take, fixed_bitrate(10**6), crashes.append, lambda: 1)
    recorder.start(TimelapseOptions(interval_s=0.5))
    eventually(lambda: (status := recorder.running) is None or status.failures >= 2, "two failures")
    recorder.stop()
    assert large_in_cycles() == []


def test_still_of_picamera2_that_cannot_be_read(large_in_cycles: Callable[[], list[str]]) -> None:
    still: Still[object] = Still({}, (2, 2), lambda request, _config: fail_with_a_frame(request))
    still.process_request({}, "no image")
    with pytest.raises(CameraError, match="no image"):
        still.future.result()
    del still
    assert large_in_cycles() == []


def test_messages_of_the_causes_remain() -> None:
    with pytest.raises(CameraError) as caught:
        fail_with_a_frame()
    error = NoPicture("outer")
    error.__cause__ = caught.value
    assert without_stack(error) is error
    assert [str(error), str(error.__cause__), str((error.__cause__ or error).__cause__)] == [
        "outer",
        "no image, 1000000 pixels",
        "no image",
    ]
    assert error.__traceback__ is None
    assert (error.__cause__ or error).__traceback__ is None
