"""The pages and their parts: files of the folder `assets`, read once, sent as they are."""

import hashlib
from http import HTTPStatus
from importlib.resources import files
from typing import Final

from softcam.web.messages import Answer, Request, Response
from softcam.web.routes import Doc, Route

_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
# Nothing from elsewhere, nothing inline: what is shown on the page can never become code.
_HEADERS: Final = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": "default-src 'none'; img-src 'self' blob: data:; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


_PARTS: Final = ("page.css", "page.js", "icon.svg", "docs.css", "docs.js")


def _page_doc(summary: str) -> Doc:
    return Doc(summary, "pages", {200: {"text/html; charset=utf-8": None}})


class Page:
    """One file, and whether a client has it already."""

    def __init__(self, name: str) -> None:
        """Raises FileNotFoundError when the installation lacks it."""
        self._body = files("softcam.web").joinpath("assets", name).read_bytes()
        self._content_type = _TYPES["." + name.rpartition(".")[2]]
        self._tag = f'"{hashlib.sha256(self._body).hexdigest()[:16]}"'

    def answer(self, request: Request) -> Answer:
        """The file, or 304 when the client's copy is the same."""
        headers = {**_HEADERS, "ETag": self._tag}
        # A proxy that compresses makes the tag a weak one.
        known = [tag.strip().removeprefix("W/") for tag in request.headers.get("If-None-Match", "").split(",")]
        if self._tag in known or "*" in known:
            return Response(b"", self._content_type, HTTPStatus.NOT_MODIFIED, headers)
        return Response(self._body, self._content_type, headers=headers)


def page_routes() -> list[Route]:
    """The page at `/`, its parts under `/assets/`; addresses in them are relative, so a sub-path works."""
    return [
        Route(("/", "/index.html"), Page("index.html").answer, doc=_page_doc("The page with the live picture")),
        *(Route((f"/assets/{name}",), Page(name).answer) for name in _PARTS),
        Route(("/webrtc",), Page("webrtc.html").answer, doc=_page_doc("How to get WebRTC")),
        Route(("/docs",), Page("docs.html").answer, doc=_page_doc("This description, for people")),
    ]
