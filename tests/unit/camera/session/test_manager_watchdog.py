"""`CameraManager` recovers a silent camera while there is a client, or reports a failure.

The short timeouts are real. Where frames have to arrive in time, the timeout is long and the test falls silent at once.
A test that nothing happens asks `decide` for a later moment.
"""

import logging
import re
from collections.abc import Iterator

import pytest

from softcam.camera.session.decision import Step, Wait
from softcam.camera.session.manager import State
from softcam.errors import CameraBusy, CameraError, CameraMissing, CameraStuck
from softcam.runtime.deadline import Deadline
from softcam.runtime.log.events import Event
from tests.support.background import eventually, soon, soon_s
from tests.support.fakes import SessionRig, limited
from tests.support.log_events import logged_events
from tests.support.timeouts import TIMEOUT_FACTOR
from tests.unit.camera.session.conftest import WATCHDOG_S

SHORT_S = 0.2 * TIMEOUT_FACTOR


@pytest.fixture
def held() -> Iterator[SessionRig]:
    """A short watchdog and a long linger: for what happens without frames."""
    with SessionRig(watchdog_timeout_s=SHORT_S) as held:
        yield held


# What is tried, in order


def test_recovery_by_restart(calm: SessionRig, caplog: pytest.LogCaptureFixture) -> None:
    calm.camera.block("restart")
    with caplog.at_level(logging.INFO):
        lease = calm.open()
        assert calm.manager.recovery_reason is None
        calm.fall_silent()
        calm.camera.wait_inside("restart")
        assert calm.state is State.RECOVERING
        silence = calm.manager.recovery_reason
        assert re.fullmatch(r"no frame for 6\d s", silence or "")
        assert calm.camera.frames_out == 0, "a camera that stops wants all its buffers back"
        calm.camera.unblock()
        with calm.camera.flowing():
            calm.wait_for(State.OPEN)
            assert calm.manager.recovery_reason is None
            status = calm.manager.status()
            assert (status.restarts, status.opens) == (1, 1)
            assert status.last_error == silence
            lease.release()
    assert re.search(r"No frame for 6\d\.\d s: restarting the stream", caplog.text)
    assert "Camera recovered" in caplog.text
    assert logged_events(caplog) == [Event.CAMERA_STALLED, Event.CAMERA_RECOVERED]
    assert calm.camera.calls == ["open", "restart"]


def test_recovery_by_reopening(calm: SessionRig) -> None:
    lease = calm.open()
    calm.stall()
    calm.fall_silent()
    with calm.camera.flowing():
        calm.wait_for(State.OPEN)
        assert calm.camera.calls == ["open", "restart", "close", "open"]
        assert calm.manager.status().restarts == 2
        assert calm.manager.status().opens == 2
        lease.release()


def test_failure_after_all_tries(held: SessionRig) -> None:
    lease = held.open()
    failure = held.take_failure()
    assert isinstance(failure, CameraStuck)
    assert "after a restart of the stream and a reopening" in str(failure)
    assert held.manager.wait_until_closed(soon())
    assert held.camera.calls == ["open", "restart", "close", "open", "close"]
    with pytest.raises(CameraStuck):
        held.manager.lease("stream")
    lease.release()


def test_restart_without_a_first_frame(calm: SessionRig) -> None:
    lease = calm.manager.lease("stream")
    calm.wait_for(State.OPEN)
    calm.stall()
    assert calm.state is State.RECOVERING
    with calm.camera.flowing():
        calm.wait_for(State.OPEN)
        lease.release()


def test_reopening_after_a_failed_restart(calm: SessionRig) -> None:
    calm.camera.fail_next("restart", CameraError("does not start"))
    calm.camera.block("close")
    lease = calm.open()
    calm.fall_silent()
    calm.camera.wait_inside("close")
    assert calm.state is State.RECOVERING
    assert calm.manager.recovery_reason == "restarting the stream failed: does not start"
    assert calm.manager.status().config == calm.camera.config, "clients still see an image of that size"
    with calm.camera.flowing():
        calm.camera.unblock()
        calm.wait_for(State.OPEN)
        assert calm.camera.calls == ["open", "restart", "close", "open"]
        assert calm.manager.status().restarts == 2
        lease.release()


@pytest.mark.parametrize("call", ["restart", "close", "open"])
def test_recovery_call_that_hangs(call: str) -> None:
    with SessionRig(watchdog_timeout_s=SHORT_S, limits=limited(call, 0.5 * TIMEOUT_FACTOR)) as held:
        lease = held.open()
        held.camera.block(call)
        failure = held.take_failure()
        assert isinstance(failure, CameraStuck)
        assert "hangs" in str(failure)
        assert not held.manager.wait_until_closed(Deadline.after(0.0))
        held.camera.unblock()
        assert held.manager.wait_until_closed(soon())
        lease.release()


@pytest.mark.parametrize("error", [CameraMissing("gone"), CameraBusy("taken"), CameraError("odd")])
def test_failed_reopening(error: CameraError, held: SessionRig) -> None:
    lease = held.open()
    held.camera.fail_next("open", error)
    assert held.take_failure() is error
    assert held.manager.wait_until_closed(soon())
    assert (held.state is State.MISSING) == isinstance(error, CameraMissing)
    lease.release()


def test_no_restart_of_a_missing_camera(held: SessionRig) -> None:
    lease = held.open()
    held.camera.is_there = False
    failure = held.take_failure()
    assert isinstance(failure, CameraMissing)
    assert "is gone" in str(failure)
    held.wait_for(State.MISSING)
    assert held.manager.wait_until_closed(soon())
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
    lease = calm.open()
    calm.stall()
    calm.camera.emit()
    calm.wait_for(State.OPEN)
    calm.camera.block("close")
    calm.fall_silent()
    calm.camera.wait_inside("close")
    assert calm.camera.count("restart") == 1
    lease.release()
    calm.camera.unblock()


def test_lasting_frames_reset_the_tries(calm: SessionRig) -> None:
    lease = calm.open()
    calm.stall()
    calm.camera.emit()
    calm.wait_for(State.OPEN)
    calm.pass_time(WATCHDOG_S)
    calm.camera.emit()
    calm.session.wake()
    eventually(lambda: calm.session.watchdog.tries == 0, "the tries forgotten")
    calm.stall()
    assert calm.camera.calls == ["open", "restart", "restart"]
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
    lease = calm.open()
    calm.stall()
    calm.camera.block("close")
    calm.fall_silent()
    calm.camera.wait_inside("close")
    lease.release()
    calm.camera.unblock()
    calm.wait_for(State.CLOSED)
    assert calm.camera.count("open") == 1
    with calm.camera.flowing():  # for the next client the camera is opened as always
        lease = calm.manager.lease("stream")
        calm.manager.wait_ready(soon_s())
        assert calm.state is State.OPEN
        lease.release()


def test_lease_during_a_reopening(calm: SessionRig) -> None:
    lease = calm.open()
    calm.stall()
    calm.camera.block("open")
    calm.fall_silent()
    calm.camera.wait_inside("open")
    newcomer = calm.manager.lease("stream")
    assert calm.manager.wait_ready(soon_s()) == calm.camera.config, "it is let in, and sees the placeholder"
    lease.release()
    calm.camera.unblock()
    with calm.camera.flowing():
        calm.wait_for(State.OPEN)
        newcomer.release()


def test_no_recovery_while_lingering() -> None:
    with SessionRig(watchdog_timeout_s=10.0, linger_s=60.0) as held:
        held.open().release()
        held.wait_for(State.LINGERING)
        assert isinstance(held.decision(50), Wait)
        assert held.decision(61) is Step.CLOSE


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
    assert held.manager.wait_until_closed(soon())
    assert held.camera.count("open") == 1
    lease.release()
