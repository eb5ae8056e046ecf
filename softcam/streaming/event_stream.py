"""Server-Sent Events: text streams of events with numbers, on the event loop and without a queue per client.

A source keeps its newest events in memory and numbers them. A client is a position in that memory: each turn of the
loop reads and sends what follows it, as long as the client accepts data. A client that is slower than the memory is
long loses events, which the source reports to it; it delays nobody, and costs the same however slow it is.

Request threads pass a client's socket with `add_client`, a source calls `wake` after new events; the rest runs on the
thread of the event loop. The format: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

import contextlib
import math
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from softcam.net.event_loop import EventLoop
from softcam.streaming.clients import StreamClient
from softcam.streaming.fanout import FanOut

CONTENT_TYPE: Final = "text/event-stream; charset=utf-8"
_RETRY_MS: Final = 2000  # after which a browser connects again
_GATHER_S: Final = 0.05  # events within this time are sent together: a burst wakes the loop and each client once
_HEARTBEAT_S: Final = 15.0  # proxies close a connection without data after a minute, some after half of that
_STALL_TIMEOUT_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class EventBatch:
    """What follows a position in a source's memory."""

    data: bytes  # made of `format_event`; empty if no event is for this client
    position: int  # of the last event that was looked at
    is_last: bool  # whether there is nothing behind it yet
    lost: int = 0  # events that the client was too slow for; `data` reports them to it


Read = Callable[[int], EventBatch]


def format_event(data: str, *, number: int | None = None, name: str | None = None) -> bytes:
    """One event. Browsers pass `number` back after a disconnection; one without a `name` is a `message` there."""
    head = ("" if name is None else f"event: {name}\n") + ("" if number is None else f"id: {number}\n")
    lines = data.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return "".join((head, *(f"data: {line}\n" for line in lines), "\n")).encode("utf-8", "replace")


class EventStream:
    """The clients of one source. Without clients nothing runs."""

    def __init__(
        self,
        loop: EventLoop,
        client_name: str,
        max_clients: int,
        *,
        heartbeat_s: float = _HEARTBEAT_S,
        gather_s: float = _GATHER_S,
        stall_timeout_s: float = _STALL_TIMEOUT_S,
    ) -> None:
        """`client_name` is used in log lines. Before the loop is started."""
        self.max_clients = max_clients
        self._loop = loop
        self._heartbeat_s = heartbeat_s
        self._gather_s = gather_s
        self._stall_timeout_s = stall_timeout_s
        self._slots = threading.BoundedSemaphore(max_clients)
        self._fanout = FanOut(
            loop,
            lambda _: None,
            self._send_all,
            stall_timeout_s=stall_timeout_s,
            client_name=client_name,
            part_name="message",
        )
        self._channels: set[_EventChannel] = set()  # of the loop; any thread reads whether it is empty
        self._is_woken = False  # whether `_send` follows; any thread sets it, the loop clears it before it reads

    # --- any thread -------------------------------------------------------------------------------------------

    @property
    def client_count(self) -> int:
        return self._fanout.client_count

    def reserve(self) -> Callable[[], None] | None:
        """Reserve a place for a client; returns the function that releases it, or None if there is no place."""
        return self._slots.release if self._slots.acquire(blocking=False) else None

    def add_client(
        self,
        connection: socket.socket,
        address: str,
        read: Read,
        position: int,
        release: Callable[[], None],
        *,
        is_chunked: bool,
    ) -> None:
        """Pass a client whose HTTP header was sent; it gets the events behind `position`, `is_chunked` as that says.

        `read` is called on the loop's thread with the position of the client: it must be quick, and return a limited
        number of events. `release` is that of the reserved place.
        """
        with contextlib.suppress(OSError):  # not TCP, or closed already
            # Heartbeats do not fill the buffers of the kernel: without this, the connection of a machine that has lost
            # its power or its network would occupy a place for a quarter of an hour.
            limit_ms = int(self._stall_timeout_s * 1000)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, limit_ms)
        channel = _EventChannel(read, position, self._channels, self._fanout, is_chunked=is_chunked)
        self._fanout.add_client(StreamClient(connection, address, channel, 0.0, release))

    def wake(self) -> None:
        """There are new events. Neither waits nor logs: the caller may hold locks, as one that logs does.

        If another thread is just waking the loop, the events are sent with the next ones, or in a second.
        """
        if self._channels and not self._is_woken:
            self._is_woken = True
            if not self._loop.try_call(self._gather):
                self._is_woken = False

    # --- the loop's thread ------------------------------------------------------------------------------------

    def _gather(self) -> None:
        self._loop.call_later(self._gather_s, self._send)

    def _send(self) -> None:
        self._is_woken = False
        for channel in self._channels:
            channel.resume()

    def _send_all(self) -> None:
        """Once a second: events that did not wake the loop, and heartbeats."""
        now_s = self._loop.clock()
        for channel in self._channels:
            if now_s - channel.sent_s >= self._heartbeat_s:
                channel.resume_with_heartbeat()
            else:
                channel.resume()


class _EventChannel:
    """A channel of the fan-out with one client, since each may have requested other events. Used by the loop alone."""

    def __init__(
        self, read: Read, position: int, channels: "set[_EventChannel]", fanout: FanOut, *, is_chunked: bool
    ) -> None:
        self.clients: set[StreamClient] = set()
        self.sent_s = -math.inf  # when the last data was passed on
        self._is_heartbeat_due = False
        self._read = read
        self._position = position
        self._channels = channels
        self._fanout = fanout
        self._is_chunked = is_chunked
        self._has_turn = True  # whether it may read: one batch in a turn of the loop

    def resume(self) -> None:
        """Continue in the next turn."""
        self._fanout.notify(self, self._begin_turn)

    def resume_with_heartbeat(self) -> None:
        self._is_heartbeat_due = True
        self.resume()

    def _begin_turn(self) -> None:
        self._has_turn = True

    def subscribe(self, client: StreamClient, now_s: float) -> bytes:
        self.clients.add(client)
        self._channels.add(self)
        self.sent_s = now_s
        # With the position, so that a browser which is disconnected before the first event misses none.
        return self._framed(f"retry: {_RETRY_MS}\n{self._number()}\n".encode())

    def next_part(self, client: StreamClient, now_s: float) -> bytes:
        if not self._has_turn:
            return b""
        batch = self._read(self._position)
        self._position = batch.position
        client.count_dropped(batch.lost)
        if not batch.is_last:
            self._has_turn = False
            self.resume()
        data = batch.data
        if not data and self._is_heartbeat_due:
            # A comment, and the position: behind a filter, there may be no event for days.
            data = f":\n{self._number()}\n".encode()
        if data:
            self.sent_s = now_s
            self._is_heartbeat_due = False
        return self._framed(data)

    def unsubscribe(self, client: StreamClient) -> None:
        self.clients.discard(client)
        self._channels.discard(self)

    def _framed(self, data: bytes) -> bytes:
        return b"%x\r\n%b\r\n" % (len(data), data) if data and self._is_chunked else data

    def _number(self) -> str:
        return f"id: {self._position}\n" if self._position else ""
