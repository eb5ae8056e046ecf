"""Translates exceptions of handlers into responses; every error is `{"detail": …}`. Runs on the request threads."""

import json
from dataclasses import replace
from http import HTTPStatus
from typing import Final

from softcam.errors import PortalError
from softcam.web.http.messages import HttpError, Response, json_response

_RETRY_AFTER_S: Final = 2
RETRY_SOON: Final = {"Retry-After": str(_RETRY_AFTER_S)}


def busy_response(detail: str) -> bytes:
    """A whole 503 that closes the connection: the accepting thread sends it where no thread may read the request."""
    body = json.dumps({"detail": detail}, separators=(",", ":")).encode() + b"\n"
    return (
        b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nConnection: close\r\n"
        b"Retry-After: %d\r\nContent-Length: %d\r\n\r\n%s" % (_RETRY_AFTER_S, len(body), body)
    )


BUSY_RESPONSE: Final = busy_response("too many connections at once")

# With the colours of the page, whose style sheet requires the key too.
_UNAUTHORIZED_PAGE: Final = b"""\
<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="dark light"><title>Authentication required</title>
<style>
:root { --background: #0d1215; --panel: #141b1f; --text: #e8eef0; --muted: #9fb1b8; --line: #28343a; --accent: #5cc3dc }
@media (prefers-color-scheme: light) {
  :root { --background: #eef2f3; --panel: #fff; --text: #142025; --muted: #4c5d64; --line: #d5dee2; --accent: #0a6a85 }
}
body { display: grid; place-items: center; min-height: 100vh; margin: 0; background: var(--background);
  color: var(--text); font: 15px/1.45 system-ui, -apple-system, "Segoe UI", sans-serif }
main { box-sizing: border-box; width: min(26rem, 100vw - 2rem); padding: 1.2rem 1.4rem; border: 1px solid var(--line);
  border-radius: .9rem; background: var(--panel) }
h1 { margin: 0; font-size: 1.15rem }
p { margin: .7rem 0 1rem; color: var(--muted) }
a { color: var(--accent) }
</style>
<main><h1>Authentication required</h1>
<p>Reload this page and enter the camera's API key as the password. Any user name is accepted.</p>
<a href="">Reload</a></main>
</html>
"""
_UNAUTHORIZED_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'self'"


def error_response(error: Exception, *, accepts_html: bool = False) -> Response:
    """The response for an exception; 500, without its text, where the exception is not an expected one."""
    status = error.status if isinstance(error, PortalError) else HTTPStatus.INTERNAL_SERVER_ERROR
    if status is HTTPStatus.INTERNAL_SERVER_ERROR:
        return json_response({"detail": "internal server error"}, status)
    if isinstance(error, HttpError):
        headers = error.headers
    else:
        headers = RETRY_SOON if status is HTTPStatus.SERVICE_UNAVAILABLE else {}
    response = json_response({"detail": str(error)}, status, headers)
    if status is HTTPStatus.UNAUTHORIZED and accepts_html:
        # For a person who dismissed the browser's password dialog.
        page_headers = {**response.headers, "Content-Security-Policy": _UNAUTHORIZED_POLICY}
        page_type = "text/html; charset=utf-8"
        return replace(response, body=_UNAUTHORIZED_PAGE, content_type=page_type, headers=page_headers)
    return response
