"""`FrameIntake`: which frames count."""

import time

from softcam.camera.session.decision import Snapshot, Step, Wait, decide
from softcam.camera.session.frame_intake import FrameIntake
from softcam.camera.session.lease import Lease
from softcam.camera.session.state import SessionState, State
from tests.support.fakes import FakeCamera, make_frame


def test_frame_from_before_the_restart_does_not_end_recovery() -> None:
    session = SessionState(FakeCamera(), linger_s=0.0, watchdog_timeout_s=60.0, on_failure=lambda _: None)
    session.leases.add(Lease("stream", lambda _: None))
    session.state = State.RECOVERING
    receive = FrameIntake(session).start_epoch()
    session.watchdog.restart(time.monotonic() + 10.0)
    receive(make_frame())
    assert isinstance(decide(Snapshot.of(session), time.monotonic()), Wait)
    session.watchdog.restart(time.monotonic())
    receive(make_frame())
    assert decide(Snapshot.of(session), time.monotonic()) is Step.MARK_RECOVERED
    session.frames.clear()
