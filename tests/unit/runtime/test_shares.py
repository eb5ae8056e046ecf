"""What clients of one address may hold."""

import threading

from softcam.runtime.shares import AddressShares
from tests.support.background import Background, eventually, waiters
from tests.support.timeouts import PATIENCE_S


def test_limit_of_each_address() -> None:
    shares = AddressShares(2)
    for address in ("192.0.2.1", "192.0.2.2", "2001:db8::1"):
        assert shares.acquire(address)
        assert shares.acquire(address)
        assert not shares.acquire(address)
    assert not shares.acquire("2001:db8::2")  # of the same network
    shares.release("192.0.2.1")
    assert shares.acquire("192.0.2.1")
    assert not shares.acquire("192.0.2.2")


def test_loopback_has_no_limit() -> None:
    shares = AddressShares(1)
    for address in ("127.0.0.1", "::1", "::ffff:127.0.0.1"):
        assert shares.acquire(address)
        assert shares.acquire(address)
        shares.release(address)


def test_wait_for_a_release() -> None:
    shares = AddressShares(1)
    assert shares.acquire("192.0.2.1")
    waiting = Background(lambda: shares.acquire("192.0.2.1", PATIENCE_S))
    eventually(lambda: waiters(shares._changed))
    shares.release("192.0.2.1")
    assert waiting.result()


def test_no_more_than_the_limit() -> None:
    shares, start = AddressShares(5), threading.Barrier(20)

    def acquire() -> bool:
        start.wait()
        return shares.acquire("192.0.2.1")

    assert sum(each.result() for each in [Background(acquire) for _ in range(20)]) == 5
