"""Addresses that servers listen on, as clients use them. Pure functions."""


def reachable_host(host: str) -> str:
    """Where clients on this machine reach a server that listens on `host`: loopback if that is every address."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)


def url_host(host: str) -> str:
    """A host as URLs contain it: IPv6 addresses are in brackets."""
    return f"[{host}]" if ":" in host else host
