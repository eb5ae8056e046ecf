"""Publishes the H.264 stream to an RTSP server until it is stopped, and reconnects whenever the server disconnects.

    OFF -> CONNECTING -> PUBLISHING <-> FAILED
              |              |
              +-- WAITING ---+      the camera delivers no frames

The thread `publisher` exists only while publishing is requested and is the only one that uses the connection; packets
reach it through a queue of one second. The camera stays open all the time, so that a server that returns has the stream
at once; the encoder runs only while there is a server. PyAV is not used: see
docs/decisions/0009-publishing-without-pyav.md.
"""

import contextlib
import logging
import math
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
from softcam.rtsp.publisher.client import KeepAlive, RtspClient, ServerAddress
from softcam.rtsp.publisher.errors import Cancelled, RtspEnded, RtspError, RtspRejected
from softcam.rtsp.publisher.sender import MediaSender
from softcam.rtsp.publisher.waker import Waker
from softcam.rtsp.rtp import Packetizer, describe
from softcam.runtime.log.events import Event
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
_SILENCE_S: Final = 3.0  # without a frame, beyond those that the exposure time explains
# A server accepts the stream, and closes it, so often in a row: it does so when another publisher connects.
_TAKEOVERS: Final = 3
_UNDISTURBED_S: Final = 60.0  # publishing for so long: nobody else uses the path any more
_TAKEN_OVER: Final = "another publisher uses this path: the server repeatedly accepts this stream and closes it"


class PublisherState(StrEnum):
    """The state as the status shows it; FAILED means that it is retrying, WAITING that there are no frames."""

    OFF = "off"
    CONNECTING = "connecting"
    WAITING = "waiting"
    PUBLISHING = "publishing"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class PublishStatus:
    """The publisher's status. `url` contains no secret; `since_s` is Unix time, None before the first request."""

    state: PublisherState
    url: str
    since_s: float | None
    reconnects: int
    last_error: str | None


class Publisher:
    """Publishes one stream to one address. Any thread may call `start` and `stop`, any number of times."""

    def __init__(
        self,
        url: str,
        source: VideoSource,
        manager: CameraManager,
        on_crash: Callable[[str], None],
        *,
        name: str = "",
        silence_s: float = _SILENCE_S,
        undisturbed_s: float = _UNDISTURBED_S,
        keep_alive: KeepAlive | None = None,
    ) -> None:
        self._name = name
        self._silence_s = silence_s
        self._undisturbed_s = undisturbed_s
        self._keep_alive = keep_alive
        self._address = ServerAddress.parse(url)
        self._source = source
        self._manager = manager
        self._on_crash = on_crash
        self._waker = Waker()

        self._lock = threading.Lock()  # guards the fields down to the next comment
        # The first three are also read without the lock: each is replaced as a whole.
        self._status = PublishStatus(PublisherState.OFF, self._address.shown, None, 0, None)
        self._lease: Lease | None = None  # that of the current request, None if there is none
        self._is_retry_now = False
        self._thread: threading.Thread | None = None

        # Owned by the publisher's thread:
        self._served: Lease | None = None  # that of the request that it serves
        self._has_published = False  # since the request
        self._published_from_s: float | None = None  # None while not publishing
        self._takeovers = 0  # publications in a row that the server closed after it had accepted them
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
                self._set_status(replace(self._status, state=PublisherState.OFF, last_error=None))
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
        self._set_status(replace(self._status, state=PublisherState.CONNECTING, last_error=None))

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
        self._failures, self._takeovers, self._has_published = 0, 0, False
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
        if self._published_from_s is None:
            self._takeovers = 0
        else:
            published_s = now_s - self._published_from_s
            self._failures = 0 if published_s >= _STABLE_S else self._failures
            self._takeovers = self._takeovers + 1 if isinstance(error, RtspEnded) else 0
        self._report_failure(_TAKEN_OVER if self._is_taken_over else str(error), now_s)
        max_pause_s = _REJECTED_PAUSE_S if isinstance(error, RtspRejected) else _MAX_PAUSE_S
        pause_s = min(_FIRST_PAUSE_S * 2 ** min(self._failures, 10), max_pause_s)
        self._failures += 1
        # From start to start: an attempt may have taken some seconds.
        until_s = max(began_s + pause_s, now_s + _FIRST_PAUSE_S)
        if self._is_taken_over:
            until_s = now_s + _REJECTED_PAUSE_S  # each change of the publisher interrupts all readers
        while time.monotonic() < until_s and not self._is_retry_now:
            self._waker.wait(until_s)
            self._raise_if_cancelled()

    @property
    def _is_taken_over(self) -> bool:
        return self._takeovers >= _TAKEOVERS

    def _report_failure(self, reason: str, now_s: float) -> None:
        with self._lock:
            self._raise_if_cancelled()
            before = self._status
            self._is_retry_now = False  # from here on: a client that reads the failure may request another attempt
            self._set_status(replace(before, state=PublisherState.FAILED, last_error=reason))
        if before.state is not PublisherState.FAILED:
            self._failing_from_s = now_s
        if before.state is not PublisherState.FAILED or before.last_error != reason:
            self._errors.reset()
        failed = "Publishing to %s failed%s: %s; retrying"
        self._errors.warning(failed, self._address.shown, self._result, reason, extra=Event.PUBLISHING_FAILED.extra)
        self._result = ""

    def _publish_once(self) -> None:
        """Connect and publish. Returns when the stream must be announced again; raises RtspError, Cancelled."""
        client = RtspClient(self._address, self._waker, self._raise_if_cancelled, keep_alive=self._keep_alive)
        queue = PacketQueue(self._waker.wake, max_s=_QUEUE_S)
        sender: MediaSender | None = None
        try:
            client.request("OPTIONS")
            try:
                self._source.subscribe(queue)
            except NotSupported as error:
                raise RtspRejected(str(error)) from error
            except CameraError as error:
                raise RtspError(str(error)) from error
            from_s = time.monotonic()
            while (fmt := queue.fmt) is None:
                client.wait(min(client.keep_alive(), self._check_frames(from_s)))
            packetizer = self._announce(client, fmt)
            self._publishing_started(fmt)
            sender = MediaSender(client, queue, packetizer, self._source.request_keyframe)
            while (next_s := sender.send(fmt)) is not None:
                self._check_takeover()
                client.wait(min(client.keep_alive(), next_s, self._check_frames(sender.sent_s)))
            self._published_from_s = None
        finally:
            self._source.unsubscribe(queue)
            client.close()
            if self._published_from_s is not None:
                published_s = time.monotonic() - self._published_from_s
                sent = counted(0 if sender is None else sender.sent, "frame")
                self._result = f" after {published_s:.0f} s, {sent} sent, {queue.discarded} dropped"

    def _announce(self, client: RtspClient, fmt: VideoFormat) -> Packetizer:
        control = "streamid=0"  # the name that FFmpeg uses, which every server knows
        url = self._address.url
        description = describe(fmt, secrets.randbits(31), client.server, control, name=self._name)
        client.request("ANNOUNCE", headers={"Content-Type": "application/sdp"}, body=description)
        transport = "RTP/AVP/TCP;unicast;interleaved=0-1;mode=record"
        response = client.request("SETUP", f"{url.removesuffix('/')}/{control}", {"Transport": transport})
        chosen = response.field("transport").lower()
        if "interleaved=0-1" not in chosen.replace(" ", ""):
            raise RtspRejected("the server does not support RTP over TCP")
        client.request("RECORD", headers={"Range": "npt=0.000-"})
        return Packetizer(secrets.randbits(32), secrets.randbits(16), secrets.randbits(32))

    def _publishing_started(self, fmt: VideoFormat) -> None:
        with self._lock:
            self._raise_if_cancelled()
            reconnects = self._status.reconnects + self._has_published
            last_error = _TAKEN_OVER if self._is_taken_over else None
            self._set_status(
                replace(self._status, state=PublisherState.PUBLISHING, last_error=last_error, reconnects=reconnects)
            )
        started = f"Publishing {fmt.width}x{fmt.height} to {self._address.shown}"
        self._published_from_s = time.monotonic()
        if self._failures:
            failing_s = self._published_from_s - self._failing_from_s
            failures = counted(self._failures, "failure")
            recovered = Event.PUBLISHING_RECOVERED.extra
            log.info("%s after %s in %.0f s", started, failures, failing_s, extra=recovered)
        else:
            log.info("%s", started)
        self._has_published = True

    def _check_takeover(self) -> None:
        """Forget that another publisher used the path, once this one has had it for long enough."""
        from_s = self._published_from_s
        if not self._takeovers or from_s is None or time.monotonic() - from_s < self._undisturbed_s:
            return
        self._takeovers = 0
        with self._lock:
            self._raise_if_cancelled()
            if self._status.state is PublisherState.PUBLISHING:
                self._set_status(replace(self._status, last_error=None))

    def _check_frames(self, silent_from_s: float) -> float:
        """Report when the camera delivers no frames, and when it does again; returns when to check again."""
        now_s = time.monotonic()
        silent_at_s = silent_from_s + self._silence_s + self._manager.pipeline_s
        is_silent = now_s >= silent_at_s
        if is_silent is not (self._status.state is PublisherState.WAITING):
            reason = self._silence_reason(now_s - silent_from_s) if is_silent else None
            state = PublisherState.CONNECTING if self._published_from_s is None else PublisherState.PUBLISHING
            if is_silent:
                state = PublisherState.WAITING
            with self._lock:
                self._raise_if_cancelled()
                self._set_status(replace(self._status, state=state, last_error=reason))
            if is_silent:
                log.warning("Publishing to %s waits: %s", self._address.shown, reason)
            else:
                log.info("Publishing to %s continues", self._address.shown)
        return math.inf if is_silent else silent_at_s

    def _silence_reason(self, silence_s: float) -> str:
        newest = self._manager.frames.held()
        if newest is None:
            age_s = math.inf
        else:
            age_s = time.monotonic() - newest.began_s
            newest.release()
        if age_s < silence_s:
            return "the encoder delivers no packets"
        reason = self._manager.recovery_reason
        return "the camera delivers no frames" + (f" ({reason})" if reason else "")
