"""Checks of the controls: each group is set as by a request, looked for in the metadata of the frames, and reset.

libcamera reports some controls with each frame, some with one frame only, and some never; those are only checked for
being accepted. Runs on a check's thread; what is decided from the metadata are pure functions.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from softcam.camera.base import StreamConfig
from softcam.controls.capabilities import clamped_fps, unavailable_reason
from softcam.controls.schema import BY_NAME
from softcam.diagnose.camera import CheckedCamera, SeenFrame
from softcam.diagnose.report import Finding, Status
from softcam.errors import CameraError
from softcam.runtime.deadline import Deadline
from softcam.runtime.plural import counted

_SEEN_TIMEOUT_S: Final = 10.0  # after a reopening, the lens is focused first
_OPEN_TIMEOUT_S: Final = 5.0
_FRAMES: Final = 3  # that have to arrive with every change
_TOLERANCE: Final = 0.03  # exposures are whole lines of the sensor, and gains have steps
_SLACK: Final[Mapping[str, float]] = {  # the least difference that counts
    "ExposureTime": 60.0,
    "ScalerCrop": 16.0,
    "LensPosition": 0.1,
    "FrameDuration": 100.0,
}
_LEAST_EXPOSURE_US: Final = 100


@dataclass(frozen=True, slots=True)
class Situation:
    """What a probe's values depend on: the open camera, its newest frame, its frame rate."""

    config: StreamConfig
    metadata: Mapping[str, Any]
    fps: float

    @property
    def half_exposure_us(self) -> int:
        return max(int(self.metadata.get("ExposureTime") or 10_000) // 2, _LEAST_EXPOSURE_US)

    @property
    def other_lens_position(self) -> float:
        low, high = self.config.controls.get("LensPosition", (0.0, 10.0, None))[:2]
        now = float(self.metadata.get("LensPosition") or low)
        return now + 1 if now + 1 <= high else max(now - 1, low)

    @property
    def other_fps(self) -> float:
        """Half the frame rate, or twice as much where the camera is not that slow."""
        return self.fps / 2 if clamped_fps(self.fps / 2, self.config) == self.fps / 2 else self.fps * 2


def _no_values(_values: Mapping[str, Any]) -> Mapping[str, Any]:
    return {}


@dataclass(frozen=True, slots=True)
class Probe:
    """The values to set in a group, and the metadata to see, `shown` as sent and `derived` from the values."""

    values: Callable[[Situation], Mapping[str, Any]]
    shown: tuple[str, ...] = ()
    derived: Callable[[Mapping[str, Any]], Mapping[str, Any]] = _no_values


def _fixed(values: Mapping[str, Any], *shown: str) -> Probe:
    return Probe(lambda _: values, shown)


PROBES: Final[Mapping[str, Probe]] = {
    "auto_exposure": _fixed({"enabled": False}, "ExposureTime", "AnalogueGain"),
    "manual_exposure": Probe(lambda now: {"exposure_us": now.half_exposure_us, "gain": 2.0},
                             ("ExposureTime", "AnalogueGain")),
    "exposure_limits": Probe(lambda now: {"max_exposure_us": now.half_exposure_us}, ("ExposureTime",)),
    "ae_exposure_mode": _fixed({"mode": "short"}, "AeExposureMode"),
    "ae_constraint_mode": _fixed({"mode": "highlight"}, "AeConstraintMode"),
    "awb": _fixed({"enabled": False}, "ColourGains"),
    "manual_awb": _fixed({"red_gain": 1.5, "blue_gain": 1.8}, "ColourGains"),
    "awb_preset": _fixed({"preset": "daylight"}, "AwbMode"),
    "autofocus": _fixed({"speed": "fast", "window": {"x": 0.4, "y": 0.4, "width": 0.2, "height": 0.2}}),
    "autofocus_mode": _fixed({"mode": "manual"}, "LensPosition"),
    "lens_position": Probe(lambda now: {"position": now.other_lens_position}, ("LensPosition",)),
    "autofocus_range": _fixed({"range_mode": "full"}),
    "image_processing": _fixed(
        {"brightness": 0.1, "contrast": 1.1, "saturation": 0.9, "sharpness": 1.2, "noise_reduction": "high_quality",
         "exposure_value": 0.5, "metering": "spot"},
        *("Brightness", "Contrast", "Saturation", "Sharpness", "NoiseReductionMode", "ExposureValue",
          "AeMeteringMode"),
    ),
    "hdr": Probe(lambda now: {"mode": "sensor" if now.config.has_sensor_hdr else "single-exp"}),
    "roi": _fixed({"x": 0.25, "y": 0.25, "width": 0.5, "height": 0.5}, "ScalerCrop"),
    "fov_mode": _fixed({"mode": "crop"}, "ScalerCrop"),
    "lens_correction": _fixed({"enabled": False}, "LensDewarpEnable"),
    "transform": _fixed({"hflip": True}),
    "day_night_mode": _fixed({"mode": "night", "night_saturation": 0.0}, "Saturation"),
    "stream": Probe(lambda now: {"fps": now.other_fps}, derived=lambda values: {"FrameDuration": 1e6 / values["fps"]}),
}  # fmt: skip


def check_group(camera: CheckedCamera, name: str) -> Finding:
    """Set the values of a group, wait until frames show them, and reset all controls."""
    group, probe = BY_NAME[name], PROBES[name]
    manager, controls = camera.manager, camera.parts.controls
    newest = camera.wait_frames(1, _OPEN_TIMEOUT_S)[-1]
    wanted = probe.values(Situation(camera.config, newest.metadata, controls.stream_fps))
    reasons = {row.name: unavailable_reason(group, row, camera.config) for row in group.fields if row.name in wanted}
    values = {field: value for field, value in wanted.items() if reasons[field] is None}
    if not values or any(group.row(field).is_required for field in wanted.keys() - values.keys()):
        reason = next((each for each in reasons.values() if each is not None), "not supported")
        return Finding(Status.NOT_APPLICABLE, reason)
    opens, is_sensor = manager.status().opens, camera.config.sensor_modes is not None
    missing = {group.row(field).control for field in wanted.keys() - values.keys()}
    shown = [control for control in probe.shown if control not in missing]
    camera.observer.restart()

    def expected() -> dict[str, Any]:
        """By name, None for what the portal has not sent yet: it freezes an automatic with a later frame."""
        return {**{control: manager.sent.values.get(control) for control in shown}, **probe.derived(values)}

    try:
        controls.change(group, values)
        deadline = Deadline.after(_SEEN_TIMEOUT_S + 4 * manager.pipeline_s)
        is_seen = camera.observer.wait_for_frames(
            lambda frames: len(frames) >= _FRAMES and not unseen(expected(), frames), deadline
        )
        frames, awaited = camera.observer.frames, expected()
        reopened = manager.status().opens > opens
    finally:
        controls.reset()
    if len(frames) < _FRAMES:
        raise CameraError(f"only {counted(len(frames), 'frame')} arrived after {_words(values)}")
    return judge_group(values, awaited, frames, is_seen=is_seen, was_reopened=reopened, is_sensor=is_sensor)


def judge_group(
    values: Mapping[str, Any],
    expected: Mapping[str, Any],
    frames: Sequence[SeenFrame],
    *,
    is_seen: bool,
    was_reopened: bool,
    is_sensor: bool,
) -> Finding:
    """The finding from the frames after the values were set; `expected` is by the names of the metadata.

    Only cameras with a sensor and its modes (`is_sensor`) report all of it: USB cameras and virtual ones do not.
    """
    how = " after the camera was reopened" if was_reopened else ""
    data: dict[str, Any] = {"set": dict(values), "reopened": was_reopened, "frames": len(frames)}
    reported = {name: _last(name, frames) for name in expected}
    if not expected or not (is_sensor or any(value is not None for value in reported.values())):
        return Finding(Status.OK, f"{_words(values)}: accepted{how}; the camera does not report it", data=data)
    data |= {"expected": dict(expected), "reported": reported}
    if is_seen:
        text = ", ".join(f"{name} {_shown(_nearest(name, value, frames))}" for name, value in expected.items())
        return Finding(Status.OK, f"{_words(values)}: {text} in the metadata{how}", data=data)
    absent = unseen(expected, frames)
    text = ", ".join(f"{name} {_shown(expected[name])}, reported: {_shown(reported[name])}" for name in absent)
    message = f"{_words(values)}: not seen in {counted(len(frames), 'frame')}: {text}"
    is_wrong = any(reported[name] is not None for name in absent)
    return Finding(
        Status.FAILED if is_wrong else Status.WARNING,
        message,
        "attach this report to a bug report" if is_wrong else "a newer libcamera may report it",
        data,
    )


def unseen(expected: Mapping[str, Any], frames: Sequence[SeenFrame]) -> list[str]:
    """The names whose value no frame reports."""
    return [name for name, value in expected.items() if _nearest(name, value, frames) is None]


def _nearest(name: str, value: Any, frames: Sequence[SeenFrame]) -> Any:
    """The newest reported value that is near to the expected one; None if there is none."""
    found = (frame.metadata.get(name) for frame in reversed(frames))
    return next((each for each in found if _is_near(each, value, _SLACK.get(name, 0.01))), None)


def _is_near(reported: Any, value: Any, slack: float) -> bool:
    if isinstance(reported, tuple | list) and isinstance(value, tuple | list):
        pairs = zip(reported, value, strict=False)
        return len(reported) == len(value) and all(_is_near(one, other, slack) for one, other in pairs)
    if not (isinstance(reported, int | float) and isinstance(value, int | float)):
        return False
    return abs(reported - value) <= max(_TOLERANCE * abs(value), slack)


def _last(name: str, frames: Sequence[SeenFrame]) -> Any:
    return next((frame.metadata[name] for frame in reversed(frames) if name in frame.metadata), None)


def _words(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {_shown(value)}" for name, value in values.items())


def _shown(value: Any) -> str:
    match value:
        case None:
            return "nothing"
        case bool():
            return "on" if value else "off"
        case float():
            return f"{value:.4g}"
        case tuple() | list():
            return f"({', '.join(map(_shown, value))})"
        case Mapping():
            return f"({', '.join(f'{key} {_shown(each)}' for key, each in value.items())})"
    return str(value)
