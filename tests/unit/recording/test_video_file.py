"""A file of a video recording: when it is complete, and how much of it is synced."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from softcam.h264.packet import Packet
from softcam.recording.library import Library
from softcam.recording.video_file import VideoFile
from tests.support.recordings import packets


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[tuple[VideoFile, list[Packet]]]:
    fmt, taken = packets(20)
    file = VideoFile(Library(folder, None), fmt, taken[0], 1)
    try:
        yield file, taken
    finally:
        file.close()


@pytest.mark.parametrize(
    ("later_s", "clock_step_s", "max_bytes", "orientation", "is_complete"),
    [
        (9.9, 0.0, 1 << 20, 1, False),
        (10.0, 0.0, 1 << 20, 1, True),
        (5.0, 1.9, 1 << 20, 1, False),
        (5.0, 2.1, 1 << 20, 1, True),
        (5.0, -2.1, 1 << 20, 1, True),
        (5.0, 0.0, 1, 1, True),
        (5.0, 0.0, 1 << 20, 3, True),
    ],
)
def test_complete(
    tmp_path: Path, later_s: float, clock_step_s: float, max_bytes: int, orientation: int, *, is_complete: bool
) -> None:
    with opened(tmp_path) as (file, (first, *_)):
        timestamp_s = first.timestamp_s + later_s + clock_step_s
        following = replace(first, began_s=first.began_s + later_s, timestamp_s=timestamp_s)
        assert file.is_complete(following, 10.0, max_bytes, orientation) == is_complete


def test_one_keyframe_for_the_next_file(tmp_path: Path) -> None:
    requests = []
    with opened(tmp_path) as (file, _):
        file.request_cut(lambda: requests.append(1))
        file.request_cut(lambda: requests.append(2))
    assert requests == [1]


def test_growth_since_the_last_sync(tmp_path: Path) -> None:
    with opened(tmp_path) as (file, taken):
        assert file.sync_growth() == file.size
        size = file.size
        file.add_fragment(taken, 0.1)
        assert file.sync_growth() == file.size - size > 0
        assert file.sync_growth() == 0
        assert (file.is_sync_due(0.0), file.is_sync_due(60.0)) == (True, False)
