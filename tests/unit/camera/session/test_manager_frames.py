"""`CameraManager`: callers wait for frames, and every frame is released."""

import math
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import pytest

from softcam.camera.session.manager import State
from softcam.camera.session.sent_controls import CONTROL_FRAMES
from softcam.errors import NoPicture
from tests.support.background import Background, ReadDeadline, eventually, soon_s
from tests.support.fakes import STEADY, FakeCamera, SessionRig

# Waiting


def test_wait_ready_until_the_first_frame(held: SessionRig) -> None:
    lease = held.manager.lease("stream")
    held.wait_for(State.OPEN)
    waiting = [Background.waiting(held.manager.wait_ready) for _ in range(2)]
    held.camera.emit()
    assert [background.result() for background in waiting] == [held.camera.config] * 2
    lease.release()


def test_frame_before_open_returns(held: SessionRig) -> None:
    held.camera.block("open")
    lease = held.manager.lease("stream")
    held.camera.wait_inside("open")
    waiting = Background.waiting(held.manager.wait_ready)
    held.camera.emit()
    with pytest.raises(NoPicture, match="it is opening"):
        held.manager.wait_ready(time.monotonic())
    assert not waiting.is_over
    held.camera.unblock()
    assert waiting.result() == held.camera.config
    lease.release()


def test_no_frame_in_time(held: SessionRig) -> None:
    lease = held.manager.lease("stream")
    held.wait_for(State.OPEN)
    with pytest.raises(NoPicture, match=r"in time \(it is open\)"):
        held.manager.wait_ready(time.monotonic() + 0.01)
    with pytest.raises(NoPicture, match=r"in time \(it is open\)"):
        held.manager.wait_frame(0.0, time.monotonic() + 0.01)
    assert held.state is State.OPEN
    lease.release()


def test_wait_frame_until_the_exposure_is_settled(held: SessionRig) -> None:
    lease = held.manager.lease("snapshot")
    held.wait_for(State.OPEN)
    waiting = [Background.waiting(partial(held.manager.wait_frame, 0.0)) for _ in range(2)]
    for exposure_us in (100, 200, 400, 800, 800, 800):
        held.camera.emit({"ExposureTime": exposure_us})
    assert not any(background.is_over for background in waiting)
    wanted = held.camera.emit({"ExposureTime": 800})
    for background in waiting:
        assert background.result() is wanted
        wanted.release()
    lease.release()


def test_wait_frame_returns_no_older_frame(held: SessionRig) -> None:
    lease = held.open()
    for _ in range(5):
        newest = held.camera.emit()
    assert held.manager.wait_frame(newest.began_s, soon_s()) is newest
    newest.release()
    asked_s = time.monotonic()
    waiting = Background.waiting(partial(held.manager.wait_frame, asked_s))
    newer = held.camera.emit()
    assert waiting.result() is newer
    newer.release()
    lease.release()


def test_newest_frame(held: SessionRig) -> None:
    lease = held.open()
    assert held.manager.newest_frame(0.0) is None
    first = held.camera.emit()
    assert held.manager.newest_frame(0.0) is None  # not settled
    for _ in range(5):
        newest = held.camera.emit()
    for began_s in (first.began_s, newest.began_s):
        assert held.manager.newest_frame(began_s) is newest
        newest.release()
    assert held.manager.newest_frame(math.nextafter(newest.began_s, math.inf)) is None
    lease.release()


def test_settling_after_reopening(brief: SessionRig) -> None:
    lease = brief.open()
    for _ in range(5):
        brief.camera.emit()
    brief.manager.wait_frame(0.0, soon_s()).release()
    lease.release()
    brief.wait_for(State.CLOSED)
    lease = brief.open()
    with pytest.raises(NoPicture):
        brief.manager.wait_frame(0.0, time.monotonic() + 0.01)
    lease.release()


def test_wait_frame_shows_a_change(held: SessionRig) -> None:
    lease = held.open()
    for _ in range(6):
        held.camera.emit()
    held.manager.set_controls({"Brightness": 0.5})
    asked_s = time.monotonic()
    waiting = Background.waiting(partial(held.manager.wait_frame, asked_s))
    frames = [held.camera.emit() for _ in range(CONTROL_FRAMES)]
    taken = waiting.result()
    assert taken is frames[-1]
    taken.release()
    # Sooner if the metadata reports it.
    held.manager.set_controls({"ExposureTime": 5000})
    asked_s = time.monotonic()
    waiting = Background.waiting(partial(held.manager.wait_frame, asked_s))
    held.camera.emit()
    assert not waiting.is_over
    shows = held.camera.emit({**STEADY, "ExposureTime": 5000, "Brightness": 0.5})
    taken = waiting.result()
    assert taken is shows
    taken.release()
    lease.release()


def test_long_exposure_extends_deadlines(held: SessionRig) -> None:
    lease = held.open()
    for _ in range(6):
        held.camera.emit()
    held.manager.set_controls({"ExposureTime": 6_000_000})
    asked_s = ReadDeadline(time.monotonic())  # too late, by the deadline alone
    waiting = Background.waiting(partial(held.manager.wait_frame, asked_s), asked_s)
    held.camera.emit({**STEADY, "ExposureTime": 6_000_000})
    waiting.result().release()
    # Nor one that was long when it was requested: the next one's length says nothing of how long this one took.
    held.manager.set_controls({"ExposureTime": 1000})
    asked_s = ReadDeadline(time.monotonic())
    waiting = Background.waiting(partial(held.manager.wait_frame, asked_s), asked_s)
    held.camera.emit({**STEADY, "ExposureTime": 2000})
    held.camera.emit()
    waiting.result().release()
    lease.release()


# Frames


def test_rate_is_measured(held: SessionRig) -> None:
    lease = held.open()
    with held.camera.flowing():
        eventually(lambda: (held.manager.status().fps or 0) > 1, "a rate")
    lease.release()


def test_frames_of_an_earlier_opening_are_released(brief: SessionRig) -> None:
    notified: list[None] = []
    lease = brief.open()
    earlier = brief.camera.on_frame
    lease.release()
    brief.wait_for(State.CLOSED)
    brief.manager.frames.subscribe(lambda: notified.append(None))
    late = brief.camera.emit(to=earlier)
    assert late.planes == (), "the camera is closed"
    lease = brief.manager.lease("stream")
    brief.wait_for(State.OPEN)
    late = brief.camera.emit(to=earlier)
    assert late.planes == ()
    assert brief.manager.status().metadata is None
    assert notified == []
    brief.camera.emit()
    assert len(notified) == 1
    lease.release()


def test_held_frame_outlives_the_camera(brief: SessionRig) -> None:
    lease = brief.open()
    frame = brief.manager.frames.held()
    assert frame is not None
    lease.release()
    brief.wait_for(State.CLOSED)
    assert len(frame.planes) == 3
    assert brief.camera.frames_out == 1
    frame.release()
    assert brief.camera.frames_out == 0


def test_slot_is_cleared_before_the_camera_stops(brief: SessionRig) -> None:
    brief.camera.block("close")
    brief.open().release()
    brief.camera.wait_inside("close")
    assert brief.camera.frames_out == 0
    brief.camera.unblock()


class SlowMetadata(dict[str, Any]):
    """Metadata that blocks the camera's frame thread until it is unblocked."""

    def __init__(self, camera: FakeCamera) -> None:
        super().__init__({"ExposureTime": 1})
        self._camera = camera
        camera.block("metadata")

    def get(self, key: str, default: Any = None) -> Any:
        self._camera.enter("metadata")
        return super().get(key, default)


def test_frame_during_the_stop_is_released(brief: SessionRig) -> None:
    lease = brief.open()
    brief.camera.block("close")
    delivery = Background(lambda: brief.camera.emit(SlowMetadata(brief.camera)))
    brief.camera.wait_inside("metadata")
    lease.release()
    brief.camera.wait_inside("close")
    assert brief.camera.frames_out == 1
    brief.camera.unblock("metadata")
    delivery.result()
    assert brief.camera.frames_out == 0, "the camera waits for it"
    brief.camera.unblock()


class BrokenMetadata(dict[str, Any]):
    def get(self, key: str, default: Any = None) -> Any:
        raise TypeError("not of libcamera")


@pytest.mark.parametrize("metadata", [{"ExposureTime": 1}, BrokenMetadata()])
def test_exception_in_frame_processing(
    held: SessionRig, metadata: Mapping[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    is_broken = not isinstance(metadata, BrokenMetadata)

    def fail() -> None:
        if is_broken:
            raise IndexError

    held.manager.frames.subscribe(fail)
    lease = held.open()
    for _ in range(5):
        held.camera.emit(metadata)
    assert caplog.text.count("Failed to process frame") == 1
    assert "Traceback" in caplog.text
    assert held.camera.frames_out == 1
    is_broken = False
    notified: list[None] = []
    held.manager.frames.subscribe(lambda: notified.append(None))
    held.camera.emit()
    assert len(notified) == 1
    lease.release()
