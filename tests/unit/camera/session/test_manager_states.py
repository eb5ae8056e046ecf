"""Random sequences of calls: leases are acquired and released, frames arrive or not, calls hang and fail, at any time.

The steps are drawn before they run, since what threads do meanwhile cannot be reproduced. A step that makes no sense
does nothing.
"""

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from softcam.camera.base import OnFrame
from softcam.camera.session.decision import Wait
from softcam.camera.session.manager import Lease, LeaseKind, State
from softcam.errors import CameraBusy, CameraError
from softcam.imaging.frame import Frame
from tests.support.background import Background, eventually, soon, soon_s
from tests.support.fakes import FakeCamera, SessionRig

KINDS: tuple[LeaseKind, ...] = ("stream", "snapshot", "hold")
CALLS = ("open", "still", "close", "restart")
QUIET_STEPS = (
    *("acquire_lease", "release_lease") * 3,
    *(
        "emit",
        "emit_too_late",
        "encode",
        "finish_encoding",
        "request_still",
        "block_call",
        "unblock_calls",
        "check_status",
        "rest",
    ),
)
RESTLESS_STEPS = (*QUIET_STEPS, "fail_restart", "fail_open", "stream")

Steps = Sequence[tuple[str, int]]


class RandomRun:
    """One camera session and the steps against it."""

    def __init__(self, linger_s: float, watchdog_timeout_s: float) -> None:
        self.linger_s = linger_s
        self.camera = FakeCamera()
        self.held = SessionRig(self.camera, linger_s=linger_s, watchdog_timeout_s=watchdog_timeout_s)
        self.leases: list[Lease] = []
        self.encoding: list[Frame] = []
        self.stills: list[Background] = []
        self.earlier: OnFrame | None = None

    def run(self, steps: Steps) -> None:
        try:
            for step, number in steps:
                getattr(self, step)(number)
                assert self.camera.faults == []
        finally:
            self.camera.unblock()
            self.held.manager.stop()
        for lease in self.leases:
            lease.release()
        for frame in self.encoding:
            frame.release()
        for still in self.stills:
            self.end_still(still)
        assert self.held.manager.wait_until_closed(soon())
        assert len(self.held.failures) <= 1, "a failure is reported once"
        self.held.failures.clear()
        self.held.check_end()

    def end_still(self, still: Background) -> None:
        try:
            still.result().release()
        except CameraError:
            return

    # The steps

    def acquire_lease(self, number: int) -> None:
        try:
            self.leases.append(self.held.manager.lease(KINDS[number % len(KINDS)]))
        except CameraError:
            assert self.held.session.current.failure is not None

    def release_lease(self, number: int) -> None:
        if self.leases:
            lease = self.leases.pop(number % len(self.leases))
            lease.release()
            lease.release()

    def emit(self, _: int) -> None:
        self.earlier = self.camera.callback or self.earlier
        self.camera.emit_if_open()

    def emit_too_late(self, _: int) -> None:
        if self.earlier is not None and self.earlier is not self.camera.callback:
            self.camera.emit(to=self.earlier)

    def encode(self, _: int) -> None:
        frame = self.held.manager.frames.held()
        if frame is not None:
            self.encoding.append(frame)

    def finish_encoding(self, _: int) -> None:
        if self.encoding:
            self.encoding.pop().release()

    def request_still(self, _: int) -> None:
        if self.leases and len(self.stills) < 3:
            self.stills.append(Background(lambda: self.held.manager.still(None, soon_s())))

    def block_call(self, number: int) -> None:
        self.camera.block(CALLS[number % len(CALLS)])

    def unblock_calls(self, _: int) -> None:
        self.camera.unblock()

    def check_status(self, _: int) -> None:
        assert sum(self.held.manager.status().leases.values()) == len(self.leases)

    def rest(self, _: int) -> None:
        """Wait until nothing changes any more, and compare with what follows from the leases."""
        if self.held.session.watchdog.timeout_s:
            return
        eventually(self.is_at_rest, "rest")
        if not self.camera.is_blocked():
            assert self.camera.is_open == (self.expected() is not State.CLOSED)
            assert self.camera.frames_out <= len(self.encoding) + int(self.camera.is_open)

    def fail_restart(self, _: int) -> None:
        self.camera.fail_next("restart", CameraError("does not start"))

    def fail_open(self, _: int) -> None:
        self.camera.fail_next("open", CameraBusy("taken"))

    def stream(self, _: int) -> None:
        """Deliver frames until the camera is open or has failed."""
        with self.camera.flowing():
            eventually(self.is_open_or_failed, "frames, or the end")

    # Predicates

    def is_at_rest(self) -> bool:
        """Whether a call blocks, or the camera thread has nothing left to do."""
        if self.camera.is_blocked():
            return True
        has_work = bool(self.leases and self.held.waiting_for_jobs())
        return self.held.state is self.expected() and not has_work and isinstance(self.held.decision(0), Wait)

    def expected(self) -> State:
        if self.leases:
            return State.OPEN
        return State.LINGERING if self.linger_s and self.camera.opens else State.CLOSED

    def is_open_or_failed(self) -> bool:
        is_well = self.held.state in (State.OPEN, State.LINGERING, State.CLOSED)
        return is_well or self.camera.is_blocked() or self.held.session.current.failure is not None


def steps_of(names: Sequence[str]) -> st.SearchStrategy[Steps]:
    return st.lists(st.tuples(st.sampled_from(names), st.integers(0, 11)), max_size=40)


LINGERS_S = st.sampled_from((0.0, 60.0))


@settings(max_examples=60, deadline=None)
@given(steps=steps_of(QUIET_STEPS), linger_s=LINGERS_S)
def test_random_calls_without_failures(steps: Steps, linger_s: float) -> None:
    """No watchdog and no failure: as soon as nothing changes, the state follows from the leases."""
    RandomRun(linger_s, watchdog_timeout_s=0.0).run(steps)


@settings(max_examples=60, deadline=None)
@given(steps=steps_of(RESTLESS_STEPS), linger_s=LINGERS_S)
def test_random_calls_with_failures(steps: Steps, linger_s: float) -> None:
    """A very short watchdog, and a camera that refuses now and then."""
    RandomRun(linger_s, watchdog_timeout_s=0.002).run(steps)
