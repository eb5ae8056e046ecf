"""The page and the API documentation: files of the folder `assets`, read once at start.

The handlers run on the request threads.
"""

import gzip
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from html import escape
from http import HTTPStatus
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import PurePath
from typing import Final

from softcam.errors import ConfigurationError
from softcam.web.http.messages import AnyResponse, Request, Response
from softcam.web.http.ranges import is_unchanged
from softcam.web.http.router import Doc, Handler, Route

_ASSETS: Final[Traversable] = files("softcam.web").joinpath("assets")
_REFERENCE: Final = re.compile(rb'"(?:assets|\.)/([\w.-]+)"')  # in HTML and in JavaScript
_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_FIELD: Final = re.compile(rb"\{\{(\w+)\}\}")
_GZIP: Final = re.compile(r"(?:^|,)\s*(?:gzip|\*)\s*(?!;\s*q=0(?:\.0*)?\s*(?:,|$))(?:;|,|$)")  # in Accept-Encoding
TRANSPORTS: Final = "transports.js"  # the only part of the page with a field to fill in
# No foreign and no inline code: text shown on the page can never be executed.
_POLICY: Final = (
    "default-src 'none'; img-src 'self'{images} blob: data:; media-src 'self' blob:; script-src 'self'; "
    "style-src 'self'; connect-src 'self'{connect}; frame-src 'self'; worker-src 'none'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'self'"
)


def page_doc(summary: str) -> Doc:
    return Doc(summary, "pages", {200: {_TYPES[".html"]: None}})


def page_handler(
    name: str,
    *,
    fill: Mapping[str, str] | None = None,
    connect_origin: str | None = None,
    image_origins: Callable[[Request], Sequence[str]] | None = None,
    assets: Traversable = _ASSETS,
) -> Handler:
    """The handler of one file. Raises ConfigurationError if the file, or one that it refers to, is missing.

    `fill` replaces the file's {{names}} by text that is already escaped. `connect_origin` is an additional origin that
    the page may connect to. `image_origins` returns the additional origins of its images, as seen by the client.
    """
    body = _read(assets, name)
    for reference in _REFERENCE.findall(body):
        _read(assets, reference.decode())
    if fill is not None:  # in one pass: a value may look like a field
        body = _FIELD.sub(lambda field: fill[field[1].decode()].encode("utf-8", "replace"), body)
    digest = hashlib.sha256(body).hexdigest()[:16]

    @cache
    def compressed() -> bytes:
        """Over a slow line the page is there in a third of the time. Not at start: many portals never show it."""
        return gzip.compress(body, mtime=0)

    content_type = _TYPES[PurePath(name).suffix]
    connect = "" if connect_origin is None else f" {connect_origin}"

    def answer(request: Request) -> AnyResponse:
        origins = () if image_origins is None else image_origins(request)
        headers = {
            "Cache-Control": "no-cache",
            "Content-Security-Policy": _POLICY.format(images="".join(f" {each}" for each in origins), connect=connect),
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Vary": "Accept-Encoding",
            "ETag": f'"{digest}"',
        }
        content = body
        if _GZIP.search(request.headers.get("Accept-Encoding", "")):
            headers |= {"Content-Encoding": "gzip", "ETag": f'"{digest}-gzip"'}
            content = compressed()
        if is_unchanged(request.headers, headers["ETag"]):
            return Response(b"", content_type, HTTPStatus.NOT_MODIFIED, headers)
        return Response(content, content_type, headers=headers)

    return answer


def _read(assets: Traversable, name: str) -> bytes:
    try:
        return assets.joinpath(name).read_bytes()
    except OSError as error:
        reason = f"{error.strerror}; the installation is incomplete: install Soft Stream again"
        raise ConfigurationError([f"{assets.joinpath(name)}: {reason}"]) from error


def page_routes(
    image_origins: Callable[[Request], Sequence[str]] | None = None,
    assets: Traversable = _ASSETS,
    *,
    title: str = "Camera",
    file_stem: str = "snapshot",
) -> list[Route]:
    """The page at `/`, the documentation, and the parts of all pages, whose addresses are relative.

    So the portal works under a sub-path. `image_origins` returns the origins of other cameras' images. `file_stem` is
    the start of the names of saved snapshots.
    """
    fill = {"title": escape(title), "file": escape(file_stem)}
    page = page_handler("index.html", fill=fill, image_origins=image_origins, assets=assets)
    names = sorted(file.name for file in assets.iterdir() if PurePath(file.name).suffix in (".css", ".js", ".svg"))
    docs = page_handler("docs.html", fill=fill, assets=assets)
    return [
        Route(("/", "/index.html"), page, doc=page_doc("The page with the live picture and the controls")),
        Route(("/docs",), docs, doc=page_doc("This API description as a page")),
        *(Route((f"/assets/{name}",), page_handler(name, assets=assets)) for name in names if name != TRANSPORTS),
    ]
