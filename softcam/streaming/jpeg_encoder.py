"""Encodes frames as JPEGs: each variant once per frame, and only variants that have clients.

Two threads, `encoder-1` and `encoder-2`, encode the latest frame for every channel with clients; simplejpeg releases
the interpreter lock, so they use two cores where one is too slow for the frame rate. An encoder that is late continues
with the latest frame, never with the next one: frames may be dropped, but the latency does not grow. A snapshot is
encoded by the thread of its request; concurrent requests for the same one share the result.

A JPEG that the camera delivers and that needs no change is published by the camera's thread: waking an encoder would
take longer than reading the header.
"""

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from copy import copy
from dataclasses import dataclass
from operator import attrgetter
from typing import Final, NamedTuple, Protocol

from softcam.errors import NoPicture
from softcam.imaging import jpeg
from softcam.imaging.frame import Frame, NewestFrame
from softcam.imaging.placeholder import placeholder
from softcam.imaging.planes import centre_crop
from softcam.imaging.scale import scaled_size
from softcam.runtime.deadline import Deadline
from softcam.runtime.log_limit import RateLimitedLogger
from softcam.runtime.threads import spawn

log = logging.getLogger(__name__)

# Each holds a frame while it encodes, and so does the newest-frame slot: at most three of the camera's six buffers.
_ENCODERS: Final = 2
_SHARED_SNAPSHOTS: Final = 4
_SNAPSHOT_TIMEOUT_S: Final = 10.0  # a full-resolution JPEG takes a small Pi about a second
_ANY_QUALITY: Final = 100  # where nothing is compressed

Size = tuple[int, int]


class JpegVariant(NamedTuple):
    """What a channel delivers: the width in pixels (0: that of the stream; the aspect ratio is kept) and JPEG quality.

    `quality_is_explicit` distinguishes a requested quality from the default one, which does not apply to JPEGs that the
    camera delivers.
    """

    width: int
    quality: int
    quality_is_explicit: bool = False


class JpegConsumer(Protocol):
    """The clients of one variant."""

    variant: JpegVariant
    due_s: float  # when the next frame is due (monotonic clock); earlier frames are dropped


class PublishJpeg(Protocol):
    def __call__(self, variant: JpegVariant, jpeg: bytes, *, timestamp_s: float, made_s: float) -> None:
        """A JPEG is ready; `timestamp_s` is Unix time, `made_s` is monotonic and orders the JPEGs."""


@dataclass(eq=False, slots=True)
class _ChannelState:
    """The pending work of one channel."""

    channel: JpegConsumer
    is_due: bool = True
    notice: Sequence[str] | None = None  # lines of a placeholder that replaces the next frame
    began_s: float = 0.0  # of the latest frame that was encoded or is being encoded

    def request(self, notice: Sequence[str] | None = None) -> None:
        """Encode the latest frame, or a placeholder with these lines instead."""
        self.is_due = True
        self.notice = notice or self.notice

    def take_notice(self) -> Sequence[str] | None:
        """An encoder begins: with these lines, or with a frame where there are none."""
        self.is_due = False
        notice, self.notice = self.notice, None
        return notice

    def set_frame(self, frame: Frame) -> None:
        """The frame needs no other encoder."""
        self.is_due = False
        self.began_s = frame.began_s


class JpegEncoderPool:
    """Owns the encoder threads. The camera's thread calls `on_frame`, the fan-out `set_channels` and `show_notice`."""

    def __init__(
        self,
        frames: NewestFrame,
        size: Size,
        *,
        snapshot_timeout_s: float = _SNAPSHOT_TIMEOUT_S,
        errors: RateLimitedLogger | None = None,
    ) -> None:
        """`size` (width, height) is that of placeholders until the first frame."""
        self._frames = frames
        self._snapshot_timeout_s = snapshot_timeout_s
        self._errors = RateLimitedLogger(log) if errors is None else errors
        self._publish: PublishJpeg = lambda *_, **__: None  # replaced once, before there are threads and channels
        self._changed = threading.Condition(threading.Lock())  # guards the fields down to the next comment
        self._states: dict[JpegConsumer, _ChannelState] = {}
        self._size = size
        self._is_stopping = False
        self._encoded_count = 0
        self._snapshots: OrderedDict[tuple[float, Size, Size, int, bool], Future[bytes]] = OrderedDict()
        # Used by the thread that starts and stops the components:
        self._threads: list[threading.Thread] = []
        frames.subscribe(self.on_frame)

    def start(self, publish: PublishJpeg, on_crash: Callable[[str], None]) -> None:
        """Start the encoders; `publish` is called on their threads, and on the camera's for JPEGs that it delivered."""
        self._publish = publish
        self._threads = [spawn(f"encoder-{n + 1}", self._run, on_crash) for n in range(_ENCODERS)]

    @property
    def encoded_count(self) -> int:
        with self._changed:
            return self._encoded_count

    def set_channels(self, channels: Iterable[JpegConsumer]) -> None:
        """Replace the channels to encode for; a new one gets the latest frame at once."""
        with self._changed:
            self._states = {channel: self._states.get(channel) or _ChannelState(channel) for channel in channels}
            self._changed.notify_all()

    def on_frame(self) -> None:
        frame = self._frames.held()
        if frame is None:
            return
        try:
            channels = self._schedule(frame)
            picture = jpeg.encode(frame, None, _ANY_QUALITY) if channels else b""
        except Exception as error:  # noqa: BLE001 - one bad JPEG must not end the camera's thread
            self._log_error(error)
            return
        finally:
            frame.release()
        if not channels:
            return
        with self._changed:
            self._encoded_count += len(channels)
        for channel in channels:
            self._publish(channel.variant, picture, timestamp_s=frame.timestamp_s, made_s=frame.began_s)

    def _schedule(self, frame: Frame) -> list[JpegConsumer]:
        """Wake encoders for the channels that are due; returns the channels that get the camera's JPEG unchanged."""
        unchanged = []
        with self._changed:
            now_s = time.monotonic()
            due = 0
            for state in self._states.values():
                if state.channel.due_s > now_s:
                    continue
                is_newer = state.notice is None and state.began_s < frame.began_s
                if is_newer and _is_usable_unchanged(frame, state.channel.variant):
                    state.set_frame(frame)
                    self._size = frame.size
                    unchanged.append(state.channel)
                else:
                    state.request()
                    due += 1
            if due:
                self._changed.notify(due)
        return unchanged

    def show_notice(self, lines: Sequence[str]) -> None:
        """Send a placeholder with these lines to every client."""
        with self._changed:
            for state in self._states.values():
                state.request(lines)
            self._changed.notify_all()

    def snapshot(self, frame: Frame, size: Size, quality: int, *, quality_is_explicit: bool = False) -> bytes:
        """A JPEG of a frame that the caller holds; for another aspect ratio its centre. Raises CameraError."""
        key = (frame.began_s, frame.size, size, quality, quality_is_explicit)
        with self._changed:
            is_first = key not in self._snapshots
            shared = self._snapshots.setdefault(key, Future())
            if len(self._snapshots) > _SHARED_SNAPSHOTS:
                self._snapshots.popitem(last=False)
        if is_first:
            try:
                part = centre_crop(frame, size)
                shared.set_result(jpeg.encode(part, size, quality, quality_is_explicit=quality_is_explicit))
            except BaseException as error:
                # Whatever it is: requests that share this snapshot would otherwise wait for their timeout.
                # A copy has no stack: it would keep the frame until the garbage collector runs.
                shared.set_exception(copy(error))
                with self._changed:
                    if self._snapshots.get(key) is shared:  # not that of a later request, after it was dropped
                        del self._snapshots[key]
                raise
        try:
            shared_error = shared.exception(self._snapshot_timeout_s)
        except TimeoutError as error:
            raise NoPicture(f"the image was not encoded within {self._snapshot_timeout_s:.0f} s") from error
        if shared_error is not None:
            # A new object: several threads raise it, and each adds its own traceback.
            raise copy(shared_error) from shared_error
        return shared.result()

    def clear_snapshots(self) -> None:
        """Drop the snapshots that requests might still share; one of the whole sensor has some megabytes."""
        with self._changed:
            self._snapshots.clear()

    def stop(self, deadline: Deadline) -> None:
        """End the threads; waits until the deadline."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(deadline.remaining_s)

    # --- the encoder threads ----------------------------------------------------------------------------------

    def _run(self) -> None:
        while (work := self._wait_for_work()) is not None:
            channel, frame, notice = work
            try:
                if frame is None:
                    self._publish_placeholder(channel.variant, notice)
                else:
                    self._publish_frame(channel.variant, frame)
            except Exception as error:  # noqa: BLE001 - one bad frame must not end the thread
                self._log_error(error)

    def _wait_for_work(self) -> tuple[JpegConsumer, Frame | None, Sequence[str]] | None:
        """Wait until a channel is due; the latest frame, held, or the lines of a placeholder. None at the end."""
        with self._changed:
            while not self._is_stopping:
                # The channel served longest ago is first: under overload each channel loses some frames.
                due = [state for state in self._states.values() if state.is_due]
                for state in sorted(due, key=attrgetter("began_s")):
                    notice = state.take_notice()
                    if notice is not None:
                        return state.channel, None, notice
                    frame = self._frames.held(newer_than_s=state.began_s)
                    if frame is None:  # none at all, or the other encoder was faster
                        continue
                    state.set_frame(frame)
                    self._size = frame.size
                    return state.channel, frame, ()
                self._changed.wait()
            return None

    def _log_error(self, error: Exception) -> None:
        # A camera that delivers damaged frames does so at its full rate.
        self._errors.error("Failed to encode a JPEG: %s", error, exc_info=error)

    def _publish_frame(self, variant: JpegVariant, frame: Frame) -> None:
        """Encode a frame, release it, and publish the JPEG.

        In this order: the fan-out needs the interpreter once it is woken, and every step that this thread still does
        delays all clients.
        """
        width, quality, quality_is_explicit = variant
        try:
            size = scaled_size(frame.size, width) if 0 < width < frame.width else None
            picture = jpeg.encode(frame, size, quality, quality_is_explicit=quality_is_explicit)
        finally:
            frame.release()
        with self._changed:
            self._encoded_count += 1
        self._publish(variant, picture, timestamp_s=frame.timestamp_s, made_s=frame.began_s)

    def _publish_placeholder(self, variant: JpegVariant, lines: Sequence[str]) -> None:
        with self._changed:
            size = self._size
        if variant.width:
            size = scaled_size(size, variant.width)
        made_s = time.monotonic()
        self._publish(variant, placeholder(size, tuple(lines)), timestamp_s=time.time(), made_s=made_s)


def _is_usable_unchanged(frame: Frame, variant: JpegVariant) -> bool:
    """Whether the frame is a JPEG that is neither scaled down nor compressed again for this variant."""
    return frame.pixel_format == "MJPEG" and not variant.quality_is_explicit and not 0 < variant.width < frame.width
