"""The RTP stream of all RTSP viewers: each access unit is packetized once, and sent to all of them from one ring.

The encoder's thread calls `on_format` and `on_packet`, which make the packets and pass them to the event loop; the rest
runs on the loop, which owns the state. All viewers get the same packets, with the same numbers and timestamps; each
viewer is a reader of the ring (`h264.ring`). Timestamps and sequence numbers go on through everything that happens to
the camera, for as long as the process lives.
"""

import logging
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from softcam.errors import CameraError
from softcam.h264.bitrate import Bitrate
from softcam.h264.packet import Packet, VideoFormat, VideoSource
from softcam.h264.ring import Reader, Ring, RingLimits
from softcam.net.event_loop import EventLoop
from softcam.net.io_uring import BatchSender
from softcam.net.sockets import FdArray
from softcam.net.udp import PortPair
from softcam.rtsp.rtp import Packetizer, sender_report
from softcam.rtsp.schedule import LATE_KEYFRAMES_S, ReportSchedule
from softcam.rtsp.server.transport import Interleaved
from softcam.rtsp.server.viewers import AccessUnit, TcpViewer, UdpViewer
from softcam.runtime.deadline import Clock
from softcam.runtime.threads import spawn

log = logging.getLogger(__name__)

AnyViewer = TcpViewer | UdpViewer


@dataclass(frozen=True, slots=True)
class StreamLimits:
    ring: RingLimits = field(default_factory=RingLimits)
    late_keyframes_s: tuple[float, ...] = LATE_KEYFRAMES_S  # requested so long after a viewer has started
    live_s: float = 1.0  # without a unit for longer, a new viewer waits for the next one


class RtpStream:
    """A packet sink with viewers. It is subscribed to the encoder from `attach_encoder` to `detach_encoder`."""

    def __init__(
        self,
        video: VideoSource,
        loop: EventLoop,
        on_crash: Callable[[str], None],
        *,
        bitrate: Bitrate | None = None,
        sender: BatchSender | None = None,
        wall_clock: Clock = time.time,
        limits: StreamLimits | None = None,
    ) -> None:
        """`bitrate` is that of the description."""
        self._bitrate = bitrate
        self.fmt: VideoFormat | None = None  # None while closed, and before the first keyframe
        self.viewers: set[AnyViewer] = set()
        self.received_s = 0.0  # when the last unit was appended, monotonic clock; 0 before the first one
        self.interval_s = 0.0  # between the last two
        self._video = video
        self._loop = loop
        self._on_crash = on_crash
        self._sender = BatchSender() if sender is None else sender
        self._wall_clock = wall_clock
        self._limits = limits or StreamLimits()
        self._on_change: Callable[[CameraError | None], None] = lambda _: None

        # Used by the encoder's thread alone. The loop reads the SSRC, and maps times, which is the same after the first
        # packet.
        self._packetizer = Packetizer(secrets.randbits(32), secrets.randbits(16), secrets.randbits(32))
        self._format: VideoFormat | None = None
        self._number = 0

        # Used by the event loop alone.
        self._is_open = False
        self._is_subscribing = False
        self._is_subscribed = False
        self._ring = Ring[AccessUnit](self._request_keyframe, self._limits.ring)
        self._reports = ReportSchedule(loop.clock, wall_clock)
        self._fds: tuple[list[int], FdArray] = [], np.array([], np.int32)  # of the last batch

    @property
    def ssrc(self) -> int:
        return self._packetizer.ssrc

    @property
    def bitrate(self) -> int | None:
        """The bits per second of the current format; None if they are unknown."""
        fmt = self.fmt
        return None if fmt is None or self._bitrate is None else self._bitrate((fmt.width, fmt.height), fmt.fps)

    @property
    def is_live(self) -> bool:
        """Whether there is a format, and units arrive."""
        silence_s = self._loop.clock() - self.received_s
        return self.fmt is not None and silence_s <= max(self._limits.live_s, 3 * self.interval_s)

    def on_change(self, function: Callable[[CameraError | None], None]) -> None:
        """Call `function` on the loop when the stream begins or continues, with None, or when it cannot start."""
        self._on_change = function

    # --- the encoder's thread ---------------------------------------------------------------------------------

    def on_format(self, fmt: VideoFormat) -> None:
        self._format = fmt
        self._loop.call(partial(self._set_format, fmt))

    def on_packet(self, packet: Packet) -> None:
        if self._format is None:
            return
        packetizer = self._packetizer
        sequence = packetizer.sequence
        packets = packetizer.packetize(packet, self._format)
        self._number += 1
        unit = AccessUnit(
            self._number,
            packets,
            packet.is_keyframe,
            packet.began_s,
            self._loop.clock(),
            sequence,
            packetizer.timestamp(packet.began_s),
            (packetizer.packets, packetizer.octets),
        )
        self._loop.call(partial(self._append, unit))

    # --- the event loop ---------------------------------------------------------------------------------------

    def attach_encoder(self) -> None:
        """Start the encoder, if it does not run; `on_change` is called later."""
        self._is_open = True
        if self._is_subscribed or self._is_subscribing:
            return
        self._is_subscribing = True
        try:
            # The first subscription of the process loads the encoder, which takes up to a second.
            spawn("rtsp-encoder", self._subscribe, self._on_crash)
        except RuntimeError as error:  # no memory, or too many threads
            self._on_subscribed(CameraError(f"the H.264 encoder cannot be started: {error}"))

    def detach_encoder(self) -> None:
        """There are no viewers, and nobody waits for the format."""
        self._is_open = False
        self.fmt = None
        self.received_s = self.interval_s = 0.0
        self._ring.clear()
        self._sender.release_ring()
        if self._is_subscribed:
            self._is_subscribed = False
            self._video.unsubscribe(self)

    def new_reader(self) -> Reader[AccessUnit]:
        """The position of a viewer that is added now."""
        return self._ring.new_reader(self._loop.clock())

    def add_viewer(self, viewer: AnyViewer) -> None:
        """Start to send; begins with a keyframe, at once where there is a fresh one."""
        self.viewers.add(viewer)
        if self._start(viewer):
            self._resume(viewer)
        else:
            self._request_keyframe()
        for delay_s in self._limits.late_keyframes_s:
            self._loop.call_later(delay_s, self._request_keyframe)

    def remove_viewer(self, viewer: AnyViewer) -> None:
        """Harmless if it was removed."""
        self.viewers.discard(viewer)

    def next_part(self, viewer: TcpViewer) -> bytes:
        """What a viewer that has received everything gets next; empty where it has to wait."""
        unit = viewer.reader.take_unit(self._loop.clock())
        return b"" if unit is None else viewer.part_of(unit)

    def send_rest(self, ports: PortPair) -> None:
        """The sockets have room again."""
        for viewer in tuple(self.viewers):
            if isinstance(viewer, UdpViewer) and viewer.ports is ports and not viewer.is_idle:
                self._resume(viewer)

    def _subscribe(self) -> None:
        """On a thread that exists only for this."""
        error: CameraError | None = None
        try:
            self._video.subscribe(self)
        except CameraError as failure:
            error = failure
        self._loop.call(partial(self._on_subscribed, error))

    def _on_subscribed(self, error: CameraError | None) -> None:
        self._is_subscribing = False
        self._is_subscribed = error is None
        if error is not None:
            self._on_change(error)
        elif not self._is_open:
            self.detach_encoder()

    def _set_format(self, fmt: VideoFormat) -> None:
        # While a subscription begins, the next client may need it; otherwise it is late.
        if not (self._is_open or self._is_subscribing):
            return
        before, self.fmt = self.fmt, fmt
        if before is not None and (before.width, before.height) != (fmt.width, fmt.height):
            # Recorders that copy the stream, and many players, cannot continue with another size.
            self._ring.clear()
            for viewer in tuple(self.viewers):
                viewer.on_end("the size of the video changed")
        self._on_change(None)

    def _append(self, unit: AccessUnit) -> None:
        if self.fmt is None:
            return
        now_s, was_live = self._loop.clock(), self.is_live
        if self.received_s:
            self.interval_s = now_s - self.received_s
        self.received_s = now_s
        if not was_live:
            self._on_change(None)
        if (moment := self._reports.take_due()) is not None:
            unit = replace(unit, report=self._report(unit, *moment))
        self._ring.append(unit)
        by_tcp: dict[Interleaved, list[TcpViewer]] = {}
        by_udp: dict[PortPair, list[UdpViewer]] = {}
        for viewer in tuple(self.viewers):
            if not viewer.has_started and not self._start(viewer):
                continue
            if not viewer.is_idle or not viewer.reader.accept(unit):
                self._resume(viewer)
            elif isinstance(viewer, TcpViewer):
                by_tcp.setdefault(viewer.channels, []).append(viewer)
            else:
                by_udp.setdefault(viewer.ports, []).append(viewer)
        for channels, tcp_viewers in by_tcp.items():
            self._send_by_tcp(unit.interleaved(channels), tcp_viewers)
        for ports, udp_viewers in by_udp.items():
            self._send_by_udp(unit, ports, udp_viewers)

    def _send_by_tcp(self, part: bytes, viewers: list[TcpViewer]) -> None:
        fds = [viewer.connection.fd for viewer in viewers]
        if fds != self._fds[0]:
            self._fds = fds, np.array(fds, np.int32)
        partial_sends = self._sender.send_to_each(fds, self._fds[1], part)
        for index, sent in partial_sends:
            viewers[index].connection.continue_part(part, sent)

    def _send_by_udp(self, unit: AccessUnit, ports: PortPair, viewers: list[UdpViewer]) -> None:
        runs = unit.runs(ports.sender.max_segments)
        unsent = ports.sender.send_to_each([viewer.rtp_name for viewer in viewers], runs)
        for index, viewer in enumerate(viewers):
            if index in unsent:
                viewer.keep_rest(runs[unsent[index] :])
            viewer.send_report(unit.report)

    def _start(self, viewer: AnyViewer) -> bool:
        """Let a viewer begin, if there is a keyframe for it."""
        keyframe = viewer.reader.keyframe
        if keyframe is None:
            return False
        viewer.start(keyframe, self._report(keyframe, self._loop.clock(), self._wall_clock()))
        return True

    def _resume(self, viewer: AnyViewer) -> None:
        """Send what a viewer has not received, as far as it accepts it."""
        if isinstance(viewer, TcpViewer):
            viewer.connection.flush()
            return
        viewer.send_rest()
        while viewer.is_idle and (unit := viewer.reader.take_unit(self._loop.clock())) is not None:
            viewer.send(unit)

    def _request_keyframe(self) -> None:
        if self.viewers:
            self._video.request_keyframe()

    def _report(self, unit: AccessUnit, now_s: float, unix_s: float) -> bytes:
        """At this moment, as both clocks show it: the wall clock may have been set since the exposure."""
        packets, octets = unit.total
        return sender_report(self.ssrc, self._packetizer.timestamp(now_s), unix_s, packets, octets)
