"""The pages and their parts: files of the folder `assets`, read once, sent as they are."""

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
_ASK_US: Final = "connect-src 'self'"
_SHOW_US: Final = "img-src 'self'"
# Nothing from elsewhere, nothing inline: what is shown on the page can never become code.
_HEADERS: Final = {
    "Cache-Control": "no-cache",
    _POLICY: f"default-src 'none'; {_SHOW_US} blob: data:; media-src 'self' blob:; script-src 'self'; "
    f"style-src 'self'; {_ASK_US}; frame-src 'self'; worker-src 'none'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


_SCRIPTS: Final = (
    "page.js",
    "controls.js",
    "dom.js",
    "mjpeg.js",
    "movie.js",
    "peer.js",
    "picture.js",
    "plots.js",
    "portal.js",
    "recordings.js",
    "share.js",
    "wall.js",
    "zoom.js",
)
_PARTS: Final = ("page.css", *_SCRIPTS, "icon.svg", "docs.css", "docs.js")


def page_doc(summary: str) -> Doc:
    return Doc(summary, "pages", {200: {"text/html; charset=utf-8": None}})


class Page:
    """One file, and whether a client has it already."""

    def __init__(
        self,
        name: str,
        *,
        fill: Mapping[str, str] | None = None,
        connect_origin: str | None = None,
        image_origins: Callable[[Request], Sequence[str]] | None = None,
    ) -> None:
        """`fill` stands in for its {{names}}, escaped already; `connect_origin` is one more origin that it may talk to.

        `image_origins` tells from which more origins its pictures may come, seen by who asks.

        Raises FileNotFoundError when the installation lacks it.
        """
        text = files("softcam.web").joinpath("assets", name).read_bytes()
        for field, value in (fill or {}).items():
            text = text.replace(b"{{%s}}" % field.encode(), value.encode())
        self._body = text
        self._headers = dict(_HEADERS)
        if connect_origin is not None:
            self._headers[_POLICY] = _HEADERS[_POLICY].replace(_ASK_US, f"{_ASK_US} {connect_origin}")
        self._image_origins = image_origins
        self._content_type = _TYPES["." + name.rpartition(".")[2]]
        self._tag = f'"{hashlib.sha256(self._body).hexdigest()[:16]}"'

    def answer(self, request: Request) -> AnyResponse:
        """The file, or 304 when the client's copy is the same."""
        headers = {**self._headers, "ETag": self._tag}
        if self._image_origins is not None:
            shown = " ".join([_SHOW_US, *self._image_origins(request)])
            headers[_POLICY] = headers[_POLICY].replace(_SHOW_US, shown)
        # A proxy that compresses makes the tag a weak one.
        known = [tag.strip().removeprefix("W/") for tag in request.headers.get("If-None-Match", "").split(",")]
        if self._tag in known or "*" in known:
            return Response(b"", self._content_type, HTTPStatus.NOT_MODIFIED, headers)
        return Response(self._body, self._content_type, headers=headers)


def page_routes(image_origins: Callable[[Request], Sequence[str]] | None = None) -> list[Route]:
    """The page at `/`, its parts under `/assets/`; addresses in them are relative, so a sub-path works.

    `image_origins` tells where pictures of other cameras come from.
    """
    page = Page("index.html", image_origins=image_origins)
    return [
        Route(("/", "/index.html"), page.answer, doc=page_doc("The page with the live picture")),
        *(Route((f"/assets/{name}",), Page(name).answer) for name in _PARTS),
        Route(("/docs",), Page("docs.html").answer, doc=page_doc("This description, for people")),
    ]
