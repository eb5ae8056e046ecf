"""The page at `/webrtc`: a WebRTC player if a WHEP URL is configured, otherwise a notice that explains how to get it.

The main page loads the player in a hidden frame when WebRTC is selected, and learns from `transports.js` whether WebRTC
is available.

The player speaks WHEP with the configured media server, directly from the browser; the portal is not involved. A user
name and password in the URL are for clients: the page passes them to everybody who may open it.

Pure functions; the handlers run on the request threads.
"""

import base64
from html import escape
from urllib.parse import SplitResult, parse_qs, quote, unquote, urlsplit

from softcam.web.http.router import Route
from softcam.web.pages import TRANSPORTS, page_doc, page_handler


def webrtc_routes(webrtc_url: str | None, *, title: str = "Camera") -> list[Route]:
    """The page and `transports.js`; `webrtc_url` is a WHEP URL or the URL of MediaMTX's page of the stream.

    `title` is the camera's name, for the title of the player.
    """
    if webrtc_url is None:
        page, summary = page_handler("webrtc.html"), "How to set up WebRTC"
    else:
        fill = {
            "title": escape(title),
            "whep": escape(whep_address(webrtc_url)),
            "authorization": escape(_authorization(webrtc_url)),
        }
        page = page_handler("whep.html", fill=fill, connect_origin=_origin(webrtc_url))
        summary = "The live picture over WebRTC"
    transports = page_handler(TRANSPORTS, fill={"has_webrtc": "no" if webrtc_url is None else "yes"})
    return [Route(("/webrtc",), page, doc=page_doc(summary)), Route((f"/assets/{TRANSPORTS}",), transports)]


def whep_address(url: str) -> str:
    """The URL that receives the offer, without credentials: as configured, or `/whep` below the path of a stream.

    MediaMTX has the endpoint there, and users configure the address of the page that they have open.
    """
    parts = urlsplit(url)
    path = parts.path
    if not _is_endpoint(parts):
        path = path.rstrip("/") + "/whep"
    elif not parts.query:
        path = path.rstrip("/")  # MediaMTX has nothing at `/whep/`
    return f"{_origin(url)}{path}" + (f"?{parts.query}" if parts.query else "")


def _is_endpoint(parts: SplitResult) -> bool:
    """Whether it is the address of an endpoint, and not that of a stream's page.

    So are `/cam0/whep` (MediaMTX), `/api/webrtc?src=cam0` (go2rtc, also inside Frigate and Home Assistant),
    `/rtc/v1/whep/?app=live&stream=cam0` (SRS), `/live/cam0?direction=whep` (OvenMediaEngine) and `/ID/webRTC/play`
    (Cloudflare). `/webrtc/cam0` is MediaMTX behind a proxy.
    """
    folders = parts.path.lower().strip("/").split("/")
    query = parse_qs(parts.query)
    return (
        not {"whep", "api"}.isdisjoint(folders)
        or "webrtc" in folders[1:]
        or "src" in query
        or "whep" in query.get("direction", [])
    )


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
