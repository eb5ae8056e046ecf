"""Checks of the encoders, with the frames of the open camera: JPEG and H.264. Runs on a check's thread.

The sink of `check_h264` is called on the encoder's thread.
"""

import os
import statistics
import threading
import time
from collections.abc import Sequence
from typing import Any, Final

from softcam.diagnose.camera import CheckedCamera
from softcam.diagnose.report import Finding, Status
from softcam.errors import NoPicture, NotSupported
from softcam.h264.packet import Packet, VideoFormat
from softcam.imaging import jpeg
from softcam.runtime.deadline import Deadline
from softcam.runtime.plural import counted

_JPEGS: Final = 20
_JPEG_TIMEOUT_S: Final = 10.0
_ENCODER_THREADS: Final = 2  # of the portal
_PACKETS: Final = 40
_VIDEO_TIMEOUT_S: Final = 10.0
_LOW_RATE: Final = 0.85  # of the frames that arrived meanwhile
_CURE: Final = "lower --fps or the size"


def check_jpeg(camera: CheckedCamera, quality: int) -> Finding:
    """Encode frames of the stream in place, one after the other."""
    deadline = Deadline.after(_JPEG_TIMEOUT_S + camera.manager.pipeline_s)
    took_s, sizes, newest_s = list[float](), list[int](), 0.0
    while len(took_s) < _JPEGS:
        try:
            frame = camera.manager.wait_frame(newest_s, deadline.at_s)
        except NoPicture:
            if took_s:
                break
            raise
        try:
            newest_s = frame.began_s + 1e-6
            began_s = time.perf_counter()
            sizes.append(len(jpeg.encode(frame, None, quality)))
            took_s.append(time.perf_counter() - began_s)
        finally:
            frame.release()
    return judge_jpeg(took_s, sizes, quality, camera.parts.controls.stream_fps, os.cpu_count() or 1)


def judge_jpeg(took_s: Sequence[float], sizes: Sequence[int], quality: int, fps: float, cores: int) -> Finding:
    """The finding from the time and the size of each JPEG."""
    median_s = statistics.median(took_s)
    possible_fps = min(cores, _ENCODER_THREADS) / max(median_s, 1e-6)
    frame_bytes = round(statistics.median(sizes))
    data = {
        "encoder": "libjpeg-turbo",
        "quality": quality,
        "frames": len(took_s),
        "ms_per_frame": round(median_s * 1000, 3),
        "max_ms": round(max(took_s) * 1000, 3),
        "bytes_per_frame": frame_bytes,
        "possible_fps": round(possible_fps, 1),
    }
    message = f"libjpeg-turbo, {median_s * 1000:.1f} ms and {frame_bytes / 1000:.0f} kB a frame at quality"
    message += f" {quality}, enough for {possible_fps:.0f} fps"
    if possible_fps < fps:
        return Finding(Status.WARNING, f"{message}, the stream has {fps:g}", _CURE, data)
    return Finding(Status.OK, message, data=data)


class _PacketCounter:
    """A sink that remembers when packets arrived."""

    def __init__(self) -> None:
        self.changed = threading.Condition(threading.Lock())  # guards the fields below
        self.packets: list[tuple[float, float, int]] = []  # begin of the exposure, arrival, bytes
        self.fmt: VideoFormat | None = None

    def on_format(self, fmt: VideoFormat) -> None:
        with self.changed:
            self.fmt = fmt

    def on_packet(self, packet: Packet) -> None:
        with self.changed:
            self.packets.append((packet.began_s, time.monotonic(), len(packet.data)))
            self.changed.notify_all()


def check_h264(camera: CheckedCamera) -> Finding:
    """Encode the stream as for a client, with the encoder that the portal would use."""
    video, counter = camera.parts.video, _PacketCounter()
    expected = "hardware" if camera.parts.has_hardware_encoder() else "libx264"
    camera.observer.restart()
    try:
        video.subscribe(counter)
    except NotSupported as error:
        return Finding(Status.WARNING, f"no H.264: {error}", "sudo apt install python3-av")
    try:
        deadline = Deadline.after(_VIDEO_TIMEOUT_S + camera.manager.pipeline_s)
        with counter.changed:
            counter.changed.wait_for(lambda: len(counter.packets) >= _PACKETS, deadline.remaining_s)
            packets, fmt = counter.packets[:], counter.fmt
        status = video.status()
    finally:
        video.unsubscribe(counter)
    if not packets or fmt is None:
        frames = counted(len(camera.observer.frames), "frame")
        reason = status.last_error or "the log of the portal may have the reason"
        return Finding(Status.FAILED, f"no packet for {frames} in {_VIDEO_TIMEOUT_S:.0f} s: {reason}", _CURE)
    arrived_s = {frame.began_s: frame.arrived_s for frame in camera.observer.frames}
    took_s = [packet_s - arrived_s[began_s] for began_s, packet_s, _ in packets if began_s in arrived_s]
    between = [frame for frame in camera.observer.frames if packets[0][0] <= frame.began_s <= packets[-1][0]]
    size = (fmt.width, fmt.height)
    data = {"width": fmt.width, "height": fmt.height, "bitrate": status.target_bitrate}
    sizes = [size for _, _, size in packets]
    return judge_h264(status.backend or "unknown", expected, size, took_s or [0.0], sizes, len(between), data)


def judge_h264(
    encoder: str,
    expected: str,
    size: tuple[int, int],
    took_s: Sequence[float],
    sizes: Sequence[int],
    frames: int,
    data: dict[str, Any],
) -> Finding:
    """The finding from what each packet took since its frame arrived, and the number of frames meanwhile."""
    median_s = statistics.median(took_s)
    data |= {
        "encoder": encoder,
        "expected_encoder": expected,
        "packets": len(sizes),
        "frames": frames,
        "ms_per_frame": round(median_s * 1000, 3),
        "max_ms": round(max(took_s) * 1000, 3),
        "bytes_per_frame": round(statistics.median(sizes)),
    }
    message = f"{encoder}, {size[0]}x{size[1]}, {median_s * 1000:.1f} ms a frame"
    message += f", {len(sizes)} of {counted(frames, 'frame')} encoded"
    if encoder != expected:
        cure = "the log below has the reason; restart the machine if another program uses the encoder"
        return Finding(Status.WARNING, f"{message}; the {expected} encoder did not work", cure, data)
    if len(sizes) < _LOW_RATE * frames:
        return Finding(Status.WARNING, f"{message}: it is too slow", _CURE, data)
    return Finding(Status.OK, message, data=data)
