"""The H.264 encoder of a Raspberry Pi 4 and older, through Picamera2's class: frames are encoded in place.

Picamera2's own `start_encoder` calls it on the event loop with every frame, under a lock, where an exception ends the
camera's stream. Here the thread `h264` passes the latest frame to it, as to libx264, with few frames in flight:
docs/decisions/0011-the-encoder-in-hardware.md. A thread of Picamera2 returns the frames and calls back for each packet;
what it calls here holds a lock for a moment, and never raises.
"""

import contextlib
import fcntl
import logging
import math
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

from softcam.camera.picamera.library import h264_encoder, root_cause
from softcam.camera.picamera.request import RequestHandle
from softcam.errors import CameraError
from softcam.h264 import x264
from softcam.h264.backend import Backend, BackendLost, OpenBackend
from softcam.h264.nal import is_idr, only_slices, parameter_sets
from softcam.h264.packet import Packet
from softcam.h264.sps import with_colours
from softcam.imaging.frame import Frame, PixelFormat

log = logging.getLogger(__name__)

_MAX_WIDTH: Final = 1920
_MAX_BLOCKS: Final = 120 * 68  # of 16x16 pixels: 1920x1080
_FORMATS: Final = frozenset({"YUV420", "NV12"})
# Main and High compress a little better, but WebRTC requires Baseline, which libx264 is set to as well.
_PROFILE: Final = "baseline"
_MAX_BITRATE: Final = 25_000_000  # of the driver, bcm2835-codec: levels 4.0 to 4.2, which Picamera2 chooses
_KEYFRAME_INTERVAL_S: Final = 2.0  # the encoder's own, in case it misses a request for a keyframe

_IN_FLIGHT: Final = 2  # one is encoded while the next one is submitted; more would only add latency
# An encoder that delays its output until it has more frames gets more. All consumers share the camera's six buffers.
_MAX_IN_FLIGHT: Final = 3
# Timeouts also require so many polls: no time passes for a process that was stopped.
_PATIENCE_POLLS: Final = 4
_SILENCE_POLLS: Final = 10
_SAME_FRAME_S: Final = 500e-6  # timestamps of one frame differ by rounding

_SET_CONTROL: Final = 0xC008561C  # VIDIOC_S_CTRL, of two numbers of 32 bits: which control, and its value
_FORCE_KEYFRAME: Final = 0x009909E5  # V4L2_CID_MPEG_VIDEO_FORCE_KEY_FRAME


@dataclass(frozen=True, slots=True)
class EncoderTimeouts:
    """In seconds: until another frame is submitted, until the encoder counts as failed, until it is tried again."""

    patience_s: float = 0.25
    silence_s: float = 2.0
    retry_s: float = 600.0  # libx264 costs much, and the cause may have gone


class EncoderFactory:
    """Opens the hardware encoder if there is one that supports the stream, and libx264 otherwise."""

    def __init__(
        self,
        find: Callable[[], tuple[Any, Any] | None] = h264_encoder,
        *,
        fallback: OpenBackend = x264.X264,
        require_fallback: Callable[[], None] = x264.require_libx264,
        timeouts: EncoderTimeouts = EncoderTimeouts(),
    ) -> None:
        """`find` returns Picamera2's encoder class and the base class of its outputs: `library.h264_encoder`."""
        self._find = find
        self._fallback = fallback
        self._require_fallback = require_fallback
        self._timeouts = timeouts
        # The thread `h264` only:
        self._retry_at_s = -math.inf
        self._unsupported: str | None = None  # why the last stream is not supported, which was logged

    def require(self) -> None:
        """Raises NotSupported if neither encoder is available."""
        if self._find() is None:
            self._require_fallback()

    def open(
        self, size: tuple[int, int], pixel_format: PixelFormat, fps: float, bitrate: int, wake: Callable[[], None], /
    ) -> Backend:
        """Raises CameraError if libx264 cannot be opened; the hardware encoder is opened with the first frame."""
        classes = self._find()
        if classes is not None:
            before, self._unsupported = self._unsupported, _unsupported_reason(size, pixel_format)
            if self._unsupported is None and time.monotonic() >= self._retry_at_s:
                return HardwareBackend(classes, size, fps, bitrate, wake, self._on_failure, self._timeouts)
            if self._unsupported not in (None, before):
                log.warning("Falling back to libx264: %s", self._unsupported)
        return self._fallback(size, pixel_format, fps, bitrate, wake)

    def _on_failure(self, reason: str) -> None:
        self._retry_at_s = time.monotonic() + self._timeouts.retry_s
        log.warning("Falling back to libx264: %s", reason)


def _unsupported_reason(size: tuple[int, int], pixel_format: PixelFormat) -> str | None:
    width, height = size
    if width > _MAX_WIDTH or math.ceil(width / 16) * math.ceil(height / 16) > _MAX_BLOCKS:
        return f"the hardware encoder does not support {width}x{height}"
    if width % 2 or height % 2:
        return f"the hardware encoder does not support odd sizes such as {width}x{height}"
    return None if pixel_format in _FORMATS else f"the hardware encoder does not support {pixel_format}"


class HardwareBackend:
    """Implements `Backend` for frames of one size and format. It starts with the first frame, whose stride it needs."""

    name: Final = "hardware"
    is_keeping_buffers = True  # the kernel does, until the encoder is stopped

    def __init__(
        self,
        classes: tuple[Any, Any],
        size: tuple[int, int],
        fps: float,
        bitrate: int,
        wake: Callable[[], None],
        on_failure: Callable[[str], None],
        timeouts: EncoderTimeouts,
    ) -> None:
        """`on_failure` is called once, on the thread `h264`, with the reason why there will be no more packets."""
        self._classes = classes
        self.size = size
        self.parameter_sets = b"", b""
        self._fps = fps
        self.bitrate = min(bitrate, _MAX_BITRATE)
        self._wake = wake
        self._on_failure = on_failure
        self._timeouts = timeouts

        # The thread `h264` only:
        self._encoder: Any = None
        self._release_memory: Callable[[], None] | None = None  # notifies the camera that no memory is kept any more
        self._first_us: int | None = None
        self._failure: BackendLost | None = None
        self._polls = 0  # since the last packet
        self._capacity = _IN_FLIGHT

        # Guards changes of the fields below; while it is held, only containers are called. The thread `h264` reads
        # single values and lengths without it, at worst one packet late.
        self._lock = threading.Lock()
        self._in_flight: deque[_BorrowedRequest] = deque()  # without a packet yet
        self._held: list[_BorrowedRequest] = []  # one entry for each hold of the encoder
        self._finished: deque[tuple[Packet, tuple[bytes, bytes] | None]] = deque()
        self._last_packet_s = 0.0  # or when a frame was submitted while none was in flight

    @property
    def is_full(self) -> bool:
        return len(self._in_flight) >= self._capacity

    @property
    def is_busy(self) -> bool:
        return bool(self._in_flight)

    def has_output(self) -> bool:
        if self._finished:
            self._polls = 0
            return True
        self._polls = self._polls + 1 if self._in_flight else 0
        waited_s = time.monotonic() - self._last_packet_s
        is_delayed = self._polls >= _PATIENCE_POLLS and waited_s > self._timeouts.patience_s
        if is_delayed and self.is_full and self._capacity < _MAX_IN_FLIGHT:
            self._capacity += 1
            self._polls = 0
        return self._is_silent()

    def send_frame(self, frame: Frame, *, is_keyframe: bool) -> None:
        try:
            origin = frame.origin
            if not isinstance(origin, RequestHandle):
                raise CameraError("a frame is not in the camera's memory")
            time_us = int(frame.metadata["SensorTimestamp"] / 1000)
            if self._encoder is None:
                self._start(origin)
            elif is_keyframe:
                self._force_keyframe()
            if self._first_us is None:
                self._first_us = time_us
            borrowed = _BorrowedRequest(frame, origin.request, time_us - self._first_us, self)
            with self._lock:
                if not self._in_flight:
                    self._last_packet_s = time.monotonic()
                    self._polls = 0
                self._in_flight.append(borrowed)
            self._encoder.encode("main", borrowed)
        except Exception as error:
            raise self._fail(root_cause(error)) from error

    def receive_packet(self) -> Packet | None:
        with self._lock:
            packet, sets = self._finished.popleft() if self._finished else (None, None)
        if sets is not None:
            self.parameter_sets = sets
        if packet is None and self._is_silent():
            raise self._fail(f"no packet from the hardware encoder for {self._timeouts.silence_s:g} s")
        return packet

    def close(self) -> None:
        encoder, self._encoder = self._encoder, None
        if encoder is not None:
            try:
                # Up to 0.4 s: its thread waits so long for another frame.
                encoder.stop()
            except Exception as error:  # noqa: BLE001 - one that was not started raises an arbitrary error
                log.debug("Failed to stop the hardware encoder: %s", root_cause(error))
            device = getattr(encoder, "vd", None)
            if device is not None:
                with contextlib.suppress(OSError):
                    device.close()
        with self._lock:
            kept, self._held = self._held, []
        for borrowed in kept:  # by an encoder that failed
            borrowed.frame.release()
        release_memory, self._release_memory = self._release_memory, None
        if release_memory is not None:
            release_memory()

    def _start(self, origin: RequestHandle) -> None:
        encoder_class, output_class = self._classes
        self._encoder = encoder = encoder_class(bitrate=self.bitrate)
        # As attributes, since the constructor of older releases does not accept all of them.
        encoder.repeat = True  # parameter sets with each keyframe: the first keyframe may be lost
        encoder.iperiod = max(1, round(self._fps * _KEYFRAME_INTERVAL_S))
        encoder.framerate = Fraction(self._fps).limit_denominator(1000)  # determines the level
        encoder.profile = _PROFILE
        stream = origin.request.config["main"]
        encoder.width, encoder.height = self.size
        encoder.format = stream["format"]
        encoder.stride = stream["stride"]
        encoder.output = _make_output(output_class, self._on_output)
        self._release_memory = origin.acquire()
        encoder.start()

    def _force_keyframe(self) -> None:
        force = getattr(self._encoder, "force_key_frame", None)
        if force is not None:
            force()
        else:  # an older release
            fcntl.ioctl(self._encoder.vd, _SET_CONTROL, struct.pack("=Ii", _FORCE_KEYFRAME, 1))

    def _is_silent(self) -> bool:
        waited_s = time.monotonic() - self._last_packet_s
        return self._polls >= _SILENCE_POLLS and waited_s > self._timeouts.silence_s

    def _fail(self, reason: str) -> BackendLost:
        if self._failure is None:
            self._failure = BackendLost(reason)
            self._on_failure(reason)
        return self._failure

    # --- Picamera2's thread -----------------------------------------------------------------------------------

    def _on_output(self, stream: bytes, time_us: int | None) -> None:
        try:
            self._add_packet(stream, time_us)
        except Exception:  # the edge of a thread of Picamera2, which would end
            log.exception("Failed to process a packet of the hardware encoder")

    def _add_packet(self, stream: bytes, time_us: int | None) -> None:
        data = only_slices(stream)
        if not data:
            return
        is_keyframe = is_idr(data)
        sets = _find_parameter_sets(stream) if is_keyframe else None
        with self._lock:
            borrowed = self._pop_frame_at(time_us)
            if borrowed is None:
                return
            frame = borrowed.frame
            self._finished.append((Packet(data, is_keyframe, frame.began_s, frame.timestamp_s), sets))
            self._last_packet_s = time.monotonic()
        self._wake()

    def _pop_frame_at(self, time_us: int | None) -> "_BorrowedRequest | None":
        """The frame of a packet; the encoder has skipped the ones before it. The caller holds the lock."""
        while self._in_flight:
            late_us = 0 if time_us is None else time_us - self._in_flight[0].time_us
            if late_us < -_SAME_FRAME_S * 1e6:
                break
            borrowed = self._in_flight.popleft()
            if late_us <= _SAME_FRAME_S * 1e6:
                return borrowed
        return None

    def hold(self, borrowed: "_BorrowedRequest") -> None:
        """Hold the frame for Picamera2's encoder, on the thread `h264`. Raises RuntimeError after its release."""
        if not borrowed.frame.hold():
            raise RuntimeError("the frame was already released")
        with self._lock:
            self._held.append(borrowed)

    def release(self, borrowed: "_BorrowedRequest") -> None:
        """Release the frame that Picamera2's encoder held, on its thread; too many calls have no effect."""
        with self._lock:
            if borrowed not in self._held:
                return
            self._held.remove(borrowed)
        borrowed.frame.release()


@dataclass(eq=False, slots=True)
class _BorrowedRequest:
    """A request as Picamera2's encoder expects it, which holds and releases the frame, so that the camera counts it."""

    frame: Frame
    _request: Any  # all else is this one's, also its own attribute `request`
    time_us: int  # since the backend's first frame
    _backend: HardwareBackend

    def __getattr__(self, name: str) -> Any:
        return getattr(self._request, name)

    def acquire(self) -> None:
        self._backend.hold(self)

    def release(self) -> None:
        self._backend.release(self)


def _find_parameter_sets(stream: bytes) -> tuple[bytes, bytes] | None:
    """SPS and PPS before a keyframe, None if they are missing."""
    try:
        sps, pps = parameter_sets(stream)
    except ValueError:
        return None
    with contextlib.suppress(ValueError):  # slightly wrong colours are better than no video
        sps = with_colours(sps)
    return sps, pps


def _make_output(output_class: Any, on_output: Callable[[bytes, int | None], None]) -> Any:
    """An instance of Picamera2's output class, which its encoders require, that passes packets on."""

    # Releases differ in what they pass after the timestamp.
    def outputframe(_self: Any, frame: bytes, _is_key: bool, timestamp: int | None, *_: Any, **_more: Any) -> None:
        on_output(frame, timestamp)

    return type("PacketOutput", (output_class,), {"outputframe": outputframe})()
