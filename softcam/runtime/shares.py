"""The share of a limited resource that clients of one address may have, so that one client cannot use up all of it.

Clients on this machine have no limit: a proxy is one of them, and its clients count by the addresses that it reports.
"""

import threading
from collections import Counter
from collections.abc import Callable

from softcam.runtime.address import client_network, is_loopback


class AddressShares:
    """Counts what clients hold, by address; an IPv6 network counts as one. Any thread may call."""

    def __init__(self, limit: int, is_exempt: Callable[[str], bool] = is_loopback) -> None:
        """`limit` is that of each address, unless it `is_exempt`."""
        self.limit = limit
        self._is_exempt = is_exempt
        self._changed = threading.Condition()  # guards the field below
        self._held: Counter[str] = Counter()  # without zeros

    def acquire(self, address: str, timeout_s: float = 0.0) -> bool:
        """Count one more until `release`; False if the address holds as many as it may until the timeout."""
        if self._is_exempt(address):
            return True
        network = client_network(address)
        with self._changed:
            if not self._changed.wait_for(lambda: self._held[network] < self.limit, timeout_s):
                return False
            self._held[network] += 1
            return True

    def release(self, address: str) -> None:
        """The client of this address holds one less."""
        if self._is_exempt(address):
            return
        network = client_network(address)
        with self._changed:
            self._held[network] -= 1
            if not self._held[network]:
                del self._held[network]
            self._changed.notify_all()

    def reason(self, what: str) -> str:
        """Why a client is rejected; `what` names in the plural what it holds."""
        return limit_reason(what, self.limit)


def limit_reason(what: str, limit: int) -> str:
    """Why a client is rejected whose address holds `limit` of `what`."""
    return f"{what} of this address: must be at most {limit}; disconnect one, or raise --max-clients-per-address"
