"""Publishes the H.264 stream to an RTSP server until it is stopped, and reconnects whenever the server disconnects.

    OFF -> CONNECTING -> PUBLISHING <-> FAILED

The thread `publisher` exists only while publishing is requested and is the only one that uses the connection; packets
reach it through a queue of one second. The camera stays open all the time, so that a server that returns has the stream
at once; the encoder runs only while there is a server. PyAV is not used: see
docs/decisions/0009-publishing-without-pyav.md.
"""

import contextlib
import logging
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from softcam.camera.session.manager import CameraManager, Lease
from softcam.errors import CameraError, NotSupported
from softcam.h264.packet import VideoFormat, VideoSource
from softcam.h264.packet_queue import PacketQueue
from softcam.rtsp.client import Address, Connection
from softcam.rtsp.errors import Cancelled, RtspError, RtspRejected
from softcam.rtsp.rtp import Packetizer, describe
from softcam.rtsp.waker import Waker
from softcam.runtime.log_limit import RateLimitedLogger
from softcam.runtime.plural import counted
from softcam.runtime.threads import spawn

log = logging.getLogger(__name__)

_QUEUE_S: Final = 1.0  # older packets would arrive too late
_FIRST_PAUSE_S: Final = 0.5
_MAX_PAUSE_S: Final = 4.0  # between the starts of two attempts: a server that returns has the stream within 5 seconds
_REJECTED_PAUSE_S: Final = 10.0  # a server that refused will most likely refuse again
_STABLE_S: Final = 5.0  # publishing for so long resets the pause
_SUMMARY_S: Final = 60.0  # repeated failures are logged so often
_REPORT_EVERY_S: Final = 5.0
_KEYFRAME_EVERY_S: Final = 0.5  # repeated requests while waiting for one


class State(StrEnum):
    """The state as the status shows it; FAILED means that it is retrying."""

    OFF = "off"
    CONNECTING = "connecting"
    PUBLISHING = "publishing"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class PublishStatus:
    """The publisher's status. `url` contains no secret; `since_s` is Unix time, None before the first request."""

    state: State
    url: str
    since_s: float | None
    reconnects: int
    last_error: str | None


class Publisher:
    """Publishes one stream to one address. Any thread may call `start` and `stop`, any number of times."""

    def __init__(self, url: str, source: VideoSource, manager: CameraManager, on_crash: Callable[[str], None]) -> None:
        self._address = Address.parse(url)
        self._source = source
        self._manager = manager
        self._on_crash = on_crash
        self._waker = Waker()

        self._lock = threading.Lock()  # guards the fields down to the next comment
        # The first three are also read without the lock: each is replaced as a whole.
        self._status = PublishStatus(State.OFF, self._address.shown, None, 0, None)
        self._lease: Lease | None = None  # that of the current request, None if there is none
        self._is_retry_now = False
        self._thread: threading.Thread | None = None

        # Owned by the publisher's thread:
        self._served: Lease | None = None  # that of the request that it serves
        self._has_published = False  # since the request
        self._published_from_s: float | None = None  # None while not publishing
        self._sent = 0
        self._result = ""  # of the last publication, for the log
        self._failures = 0  # since the last success
        self._failing_from_s = 0.0
        self._errors = RateLimitedLogger(log, _SUMMARY_S)

    # --- any thread -------------------------------------------------------------------------------------------

    def status(self) -> PublishStatus:
        return self._status

    def start(self) -> None:
        """Start publishing and return at once; if it waits for its next attempt, retry now. Raises CameraError."""
        with contextlib.ExitStack() as surplus:
            if self._lease is None:  # read without the lock, under which nothing may call the camera
                lease = self._manager.lease("publish")
                surplus.callback(lease.release)
                with self._lock:
                    if self._lease is None:
                        self._begin_request(lease)
                        surplus.pop_all()
            with self._lock:
                self._is_retry_now = True
            self._waker.wake()

    def stop(self) -> None:
        """Stop publishing; returns at once, see `wait_stopped`."""
        with self._lock:
            lease, self._lease = self._lease, None
            if lease is not None:
                self._set_status(replace(self._status, state=State.OFF))
        if lease is not None:
            self._waker.wake()
            lease.release()

    def wait_stopped(self, deadline_s: float) -> bool:
        """Wait for the thread to end after `stop`; False at the deadline (monotonic clock)."""
        with self._lock:
            thread = self._thread
        if thread is None:
            return True
        thread.join(max(0.0, deadline_s - time.monotonic()))
        return not thread.is_alive()

    # --- under the lock ---------------------------------------------------------------------------------------

    def _set_status(self, status: PublishStatus) -> None:
        """With the time since which its state is the current one."""
        since_s = self._status.since_s if status.state is self._status.state else time.time()
        self._status = replace(status, since_s=since_s)

    def _begin_request(self, lease: Lease) -> None:
        """Raises CameraError."""
        if self._thread is None:
            try:
                self._thread = spawn("publisher", self._run, self._on_crash)
            except RuntimeError as error:  # no memory, or too many threads
                raise CameraError(f"publishing cannot be started: {error}") from error
        self._lease = lease
        self._set_status(replace(self._status, state=State.CONNECTING, last_error=None))

    # --- the publisher's thread -------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._lock:
                self._served = self._lease
                if self._served is None:
                    self._thread = None
                    return
            with contextlib.suppress(Cancelled):
                self._serve_request()

    def _serve_request(self) -> None:
        """Publish, and retry after each failure, until the request ends; then raises Cancelled."""
        log.info("Connecting to RTSP server %s", self._address.shown)
        self._failures, self._has_published = 0, False
        try:
            while True:
                began_s = time.monotonic()
                self._published_from_s = None
                try:
                    self._publish_once()
                except RtspError as error:
                    self._pause(began_s, error)
        finally:
            log.info("Publishing stopped%s", self._result)
            self._result = ""

    def _raise_if_cancelled(self) -> None:
        if self._lease is not self._served:
            raise Cancelled

    def _pause(self, began_s: float, error: RtspError) -> None:
        """Report a failure, and wait until the next attempt is due."""
        now_s = time.monotonic()
        if self._published_from_s is not None and now_s - self._published_from_s >= _STABLE_S:
            self._failures = 0
        self._report_failure(str(error), now_s)
        max_pause_s = _REJECTED_PAUSE_S if isinstance(error, RtspRejected) else _MAX_PAUSE_S
        pause_s = min(_FIRST_PAUSE_S * 2 ** min(self._failures, 10), max_pause_s)
        self._failures += 1
        # From start to start: an attempt may have taken some seconds.
        until_s = max(began_s + pause_s, now_s + _FIRST_PAUSE_S)
        while time.monotonic() < until_s and not self._is_retry_now:
            self._waker.wait(until_s)
            self._raise_if_cancelled()

    def _report_failure(self, reason: str, now_s: float) -> None:
        with self._lock:
            self._raise_if_cancelled()
            before = self._status
            self._is_retry_now = False  # from here on: a client that reads the failure may request another attempt
            self._set_status(replace(before, state=State.FAILED, last_error=reason))
        if before.state is not State.FAILED:
            self._failing_from_s = now_s
        if before.state is not State.FAILED or before.last_error != reason:
            self._errors.reset()
        self._errors.warning("Publishing to %s failed%s: %s; retrying", self._address.shown, self._result, reason)
        self._result = ""

    def _publish_once(self) -> None:
        """Connect and publish. Returns when the stream must be announced again; raises RtspError, Cancelled."""
        connection = Connection(self._address, self._waker, self._raise_if_cancelled)
        queue = PacketQueue(self._waker.wake, max_s=_QUEUE_S)
        try:
            connection.request("OPTIONS")
            try:
                self._source.subscribe(queue)
            except NotSupported as error:
                raise RtspRejected(str(error)) from error
            except CameraError as error:
                raise RtspError(str(error)) from error
            while (fmt := queue.fmt) is None:
                connection.wait(connection.keep_alive())
            packetizer = self._announce(connection, fmt)
            self._publishing_started(fmt)
            self._send_packets(connection, queue, packetizer, fmt)
        finally:
            self._source.unsubscribe(queue)
            connection.close()
            if self._published_from_s is not None:
                published_s = time.monotonic() - self._published_from_s
                sent = counted(self._sent, "frame")
                self._result = f" after {published_s:.0f} s, {sent} sent, {queue.discarded} dropped"

    def _announce(self, connection: Connection, fmt: VideoFormat) -> Packetizer:
        control = "streamid=0"  # the name that FFmpeg uses, which every server knows
        url = self._address.url
        description = describe(fmt, secrets.randbits(31), connection.server, control)
        connection.request("ANNOUNCE", headers={"Content-Type": "application/sdp"}, body=description)
        transport = "RTP/AVP/TCP;unicast;interleaved=0-1;mode=record"
        response = connection.request("SETUP", f"{url.removesuffix('/')}/{control}", {"Transport": transport})
        chosen = response.headers.get("transport", "").lower()
        if "interleaved=0-1" not in chosen.replace(" ", ""):
            raise RtspRejected("the server does not support RTP over TCP")
        connection.request("RECORD", headers={"Range": "npt=0.000-"})
        return Packetizer(secrets.randbits(32), secrets.randbits(16), secrets.randbits(32), channel=0)

    def _publishing_started(self, fmt: VideoFormat) -> None:
        with self._lock:
            self._raise_if_cancelled()
            reconnects = self._status.reconnects + self._has_published
            self._set_status(replace(self._status, state=State.PUBLISHING, last_error=None, reconnects=reconnects))
        started = f"Publishing {fmt.width}x{fmt.height} to {self._address.shown}"
        self._published_from_s = time.monotonic()
        if self._failures:
            failing_s = self._published_from_s - self._failing_from_s
            log.info("%s after %s in %.0f s", started, counted(self._failures, "failure"), failing_s)
        else:
            log.info("%s", started)
        self._has_published = True
        self._sent = 0

    def _send_packets(
        self, connection: Connection, queue: PacketQueue, packetizer: Packetizer, fmt: VideoFormat
    ) -> None:
        """Returns when the size of the video changes."""
        report_at_s = keyframe_at_s = time.monotonic()
        while True:
            now_s = time.monotonic()
            if not connection.unsent:
                for current, packet in queue.take_packets():
                    if (current.width, current.height) != (fmt.width, fmt.height):
                        self._published_from_s = None
                        return
                    connection.send(packetizer.packetize(packet, current))
                    self._sent += 1
                if self._sent and now_s >= report_at_s:
                    connection.send(packetizer.report(1, time.time()))
                    report_at_s = now_s + _REPORT_EVERY_S
                if queue.is_awaiting_keyframe and now_s >= keyframe_at_s:
                    self._source.request_keyframe()
                    keyframe_at_s = now_s + _KEYFRAME_EVERY_S
            wake_at_s = connection.keep_alive()
            if queue.is_awaiting_keyframe:
                wake_at_s = min(wake_at_s, max(keyframe_at_s, now_s + _KEYFRAME_EVERY_S))
            connection.wait(wake_at_s)
