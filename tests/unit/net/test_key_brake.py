"""How long responses to wrong keys are delayed, and what is logged about them."""

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest

from softcam.net.event_loop import EventLoop
from softcam.net.key_brake import NO_KEY, Compare, KeyBrake, Verdict, key_digest, log, usable_keys
from tests.support.background import soon
from tests.support.rtsp_viewers import ManualClock
from tests.support.timeouts import PATIENCE_S

NoLeaks = Callable[[], AbstractContextManager[None]]
ATTACKER, OTHER = "192.0.2.1", "192.0.2.2"


class Brake:
    """A brake on a loop whose clock stands still until `advance`."""

    def __init__(self) -> None:
        self.crashes: list[str] = []
        self.clock = ManualClock()
        self.loop = EventLoop("test loop", self.crashes.append, clock=self.clock)
        self.brake = KeyBrake(self.loop, max_addresses=20)
        self.loop.start()

    def delays(self, count: int, address: str = ATTACKER) -> list[float]:
        return [self.brake.note_wrong_key(address) for _ in range(count)]

    def advance(self, duration_s: float) -> None:
        is_done = threading.Event()

        def advance() -> None:
            self.clock.now_s += duration_s
            self.loop.call_later(0, is_done.set)

        assert self.loop.call(advance)
        assert is_done.wait(PATIENCE_S)


@pytest.fixture
def site(no_leaks: NoLeaks) -> Iterator[Brake]:
    with no_leaks():
        site = Brake()
        yield site
        site.loop.stop(soon())
    assert site.crashes == []


def test_delays_of_one_address(site: Brake) -> None:
    assert site.delays(9) == [0, 0, 0, 0.1, 0.2, 0.4, 0.8, 1.6, 2.0]
    assert set(site.delays(1100)) == {2.0}
    assert site.delays(3, OTHER) == [0, 0, 0]


KEYS = "api", "view"


def offer(key: str) -> Compare:
    return lambda usable: key_digest(key) if key in usable_keys(KEYS, usable) else None


def test_guesses_are_limited(site: Brake) -> None:
    """Whatever an address does, and by any number of threads: four guesses in two seconds after the first ones."""
    compared = list[int]()

    def guess(_: object) -> None:
        compared.append(1)

    def check() -> None:
        for _ in range(50):
            verdicts.append(site.brake.check(ATTACKER, lambda usable: guess(usable) if usable is None else None))

    verdicts = list[Verdict]()
    for _ in range(30):
        threads = [threading.Thread(target=check) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE_S)
        site.advance(1)
    assert 60 <= len(compared) <= 3 + 4 + 30 / 2 * 4 + 4
    assert len(verdicts) == 30 * 8 * 50
    assert {verdict.key for verdict in verdicts} == {None}
    assert {verdict.retry_s for verdict in verdicts if not verdict.delay_s} == {0, 1, 2}


def test_right_keys_at_the_address_of_an_attacker(site: Brake) -> None:
    """One that was right there in the last minutes is still compared; no other one."""
    site.brake.check(ATTACKER, offer("view"))
    for _ in range(20):
        site.brake.check(ATTACKER, offer("wrong"))
    assert site.brake.check(ATTACKER, offer("view")) == Verdict(key_digest("view"))
    assert site.brake.check(ATTACKER, offer("api")).retry_s > 0
    assert site.brake.check(OTHER, offer("api")) == Verdict(key_digest("api"))
    site.advance(601)
    for _ in range(20):
        site.brake.check(ATTACKER, offer("wrong"))
    assert site.brake.check(ATTACKER, offer("view")).retry_s > 0
    site.advance(2)
    assert site.brake.check(ATTACKER, offer("view")) == Verdict(key_digest("view"))


def test_old_nonce_is_neither_right_nor_wrong(site: Brake) -> None:
    for _ in range(20):
        assert site.brake.check(ATTACKER, lambda _: NO_KEY) == Verdict(NO_KEY)
    assert site.delays(3) == [0, 0, 0]
    assert site.brake._right == {}


def test_number_of_addresses_with_right_keys_is_limited(site: Brake) -> None:
    for number in range(30):
        site.brake.check(f"198.51.100.{number}", offer("view"))
    assert len(site.brake._right) == 20


def test_one_client_per_ipv6_network(site: Brake) -> None:
    assert [site.delays(1, f"2001:db8::{number}") for number in range(4)] == [[0], [0], [0], [0.1]]
    assert site.delays(1, "2001:db8:0:1::1") == [0]


def test_address_is_forgotten(site: Brake) -> None:
    site.delays(4)
    for _ in range(9):
        site.advance(60)
    assert site.delays(1) == [0.2]
    for _ in range(11):
        site.advance(60)
    assert site.delays(1) == [0]


def test_number_of_addresses_is_limited(site: Brake) -> None:
    """The one that was silent for longest is forgotten."""
    site.delays(4, OTHER)
    site.delays(4)
    for number in range(19):
        site.delays(1, f"198.51.100.{number}")
        assert site.delays(1) == [min(2.0, 0.2 * 2**number)]
    assert site.delays(1, OTHER) == [0]


def test_one_line_a_minute(site: Brake, caplog: pytest.LogCaptureFixture) -> None:
    site.delays(8)
    site.delays(1, OTHER)
    assert caplog.messages == [f"Client {address} rejected: wrong key" for address in (ATTACKER, OTHER)]
    site.advance(59)
    assert len(caplog.messages) == 2
    site.advance(1)
    assert caplog.messages[2:] == [f"Client {ATTACKER} rejected: 7 wrong keys in the last minute"]
    site.delays(1)
    site.advance(60)
    assert caplog.messages[3:] == [f"Client {ATTACKER} rejected: 1 wrong key in the last minute"]
    for _ in range(12):
        site.advance(60)
    assert len(caplog.messages) == 4


def test_one_report_at_a_time(site: Brake, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a wrong key is noted while a report is logged, after which none was to follow."""
    site.delays(2)
    site.advance(0)
    scheduled = list[float]()
    schedule = site.brake._schedule_report

    def note_schedule() -> None:
        scheduled.append(site.clock.now_s)
        schedule()

    def warn(*_: object) -> None:
        if not scheduled:
            monkeypatch.setattr(log, "warning", lambda *_: None)
            site.delays(1, OTHER)

    monkeypatch.setattr(site.brake, "_schedule_report", note_schedule)
    monkeypatch.setattr(log, "warning", warn)
    site.advance(600)
    site.advance(0)
    assert len(scheduled) == 1


def test_lines_about_many_addresses(site: Brake, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(15):
        site.delays(1 + number, f"198.51.100.{number}")
    assert len(caplog.messages) == 10
    site.advance(60)
    lines = caplog.messages[10:]
    assert len(lines) == 11
    assert lines[0] == "Client 198.51.100.14 rejected: 15 wrong keys in the last minute"
    assert lines[10] == "4 more clients rejected: 10 wrong keys in the last minute"
    assert all(re.search("wrong keys? in the last minute", line) for line in lines)


def test_after_the_end_of_the_loop() -> None:
    loop = EventLoop("test loop", list[str]().append)
    loop.stop(soon())
    assert KeyBrake(loop).note_wrong_key(ATTACKER) == 0
