"""What the camera thread does next, as a table."""

from typing import Any

import pytest

from softcam.camera.session.decision import SessionSnapshot, Step, Wait, decide
from softcam.camera.session.state import State

NOW_S = 100.0
IN_USE: dict[str, Any] = {"state": State.OPEN, "has_leases": True, "stall_at_s": 110.0, "silent_since_s": 99.0}
STALLED: dict[str, Any] = IN_USE | {"stall_at_s": 100.0}
RECOVERING: dict[str, Any] = IN_USE | {"state": State.RECOVERING, "tries": 1, "calm_at_s": 105.0}
AWAY: dict[str, Any] = IN_USE | {"disconnect_reason": "refused", "absent_from_s": 101.0, "last_error": None}
UNUSED: dict[str, Any] = {"state": State.LINGERING, "linger_until_s": 130.0, "stall_at_s": 90.0}


@pytest.mark.parametrize(
    ("snapshot", "expected"),
    [
        pytest.param({"state": State.CLOSED}, Wait(), id="closed, no lease"),
        pytest.param({"state": State.CLOSED, "has_leases": True}, Step.OPEN, id="closed, a lease"),
        pytest.param({"state": State.CLOSED, "has_failed": True}, Step.EXIT, id="closed, failed"),
        pytest.param({"state": State.CLOSED, "has_failed": True, "has_leases": True}, Step.EXIT, id="failed, a lease"),
        pytest.param(IN_USE | {"has_failed": True}, Step.CLOSE, id="open, failed"),
        pytest.param(IN_USE | {"state": State.MISSING, "has_failed": True}, Step.CLOSE, id="missing"),
        pytest.param({"state": State.OPEN}, Step.START_LINGER, id="last lease released"),
        pytest.param(UNUSED, Wait(130.0), id="lingering, also when silent"),
        pytest.param(UNUSED | {"linger_until_s": 100.0}, Step.CLOSE, id="linger is over"),
        pytest.param(UNUSED | {"state": State.RECOVERING}, Step.CLOSE, id="recovering without a client"),
        pytest.param(IN_USE, Wait(110.0), id="in use"),
        pytest.param(IN_USE | {"stall_at_s": None}, Wait(), id="in use, no watchdog"),
        pytest.param(STALLED, Step.RECOVER, id="stalled"),
        pytest.param(STALLED | {"job_due_s": 0.0}, Step.RECOVER, id="stalled, a job"),
        pytest.param(RECOVERING, Wait(110.0), id="recovering, no frame yet"),
        pytest.param(RECOVERING | {"job_due_s": 0.0}, Wait(110.0), id="no job while recovering"),
        pytest.param(RECOVERING | {"stall_at_s": 100.0}, Step.RECOVER, id="the restart did not help"),
        pytest.param(RECOVERING | {"has_frame": True}, Step.MARK_RECOVERED, id="a frame while recovering"),
        pytest.param(IN_USE | {"tries": 1, "calm_at_s": 100.0, "has_frame": True}, Step.FORGET_TRIES, id="calm again"),
        pytest.param(IN_USE | {"tries": 1, "calm_at_s": 100.0}, Wait(110.0), id="calm needs a frame"),
        pytest.param(
            IN_USE | {"tries": 1, "calm_at_s": 101.0, "has_frame": True},
            Wait(110.0),
            id="a short relief does not count",
        ),
        pytest.param(IN_USE | {"job_due_s": 100.0}, Step.RUN_JOB, id="a job"),
        pytest.param(IN_USE | {"job_due_s": 105.0}, Wait(105.0), id="a job that has to wait"),
        pytest.param(IN_USE | {"job_due_s": 115.0}, Wait(110.0), id="a job after the watchdog"),
        pytest.param(IN_USE | {"job_due_s": 105.0, "stall_at_s": None}, Wait(105.0), id="a job, no watchdog"),
        pytest.param(AWAY, Wait(101.0), id="disconnected for a moment"),
        pytest.param(AWAY | {"absent_from_s": 100.0}, Step.AWAIT_SOURCE, id="disconnected"),
        pytest.param(AWAY | {"stall_at_s": 0.0}, Wait(101.0), id="disconnected, no restart"),
        pytest.param(AWAY | {"job_due_s": 0.0}, Step.RUN_JOB, id="disconnected for a moment, a job"),
        pytest.param(AWAY | {"state": State.RECOVERING}, Step.UPDATE_REASON, id="another reason"),
        pytest.param(
            AWAY | {"state": State.RECOVERING, "last_error": "refused", "stall_at_s": 0.0},
            Wait(),
            id="awaiting the source",
        ),
        pytest.param(AWAY | {"state": State.RECOVERING, "has_frame": True}, Step.MARK_RECOVERED, id="a frame before"),
    ],
)
def test_decide(snapshot: dict[str, Any], expected: Step | Wait) -> None:
    assert decide(SessionSnapshot(**snapshot), NOW_S) == expected
