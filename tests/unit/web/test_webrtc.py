"""The page at /webrtc: WHEP address, Content-Security-Policy, and escaping of the URL."""

import base64
import re

import pytest

from softcam.web.http.messages import Response
from softcam.web.http.router import Router
from softcam.web.pages import page_routes
from softcam.web.webrtc import webrtc_routes, whep_address
from tests.support.raw_http import make_request


def answer(path: str, webrtc_url: str | None) -> Response:
    request = make_request(path)
    response = (
        Router([*page_routes(), *webrtc_routes(webrtc_url)]).find("GET", request.path, request.query).handle(request)
    )
    assert isinstance(response, Response)
    return response


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://pi.local:8889/cam", "http://pi.local:8889/cam/whep"),
        ("http://pi.local:8889/cam/", "http://pi.local:8889/cam/whep"),
        ("https://pi.local/cam/whep", "https://pi.local/cam/whep"),
        ("https://pi.local/cam/whep/", "https://pi.local/cam/whep"),
        ("http://pi.local:8889", "http://pi.local:8889/whep"),
        ("http://[::1]:8889/cam?token=a&b=c", "http://[::1]:8889/cam/whep?token=a&b=c"),
        ("http://user:pass@pi.local:8889/cam", "http://pi.local:8889/cam/whep"),
        ("https://pi.local/webrtc/cam0/", "https://pi.local/webrtc/cam0/whep"),
        ("http://pi.local:1984/api/webrtc?src=cam0", "http://pi.local:1984/api/webrtc?src=cam0"),
        ("http://me:it@pi.local:1984/api/webrtc?src=cam0", "http://pi.local:1984/api/webrtc?src=cam0"),
        ("https://pi.local/go2rtc/?src=cam0", "https://pi.local/go2rtc/?src=cam0"),
        ("http://pi.local:5000/api/go2rtc/webrtc?src=cam0", "http://pi.local:5000/api/go2rtc/webrtc?src=cam0"),
        ("http://pi.local/rtc/v1/whep/?app=live&stream=a", "http://pi.local/rtc/v1/whep/?app=live&stream=a"),
        ("http://pi.local:3333/live/cam0?direction=whep", "http://pi.local:3333/live/cam0?direction=whep"),
        ("https://cdn.example/0123/webRTC/play", "https://cdn.example/0123/webRTC/play"),
    ],
)
def test_whep_address_of_a_media_server_path(url: str, address: str) -> None:
    assert whep_address(url) == address


def test_notice_without_url() -> None:
    response = answer("/webrtc", None)
    assert b"MediaMTX" in response.body
    assert b"--webrtc-url" in response.body
    assert b"<script" not in response.body


def test_player_policy() -> None:
    response = answer("/webrtc", "http://user:pass@pi.local:8889/cam")
    policy = dict(rule.split(" ", 1) for rule in response.headers["Content-Security-Policy"].split("; "))
    assert policy["connect-src"] == "'self' http://pi.local:8889"
    assert policy["default-src"] == "'none'"
    page = response.body.decode()
    assert 'data-whep="http://pi.local:8889/cam/whep"' in page
    assert f'data-authorization="Basic {base64.b64encode(b"user:pass").decode()}"' in page
    assert "{{" not in page
    assert "user:pass" not in page
    for path in re.findall(r'(?:src|href)="(assets/webrtc[^"]*)"', page):
        assert answer(f"/{path}", "http://x/").body


def test_url_is_escaped() -> None:
    response = answer("/webrtc", 'http://pi.local;script-src,*/a"><script>x</script>')
    assert "<script>x" not in response.body.decode()
    policy = response.headers["Content-Security-Policy"]
    assert policy.count("script-src ") == 1
    assert "," not in policy


def test_etag_depends_on_url() -> None:
    assert answer("/webrtc", "http://a/").headers["ETag"] != answer("/webrtc", "http://b/").headers["ETag"]


@pytest.mark.parametrize(("url", "word"), [(None, b"no"), ("http://pi.local:8889/cam", b"yes")])
def test_transports_script(url: str | None, word: bytes) -> None:
    response = answer("/assets/transports.js", url)
    assert b'"' + word + b'" === "yes"' in response.body
    assert b"pi.local" not in response.body
    assert b"{{" not in response.body
