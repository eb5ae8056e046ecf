"""CORS headers for pages of other origins: those that may change things, and all others, which may only read.

Pure functions; any thread.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message
from typing import Final

# A page of any origin may read, with a key in a header.
_READ_ONLY: Final = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "GET, HEAD",
    "Access-Control-Allow-Headers": "Authorization, X-API-Key, Cache-Control, Pragma",
}
# Not the methods of the path: for another one, the page can then read the 405.
_FULL: Final = {
    "Access-Control-Allow-Methods": "GET, HEAD, POST, PUT, DELETE",
    "Access-Control-Allow-Headers": (
        "Authorization, X-API-Key, Content-Type, Cache-Control, Pragma, Range, If-Range, If-None-Match,"
        " If-Modified-Since, X-Requested-With, Last-Event-ID"
    ),
    "Access-Control-Max-Age": "600",  # s: a preflight for every change would double the delay of a slider
}
# Scripts can read these in addition to the safelisted ones, Content-Length and Last-Modified among them.
_EXPOSED: Final = "Allow, Content-Disposition, Content-Range, ETag, Retry-After, X-Timestamp"


def same_origin(response: Mapping[str, str]) -> dict[str, str]:
    """The headers of a response that pages of other origins can neither read nor embed."""
    headers = {name: value for name, value in response.items() if not name.startswith("Access-Control-")}
    return {**headers, "Cross-Origin-Resource-Policy": "same-origin"}


@dataclass(frozen=True, slots=True)
class AllowedOrigins:
    """The origins of other pages that may change things, as browsers write them: `http://localhost:3000`."""

    origins: frozenset[str] = frozenset()

    def includes(self, headers: Message) -> bool:
        """Whether the request is from a page of one of them; `Origin` can be neither forged nor omitted by a page."""
        return self._origin_of(headers) is not None

    def preflight(self, headers: Message) -> dict[str, str]:
        """The headers of a response to OPTIONS, except for those that `complete` adds."""
        return dict(_FULL if self.includes(headers) else _READ_ONLY)

    def complete(self, response: Mapping[str, str], headers: Message) -> dict[str, str]:
        """The headers of a response, also of an error, with those for the origin of the request.

        A page of a listed origin may read every response, also with credentials, for which `*` would not suffice.
        """
        result = dict(response)
        if not self.origins:
            return result
        # Also for a request without Origin: a cache must not answer with its response to a page that sends one.
        result["Vary"] = ", ".join(filter(None, (result.get("Vary"), "Origin")))
        if origin := self._origin_of(headers):
            result["Access-Control-Allow-Origin"] = origin
            result["Access-Control-Allow-Credentials"] = "true"
            exposed = result.get("Access-Control-Expose-Headers")
            result["Access-Control-Expose-Headers"] = ", ".join(filter(None, (exposed, _EXPOSED)))
        return result

    def _origin_of(self, headers: Message) -> str | None:
        origin = headers.get("Origin", "").strip()
        return origin if origin in self.origins else None


NO_ORIGINS: Final = AllowedOrigins()
