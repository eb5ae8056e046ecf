"""What a silence calls for, by the clock alone; what is then done is tried with the holder."""

from softcam.camera.session.frame_rate import FrameRateMeter
from softcam.camera.session.watchdog import Watchdog

STEADY = {"FrameDuration": 50_000}


def _watched(timeout_s: float = 10.0) -> tuple[Watchdog, FrameRateMeter]:
    pace = FrameRateMeter()
    watchdog = Watchdog(timeout_s, pace)
    watchdog.begin(100.0)
    return watchdog, pace


def test_a_silence_is_counted_from_the_opening_or_the_last_frame() -> None:
    watchdog, pace = _watched()
    assert (watchdog.act_s(), watchdog.has_heard) == (110.0, False)
    pace.count(STEADY, 104.0)
    assert watchdog.has_heard
    assert watchdog.silence_s(106.0) == 2.0
    assert watchdog.act_s() == 104.0 + 10.0 + pace.pipeline_s
    watchdog.excuse(120.0)
    assert watchdog.silence_s(121.0) == 1.0


def test_a_long_exposure_is_no_silence() -> None:
    watchdog, pace = _watched()
    pace.expect({"ExposureTime": 6_000_000})
    assert watchdog.act_s() == 110.0 + 18.0


def test_without_a_timeout_nothing_is_done() -> None:
    watchdog, _ = _watched(0.0)
    assert watchdog.act_s() is None
    assert watchdog.count_opening(1000.0) is None
    assert watchdog.tries == 0


def test_tries_are_forgotten_when_frames_have_lasted() -> None:
    watchdog, pace = _watched()
    watchdog.tries = 1
    watchdog.forget(120.0)
    assert watchdog.tries == 1, "no frame came"
    pace.count(STEADY, 105.0)
    watchdog.forget(109.0)
    assert watchdog.tries == 1
    watchdog.excuse(109.5)
    pace.count(STEADY, 109.9)
    watchdog.forget(110.0)
    assert watchdog.tries == 0, "a still in between begins nothing anew"


def test_an_opening_that_was_silent_to_its_end_is_a_try() -> None:
    watchdog, pace = _watched()
    assert watchdog.count_opening(105.0) is None
    assert watchdog.tries == 0, "not for long"
    assert watchdog.count_opening(111.0) == 11.0
    assert watchdog.tries == 1
    watchdog.begin(200.0)
    pace.count(STEADY, 201.0)
    assert watchdog.count_opening(300.0) is None
    assert watchdog.tries == 0
