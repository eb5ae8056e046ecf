"""Gives the H.264 stream to an RTSP server for as long as it is asked for, however often the server goes away.

    OFF -> CONNECTING -> PUBLISHING <-> FAILED

One thread, `publisher`, exists only while publishing is asked for. It alone touches the connection; packets come to it
through an inbox of one second. The camera is held open all the while, so that a server that comes back has the stream
at once; the encoder works only while there is a server to give the stream to. No PyAV here: see docs/decisions.
"""

import logging
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Final

from softcam.camera.session.manager import CameraManager, Lease
from softcam.errors import CameraError, NotSupported
from softcam.h264.packet import Packet, VideoFormat, VideoSource
from softcam.rtsp.client import Address, Cancelled, Connection, RtspError, RtspRejected, Waker
from softcam.rtsp.rtp import Packetizer, describe
from softcam.runtime.threads import spawn

log = logging.getLogger(__name__)

_INBOX_S: Final = 1.0  # more would only come too late
_FIRST_PAUSE_S: Final = 0.5
_LONGEST_PAUSE_S: Final = 4.0  # between two beginnings: a server that is back has the stream within five seconds
_REFUSED_PAUSE_S: Final = 10.0  # a server that said no will say it again
_GOOD_S: Final = 5.0  # what was published for so long had begun well
_SUM_UP_S: Final = 60.0  # failures of one kind are told so often
# A server that hangs still takes data for long: the kernel takes it in its place. So it is asked now and then, and has
# to answer; an answer comes behind at most a send buffer full of video.
_ASK_EVERY_S: Final = 2.0
_SILENCE_S: Final = 5.0
_REPORT_EVERY_S: Final = 5.0
_KEYFRAME_EVERY_S: Final = 0.5  # while one is waited for


class State(StrEnum):
    """In the words of the status; FAILED means that it is tried again and again."""

    OFF = "off"
    CONNECTING = "connecting"
    PUBLISHING = "publishing"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class PublishStatus:
    """`url` bears no secret; `since_s` is Unix time, None while nothing was ever asked."""

    state: State
    url: str
    since_s: float | None
    reconnects: int
    last_error: str | None


class PacketQueue:
    """The packets on their way from the encoder's thread to the publisher's. When it is full, all of it goes."""

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._lock = threading.Lock()  # guards all below
        self._format: VideoFormat | None = None
        self._packets: deque[tuple[VideoFormat, Packet]] = deque()
        self._waits_for_keyframe = True
        self._lost = 0

    def on_format(self, fmt: VideoFormat) -> None:
        with self._lock:
            self._format = fmt
            self._waits_for_keyframe = True
        self._ring()

    def on_packet(self, packet: Packet) -> None:
        with self._lock:
            if self._format is None or (self._waits_for_keyframe and not packet.is_keyframe):
                self._lost += 1
                return
            self._waits_for_keyframe = False
            self._packets.append((self._format, packet))
            if packet.began_s - self._packets[0][1].began_s > _INBOX_S:
                self._lost += len(self._packets)
                self._packets.clear()
                self._waits_for_keyframe = True
        self._ring()

    @property
    def fmt(self) -> VideoFormat | None:
        """That of the newest packet; None before the encoder runs."""
        with self._lock:
            return self._format

    @property
    def lost(self) -> int:
        with self._lock:
            return self._lost

    @property
    def waits_for_keyframe(self) -> bool:
        with self._lock:
            return self._waits_for_keyframe and not self._packets

    def take(self) -> list[tuple[VideoFormat, Packet]]:
        """All of it, in order, each with its format."""
        with self._lock:
            taken = list(self._packets)
            self._packets.clear()
            return taken


class Publisher:
    """Publishes one stream to one address. `start` and `stop` may be called by any thread, any number of times."""

    def __init__(self, url: str, source: VideoSource, manager: CameraManager, on_crash: Callable[[str], None]) -> None:
        self._address = Address.parse(url)
        self._source = source
        self._manager = manager
        self._on_crash = on_crash

        self._lock = threading.Lock()  # guards the fields down to the next comment
        self._asked = 0  # the number of the present wish, 0 while there is none
        self._wishes = 0
        self._thread: threading.Thread | None = None
        self._bell: Waker | None = None
        self._lease: Lease | None = None
        self._state = State.OFF
        self._since_s: float | None = None
        self._reconnects = 0
        self._last_error: str | None = None
        self._is_hurried = False

        # The publisher's thread alone:
        self._wish = 0
        self._has_published = False  # since it was asked for
        self._published_from_s: float | None = None  # None while it is not published
        self._sent = 0
        self._result = ""  # of the last publication, for the log
        self._tries = 0  # in vain, since the last success
        self._failing_from_s = 0.0
        self._told_s = 0.0

    # --- what everyone may call -------------------------------------------------------------------------------

    @property
    def is_asked(self) -> bool:
        return self._asked != 0  # a single value: read without the lock

    def start(self) -> None:
        """Publish from now on, and return at once; one that waits for its next try is hurried. Raises CameraError."""
        with self._lock:
            if self._asked:
                self._is_hurried = True
                self._ring()
                return
        lease = self._manager.lease("publish")
        with self._lock:
            if self._asked:  # another thread was faster
                lease.release()
                return
            self._wishes += 1
            self._asked = self._wishes
            self._lease = lease
            self._change(State.CONNECTING)
            self._last_error = None
            if self._thread is not None:
                self._ring()
                return
            try:
                self._start_thread()
            except (OSError, RuntimeError) as error:  # no descriptor, no memory, or too many threads
                self._asked, self._lease = 0, None
                self._change(State.OFF)
                lease.release()
                raise CameraError(f"nothing can be published: {error}") from error

    def stop(self) -> None:
        """Publish no more; returns at once, see `join`."""
        with self._lock:
            if not self._asked:
                return
            self._asked = 0
            lease, self._lease = self._lease, None
            self._change(State.OFF)
            self._ring()
        if lease is not None:
            lease.release()

    def join(self, deadline_s: float) -> bool:
        """Wait for the thread's end after `stop`; False at the deadline (monotonic clock)."""
        with self._lock:
            thread = self._thread
        if thread is None:
            return True
        thread.join(max(0.0, deadline_s - time.monotonic()))
        return not thread.is_alive()

    def status(self) -> PublishStatus:
        with self._lock:
            return PublishStatus(self._state, self._address.shown, self._since_s, self._reconnects, self._last_error)

    # --- under the lock ---------------------------------------------------------------------------------------

    def _change(self, state: State) -> None:
        if state is not self._state:
            self._state = state
            self._since_s = time.time()

    def _start_thread(self) -> None:
        """Raises OSError, RuntimeError; then there is nothing of it."""
        bell = Waker()
        try:
            self._thread = spawn("publisher", partial(self._run, bell), self._on_crash)
        except RuntimeError:
            bell.close()
            raise
        self._bell = bell

    def _ring(self) -> None:
        if self._bell is not None:
            self._bell.ring()

    # --- the publisher's thread -------------------------------------------------------------------------------

    def _run(self, bell: Waker) -> None:
        while True:
            with self._lock:
                if not self._asked:
                    self._thread = self._bell = None
                    break
                self._wish = self._asked
            try:
                self._publish_on(bell)
            except Cancelled:
                continue
        bell.close()

    def _publish_on(self, bell: Waker) -> None:
        """Until nobody wants it; raises Interrupted then."""
        log.info("To be published to %s", self._address.shown)
        self._tries, self._has_published = 0, False
        self._published_from_s = None
        try:
            while True:
                began_s = time.monotonic()
                try:
                    self._publish_once(bell)
                except RtspError as error:
                    self._pause(bell, began_s, error)
        finally:
            log.info("Not to be published any more%s", self._result)
            self._result = ""

    def _check(self) -> None:
        if self._asked != self._wish:
            raise Cancelled

    def _pause(self, bell: Waker, began_s: float, error: RtspError) -> None:
        """Tell of a failure, and wait for the time of the next try."""
        now_s = time.monotonic()
        published_from_s, self._published_from_s = self._published_from_s, None
        if published_from_s is not None and now_s - published_from_s >= _GOOD_S:
            self._tries = 0
        self._tell(str(error), now_s)
        longest_s = _REFUSED_PAUSE_S if isinstance(error, RtspRejected) else _LONGEST_PAUSE_S
        pause_s = min(_FIRST_PAUSE_S * 2 ** min(self._tries, 10), longest_s)
        self._tries += 1
        # From beginning to beginning, as a try may have taken some seconds.
        until_s = max(began_s + pause_s, now_s + _FIRST_PAUSE_S)
        with self._lock:
            self._is_hurried = False
        while time.monotonic() < until_s:
            bell.wait(until_s)
            self._check()
            with self._lock:
                if self._is_hurried:
                    return

    def _tell(self, reason: str, now_s: float) -> None:
        with self._lock:
            if self._asked != self._wish:
                return
            is_news = self._state is not State.FAILED or self._last_error != reason
            was_failed = self._state is State.FAILED
            self._change(State.FAILED)
            self._last_error = reason
        if not was_failed:
            self._failing_from_s = now_s
        if is_news:
            log.warning("Not publishing to %s%s: %s; trying on", self._address.shown, self._result, reason)
            self._told_s, self._result = now_s, ""
        elif now_s - self._told_s >= _SUM_UP_S:
            failing_s = now_s - self._failing_from_s
            log.warning(
                "Not publishing to %s for %.0f s and %d tries: %s",
                *(self._address.shown, failing_s, self._tries + 1, reason),
            )
            self._told_s = now_s

    def _publish_once(self, bell: Waker) -> None:
        """From connecting to the end. Raises Failure, or Interrupted; returns where the stream has to be told anew."""
        connection = Connection(self._address, bell, self._check)
        inbox = PacketQueue(bell.ring)
        try:
            connection.request("OPTIONS")
            try:
                self._source.subscribe(inbox)
            except NotSupported as error:
                raise RtspRejected(str(error)) from error
            except CameraError as error:
                raise RtspError(str(error)) from error
            pulse = _KeepAlive(connection)
            while (fmt := inbox.fmt) is None:
                connection.wait(pulse.beat())
            packetiser = self._announce(connection, fmt)
            self._now_publishes(fmt)
            self._pass_on(connection, pulse, inbox, packetiser, fmt)
        finally:
            self._source.unsubscribe(inbox)
            connection.close()
            if self._published_from_s is not None:
                published_s = time.monotonic() - self._published_from_s
                self._result = f", after {published_s:.0f} s, {self._sent} frames and {inbox.lost} that were left out"

    def _announce(self, connection: Connection, fmt: VideoFormat) -> Packetizer:
        control = "streamid=0"  # as FFmpeg calls it, so every server has met it
        url = self._address.url
        description = describe(fmt, secrets.randbits(31), connection.server, control)
        connection.request("ANNOUNCE", headers={"Content-Type": "application/sdp"}, body=description)
        transport = "RTP/AVP/TCP;unicast;interleaved=0-1;mode=record"
        reply = connection.request("SETUP", f"{url.removesuffix('/')}/{control}", {"Transport": transport})
        chosen = reply.headers.get("transport", "").lower()
        if "interleaved=0-1" not in chosen.replace(" ", ""):
            raise RtspRejected("the server takes no RTP over TCP")
        connection.request("RECORD", headers={"Range": "npt=0.000-"})
        return Packetizer(secrets.randbits(32), secrets.randbits(16), secrets.randbits(32), channel=0)

    def _now_publishes(self, fmt: VideoFormat) -> None:
        with self._lock:
            if self._asked != self._wish:
                raise Cancelled
            self._change(State.PUBLISHING)
            self._last_error = None
            if self._has_published:
                self._reconnects += 1
        size = f"{fmt.width}x{fmt.height}"
        if self._tries:
            failing_s = time.monotonic() - self._failing_from_s
            log.info("Publishing %s to %s, after %d tries in %.0f s", size, self._address.shown, self._tries, failing_s)
        else:
            log.info("Publishing %s to %s", size, self._address.shown)
        self._has_published = True
        self._published_from_s = time.monotonic()
        self._sent = 0

    def _pass_on(
        self, connection: Connection, pulse: "_KeepAlive", inbox: PacketQueue, packetiser: Packetizer, fmt: VideoFormat
    ) -> None:
        report_at_s = time.monotonic()
        keyframe_at_s = report_at_s
        while True:
            now_s = time.monotonic()
            if not connection.unsent:
                for current, packet in inbox.take():
                    if (current.width, current.height) != (fmt.width, fmt.height):
                        self._published_from_s = None
                        return
                    connection.send(packetiser.frame(packet, current))
                    self._sent += 1
                if self._sent and now_s >= report_at_s:
                    connection.send(packetiser.report(1, time.time()))
                    report_at_s = now_s + _REPORT_EVERY_S
                if inbox.waits_for_keyframe and now_s >= keyframe_at_s:
                    self._source.request_keyframe()
                    keyframe_at_s = now_s + _KEYFRAME_EVERY_S
            wake_at_s = pulse.beat()
            if inbox.waits_for_keyframe:
                wake_at_s = min(wake_at_s, max(keyframe_at_s, now_s + _KEYFRAME_EVERY_S))
            connection.wait(wake_at_s)


class _KeepAlive:
    """Asks the server now and then whether it is there; the RTSP session stays alive by this as well."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._asked_s = time.monotonic()  # a request was just answered
        self._is_asked = False

    def beat(self) -> float:
        """Ask when it is time. Raises Failure when no answer came; otherwise the moment to look again."""
        now_s = time.monotonic()
        connection = self._connection
        if connection.unsent and now_s - connection.moved_s >= _SILENCE_S:
            raise RtspError("the server takes no more data")
        if self._is_asked and connection.heard_s >= self._asked_s:
            self._is_asked = False
        if self._is_asked:
            if now_s - self._asked_s >= _SILENCE_S:
                raise RtspError("the server does not answer any more")
            return self._asked_s + _SILENCE_S
        if now_s - self._asked_s >= _ASK_EVERY_S:
            connection.ask("OPTIONS")
            self._asked_s, self._is_asked = now_s, True
            return now_s + _SILENCE_S
        return self._asked_s + _ASK_EVERY_S
