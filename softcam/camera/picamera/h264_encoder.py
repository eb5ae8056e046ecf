"""The H.264 encoder in a Raspberry Pi 4 and older, by Picamera2's class for it: pictures are encoded where they lie.

Picamera2's own way to it, `start_encoder`, calls it on its event loop with every frame, under its lock, where an
exception ends the camera's stream. Here the encoder's thread gives it the newest frame, as it gives one to libx264:
docs/decisions/0011-the-encoder-in-hardware.md. Few frames are under way at a time. A thread of Picamera2's gives
them back and calls for each packet; what it calls here takes a lock for a moment, and never raises.
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
from fractions import Fraction
from typing import Any, Final

from softcam.camera.picamera.library import h264_encoder, root_cause
from softcam.camera.picamera.request import RequestHandle
from softcam.errors import CameraError
from softcam.h264 import x264
from softcam.h264.backend import Backend, BackendLost, OpenBackend, open_x264
from softcam.h264.nal import is_idr, only_slices, parameter_sets
from softcam.h264.packet import Packet
from softcam.h264.sps import with_colours
from softcam.imaging.frame import Frame, PixelFormat

log = logging.getLogger(__name__)

_WIDEST: Final = 1920
_MOST_BLOCKS: Final = 120 * 68  # of 16x16 pixels: 1920x1080
_FORMATS: Final = frozenset({"YUV420", "NV12"})
# Main and High compress a little better, but Baseline is what WebRTC takes, as it is with libx264.
_PROFILE: Final = "baseline"
_OWN_KEYFRAME_S: Final = 2.0  # the encoder's own period, should it not hear that it is to make one

_UNDER_WAY: Final = 2  # one is encoded while the next one is brought; more would only be older
# An encoder may hold frames back until it has more; then it gets more. The camera has six buffers for everyone.
_MOST_UNDER_WAY: Final = 3
_PATIENCE_S: Final = 0.25
_PATIENCE_LOOKS: Final = 4
# It gave nothing for so long, and each time that it was looked at: for a process that was stopped no time passes.
_SILENCE_S: Final = 2.0
_SILENCE_LOOKS: Final = 10
_SAME_S: Final = 500e-6  # moments of one frame, by two ways of rounding
_PAUSE_S: Final = 600.0  # after it failed: libx264 costs much, and the reason may have gone

_SET_CONTROL: Final = 0xC008561C  # VIDIOC_S_CTRL, of two numbers of 32 bits: which control, and its value
_FORCE_KEYFRAME: Final = 0x009909E5  # V4L2_CID_MPEG_VIDEO_FORCE_KEY_FRAME


class EncoderFactory:
    """Opens the encoder in hardware where there is one that can do it, and libx264 where not."""

    def __init__(
        self,
        find: Callable[[], tuple[Any, Any] | None] = h264_encoder,
        *,
        otherwise: OpenBackend = open_x264,
        require_otherwise: Callable[[], None] = x264.require_libx264,
    ) -> None:
        """`find` gives Picamera2's class of encoders and that of their outputs, as `picamera_library` does."""
        self._find = find
        self._otherwise = otherwise
        self._require_otherwise = require_otherwise
        self._not_before_s = -math.inf
        self._told: str | None = None  # why it is libx264 at present

    def require(self) -> None:
        """Raises NotSupported where neither is there."""
        if self._find() is None:
            self._require_otherwise()

    def open(
        self, size: tuple[int, int], pixel_format: PixelFormat, fps: float, bitrate: int, wake: Callable[[], None], /
    ) -> Backend:
        """Raises CameraError where libx264 cannot be opened; the other one is opened with the first frame."""
        classes = self._find()
        if classes is not None:
            reason = _why_not(size, pixel_format)
            if reason is None and time.monotonic() >= self._not_before_s:
                self._told = None
                return Hardware(classes, size, fps, bitrate, wake, self._give_up)
            if reason is not None:
                self._tell(reason)
        return self._otherwise(size, pixel_format, fps, bitrate, wake)

    def _give_up(self, reason: str) -> None:
        self._not_before_s = time.monotonic() + _PAUSE_S
        self._told = None
        self._tell(reason)

    def _tell(self, reason: str) -> None:
        if reason != self._told:
            self._told = reason
            log.warning("H.264 is made by libx264 now, not by the encoder in hardware: %s", reason)


def _why_not(size: tuple[int, int], pixel_format: PixelFormat) -> str | None:
    width, height = size
    if width > _WIDEST or math.ceil(width / 16) * math.ceil(height / 16) > _MOST_BLOCKS:
        return f"it has no pictures of {width}x{height}"
    if width % 2 or height % 2:
        return f"it has no pictures of an odd size, as {width}x{height}"
    return None if pixel_format in _FORMATS else f"it takes no {pixel_format}"


class Hardware:
    """One run: frames of one size and format. It is started with the first frame, whose memory says how it lies."""

    name: Final = "hardware"
    keeps_buffers = True  # the kernel does, until the encoder is stopped

    def __init__(
        self,
        classes: tuple[Any, Any],
        size: tuple[int, int],
        fps: float,
        bitrate: int,
        wake: Callable[[], None],
        on_lost: Callable[[str], None],
    ) -> None:
        """`on_lost` is told once, on the thread that encodes, why it gives nothing any more."""
        self._classes = classes
        self.size = size
        self.parameter_sets = b"", b""
        self._fps = fps
        self._bitrate = bitrate
        self._wake = wake
        self._on_lost = on_lost

        # The thread that encodes, alone:
        self._encoder: Any = None
        self._let_go: Callable[[], None] | None = None  # tells the camera that its memory is kept no more
        self._first_us: int | None = None
        self._lost: BackendLost | None = None
        self._looks = 0  # since the last packet
        self._room = _UNDER_WAY

        self._lock = threading.Lock()  # guards the fields below; under it nothing is called but containers
        self._under_way: deque[_BorrowedRequest] = deque()  # no packet yet
        self._lent: set[_BorrowedRequest] = set()  # not given back yet
        self._done: deque[tuple[Packet, tuple[bytes, bytes] | None]] = deque()
        self._heard_s = 0.0  # when the last packet came, or the first frame was put after none was under way

    @property
    def is_full(self) -> bool:
        return len(self._under_way) >= self._room

    @property
    def is_busy(self) -> bool:
        return bool(self._under_way)

    def has_output(self) -> bool:
        if self._done:
            self._looks = 0
            return True
        self._looks = self._looks + 1 if self._under_way else 0
        wants_more = self._looks >= _PATIENCE_LOOKS and time.monotonic() - self._heard_s > _PATIENCE_S
        if wants_more and self.is_full and self._room < _MOST_UNDER_WAY:
            self._room += 1
            self._looks = 0
        return self._is_silent()

    def send_frame(self, frame: Frame, *, is_keyframe: bool) -> None:
        try:
            origin = frame.origin
            if not isinstance(origin, RequestHandle):
                raise CameraError("a picture came that is not in the camera's own memory")
            time_us = int(frame.metadata["SensorTimestamp"] / 1000)
            if self._encoder is None:
                self._start(origin)
            elif is_keyframe:
                self._force_keyframe()
            if self._first_us is None:
                self._first_us = time_us
            lent = _BorrowedRequest(frame, origin.request, time_us - self._first_us, self._came_back)
            with self._lock:
                if not self._under_way:
                    self._heard_s = time.monotonic()
                    self._looks = 0
                self._under_way.append(lent)
                self._lent.add(lent)
            self._encoder.encode("main", lent)
        except Exception as error:
            raise self._lose(root_cause(error)) from error

    def receive_packet(self) -> Packet | None:
        with self._lock:
            packet, sets = self._done.popleft() if self._done else (None, None)
        if sets is not None:
            self.parameter_sets = sets
        if packet is None and self._is_silent():
            raise self._lose(f"it has given nothing for {_SILENCE_S:g} s")
        return packet

    def close(self) -> None:
        encoder, self._encoder = self._encoder, None
        if encoder is not None:
            try:
                # Up to 0.4 s: so long its thread waits for one more frame.
                encoder.stop()
            except Exception as error:  # noqa: BLE001 - one that did not start raises what comes first
                log.debug("The encoder in hardware did not stop in order: %s", root_cause(error))
            device = getattr(encoder, "vd", None)
            if device is not None:
                with contextlib.suppress(OSError):
                    device.close()
        with self._lock:
            kept = list(self._lent)
        for lent in kept:
            lent.give_back()
        let_go, self._let_go = self._let_go, None
        if let_go is not None:
            let_go()

    # --- inside -----------------------------------------------------------------------------------------------

    def _start(self, origin: RequestHandle) -> None:
        encoder_class, output_class = self._classes
        self._encoder = encoder = encoder_class(bitrate=self._bitrate)
        # As attributes, since the constructor of older releases does not take all of them.
        encoder.repeat = True  # parameter sets with each keyframe: those of the first one alone could be lost with it
        encoder.iperiod = max(1, round(self._fps * _OWN_KEYFRAME_S))
        encoder.framerate = Fraction(self._fps).limit_denominator(1000)  # for the level
        encoder.profile = _PROFILE
        stream = origin.request.config["main"]
        encoder.width, encoder.height = self.size
        encoder.format = stream["format"]
        encoder.stride = stream["stride"]
        encoder.output = _output(output_class, self._came)
        self._let_go = origin.keep()
        encoder.start()

    def _force_keyframe(self) -> None:
        force = getattr(self._encoder, "force_key_frame", None)
        if force is not None:
            force()
        else:  # an older release
            fcntl.ioctl(self._encoder.vd, _SET_CONTROL, struct.pack("=Ii", _FORCE_KEYFRAME, 1))

    def _is_silent(self) -> bool:
        return self._looks >= _SILENCE_LOOKS and time.monotonic() - self._heard_s > _SILENCE_S

    def _lose(self, reason: str) -> BackendLost:
        if self._lost is None:
            self._lost = BackendLost(reason)
            self._on_lost(reason)
        return self._lost

    # --- Picamera2's thread -----------------------------------------------------------------------------------

    def _came(self, stream: bytes, time_us: int | None) -> None:
        try:
            self._take(stream, time_us)
        except Exception:  # the edge of a thread of Picamera2's, which would end
            log.exception("A packet of the encoder in hardware was lost")

    def _take(self, stream: bytes, time_us: int | None) -> None:
        data = only_slices(stream)
        if not data:
            return
        is_keyframe = is_idr(data)
        sets = None
        if is_keyframe:
            sets = _sets_of(stream)
        with self._lock:
            lent = self._whose(time_us)
            if lent is None:
                return
            frame = lent.frame
            self._done.append((Packet(data, is_keyframe, frame.began_s, frame.timestamp_s), sets))
            self._heard_s = time.monotonic()
        self._wake()

    def _whose(self, time_us: int | None) -> "_BorrowedRequest | None":
        """Of which frame a packet is; those before it will have none any more."""
        while self._under_way:
            late_us = 0 if time_us is None else time_us - self._under_way[0].time_us
            if late_us < -_SAME_S * 1e6:
                break
            lent = self._under_way.popleft()
            if late_us <= _SAME_S * 1e6:
                return lent
        return None

    def _came_back(self, lent: "_BorrowedRequest") -> None:
        with self._lock:
            self._lent.discard(lent)


class _BorrowedRequest:
    """A request as Picamera2's encoder wants it; what it keeps and gives back is the frame, which the camera counts."""

    def __init__(
        self, frame: Frame, request: Any, time_us: int, came_back: "Callable[[_BorrowedRequest], None]"
    ) -> None:
        self.frame = frame
        self.time_us = time_us  # since the first frame of the run
        self._request = request
        self._came_back = came_back
        self._lock = threading.Lock()  # guards _holds
        self._holds = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._request, name)

    def acquire(self) -> None:
        if not self.frame.hold():
            raise RuntimeError("the frame was given back already")
        with self._lock:
            self._holds += 1

    def release(self) -> None:
        with self._lock:
            if not self._holds:
                return
            self._holds -= 1
            is_last = not self._holds
        if is_last:
            self._came_back(self)
        self.frame.release()

    def give_back(self) -> None:
        """Whatever is still held, of an encoder that ended otherwise than it should."""
        with self._lock:
            holds, self._holds = self._holds, 0
        self._came_back(self)
        for _ in range(holds):
            self.frame.release()


def _sets_of(stream: bytes) -> tuple[bytes, bytes] | None:
    """The parameter sets in front of a keyframe, None where there are none."""
    try:
        sps, pps = parameter_sets(stream)
    except ValueError:
        return None
    with contextlib.suppress(ValueError):  # pictures in colours that are a little wrong are better than none
        sps = with_colours(sps)
    return sps, pps


def _output(output_class: Any, came: Callable[[bytes, int | None], None]) -> Any:
    """One of Picamera2's outputs, which its encoders insist on."""

    def outputframe(
        _self: Any,
        frame: bytes,
        _keyframe: bool = True,
        timestamp: int | None = None,
        *_more: Any,
        **_others: Any,
    ) -> None:
        came(frame, timestamp)

    return type("PacketsOut", (output_class,), {"outputframe": outputframe})()
