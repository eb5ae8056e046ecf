"""The interface in use, its counters, and the Wi-Fi signal."""

from pathlib import Path

import pytest

from softcam.system.network import Network, WifiSignal, network, wifi_signals
from softcam.system.reader import Reader
from tests.support.machines import PI_4, PI_5, ZERO_2_W, Files, dev, ipv6_route, route, wireless, write_tree

TWO = dev(("eth0", 5_000, 6_000), ("wlan0", 7_000, 8_000))


def found(root: Path, files: Files) -> str | None:
    answer = network(Reader(write_tree(root, files)))
    return None if answer is None else answer.interface


def test_counters(tmp_path: Path) -> None:
    answer = network(Reader(write_tree(tmp_path, PI_4)))
    assert answer == Network("eth0", 5_000_000, 5_000, 7_000_000_000, 7_000_000)


@pytest.mark.parametrize(
    ("files", "interface"),
    [
        pytest.param(PI_4, "eth0", id="the lower metric"),
        pytest.param(
            {"proc/net/dev": TWO, "proc/net/route": route(("wlan0", 0), ("eth0", 100))}, "wlan0", id="no metric"
        ),
        pytest.param(PI_5, "wlan0", id="IPv6 alone"),
        pytest.param(
            {
                "proc/net/dev": TWO,
                "proc/net/route": route(),
                "proc/net/ipv6_route": ipv6_route(("wlan0", 600), ("eth0", 100)),
            },
            "eth0",
            id="the lower metric of IPv6",
        ),
        pytest.param(ZERO_2_W, "wlan0", id="no default route"),
        pytest.param(
            {"proc/net/dev": TWO, "proc/net/route": route(("tun0", 1))}, None, id="unknown interface, all down"
        ),
        pytest.param({"proc/net/dev": dev(), "proc/net/ipv6_route": ipv6_route()}, None, id="loopback alone"),
        pytest.param(
            {"proc/net/dev": TWO, "proc/net/route": "eth0 00000000 0 zz 0 0 0 00000000\n" * 2}, None, id="damaged"
        ),
        pytest.param({"proc/net/route": route(("eth0", 100))}, None, id="no counters"),
        pytest.param({}, None, id="nothing"),
    ],
)
def test_interface(files: Files, interface: str | None, tmp_path: Path) -> None:
    assert found(tmp_path, files) == interface


def test_route_that_is_down(tmp_path: Path) -> None:
    files = {
        "proc/net/dev": TWO,
        "proc/net/route": route(("wlan0", 600), ("eth0", 100)).replace("\t0003\t", "\t0002\t", 1),
    }
    assert found(tmp_path, files) == "eth0"


@pytest.mark.parametrize(
    ("text", "signals"),
    [
        (wireless(("wlan0", -47)), [WifiSignal("wlan0", -47)]),
        (wireless(("wlan0", -47), ("wlan1", -90)), [WifiSignal("wlan0", -47), WifiSignal("wlan1", -90)]),
        pytest.param(wireless(("wlan0", -256)), [], id="not connected"),
        pytest.param(wireless(("wlan0", 0)), [], id="not connected, other drivers"),
        pytest.param(wireless(("wlan0", 70)), [], id="in percent"),
        (wireless(), []),
        (wireless(("wlan0", -47))[:-70], []),
        ("", []),
    ],
)
def test_wifi(text: str, signals: list[WifiSignal], tmp_path: Path) -> None:
    assert wifi_signals(Reader(write_tree(tmp_path, {"proc/net/wireless": text}))) == signals
