"""Rejects changes requested by pages of other origins, and by pages whose host name was rebound to this machine.

The second kind is DNS rebinding: a page of `evil.example` points its own name at this machine and then has the same
origin as the portal. See docs/decisions/0012. Any thread may call.
"""

import ipaddress
import re
import socket
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from email.message import Message
from http import HTTPStatus
from pathlib import Path
from typing import Final

from softcam.web.http.cors import NO_ORIGINS, AllowedOrigins
from softcam.web.http.messages import HttpError

# A single label, or a domain in which nobody can register a name: RFC 6761, 6762 with its appendix G, 8375, and ICANN's
# resolution on .internal.
_PRIVATE_NAME: Final = re.compile(
    r"[^.]*|.*\.(local|localhost|test|home\.arpa|internal|lan|home|intranet|private|corp|localdomain)", re.DOTALL
)
_RESOLV_CONF: Final = Path("/etc/resolv.conf")
_CURE: Final = "; CAMERA_ALLOWED_ORIGINS lists other origins that may change things"


@dataclass(frozen=True, slots=True)
class CsrfGuard:
    """Knows the host names of this portal. `host_names` are the configured ones, in lower case.

    The pages of `allowed_origins` may change things from outside.
    """

    host_names: Collection[str] = ()
    resolver: Path = _RESOLV_CONF
    allowed_origins: AllowedOrigins = NO_ORIGINS

    def reject_cross_origin(self, headers: Message) -> None:
        """Raises HttpError 403 for a request from a page of another origin; non-browser clients send neither header.

        A browser sends the origin of a request, and a page can neither suppress nor forge it. Behind a proxy, the host
        that the browser knows is in X-Forwarded-Host, which a page cannot send without a preflight.
        """
        if self.allowed_origins.includes(headers):
            return
        site = headers.get("Sec-Fetch-Site")
        if site is not None and site.strip().lower() not in ("same-origin", "none"):
            raise HttpError(
                HTTPStatus.FORBIDDEN,
                f"Sec-Fetch-Site: must be same-origin or none, not {site[:40]!r}: cross-origin request rejected{_CURE}",
            )
        origin = headers.get("Origin")
        if origin is None:
            return
        scheme, _, host = origin.strip().lower().partition("://")
        hosts = [headers.get("Host"), headers.get("X-Forwarded-Host")]
        own = [_with_port(name.strip().lower(), scheme) for name in hosts if name]
        if not host or _with_port(host, scheme) not in own:
            raise HttpError(
                HTTPStatus.FORBIDDEN,
                f"Origin: must be that of the portal, not {origin[:80]!r}: cross-origin request rejected{_CURE}",
            )

    def reject_dns_rebinding(self, headers: Message) -> None:
        """Raises HttpError 403 for a request from a page whose host name anybody could have pointed here."""
        if self.allowed_origins.includes(headers):
            return
        scheme, _, host = headers.get("Origin", "").strip().lower().partition("://")
        # TLS requires a certificate for the name, which a rebound name does not have. Sec-Fetch-Site, which no page can
        # set, is sent over TLS and to the browser's own machine only.
        if not host or scheme == "https" or "Sec-Fetch-Site" in headers:
            return
        name = _without_port(host)
        if _is_private_name(name) or name in self.host_names or _is_proxied(headers) or name in self._machine_names():
            return
        raise HttpError(
            HTTPStatus.FORBIDDEN,
            f"Origin: untrusted host name {name[:80]!r} (DNS rebinding protection); open the page by IP address or"
            " https, set an API key, or add the name to CAMERA_HOST_NAMES",
        )

    def _machine_names(self) -> set[str]:
        """This machine's names in the local network. Read at each call: the network may come up late, and change."""
        own = socket.gethostname().lower()
        names = {own}
        with suppress(OSError):
            for words in map(str.split, self.resolver.read_text("utf-8", "replace").splitlines()):
                if words and words[0] in ("search", "domain"):
                    names |= {f"{own.partition('.')[0]}.{domain.strip('.').lower()}" for domain in words[1:]}
        return names


def _is_private_name(name: str) -> bool:
    """Whether it is an IP address, or a name that nobody can register in the public DNS."""
    with suppress(ValueError):
        ipaddress.ip_address(name.strip("[]"))
        return True
    return _PRIVATE_NAME.fullmatch(name) is not None


def _is_proxied(headers: Message) -> bool:
    """Whether the request came through a proxy, whose owner is responsible for the names that lead to it.

    A browser sends `Connection: keep-alive`, which is valid up to the next machine only: a proxy sends another value or
    none. X-Forwarded-… would prove nothing: unlike Connection and Via, a page may set it (Fetch, 2.2.2, forbidden
    request-headers).
    """
    words = [word.strip().lower() for word in headers.get("Connection", "").split(",")]
    return "Via" in headers or "keep-alive" not in words


def _without_port(host: str) -> str:
    name, _, port = host.rpartition(":")
    return (name if name and port.isdigit() else host).removesuffix(".")


def _with_port(host: str, scheme: str) -> str:
    has_port = ":" in host.rpartition("]")[2]  # colons in brackets belong to an IPv6 address
    return host if has_port else f"{host}:{443 if scheme == 'https' else 80}"
