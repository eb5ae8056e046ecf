"""The pattern camera's stream: its frame rate and its buffers."""

import itertools
import threading

import numpy as np
import pytest

from softcam.camera.pattern.camera import PatternCamera
from softcam.camera.pattern.stream import BUFFERS
from softcam.imaging.frame import Frame
from tests.support.pattern_client import DEADLINE_S, SILENCE_S, FrameCollector


def test_frame_interval(camera: PatternCamera, collector: FrameCollector) -> None:
    camera.open(collector)
    collector.wait_frames(60)
    frames = collector.seen[:60]
    assert [frame.sequence for frame in frames] == list(range(60))
    steps = [(b.began_s - a.began_s) / 0.02 for a, b in itertools.pairwise(frames)]
    assert all(abs(step - round(step)) < 0.01 and step > 0.5 for step in steps)
    assert np.median(steps) == pytest.approx(1, abs=0.01)


def test_no_burst_after_stall(camera: PatternCamera) -> None:
    stalled, resume = threading.Event(), threading.Event()
    arrivals: list[float] = []
    done = threading.Event()

    def stall_once(frame: Frame) -> None:
        arrivals.append(frame.began_s)
        frame.release()
        if len(arrivals) == 5:
            stalled.set()
            resume.wait(DEADLINE_S)
        if len(arrivals) == 15:
            done.set()

    camera.open(stall_once)
    assert stalled.wait(DEADLINE_S)
    threading.Event().wait(0.3)  # the stall itself: fifteen frame durations
    resume.set()
    assert done.wait(DEADLINE_S)
    assert arrivals[5] - arrivals[4] > 0.25
    assert all(b - a > 0.019 for a, b in itertools.pairwise(arrivals))


def test_long_exposure_lowers_frame_rate(camera: PatternCamera, collector: FrameCollector) -> None:
    camera.open(collector)
    camera.set_controls({"FrameDurationLimits": (20_000, 1_000_000), "ExposureTime": 200_000})
    collector.wait_for_metadata("ExposureTime", 200_000)
    collector.wait_frames(2)
    before, last = collector.seen[-2:]
    assert last.began_s - before.began_s > 0.19
    assert last.metadata["FrameDuration"] >= 200_000


def test_frames_stop_without_free_buffer(camera: PatternCamera) -> None:
    collector = FrameCollector(keeps=True)
    camera.open(collector)
    collector.wait(lambda: len(collector.seen) == BUFFERS)
    assert collector.is_silent()
    assert len({frame.planes[0].ctypes.data for frame in collector.kept}) == BUFFERS
    first = collector.kept[0].planes[0].ctypes.data
    collector.kept[0].release()
    collector.wait(lambda: len(collector.seen) == BUFFERS + 1)
    assert collector.is_silent()
    assert collector.kept[-1].planes[0].ctypes.data == first
    assert collector.kept[-1].began_s - collector.kept[-2].began_s > SILENCE_S  # it was captured after the release
    collector.keeps = False
    for frame in collector.kept[1:]:
        frame.release()
    collector.wait_frames(10)


def test_held_frame_does_not_change(camera: PatternCamera) -> None:
    collector = FrameCollector(keeps=True)
    camera.open(collector)
    collector.wait(lambda: len(collector.kept) >= 2)
    kept = collector.kept[0]
    before = kept.planes[0].copy()
    collector.wait(lambda: len(collector.kept) == BUFFERS)
    assert np.array_equal(kept.planes[0], before)


def test_release_after_close(camera: PatternCamera) -> None:
    collector = FrameCollector(keeps=True)
    camera.open(collector)
    collector.wait(lambda: len(collector.kept) == BUFFERS)
    camera.close()
    for frame in collector.kept:
        frame.release()
    other = FrameCollector()
    camera.open(other)
    other.wait_frames(BUFFERS + 1)
