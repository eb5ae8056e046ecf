"""`CameraManager` recovers a silent camera while there is a client, or reports a failure.

The short timeouts are real: a test that nothing happens asks `decide` for a later moment.
"""

import logging
import re
import time
from collections.abc import Iterator
from functools import partial

import pytest

from softcam.camera.session.decision import Step, Wait
from softcam.camera.session.manager import SessionLimits, State
from softcam.errors import CameraBusy, CameraError, CameraMissing, CameraStuck, NoPicture
from tests.support.fakes import Background, FakeCamera, SessionRig, eventually, limited, soon_s

SHORT_S = 0.2
CALM_S = 1.0  # a busy machine keeps a thread waiting, and the frames that it gives


@pytest.fixture
def held() -> Iterator[SessionRig]:
    """A short watchdog and a long linger: for what happens without frames."""
    with SessionRig(watchdog_timeout_s=SHORT_S) as held:
        yield held


@pytest.fixture
def calm() -> Iterator[SessionRig]:
    """For what happens when frames arrive again."""
    with SessionRig(watchdog_timeout_s=CALM_S) as held:
        yield held


def wait_for_calls(held: SessionRig, *calls: str) -> None:
    eventually(lambda: held.camera.calls[-len(calls) :] == list(calls), f"calls {calls}")


# What is tried, in order


def test_recovery_by_restart(calm: SessionRig, caplog: pytest.LogCaptureFixture) -> None:
    calm.camera.block("restart")
    with caplog.at_level(logging.INFO):
        lease = calm.open()
        assert calm.manager.recovery_reason is None
        calm.camera.wait_inside("restart")
        assert calm.state is State.RECOVERING
        silence = calm.manager.recovery_reason
        assert re.fullmatch(r"no frame for \d s", silence or "")
        assert calm.camera.frames_out == 0, "a camera that stops wants all its buffers back"
        calm.camera.unblock()
        with calm.camera.flowing():
            calm.wait_for(State.OPEN)
            assert calm.manager.recovery_reason is None
            status = calm.manager.status()
            assert (status.restarts, status.opens) == (1, 1)
            assert status.last_error == silence
            lease.release()
    assert re.search(r"No frame for 1\.\d s: restarting the stream", caplog.text)
    assert "Camera recovered" in caplog.text
    assert calm.camera.calls == ["open", "restart"]


def test_recovery_by_reopening(calm: SessionRig) -> None:
    lease = calm.open()
    wait_for_calls(calm, "open", "restart", "close", "open")
    with calm.camera.flowing():
        calm.wait_for(State.OPEN)
        assert calm.manager.status().restarts == 2
        assert calm.manager.status().opens == 2
        lease.release()


def test_failure_after_all_tries(held: SessionRig) -> None:
    lease = held.open()
    failure = held.take_failure()
    assert isinstance(failure, CameraStuck)
    assert "after a restart of the stream and a reopening" in str(failure)
    assert held.manager.join(soon_s())
    assert held.camera.calls == ["open", "restart", "close", "open", "close"]
    with pytest.raises(CameraStuck):
        held.manager.lease("stream")
    lease.release()


def test_restart_without_a_first_frame(calm: SessionRig) -> None:
    lease = calm.manager.lease("stream")
    wait_for_calls(calm, "open", "restart")
    with calm.camera.flowing():
        calm.wait_for(State.OPEN)
        lease.release()


def test_reopening_after_a_failed_restart(calm: SessionRig) -> None:
    calm.camera.fail_next("restart", CameraError("does not start"))
    calm.camera.block("close")
    lease = calm.open()
    calm.camera.wait_inside("close")
    assert calm.state is State.RECOVERING
    assert calm.manager.recovery_reason == "restarting the stream failed: does not start"
    assert calm.manager.status().config == calm.camera.config, "viewers are still shown something of that size"
    with calm.camera.flowing():
        calm.camera.unblock()
        calm.wait_for(State.OPEN)
        assert calm.camera.calls == ["open", "restart", "close", "open"]
        assert calm.manager.status().restarts == 2
        lease.release()


@pytest.mark.parametrize("call", ["restart", "close", "open"])
def test_recovery_call_that_hangs(call: str) -> None:
    with SessionRig(watchdog_timeout_s=SHORT_S, limits=limited(call, 0.5)) as held:
        lease = held.open()
        held.camera.block(call)
        failure = held.take_failure()
        assert isinstance(failure, CameraStuck)
        assert "hangs" in str(failure)
        assert not held.manager.join(time.monotonic())
        held.camera.unblock()
        assert held.manager.join(soon_s())
        lease.release()


@pytest.mark.parametrize("error", [CameraMissing("gone"), CameraBusy("taken"), CameraError("odd")])
def test_failed_reopening(error: CameraError, held: SessionRig) -> None:
    lease = held.open()
    held.camera.fail_next("open", error)
    assert held.take_failure() is error
    assert held.manager.join(soon_s())
    assert (held.state is State.MISSING) == isinstance(error, CameraMissing)
    lease.release()


def test_no_restart_of_a_missing_camera(held: SessionRig) -> None:
    lease = held.open()
    held.camera.is_there = False
    failure = held.take_failure()
    assert isinstance(failure, CameraMissing)
    assert "is gone" in str(failure)
    held.wait_for(State.MISSING)
    assert held.manager.join(soon_s())
    assert held.camera.calls == ["open", "close"]
    lease.release()


def test_camera_missing_before_reopening(held: SessionRig) -> None:
    held.camera.block("restart")
    lease = held.open()
    held.camera.wait_inside("restart")
    held.camera.is_there = False
    held.camera.fail_next("restart", CameraError("unplugged"))
    held.camera.unblock()
    assert isinstance(held.take_failure(), CameraMissing)
    lease.release()


# How long a trouble is remembered


def test_single_frame_keeps_the_tries(calm: SessionRig) -> None:
    calm.camera.block("restart")
    lease = calm.open()
    calm.camera.wait_inside("restart")
    before_s = calm.session.watchdog.due_from_s
    calm.camera.unblock()
    eventually(lambda: calm.session.watchdog.due_from_s > before_s, "the restart is over")
    calm.camera.emit()
    wait_for_calls(calm, "open", "restart", "close", "open")
    lease.release()


def test_lasting_frames_reset_the_tries(calm: SessionRig) -> None:
    lease = calm.open()
    wait_for_calls(calm, "open", "restart")
    with calm.camera.flowing():
        eventually(lambda: calm.session.watchdog.tries == 0, "the tries are forgotten")
    wait_for_calls(calm, "open", "restart", "restart")
    lease.release()


# No clients


def test_release_during_a_restart(held: SessionRig) -> None:
    held.camera.block("restart")
    lease = held.open()
    held.camera.wait_inside("restart")
    lease.release()
    held.camera.unblock()
    held.wait_for(State.CLOSED)
    assert held.camera.calls == ["open", "restart", "close"]


def test_release_during_a_failing_restart(held: SessionRig) -> None:
    held.camera.block("restart")
    held.camera.fail_next("restart", CameraError("does not start"))
    lease = held.open()
    held.camera.wait_inside("restart")
    lease.release()
    held.camera.unblock()
    held.wait_for(State.CLOSED)
    assert held.camera.count("open") == 1, "not opened again for nobody"


def test_release_during_a_reopening(calm: SessionRig) -> None:
    calm.camera.block("close")
    lease = calm.open()
    calm.camera.wait_inside("close")
    lease.release()
    calm.camera.unblock()
    calm.wait_for(State.CLOSED)
    assert calm.camera.count("open") == 1
    with calm.camera.flowing():  # who comes then finds a camera that is opened as always
        lease = calm.manager.lease("stream")
        calm.manager.wait_ready(soon_s())
        assert calm.state is State.OPEN
        lease.release()


def test_lease_during_a_reopening(calm: SessionRig) -> None:
    lease = calm.open()
    calm.camera.block("open")
    calm.camera.wait_inside("open")
    newcomer = calm.manager.lease("stream")
    assert calm.manager.wait_ready(soon_s()) == calm.camera.config, "it is let in, and sees the placeholder"
    lease.release()
    calm.camera.unblock()
    with calm.camera.flowing():
        calm.wait_for(State.OPEN)
        newcomer.release()


def test_no_recovery_while_lingering(calm: SessionRig) -> None:
    calm.open().release()
    calm.wait_for(State.LINGERING)
    assert isinstance(calm.decision(50), Wait)
    assert calm.decision(61) is Step.CLOSE
    with calm.camera.flowing(), calm.manager.lease("stream"):
        calm.wait_for(State.OPEN)
        assert calm.camera.count("restart") == 0, "the silence counts from the first lease"


def test_no_watchdog() -> None:
    with SessionRig(watchdog_timeout_s=0.0) as held:
        lease = held.open()
        assert isinstance(held.decision(1e6), Wait)
        lease.release()


def test_stop_during_a_restart(held: SessionRig) -> None:
    held.camera.block("restart")
    held.camera.fail_next("restart", CameraError("does not start"))
    lease = held.open()
    held.camera.wait_inside("restart")
    held.manager.stop()
    held.camera.unblock()
    assert held.manager.join(soon_s())
    assert held.camera.count("open") == 1
    lease.release()


# What counts as a stall, and what does not


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


def test_failed_frames_are_a_stall(held: SessionRig) -> None:
    def fail() -> None:
        raise IndexError("an encoder's fault")

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
    calm.camera.wait_inside("restart")
    with calm.camera.flowing():
        calm.camera.unblock()
        calm.manager.still(None, soon_s()).release()
        assert calm.camera.calls == ["open", "restart", "still"]
        lease.release()


def test_frame_from_before_the_restart_does_not_end_recovery() -> None:
    """Only a frame from after the restart wakes the camera thread."""
    with SessionRig(FakeCamera(), watchdog_timeout_s=60.0) as held:
        lease = held.open()
        with held.session.changed:
            held.session.state = State.RECOVERING
            held.session.watchdog.due_from_s = time.monotonic() + 0.02
        held.camera.emit()
        assert held.state is State.RECOVERING
        with held.camera.flowing():
            held.wait_for(State.OPEN)
            lease.release()


# Requests with pauses in between


def test_stall_with_a_polling_client(calm: SessionRig) -> None:
    """The client releases its lease before the watchdog acts, and is back before the camera would be closed."""
    calm.open().release()
    calm.wait_for(State.LINGERING)
    began_s = time.monotonic()
    eventually(lambda: time.monotonic() - began_s > 2 * CALM_S, "a silence")
    assert calm.camera.calls == ["open"], "without a client nothing is recovered"
    lease = calm.manager.lease("snapshot")
    wait_for_calls(calm, "open", "restart")
    with calm.camera.flowing():
        calm.wait_for(State.OPEN)
        lease.release()


def test_tries_continue_at_the_next_opening() -> None:
    """However short the leases are, a camera that stays silent is given up."""
    with SessionRig(watchdog_timeout_s=CALM_S, linger_s=0.0) as held:
        lease = held.open()
        wait_for_calls(held, "open", "restart")
        lease.release()
        wait_for_calls(held, "open", "restart", "close")
        held.wait_for(State.CLOSED)
        again = held.manager.lease("snapshot")
        failure = held.take_failure()
        assert isinstance(failure, CameraStuck)
        assert held.camera.count("restart") == 1, "the stream was restarted already"
        assert held.camera.count("open") == 3
        again.release()


def test_old_frame_is_not_live() -> None:
    with SessionRig(watchdog_timeout_s=CALM_S, limits=SessionLimits(fresh_s=0.05)) as held:
        lease = held.open()
        held.camera.emit()
        began_s = time.monotonic()
        eventually(lambda: time.monotonic() - began_s > 0.06, "the frame's age")
        with pytest.raises(CameraError, match="no frame from the camera in time"):
            # Before the watchdog acts, which would let a viewer in to see the placeholder.
            held.manager.wait_ready(time.monotonic())
        lease.release()


def test_pause_between_stills_while_streaming() -> None:
    with SessionRig(limits=SessionLimits(still_pause_s=60.0)) as held:
        lease = held.open()
        with held.camera.flowing():
            held.manager.still(None, soon_s()).release()
            with pytest.raises(CameraError, match="not started by the camera in time"):
                held.manager.still(None, time.monotonic() + 0.05)
        assert held.camera.count("still") == 1
        lease.release()


def test_shared_still_and_limit() -> None:
    with SessionRig(limits=SessionLimits(still_pause_s=0.0, max_waiting_stills=1)) as held:
        lease = held.open()
        held.camera.block("still")
        first = Background(lambda: held.manager.still((64, 48), soon_s()))
        held.camera.wait_inside("still")
        waiting = [Background(lambda: held.manager.still(None, soon_s())) for _ in range(3)]
        eventually(lambda: held.session.jobs.waiting == 3, "three who wait for one still")
        with pytest.raises(CameraError, match="too many different stills"):
            held.manager.still((32, 24), soon_s())
        held.camera.unblock()
        frames = [each.result() for each in (first, *waiting)]
        assert held.camera.count("still") == 2
        for frame in frames:
            frame.release()
        lease.release()


def test_reopen_ignores_the_limit_of_stills() -> None:
    with SessionRig(limits=SessionLimits(max_waiting_stills=0)) as held:
        lease = held.open()
        with pytest.raises(CameraError, match="too many different stills"):
            held.manager.still(None, soon_s())
        held.manager.reopen(soon_s())
        assert held.camera.opens == 2
        lease.release()


def test_wait_frame_is_limited_during_recovery() -> None:
    with SessionRig(watchdog_timeout_s=SHORT_S, limits=SessionLimits(recovery_wait_s=0.01)) as held:
        held.camera.block("restart")
        lease = held.open()
        waiting = Background(lambda: held.manager.wait_frame(time.monotonic(), soon_s()))
        held.camera.wait_inside("restart")
        with pytest.raises(NoPicture, match=r"it is recovering: no frame for \d+ s"):
            waiting.result()
        held.camera.unblock()
        lease.release()


def has_counted(camera: FakeCamera, call: str, least: int) -> bool:
    return camera.count(call) >= least


def test_silent_openings_in_a_row_are_a_failure() -> None:
    """Each lease ends before the watchdog acts, and the next one starts when the camera is closed."""
    with SessionRig(watchdog_timeout_s=CALM_S, linger_s=CALM_S + 0.2) as held:
        for opening in (1, 2, 3):
            visit = held.manager.lease("snapshot")
            eventually(partial(has_counted, held.camera, "open", opening), "an opening")
            visit.release()
            eventually(partial(has_counted, held.camera, "close", opening), "a silent opening closed")
        assert isinstance(held.take_failure(), CameraStuck)
        assert held.camera.count("restart") == 0, "nobody was there for whom it would have been"


def test_stills_do_not_keep_the_tries() -> None:
    with SessionRig(watchdog_timeout_s=CALM_S, limits=SessionLimits(still_pause_s=0.0)) as calm:
        lease = calm.open()
        wait_for_calls(calm, "open", "restart")
        with calm.camera.flowing():
            calm.wait_for(State.OPEN)
            began_s = time.monotonic()
            while time.monotonic() - began_s < 2 * CALM_S:
                calm.manager.still(None, soon_s()).release()
            eventually(lambda: calm.session.watchdog.tries == 0, "the tries forgotten")
        wait_for_calls(calm, "restart")
        lease.release()
