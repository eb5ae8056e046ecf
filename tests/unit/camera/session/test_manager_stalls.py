"""`CameraManager`: what counts as a stall of the camera and what does not, with one client and with many short ones.

A test that nothing happens asks `decide` for a later moment.
"""

import time
from functools import partial

import pytest

from softcam.camera.session.decision import Step, Wait
from softcam.camera.session.manager import SessionLimits, State
from softcam.errors import CameraError, CameraStuck, NoPicture
from tests.support.background import Background, eventually, soon, soon_s
from tests.support.fakes import SessionRig
from tests.support.timeouts import TIMEOUT_FACTOR
from tests.unit.camera.session.conftest import WATCHDOG_S


def test_long_exposure_is_not_a_stall() -> None:
    with SessionRig(watchdog_timeout_s=10.0) as held:
        lease = held.open()
        assert held.decision(11) is Step.RECOVER
        held.camera.emit({"ExposureTime": 6_000_000})
        assert isinstance(held.decision(27), Wait)
        assert held.decision(29) is Step.RECOVER
        held.camera.emit({"ExposureTime": 1000})
        assert held.decision(11) is Step.RECOVER
        lease.release()


def test_requested_long_exposure_is_not_a_stall() -> None:
    with SessionRig(watchdog_timeout_s=10.0) as held:
        lease = held.open()
        held.manager.set_controls({"ExposureTime": 6_000_000, "AeEnable": False})
        held.camera.emit({"ExposureTime": 1000})  # was on its way
        assert isinstance(held.decision(27), Wait)
        assert held.decision(29) is Step.RECOVER
        for _ in range(12):
            held.camera.emit({"ExposureTime": 1000})
        assert held.decision(11) is Step.RECOVER, "the camera did not do as asked"
        lease.release()


def test_hang_limit_includes_the_exposure() -> None:
    with SessionRig(limits=SessionLimits(still_s=0.0)) as held:
        lease = held.open()
        held.camera.emit({"ExposureTime": 6_000_000})
        held.manager.still(None, soon_s()).release()
        lease.release()


def test_failed_frames_are_a_stall() -> None:
    def fail() -> None:
        raise IndexError("an encoder's fault")

    with SessionRig(watchdog_timeout_s=0.2 * TIMEOUT_FACTOR) as held:
        held.manager.frames.subscribe(fail)
        with held.camera.flowing():
            lease = held.manager.lease("stream")
            assert isinstance(held.take_failure(), CameraStuck)
            lease.release()


def test_failed_still_does_not_excuse_silence(calm: SessionRig) -> None:
    lease = calm.open()
    with calm.camera.flowing():
        due_s = calm.session.watchdog.due_from_s
        calm.camera.fail_next("still", CameraError("no still"))
        with pytest.raises(CameraError, match="no still"):
            calm.manager.still(None, soon_s())
        assert calm.session.watchdog.due_from_s == due_s
        calm.manager.still(None, soon_s()).release()
        assert calm.session.watchdog.due_from_s > due_s
        lease.release()


def test_still_during_recovery(calm: SessionRig) -> None:
    calm.camera.block("restart")
    lease = calm.open()
    calm.fall_silent()
    calm.camera.wait_inside("restart")
    with calm.camera.flowing():
        calm.camera.unblock()
        calm.manager.still(None, soon_s()).release()
        assert calm.camera.calls == ["open", "restart", "still"]
        lease.release()


# Requests with pauses in between


def test_stall_with_a_polling_client(calm: SessionRig) -> None:
    """The client releases its lease before the watchdog acts, and is back before the camera would be closed."""
    calm.open().release()
    calm.wait_for(State.LINGERING)
    calm.fall_silent()
    assert isinstance(calm.decision(0), Wait), "without a client nothing is recovered"
    calm.camera.block("restart")
    lease = calm.manager.lease("snapshot")
    calm.camera.wait_inside("restart")
    with calm.camera.flowing():
        calm.camera.unblock()
        calm.wait_for(State.OPEN)
        lease.release()


def test_tries_continue_at_the_next_opening() -> None:
    """However short the leases are, a camera that stays silent is given up."""
    with SessionRig(watchdog_timeout_s=WATCHDOG_S, linger_s=0.0) as held:
        lease = held.open()
        held.stall()
        lease.release()
        held.wait_for(State.CLOSED)
        assert held.camera.calls == ["open", "restart", "close"]
        again = held.manager.lease("snapshot")
        held.wait_for(State.OPEN)
        held.fall_silent()
        eventually(lambda: held.manager.status().opens == 3, "a reopening")
        held.fall_silent()
        assert isinstance(held.take_failure(), CameraStuck)
        assert held.camera.count("restart") == 1, "the stream was restarted already"
        assert held.camera.count("open") == 3
        again.release()


def test_old_frame_is_not_live() -> None:
    with SessionRig(limits=SessionLimits(fresh_s=0.0)) as held:
        lease = held.open()
        held.camera.emit({})
        with pytest.raises(CameraError, match="no frame from the camera in time"):
            held.manager.wait_ready(time.monotonic())
        lease.release()


def test_wait_frame_is_limited_during_recovery() -> None:
    with SessionRig(watchdog_timeout_s=WATCHDOG_S, limits=SessionLimits(recovery_wait_s=0.01)) as held:
        held.camera.block("restart")
        lease = held.open()
        waiting = Background.waiting(partial(held.manager.wait_frame, time.monotonic()))
        held.fall_silent()
        held.camera.wait_inside("restart")
        with pytest.raises(NoPicture, match=r"it is recovering: no frame for \d+ s"):
            waiting.result()
        held.camera.unblock()
        lease.release()


def test_silent_openings_in_a_row_are_a_failure(calm: SessionRig) -> None:
    """Each lease ends before the watchdog acts, and the next one starts when the camera is closed."""
    for _ in range(3):
        visit = calm.manager.lease("snapshot")
        calm.wait_for(State.OPEN)
        visit.release()
        calm.fall_silent()
        calm.end_linger()
        calm.wait_for(State.CLOSED)
    assert isinstance(calm.take_failure(), CameraStuck)
    assert calm.manager.wait_until_closed(soon())
    assert (calm.camera.count("open"), calm.camera.count("restart")) == (3, 0)
