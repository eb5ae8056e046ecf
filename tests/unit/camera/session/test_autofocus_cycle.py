"""One autofocus cycle, from metadata alone."""

from collections.abc import Sequence

import pytest

from softcam.camera.session.autofocus_cycle import START_CONTROLS, AfState, FocusCycle, FocusOutcome

IDLE, SCANNING, FOCUSED, FAILED = AfState.IDLE, AfState.SCANNING, AfState.FOCUSED, AfState.FAILED
FRAME_S = 0.1


def run(states: Sequence[int | None], timeout_s: float = 5.0) -> tuple[int, FocusOutcome] | None:
    """The frame, counted from one, at which the cycle ended, and its outcome."""
    cycle = FocusCycle("a test", 10.0, timeout_s)
    for number, state in enumerate(states, 1):
        metadata = {} if state is None else {"AfState": int(state), "LensPosition": 1.5}
        outcome = cycle.process_frame(metadata, 10.0 + number * FRAME_S)
        assert cycle.outcome is outcome
        if outcome is not None:
            return number, outcome
    return None


def test_cycle_starts_with_a_trigger() -> None:
    assert START_CONTROLS == {"AfMode": 1, "AfTrigger": 0}
    assert all(type(value) is int for value in START_CONTROLS.values())


@pytest.mark.parametrize(
    ("states", "over_at", "verdict"),
    [
        ([IDLE, SCANNING, SCANNING, FOCUSED], 4, "focused"),
        ([IDLE, SCANNING, FAILED], 3, "failed"),
        ([FOCUSED, FOCUSED, SCANNING, FAILED], 4, "failed"),  # the verdict of before is not ours
        ([FAILED, SCANNING, FOCUSED], 3, "focused"),
        ([SCANNING, IDLE, FOCUSED], 3, "focused"),
        ([FOCUSED] * 20, 13, "focused"),  # a scan that no frame saw
        ([FAILED] * 20, 13, "failed"),
        ([IDLE] * 60, 50, "timed out"),
        ([SCANNING] * 60, 50, "timed out"),
        ([None] * 60, 50, "timed out"),
    ],
)
def test_verdicts(states: Sequence[int | None], over_at: int, verdict: str) -> None:
    result = run(states)
    assert result is not None
    number, outcome = result
    assert (number, outcome.verdict) == (over_at, verdict)
    assert outcome.is_focused == (verdict == "focused")
    assert outcome.took_s == pytest.approx(over_at * FRAME_S)
    assert outcome.purpose == "a test"


def test_no_outcome_while_scanning() -> None:
    assert run([IDLE, IDLE, SCANNING, SCANNING]) is None


def test_verdict_at_the_timeout() -> None:
    result = run([SCANNING] * 4 + [FOCUSED], timeout_s=0.5)
    assert result is not None
    assert result[1].verdict == "focused"


def test_frames_after_the_cycle() -> None:
    result = run([IDLE, SCANNING, FOCUSED])
    assert result is not None
    assert result[1].before_s == 10.0 + 2 * FRAME_S, "the frame with the verdict began after the one before arrived"
    first = run([IDLE], timeout_s=0.0)
    assert first is not None
    assert first[1].before_s == 10.0


def test_lens_position_if_known() -> None:
    known, unknown = run([SCANNING, FOCUSED]), run([None] * 60)
    assert known is not None
    assert unknown is not None
    assert known[1].lens_position == 1.5
    assert unknown[1].lens_position is None
