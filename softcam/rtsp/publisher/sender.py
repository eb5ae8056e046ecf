"""Sends the packets of one published session, the sender reports between them, and requests keyframes for its readers.

Has no thread and never waits: the publisher's thread calls it whenever there is something to send.
"""

import math
import time
from collections.abc import Callable
from typing import Final, Protocol

from softcam.h264.packet import VideoFormat
from softcam.h264.packet_queue import PacketQueue
from softcam.rtsp.rtp import Packetizer, interleave
from softcam.rtsp.schedule import LATE_KEYFRAMES_S, ReportSchedule
from softcam.runtime.deadline import Clock

_RTP_CHANNEL, _RTCP_CHANNEL = 0, 1  # of the interleaved connection
_KEYFRAME_EVERY_S: Final = 0.5  # repeated requests while waiting for one


class Outlet(Protocol):
    """A connection that keeps what the kernel does not accept."""

    @property
    def unsent(self) -> int:
        """Bytes that the kernel has not accepted yet."""

    def send(self, data: bytes) -> None:
        """Send bytes, or keep them."""


class MediaSender:
    """The media of one session, which begins now: RECORD has been accepted. Used by one thread."""

    def __init__(
        self,
        outlet: Outlet,
        queue: PacketQueue,
        packetizer: Packetizer,
        request_keyframe: Callable[[], None],
        *,
        clock: Clock = time.monotonic,
        wall_clock: Clock = time.time,
    ) -> None:
        self._outlet = outlet
        self._queue = queue
        self._packetizer = packetizer
        self._request_keyframe = request_keyframe
        self._clock = clock
        now_s = clock()
        self._keyframes_at_s = [now_s + after_s for after_s in LATE_KEYFRAMES_S]
        self._missing_keyframe_at_s = now_s  # the next request if the queue is waiting for one
        self._reports = ReportSchedule(clock, wall_clock)
        self.sent = 0  # packets
        self.sent_s = now_s  # when packets were last sent, or could not be; before the first one, when it began

    def send(self, fmt: VideoFormat) -> float | None:
        """Send what is queued and due. Returns when to call again at the latest, None when the size is not that of
        `fmt`. Raises RtspError."""
        if self._outlet.unsent:
            self.sent_s = self._clock()  # it is not the camera that packets wait for
            return math.inf  # the connection wakes its thread when it has sent something
        for current, packet in self._queue.take_packets():
            if (current.width, current.height) != (fmt.width, fmt.height):
                return None
            packets = self._packetizer.packetize(packet, current)
            data = interleave(packets, _RTP_CHANNEL)
            if self.sent == 0:
                # Receivers cannot place packets in time before the first report, and ignore a report before the first
                # packet. That packet has a parameter set, which they know from the description.
                data = interleave(packets[:1], _RTP_CHANNEL) + self._report() + interleave(packets[1:], _RTP_CHANNEL)
            self._outlet.send(data)
            self.sent += 1
            self.sent_s = self._clock()
        if self.sent and (report := self._report()):
            self._outlet.send(report)
        return self._request_keyframes()

    def _report(self) -> bytes:
        """The report that is due; empty if there is none."""
        if (moment := self._reports.take_due()) is None:
            return b""
        now_s, unix_s = moment
        return interleave([self._packetizer.report(unix_s=unix_s, monotonic_s=now_s)], _RTCP_CHANNEL)

    def _request_keyframes(self) -> float:
        """Request a keyframe if one is due; returns when the next one is."""
        now_s = self._clock()
        due_s = [at_s for at_s in self._keyframes_at_s if at_s <= now_s]
        del self._keyframes_at_s[: len(due_s)]
        is_missing = self._queue.is_awaiting_keyframe
        if due_s or (is_missing and now_s >= self._missing_keyframe_at_s):
            self._request_keyframe()
            self._missing_keyframe_at_s = now_s + _KEYFRAME_EVERY_S
        next_s = self._keyframes_at_s[0] if self._keyframes_at_s else math.inf
        return min(next_s, self._missing_keyframe_at_s) if is_missing else next_s
