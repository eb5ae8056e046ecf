"""`ExposureSettling`: when the exposure of a cold camera is settled."""

from collections.abc import Iterable, Mapping
from typing import Any

import pytest

from softcam.camera.session.settling import ExposureSettling

FRAME_S = 0.05
SEARCHING, CONVERGED = 1, 2


def frames_until_settled(metadata: Iterable[Mapping[str, Any]]) -> int | None:
    """How many frames were not settled; None if all of them were not."""
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
def test_camera_without_exposure_is_settled(metadata: Mapping[str, Any]) -> None:
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
def test_settled_after_three_stable_frames(metadata: Mapping[str, Any]) -> None:
    assert frames_until_settled([metadata] * 10) == 3


def test_small_changes_are_stable() -> None:
    assert frames_until_settled([steady(ExposureTime=8000 + 100 * number) for number in range(10)]) == 3


@pytest.mark.parametrize(
    "restless",
    [
        [steady(ExposureTime=8000 * 2**number) for number in range(6)],
        [steady(AnalogueGain=1.0 + number) for number in range(6)],
        [steady(ColourGains=(1.0 + number, 1.8)) for number in range(6)],
    ],
)
def test_not_settled_while_values_change(restless: list[Mapping[str, Any]]) -> None:
    assert frames_until_settled(restless) is None
    assert frames_until_settled([*restless, *[restless[-1]] * 5]) == len(restless) + 2


def test_jump_restarts_settling() -> None:
    jump = steady(ExposureTime=16000)
    assert frames_until_settled([steady(), steady(), steady(), *[jump] * 6]) == 6


@pytest.mark.parametrize("says", [{"AeState": SEARCHING}, {"AeLocked": False}])
def test_state_of_the_camera_decides(says: Mapping[str, Any]) -> None:
    assert frames_until_settled([steady(**says)] * 12) is None
    assert frames_until_settled([*[steady(**says)] * 12, steady(AeState=CONVERGED)]) == 12


def test_late_white_balance_restarts_settling() -> None:
    bare = {"ExposureTime": 8000}
    assert frames_until_settled([bare, bare, bare, *[steady()] * 6]) == 6


def test_timeout() -> None:
    flicker = [steady(ExposureTime=4000 if number % 2 else 16000) for number in range(60)]
    assert frames_until_settled(flicker) == 40, "2 s of 50 ms"


def test_timeout_with_a_long_exposure() -> None:
    settling = ExposureSettling(100.0)
    assert not settling.process_frame(steady(ExposureTime=6_000_000), 100.0)
    assert settling.process_frame(steady(ExposureTime=6_000_000), 106.0)


def test_nan_is_not_stable() -> None:
    assert frames_until_settled([steady(ExposureTime=float("nan"))] * 10) is None
