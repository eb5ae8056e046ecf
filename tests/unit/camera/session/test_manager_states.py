"""The holder against random lives: leases come and go, frames come or not, calls hang and fail, at any moment.

The steps are drawn before the life begins, since what threads do meanwhile cannot be drawn again. Each step does
nothing where it makes no sense.
"""

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from softcam.camera.base import OnFrame
from softcam.camera.session.manager import Lease, LeaseKind, State
from softcam.errors import CameraBusy, CameraError
from softcam.imaging.frame import Frame
from tests.support.fakes import Background, FakeCamera, Held, eventually, soon_s, waiters

KINDS: tuple[LeaseKind, ...] = ("stream", "snapshot", "hold")
CALLS = ("open", "still", "close", "restart")
QUIET_STEPS = (
    *("come", "leave") * 3,
    *("emit", "emit_too_late", "encode", "finish_encoding", "want_still", "hold_up", "go_on", "look", "rest"),
)
RESTLESS_STEPS = (*QUIET_STEPS, "fail_to_restart", "be_busy", "flow")

Steps = Sequence[tuple[str, int]]


class Life:
    """One holder and what a random world does to it."""

    def __init__(self, linger_s: float, watchdog_timeout_s: float) -> None:
        self.linger_s = linger_s
        self.camera = FakeCamera()
        self.held = Held(self.camera, linger_s=linger_s, watchdog_timeout_s=watchdog_timeout_s)
        self.leases: list[Lease] = []
        self.encoding: list[Frame] = []
        self.stills: list[Background] = []
        self.earlier: OnFrame | None = None

    def live(self, steps: Steps) -> None:
        try:
            for step, number in steps:
                getattr(self, step)(number)
                assert self.camera.faults == []
        finally:
            self.camera.let()
            self.held.manager.stop()
        for lease in self.leases:
            lease.release()
        for frame in self.encoding:
            frame.release()
        for still in self.stills:
            self.end_still(still)
        assert self.held.manager.join(soon_s())
        assert len(self.held.failures) <= 1, "a failure is told once"
        self.held.failures.clear()
        self.held.check_end()

    def end_still(self, still: Background) -> None:
        try:
            still.result().release()
        except CameraError:
            return

    # The steps

    def come(self, number: int) -> None:
        try:
            self.leases.append(self.held.manager.lease(KINDS[number % len(KINDS)]))
        except CameraError:
            assert self.held.session.failure is not None

    def leave(self, number: int) -> None:
        if self.leases:
            lease = self.leases.pop(number % len(self.leases))
            lease.release()
            lease.release()

    def emit(self, _: int) -> None:
        with self.camera._changed:
            self.earlier = self.camera._on_frame or self.earlier
        self.camera.emit_if_open()

    def emit_too_late(self, _: int) -> None:
        with self.camera._changed:
            is_late = self.earlier is not None and self.earlier is not self.camera._on_frame
        if is_late:
            self.camera.emit(to=self.earlier)

    def encode(self, _: int) -> None:
        frame = self.held.manager.frames.held()
        if frame is not None:
            self.encoding.append(frame)

    def finish_encoding(self, _: int) -> None:
        if self.encoding:
            self.encoding.pop().release()

    def want_still(self, _: int) -> None:
        if self.leases and len(self.stills) < 3:
            self.stills.append(Background(lambda: self.held.manager.still(None, soon_s())))

    def hold_up(self, number: int) -> None:
        self.camera.shut(CALLS[number % len(CALLS)])

    def go_on(self, _: int) -> None:
        self.camera.let()

    def look(self, _: int) -> None:
        assert sum(self.held.manager.status().leases.values()) == len(self.leases)

    def rest(self, _: int) -> None:
        """Let everything come to rest, and compare with what follows from the leases."""
        if self.held.session.watchdog.timeout_s:
            return
        eventually(self.is_at_rest, "rest")
        with self.camera._changed:
            if not self.camera._inside:
                assert self.camera.is_open == (self.expected() is not State.CLOSED)
                assert self.camera.frames_out <= len(self.encoding) + int(self.camera.is_open)

    def fail_to_restart(self, _: int) -> None:
        self.camera.fail_next("restart", CameraError("does not start"))

    def be_busy(self, _: int) -> None:
        self.camera.fail_next("open", CameraBusy("taken"))

    def flow(self, _: int) -> None:
        """Frames come, until all is well or lost."""
        with self.camera.flowing():
            eventually(self.is_well_or_over, "frames, or the end")

    # What must come true

    def is_held_up(self) -> bool:
        with self.camera._changed:
            return bool(self.camera._shut.intersection(self.camera._inside))

    def is_at_rest(self) -> bool:
        if self.is_held_up():
            return True
        session = self.held.session
        with session.changed:
            has_work = bool(self.leases and session.jobs)
            return waiters(session.changed) > 0 and not has_work and session.state is self.expected()

    def expected(self) -> State:
        if self.leases:
            return State.OPEN
        return State.LINGERING if self.linger_s and self.camera.opens else State.CLOSED

    def is_well_or_over(self) -> bool:
        is_well = self.held.state in (State.OPEN, State.LINGERING, State.CLOSED)
        return is_well or self.is_held_up() or self.held.session.failure is not None


def steps_of(names: Sequence[str]) -> st.SearchStrategy[Steps]:
    return st.lists(st.tuples(st.sampled_from(names), st.integers(0, 11)), max_size=40)


LINGERS_S = st.sampled_from((0.0, 60.0))


@settings(max_examples=60, deadline=None)
@given(steps=steps_of(QUIET_STEPS), linger_s=LINGERS_S)
def test_quiet_life(steps: Steps, linger_s: float) -> None:
    """No watchdog and no failure: as soon as nothing moves, the state follows from the leases."""
    Life(linger_s, watchdog_timeout_s=0.0).live(steps)


@settings(max_examples=60, deadline=None)
@given(steps=steps_of(RESTLESS_STEPS), linger_s=LINGERS_S)
def test_restless_life(steps: Steps, linger_s: float) -> None:
    """A watchdog that bites at once, and a camera that refuses now and then: what must never happen does not."""
    Life(linger_s, watchdog_timeout_s=0.002).live(steps)
