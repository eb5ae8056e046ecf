"""The event loop of all clients that receive a stream: one thread, one epoll, no call that blocks.

The thread waits for sockets, for timers, and for calls that other threads pass with `call`: these are queued first and
wake the loop second, and there is no other entry point. `streaming.fanout` and `rtsp.server` run on it.
"""

import heapq
import itertools
import logging
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from softcam.net import sockets
from softcam.runtime.deadline import Clock, Deadline
from softcam.runtime.threads import spawn

log = logging.getLogger(__name__)

# Edge-triggered, so a socket is registered once for all events: epoll reports room only after a short send, and no
# call has to enable or disable that.
_EVENTS: Final = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET
DISCONNECTED: Final = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR

Handler = Callable[[int], None]


@dataclass(eq=False, slots=True)
class Timer:
    """A call that is due later. Used by the loop's thread alone."""

    _function: Callable[[], None] | None

    def cancel(self) -> None:
        """Harmless after the call."""
        self._function = None

    def fire(self) -> None:
        function, self._function = self._function, None
        if function is not None:
            function()

    @property
    def is_pending(self) -> bool:
        return self._function is not None


class EventLoop:
    """Owns an epoll and the thread that runs everything registered here. An exception of a function ends the loop."""

    def __init__(self, name: str, on_crash: Callable[[str], None], *, clock: Clock = time.monotonic) -> None:
        """`name` is that of the thread; `on_crash` is called if a function raises."""
        self.clock = clock
        self._name = name
        self._on_crash = on_crash
        self._epoll = select.epoll()
        self._wake_lock = threading.Lock()  # guards _wake_fd, and that no call is queued after the end
        # None after the end of the loop, when the number may belong to another file.
        self._wake_fd: int | None = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        # Edge-triggered: each write wakes the loop, and the counter is never read.
        self._epoll.register(self._wake_fd, select.EPOLLIN | select.EPOLLET)
        self._calls: deque[Callable[[], None]] = deque()  # thread-safe by itself
        self._is_stopping = threading.Event()
        self._thread: threading.Thread | None = None  # used by the thread that starts and stops the components
        self._on_stop: list[Callable[[], None]] = []  # complete before the start
        self._turn_s: float | None = None  # when the current turn began; None while waiting. Any thread reads it.

        # Used by the loop alone.
        self._handlers: dict[int, Handler] = {}
        self._timers: list[tuple[float, int, Timer]] = []  # a heap
        self._timer_numbers = itertools.count()

    # --- any thread -------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread; calls that were passed before are waiting in the queue."""
        self._thread = spawn(self._name, self._run, self._on_crash)

    def stop(self, deadline: Deadline) -> bool:
        """End the thread; False if it runs beyond the deadline. A loop that was not started ends at once."""
        self._is_stopping.set()
        if self._thread is None:
            self._end()
            return True
        self.call(_nothing)
        self._thread.join(deadline.remaining_s)
        return not self._thread.is_alive()

    def on_stop(self, function: Callable[[], None]) -> None:
        """Call `function` on the loop's thread when the loop ends, also after a crash; before the start."""
        self._on_stop.append(function)

    @property
    def busy_s(self) -> float:
        """For how long the current turn has lasted; 0 while the loop waits."""
        began_s = self._turn_s
        return 0.0 if began_s is None else self.clock() - began_s

    def call(self, function: Callable[[], None]) -> bool:
        """Call `function` on the loop's thread, after all earlier calls; False if the loop has ended."""
        with self._wake_lock:
            return self._queue_call(function)

    def try_call(self, function: Callable[[], None]) -> bool:
        """As `call`, for callers that must not wait: also False, without a call, while another thread is in `call`."""
        if not self._wake_lock.acquire(blocking=False):
            return False
        try:
            return self._queue_call(function)
        finally:
            self._wake_lock.release()

    def _queue_call(self, function: Callable[[], None]) -> bool:
        """The caller holds the lock."""
        if self._wake_fd is None:
            return False
        self._calls.append(function)
        sockets.signal_eventfd(self._wake_fd)
        return True

    # --- the loop's thread ------------------------------------------------------------------------------------

    def register(self, fd: int, handler: Handler) -> None:
        """Call `handler(events)` for each change of a socket: data, room after a short send, disconnection.

        Raises OSError. Not to be called by a handler, but through `call`: in the same turn there may be events of an
        earlier socket with this number.
        """
        self._epoll.register(fd, _EVENTS)
        self._handlers[fd] = handler

    def report_again(self, fd: int) -> None:
        """Report again what has been reported already: the handler left data in the socket."""
        self._epoll.modify(fd, _EVENTS)

    def unregister(self, fd: int) -> None:
        """Forget a socket that its owner closes now, which removes it from the epoll set. Harmless if unknown."""
        self._handlers.pop(fd, None)

    def call_later(self, delay_s: float, function: Callable[[], None]) -> Timer:
        timer = Timer(function)
        heapq.heappush(self._timers, (self.clock() + delay_s, next(self._timer_numbers), timer))
        return timer

    def _run(self) -> None:
        try:
            while not self._is_stopping.is_set():
                self._turn_s = None
                ready = self._epoll.poll(self._timeout_s())
                self._turn_s = self.clock()
                for fd, events in ready:
                    if (handler := self._handlers.get(fd)) is not None:
                        handler(events)
                # No more than there are now: sockets and timers have their turn, also where calls arrive faster.
                for _ in range(len(self._calls)):
                    self._calls.popleft()()
                self._fire_timers()
        finally:
            self._end()
            self._turn_s = None

    def _timeout_s(self) -> float | None:
        if self._calls:
            return 0.0
        timers = self._timers
        while timers and not timers[0][2].is_pending:
            heapq.heappop(timers)
        return max(0.0, timers[0][0] - self.clock()) if timers else None

    def _fire_timers(self) -> None:
        timers = self._timers
        if not timers:
            return
        now_s = self.clock()
        while timers and timers[0][0] <= now_s:
            heapq.heappop(timers)[2].fire()

    def _end(self) -> None:
        with self._wake_lock:
            wake_fd, self._wake_fd = self._wake_fd, None
        if wake_fd is None:
            return
        # After a crash, too: what was passed has an owner only if its call is made.
        for function in (*self._calls, *self._on_stop):
            try:
                function()
            except Exception:
                log.exception("Call failed while the event loop was ending")
        self._calls.clear()
        self._handlers.clear()
        self._timers.clear()
        os.close(wake_fd)
        self._epoll.close()


def _nothing() -> None:
    """Wakes the loop."""
