"""The other cameras of this machine, and where a browser finds them. Runs on the threads of requests.

A browser that came by way of a proxy sees other ports than the portals listen on. The shipped sites keep the distance
from one camera to the next (8081, 8082 outside; 18081, 18082 inside), so a port is told as far from the browser's own
as the neighbour's is from this portal's. Where that does not hold, the list has whole addresses.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

from softcam.config import parsers
from softcam.web.http.messages import AnyResponse, Request, json_response
from softcam.web.http.router import Doc

_CAMERA: Final[Mapping[str, Any]] = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "url": {"type": "string", "description": "of its page; begins with // where the scheme is that of this answer"},
        "is_self": {"type": "boolean"},
    },
    "required": ["name", "url", "is_self"],
    "additionalProperties": False,
}
CAMERAS_DOC: Final = Doc(
    "The cameras of this machine",
    "camera",
    {
        200: {
            "application/json": {
                "type": "object",
                "properties": {"cameras": {"type": "array", "items": _CAMERA}},
                "required": ["cameras"],
                "additionalProperties": False,
            }
        }
    },
    description="This one among them, unless it is alone.",
)


class CameraList:
    """Answers for `/v1/cameras`."""

    def __init__(self, cameras: Sequence[tuple[str, int | str]], own_port: int) -> None:
        """Names, and for each a port of this machine or the address of a page."""
        self._cameras = tuple(cameras)
        self._own_port = own_port

    def answer(self, request: Request) -> AnyResponse:
        found = [(name, self._url(where, request), where == self._own_port) for name, where in self._cameras]
        return json_response(
            {"cameras": [{"name": name, "url": url, "is_self": is_self} for name, url, is_self in found if url]}
        )

    def image_origins(self, request: Request) -> list[str]:
        """Where the neighbours' pictures come from, for the page's Content-Security-Policy."""
        urls = (urlsplit(self._url(where, request) or "") for _, where in self._cameras if where != self._own_port)
        return sorted({f"{url.scheme}://{url.netloc}" if url.scheme else url.netloc for url in urls if url.netloc})

    def _url(self, where: int | str, request: Request) -> str | None:
        """None where it cannot be told: behind a proxy that serves all from one port."""
        if isinstance(where, str):
            return where
        if where == self._own_port:
            return "./"
        try:
            seen = urlsplit(f"//{request.headers.get('Host', '')}")
            host, port = parsers.host(seen.hostname or ""), seen.port
        except ValueError:
            return None
        if port is None or not 0 < (outside := port + where - self._own_port) < 65536:
            return None
        return f"//[{host}]:{outside}/" if ":" in host else f"//{host}:{outside}/"
