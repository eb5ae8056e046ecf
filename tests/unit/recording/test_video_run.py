"""The progress of a video recording."""

import math
from pathlib import Path

import pytest

from softcam.h264.packet import Packet
from softcam.recording.library import Library
from softcam.recording.video_file import VideoFile
from softcam.recording.video_run import RecordingOptions, VideoRun
from tests.support.recordings import packets


def packet(began_s: float) -> Packet:
    return Packet(b"1234", is_keyframe=True, began_s=began_s, timestamp_s=began_s)


@pytest.mark.parametrize(
    ("begun", "following_s", "shown_s"),
    [
        ([10.0, 10.2], None, 0.2),  # as the one before it
        ([10.0, 14.0], None, 1.0),  # until more is known
        ([10.0, 10.2], 13.2, 3.0),
        ([10.0, 10.2], 30.0, 0.2),  # the next one begins another file
    ],
)
def test_duration_of_the_last_packet(begun: list[float], following_s: float | None, shown_s: float) -> None:
    run = VideoRun(RecordingOptions(), None)
    following = None if following_s is None else packet(following_s)
    duration_s = run.begin_fragment([packet(each) for each in begun], following, 25.0)
    assert duration_s == pytest.approx(shown_s)
    assert run.last_s == begun[-1]
    assert run.needed_bytes == 80


def test_file(tmp_path: Path) -> None:
    fmt, taken = packets(10)
    run = VideoRun(RecordingOptions(), None)
    assert not run.close_file()
    file = VideoFile(Library(tmp_path, None), fmt, taken[0], 1)
    run.open_file(file)
    run.begin_fragment(taken, None, fmt.fps)
    file.add_fragment(taken, 0.1)
    run.count_fragment(file.size, file, run.origin.started_s + 2.0)
    run.count_file(file.name)
    assert run.recorded_s == pytest.approx(2.0 - max(0.0, file.zero_s - run.origin.started_s))
    assert (run.size, run.segments, run.needed_bytes, run.shown_name) == (file.size, 1, 0, file.name)
    run.suspend()
    assert run.shown_name is None
    assert run.close_file()
    assert run.file is None


def test_pause_before_the_next_file() -> None:
    run = VideoRun(RecordingOptions(), None)
    assert run.may_begin_file
    run.retry_later(math.inf)
    assert not run.may_begin_file


def test_only_the_first_stop_may_interrupt() -> None:
    run = VideoRun(RecordingOptions(), None)
    run.request_stop(is_interrupted=False)
    run.request_stop(is_interrupted=True)
    assert (run.is_stopping, run.is_interrupted) == (True, False)
