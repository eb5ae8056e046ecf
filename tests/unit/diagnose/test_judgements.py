"""What the checks of the camera conclude from measured values: pure functions."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from softcam.controls.schema import BY_NAME, GROUPS
from softcam.diagnose.camera import SeenFrame
from softcam.diagnose.controls import PROBES, judge_group, unseen
from softcam.diagnose.encoders import judge_h264, judge_jpeg
from softcam.diagnose.openings import Usage, judge_openings
from softcam.diagnose.report import Status
from softcam.diagnose.stream import judge_rate

MB = 1_000_000


# Frame rate


def frames_at(moments: Sequence[float], *, delay_s: float = 0.03) -> list[SeenFrame]:
    return [SeenFrame(moment + delay_s, moment, {}) for moment in moments]


def steady(count: int, fps: float) -> list[float]:
    return [number / fps for number in range(count)]


@pytest.mark.parametrize(
    ("moments", "fps", "status", "measured_fps", "missing", "longest_ms"),
    [
        (steady(151, 30), 30, Status.OK, 30.0, 0, 33.3),
        (steady(151, 29.5), 30, Status.OK, 29.5, 0, 33.9),
        # One of 150 is missing: that happens.
        ([each for each in steady(151, 30) if each != 75 / 30], 30, Status.OK, 29.8, 1, 66.7),
        # A pause of half a second.
        ([each for each in steady(151, 30) if not 2.001 < each < 2.49], 30, Status.WARNING, 27.2, 14, 500.0),
        (steady(126, 25), 30, Status.WARNING, 25.0, 0, 40.0),
        (steady(51, 10), 30, Status.FAILED, 10.0, 100, 100.0),
        (steady(3, 0.5), 0.5, Status.OK, 0.5, 0, 2000.0),
    ],
)
def test_frame_rate(
    moments: list[float], fps: float, status: Status, measured_fps: float, missing: int, longest_ms: float
) -> None:
    finding = judge_rate(frames_at(moments), fps, 5.0)
    assert finding.status is status
    assert finding.data["measured_fps"] == pytest.approx(measured_fps, abs=0.1)
    assert finding.data["missing_frames"] == missing
    assert finding.data["longest_gap_ms"] == pytest.approx(longest_ms, abs=0.1)
    assert finding.data["delay_ms"] == pytest.approx(30)
    assert (finding.cure is None) == (status is Status.OK)


@pytest.mark.parametrize("count", [0, 1])
def test_no_stream(count: int) -> None:
    finding = judge_rate(frames_at(steady(count, 30)), 30, 5.0)
    assert finding.status is Status.FAILED
    assert finding.message == f"{count} frame{'s' if count == 0 else ''} arrived: the camera delivers no stream"


# Controls


def reported(*metadata: Mapping[str, Any]) -> list[SeenFrame]:
    return [SeenFrame(0.0, 0.0, each) for each in metadata]


def judge(expected: Mapping[str, Any], frames: Sequence[SeenFrame], *, is_sensor: bool = True) -> tuple[Status, str]:
    finding = judge_group(
        {"mode": "short"},
        expected,
        frames,
        is_seen=not unseen(expected, frames),
        was_reopened=False,
        is_sensor=is_sensor,
    )
    return finding.status, finding.message


def test_every_group_is_checked() -> None:
    assert PROBES.keys() == {group.name for group in GROUPS}


def test_probes_name_fields() -> None:
    for name, probe in PROBES.items():
        assert set(probe.shown) - {"LensPosition", "ColourGains"} <= {
            "AeExposureMode", "AeConstraintMode", "AeMeteringMode", "AnalogueGain", "AwbMode", "Brightness", "Contrast",
            "ExposureTime", "ExposureValue", "LensDewarpEnable", "NoiseReductionMode", "Saturation", "ScalerCrop",
            "Sharpness",
        }, name  # fmt: skip
        assert BY_NAME[name].fields


@pytest.mark.parametrize(
    ("expected", "metadata"),
    [
        ({"AeExposureMode": 1}, [{}, {"AeExposureMode": 1}, {}]),  # libcamera reports it once
        ({"ExposureTime": 10_000}, [{"ExposureTime": 20_000}, {"ExposureTime": 9_985}]),
        ({"ExposureTime": 100}, [{"ExposureTime": 59}]),  # a line of the sensor
        ({"ColourGains": (1.5, 1.8)}, [{"ColourGains": (1.5, 1.8001)}]),
        ({"ScalerCrop": (1152, 648, 2304, 1296)}, [{"ScalerCrop": (1152, 650, 2304, 1292)}]),
        ({"LensDewarpEnable": False}, [{"LensDewarpEnable": False}]),
        ({"FrameDuration": 1e6 / 15}, [{"FrameDuration": 66_656}]),
    ],
)
def test_control_in_metadata(expected: Mapping[str, Any], metadata: list[Mapping[str, Any]]) -> None:
    status, message = judge(expected, reported(*metadata))
    assert status is Status.OK
    assert message.startswith("mode short: ")
    assert message.endswith(" in the metadata")


@pytest.mark.parametrize(
    ("expected", "metadata", "status", "text"),
    [
        ({"ExposureTime": 10_000}, [{"ExposureTime": 20_000}], Status.FAILED, "ExposureTime 10000, reported: 20000"),
        ({"ColourGains": (1.5, 1.8)}, [{"ColourGains": (1.5,)}], Status.FAILED, "reported: (1.5)"),
        ({"ExposureTime": None}, [{"ExposureTime": 20_000}], Status.FAILED, "ExposureTime nothing"),  # never sent
        ({"AwbMode": 5}, [{}, {}], Status.WARNING, "not seen in 2 frames: AwbMode 5, reported: nothing"),
        (
            {"Brightness": 0.1, "Contrast": 1.1},
            [{"Brightness": 0.1}],
            Status.WARNING,
            "not seen in 1 frame: Contrast 1.1, reported: nothing",
        ),
    ],
)
def test_control_not_in_metadata(
    expected: Mapping[str, Any], metadata: list[Mapping[str, Any]], status: Status, text: str
) -> None:
    found, message = judge(expected, reported(*metadata))
    assert found is status
    assert text in message


def test_control_that_is_not_reported() -> None:
    accepted = (Status.OK, "mode short: accepted; the camera does not report it")
    assert judge({}, reported({})) == accepted
    assert judge({"FrameDuration": 66_667}, reported({}), is_sensor=False) == accepted


# Encoders


@pytest.mark.parametrize(
    ("ms", "fps", "cores", "status", "possible_fps"),
    [(10.0, 30, 4, Status.OK, 200), (50.0, 30, 4, Status.OK, 40), (50.0, 30, 1, Status.WARNING, 20)],
)
def test_jpeg(ms: float, fps: float, cores: int, status: Status, possible_fps: float) -> None:
    finding = judge_jpeg([ms / 1000] * 5, [74_123] * 5, 80, fps, cores)
    assert finding.status is status
    assert finding.data["possible_fps"] == pytest.approx(possible_fps)
    assert finding.data["bytes_per_frame"] == 74_123


@pytest.mark.parametrize(
    ("encoder", "expected", "packets", "status", "text"),
    [
        ("hardware", "hardware", 40, Status.OK, "hardware, 1280x720, 20.0 ms a frame, 40 of 40 frames encoded"),
        ("libx264", "libx264", 36, Status.OK, "36 of 40 frames encoded"),
        ("libx264", "libx264", 20, Status.WARNING, "it is too slow"),
        ("libx264", "hardware", 40, Status.WARNING, "the hardware encoder did not work"),
    ],
)
def test_h264(encoder: str, expected: str, packets: int, status: Status, text: str) -> None:
    sizes = [8_000] * packets
    finding = judge_h264(encoder, expected, (1280, 720), [0.02] * packets, sizes, 40, {"bitrate": 3 * MB})
    assert finding.status is status
    assert text in finding.message
    assert (finding.data["encoder"], finding.data["bitrate"], finding.data["ms_per_frame"]) == (encoder, 3 * MB, 20.0)


# Openings


def usages(descriptors: Sequence[int], threads: Sequence[int] = (), rss: Sequence[int] = ()) -> list[Usage]:
    return [
        Usage(each, threads[number] if threads else 5, rss[number] if rss else 70 * MB)
        for number, each in enumerate(descriptors)
    ]


@pytest.mark.parametrize(
    ("found", "status"),
    [
        (usages([20] * 10), Status.OK),
        (usages([15, *[20] * 9]), Status.OK),  # what the first opening creates stays
        (usages([20] * 10, threads=[5, 6, 5, 7, 5, 6, 5, 6, 5, 8]), Status.OK),  # some end a moment later
        (usages(range(20, 30)), Status.FAILED),
        (usages(range(20, 50, 3)), Status.FAILED),
        (usages([20] * 10, threads=range(5, 15)), Status.FAILED),
        (usages([*[20] * 6, *[21] * 4]), Status.WARNING),
        (usages([20] * 10, rss=range(70 * MB, 80 * MB, MB)), Status.OK),
        (usages([20] * 10, rss=range(70 * MB, 120 * MB, 5 * MB)), Status.WARNING),
        (usages(range(29, 19, -1)), Status.OK),
    ],
)
def test_openings(found: list[Usage], status: Status) -> None:
    finding = judge_openings(found, [0.5, *[0.4] * 9])
    assert finding.status is status
    assert len(finding.data["rounds"]) == 10
    assert (finding.data["first_frame_s"], finding.data["longest_s"]) == (0.4, 0.5)


def test_usage_of_this_process() -> None:
    now = Usage.now()
    with open("/dev/null"):  # noqa: PTH123
        more = Usage.now()
    assert more.descriptors == now.descriptors + 1
    assert now.threads >= 1
    assert now.rss_bytes > MB
