"""The page at `/webrtc`: a player where an address for WebRTC is set, otherwise what to do about it.

The page with the live picture has the player in a hidden frame when WebRTC is chosen there, and learns from `ways.js`
whether it can be.

The player speaks WHEP with a media server that the setting names, from the viewer's browser; the portal itself has no
part in that. A user and a password in the setting are for viewers: the page hands them on to whoever may open it.
"""

import base64
from html import escape
from urllib.parse import quote, unquote, urlsplit

from softcam.web.http.router import Route
from softcam.web.pages import Page, page_doc

_PARTS = ("webrtc.css", "webrtc.js")


def webrtc_routes(webrtc_url: str | None) -> list[Route]:
    """The page and what it consists of; `webrtc_url` is WHEP's address, or that of the server's own page."""
    if webrtc_url is None:
        page, summary = Page("webrtc.html"), "How to get WebRTC"
    else:
        fill = {"whep": escape(whep_address(webrtc_url)), "authorization": escape(_authorization(webrtc_url))}
        page, summary = Page("whep.html", fill=fill, connect_origin=_origin(webrtc_url)), "The live picture by WebRTC"
    ways = Page("ways.js", fill={"has_webrtc": "no" if webrtc_url is None else "yes"})
    return [
        Route(("/webrtc",), page.answer, doc=page_doc(summary)),
        Route(("/assets/ways.js",), ways.answer),
        *(Route((f"/assets/{name}",), Page(name).answer) for name in _PARTS),
    ]


def whep_address(url: str) -> str:
    """Where the offer is sent: MediaMTX has it at `/whep` below the stream's page. Without user and password."""
    parts = urlsplit(url)
    path = parts.path.rstrip("/")
    if path.rpartition("/")[2] != "whep":
        path += "/whep"
    return f"{_origin(url)}{path}" + (f"?{parts.query}" if parts.query else "")


def _origin(url: str) -> str:
    """Nothing in it can end the rule of a policy that it is put into."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{quote(parts.netloc.rpartition('@')[2], safe='[]:')}"


def _authorization(url: str) -> str:
    parts = urlsplit(url)
    if parts.username is None:
        return ""
    credentials = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return "Basic " + base64.b64encode(credentials.encode()).decode()
