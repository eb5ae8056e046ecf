"""The page and the API documentation: files of the folder `assets`, read once at start."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from importlib.resources import files
from typing import Final

from softcam.web.http.messages import AnyResponse, Request, Response
from softcam.web.http.router import Doc, Route

_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_POLICY: Final = "Content-Security-Policy"
_CONNECT_SELF: Final = "connect-src 'self'"
_IMAGES_SELF: Final = "img-src 'self'"
# No foreign and no inline code: text shown on the page can never be executed.
_HEADERS: Final = {
    "Cache-Control": "no-cache",
    _POLICY: f"default-src 'none'; {_IMAGES_SELF} blob: data:; media-src 'self' blob:; script-src 'self'; "
    f"style-src 'self'; {_CONNECT_SELF}; frame-src 'self'; worker-src 'none'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


_SCRIPTS: Final = (
    "controls.js",
    "dom.js",
    "links.js",
    "mjpeg.js",
    "mp4.js",
    "page.js",
    "peer.js",
    "picture.js",
    "plots.js",
    "portal.js",
    "recordings.js",
    "wall.js",
    "zoom.js",
)
_PARTS: Final = ("page.css", *_SCRIPTS, "icon.svg", "docs.css", "docs.js")


def page_doc(summary: str) -> Doc:
    return Doc(summary, "pages", {200: {"text/html; charset=utf-8": None}})


class Page:
    """The handler of one file, with its ETag."""

    def __init__(
        self,
        name: str,
        *,
        fill: Mapping[str, str] | None = None,
        connect_origin: str | None = None,
        image_origins: Callable[[Request], Sequence[str]] | None = None,
    ) -> None:
        """`fill` replaces the file's {{names}} by text that is already escaped.

        `connect_origin` is an additional origin that the page may connect to. `image_origins` returns the additional
        origins of its images, as seen by the client. Raises FileNotFoundError if the installation is incomplete.
        """
        text = files("softcam.web").joinpath("assets", name).read_bytes()
        for field, value in (fill or {}).items():
            text = text.replace(b"{{%s}}" % field.encode(), value.encode())
        self._body = text
        self._headers = dict(_HEADERS)
        if connect_origin is not None:
            self._headers[_POLICY] = _HEADERS[_POLICY].replace(_CONNECT_SELF, f"{_CONNECT_SELF} {connect_origin}")
        self._image_origins = image_origins
        self._content_type = _TYPES["." + name.rpartition(".")[2]]
        self._tag = f'"{hashlib.sha256(self._body).hexdigest()[:16]}"'

    def answer(self, request: Request) -> AnyResponse:
        """The file, or 304 if the client has the same version."""
        headers = {**self._headers, "ETag": self._tag}
        if self._image_origins is not None:
            shown = " ".join([_IMAGES_SELF, *self._image_origins(request)])
            headers[_POLICY] = headers[_POLICY].replace(_IMAGES_SELF, shown)
        # A compressing proxy turns the tag into a weak one.
        known = [tag.strip().removeprefix("W/") for tag in request.headers.get("If-None-Match", "").split(",")]
        if self._tag in known or "*" in known:
            return Response(b"", self._content_type, HTTPStatus.NOT_MODIFIED, headers)
        return Response(self._body, self._content_type, headers=headers)


def page_routes(image_origins: Callable[[Request], Sequence[str]] | None = None) -> list[Route]:
    """The page at `/` and its assets; all addresses in them are relative, so the portal works under a sub-path.

    `image_origins` returns the origins of other cameras' images.
    """
    page = Page("index.html", image_origins=image_origins)
    return [
        Route(("/", "/index.html"), page.answer, doc=page_doc("The page with the live picture and the controls")),
        *(Route((f"/assets/{name}",), Page(name).answer) for name in _PARTS),
        Route(("/docs",), Page("docs.html").answer, doc=page_doc("This API description as a page")),
    ]
