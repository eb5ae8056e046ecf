"""The network interface in use, what it has transferred, and the Wi-Fi signal. No state; any thread."""

from dataclasses import dataclass
from typing import Final

from softcam.system.reader import Reader, decimal, whole

_LOOPBACK: Final = "lo"
_IS_UP: Final = 1  # RTF_UP, from linux/route.h
_COUNTERS: Final = 16  # of a line of /proc/net/dev: eight received, eight sent
_MIN_DBM: Final = -120  # less is not a signal: a driver that is not connected reports -256
_IPV4: Final = "proc/net/route"  # metrics are decimal
_IPV6: Final = "proc/net/ipv6_route"  # metrics are hexadecimal


@dataclass(frozen=True, slots=True)
class Network:
    """The interface of the default route, and its counters since the boot."""

    interface: str
    received_bytes: int
    received_packets: int
    sent_bytes: int
    sent_packets: int


@dataclass(frozen=True, slots=True)
class WifiSignal:
    interface: str
    dbm: int


def network(reader: Reader) -> Network | None:
    """None for a machine that has only a loopback interface."""
    counters = _counters(reader)
    name = _default_interface(reader)
    if name is None or name not in counters:
        name = max((each for each in counters if _is_up(reader, each)), key=lambda each: counters[each], default=None)
    if name is None:
        return None
    received_bytes, received_packets, sent_bytes, sent_packets = counters[name]
    return Network(name, received_bytes, received_packets, sent_bytes, sent_packets)


def wifi_signals(reader: Reader) -> list[WifiSignal]:
    """The interfaces that are connected. May block: the kernel asks the drivers, and waits for a lock before.

    A line is `wlan0: 0000   60.  -50.  -256 …`: status, link quality, level and noise in dBm. Level 0 and more is that
    of an interface that is not connected, or in units of an old driver.
    """
    signals = []
    for line in reader.lines("proc/net/wireless")[2:]:
        name, _, values = line.partition(":")
        fields = values.split()
        level = decimal(fields[2].removesuffix(".")) if len(fields) > 2 else None
        if level is not None and _MIN_DBM <= level < 0:
            signals.append(WifiSignal(name.strip(), round(level)))
    return signals


def _counters(reader: Reader) -> dict[str, tuple[int, int, int, int]]:
    """Received bytes and packets, sent bytes and packets, by interface."""
    found = {}
    for line in reader.lines("proc/net/dev")[2:]:
        name, _, values = line.rpartition(":")  # an alias has a colon in its name
        numbers = [whole(value) for value in values.split()]
        if len(numbers) == _COUNTERS:
            match numbers[0], numbers[1], numbers[8], numbers[9]:
                case int(received), int(received_packets), int(sent), int(sent_packets):
                    found[name.strip()] = (received, received_packets, sent, sent_packets)
    return found


def _default_interface(reader: Reader) -> str | None:
    """The interface of the default route with the lowest metric, by IPv4 if there is one."""
    routes = []
    for line in reader.lines(_IPV4)[1:]:
        fields = line.split()
        if len(fields) >= 8 and fields[1] == fields[7] == "00000000":
            flags, metric = _hexadecimal(fields[3]), whole(fields[6])
            if flags is not None and flags & _IS_UP and metric is not None:
                routes.append((metric, fields[0]))
    if routes:
        return min(routes)[1]
    for line in reader.lines(_IPV6):
        fields = line.split()
        if len(fields) == 10 and fields[0] == "0" * 32 and fields[1] == "00" and fields[9] != _LOOPBACK:
            metric = _hexadecimal(fields[5])
            if metric is not None:
                routes.append((metric, fields[9]))
    return min(routes)[1] if routes else None


def _is_up(reader: Reader, interface: str) -> bool:
    return interface != _LOOPBACK and (reader.text(f"sys/class/net/{interface}/operstate") or "").strip() == "up"


def _hexadecimal(text: str) -> int | None:
    is_valid = len(text) <= 8 and text != "" and all(digit in "0123456789abcdefABCDEF" for digit in text)
    return int(text, 16) if is_valid else None
