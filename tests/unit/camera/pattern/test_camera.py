"""The pattern camera's protocol: opening and closing, controls, stills and restarts."""

import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from softcam.camera.base import Camera, StreamConfig, StreamRequest
from softcam.camera.pattern.camera import PatternCamera
from softcam.camera.pattern.stream import BUFFERS
from softcam.errors import CameraError, CameraStuck, NotSupported
from softcam.imaging.frame import Frame
from tests.support.pattern_client import DEADLINE_S, FaultsFile, FrameCollector, pattern_threads

REQUEST = StreamRequest(192, 108, 50)


def open_descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_protocol(camera: PatternCamera, collector: FrameCollector) -> None:
    as_protocol: Camera = camera
    assert as_protocol.backend == "pattern"
    assert "imx708" in as_protocol.name
    config = as_protocol.open(collector)
    assert isinstance(config, StreamConfig)
    assert (config.width, config.height, config.pixel_format) == (192, 108, "YUV420")
    assert config.sensor_size == (4608, 2592)
    assert config.has_autofocus
    assert config.properties["Model"] == "imx708"


@pytest.mark.parametrize(
    ("wanted", "given"),
    [((192, 108), (192, 108)), ((201, 101), (200, 100)), ((9999, 9999), (4608, 2592)), ((1, 1), (32, 32))],
)
def test_frame_shape_and_stride(wanted: tuple[int, int], given: tuple[int, int], faults: FaultsFile) -> None:
    camera, collector = PatternCamera(StreamRequest(*wanted, 30)), FrameCollector(keeps=True)
    config = camera.open(collector)
    collector.wait_frames(1)
    camera.close()
    frame = collector.kept[0]
    width, height = given
    assert (config.width, config.height) == frame.size == given
    y, u, v = frame.planes
    assert y.shape == (height, width)
    assert u.shape == v.shape == (height // 2, width // 2)
    assert all(plane.dtype == np.uint8 and plane.strides[-1] == 1 for plane in frame.planes)
    assert y.strides[0] % 64 == 0
    assert y.std() > 5


def test_thread_runs_while_camera_is_open(camera: PatternCamera, collector: FrameCollector) -> None:
    assert not pattern_threads()
    camera.open(collector)
    collector.wait_frames(3)
    assert len(pattern_threads()) == 1
    camera.close()
    assert not pattern_threads()
    assert collector.threads == {"pattern"}
    count = len(collector.seen)
    assert collector.is_silent()
    assert len(collector.seen) == count
    camera.close()  # has no effect


def test_metadata_after_release(camera: PatternCamera, collector: FrameCollector) -> None:
    camera.open(collector)
    collector.wait_frames(2)
    frame = collector.seen[0]
    assert frame.planes == ()
    assert set(frame.metadata) >= {
        *("AeState", "AfPauseState", "AfState", "AnalogueGain", "ColourGains", "ColourTemperature", "DigitalGain"),
        *("ExposureTime", "FocusFoM", "FrameDuration", "LensPosition", "Lux", "ScalerCrop", "SensorBlackLevels"),
        *("SensorTemperature", "SensorTimestamp"),
    }
    assert frame.metadata["SensorTimestamp"] == round(frame.began_s * 1e9)


def test_no_leak_after_fifty_cycles(camera: PatternCamera, collector: FrameCollector) -> None:
    descriptors = open_descriptors()
    for _ in range(50):
        camera.open(collector)
        collector.wait_frames(1)
        camera.close()
    assert not pattern_threads()
    assert open_descriptors() == descriptors


def test_second_open_is_an_error(camera: PatternCamera, collector: FrameCollector) -> None:
    camera.open(collector)
    with pytest.raises(CameraError, match="open"):
        camera.open(collector)


def test_exception_in_on_frame(
    camera: PatternCamera, collector: FrameCollector, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(frame: Frame) -> None:
        raise ValueError("a bug")

    camera.open(fail)
    for thread in pattern_threads():
        thread.join(DEADLINE_S)
    assert "Pattern camera failed" in caplog.text
    camera.close()
    camera.open(collector)
    collector.wait_frames(1)


def test_close_with_blocked_on_frame() -> None:
    camera = PatternCamera(REQUEST, stop_timeout_s=0.2)
    entered, leave = threading.Event(), threading.Event()

    def block(frame: Frame) -> None:
        entered.set()
        leave.wait(DEADLINE_S)
        frame.release()

    camera.open(block)
    assert entered.wait(DEADLINE_S)
    with pytest.raises(CameraStuck):
        camera.close()
    leave.set()
    for thread in pattern_threads():
        thread.join(DEADLINE_S)
    camera.close()
    assert not pattern_threads()


def test_control_delay(camera: PatternCamera) -> None:
    exposures: list[int] = []
    done = threading.Event()

    def send_at_the_fifth(frame: Frame) -> None:
        exposures.append(frame.metadata["ExposureTime"])
        frame.release()
        if len(exposures) == 5:
            camera.set_controls({"ExposureTime": 777, "AnalogueGain": 2.0})
        if len(exposures) == 8:
            done.set()

    camera.open(send_at_the_fifth)
    assert done.wait(DEADLINE_S)
    assert 777 not in exposures[:6]
    assert exposures[6:8] == [777, 777]


def test_unknown_control_is_not_supported(camera: PatternCamera, collector: FrameCollector) -> None:
    camera.open(collector)
    with pytest.raises(NotSupported, match="Zoom"):
        camera.set_controls({"ExposureTime": 777, "Zoom": 2})
    collector.wait_frames(5)
    assert all(frame.metadata["ExposureTime"] != 777 for frame in collector.seen)


def test_controls_ignored_while_closed(camera: PatternCamera, collector: FrameCollector) -> None:
    camera.set_controls({"ExposureTime": 777})
    camera.open(collector)
    collector.wait_frames(5)
    assert all(frame.metadata["ExposureTime"] != 777 for frame in collector.seen)


def test_controls_sent_in_on_configured(camera: PatternCamera, collector: FrameCollector) -> None:
    camera.open(collector, lambda config: camera.set_controls({"ExposureTime": 777}))
    collector.wait_frames(2)
    assert collector.seen[0].metadata["ExposureTime"] == 777


def test_still_controls(camera: PatternCamera, collector: FrameCollector) -> None:
    camera.open(collector)
    camera.set_controls({"ScalerCrop": (0, 0, 400, 225)})
    calls: list[tuple[Any, Any]] = []

    def controls_for(ranges: Mapping[str, Any], size: tuple[int, int]) -> Mapping[str, Any]:
        calls.append((ranges["ScalerCrop"][1], size))
        return {"ScalerCrop": (0, 0, 1200, 900)}

    still = camera.still((800, 600), controls_for)
    assert calls == [((0, 0, 4608, 2592), (800, 600))]
    assert still.metadata["ScalerCrop"] == (0, 0, 1200, 900)
    collector.wait_for_metadata("ScalerCrop", (0, 0, 400, 225))


@pytest.mark.parametrize(("size", "given"), [((640, 360), (640, 360)), ((641, 99_999), (640, 2592))])
def test_still_size_and_memory(
    camera: PatternCamera, collector: FrameCollector, size: tuple[int, int], given: tuple[int, int]
) -> None:
    camera.open(collector)
    collector.wait_frames(2)
    requested_s = time.monotonic()
    still = camera.still(size)
    assert still.began_s >= requested_s
    assert still.size == given
    collector.wait_frames(BUFFERS + 2)  # the stream continues
    assert still.planes[0].shape == given[::-1]
    assert still.planes[0].std() > 5
    assert still.metadata["ExposureTime"] > 0
    still.release()


def test_still_of_whole_sensor(camera: PatternCamera, collector: FrameCollector) -> None:
    camera.open(collector)
    still = camera.still(None)
    assert still.size == (4608, 2592)


def test_still_while_all_buffers_are_held(camera: PatternCamera) -> None:
    collector = FrameCollector(keeps=True)
    camera.open(collector)
    collector.wait(lambda: len(collector.kept) == BUFFERS)
    assert camera.still((64, 64)).size == (64, 64)


def test_still_while_closed_is_an_error(camera: PatternCamera) -> None:
    with pytest.raises(CameraError, match="closed"):
        camera.still(None)


def test_still_while_hanging_times_out(collector: FrameCollector, faults: FaultsFile) -> None:
    camera = PatternCamera(REQUEST, faults_file=faults.path, still_timeout_s=0.2)
    camera.open(collector)
    faults.inject("hang")
    collector.wait_silence()
    with pytest.raises(CameraError, match="still"):
        camera.still((64, 64))
    camera.close()


def test_restart(camera: PatternCamera, collector: FrameCollector) -> None:
    camera.open(collector)
    camera.set_controls({"ExposureTime": 777})
    collector.wait_for_metadata("ExposureTime", 777)
    camera.restart()
    collector.wait_frames(3)
    assert collector.seen[-1].metadata["ExposureTime"] == 777
    assert len(pattern_threads()) == 1
    sequences = [frame.sequence for frame in collector.seen]
    assert sequences == list(range(len(sequences)))


def test_restart_while_closed_is_an_error(camera: PatternCamera) -> None:
    with pytest.raises(CameraError, match="closed"):
        camera.restart()


def test_no_raw_still(camera: PatternCamera, collector: FrameCollector) -> None:
    assert not camera.open(collector).has_raw
    with pytest.raises(NotSupported, match="raw"):
        camera.raw_still()
