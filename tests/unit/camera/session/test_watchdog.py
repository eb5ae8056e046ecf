"""`Watchdog`: how long a camera has been silent."""

from softcam.camera.session.frame_rate import FrameRateMeter
from softcam.camera.session.sent_controls import SentControls
from softcam.camera.session.watchdog import Watchdog

STEADY = {"FrameDuration": 50_000}


def _watched(timeout_s: float = 10.0, sent: SentControls | None = None) -> tuple[Watchdog, FrameRateMeter]:
    pace = FrameRateMeter(sent or SentControls())
    watchdog = Watchdog(timeout_s, pace)
    watchdog.start_silence(100.0)
    return watchdog, pace


def test_silence_since_opening_or_last_frame() -> None:
    watchdog, pace = _watched()
    assert (watchdog.stall_at_s, watchdog.has_frame) == (110.0, False)
    pace.count_frame(STEADY, 104.0)
    assert watchdog.has_frame
    assert watchdog.silent_since_s == 104.0
    assert watchdog.stall_at_s == 104.0 + 10.0 + pace.pipeline_s
    watchdog.excuse_silence(120.0)
    assert watchdog.silent_since_s == 120.0


def test_requested_exposure_extends_the_timeout() -> None:
    sent = SentControls()
    watchdog, _ = _watched(sent=sent)
    sent.record({"ExposureTime": 6_000_000}, 100.0)
    assert watchdog.stall_at_s == 110.0 + 18.0


def test_disabled() -> None:
    watchdog, _ = _watched(0.0)
    assert watchdog.stall_at_s is None
    assert watchdog.count_silent_opening(1000.0) is None
    assert watchdog.tries == 0


def test_excused_silence_does_not_move_calm() -> None:
    watchdog, _ = _watched()
    watchdog.excuse_silence(109.5)
    assert watchdog.calm_at_s == 110.0


def test_silent_opening_is_a_try() -> None:
    watchdog, pace = _watched()
    assert watchdog.count_silent_opening(105.0) is None
    assert watchdog.tries == 0, "not for long"
    assert watchdog.count_silent_opening(111.0) == 11.0
    assert watchdog.tries == 1
    watchdog.start_silence(200.0)
    pace.count_frame(STEADY, 201.0)
    assert watchdog.count_silent_opening(300.0) is None
    assert watchdog.tries == 0
