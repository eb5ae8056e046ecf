"""The Transport header of RTSP (RFC 2326, 12.39): which of the offered transports a viewer gets. Pure functions."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

# Searched for, not matched: there are clients that send arbitrary bytes before it, and any case.
_PROFILE: Final = re.compile(r"RTP/AVP(?:/(TCP|UDP))?(?![\w/])", re.IGNORECASE | re.ASCII)
_PAIR: Final = re.compile(r"\s*(\d{1,5})\s*(?:-\s*(\d{1,5})\s*)?")
_MAX_CHANNEL: Final = 255
_MAX_PORT: Final = 65535


@dataclass(frozen=True, slots=True)
class Interleaved:
    """RTP and RTCP in the RTSP connection, in these channels."""

    rtp: int
    rtcp: int

    def header(self, ssrc: int) -> str:
        return f"RTP/AVP/TCP;unicast;interleaved={self.rtp}-{self.rtcp};ssrc={ssrc:08X}"


@dataclass(frozen=True, slots=True)
class Datagrams:
    """RTP and RTCP in UDP, to these ports of the viewer."""

    rtp: int
    rtcp: int

    def header(self, ssrc: int, server_ports: tuple[int, int]) -> str:
        own, other = server_ports
        return f"RTP/AVP;unicast;client_port={self.rtp}-{self.rtcp};server_port={own}-{other};ssrc={ssrc:08X}"


def choose_transport(values: Iterable[str]) -> Interleaved | Datagrams | None:
    """The first supported one of all that the header's values offer; None if there is none.

    A destination is ignored: packets are sent to the address that the request comes from, and nowhere else.
    """
    for offer in (offer for value in values for offer in value.split(",")):
        profile = _PROFILE.search(offer)
        if profile is None:
            continue
        parameters = _parameters(offer[profile.end() :])
        if "multicast" in parameters or parameters.get("mode", "play").strip("\"' ").lower() not in ("play", ""):
            continue
        chosen: Interleaved | Datagrams | None
        if (profile[1] or "").upper() == "TCP" or "interleaved" in parameters:
            # Without numbers the server chooses them.
            pair = _pair(parameters.get("interleaved") or "0-1", 0, _MAX_CHANNEL)
            chosen = None if pair is None else Interleaved(*pair)
        else:
            pair = _pair(parameters.get("client_port", ""), 1, _MAX_PORT)
            chosen = None if pair is None else Datagrams(*pair)
        if chosen is not None:
            return chosen
    return None


def _parameters(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for part in text.split(";"):
        name, _, value = part.partition("=")
        found.setdefault(name.strip().lower(), value.strip())
    return found


def _pair(text: str, low: int, high: int) -> tuple[int, int] | None:
    """`4-5`, or `4` alone, which stands for the same."""
    match = _PAIR.fullmatch(text)
    if match is None:
        return None
    first = int(match[1])
    second = first + 1 if match[2] is None else int(match[2])
    return (first, second) if low <= first <= high and low <= second <= high and first != second else None
