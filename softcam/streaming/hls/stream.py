"""HLS on demand: the first request opens the camera; when no request arrives for a while, the stream ends.

Threads: requests call `playlist` and `segment`; the encoder's thread appends segments; the event loop's timer ends a
stream without requests. There is no connection that would show that a player has disconnected.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final

from softcam.errors import NoPicture
from softcam.h264.packet import PacketSink, VideoSource
from softcam.net.event_loop import EventLoop
from softcam.runtime.deadline import Deadline
from softcam.streaming.hls.playlist import Playlist
from softcam.streaming.hls.segmenter import FIRST_PICTURE_S, Media, Segmenter

log = logging.getLogger(__name__)

_IDLE_S: Final = 10.0
# Of video in the first playlist: the first, short segments. With less, players stall at once.
_START_S: Final = 1.2 + FIRST_PICTURE_S
_MAX_VIEWERS: Final = 1000  # that are counted
_STOPPING: Final = "the portal is stopping"


@dataclass(frozen=True, eq=False, slots=True)
class _Session:
    """From the opening of the camera to its release."""

    sink: PacketSink
    release: Callable[[], None]


class HlsStream:
    """The segments of all viewers, from one lease of the camera. Any thread may call any method."""

    def __init__(
        self,
        video: VideoSource,
        reserve: Callable[[], Callable[[], None]],
        loop: EventLoop,
        *,
        idle_s: float = _IDLE_S,
    ) -> None:
        """`reserve` opens the camera for a stream, waits until it is ready, and returns the function that releases it.

        The stream ends `idle_s` after the last request, and with the event loop.
        """
        self._video = video
        self._reserve = reserve
        self._loop = loop
        self._clock = loop.clock
        self._idle_s = idle_s
        self._zero_s = time.monotonic() - time.time()
        self._changed = threading.Condition()  # guards everything below
        self._playlist = Playlist(time.time())
        self._session: _Session | None = None
        self._is_opening = False
        self._is_stopped = False
        self._answering = 0  # requests
        self._requested_s = 0.0  # when the last one began or ended
        # By the name of their playlist, with the time of the last request, in that order.
        self._viewers: dict[str, float] = {}
        loop.on_stop(self._stop)

    @property
    def viewer_count(self) -> int:
        """Viewers that requested their playlist lately."""
        with self._changed:
            recent_s = self._clock() - self._idle_s
            return sum(seen_s > recent_s for seen_s in self._viewers.values())

    def playlist(self, name: str | None, client: str, deadline: Deadline, *, prefix: str = "", suffix: str = "") -> str:
        """A viewer's media playlist, or for None a new viewer's multivariant playlist, once there is enough to play.

        Each address in it is `prefix`, a name, `suffix`. Opens the camera if necessary. Raises what `reserve` raises,
        CameraError if the encoder cannot be started, and NoPicture at the deadline.
        """
        with self._request():
            while True:
                with self._changed:
                    self._wait(lambda: self._can_start or self._may_open, deadline)
                    if self._can_start:
                        if name is None:
                            return self._playlist.variants(prefix, suffix)
                        self._count_viewer(name)
                        return self._playlist.text(name, prefix, suffix)
                    self._is_opening = True
                try:
                    self._open_session(client)
                finally:
                    with self._changed:
                        self._is_opening = False
                        self._changed.notify_all()

    def segment(self, name: str) -> bytes | None:
        """The content of a segment of the playlist, or of one that was in it until recently; None if it is gone."""
        with self._changed:
            content = self._playlist.find(name)
            if content is not None:
                self._requested_s = self._clock()
            return content

    # --- requests; the lock is held, except by `_open_session` ------------------------------------------------

    @contextmanager
    def _request(self) -> Iterator[None]:
        """A request that is being answered keeps the stream open."""
        with self._changed:
            self._answering += 1
            self._requested_s = self._clock()
        try:
            yield
        finally:
            with self._changed:
                self._answering -= 1
                self._requested_s = self._clock()

    @property
    def _can_start(self) -> bool:
        return self._playlist.duration_s >= _START_S

    @property
    def _may_open(self) -> bool:
        return self._session is None and not self._is_opening

    def _wait(self, is_over: Callable[[], bool], deadline: Deadline) -> None:
        self._changed.wait_for(lambda: self._is_stopped or is_over(), deadline.remaining_s)
        if self._is_stopped:
            raise NoPicture(_STOPPING)
        if not is_over():
            raise NoPicture("no video from the camera in time")

    def _count_viewer(self, name: str) -> None:
        self._viewers.pop(name, None)
        self._viewers[name] = self._clock()
        if len(self._viewers) > _MAX_VIEWERS:
            del self._viewers[next(iter(self._viewers))]

    def _open_session(self, client: str) -> None:
        """Open the camera and subscribe to the encoder. Without the lock, as the camera may be slow."""
        with ExitStack() as undo:
            sink = Segmenter(
                lambda media: self._append(session, media), self._video.request_keyframe, zero_s=self._zero_s
            )
            session = _Session(sink, self._reserve())
            undo.callback(self._release_session, session)
            with self._changed:
                if self._is_stopped:
                    raise NoPicture(_STOPPING)
                self._session = session
            undo.callback(self._forget_session, session)
            self._video.subscribe(sink)
            undo.pop_all()
        log.info("HLS started for client %s", client)
        self._loop.call(partial(self._check_idle, session))

    # --- other threads ----------------------------------------------------------------------------------------

    def _append(self, session: _Session, media: Media) -> None:
        with self._changed:
            if self._session is session:
                self._playlist.append(media)
                self._changed.notify_all()

    def _check_idle(self, session: _Session) -> None:
        """On the event loop: end the session if there was no request for the idle time, else check again later."""
        with self._changed:
            if self._session is not session:
                return
            idle_s = 0.0 if self._answering else self._clock() - self._requested_s
            if idle_s >= self._idle_s:
                self._end_session()
        if idle_s < self._idle_s:
            self._loop.call_later(self._idle_s - idle_s, partial(self._check_idle, session))
            return
        self._release_session(session)
        log.info("HLS stopped: no request for %g s", self._idle_s)

    def _stop(self) -> None:
        """The event loop ends: requests that wait raise NoPicture."""
        with self._changed:
            self._is_stopped = True
            session = self._end_session()
        self._release_session(session)

    def _forget_session(self, session: _Session) -> None:
        with self._changed:
            if self._session is session:
                self._end_session()

    def _end_session(self) -> _Session | None:
        """Forget the session and its segments; the caller holds the lock, and releases the session without it."""
        session, self._session = self._session, None
        self._playlist.clear()
        self._viewers.clear()
        self._changed.notify_all()
        return session

    def _release_session(self, session: _Session | None) -> None:
        if session is not None:
            self._video.unsubscribe(session.sink)
            session.release()
