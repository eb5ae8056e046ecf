"""The pattern camera from outside: its thread, its buffers, its pace and its faults."""

import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from softcam.camera.base import Camera, StreamConfig, StreamRequest
from softcam.camera.pattern.camera import PatternCamera
from softcam.camera.pattern.faults import KNOWN, Faults
from softcam.camera.pattern.stream import BUFFERS
from softcam.errors import CameraBusy, CameraError, CameraMissing, CameraStuck, NotSupported
from softcam.imaging.frame import Frame

WISH = StreamRequest(192, 108, 50)
DEADLINE_S = 20.0  # far beyond what is waited for on any machine; a test that reaches it has failed
SILENCE_S = 0.5  # so long without a frame, at 50 frames a second, is taken for a stream that stands


class StreamClient:
    """Takes frames; gives them back at once unless told to keep them."""

    def __init__(self, *, keeps: bool = False) -> None:
        self.changed = threading.Condition()
        self.keeps = keeps
        self.kept: list[Frame] = []
        self.seen: list[Frame] = []  # given back, but for their metadata and times
        self.threads: set[str] = set()

    def __call__(self, frame: Frame) -> None:
        with self.changed:
            self.threads.add(threading.current_thread().name)
            self.seen.append(frame)
            if self.keeps:
                self.kept.append(frame)
            self.changed.notify_all()
        if not self.keeps:
            frame.release()

    def wait(self, holds: Callable[[], bool]) -> None:
        with self.changed:
            assert self.changed.wait_for(holds, DEADLINE_S), f"waited in vain after {len(self.seen)} frames"

    def wait_frames(self, more: int) -> None:
        count = len(self.seen) + more
        self.wait(lambda: len(self.seen) >= count)

    def wait_for_metadata(self, name: str, value: Any) -> None:
        """Wait for a new frame whose metadata says so."""
        start = len(self.seen)
        self.wait(lambda: any(frame.metadata[name] == value for frame in self.seen[start:]))

    def has_silence(self) -> bool:
        with self.changed:
            count = len(self.seen)
            return not self.changed.wait_for(lambda: len(self.seen) > count, SILENCE_S)

    def wait_silence(self) -> None:
        end_s = time.monotonic() + DEADLINE_S
        while not self.has_silence():
            assert time.monotonic() < end_s, "frames did not stop"


class FaultsFile:
    def __init__(self, path: Path) -> None:
        self.path = path

    def order(self, *words: str) -> None:
        new = self.path.with_suffix(".new")
        new.write_text("".join(f"{word}\n" for word in words))
        new.replace(self.path)

    def clear(self) -> None:
        self.path.unlink()


@pytest.fixture
def faults(tmp_path: Path) -> FaultsFile:
    return FaultsFile(tmp_path / "faults")


@pytest.fixture
def camera(faults: FaultsFile) -> Iterator[PatternCamera]:
    camera = PatternCamera(WISH, faults_file=faults.path)
    yield camera
    faults.order()
    camera.close()


@pytest.fixture
def viewer() -> StreamClient:
    return StreamClient()


def pattern_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "pattern"]


def open_descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def in_thread(call: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    return thread


# Contract


def test_is_a_camera(camera, viewer):
    as_protocol: Camera = camera
    assert as_protocol.backend == "pattern"
    assert "imx708" in as_protocol.name
    mode = as_protocol.open(viewer)
    assert isinstance(mode, StreamConfig)
    assert (mode.width, mode.height, mode.pixel_format) == (192, 108, "YUV420")
    assert mode.sensor_size == (4608, 2592)
    assert mode.has_autofocus
    assert mode.properties["Model"] == "imx708"


@pytest.mark.parametrize(
    ("wanted", "given"),
    [((192, 108), (192, 108)), ((201, 101), (200, 100)), ((9999, 9999), (4608, 2592)), ((1, 1), (32, 32))],
)
def test_frames_have_the_negotiated_shape_and_padded_rows(wanted, given, faults):
    camera, viewer = PatternCamera(StreamRequest(*wanted, 30)), StreamClient(keeps=True)
    mode = camera.open(viewer)
    viewer.wait_frames(1)
    camera.close()
    frame = viewer.kept[0]
    width, height = given
    assert (mode.width, mode.height) == frame.size == given
    y, u, v = frame.planes
    assert y.shape == (height, width)
    assert u.shape == v.shape == (height // 2, width // 2)
    assert all(plane.dtype == np.uint8 and plane.strides[-1] == 1 for plane in frame.planes)
    assert y.strides[0] % 64 == 0
    assert y.std() > 5


def test_frames_come_from_a_thread_that_lives_while_the_camera_is_open(camera, viewer):
    assert not pattern_threads()
    camera.open(viewer)
    viewer.wait_frames(3)
    assert len(pattern_threads()) == 1
    camera.close()
    assert not pattern_threads()
    assert viewer.threads == {"pattern"}
    count = len(viewer.seen)
    assert viewer.has_silence()
    assert len(viewer.seen) == count
    camera.close()  # harmless


def test_metadata_is_complete_and_survives_the_frame(camera, viewer):
    camera.open(viewer)
    viewer.wait_frames(2)
    frame = viewer.seen[0]
    assert frame.planes == ()
    assert set(frame.metadata) >= {
        *("AeState", "AfPauseState", "AfState", "AnalogueGain", "ColourGains", "ColourTemperature", "DigitalGain"),
        *("ExposureTime", "FocusFoM", "FrameDuration", "LensPosition", "Lux", "ScalerCrop", "SensorBlackLevels"),
        *("SensorTemperature", "SensorTimestamp"),
    }
    assert frame.metadata["SensorTimestamp"] == round(frame.began_s * 1e9)


def test_fifty_rounds_leak_nothing(camera, viewer):
    descriptors = open_descriptors()
    for _ in range(50):
        camera.open(viewer)
        viewer.wait_frames(1)
        camera.close()
    assert not pattern_threads()
    assert open_descriptors() == descriptors


def test_open_twice_is_refused(camera, viewer):
    camera.open(viewer)
    with pytest.raises(CameraError, match="open"):
        camera.open(viewer)


def test_a_viewer_that_raises_ends_the_frames_and_not_the_camera(camera, viewer, caplog):
    def fall(frame: Frame) -> None:
        raise ValueError("no legs")

    camera.open(fall)
    pattern_threads()[0].join(DEADLINE_S)
    assert "broke" in caplog.text
    camera.close()
    camera.open(viewer)
    viewer.wait_frames(1)


def test_close_does_not_wait_for_ever(camera, monkeypatch):
    monkeypatch.setattr("softcam.camera.pattern.stream._STOP_WAIT_S", 0.2)
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
    monkeypatch.setattr("softcam.camera.pattern.stream._STOP_WAIT_S", DEADLINE_S)
    camera.close()
    assert not pattern_threads()


# Pace


def test_frames_begin_whole_durations_apart(camera, viewer):
    camera.open(viewer)
    viewer.wait_frames(60)
    frames = viewer.seen[:60]
    assert [frame.sequence for frame in frames] == list(range(60))
    steps = [(b.began_s - a.began_s) / 0.02 for a, b in itertools.pairwise(frames)]
    assert all(abs(step - round(step)) < 0.01 and step > 0.5 for step in steps)
    assert np.median(steps) == pytest.approx(1, abs=0.01)


def test_no_burst_after_a_stall(camera):
    stalled, go_on = threading.Event(), threading.Event()
    arrivals: list[float] = []
    done = threading.Event()

    def stall_once(frame: Frame) -> None:
        arrivals.append(frame.began_s)
        frame.release()
        if len(arrivals) == 5:
            stalled.set()
            go_on.wait(DEADLINE_S)
        if len(arrivals) == 15:
            done.set()

    camera.open(stall_once)
    assert stalled.wait(DEADLINE_S)
    threading.Event().wait(0.3)  # the stall itself: fifteen frame durations
    go_on.set()
    assert done.wait(DEADLINE_S)
    assert arrivals[5] - arrivals[4] > 0.25
    assert all(b - a > 0.019 for a, b in itertools.pairwise(arrivals))


def test_a_long_exposure_slows_the_frames(camera, viewer):
    camera.open(viewer)
    camera.set_controls({"FrameDurationLimits": (20_000, 1_000_000), "ExposureTime": 200_000})
    viewer.wait_for_metadata("ExposureTime", 200_000)
    viewer.wait_frames(2)
    before, last = viewer.seen[-2:]
    assert last.began_s - before.began_s > 0.19
    assert last.metadata["FrameDuration"] >= 200_000


# Buffers


def test_frames_stop_when_no_buffer_is_given_back_and_go_on_when_one_is(camera):
    viewer = StreamClient(keeps=True)
    camera.open(viewer)
    viewer.wait(lambda: len(viewer.seen) == BUFFERS)
    assert viewer.has_silence()
    assert len({frame.planes[0].ctypes.data for frame in viewer.kept}) == BUFFERS
    first = viewer.kept[0].planes[0].ctypes.data
    viewer.kept[0].release()
    viewer.wait(lambda: len(viewer.seen) == BUFFERS + 1)
    assert viewer.has_silence()
    assert viewer.kept[-1].planes[0].ctypes.data == first
    assert viewer.kept[-1].began_s - viewer.kept[-2].began_s > SILENCE_S  # it is a new picture
    viewer.keeps = False
    for frame in viewer.kept[1:]:
        frame.release()
    viewer.wait_frames(10)


def test_a_frame_keeps_its_picture_until_it_is_released(camera):
    viewer = StreamClient(keeps=True)
    camera.open(viewer)
    viewer.wait(lambda: len(viewer.kept) >= 2)
    kept = viewer.kept[0]
    before = kept.planes[0].copy()
    viewer.wait(lambda: len(viewer.kept) == BUFFERS)
    assert np.array_equal(kept.planes[0], before)


def test_buffers_may_come_back_after_the_close(camera):
    viewer = StreamClient(keeps=True)
    camera.open(viewer)
    viewer.wait(lambda: len(viewer.kept) == BUFFERS)
    camera.close()
    for frame in viewer.kept:
        frame.release()
    other = StreamClient()
    camera.open(other)
    other.wait_frames(BUFFERS + 1)


# Controls


def test_controls_take_effect_two_frames_later(camera):
    exposures: list[int] = []
    done = threading.Event()

    def order_at_the_fifth(frame: Frame) -> None:
        exposures.append(frame.metadata["ExposureTime"])
        frame.release()
        if len(exposures) == 5:
            camera.set_controls({"ExposureTime": 777, "AnalogueGain": 2.0})
        if len(exposures) == 8:
            done.set()

    camera.open(order_at_the_fifth)
    assert done.wait(DEADLINE_S)
    assert 777 not in exposures[:6]
    assert exposures[6:8] == [777, 777]


def test_an_unknown_control_is_named_and_nothing_is_applied(camera, viewer):
    camera.open(viewer)
    with pytest.raises(NotSupported, match="Zoom"):
        camera.set_controls({"ExposureTime": 777, "Zoom": 2})
    viewer.wait_frames(5)
    assert all(frame.metadata["ExposureTime"] != 777 for frame in viewer.seen)


def test_controls_do_nothing_while_closed(camera, viewer):
    camera.set_controls({"ExposureTime": 777})
    camera.open(viewer)
    viewer.wait_frames(5)
    assert all(frame.metadata["ExposureTime"] != 777 for frame in viewer.seen)


def test_what_is_told_once_it_is_configured_counts_from_the_first_frame(camera, viewer):
    camera.open(viewer, lambda mode: camera.set_controls({"ExposureTime": 777}))
    viewer.wait_frames(2)
    assert viewer.seen[0].metadata["ExposureTime"] == 777


# Stills and restarts


def test_the_controls_of_a_still_follow_from_its_own_size(camera, viewer):
    camera.open(viewer)
    camera.set_controls({"ScalerCrop": (0, 0, 400, 225)})
    asked = []

    def controls_for(ranges, size):
        asked.append((ranges["ScalerCrop"][1], size))
        return {"ScalerCrop": (0, 0, 1200, 900)}

    still = camera.still((800, 600), controls_for)
    assert asked == [((0, 0, 4608, 2592), (800, 600))]
    assert still.metadata["ScalerCrop"] == (0, 0, 1200, 900)
    viewer.wait_for_metadata("ScalerCrop", (0, 0, 400, 225))


@pytest.mark.parametrize(("size", "given"), [((640, 360), (640, 360)), ((641, 99_999), (640, 2592))])
def test_a_still_has_its_size_and_its_own_memory(camera, viewer, size, given):
    camera.open(viewer)
    viewer.wait_frames(2)
    asked_s = time.monotonic()
    still = camera.still(size)
    assert still.began_s >= asked_s
    assert still.size == given
    viewer.wait_frames(BUFFERS + 2)  # the stream goes on
    assert still.planes[0].shape == given[::-1]
    assert still.planes[0].std() > 5
    assert still.metadata["ExposureTime"] > 0
    still.release()


def test_a_still_of_the_whole_sensor(camera, viewer):
    camera.open(viewer)
    still = camera.still(None)
    assert still.size == (4608, 2592)


def test_a_still_comes_although_buffers_are_held_and_exposures_are_long(camera):
    viewer = StreamClient(keeps=True)
    camera.open(viewer)
    viewer.wait(lambda: len(viewer.kept) == BUFFERS)
    assert camera.still((64, 64)).size == (64, 64)


def test_a_still_of_a_closed_camera_is_an_error(camera):
    with pytest.raises(CameraError, match="closed"):
        camera.still(None)


def test_a_still_of_a_camera_that_hangs_is_an_error(camera, viewer, faults, monkeypatch):
    monkeypatch.setattr("softcam.camera.pattern.stream._STILL_WAIT_S", 0.2)
    camera.open(viewer)
    faults.order("hang")
    viewer.wait_silence()
    with pytest.raises(CameraError, match="still"):
        camera.still((64, 64))


def test_restart_keeps_controls_and_thread_count(camera, viewer):
    camera.open(viewer)
    camera.set_controls({"ExposureTime": 777})
    viewer.wait_for_metadata("ExposureTime", 777)
    camera.restart()
    viewer.wait_frames(3)
    assert viewer.seen[-1].metadata["ExposureTime"] == 777
    assert len(pattern_threads()) == 1
    sequences = [frame.sequence for frame in viewer.seen]
    assert sequences == list(range(len(sequences)))


def test_restart_of_a_closed_camera_is_an_error(camera):
    with pytest.raises(CameraError, match="closed"):
        camera.restart()


# Faults


def test_hang_stops_the_frames_while_it_stands(camera, viewer, faults):
    camera.open(viewer)
    viewer.wait_frames(1)
    faults.order("hang")
    viewer.wait_silence()
    camera.restart()
    assert viewer.has_silence()
    faults.clear()
    viewer.wait_frames(3)


@pytest.mark.parametrize("way_out", ["restart", "reopen"])
def test_hang_once_is_healed(camera, viewer, faults, way_out):
    faults.order("hang-once")
    camera.open(viewer)
    assert viewer.has_silence()
    if way_out == "restart":
        camera.restart()
    else:
        camera.close()
        camera.open(viewer)
    viewer.wait_frames(20)  # although the word still stands


def test_hang_once_counts_again_when_it_was_away(camera, viewer, faults):
    faults.order("hang-once")
    camera.open(viewer)
    assert viewer.has_silence()
    camera.restart()
    faults.clear()
    start = time.monotonic()
    viewer.wait(lambda: time.monotonic() - start > SILENCE_S)
    faults.order("hang-once")
    viewer.wait_silence()


@pytest.mark.parametrize(
    ("word", "call"),
    [
        ("hang-open", "open"),
        ("hang-stop", "restart"),
        ("hang-stop", "close"),
        ("hang-close", "close"),
        ("hang-still", "still"),
    ],
)
def test_a_call_hangs_while_its_word_stands(camera, viewer, faults, word, call):
    calls: dict[str, Callable[[], object]] = {
        "open": lambda: camera.open(viewer),
        "restart": camera.restart,
        "close": camera.close,
        "still": lambda: camera.still((64, 64)),
    }
    if call != "open":
        camera.open(viewer)
    faults.order(word)
    thread = in_thread(calls[call])
    thread.join(0.3)
    assert thread.is_alive()
    faults.clear()
    thread.join(DEADLINE_S)
    assert not thread.is_alive()


def test_missing(camera, viewer, faults):
    assert camera.is_present()
    camera.open(viewer)
    viewer.wait_frames(1)
    faults.order("missing")
    assert not camera.is_present()
    viewer.wait_silence()
    with pytest.raises(CameraMissing):
        camera.restart()
    camera.close()
    with pytest.raises(CameraMissing):
        camera.open(viewer)
    assert not pattern_threads()
    faults.clear()
    assert camera.is_present()
    camera.open(viewer)
    viewer.wait_frames(1)


def test_busy(camera, viewer, faults):
    faults.order("busy")
    assert camera.is_present()
    with pytest.raises(CameraBusy):
        camera.open(viewer)
    faults.clear()
    camera.open(viewer)
    viewer.wait_frames(1)


def test_fail_restart(camera, viewer, faults):
    camera.open(viewer)
    viewer.wait_frames(1)
    faults.order("fail-restart")
    with pytest.raises(CameraError, match="start again"):
        camera.restart()
    assert viewer.has_silence()
    camera.close()
    camera.open(viewer)  # opening anew is another matter
    viewer.wait_frames(1)


@pytest.mark.parametrize(("word", "state"), [("no-focus", 3), ("near", 2), ("dark", 2)])
def test_autofocus_ends_as_the_scene_lets_it(camera, viewer, faults, word, state):
    faults.order(word)
    camera.open(viewer)
    camera.set_controls({"AfMode": 1, "AfTrigger": 0})
    viewer.wait_for_metadata("AfState", 1)
    viewer.wait_for_metadata("AfState", state)


def test_endless_focus_scans_until_the_word_is_gone(camera, viewer, faults):
    faults.order("endless-focus")
    camera.open(viewer)
    camera.set_controls({"AfMode": 1, "AfTrigger": 0})
    viewer.wait_for_metadata("AfState", 1)
    start = len(viewer.seen)
    viewer.wait_frames(60)
    assert {frame.metadata["AfState"] for frame in viewer.seen[start:]} == {1}
    faults.clear()
    viewer.wait_for_metadata("AfState", 2)


def test_dark_is_metered(camera, viewer, faults):
    camera.open(viewer)
    faults.order("dark")
    viewer.wait_for_metadata("Lux", 1.0)


def test_unknown_words_are_told_once_and_the_others_count(faults, caplog):
    faults.order("hnag", "busy")
    asked = Faults(faults.path)
    with caplog.at_level(logging.ERROR):
        assert asked.words() == asked.words() == {"busy"}
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert "hnag" in caplog.text


def test_a_faults_file_that_cannot_be_read_orders_nothing(tmp_path):
    assert Faults(None).words() == frozenset()
    assert Faults(tmp_path / "absent").words() == frozenset()
    assert Faults(tmp_path).words() == frozenset()  # a directory


def test_several_faults_may_stand_at_once(faults):
    faults.order(*KNOWN)
    assert Faults(faults.path).words() == KNOWN
