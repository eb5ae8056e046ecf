"""Slows down the guessing of keys: how long the response to a wrong key is delayed, by the address of the client.

HTTP and RTSP share one brake. It delays nothing but responses to wrong keys: a client with the right key is answered at
once, also one that shares the address of an attacker (NAT). Any thread may call.
"""

import logging
import threading
from dataclasses import dataclass
from typing import Final

from softcam.net.event_loop import EventLoop
from softcam.runtime.address import client_network
from softcam.runtime.plural import counted

log = logging.getLogger(__name__)

_UNDELAYED: Final = 3  # a typing error, or a player with an old password
_FIRST_DELAY_S: Final = 0.1  # doubled with each wrong key
_MAX_DELAY_S: Final = 2.0
_FORGET_S: Final = 600.0
_MAX_ADDRESSES: Final = 1000
_REPORT_S: Final = 60.0
_MAX_LINES: Final = 10  # for each report: an attack from many addresses must not fill the log


@dataclass(eq=False, slots=True)
class _Client:
    """What came from one address."""

    address: str
    count: int = 0
    unlogged: int = 0
    seen_s: float = 0.0

    def count_wrong_key(self, address: str, now_s: float, *, is_logged: bool) -> None:
        self.address, self.seen_s = address, now_s
        self.count += 1
        self.unlogged += not is_logged

    def take_unlogged(self) -> int:
        unlogged, self.unlogged = self.unlogged, 0
        return unlogged


class KeyBrake:
    """Counts wrong keys. An address is forgotten ten minutes after its last one."""

    def __init__(self, loop: EventLoop, *, max_addresses: int = _MAX_ADDRESSES) -> None:
        self._loop = loop
        self._max_addresses = max_addresses
        self._lock = threading.Lock()  # guards everything below
        self._clients: dict[str, _Client] = {}  # the one that was silent for longest first
        self._lines = 0  # since the last report
        self._is_reporting = False  # whether a report follows

    def note_wrong_key(self, address: str) -> float:
        """A client has sent a wrong key; returns the seconds by which the response is to be delayed."""
        now_s, network = self._loop.clock(), client_network(address)
        with self._lock:
            client = self._clients.pop(network, None) or _Client(address)
            self._clients[network] = client
            if len(self._clients) > self._max_addresses:
                del self._clients[next(iter(self._clients))]
            is_logged = not client.count and self._lines < _MAX_LINES
            self._lines += is_logged
            client.count_wrong_key(address, now_s, is_logged=is_logged)
            delayed = client.count - _UNDELAYED
            is_first, self._is_reporting = not self._is_reporting, True
        if is_logged:
            log.warning("Client %s rejected: wrong key", address)
        if is_first:
            self._loop.call(self._schedule_report)
        # The exponent is limited, as a float is.
        return min(_MAX_DELAY_S, _FIRST_DELAY_S * 2.0 ** min(delayed - 1, 10)) if delayed > 0 else 0.0

    # --- the loop's thread ------------------------------------------------------------------------------------

    def _schedule_report(self) -> None:
        self._loop.call_later(_REPORT_S, self._report)

    def _report(self) -> None:
        """Log a line for each address with wrong keys since the last report, the most first; forget old addresses."""
        since_s = self._loop.clock() - _FORGET_S
        with self._lock:
            found = [(client.take_unlogged(), client.address) for client in self._clients.values()]
            self._clients = {key: client for key, client in self._clients.items() if client.seen_s > since_s}
            self._lines = 0
            self._is_reporting = is_reporting = bool(self._clients)
        found = sorted((each for each in found if each[0]), reverse=True)
        for count, address in found[:_MAX_LINES]:
            log.warning("Client %s rejected: %s in the last minute", address, counted(count, "wrong key"))
        if rest := found[_MAX_LINES:]:
            total = counted(sum(count for count, _ in rest), "wrong key")
            log.warning("%s more clients rejected: %s in the last minute", len(rest), total)
        if is_reporting:
            self._schedule_report()
