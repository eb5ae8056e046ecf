"""The metadata of the frames of a portal, which a hook writes to a file, and the fields of the status that follow.

No product code is imported: names, units and precision are those that the documentation and libcamera have.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support.http_client import Listening, status_of
from tests.support.timeouts import PATIENCE_S

HOOK = "frame_recorder:record"
_SOURCE = """
import json, os

file = open(os.environ["FRAME_RECORDS"], "a", buffering=1)

def record(image, metadata):
    file.write(json.dumps({**metadata, "size": image.shape[1::-1]}, default=list) + "\\n")
"""
_NEWEST = 60  # frames that a status is compared with
_RATE_FRAMES = 20
_POLL_S = 0.05
_REPEAT_S = 3.0

# Field of the status, libcamera's name, and decimals.
_NUMBERS = (
    ("lux", "Lux", 1),
    ("exposure_us", "ExposureTime", None),
    ("analogue_gain", "AnalogueGain", 3),
    ("digital_gain", "DigitalGain", 3),
    ("colour_temperature", "ColourTemperature", None),
    ("lens_position", "LensPosition", 2),
    ("focus_fom", "FocusFoM", None),
    ("frame_duration_us", "FrameDuration", None),
    ("sensor_temperature_c", "SensorTemperature", 1),
)
# Field of the status, libcamera's name, and its words by number.
_MODES = (
    ("noise_reduction_mode", "NoiseReductionMode", ("off", "fast", "high_quality", "minimal", "zsl")),
    ("ae_constraint_mode", "AeConstraintMode", ("normal", "highlight", "shadows", "custom")),
    ("ae_exposure_mode", "AeExposureMode", ("normal", "short", "long", "custom")),
)
_LOW_LIGHT = 5  # times the threshold of the night
# The fields that a frame does not determine: those of the session, the requests and the portal.
OTHER_FIELDS = {
    *("status", "state", "backend", "name", "camera", "socket_path", "socket_exists"),
    *("available", "viewers", "pixel_format", "last_error", "restarts", "opens"),
    *("held_by", "pictures_encoded", "uptime_s", "version", "is_wide_camera", "sensor_mode_width"),
    *("sensor_mode_height", "autofocus", "autofocus_mode", "auto_exposure", "awb_enabled", "hdr_mode"),
    *("transform", "day_night_mode", "day_night_threshold_lux", "controls_set_aside"),
    *("controls_not_kept", "controls_not_applied"),
    *("presets_set_aside", "presets_not_kept", "bitrate_bps", "bitrate_mbps", "h264", "h264_substream"),
    *("streaming", "publishing", "rtsp", "recording", "hook"),
}

Frame = Mapping[str, Any]
Size = tuple[int, int]


class FrameRecords:
    """The frames that the hook of one portal has seen."""

    def __init__(self, folder: Path, inside: str | None = None) -> None:
        """`inside` is the path of `folder` for the portal."""
        place = inside or str(folder)
        (folder / "frame_recorder.py").write_text(_SOURCE)
        self.environment = {"PYTHONPATH": place, "FRAME_RECORDS": f"{place}/records"}
        self._path = folder / "records"
        self._path.touch()

    def frames(self) -> list[Frame]:
        """All frames, each with what libcamera has reported with an earlier one of the same opening."""
        frames: list[Frame] = []
        for line in self._path.read_text().splitlines(keepends=True):
            if line.endswith("\n"):  # complete
                frame = json.loads(line)
                before = frames[-1] if frames and frames[-1]["sequence"] < frame["sequence"] else {}
                frames.append({**before, **frame})
        return frames


def wait_for_agreement(
    portal: Listening, records: FrameRecords, sensor_size: Size, metadata: Frame, repeat: Callable[[], object]
) -> None:
    """Wait until a frame has this metadata, and the status is that of a frame.

    The hook gets a frame a moment before or after the status shows it. It skips frames on a busy machine, and some
    metadata is only in the frame with which a control was sent: `repeat` sends it again.
    """
    deadline_s, repeat_s = time.monotonic() + PATIENCE_S, time.monotonic() + _REPEAT_S
    while True:
        status, frames = status_of(portal), records.frames()
        newest = range(max(1, len(frames) - _NEWEST), len(frames) + 1)
        found = [_differences(status, frames[:number], sensor_size, metadata) for number in newest]
        different = min(found, key=len, default={"frames": "none"})
        if not different:
            return
        assert time.monotonic() < deadline_s, f"(status, frame): {different}"
        if time.monotonic() > repeat_s:
            repeat()
            repeat_s = time.monotonic() + _REPEAT_S
        time.sleep(_POLL_S)


def _differences(
    status: Mapping[str, Any], frames: Sequence[Frame], sensor_size: Size, metadata: Frame
) -> dict[str, tuple[Any, Any]]:
    """The fields of the status that differ from the last frame, as (status, frame), and the metadata that does."""
    frame, expected = frames[-1], expected_status(status, frames, sensor_size)
    others = {name: (value, frame.get(name)) for name, value in metadata.items() if frame.get(name) != value}
    return others | {name: (status[name], value) for name, value in expected.items() if status[name] != value}


def expected_status(status: Mapping[str, Any], frames: Sequence[Frame], sensor_size: Size) -> dict[str, Any]:
    """The fields that the last frame determines; of limits, those of the status if the frame is within them."""
    frame = frames[-1]
    expected = {name: _rounded(frame.get(control), places) for name, control, places in _NUMBERS}
    expected |= {name: words[frame[control]] for name, control, words in _MODES if control in frame}
    if "ExposureValue" in frame:
        expected["exposure_value"] = frame["ExposureValue"]
    gains, lux = frame.get("ColourGains"), expected["lux"]
    is_dim = lux is not None and lux < _LOW_LIGHT * status["day_night_threshold_lux"]
    expected |= {
        "width": frame["size"][0],
        "height": frame["size"][1],
        "colour_gains": None if gains is None else [_rounded(gain, 3) for gain in gains],
        "sensor_black_levels": frame.get("SensorBlackLevels"),
        "lens_correction_enabled": frame.get("LensDewarpEnable"),
        "scene_mode": None if lux is None else "low_light" if is_dim else "day",
        "roi": _roi(status["roi"], frame, sensor_size),
        "fov_mode": status["fov_mode"] if status["roi"] else _field_of_view(frame, sensor_size),
        "frames": max(status["frames"], frame["sequence"] + 1),
        "fps": pytest.approx(_rate(frames[-_RATE_FRAMES:]), rel=0.2),
        "current_limits": _limits(status["current_limits"], frame),
    }
    return expected


def _rounded(value: Any, places: int | None) -> Any:
    return None if value is None else round(value, places)


def _roi(shown: Any, frame: Frame, sensor_size: Size) -> Any:
    if shown is None:
        return None
    parts = zip(("x", "y", "width", "height"), frame["ScalerCrop"], (*sensor_size, *sensor_size), strict=True)
    return {name: pytest.approx(pixels / size, abs=0.002) for name, pixels, size in parts}


def _field_of_view(frame: Frame, sensor_size: Size) -> str:
    """Without zoom: the sensor's whole width or height, or one pixel of it for each of the image."""
    crop = frame.get("ScalerCrop")
    if crop is None or crop[2] == sensor_size[0] or crop[3] == sensor_size[1]:
        return "scale"
    return "crop" if crop[2:] == frame["size"] else f"neither: {crop}"


def _rate(frames: Sequence[Frame]) -> float:
    span_s = (frames[-1]["SensorTimestamp"] - frames[0]["SensorTimestamp"]) / 1e9
    return (frames[-1]["sequence"] - frames[0]["sequence"]) / span_s if span_s > 0 else 0.0


def _limits(shown: Mapping[str, Any], frame: Frame) -> Mapping[str, Any]:
    """The limits, if the frame is within them; else those that the frame has."""
    limits = dict(shown)
    if "FrameDurationLimits" in frame:
        limits["frame_duration_us"] = dict(zip(("min", "max"), frame["FrameDurationLimits"], strict=True))
    for name, control in (("frame_duration_us", "FrameDuration"), ("effective_exposure_limit_us", "ExposureTime")):
        value = frame.get(control)
        if value is not None and not (limits[name] and limits[name]["min"] <= value <= limits[name]["max"]):
            limits[name] = {"min": value, "max": value}
    return limits
