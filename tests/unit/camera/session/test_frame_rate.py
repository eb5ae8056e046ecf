"""The measured rate, and how long a silence may be."""

import pytest

from softcam.camera.session.frame_rate import FrameDecimator, FrameRateMeter
from softcam.camera.session.sent_controls import SentControls


def counted(frames: int, interval_s: float, *, from_s: float = 100.0, exposure_us: int = 1000) -> FrameRateMeter:
    pace = FrameRateMeter(SentControls())
    for number in range(frames):
        pace.count_frame({"ExposureTime": exposure_us, "FrameDuration": 50_000}, from_s + number * interval_s)
    return pace


@pytest.mark.parametrize("frames", [0, 1])
def test_rate_needs_two_frames(frames: int) -> None:
    assert counted(frames, 0.05).fps(200.0) == 0.0


@pytest.mark.parametrize(("interval_s", "fps"), [(0.05, 20.0), (0.04, 25.0), (6.0, 0.17)])
def test_rate_is_measured(interval_s: float, fps: float) -> None:
    pace = counted(100, interval_s)
    assert pace.fps(pace.last_frame_s) == fps
    assert pace.fps(pace.last_frame_s + interval_s) == fps, "the next frame is on its way"


def test_rate_decreases_in_silence() -> None:
    pace = counted(61, 0.05)
    rates = [pace.fps(pace.last_frame_s + silence_s) for silence_s in (0.1, 1, 10, 100)]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < 1


def test_rate_follows_the_newest_frames() -> None:
    pace = counted(200, 0.05)
    for number in range(60):
        pace.count_frame({}, 200.0 + number * 0.1)
    assert pace.fps(pace.last_frame_s) == 10.0


def test_rate_after_a_new_frame_duration() -> None:
    pace = counted(20, 0.05)
    for interval_s in (0.05, 0.5, 0.5):  # the last of the short intervals ends with the first long frame
        pace.count_frame({"FrameDuration": 500_000}, pace.last_frame_s + interval_s)
    assert pace.fps(pace.last_frame_s) == 2.0


def test_rate_of_simultaneous_frames() -> None:
    assert counted(2, 0.0).fps(100.0) > 0


def test_pause_does_not_lower_the_rate() -> None:
    pace = counted(30, 0.05)
    pace.reset_rate()
    assert pace.fps(pace.last_frame_s + 20) == 0.0
    for number in range(3):
        pace.count_frame({}, 300.0 + number * 0.05)
    assert pace.fps(pace.last_frame_s) == 20.0


def test_pipeline_follows_the_longer_of_exposure_and_frame() -> None:
    assert FrameRateMeter(SentControls()).pipeline_s == 0.0
    assert counted(1, 1.0).pipeline_s == pytest.approx(0.15)
    assert counted(1, 1.0, exposure_us=6_000_000).pipeline_s == pytest.approx(18)


@pytest.mark.parametrize("metadata", [{}, {"ExposureTime": None, "FrameDuration": None}])
def test_metadata_without_durations(metadata: dict[str, None]) -> None:
    pace = FrameRateMeter(SentControls())
    pace.count_frame(metadata, 1.0)
    assert pace.pipeline_s == 0.0


@pytest.mark.parametrize(
    "controls",
    [
        {"ExposureTime": 6_000_000},
        {"FrameDurationLimits": (6_000_000, 8_000_000)},
        {"ExposureTime": 6_000_000, "FrameDurationLimits": (100, 8_000_000)},
    ],
)
def test_longer_exposure_applies_when_sent(controls: dict[str, object]) -> None:
    sent = SentControls()
    pace = FrameRateMeter(sent)
    sent.record(controls, 100.0)
    assert pace.pipeline_s == pytest.approx(18)
    for number in range(12):  # these were on their way
        sent.count_frame()
        pace.count_frame({"ExposureTime": 1000}, 110.0 + number)
        assert pace.pipeline_s == pytest.approx(18)
    sent.count_frame()  # the camera exposes for less than requested: the metadata knows better
    pace.count_frame({"ExposureTime": 1000}, 130.0)
    assert pace.pipeline_s < 0.01


@pytest.mark.parametrize("controls", [{}, {"ExposureTime": 0}, {"ExposureTime": None}, {"AfMode": 1}])
def test_other_controls_keep_the_requested_duration(controls: dict[str, object]) -> None:
    sent = SentControls()
    pace = FrameRateMeter(sent)
    sent.record({"ExposureTime": 6_000_000}, 100.0)
    sent.record(controls, 100.1)
    assert pace.pipeline_s == pytest.approx(18)


def test_reset_for_an_opening() -> None:
    pace = counted(50, 0.05, exposure_us=6_000_000)
    last_s = pace.last_frame_s
    pace.reset()
    assert pace.pipeline_s == 0.0
    assert pace.fps(last_s) == 0.0
    assert pace.last_frame_s == last_s


@pytest.mark.parametrize(("camera_fps", "wanted_fps"), [(30, 20), (30, 15), (30, 7), (60, 25), (30, 1)])
def test_decimation_to_about_the_requested_rate(camera_fps: int, wanted_fps: int) -> None:
    thinning = FrameDecimator(wanted_fps)
    taken = sum(thinning.should_pass(100.0 + number / camera_fps) for number in range(60 * camera_fps))
    assert wanted_fps * 60 <= taken <= wanted_fps * 60 * 1.12 + 1


@pytest.mark.parametrize("camera_fps", [14.0, 19.9, 20.0, 20.5, 21.9])
def test_no_decimation_at_about_the_requested_rate(camera_fps: float) -> None:
    thinning = FrameDecimator(20)
    assert all(thinning.should_pass(100.0 + number / camera_fps) for number in range(2000))


def test_no_burst_after_a_pause() -> None:
    thinning = FrameDecimator(10)
    assert thinning.should_pass(100.0)
    after_s = [160.0 + number / 60 for number in range(60)]
    assert sum(thinning.should_pass(moment_s) for moment_s in after_s) <= 12
