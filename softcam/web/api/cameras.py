"""The cameras of this machine, with the URLs of their pages. Runs on the request threads.

Behind a proxy, a browser sees other ports than the portals listen on. The shipped nginx sites keep the distance between
cameras (8081, 8082 outside; 18081, 18082 inside): the offset between two portals' ports is added to the port that the
browser used. Where that does not hold, complete URLs can be configured.
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
        "url": {"type": "string", "description": "of its page; starts with // if the scheme is that of this response"},
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
    description="Includes this camera; empty if it is the only one.",
)


class CameraList:
    """The handler of `/v1/cameras`."""

    def __init__(self, cameras: Sequence[tuple[str, int | str]], own_port: int) -> None:
        """`cameras` are names, each with a port of this machine or the URL of a page."""
        self._cameras = tuple(cameras)
        self._own_port = own_port

    def answer(self, request: Request) -> AnyResponse:
        found = [(name, self._url(where, request), where == self._own_port) for name, where in self._cameras]
        return json_response(
            {"cameras": [{"name": name, "url": url, "is_self": is_self} for name, url, is_self in found if url]}
        )

    def image_origins(self, request: Request) -> list[str]:
        """The origins of the other cameras' images, for the page's Content-Security-Policy."""
        urls = (urlsplit(self._url(where, request) or "") for _, where in self._cameras if where != self._own_port)
        return sorted({f"{url.scheme}://{url.netloc}" if url.scheme else url.netloc for url in urls if url.netloc})

    def _url(self, where: int | str, request: Request) -> str | None:
        """None if it is unknown: behind a proxy that serves all cameras on one port."""
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
