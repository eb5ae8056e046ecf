"""Makes JPEGs of frames: each wanted size and quality once per frame, and only while somebody wants it.

Two threads, `encoder-1` and `encoder-2`, take the newest frame whenever the camera gives one and encode it for every
channel that has viewers; simplejpeg gives the GIL up meanwhile, so they use two cores where one is not enough for the
frame rate. An encoder that is late takes the newest frame, never the next one: pictures may be left out, but their age
does not grow. A snapshot is encoded by the thread of its request; several at once share one encode.

A JPEG of the camera's own that is wanted as it is goes on by the camera's thread: to wake an encoder would take longer
than to look at its header.
"""

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Final, NamedTuple, Protocol

from softcam.errors import NoPicture
from softcam.imaging import jpeg
from softcam.imaging.frame import Frame, NewestFrame
from softcam.imaging.placeholder import placeholder
from softcam.imaging.planes import centre_crop
from softcam.imaging.scale import scaled_size
from softcam.runtime.threads import spawn

log = logging.getLogger(__name__)

# Each holds a frame while it encodes, and so does the slot: three of the camera's six buffers at the most.
_ENCODERS: Final = 2
_SHARED: Final = 4  # JPEGs that snapshots of one moment may share
_SHARE_LIMIT_S: Final = 10.0  # a full-resolution picture takes a small Pi about a second
_ANY_QUALITY: Final = 100  # where nothing is compressed
_COMPLAINT_PAUSE_S: Final = 10.0  # a camera that gives damaged frames does so at its full rate

Size = tuple[int, int]


class JpegVariant(NamedTuple):
    """What a channel shows: the width in pixels (0 is the stream's own; the aspect ratio is kept) and JPEG quality.

    `is_quality_asked` tells a quality that somebody asked for from the usual one, to which a camera that gives JPEGs
    by itself need not be held.
    """

    width: int
    quality: int
    is_quality_asked: bool = False


class Channel(Protocol):
    """Viewers who want the same pictures."""

    @property
    def key(self) -> JpegVariant: ...

    @property
    def due_s(self) -> float:
        """When the next picture is wanted (monotonic clock); frames before it are left out."""


class Deliver(Protocol):
    def __call__(self, key: JpegVariant, jpeg: bytes, *, timestamp_s: float, made_s: float) -> None:
        """A picture is ready; `timestamp_s` is Unix time, `made_s` is monotonic and orders the pictures."""


@dataclass(eq=False, slots=True)
class _Work:
    """What is to be done for one channel."""

    channel: Channel
    is_due: bool = True
    notice: Sequence[str] | None = None  # a placeholder with these lines is wanted in place of a frame
    began_s: float = 0.0  # the newest frame that an encoder took


class JpegEncoderPool:
    """Owns the encoder threads. `on_frame` is called by the camera's thread, `want` and `show` by the fan-out."""

    def __init__(self, frames: NewestFrame, size: Size) -> None:
        """`size` (width, height) is that of placeholders until a frame has come."""
        self._frames = frames
        self._changed = threading.Condition(threading.Lock())  # guards the fields below
        self._works: dict[Channel, _Work] = {}
        self._size = size
        self._is_stopping = False
        self._encoded = 0
        self._shared: OrderedDict[tuple[float, Size, Size, int, bool], Future[bytes]] = OrderedDict()
        self._failures = 0  # not yet logged
        self._complain_at_s = 0.0
        self._deliver: Deliver | None = None
        self._threads: list[threading.Thread] = []  # of the thread that starts and stops the parts
        frames.subscribe(self.on_frame)

    def start(self, deliver: Deliver, on_crash: Callable[[str], None]) -> None:
        """Start the encoders; `deliver` gets what they make, on their threads, and what the camera made, on its own."""
        self._deliver = deliver
        run = partial(self._run, deliver)
        self._threads = [spawn(f"encoder-{n + 1}", run, on_crash) for n in range(_ENCODERS)]

    @property
    def encoded(self) -> int:
        """How many pictures were made for streams so far."""
        with self._changed:
            return self._encoded

    def want(self, channels: Iterable[Channel]) -> None:
        """From now on these channels have viewers; a new one gets the newest frame at once."""
        with self._changed:
            self._works = {channel: self._works.get(channel) or _Work(channel) for channel in channels}
            self._changed.notify_all()

    def on_frame(self) -> None:
        """There is a new frame in the slot."""
        frame = self._frames.held()
        if frame is None:
            return
        try:
            channels = self._tell(frame)
            picture = self._take_own(frame) if channels else None
        finally:
            frame.release()
        if picture is None or self._deliver is None:
            return
        with self._changed:
            self._encoded += len(channels)
        for channel in channels:
            self._deliver(channel.key, picture, timestamp_s=frame.timestamp_s, made_s=frame.began_s)

    def _tell(self, frame: Frame) -> list[Channel]:
        """Wake encoders for the channels that are due, but for those that take `frame` as it is: these are returned."""
        passed = []
        with self._changed:
            now_s = time.monotonic()
            due = 0
            for work in self._works.values():
                if work.channel.due_s > now_s:
                    continue
                if work.notice is None and work.began_s < frame.began_s and _is_as_wanted(frame, work.channel.key):
                    work.is_due = False
                    work.began_s = frame.began_s
                    self._size = frame.size
                    passed.append(work.channel)
                else:
                    work.is_due = True
                    due += 1
            if due:
                self._changed.notify(due)
        return passed

    def _take_own(self, frame: Frame) -> bytes | None:
        """The JPEG that the camera made; None for a damaged one."""
        try:
            return jpeg.encode(frame, None, _ANY_QUALITY)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with one picture, the camera's thread goes on
            self._complain(error)
            return None

    def show(self, lines: Sequence[str]) -> None:
        """Send every viewer a placeholder with these lines."""
        with self._changed:
            for work in self._works.values():
                work.is_due = True
                work.notice = lines
            self._changed.notify_all()

    def snapshot(self, frame: Frame, size: Size, quality: int, *, is_quality_asked: bool = False) -> bytes:
        """A JPEG of a frame that the caller holds; another aspect ratio shows its middle. Raises CameraError."""
        key = (frame.began_s, frame.size, size, quality, is_quality_asked)
        with self._changed:
            shared = self._shared.get(key)
            is_ours = shared is None
            if shared is None:
                shared = self._shared[key] = Future()
                if len(self._shared) > _SHARED:
                    self._shared.popitem(last=False)
        if is_ours:
            try:
                part = centre_crop(frame, size)
                shared.set_result(jpeg.encode(part, size, quality, is_quality_asked=is_quality_asked))
            except BaseException as error:
                # Whatever it is: those who wait for the same picture would otherwise wait for nothing.
                shared.set_exception(error)
                with self._changed:
                    if self._shared.get(key) is shared:
                        del self._shared[key]
                raise
        try:
            return shared.result(_SHARE_LIMIT_S)
        except TimeoutError as error:
            raise NoPicture(f"the picture was not encoded within {_SHARE_LIMIT_S:.0f} s") from error

    def forget(self) -> None:
        """Let go of the pictures that snapshots might still share; those of a whole sensor are some megabytes each."""
        with self._changed:
            self._shared.clear()

    def stop(self, deadline_s: float) -> None:
        """End the threads; waits until the deadline (monotonic clock)."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(max(0.0, deadline_s - time.monotonic()))

    # --- the encoder threads ----------------------------------------------------------------------------------

    def _run(self, deliver: Deliver) -> None:
        while (taken := self._take()) is not None:
            channel, frame, notice = taken
            try:
                if frame is None:
                    self._make_placeholder(channel, notice, deliver)
                else:
                    self._make_picture(channel, frame, deliver)
            except Exception as error:  # noqa: BLE001 - one bad frame ends no thread: the next one may be well
                self._complain(error)

    def _take(self) -> tuple[Channel, Frame | None, Sequence[str]] | None:
        """Sleep until a channel is due; the newest frame, held, or the lines of a placeholder. None at the end."""
        with self._changed:
            while not self._is_stopping:
                # Who waits longest is first: where time does not suffice for all channels, each loses some frames.
                for work in sorted((work for work in self._works.values() if work.is_due), key=_last_served):
                    work.is_due = False
                    notice, work.notice = work.notice, None
                    if notice is not None:
                        return work.channel, None, notice
                    frame = self._newer_than(work.began_s)
                    if frame is None:  # none at all, or the other encoder was faster
                        continue
                    work.began_s = frame.began_s
                    self._size = frame.size
                    return work.channel, frame, ()
                self._changed.wait()
            return None

    def _newer_than(self, began_s: float) -> Frame | None:
        """The newest frame, held, if it is a later one. Not held first: that could be its last hold, to be given back
        under our lock."""
        return self._frames.wait(lambda frame: frame.began_s > began_s, deadline_s=0.0)

    def _complain(self, error: Exception) -> None:
        """Log a picture that could not be encoded; of many in a row, the first and then their number."""
        now_s = time.monotonic()
        with self._changed:
            self._failures += 1
            if now_s < self._complain_at_s:
                return
            failures, self._failures = self._failures, 0
            self._complain_at_s = now_s + _COMPLAINT_PAUSE_S
        log.error("%d pictures could not be encoded: %s", failures, error, exc_info=error)

    def _make_picture(self, channel: Channel, frame: Frame, deliver: Deliver) -> None:
        """Encode a frame, give it back, and deliver the picture.

        In this order: once the fan-out is woken it wants the interpreter, and every step that this thread still has to
        do makes all viewers wait.
        """
        width, quality, is_quality_asked = channel.key
        try:
            size = scaled_size(frame.size, width) if 0 < width < frame.width else None
            picture = jpeg.encode(frame, size, quality, is_quality_asked=is_quality_asked)
        finally:
            frame.release()
        with self._changed:
            self._encoded += 1
        deliver(channel.key, picture, timestamp_s=frame.timestamp_s, made_s=frame.began_s)

    def _make_placeholder(self, channel: Channel, lines: Sequence[str], deliver: Deliver) -> None:
        with self._changed:
            size = self._size
        width = channel.key.width
        if 0 < width < size[0]:
            size = scaled_size(size, width)
        now_s = time.monotonic()
        deliver(channel.key, placeholder(size, lines), timestamp_s=time.time(), made_s=now_s)


def _is_as_wanted(frame: Frame, key: JpegVariant) -> bool:
    """Whether it is a JPEG that is neither made smaller nor compressed again."""
    return frame.pixel_format == "MJPEG" and not key.is_quality_asked and not 0 < key.width < frame.width


def _last_served(work: _Work) -> float:
    return work.began_s
