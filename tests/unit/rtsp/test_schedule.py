"""When a report is due."""

import pytest

from softcam.rtsp.schedule import ReportSchedule


class Clocks:
    def __init__(self) -> None:
        self.now_s = 100.0
        self.unix_s = 1_700_000_000.0
        self.schedule = ReportSchedule(lambda: self.now_s, lambda: self.unix_s)

    def due_after(self, duration_s: float, step_s: float = 0.0) -> bool:
        """Whether a report is due after some time, in which the wall clock has moved by `step_s` more."""
        self.now_s += duration_s
        self.unix_s += duration_s + step_s
        moment = self.schedule.take_due()
        assert moment in (None, (self.now_s, self.unix_s))
        return moment is not None


def test_at_first_and_every_five_seconds() -> None:
    clocks = Clocks()
    assert clocks.due_after(0.0)
    assert not clocks.due_after(0.0)
    for _ in range(2):
        assert not clocks.due_after(4.9)
        assert clocks.due_after(0.1)


@pytest.mark.parametrize("step_s", [-1.6e9, -1.0, 0.2, 1e8])
def test_at_once_when_the_wall_clock_is_set(step_s: float) -> None:
    clocks = Clocks()
    assert clocks.due_after(0.0)
    assert clocks.due_after(0.5, step_s)
    assert not clocks.due_after(0.5)
    assert not clocks.due_after(4.4)
    assert clocks.due_after(0.1)


def test_not_while_the_wall_clock_is_slewed() -> None:
    """However far it is slewed between two regular reports, a step is what the last report does not explain."""
    clocks = Clocks()
    assert clocks.due_after(0.0)
    for _ in range(10):
        assert not any(clocks.due_after(0.5, 0.000_25) for _ in range(9))
        assert clocks.due_after(0.5, 0.000_25)
