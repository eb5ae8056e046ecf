"""What the camera thread does next: a pure function of a snapshot of the session and the time."""

import enum
from dataclasses import dataclass

from softcam.camera.session.state import SessionState, State


class Step(enum.Enum):
    """A call for the camera thread, or a change of the shared state alone (the last group)."""

    OPEN = enum.auto()
    CLOSE = enum.auto()
    RECOVER = enum.auto()  # restart the stream, reopen the camera, or give it up
    AWAIT_SOURCE = enum.auto()  # a remote camera has disconnected
    RUN_JOB = enum.auto()
    EXIT = enum.auto()

    START_LINGER = enum.auto()
    MARK_RECOVERED = enum.auto()
    FORGET_TRIES = enum.auto()
    UPDATE_REASON = enum.auto()  # why a remote camera is still disconnected


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do before `until_s` (monotonic clock); None: not before the state changes."""

    until_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSnapshot:
    """What `decide` judges; moments are on the monotonic clock."""

    state: State
    has_leases: bool = False
    has_failed: bool = False
    linger_until_s: float = 0.0
    job_due_s: float | None = None  # None if no job is queued
    has_frame: bool = False  # whether one arrived since frames are due
    silent_since_s: float = 0.0
    stall_at_s: float | None = None  # None without a watchdog
    tries: int = 0
    calm_at_s: float = 0.0
    disconnect_reason: str | None = None
    absent_from_s: float = 0.0  # when a disconnected camera counts as away
    last_error: str | None = None

    @classmethod
    def of(cls, session: SessionState) -> "SessionSnapshot":
        """The snapshot of a session. The caller holds its lock."""
        current, watchdog = session.current, session.watchdog
        # The frame thread counts meanwhile, without the lock. A frame after this moment wakes the camera thread.
        has_frame, silent_since_s = watchdog.has_frame, watchdog.silent_since_s
        return cls(
            state=current.state,
            has_leases=bool(current.leases),
            has_failed=current.failure is not None,
            linger_until_s=current.linger_until_s,
            job_due_s=session.jobs.due_s,
            has_frame=has_frame,
            silent_since_s=silent_since_s,
            stall_at_s=watchdog.stall_at_s,
            tries=watchdog.tries,
            calm_at_s=watchdog.calm_at_s,
            disconnect_reason=session.disconnect_reason,
            absent_from_s=silent_since_s + session.limits.absence_s,
            last_error=current.last_error,
        )


def decide(snapshot: SessionSnapshot, now_s: float) -> Step | Wait:
    """The next step of the camera thread."""
    if snapshot.state is State.CLOSED:
        if snapshot.has_failed:
            return Step.EXIT
        return Step.OPEN if snapshot.has_leases else Wait()
    if snapshot.has_failed:
        return Step.CLOSE
    if snapshot.has_leases:
        return _decide_in_use(snapshot, now_s)
    if snapshot.state is State.OPEN:
        return Step.START_LINGER
    # A camera that hangs is not recovered without a client; it is closed.
    if snapshot.state is State.RECOVERING or now_s >= snapshot.linger_until_s:
        return Step.CLOSE
    return Wait(snapshot.linger_until_s)


def _decide_in_use(snapshot: SessionSnapshot, now_s: float) -> Step | Wait:
    is_connected = snapshot.disconnect_reason is None
    if is_connected and snapshot.stall_at_s is not None and now_s >= snapshot.stall_at_s:
        return Step.RECOVER
    if snapshot.has_frame and snapshot.state is State.RECOVERING:
        # Clients see the camera at once; the tries are forgotten when it has lasted.
        return Step.MARK_RECOVERED
    if snapshot.tries and snapshot.has_frame and now_s >= snapshot.calm_at_s:
        return Step.FORGET_TRIES
    until_s = snapshot.stall_at_s
    if not is_connected:
        if snapshot.state is State.RECOVERING:
            # A frame wakes the camera thread, and so does another reason. There is no end to this.
            return Wait() if snapshot.last_error == snapshot.disconnect_reason else Step.UPDATE_REASON
        if now_s >= snapshot.absent_from_s:
            return Step.AWAIT_SOURCE
        until_s = snapshot.absent_from_s
    if snapshot.job_due_s is not None and snapshot.state is State.OPEN:
        if now_s >= snapshot.job_due_s:
            return Step.RUN_JOB
        until_s = snapshot.job_due_s if until_s is None else min(until_s, snapshot.job_due_s)
    return Wait(until_s)
