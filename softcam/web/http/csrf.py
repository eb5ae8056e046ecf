"""Pages from elsewhere, which may change nothing: those of another origin, and those whose name was bent to lead here.

The second kind is DNS rebinding: a page of `evil.example` lets its own name lead to this machine, and is then of the
same origin as the portal. See docs/decisions/0012. Any thread may ask.
"""

import ipaddress
import socket
from collections.abc import Collection
from email.message import Message
from http import HTTPStatus
from pathlib import Path
from typing import Final

from softcam.web.http.messages import HttpError

# Nobody can register a name in these: RFC 6761, 6762 with its appendix G, 8375, and ICANN's resolution on .internal.
_PRIVATE_ENDINGS: Final = (
    "local",
    "localhost",
    "test",
    "home.arpa",
    "internal",
    "lan",
    "home",
    "intranet",
    "private",
    "corp",
    "localdomain",
)
_RESOLVER: Final = Path("/etc/resolv.conf")


class Origins:
    """Knows under which names the portal's own pages are."""

    def __init__(self, host_names: Collection[str] = (), *, resolver: Path = _RESOLVER) -> None:
        """`host_names` are those that are configured, in small letters."""
        self._host_names = frozenset(host_names)
        self._resolver = resolver

    def reject_cross_origin(self, headers: Message) -> None:
        """Raises HttpError 403 for a change that a page from elsewhere asks for; programs bear neither header.

        A browser tells where a request comes from, and no page can keep it from that or forge it. Behind a proxy the
        host that the browser knows is in X-Forwarded-Host, which a page cannot send either without asking first.
        """
        site = headers.get("Sec-Fetch-Site")
        if site is not None and site.strip().lower() not in ("same-origin", "none"):
            raise HttpError(
                HTTPStatus.FORBIDDEN, f"Sec-Fetch-Site {site[:40]!r}: a page from elsewhere may change nothing"
            )
        origin = headers.get("Origin")
        if origin is None:
            return
        scheme, _, host = origin.strip().lower().partition("://")
        ours = [headers.get("Host"), headers.get("X-Forwarded-Host")]
        names = [_with_port(name.strip().lower(), scheme) for name in ours if name]
        if not host or _with_port(host, scheme) not in names:
            raise HttpError(HTTPStatus.FORBIDDEN, f"Origin {origin[:80]!r}: a page from elsewhere may change nothing")

    def reject_dns_rebinding(self, headers: Message) -> None:
        """Raises HttpError 403 for a change by a page whose name anybody may have bent to lead here."""
        scheme, _, host = headers.get("Origin", "").strip().lower().partition("://")
        # Who has TLS has shown a certificate for that name, which a bent one cannot; and Sec-Fetch-Site, which no
        # page can write, is sent over TLS and to the browser's own machine alone.
        if not host or scheme == "https" or "Sec-Fetch-Site" in headers:
            return
        name = _without_port(host)
        if _is_nobodys(name) or name in self._host_names or _is_from_proxy(headers) or name in self._own_names():
            return
        raise HttpError(
            HTTPStatus.FORBIDDEN,
            f"Origin: a page under the name {name[:80]!r} may change nothing, since whoever owns a name can let it lead"
            " here; open the page by its IP address, by https, or set an API key, or name it in CAMERA_HOST_NAMES",
        )

    def _own_names(self) -> set[str]:
        """This machine's, as the router's name server has them. Read anew: a network may come late, and change."""
        own = socket.gethostname().lower()
        names = {own}
        try:
            lines = self._resolver.read_text("utf-8", "replace").splitlines()
        except OSError:
            lines = []
        for words in map(str.split, lines):
            if words and words[0] in ("search", "domain"):
                names |= {f"{own.partition('.')[0]}.{domain.strip('.').lower()}" for domain in words[1:]}
        return names


def _is_nobodys(name: str) -> bool:
    """Whether it is an address, or a name that nobody can let lead anywhere in the public DNS."""
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return "." not in name or any(name.endswith(f".{ending}") for ending in _PRIVATE_ENDINGS)
    return True


def _is_from_proxy(headers: Message) -> bool:
    """Whether it did not come from a browser straight away: what names lead to a proxy is its owner's business.

    A browser says `Connection: keep-alive`, which is between it and the next machine: proxies say something else there,
    or nothing. X-Forwarded-… would prove nothing: unlike Connection and Via, a page may write these itself (Fetch,
    2.2.2, forbidden request-headers).
    """
    words = [word.strip().lower() for word in headers.get("Connection", "").split(",")]
    return "Via" in headers or "keep-alive" not in words


def _without_port(host: str) -> str:
    name, _, port = host.rpartition(":")
    return (name if name and port.isdigit() else host).removesuffix(".")


def _with_port(host: str, scheme: str) -> str:
    has_port = ":" in host.rpartition("]")[2]  # colons in brackets are an IPv6 address
    return host if has_port else f"{host}:{443 if scheme == 'https' else 80}"
