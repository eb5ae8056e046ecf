"""Builds what makes streams of frames: hook, JPEG and H.264 encoders, fan-out, HLS. Runs on the main thread."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from softcam.camera.base import SessionListener
from softcam.camera.picamera.h264_encoder import EncoderFactory
from softcam.components.camera import CameraParts, OnCrash
from softcam.config.parsers import Substream
from softcam.config.settings import Settings
from softcam.h264.bitrate import automatic_bitrate, fixed_bitrate, substream_bitrate
from softcam.h264.encoder import VideoEncoder
from softcam.h264.x264 import X264
from softcam.imaging.frame import NewestFrame
from softcam.net.event_loop import EventLoop
from softcam.net.key_brake import KeyBrake
from softcam.runtime import memory
from softcam.streaming.fmp4_channel import Fmp4Stream
from softcam.streaming.hls.stream import HlsStream
from softcam.streaming.hook import Hook, load_hook
from softcam.streaming.jpeg_encoder import JpegEncoderPool
from softcam.streaming.mjpeg import MjpegStream
from softcam.web.api.media import MediaApi, MediaDefaults


@dataclass(frozen=True, slots=True)
class MediaParts:
    """From frames to JPEGs and H.264, and to their clients by HTTP."""

    loop: EventLoop
    brake: KeyBrake
    hook: Hook | None
    jpegs: JpegEncoderPool
    video: VideoEncoder
    substream: VideoEncoder | None  # of smaller frames
    mjpeg: MjpegStream
    fmp4: Fmp4Stream
    fmp4_substream: Fmp4Stream | None
    hls: HlsStream
    api: MediaApi


def build_media(
    settings: Settings, source: CameraParts, portal_url: Callable[[], str], on_crash: OnCrash
) -> MediaParts:
    """`portal_url` is called after the first frame. Raises ConfigurationError for a hook that cannot be loaded."""
    manager, controls = source.manager, source.controls
    frames = NewestFrame() if manager is None else manager.frames
    hook: Hook | None = None
    if settings.hook is not None:
        function = load_hook(settings.hook, settings.origins["hook"])
        hook = Hook(settings.hook, function, frames, portal_url)
        frames = hook.frames
    jpegs = JpegEncoderPool(frames, (settings.width, settings.height))
    # The hardware encoder reads the buffers of the camera.
    has_buffers = source.camera is not None and source.camera.backend == "picamera2" and hook is None

    def fps() -> float:
        return controls.stream_fps

    video = build_video(settings, frames, fps, on_crash, has_buffers=has_buffers)
    loop = EventLoop("event-loop", on_crash)
    substream = _build_substream(settings.substream, frames, fps, on_crash)
    mjpeg = MjpegStream(
        loop,
        jpegs,
        lambda: controls.orientation,
        lambda: None if manager is None else manager.recovery_reason,
        on_crash,
    )
    fmp4 = Fmp4Stream(video, mjpeg.fanout.notify)
    fmp4_substream = None if substream is None else Fmp4Stream(substream, mjpeg.fanout.notify)
    if manager is not None:
        manager.subscribe(_MemoryRelease(jpegs))
    size, snapshot_size = (settings.width, settings.height), (settings.snapshot_width, settings.snapshot_height)
    defaults = MediaDefaults(
        quality=settings.quality,
        snapshot_size=None if snapshot_size == size else snapshot_size,
        snapshot_quality=settings.snapshot_quality,
        autofocus_timeout_s=settings.autofocus_timeout_s if settings.autofocus else 0.0,
        max_clients=settings.max_clients,
        max_clients_per_address=settings.max_clients_per_address,
        name=settings.name,
    )
    api = MediaApi(manager, controls, jpegs, mjpeg.fanout, defaults)
    hls = HlsStream(video, lambda: api.reserve_stream()[1], loop)
    return MediaParts(loop, KeyBrake(loop), hook, jpegs, video, substream, mjpeg, fmp4, fmp4_substream, hls, api)


def build_video(
    settings: Settings, frames: NewestFrame, fps: Callable[[], float], on_crash: OnCrash, *, has_buffers: bool
) -> VideoEncoder:
    """The encoder of the stream; the hardware's only if `has_buffers`: the frames are in the memory of a camera."""
    encoders = EncoderFactory() if has_buffers else EncoderFactory(find=lambda: None)
    return VideoEncoder(
        frames,
        fps,
        automatic_bitrate if settings.bitrate is None else fixed_bitrate(settings.bitrate),
        on_crash,
        require=encoders.require,
        open_backend=encoders.open,
    )


def _build_substream(
    wanted: Substream | None, frames: NewestFrame, fps: Callable[[], float], on_crash: OnCrash
) -> VideoEncoder | None:
    """libx264 alone: frames are scaled by the processor, and the hardware encoder is left to the larger stream."""
    if wanted is None:
        return None
    size = wanted.width, wanted.height
    return VideoEncoder(
        frames,
        fps,
        fixed_bitrate(substream_bitrate(size, wanted.fps)),
        on_crash,
        open_backend=partial(X264, fit=size),
        max_fps=wanted.fps,
        thread_name="h264-sub",
    )


class _MemoryRelease(SessionListener):
    """Frees what snapshots left behind each time the camera was closed."""

    def __init__(self, jpegs: JpegEncoderPool) -> None:
        self._jpegs = jpegs

    def on_closed(self) -> None:
        self._jpegs.clear_snapshots()
        memory.release_unused()
