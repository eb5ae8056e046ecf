"""`CameraManager`: the camera is open while there is a lease, and every frame is released."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

import pytest

from softcam.camera.base import SessionListener, StreamConfig
from softcam.camera.session.manager import LEASE_KINDS, Lease, LeaseKind, State
from softcam.camera.session.sent_controls import CONTROL_FRAMES
from softcam.errors import CameraBusy, CameraError, CameraMissing, CameraStuck, NoPicture, NotSupported
from softcam.imaging.frame import Frame
from tests.support.fakes import (
    AUTOFOCUS,
    SENSOR_SIZE,
    SIZE,
    STEADY,
    Background,
    FakeCamera,
    SessionRig,
    eventually,
    limited,
    soon_s,
    waiters,
)


@pytest.fixture
def held() -> Iterator[SessionRig]:
    """A long linger, no watchdog, no autofocus."""
    with SessionRig() as held:
        yield held


@pytest.fixture
def brief() -> Iterator[SessionRig]:
    """No linger."""
    with SessionRig(linger_s=0.0) as held:
        yield held


# Opening, lingering, closing


def test_closed_without_lease(held: SessionRig) -> None:
    status = held.manager.status()
    assert status.state is State.CLOSED
    assert (status.config, status.fps, status.metadata, status.last_error) == (None, None, None, None)
    assert (status.restarts, status.opens) == (0, 0)
    eventually(lambda: waiters(held.session.changed) == 1, "the thread sleeps")
    assert held.camera.calls == []


def test_lease_opens(held: SessionRig) -> None:
    with held.manager.lease("hold"):
        held.wait_for(State.OPEN)
        held.camera.emit({"ExposureTime": 5, "Lux": 3})
        assert held.manager.wait_ready(soon_s()) == held.camera.config
        status = held.manager.status()
        assert status.config == held.camera.config
        assert status.leases == {**dict.fromkeys(LEASE_KINDS, 0), "hold": 1}
        assert status.metadata == {"ExposureTime": 5, "Lux": 3}
        assert status.opens == 1
    assert not any(held.manager.status().leases.values())


def test_lingering_after_the_last_lease(held: SessionRig) -> None:
    first, second = held.open(), held.manager.lease("snapshot")
    first.release()
    assert held.state is State.OPEN
    second.release()
    held.wait_for(State.LINGERING)
    third = held.manager.lease("stream")
    held.wait_for(State.OPEN)
    third.release()
    held.wait_for(State.LINGERING)
    assert held.camera.calls == ["open"]


def test_camera_closes_after_the_linger() -> None:
    with SessionRig(linger_s=0.03) as held:
        began_s = time.monotonic()
        held.open().release()
        held.wait_for(State.CLOSED)
        assert time.monotonic() - began_s >= 0.03
        assert held.camera.calls == ["open", "close"]
        assert held.camera.frames_out == 0
        assert held.manager.status().config is None


def test_close_without_linger(brief: SessionRig) -> None:
    brief.open().release()
    brief.wait_for(State.CLOSED)
    assert brief.camera.calls == ["open", "close"]


def test_second_release_does_not_prolong_the_linger(held: SessionRig) -> None:
    lease = held.open()
    lease.release()
    until_s = held.session.linger_until_s
    lease.release()
    with lease:
        pass
    assert held.session.linger_until_s == until_s


def test_second_release_keeps_other_leases(held: SessionRig) -> None:
    first, second = held.open(), held.manager.lease("stream")
    first.release()
    first.release()
    assert held.manager.status().leases["stream"] == 1
    second.release()


def test_release_while_opening(brief: SessionRig) -> None:
    brief.camera.block("open")
    lease = brief.manager.lease("stream")
    brief.camera.wait_inside("open")
    assert brief.state is State.OPENING
    lease.release()
    brief.camera.unblock()
    brief.wait_for(State.CLOSED)
    assert brief.camera.calls == ["open", "close"]


def test_release_while_opening_starts_the_linger(held: SessionRig) -> None:
    held.camera.block("open")
    lease = held.manager.lease("stream")
    held.camera.wait_inside("open")
    lease.release()
    held.camera.unblock()
    held.wait_for(State.LINGERING)
    assert held.camera.calls == ["open"]


def test_release_and_new_lease_while_opening(brief: SessionRig) -> None:
    brief.camera.block("open")
    first = brief.manager.lease("stream")
    brief.camera.wait_inside("open")
    first.release()
    second = brief.manager.lease("snapshot")
    brief.camera.unblock()
    brief.wait_for(State.OPEN)
    assert brief.camera.calls == ["open"]
    second.release()


def test_lease_while_closing(brief: SessionRig) -> None:
    brief.camera.block("close")
    brief.open().release()
    brief.camera.wait_inside("close")
    assert brief.state is State.CLOSING
    lease = brief.manager.lease("stream")
    waiting = Background(lambda: brief.manager.wait_ready(soon_s()))
    brief.camera.unblock()
    brief.wait_for(State.OPEN)
    brief.camera.emit()
    assert waiting.result() == brief.camera.config
    assert brief.camera.calls == ["open", "close", "open"]
    lease.release()


def test_no_leaks_in_fifty_openings(no_leaks: Callable[[], AbstractContextManager[None]]) -> None:
    with no_leaks(), SessionRig(linger_s=0.0) as held:
        for number in range(1, 51):
            lease = held.open()
            held.manager.wait_ready(soon_s())
            lease.release()
            held.wait_for(State.CLOSED)
            assert held.camera.frames_out == 0
            assert held.manager.status().opens == number


# Waiting


def test_wait_ready_until_the_first_frame(held: SessionRig) -> None:
    lease = held.manager.lease("stream")
    held.wait_for(State.OPEN)
    waiting = [Background(lambda: held.manager.wait_ready(soon_s())) for _ in range(2)]
    eventually(lambda: held.frame_waiters() == 2, "both wait")
    held.camera.emit()
    assert [background.result() for background in waiting] == [held.camera.config] * 2
    lease.release()


def test_frame_before_open_returns(held: SessionRig) -> None:
    held.camera.block("open")
    lease = held.manager.lease("stream")
    held.camera.wait_inside("open")
    waiting = Background(lambda: held.manager.wait_ready(soon_s()))
    held.camera.emit()
    eventually(lambda: held.frame_waiters() == 1, "it waits on")
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
    waiting = [Background(lambda: held.manager.wait_frame(0.0, soon_s())) for _ in range(2)]
    eventually(lambda: held.frame_waiters() == 2, "both wait")
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
    waiting = Background(lambda: held.manager.wait_frame(asked_s, soon_s()))
    eventually(lambda: held.frame_waiters() == 1, "it waits")
    newer = held.camera.emit()
    assert waiting.result() is newer
    newer.release()
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


# Frames


def test_rate_is_measured(held: SessionRig) -> None:
    lease = held.open()
    with held.camera.flowing():
        eventually(lambda: (held.manager.status().fps or 0) > 1, "a rate")
    lease.release()


def test_frames_of_an_earlier_opening_are_released(brief: SessionRig) -> None:
    told: list[None] = []
    lease = brief.open()
    earlier = brief.camera.on_frame
    lease.release()
    brief.wait_for(State.CLOSED)
    brief.manager.frames.subscribe(lambda: told.append(None))
    late = brief.camera.emit(to=earlier)
    assert late.planes == (), "the camera is closed"
    lease = brief.manager.lease("stream")
    brief.wait_for(State.OPEN)
    late = brief.camera.emit(to=earlier)
    assert late.planes == ()
    assert brief.manager.status().metadata is None
    assert told == []
    brief.camera.emit()
    assert len(told) == 1
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
        self._camera._pass("metadata")
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
    told: list[None] = []
    held.manager.frames.subscribe(lambda: told.append(None))
    held.camera.emit()
    assert len(told) == 1
    lease.release()


# Failures


@pytest.mark.parametrize(
    ("error", "told", "state"),
    [
        (CameraMissing("unplugged"), CameraMissing, State.MISSING),
        (CameraBusy("taken"), CameraBusy, State.CLOSED),
        (CameraError("odd"), CameraError, State.CLOSED),
        (ZeroDivisionError("a fault of ours"), CameraStuck, State.CLOSED),
    ],
)
def test_failed_open_is_raised_by_all_callers(
    held: SessionRig, error: Exception, told: type[CameraError], state: State
) -> None:
    held.camera.fail_next("open", error)
    held.camera.block("open")
    lease = held.manager.lease("stream")
    waiting = [
        Background(lambda: held.manager.wait_ready(soon_s())),
        Background(lambda: held.manager.wait_frame(0.0, soon_s())),
        Background(lambda: held.manager.still(None, soon_s())),
    ]
    eventually(lambda: held.frame_waiters() == 2 and held.session.jobs.waiting, "all wait")
    held.camera.unblock()
    raised = []
    for background in waiting:
        with pytest.raises(told, match=str(error)) as caught:
            background.result()
        raised.append(caught.value)
    assert len(set(map(id, raised))) == 3, "each thread raises a separate error"
    with pytest.raises(told):
        held.manager.lease("snapshot")
    assert held.manager.join(soon_s())
    assert type(held.take_failure()) is told
    assert held.state is state
    assert str(error) in (held.manager.status().last_error or "")
    lease.release()


def test_missing_camera_is_not_opened(held: SessionRig) -> None:
    held.camera.is_there = False
    held.manager.lease("stream")
    assert isinstance(held.take_failure(), CameraMissing)
    held.wait_for(State.MISSING)
    assert "open" not in held.camera.calls


def test_failed_close(brief: SessionRig) -> None:
    brief.camera.fail_next("close", CameraError("does not close"))
    brief.open().release()
    assert "does not close" in str(brief.take_failure())


@pytest.mark.parametrize("call", ["open", "close", "still"])
def test_call_that_hangs(call: str) -> None:
    with SessionRig(linger_s=0.0, limits=limited(call, 0.02)) as brief:
        brief.camera.block(call)
        lease = brief.manager.lease("stream")
        waiting = None
        if call == "still":
            waiting = Background(lambda: brief.manager.still(None, soon_s()))
        elif call == "close":
            brief.wait_for(State.OPEN)
            lease.release()
        failure = brief.take_failure()
        assert isinstance(failure, CameraStuck)
        assert "hangs" in str(failure)
        if waiting is not None:
            with pytest.raises(CameraStuck):
                waiting.result()
        with pytest.raises(CameraStuck):
            brief.manager.wait_ready(soon_s())
        assert not brief.manager.join(time.monotonic()), "the thread hangs in the camera"
        brief.camera.unblock()
        assert brief.manager.join(soon_s()), "once it answers, it is closed"
        lease.release()


# The end


def test_stop_with_leases_held(held: SessionRig) -> None:
    lease = held.open()
    waiting = [
        Background(lambda: held.manager.wait_frame(time.monotonic() + 60, soon_s())),
        Background(lambda: held.manager.wait_frame(time.monotonic() + 60, soon_s())),
    ]
    eventually(lambda: held.frame_waiters() == 2, "both wait")
    held.manager.stop()
    for background in waiting:
        with pytest.raises(CameraError, match="stopping"):
            background.result()
    assert held.manager.join(soon_s())
    assert held.camera.calls == ["open", "close"]
    with pytest.raises(CameraError, match="stopping"):
        held.manager.lease("stream")
    with pytest.raises(CameraError, match="stopping"):
        held.manager.still(None, soon_s())
    lease.release()
    held.manager.stop()


def test_stop_of_a_closed_camera(held: SessionRig) -> None:
    held.manager.stop()
    assert held.manager.join(soon_s())
    assert held.camera.calls == []


def test_stop_while_lingering(held: SessionRig) -> None:
    held.open().release()
    held.wait_for(State.LINGERING)
    held.manager.stop()
    assert held.manager.join(soon_s())
    assert held.camera.calls == ["open", "close"]


def test_stop_while_opening(held: SessionRig) -> None:
    held.camera.block("open")
    held.manager.lease("stream")
    held.camera.wait_inside("open")
    held.manager.stop()
    with pytest.raises(CameraError, match="stopping"):
        held.manager.wait_ready(soon_s())
    assert not held.manager.join(time.monotonic() + 0.01)
    held.camera.unblock()
    assert held.manager.join(soon_s())
    assert held.camera.calls == ["open", "close"]


# Stills


@pytest.fixture
def still_rig(held: SessionRig) -> Iterator[tuple[SessionRig, Lease]]:
    lease = held.open()
    yield held, lease
    lease.release()


def test_still(still_rig: tuple[SessionRig, Lease]) -> None:
    held, _ = still_rig
    frame = held.manager.still(None, soon_s())
    assert frame.size == SENSOR_SIZE
    assert held.camera.stills_out == 1
    frame.release()
    frame = held.manager.still((40, 20), soon_s())
    assert frame.size == (40, 20)
    frame.release()
    assert held.state is State.OPEN
    assert held.manager.status().config == held.camera.config
    assert held.camera.calls == ["open", "still", "still"]


def test_no_frames_during_a_still(still_rig: tuple[SessionRig, Lease]) -> None:
    held, _ = still_rig
    held.camera.block("still")
    waiting = Background(lambda: held.manager.still(SIZE, soon_s()))
    held.camera.wait_inside("still")
    assert held.camera.frames_out == 0
    assert held.camera.emit().planes == (), "it comes at the wrong moment"
    held.camera.unblock()
    waiting.result().release()
    assert len(held.camera.emit().planes) == 3


def test_failed_still(still_rig: tuple[SessionRig, Lease]) -> None:
    held, _ = still_rig
    held.camera.fail_next("still", NotSupported("no stills here"))
    with pytest.raises(NotSupported, match="no stills here"):
        held.manager.still(None, soon_s())
    assert held.state is State.OPEN
    held.manager.still(None, soon_s()).release()


def test_equal_stills_are_shared(still_rig: tuple[SessionRig, Lease]) -> None:
    held, _ = still_rig
    held.camera.block("still")
    waiting = [Background(lambda: held.manager.still(SIZE, soon_s()))]
    held.camera.wait_inside("still")
    # The one under way began before these asked; each of them waits for one that is newer than its request.
    waiting += [Background(lambda: held.manager.still(SIZE, soon_s())) for _ in range(2)]
    eventually(lambda: waiters(held.session.changed) == 3, "all wait")
    held.camera.unblock()
    frames: list[Frame] = [background.result() for background in waiting]
    assert frames[0] is not frames[1]
    assert frames[1] is frames[2]
    assert held.camera.count("still") == 2
    for frame in frames:
        assert frame.planes
        frame.release()
    assert not frames[1].planes


def test_cancelled_still_is_not_taken(held: SessionRig) -> None:
    held.camera.block("open")
    lease = held.manager.lease("snapshot")
    held.camera.wait_inside("open")
    with pytest.raises(NoPicture, match="it is opening"):
        held.manager.still(None, time.monotonic() + 0.01)
    held.camera.unblock()
    held.wait_for(State.OPEN)
    held.manager.still(None, soon_s()).release()
    assert held.camera.count("still") == 1
    lease.release()


def test_late_still_is_released(still_rig: tuple[SessionRig, Lease]) -> None:
    held, _ = still_rig
    held.camera.block("still")
    waiting = Background(lambda: held.manager.still(None, time.monotonic() + 0.02))
    held.camera.wait_inside("still")
    with pytest.raises(NoPicture):
        waiting.result()
    held.camera.unblock()
    held.manager.still(None, soon_s()).release()
    assert held.camera.count("still") == 2
    assert held.camera.stills_out == 0


def test_still_while_closing(brief: SessionRig) -> None:
    brief.camera.block("close")
    brief.open().release()
    brief.camera.wait_inside("close")
    lease = brief.manager.lease("snapshot")
    waiting = Background(lambda: brief.manager.still(None, soon_s()))
    eventually(lambda: brief.session.jobs.waiting, "the order")
    brief.camera.unblock()
    waiting.result().release()
    assert brief.camera.calls == ["open", "close", "open", "still"]
    lease.release()


def test_stop_during_a_still(still_rig: tuple[SessionRig, Lease]) -> None:
    held, _ = still_rig
    held.camera.block("still")
    waiting = [Background(lambda: held.manager.still(None, soon_s())) for _ in range(2)]
    held.camera.wait_inside("still")
    eventually(lambda: waiters(held.session.changed) == 2, "both wait")
    held.manager.stop()
    for background in waiting:
        with pytest.raises(CameraError, match="stopping"):
            background.result()
    held.camera.unblock()
    assert held.manager.join(soon_s())
    assert held.camera.count("still") == 1, "the other is not taken any more"


def test_unexpected_exception_in_a_still(still_rig: tuple[SessionRig, Lease]) -> None:
    held, _ = still_rig
    held.camera.fail_next("still", ZeroDivisionError("a fault of ours"))
    with pytest.raises(CameraStuck, match="thread camera crashed: ZeroDivisionError"):
        held.manager.still(None, soon_s())
    assert isinstance(held.take_failure(), CameraStuck)
    assert held.manager.join(soon_s())
    assert not held.camera.is_open


# Controls and autofocus


def triggers(camera: FakeCamera) -> int:
    return sum("AfTrigger" in controls for controls in camera.sent)


@pytest.mark.parametrize(
    ("kinds", "cycles"),
    [
        (("stream",), 1),
        (("stream", "stream"), 1),
        (("snapshot", "hold"), 0),
        (("hold", "stream"), 1),
    ],
)
def test_first_stream_starts_autofocus(kinds: tuple[LeaseKind, ...], cycles: int) -> None:
    with SessionRig(FakeCamera(AUTOFOCUS), autofocus_timeout_s=5.0) as held:
        leases = []
        for kind in kinds:
            leases.append(held.manager.lease(kind))
            held.wait_for(State.OPEN)
        eventually(lambda: triggers(held.camera) >= cycles, "the trigger")
        for lease in leases:
            lease.release()
    assert triggers(held.camera) == cycles


def test_stream_while_opening_starts_one_cycle() -> None:
    with SessionRig(FakeCamera(AUTOFOCUS), autofocus_timeout_s=5.0) as held:
        held.camera.block("open")
        hold = held.manager.lease("hold")
        held.camera.wait_inside("open")
        stream = held.manager.lease("stream")
        held.camera.unblock()
        eventually(lambda: triggers(held.camera) == 1, "the trigger")
        held.camera.emit({"AfState": 1})
        held.camera.emit({"AfState": 2})
        assert held.camera.sent[-1] == {"AfMode": 2}
        assert triggers(held.camera) == 1
        hold.release()
        stream.release()


def test_user_requests_focus_with_autofocus_disabled() -> None:
    with SessionRig(FakeCamera(AUTOFOCUS)) as held:
        lease = held.open()
        waiting = Background(lambda: held.manager.autofocus.trigger(soon_s()))
        eventually(lambda: triggers(held.camera) == 1, "the trigger")
        held.camera.emit({"AfState": 1})
        held.camera.emit({"AfState": 2})
        assert waiting.result().is_focused
        lease.release()


@pytest.mark.parametrize("controls", [AUTOFOCUS, {}])
def test_no_cycle_without_autofocus(controls: Mapping[str, Any]) -> None:
    with SessionRig(FakeCamera(controls), autofocus_timeout_s=5.0 if not controls else None) as held:
        lease = held.open()
        assert held.manager.autofocus.acquire(soon_s()) is None
        assert held.camera.sent == []
        lease.release()


def test_rejected_focus_leaks_no_lease(caplog: pytest.LogCaptureFixture) -> None:
    with SessionRig(FakeCamera(AUTOFOCUS), autofocus_timeout_s=5.0) as held, caplog.at_level(logging.WARNING):
        held.camera.control_error = NotSupported("no control AfTrigger")
        with held.manager.lease("hold"):
            held.wait_for(State.OPEN)
            with held.manager.lease("stream"):
                assert "no control AfTrigger" in caplog.text
        assert sum(held.manager.status().leases.values()) == 0


def test_closing_ends_a_wait_for_focus() -> None:
    with SessionRig(FakeCamera(AUTOFOCUS), autofocus_timeout_s=60.0, linger_s=0.0) as held:
        lease = held.manager.lease("snapshot")
        held.wait_for(State.OPEN)
        waiting = Background(lambda: held.manager.autofocus.acquire(soon_s()))
        eventually(lambda: triggers(held.camera) == 1, "the trigger")
        lease.release()
        assert waiting.result() is None


def test_set_controls(held: SessionRig) -> None:
    held.manager.set_controls({"Brightness": 0.5})
    assert held.camera.sent == [{"Brightness": 0.5}]
    held.camera.control_error = NotSupported("no control Sharpness")
    with pytest.raises(NotSupported):
        held.manager.set_controls({"Sharpness": 1})


class OneControlListener(SessionListener):
    """Sends one control with each opening, and records the events."""

    def __init__(self, held: SessionRig) -> None:
        self._held = held
        self.seen: list[str] = []

    def on_configured(self, config: StreamConfig) -> None:
        self.seen.append("configured")
        self._held.manager.set_controls({"Brightness": 0.5})

    def on_open_failed(self, error: CameraError) -> bool:
        self.seen.append("open failed")
        return self.seen.count("open failed") == 1

    def on_closing(self) -> None:
        self.seen.append("closing")


def test_controls_sent_before_the_start_apply_to_the_first_frame(held: SessionRig) -> None:
    held.manager.subscribe(OneControlListener(held))
    held.camera.block("open")
    lease = held.manager.lease("hold")
    held.camera.wait_inside("open")
    assert held.camera.sent == [{"Brightness": 0.5}]
    held.camera.unblock()
    for _ in range(6):
        held.camera.emit()
    asked_s = time.monotonic()
    waiting = Background(lambda: held.manager.wait_frame(asked_s, soon_s()))
    eventually(lambda: held.frame_waiters() == 1, "that it waits")
    held.camera.emit()
    waiting.result().release()  # it counts from the first frame: there is none to wait for
    lease.release()


def test_listener_events_of_a_failed_start(held: SessionRig) -> None:
    listener = OneControlListener(held)
    held.manager.subscribe(listener)
    held.camera.fail_next("open", CameraError("no memory"))
    lease = held.manager.lease("hold")
    held.wait_for(State.OPEN)
    assert listener.seen == ["configured", "closing", "open failed", "configured"]
    lease.release()


def test_all_listeners_are_notified_in_order(brief: SessionRig) -> None:
    events: list[tuple[int, str]] = []

    class Recorder(SessionListener):
        def __init__(self, number: int) -> None:
            self._number = number

        def _record(self, event: str) -> None:
            events.append((self._number, event))

        def on_opening(self) -> None:
            self._record("opening")

        def on_configured(self, config: StreamConfig) -> None:
            assert config is brief.camera.config
            self._record("configured")

        def on_open_failed(self, error: CameraError) -> bool:
            self._record("open failed")
            return self._number == 1

        def on_closing(self) -> None:
            self._record("closing")

        def on_closed(self) -> None:
            self._record("closed")

    for number in (1, 2):
        brief.manager.subscribe(Recorder(number))
    brief.camera.fail_next("open", CameraError("no memory"))
    lease = brief.open()
    brief.manager.reopen(soon_s())
    lease.release()
    brief.wait_for(State.CLOSED)
    eventually(lambda: events[-1] == (2, "closed"), "the last event")
    attempt = ["opening", "configured"]
    expected = [*attempt, "closing", "open failed", *attempt, "closing", *attempt, "closing", "closed"]
    assert events == [(number, event) for event in expected for number in (1, 2)]


def test_wait_frame_shows_a_change(held: SessionRig) -> None:
    lease = held.open()
    for _ in range(6):
        held.camera.emit()
    held.manager.set_controls({"Brightness": 0.5})
    asked_s = time.monotonic()
    waiting = Background(lambda: held.manager.wait_frame(asked_s, soon_s()))
    eventually(lambda: held.frame_waiters() == 1, "that it waits")
    frames = [held.camera.emit() for _ in range(CONTROL_FRAMES)]
    taken = waiting.result()
    assert taken is frames[-1]
    taken.release()
    # Sooner if the metadata reports it.
    held.manager.set_controls({"ExposureTime": 5000})
    asked_s = time.monotonic()
    waiting = Background(lambda: held.manager.wait_frame(asked_s, soon_s()))
    eventually(lambda: held.frame_waiters() == 1, "that it waits")
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
    asked_s = time.monotonic()
    waiting = Background(lambda: held.manager.wait_frame(asked_s, asked_s))  # too late, by the deadline alone
    eventually(lambda: held.frame_waiters() == 1, "that it waits")
    held.camera.emit({**STEADY, "ExposureTime": 6_000_000})
    waiting.result().release()
    # Nor one that was long when it was asked: the next one's length says nothing of how long this one took.
    held.manager.set_controls({"ExposureTime": 1000})
    asked_s = time.monotonic()
    waiting = Background(lambda: held.manager.wait_frame(asked_s, asked_s))
    eventually(lambda: held.frame_waiters() == 1, "that it waits")
    held.camera.emit({**STEADY, "ExposureTime": 2000})
    held.camera.emit()
    waiting.result().release()
    lease.release()
