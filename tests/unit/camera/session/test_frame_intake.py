"""`FrameIntake`: which frames count."""

import time

from softcam.camera.session.decision import SessionSnapshot, Step, Wait, decide
from softcam.camera.session.frame_intake import FrameIntake
from softcam.camera.session.lease import Lease
from softcam.camera.session.state import SessionState
from tests.support.fakes import FakeCamera, make_frame


def test_frame_from_before_the_restart_does_not_end_recovery() -> None:
    session = SessionState(FakeCamera(), linger_s=0.0, watchdog_timeout_s=60.0, on_failure=lambda _: None)
    session.add_lease(Lease("stream", lambda _: None))
    session.mark_recovering("no frame for 60 s", is_restart=True)
    receive = FrameIntake(session).start_epoch()
    session.watchdog.start_silence(time.monotonic() + 10.0)
    receive(make_frame())
    assert isinstance(decide(SessionSnapshot.of(session), time.monotonic()), Wait)
    session.watchdog.start_silence(time.monotonic())
    receive(make_frame())
    assert decide(SessionSnapshot.of(session), time.monotonic()) is Step.MARK_RECOVERED
    session.frames.clear()
