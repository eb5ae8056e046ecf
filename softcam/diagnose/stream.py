"""Checks of the open camera: first frame, sensor mode, frame rate and gaps, autofocus, a still during the stream.

Each runs on a check's thread; what is decided from the measured values are pure functions.
"""

import statistics
import time
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Final

from softcam.diagnose.camera import CheckedCamera, SeenFrame, SourceUnavailable
from softcam.diagnose.report import Finding, Status
from softcam.errors import NoPicture
from softcam.imaging import jpeg
from softcam.runtime.deadline import Deadline
from softcam.runtime.plural import counted

_OPEN_TIMEOUT_S: Final = 25.0  # above the session's own limit for a call that hangs
_SLOW_OPEN_S: Final = 5.0
_SETTLE_TIMEOUT_S: Final = 5.0
_STILL_TIMEOUT_S: Final = 20.0
_FOCUS_TIMEOUT_S: Final = 10.0
_RESUME_FRAMES: Final = 3
_GAP: Final = 1.6  # times the frame duration: a frame is missing
_LOW_RATE: Final = 0.9  # of the requested rate
_BAD_RATE: Final = 0.5
_GAP_PERCENT: Final = 2.0  # of frames that may be missing
_STILL_QUALITY: Final = 90
_SIZE_SLACK: Final = 0.95  # buffers are aligned
_SLOW_CURE: Final = (
    "lower --fps or the size; see the checks of throttling and memory, and what else runs on the machine"
)


def check_first_frame(camera: CheckedCamera) -> Finding:
    """Connect and open the camera as for the first client of a stream."""
    camera.connect()
    try:
        first_s = camera.open(Deadline.after(_OPEN_TIMEOUT_S))
    except SourceUnavailable as error:
        return Finding(Status.FAILED, str(error), "check that the source is running, its address and its password")
    config = camera.config
    data = {
        "camera": camera.manager.camera.name,
        "backend": camera.manager.camera.backend,
        "width": config.width,
        "height": config.height,
        "pixel_format": config.pixel_format,
        "first_frame_s": round(first_s, 3),
        "controls": sorted(config.controls),
    }
    message = f"{first_s:.2f} s until the first frame, {config.width}x{config.height} {config.pixel_format}"
    message += f", of {camera.manager.camera.name}"
    if first_s > _SLOW_OPEN_S:
        return Finding(Status.WARNING, message, "see the checks of throttling and memory", data)
    return Finding(Status.OK, message, data=data)


def check_sensor_modes(camera: CheckedCamera) -> Finding:
    config = camera.config
    modes, current = config.sensor_modes, config.sensor_mode
    if modes is None:
        return Finding(Status.NOT_APPLICABLE, "this camera has no list of sensor modes")
    listed = [{"size": m.size, "bit_depth": m.bit_depth, "fps": m.fps, "crop": m.crop} for m in modes.modes]
    used = None if current is None else modes.modes.index(current)
    text = ", ".join(f"{m.size[0]}x{m.size[1]} {m.bit_depth} bit up to {m.fps:g} fps" for m in modes.modes)
    used_text = "" if current is None else f"; used: {current.size[0]}x{current.size[1]}"
    data = {"modes": listed, "used": used, "pixel_array": modes.array_size}
    return Finding(Status.OK, f"{counted(len(listed), 'mode')}: {text}{used_text}", data=data)


def check_frame_rate(camera: CheckedCamera, duration_s: float) -> Finding:
    """Measure the settled stream."""
    manager = camera.manager
    manager.wait_settled(time.monotonic() + _SETTLE_TIMEOUT_S)
    restarts = manager.status().restarts
    camera.observer.restart()
    end_s = time.monotonic() + duration_s
    # The frame that ends the time, or the deadline where none arrives any more.
    deadline = Deadline.after(duration_s + 1.0 + manager.pipeline_s)
    camera.observer.wait_for_frames(lambda frames: bool(frames) and frames[-1].arrived_s >= end_s, deadline)
    frames = camera.observer.frames
    if manager.status().restarts > restarts:
        return Finding(Status.FAILED, f"the stream had to be restarted: {manager.status().last_error}", _SLOW_CURE)
    return judge_rate(frames, camera.parts.controls.stream_fps, deadline.at_s)


def judge_rate(frames: Sequence[SeenFrame], fps: float, until_s: float) -> Finding:
    """The finding from the frames that arrived until a moment, of a camera that was set to `fps`."""
    if len(frames) < 2:
        silence_s = until_s - frames[-1].arrived_s if frames else None
        return Finding(
            Status.FAILED,
            f"{counted(len(frames), 'frame')} arrived: the camera delivers no stream",
            "check the ribbon cable and the power supply",
            {"frames": len(frames), "silence_s": silence_s, "requested_fps": fps},
        )
    intervals_s = [later.began_s - earlier.began_s for earlier, later in pairwise(frames)]
    measured_fps = len(intervals_s) / sum(intervals_s) if sum(intervals_s) > 0 else 0.0
    gaps_s = [each for each in intervals_s if each > _GAP / fps]
    missing = sum(max(1, round(each * fps) - 1) for each in gaps_s)
    longest_s = max(intervals_s)
    delays_s = [frame.arrived_s - frame.began_s for frame in frames]
    data: dict[str, Any] = {
        "requested_fps": round(fps, 3),
        "measured_fps": round(measured_fps, 3),
        "frames": len(frames),
        "gaps": len(gaps_s),
        "missing_frames": missing,
        "longest_gap_ms": round(longest_s * 1000, 1),
        "delay_ms": round(statistics.median(delays_s) * 1000, 1),
    }
    message = f"{measured_fps:.2f} of {fps:g} fps, {counted(missing, 'missing frame')} of {len(frames) + missing}"
    message += f", longest interval {longest_s * 1000:.0f} ms"
    message += f", {data['delay_ms']:.0f} ms from the exposure to the portal"
    if measured_fps < _BAD_RATE * fps:
        return Finding(Status.FAILED, message, _SLOW_CURE, data)
    if measured_fps < _LOW_RATE * fps or missing > len(frames) * _GAP_PERCENT / 100:
        return Finding(Status.WARNING, message, _SLOW_CURE, data)
    return Finding(Status.OK, message, data=data)


def check_autofocus(camera: CheckedCamera) -> Finding:
    """Run a cycle as `/v1/camera/autofocus` does, with an open stream."""
    if not camera.config.has_autofocus:
        return Finding(Status.NOT_APPLICABLE, "this camera has no autofocus")
    deadline_s = time.monotonic() + _FOCUS_TIMEOUT_S
    outcome = camera.manager.autofocus.focus_on_request(deadline_s)
    cure = "point the camera at something with contrast, half a metre away or more, in good light, and try again"
    if outcome is None:
        return Finding(Status.FAILED, f"no result within {_FOCUS_TIMEOUT_S:.0f} s", cure)
    data = {"verdict": outcome.verdict, "took_s": round(outcome.took_s, 3), "lens_position": outcome.lens_position}
    where = "" if outcome.lens_position is None else f", lens at {outcome.lens_position:.2f} dioptres"
    message = f"{outcome.verdict} after {outcome.took_s:.2f} s{where}"
    if outcome.is_focused:
        return Finding(Status.OK, message, data=data)
    return Finding(Status.WARNING if outcome.verdict == "failed" else Status.FAILED, message, cure, data)


def check_still(camera: CheckedCamera) -> Finding:
    """Take a still of the whole sensor during the stream, which has to continue."""
    manager, controls = camera.manager, camera.parts.controls
    wanted = camera.config.sensor_size
    before_s = camera.wait_frames(1, _SETTLE_TIMEOUT_S)[0].arrived_s
    began_s = time.monotonic()
    still = manager.still(None, began_s + _STILL_TIMEOUT_S, controls.still_view(is_whole=True))
    took_s = time.monotonic() - began_s
    size = still.size
    try:
        began_s = time.monotonic()
        picture = jpeg.encode(still, None, _STILL_QUALITY)
        jpeg_s = time.monotonic() - began_s
    finally:
        still.release()
    try:
        frames = camera.wait_frames(_RESUME_FRAMES, _SETTLE_TIMEOUT_S)
    except NoPicture as error:
        return Finding(Status.FAILED, f"the stream did not continue after the still: {error}")
    pause_s = frames[0].arrived_s - before_s
    data = {
        "width": size[0],
        "height": size[1],
        "took_ms": round(took_s * 1000, 1),
        "pause_ms": round(pause_s * 1000, 1),
        "jpeg_ms": round(jpeg_s * 1000, 1),
        "jpeg_bytes": len(picture),
    }
    message = f"{size[0]}x{size[1]} after {took_s * 1000:.0f} ms, JPEG in {jpeg_s * 1000:.0f} ms"
    if any(side < _SIZE_SLACK * most for side, most in zip(size, wanted, strict=True)):
        return Finding(Status.WARNING, f"{message}; the sensor has {wanted[0]}x{wanted[1]}", data=data)
    return Finding(Status.OK, message, data=data)
