"""The cameras of this machine, with the URLs of their pages. Runs on the request threads.

Behind a proxy, a browser sees other ports than the portals listen on. The shipped nginx sites keep the distance between
cameras (8081, 8082 outside; 18081, 18082 inside): the offset between two portals' ports is added to the port that the
browser used. Where that does not hold, complete URLs can be configured.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from softcam.config import parsers
from softcam.runtime.address import url_host
from softcam.web.api.json_schema import BOOLEAN, STRING, json_ok, note, record
from softcam.web.http.messages import AnyResponse, Request, json_response
from softcam.web.http.router import Doc, Route

_CAMERA: Final = {
    "name": STRING,
    "url": STRING | note("of its page; starts with // if the scheme is that of this response"),
    "is_self": BOOLEAN,
}
_DOC: Final = Doc(
    "The cameras of this machine",
    "camera",
    json_ok(record({"cameras": {"type": "array", "items": record(_CAMERA)}})),
    "Includes this camera; empty if it is the only one.",
)


@dataclass(frozen=True, slots=True)
class CamerasApi:
    """Handles `/v1/cameras`. `cameras` returns names, each with a port of this machine or the URL of a page."""

    cameras: Callable[[], Sequence[tuple[str, int | str]]]
    own_port: int

    def routes(self) -> list[Route]:
        return [Route(("/v1/cameras",), self.get_list, doc=_DOC)]

    def get_list(self, request: Request) -> AnyResponse:
        found = [(name, self._url(where, request), where == self.own_port) for name, where in self.cameras()]
        return json_response(
            {"cameras": [{"name": name, "url": url, "is_self": is_self} for name, url, is_self in found if url]}
        )

    def image_origins(self, request: Request) -> list[str]:
        """The origins of the other cameras' images, for the page's Content-Security-Policy."""
        urls = (urlsplit(self._url(where, request) or "") for _, where in self.cameras() if where != self.own_port)
        return sorted({f"{url.scheme}://{url.netloc}" if url.scheme else url.netloc for url in urls if url.netloc})

    def _url(self, where: int | str, request: Request) -> str | None:
        """None if it is unknown: behind a proxy that serves all cameras on one port."""
        if isinstance(where, str):
            return where
        if where == self.own_port:
            return "./"
        try:
            seen = urlsplit(f"//{request.host}")
            host, port = parsers.host(seen.hostname or ""), seen.port
        except ValueError:
            return None
        if port is None or not 0 < (outside := port + where - self.own_port) < 65536:
            return None
        return f"//{url_host(host)}:{outside}/"
