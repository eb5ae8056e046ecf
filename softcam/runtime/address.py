"""Addresses that servers listen on, as clients use them, and addresses of clients. Pure functions."""

import ipaddress
from contextlib import suppress


def reachable_host(host: str) -> str:
    """Where clients on this machine reach a server that listens on `host`: loopback if that is every address."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)


def url_host(host: str) -> str:
    """A host as URLs contain it: IPv6 addresses are in brackets."""
    return f"[{host}]" if ":" in host else host


def parse_address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """An IP address; None if it is not one. A socket for both protocols has `::ffff:192.0.2.1` for an IPv4 client."""
    with suppress(ValueError):
        address = ipaddress.ip_address(text.strip())
        return getattr(address, "ipv4_mapped", None) or address
    return None


def is_loopback(text: str) -> bool:
    """Whether it is an address of this machine that others cannot use."""
    address = parse_address(text)
    return address is not None and address.is_loopback


def client_network(text: str) -> str:
    """What counts as one client: an IPv4 address; of IPv6 its /64, since one machine may use all addresses of that.

    A link-local address counts alone: all machines of a network have the same prefix there.
    """
    address = parse_address(text)
    if isinstance(address, ipaddress.IPv6Address) and not (address.is_link_local or address.is_loopback):
        return str(ipaddress.IPv6Network((int(address) >> 64 << 64, 64)))
    return text if address is None else str(address)
