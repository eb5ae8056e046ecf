"""Addresses as clients use them."""

import pytest

from softcam.runtime.address import client_network, parse_address, reachable_host, url_host


@pytest.mark.parametrize(
    ("host", "reachable"),
    [("0.0.0.0", "127.0.0.1"), ("::", "::1"), ("192.0.2.1", "192.0.2.1"), ("fe80::1%eth0", "fe80::1%eth0")],
)
def test_reachable_host(host: str, reachable: str) -> None:
    assert reachable_host(host) == reachable


@pytest.mark.parametrize(("host", "shown"), [("::1", "[::1]"), ("192.0.2.1", "192.0.2.1"), ("pi.local", "pi.local")])
def test_url_host(host: str, shown: str) -> None:
    assert url_host(host) == shown


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        (" ::1 ", "::1"),
        ("fe80::1%eth0", "fe80::1%eth0"),
        ("pi.local", None),
        ("", None),
    ],
)
def test_parse_address(text: str, address: str | None) -> None:
    found = parse_address(text)
    assert (None if found is None else str(found)) == address


@pytest.mark.parametrize(
    ("text", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fd00::7", "fd00::/64"),
        ("::1", "::1"),
        ("fe80::1%eth0", "fe80::1%eth0"),
        ("unknown", "unknown"),
    ],
)
def test_client_network(text: str, network: str) -> None:
    assert client_network(text) == network
