"""Slows down the guessing of keys: how long the response to a wrong key is delayed, by the address of the client.

HTTP and RTSP share one brake. It delays responses to wrong keys. While several of an address are delayed, further keys
from there are not even compared, however many connections they come by: this limits the guesses. Only keys that were
right from there in the last minutes still are, so clients that share the address of an attacker (NAT) continue. Any
thread may call.
"""

import hashlib
import logging
import threading
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from math import ceil
from typing import Final

from softcam.net.event_loop import EventLoop
from softcam.runtime.address import client_network
from softcam.runtime.plural import counted

log = logging.getLogger(__name__)

_UNDELAYED: Final = 3  # a typing error, or a player with an old password
_FIRST_DELAY_S: Final = 0.1  # doubled with each wrong key
_MAX_DELAY_S: Final = 2.0
_MAX_PENDING: Final = 4  # delayed responses to one address
_FORGET_S: Final = 600.0
_MAX_ADDRESSES: Final = 1000
_REPORT_S: Final = 60.0
_MAX_LINES: Final = 10  # for each report: an attack from many addresses must not fill the log

NO_KEY: Final = b""  # not wrong, but not the right key either: nothing follows from it
# With the digests of the keys that may be compared, or None for all: returns the digest of the one that is right,
# `NO_KEY`, or None if the client's is wrong.
Compare = Callable[[Collection[bytes] | None], bytes | None]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What follows from the key of a client."""

    key: bytes | None = None  # the digest of the right one, or `NO_KEY`
    delay_s: float = 0.0  # of the response to a wrong one
    retry_s: int = 0  # if not 0, the key was not compared; when to try again


CheckKey = Callable[[str, Compare], Verdict]  # with the address of the client


def check_without_brake(_: str, compare: Compare) -> Verdict:
    return Verdict(compare(None))


def key_digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def usable_keys(keys: Iterable[str], usable: Collection[bytes] | None) -> tuple[str, ...]:
    """Those of the keys that may be compared."""
    return tuple(key for key in keys if usable is None or key_digest(key) in usable)


@dataclass(eq=False, slots=True)
class _Client:
    """What came from one address."""

    address: str
    count: int = 0
    unlogged: int = 0
    seen_s: float = 0.0
    pending: list[float] = field(default_factory=list)  # when its delayed responses are sent

    def count_wrong_key(self, address: str, now_s: float, *, is_logged: bool) -> None:
        self.address, self.seen_s = address, now_s
        self.count += 1
        self.unlogged += not is_logged

    def wait_s(self, now_s: float) -> float:
        """How long no further key is compared."""
        self.pending = [due_s for due_s in self.pending if due_s > now_s]
        return min(self.pending) - now_s if len(self.pending) >= _MAX_PENDING else 0.0

    def take_unlogged(self) -> int:
        unlogged, self.unlogged = self.unlogged, 0
        return unlogged


class KeyBrake:
    """Counts wrong keys. An address is forgotten ten minutes after its last one."""

    def __init__(self, loop: EventLoop, *, max_addresses: int = _MAX_ADDRESSES) -> None:
        self._loop = loop
        self._max_addresses = max_addresses
        self._comparing = threading.Lock()  # one key at a time: requests at once must not all pass
        self._lock = threading.Lock()  # guards everything below
        self._clients: dict[str, _Client] = {}  # the one that was silent for longest first
        # When each key was last right from an address, by its digest; the address that was silent for longest first.
        self._right: dict[str, dict[bytes, float]] = {}
        self._lines = 0  # since the last report
        self._is_reporting = False  # whether a report follows

    def check(self, address: str, compare: Compare) -> Verdict:
        """Compare the key of a client, unless too many wrong ones came from there."""
        network = client_network(address)
        with self._comparing:
            wait_s = self._wait_s(network)
            key = compare(self._keys_of(network) if wait_s else None)
            if key:
                self._note_right_key(network, key)
            if key is not None:
                return Verdict(key)
            if wait_s:
                return Verdict(retry_s=ceil(wait_s))
            return Verdict(delay_s=self.note_wrong_key(address))

    def _wait_s(self, network: str) -> float:
        """How long no further key from there is compared."""
        now_s = self._loop.clock()
        with self._lock:
            client = self._clients.get(network)
            return 0.0 if client is None else client.wait_s(now_s)

    def _keys_of(self, network: str) -> Collection[bytes]:
        since_s = self._loop.clock() - _FORGET_S
        with self._lock:
            return [key for key, seen_s in self._right.get(network, {}).items() if seen_s > since_s]

    def _note_right_key(self, network: str, key: bytes) -> None:
        with self._lock:
            keys = self._right.pop(network, {})
            keys[key] = self._loop.clock()
            self._right[network] = keys
            if len(self._right) > self._max_addresses:
                del self._right[next(iter(self._right))]

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
            # The exponent is limited, as a float is.
            delay_s = min(_MAX_DELAY_S, _FIRST_DELAY_S * 2.0 ** min(delayed - 1, 10)) if delayed > 0 else 0.0
            if delay_s and len(client.pending) < _MAX_PENDING:
                client.pending.append(now_s + delay_s)
            is_first, self._is_reporting = not self._is_reporting, True
        if is_logged:
            log.warning("Client %s rejected: wrong key", address)
        if is_first:
            self._loop.call(self._schedule_report)
        return delay_s

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
