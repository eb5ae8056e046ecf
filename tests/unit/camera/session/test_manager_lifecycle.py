"""The camera is open while somebody holds a lease, and everything that is taken is given back."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

import pytest

from softcam.camera.base import NullListener, StreamConfig
from softcam.camera.session.manager import LEASE_KINDS, Lease, LeaseKind, SessionLimits, State
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
    Held,
    eventually,
    soon_s,
    waiters,
)


@pytest.fixture
def held() -> Iterator[Held]:
    """A long linger, no watchdog, no autofocus."""
    with Held() as held:
        yield held


@pytest.fixture
def brief() -> Iterator[Held]:
    """No linger."""
    with Held(linger_s=0.0) as held:
        yield held


# Opening, lingering, closing


def test_closed_until_somebody_asks(held: Held) -> None:
    status = held.manager.status()
    assert status.state is State.CLOSED
    assert (status.mode, status.fps, status.metadata, status.last_error) == (None, None, None, None)
    assert (status.restarts, status.opens) == (0, 0)
    eventually(lambda: waiters(held.session.changed) == 1, "the thread sleeps")
    assert held.camera.calls == []


def test_lease_opens(held: Held) -> None:
    with held.manager.lease("hold"):
        held.wait_for(State.OPEN)
        held.camera.emit({"ExposureTime": 5, "Lux": 3})
        assert held.manager.wait_ready(soon_s()) == held.camera.config
        status = held.manager.status()
        assert status.mode == held.camera.config
        assert status.leases == {**dict.fromkeys(LEASE_KINDS, 0), "hold": 1}
        assert status.metadata == {"ExposureTime": 5, "Lux": 3}
        assert status.opens == 1
    assert not any(held.manager.status().leases.values())


def test_last_lease_arms_the_linger_and_a_new_one_disarms_it(held: Held) -> None:
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
    with Held(linger_s=0.03) as held:
        began_s = time.monotonic()
        held.open().release()
        held.wait_for(State.CLOSED)
        assert time.monotonic() - began_s >= 0.03
        assert held.camera.calls == ["open", "close"]
        assert held.camera.frames_out == 0
        assert held.manager.status().mode is None


def test_no_linger_closes_at_once(brief: Held) -> None:
    brief.open().release()
    brief.wait_for(State.CLOSED)
    assert brief.camera.calls == ["open", "close"]


def test_releasing_again_does_not_prolong_the_linger(held: Held) -> None:
    lease = held.open()
    lease.release()
    until_s = held.session.linger_until_s
    lease.release()
    with lease:
        pass
    assert held.session.linger_until_s == until_s


def test_lease_of_others_is_not_released(held: Held) -> None:
    first, second = held.open(), held.manager.lease("stream")
    first.release()
    first.release()
    assert held.manager.status().leases["stream"] == 1
    second.release()


def test_client_that_leaves_while_the_camera_opens(brief: Held) -> None:
    brief.camera.shut("open")
    lease = brief.manager.lease("stream")
    brief.camera.wait_inside("open")
    assert brief.state is State.OPENING
    lease.release()
    brief.camera.let()
    brief.wait_for(State.CLOSED)
    assert brief.camera.calls == ["open", "close"]


def test_client_that_leaves_while_the_camera_opens_arms_the_linger(held: Held) -> None:
    held.camera.shut("open")
    lease = held.manager.lease("stream")
    held.camera.wait_inside("open")
    lease.release()
    held.camera.let()
    held.wait_for(State.LINGERING)
    assert held.camera.calls == ["open"]


def test_clients_that_change_places_while_the_camera_opens(brief: Held) -> None:
    brief.camera.shut("open")
    first = brief.manager.lease("stream")
    brief.camera.wait_inside("open")
    first.release()
    second = brief.manager.lease("snapshot")
    brief.camera.let()
    brief.wait_for(State.OPEN)
    assert brief.camera.calls == ["open"]
    second.release()


def test_client_that_comes_while_the_camera_closes(brief: Held) -> None:
    brief.camera.shut("close")
    brief.open().release()
    brief.camera.wait_inside("close")
    assert brief.state is State.CLOSING
    lease = brief.manager.lease("stream")
    waiting = Background(lambda: brief.manager.wait_ready(soon_s()))
    brief.camera.let()
    brief.wait_for(State.OPEN)
    brief.camera.emit()
    assert waiting.result() == brief.camera.config
    assert brief.camera.calls == ["open", "close", "open"]
    lease.release()


def test_fifty_rounds_leak_nothing(no_leaks: Callable[[], AbstractContextManager[None]]) -> None:
    with no_leaks(), Held(linger_s=0.0) as held:
        for number in range(1, 51):
            lease = held.open()
            held.manager.wait_ready(soon_s())
            lease.release()
            held.wait_for(State.CLOSED)
            assert held.camera.frames_out == 0
            assert held.manager.status().opens == number


# Waiting


def test_ready_waits_for_the_first_frame(held: Held) -> None:
    lease = held.manager.lease("stream")
    held.wait_for(State.OPEN)
    waiting = [Background(lambda: held.manager.wait_ready(soon_s())) for _ in range(2)]
    eventually(lambda: held.frame_waiters() == 2, "both wait")
    held.camera.emit()
    assert [background.result() for background in waiting] == [held.camera.config] * 2
    lease.release()


def test_frame_that_comes_before_open_returns(held: Held) -> None:
    held.camera.shut("open")
    lease = held.manager.lease("stream")
    held.camera.wait_inside("open")
    waiting = Background(lambda: held.manager.wait_ready(soon_s()))
    held.camera.emit()
    eventually(lambda: held.frame_waiters() == 1, "it waits on")
    held.camera.let()
    assert waiting.result() == held.camera.config
    lease.release()


def test_no_frame_in_time(held: Held) -> None:
    lease = held.manager.lease("stream")
    held.wait_for(State.OPEN)
    with pytest.raises(NoPicture, match=r"in time \(it is open\)"):
        held.manager.wait_ready(time.monotonic() + 0.01)
    with pytest.raises(NoPicture, match=r"in time \(it is open\)"):
        held.manager.wait_frame(0.0, time.monotonic() + 0.01)
    assert held.state is State.OPEN
    lease.release()


def test_frame_of_a_cold_camera_counts_when_exposure_rests(held: Held) -> None:
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


def test_frame_is_not_older_than_asked(held: Held) -> None:
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


def test_other_opening_settles_anew(brief: Held) -> None:
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


def test_rate_is_measured(held: Held) -> None:
    lease = held.open()
    with held.camera.flowing():
        eventually(lambda: (held.manager.status().fps or 0) > 1, "a rate")
    lease.release()


def test_frames_of_an_earlier_opening_are_given_back(brief: Held) -> None:
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


def test_frame_that_is_being_encoded_outlives_the_camera(brief: Held) -> None:
    lease = brief.open()
    frame = brief.manager.frames.held()
    assert frame is not None
    lease.release()
    brief.wait_for(State.CLOSED)
    assert len(frame.planes) == 3
    assert brief.camera.frames_out == 1
    frame.release()
    assert brief.camera.frames_out == 0


def test_slot_is_empty_before_the_camera_stops(brief: Held) -> None:
    brief.camera.shut("close")
    brief.open().release()
    brief.camera.wait_inside("close")
    assert brief.camera.frames_out == 0
    brief.camera.let()


class SlowMetadata(dict[str, Any]):
    """Metadata at which the camera's frame thread stays until it is let go."""

    def __init__(self, camera: FakeCamera) -> None:
        super().__init__({"ExposureTime": 1})
        self._camera = camera
        camera.shut("metadata")

    def get(self, key: str, default: Any = None) -> Any:
        self._camera._pass("metadata")
        return super().get(key, default)


def test_frame_on_its_way_into_the_slot_while_the_camera_stops(brief: Held) -> None:
    lease = brief.open()
    brief.camera.shut("close")
    delivery = Background(lambda: brief.camera.emit(SlowMetadata(brief.camera)))
    brief.camera.wait_inside("metadata")
    lease.release()
    brief.camera.wait_inside("close")
    assert brief.camera.frames_out == 1
    brief.camera.let("metadata")
    delivery.result()
    assert brief.camera.frames_out == 0, "the camera waits for it"
    brief.camera.let()


class BrokenMetadata(dict[str, Any]):
    def get(self, key: str, default: Any = None) -> Any:
        raise TypeError("not of libcamera")


@pytest.mark.parametrize("metadata", [{"ExposureTime": 1}, BrokenMetadata()])
def test_exception_does_not_reach_the_camera(
    held: Held, metadata: Mapping[str, Any], caplog: pytest.LogCaptureFixture
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
def test_failed_open_is_told_once_and_to_all(
    held: Held, error: Exception, told: type[CameraError], state: State
) -> None:
    held.camera.fail_next("open", error)
    held.camera.shut("open")
    lease = held.manager.lease("stream")
    waiting = [
        Background(lambda: held.manager.wait_ready(soon_s())),
        Background(lambda: held.manager.wait_frame(0.0, soon_s())),
        Background(lambda: held.manager.still(None, soon_s())),
    ]
    eventually(lambda: held.frame_waiters() == 2 and held.session.jobs, "all wait")
    held.camera.let()
    raised = []
    for background in waiting:
        with pytest.raises(told, match=str(error)) as caught:
            background.result()
        raised.append(caught.value)
    assert len(set(map(id, raised))) == 3, "each thread raises an error of its own"
    with pytest.raises(told):
        held.manager.lease("snapshot")
    assert held.manager.join(soon_s())
    assert type(held.take_failure()) is told
    assert held.state is state
    assert str(error) in (held.manager.status().last_error or "")
    lease.release()


def test_missing_camera_is_not_opened(held: Held) -> None:
    held.camera.is_there = False
    held.manager.lease("stream")
    assert isinstance(held.take_failure(), CameraMissing)
    held.wait_for(State.MISSING)
    assert "open" not in held.camera.calls


def test_failed_close_is_told(brief: Held) -> None:
    brief.camera.fail_next("close", CameraError("does not close"))
    brief.open().release()
    assert "does not close" in str(brief.take_failure())


@pytest.mark.parametrize("call", ["open", "close", "still"])
def test_call_that_hangs_is_told(call: str) -> None:
    with Held(linger_s=0.0, limits=SessionLimits(**{f"{call}_s": 0.02})) as brief:
        brief.camera.shut(call)
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
        brief.camera.let()
        assert brief.manager.join(soon_s()), "once it answers, it is closed"
        lease.release()


# The end


def test_stop_with_leases_held(held: Held) -> None:
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


def test_stop_of_a_closed_camera(held: Held) -> None:
    held.manager.stop()
    assert held.manager.join(soon_s())
    assert held.camera.calls == []


def test_stop_while_lingering(held: Held) -> None:
    held.open().release()
    held.wait_for(State.LINGERING)
    held.manager.stop()
    assert held.manager.join(soon_s())
    assert held.camera.calls == ["open", "close"]


def test_stop_while_opening(held: Held) -> None:
    held.camera.shut("open")
    held.manager.lease("stream")
    held.camera.wait_inside("open")
    held.manager.stop()
    with pytest.raises(CameraError, match="stopping"):
        held.manager.wait_ready(soon_s())
    assert not held.manager.join(time.monotonic() + 0.01)
    held.camera.let()
    assert held.manager.join(soon_s())
    assert held.camera.calls == ["open", "close"]


# Stills


@pytest.fixture
def still_rig(held: Held) -> Iterator[tuple[Held, Lease]]:
    lease = held.open()
    yield held, lease
    lease.release()


def test_still_is_the_callers(still_rig: tuple[Held, Lease]) -> None:
    held, _ = still_rig
    frame = held.manager.still(None, soon_s())
    assert frame.size == SENSOR_SIZE
    assert held.camera.stills_out == 1
    frame.release()
    frame = held.manager.still((40, 20), soon_s())
    assert frame.size == (40, 20)
    frame.release()
    assert held.state is State.OPEN
    assert held.manager.status().mode == held.camera.config
    assert held.camera.calls == ["open", "still", "still"]


def test_no_frame_is_held_while_a_still_is_taken(still_rig: tuple[Held, Lease]) -> None:
    held, _ = still_rig
    held.camera.shut("still")
    waiting = Background(lambda: held.manager.still(SIZE, soon_s()))
    held.camera.wait_inside("still")
    assert held.camera.frames_out == 0
    assert held.camera.emit().planes == (), "it comes at the wrong moment"
    held.camera.let()
    waiting.result().release()
    assert len(held.camera.emit().planes) == 3


def test_still_that_fails_is_told_to_who_asked(still_rig: tuple[Held, Lease]) -> None:
    held, _ = still_rig
    held.camera.fail_next("still", NotSupported("no stills here"))
    with pytest.raises(NotSupported, match="no stills here"):
        held.manager.still(None, soon_s())
    assert held.state is State.OPEN
    held.manager.still(None, soon_s()).release()


def test_stills_that_wait_together_are_one(still_rig: tuple[Held, Lease]) -> None:
    held, _ = still_rig
    held.camera.shut("still")
    waiting = [Background(lambda: held.manager.still(SIZE, soon_s()))]
    held.camera.wait_inside("still")
    # The one under way began before these asked; each of them waits for one that is newer than its request.
    waiting += [Background(lambda: held.manager.still(SIZE, soon_s())) for _ in range(2)]
    eventually(lambda: waiters(held.session.changed) == 3, "all wait")
    held.camera.let()
    frames: list[Frame] = [background.result() for background in waiting]
    assert frames[0] is not frames[1]
    assert frames[1] is frames[2]
    assert held.camera.count("still") == 2
    for frame in frames:
        assert frame.planes
        frame.release()
    assert not frames[1].planes


def test_still_that_was_given_up_is_not_taken(held: Held) -> None:
    held.camera.shut("open")
    lease = held.manager.lease("snapshot")
    held.camera.wait_inside("open")
    with pytest.raises(NoPicture, match="it is opening"):
        held.manager.still(None, time.monotonic() + 0.01)
    held.camera.let()
    held.wait_for(State.OPEN)
    held.manager.still(None, soon_s()).release()
    assert held.camera.count("still") == 1
    lease.release()


def test_still_that_comes_too_late_is_given_back(still_rig: tuple[Held, Lease]) -> None:
    held, _ = still_rig
    held.camera.shut("still")
    waiting = Background(lambda: held.manager.still(None, time.monotonic() + 0.02))
    held.camera.wait_inside("still")
    with pytest.raises(NoPicture):
        waiting.result()
    held.camera.let()
    held.manager.still(None, soon_s()).release()
    assert held.camera.count("still") == 2
    assert held.camera.stills_out == 0


def test_still_waits_for_the_camera_to_open(brief: Held) -> None:
    brief.camera.shut("close")
    brief.open().release()
    brief.camera.wait_inside("close")
    lease = brief.manager.lease("snapshot")
    waiting = Background(lambda: brief.manager.still(None, soon_s()))
    eventually(lambda: brief.session.jobs, "the order")
    brief.camera.let()
    waiting.result().release()
    assert brief.camera.calls == ["open", "close", "open", "still"]
    lease.release()


def test_still_hears_at_once_that_the_portal_stops(still_rig: tuple[Held, Lease]) -> None:
    held, _ = still_rig
    held.camera.shut("still")
    waiting = [Background(lambda: held.manager.still(None, soon_s())) for _ in range(2)]
    held.camera.wait_inside("still")
    eventually(lambda: waiters(held.session.changed) == 2, "both wait")
    held.manager.stop()
    for background in waiting:
        with pytest.raises(CameraError, match="stopping"):
            background.result()
    held.camera.let()
    assert held.manager.join(soon_s())
    assert held.camera.count("still") == 1, "the other is not taken any more"


def test_fault_in_a_still_ends_the_camera(still_rig: tuple[Held, Lease]) -> None:
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
def test_first_stream_begins_a_cycle(kinds: tuple[LeaseKind, ...], cycles: int) -> None:
    with Held(FakeCamera(AUTOFOCUS), autofocus_timeout_s=5.0) as held:
        leases = []
        for kind in kinds:
            leases.append(held.manager.lease(kind))
            held.wait_for(State.OPEN)
        eventually(lambda: triggers(held.camera) >= cycles, "the trigger")
        for lease in leases:
            lease.release()
    assert triggers(held.camera) == cycles


def test_stream_that_comes_while_the_camera_opens_begins_one_cycle() -> None:
    with Held(FakeCamera(AUTOFOCUS), autofocus_timeout_s=5.0) as held:
        held.camera.shut("open")
        hold = held.manager.lease("hold")
        held.camera.wait_inside("open")
        stream = held.manager.lease("stream")
        held.camera.let()
        eventually(lambda: triggers(held.camera) == 1, "the trigger")
        held.camera.emit({"AfState": 1})
        held.camera.emit({"AfState": 2})
        assert held.camera.sent[-1] == {"AfMode": 2}
        assert triggers(held.camera) == 1
        hold.release()
        stream.release()


def test_a_user_focuses_although_it_is_switched_off() -> None:
    with Held(FakeCamera(AUTOFOCUS)) as held:
        lease = held.open()
        waiting = Background(lambda: held.manager.autofocus.trigger(soon_s()))
        eventually(lambda: triggers(held.camera) == 1, "the trigger")
        held.camera.emit({"AfState": 1})
        held.camera.emit({"AfState": 2})
        assert waiting.result().is_focused
        lease.release()


@pytest.mark.parametrize("controls", [AUTOFOCUS, {}])
def test_no_cycle_without_autofocus(controls: Mapping[str, Any]) -> None:
    with Held(FakeCamera(controls), autofocus_timeout_s=5.0 if not controls else None) as held:
        lease = held.open()
        assert held.manager.autofocus.acquire(soon_s()) is None
        assert held.camera.sent == []
        lease.release()


def test_camera_that_refuses_to_focus_leaks_no_lease(caplog: pytest.LogCaptureFixture) -> None:
    with Held(FakeCamera(AUTOFOCUS), autofocus_timeout_s=5.0) as held, caplog.at_level(logging.WARNING):
        held.camera.control_error = NotSupported("no control AfTrigger")
        with held.manager.lease("hold"):
            held.wait_for(State.OPEN)
            with held.manager.lease("stream"):
                assert "no control AfTrigger" in caplog.text
        assert sum(held.manager.status().leases.values()) == 0


def test_closing_ends_a_wait_for_the_lens() -> None:
    with Held(FakeCamera(AUTOFOCUS), autofocus_timeout_s=60.0, linger_s=0.0) as held:
        lease = held.manager.lease("snapshot")
        held.wait_for(State.OPEN)
        waiting = Background(lambda: held.manager.autofocus.acquire(soon_s()))
        eventually(lambda: triggers(held.camera) == 1, "the trigger")
        lease.release()
        assert waiting.result() is None


def test_controls_are_passed_on(held: Held) -> None:
    held.manager.set_controls({"Brightness": 0.5})
    assert held.camera.sent == [{"Brightness": 0.5}]
    held.camera.control_error = NotSupported("no control Sharpness")
    with pytest.raises(NotSupported):
        held.manager.set_controls({"Sharpness": 1})


class OneControl(NullListener):
    """Wants one control, and tells what it is told."""

    def __init__(self, held: Held) -> None:
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


def test_what_is_wanted_is_told_before_the_camera_starts(held: Held) -> None:
    held.manager.subscribe(OneControl(held))
    held.camera.shut("open")
    lease = held.manager.lease("hold")
    held.camera.wait_inside("open")
    assert held.camera.sent == [{"Brightness": 0.5}]
    held.camera.let()
    for _ in range(6):
        held.camera.emit()
    asked_s = time.monotonic()
    waiting = Background(lambda: held.manager.wait_frame(asked_s, soon_s()))
    eventually(lambda: held.frame_waiters() == 1, "that it waits")
    held.camera.emit()
    waiting.result().release()  # it counts from the first frame: there is none to wait for
    lease.release()


def test_a_camera_that_does_not_start_was_told_in_vain(held: Held) -> None:
    listener = OneControl(held)
    held.manager.subscribe(listener)
    held.camera.fail_next("open", CameraError("no memory"))
    lease = held.manager.lease("hold")
    held.wait_for(State.OPEN)
    assert listener.seen == ["configured", "closing", "open failed", "configured"]
    lease.release()


def test_all_listeners_are_notified_in_order(brief: Held) -> None:
    events: list[tuple[int, str]] = []

    class Recorder(NullListener):
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


def test_a_picture_after_a_change_shows_it(held: Held) -> None:
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
    # Where the metadata tells, sooner.
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


def test_a_long_exposure_makes_nobody_late(held: Held) -> None:
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
