"""The page at `/webrtc`: a WebRTC player if a WHEP URL is configured, otherwise a notice that explains how to get it.

The main page loads the player in a hidden frame when WebRTC is selected, and learns from `transports.js` whether WebRTC
is available.

The player speaks WHEP with the configured media server, directly from the browser; the portal is not involved. A user
name and password in the URL are for clients: the page passes them to everybody who may open it.

Pure functions; the handlers run on the request threads.
"""

import base64
from html import escape
from urllib.parse import quote, unquote, urlsplit

from softcam.web.http.router import Route
from softcam.web.pages import TRANSPORTS, page_doc, page_handler


def webrtc_routes(webrtc_url: str | None) -> list[Route]:
    """The page and `transports.js`; `webrtc_url` is a WHEP URL or the URL of the media server's page."""
    if webrtc_url is None:
        page, summary = page_handler("webrtc.html"), "How to set up WebRTC"
    else:
        fill = {"whep": escape(whep_address(webrtc_url)), "authorization": escape(_authorization(webrtc_url))}
        page = page_handler("whep.html", fill=fill, connect_origin=_origin(webrtc_url))
        summary = "The live picture over WebRTC"
    transports = page_handler(TRANSPORTS, fill={"has_webrtc": "no" if webrtc_url is None else "yes"})
    return [Route(("/webrtc",), page, doc=page_doc(summary)), Route((f"/assets/{TRANSPORTS}",), transports)]


def whep_address(url: str) -> str:
    """The URL that receives the offer, without credentials: MediaMTX has it at `/whep` below the stream's page."""
    parts = urlsplit(url)
    path = parts.path.rstrip("/").removesuffix("/whep") + "/whep"
    return f"{_origin(url)}{path}" + (f"?{parts.query}" if parts.query else "")


def _origin(url: str) -> str:
    """The origin, quoted so that it cannot end the directive of the policy that it is inserted into."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{quote(parts.netloc.rpartition('@')[2], safe='[]:')}"


def _authorization(url: str) -> str:
    parts = urlsplit(url)
    if parts.username is None:
        return ""
    credentials = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return "Basic " + base64.b64encode(credentials.encode()).decode()
