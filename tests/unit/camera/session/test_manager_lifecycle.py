"""`CameraManager`: the camera is open while there is a lease; failures and the end reach every caller."""

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial

import pytest

from softcam.camera.session.decision import Step, Wait
from softcam.camera.session.manager import LEASE_KINDS, CameraManager, SessionLimits, SessionState, State
from softcam.errors import CameraBusy, CameraError, CameraMissing, CameraStuck
from softcam.runtime.deadline import Deadline
from softcam.runtime.log.events import Event
from tests.support.background import Background, eventually, soon, soon_s
from tests.support.fakes import FakeCamera, SessionRig, limited
from tests.support.log_events import logged_events

# Opening, lingering, closing


def test_closed_without_lease() -> None:
    with SessionRig() as held:
        status = held.manager.status()
        assert status.state is State.CLOSED
        assert (status.config, status.fps, status.metadata, status.last_error) == (None, None, None, None)
        assert (status.restarts, status.opens) == (0, 0)
        assert held.decision(1e6) == Wait()
    assert held.camera.calls == []


def test_thread_starts_with_the_manager() -> None:
    failures: list[CameraError] = []
    session = SessionState(FakeCamera(), linger_s=0.0, watchdog_timeout_s=0.0, on_failure=failures.append)
    manager = CameraManager(session, autofocus_timeout_s=5.0, has_autofocus=False)
    assert manager.lease("stream").kind == "stream"
    assert manager.wait_until_closed(soon()), "there is no thread to wait for"
    assert session.current.state is State.CLOSED
    manager.start()
    eventually(lambda: session.current.state is State.OPEN, "open")
    manager.stop()
    assert manager.wait_until_closed(soon())
    assert failures == []


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


def test_camera_stays_open_between_the_leases_of_a_series() -> None:
    with SessionRig(linger_s=0.0, limits=SessionLimits(series_s=60.0)) as rig:
        for _ in range(5):
            with rig.manager.lease("snapshot", is_of_series=True):
                rig.wait_for(State.OPEN)
            assert rig.state is State.LINGERING
        assert rig.camera.calls == ["open"]
        assert isinstance(rig.decision(59.0), Wait)
        assert rig.decision(60.0) is Step.CLOSE


def test_stream_does_not_end_a_series() -> None:
    with SessionRig(linger_s=0.0, limits=SessionLimits(series_s=60.0)) as rig:
        stream = rig.open()
        rig.manager.lease("snapshot", is_of_series=True).release()
        stream.release()
        assert rig.state is State.LINGERING
        assert rig.camera.calls == ["open"]


def test_series_does_not_shorten_the_linger() -> None:
    with SessionRig(linger_s=60.0, limits=SessionLimits(series_s=1.0)) as rig:
        rig.open().release()
        rig.manager.lease("snapshot", is_of_series=True).release()
        assert isinstance(rig.decision(59.0), Wait)


def test_second_release_does_not_prolong_the_linger(held: SessionRig) -> None:
    lease = held.open()
    lease.release()
    until = held.decision(0)
    lease.release()
    with lease:
        pass
    assert held.decision(0) == until


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
    waiting = Background.waiting(brief.manager.wait_ready)
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


# Failures


@pytest.mark.parametrize(
    ("error", "raised", "state"),
    [
        (CameraMissing("unplugged"), CameraMissing, State.MISSING),
        (CameraBusy("taken"), CameraBusy, State.CLOSED),
        (CameraError("odd"), CameraError, State.CLOSED),
        (ZeroDivisionError("a fault of ours"), CameraStuck, State.CLOSED),
    ],
)
def test_failed_open_is_raised_by_all_callers(
    held: SessionRig, error: Exception, raised: type[CameraError], state: State
) -> None:
    held.camera.fail_next("open", error)
    held.camera.block("open")
    lease = held.manager.lease("stream")
    waiting = [
        Background.waiting(held.manager.wait_ready),
        Background.waiting(partial(held.manager.wait_frame, 0.0)),
        Background.waiting(partial(held.manager.still, None)),
    ]
    held.camera.unblock()
    errors = []
    for background in waiting:
        with pytest.raises(raised, match=str(error)) as caught:
            background.result()
        errors.append(caught.value)
    assert len(set(map(id, errors))) == 3, "each thread raises a separate error"
    with pytest.raises(raised):
        held.manager.lease("snapshot")
    assert held.manager.wait_until_closed(soon())
    assert type(held.take_failure()) is raised
    assert held.state is state
    assert str(error) in (held.manager.status().last_error or "")
    lease.release()


def test_missing_camera_is_not_opened(held: SessionRig, caplog: pytest.LogCaptureFixture) -> None:
    held.camera.is_there = False
    held.manager.lease("stream")
    assert isinstance(held.take_failure(), CameraMissing)
    held.wait_for(State.MISSING)
    assert "open" not in held.camera.calls
    assert "Camera failed, exiting with code 66: " in caplog.text
    assert logged_events(caplog) == [Event.CAMERA_MISSING]


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
            waiting = Background.waiting(partial(brief.manager.still, None))
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
        assert not brief.manager.wait_until_closed(Deadline.after(0.0)), "the thread hangs in the camera"
        brief.camera.unblock()
        assert brief.manager.wait_until_closed(soon()), "once it answers, it is closed"
        lease.release()


# The end


def test_stop_with_leases_held(held: SessionRig) -> None:
    lease = held.open()
    waiting = [
        Background.waiting(partial(held.manager.wait_frame, time.monotonic() + 60)),
        Background.waiting(partial(held.manager.wait_frame, time.monotonic() + 60)),
    ]
    held.manager.stop()
    for background in waiting:
        with pytest.raises(CameraError, match="stopping"):
            background.result()
    assert held.manager.wait_until_closed(soon())
    assert held.camera.calls == ["open", "close"]
    with pytest.raises(CameraError, match="stopping"):
        held.manager.lease("stream")
    with pytest.raises(CameraError, match="stopping"):
        held.manager.still(None, soon_s())
    lease.release()
    held.manager.stop()


def test_stop_of_a_closed_camera(held: SessionRig) -> None:
    held.manager.stop()
    assert held.manager.wait_until_closed(soon())
    assert held.camera.calls == []


def test_stop_while_lingering(held: SessionRig) -> None:
    held.open().release()
    held.wait_for(State.LINGERING)
    held.manager.stop()
    assert held.manager.wait_until_closed(soon())
    assert held.camera.calls == ["open", "close"]


def test_stop_while_opening(held: SessionRig) -> None:
    held.camera.block("open")
    held.manager.lease("stream")
    held.camera.wait_inside("open")
    held.manager.stop()
    with pytest.raises(CameraError, match="stopping"):
        held.manager.wait_ready(soon_s())
    assert not held.manager.wait_until_closed(Deadline.after(0.01))
    held.camera.unblock()
    assert held.manager.wait_until_closed(soon())
    assert held.camera.calls == ["open", "close"]


def test_health_of_a_session_that_ends_while_it_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    session = SessionState(FakeCamera(), linger_s=60.0, watchdog_timeout_s=0.0, on_failure=lambda _: None)
    manager = CameraManager(session, autofocus_timeout_s=5.0, has_autofocus=False)
    at_lock = [partial(session.fail, CameraError("no answer"))]

    class LateLock(threading.Condition):
        def __enter__(self) -> bool:
            while at_lock:
                at_lock.pop()()
            return super().__enter__()

    monkeypatch.setattr(session, "changed", LateLock())
    assert manager.health_error() == "camera failed: no answer"
