"""When the pictures of a cold camera count."""

from collections.abc import Iterable, Mapping
from typing import Any

import pytest

from softcam.camera.session.settling import ExposureSettling

FRAME_S = 0.05
SEARCHING, CONVERGED = 1, 2


def frames_until_settled(metadata: Iterable[Mapping[str, Any]]) -> int | None:
    """How many frames did not count; None where all of them did not."""
    settling = ExposureSettling(100.0)
    for number, one in enumerate(metadata):
        if settling.process_frame(one, 100.0 + number * FRAME_S):
            return number
    return None


def steady(**more: Any) -> Mapping[str, Any]:
    return {"ExposureTime": 8000, "AnalogueGain": 2.0, "ColourGains": (1.5, 1.8), **more}


@pytest.mark.parametrize(
    "metadata",
    [{}, {"ExposureTime": None}, {"SensorTimestamp": 5}],
)
def test_camera_that_tells_no_exposure_has_nothing_to_settle(metadata: Mapping[str, Any]) -> None:
    assert frames_until_settled([metadata]) == 0


@pytest.mark.parametrize(
    "metadata",
    [
        steady(),
        steady(AeState=CONVERGED),
        steady(AeLocked=True),
        {"ExposureTime": 8000},
        steady(AnalogueGain=None, ColourGains=None),
        steady(ExposureTime=0),
    ],
)
def test_three_restful_frames_settle(metadata: Mapping[str, Any]) -> None:
    assert frames_until_settled([metadata] * 10) == 3


def test_small_changes_are_rest() -> None:
    assert frames_until_settled([steady(ExposureTime=8000 + 100 * number) for number in range(10)]) == 3


@pytest.mark.parametrize(
    "restless",
    [
        [steady(ExposureTime=8000 * 2**number) for number in range(6)],
        [steady(AnalogueGain=1.0 + number) for number in range(6)],
        [steady(ColourGains=(1.0 + number, 1.8)) for number in range(6)],
    ],
)
def test_changes_are_waited_for(restless: list[Mapping[str, Any]]) -> None:
    assert frames_until_settled(restless) is None
    assert frames_until_settled([*restless, *[restless[-1]] * 5]) == len(restless) + 2


def test_one_jump_begins_anew() -> None:
    jump = steady(ExposureTime=16000)
    assert frames_until_settled([steady(), steady(), steady(), *[jump] * 6]) == 6


@pytest.mark.parametrize("says", [{"AeState": SEARCHING}, {"AeLocked": False}])
def test_camera_has_the_last_word(says: Mapping[str, Any]) -> None:
    assert frames_until_settled([steady(**says)] * 12) is None
    assert frames_until_settled([*[steady(**says)] * 12, steady(AeState=CONVERGED)]) == 12


def test_white_balance_that_comes_late_begins_anew() -> None:
    bare = {"ExposureTime": 8000}
    assert frames_until_settled([bare, bare, bare, *[steady()] * 6]) == 6


def test_patience_ends() -> None:
    flicker = [steady(ExposureTime=4000 if number % 2 else 16000) for number in range(60)]
    assert frames_until_settled(flicker) == 40, "2 s of 50 ms"


def test_long_exposure_does_not_wait_for_four_frames() -> None:
    settling = ExposureSettling(100.0)
    assert not settling.process_frame(steady(ExposureTime=6_000_000), 100.0)
    assert settling.process_frame(steady(ExposureTime=6_000_000), 106.0)


def test_odd_numbers_are_not_rest() -> None:
    assert frames_until_settled([steady(ExposureTime=float("nan"))] * 10) is None
