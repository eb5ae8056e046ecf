"""The pages: files, caching, Content-Security-Policy, and relative addresses."""

import gzip
import re
import shutil
from http import HTTPStatus
from pathlib import Path

import pytest

import softcam.web
from softcam.errors import ConfigurationError
from softcam.web.http.messages import Request, Response
from softcam.web.http.router import Router
from softcam.web.pages import page_routes
from softcam.web.webrtc import webrtc_routes
from tests.support.raw_http import Site, make_request

ASSETS = Path(softcam.web.__file__).parent / "assets"
PATHS = ("/", "/index.html", "/assets/page.css", "/assets/page.js", "/assets/icon.svg", "/webrtc")


def answer(path: str, headers: dict[str, str] | None = None) -> Response:
    request = make_request(path, headers=headers)
    response = Router([*page_routes(), *webrtc_routes(None)]).find("GET", request.path, request.query).handle(request)
    assert isinstance(response, Response)
    return response


@pytest.mark.parametrize(
    ("path", "content_type", "within"),
    [
        ("/", "text/html; charset=utf-8", b"<!doctype html>"),
        ("/index.html", "text/html; charset=utf-8", b"<!doctype html>"),
        ("/assets/page.css", "text/css; charset=utf-8", b"{"),
        ("/assets/page.js", "text/javascript; charset=utf-8", b"import { Controls }"),
        ("/assets/icon.svg", "image/svg+xml", b"<svg"),
        ("/webrtc", "text/html; charset=utf-8", b"MediaMTX"),
    ],
)
def test_files_of_the_page(path: str, content_type: str, within: bytes) -> None:
    response = answer(path)
    assert response.status is HTTPStatus.OK
    assert response.content_type == content_type
    assert within in response.body


@pytest.mark.parametrize(
    ("accepted", "is_compressed"),
    [
        ("gzip, deflate, br, zstd", True),
        ("br;q=1.0, gzip;q=0.8, *;q=0.1", True),
        ("*", True),
        ("", False),
        ("identity", False),
        ("gzip;q=0", False),
        ("deflate, gzip; q=0.0", False),
        ("gzip-like", False),
    ],
)
def test_compression(accepted: str, is_compressed: bool) -> None:
    plain, response = answer("/assets/page.js"), answer("/assets/page.js", {"Accept-Encoding": accepted})
    assert (response.headers.get("Content-Encoding") == "gzip") is is_compressed
    assert (gzip.decompress(response.body) if is_compressed else response.body) == plain.body
    assert (response.headers["ETag"] != plain.headers["ETag"]) is is_compressed
    assert response.headers["Vary"] == "Accept-Encoding"
    again = answer("/assets/page.js", {"Accept-Encoding": accepted, "If-None-Match": response.headers["ETag"]})
    assert again.status is HTTPStatus.NOT_MODIFIED


@pytest.mark.parametrize("path", PATHS)
def test_content_security_policy(path: str) -> None:
    headers = answer(path).headers
    policy = dict(rule.split(" ", 1) for rule in headers["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == "'self'"
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"


def test_policy_allows_images_of_other_cameras() -> None:
    def others(request: Request) -> list[str]:
        return [f"{request.headers['Host']}:8082", "https://cams.example"]

    route = Router(page_routes(others)).find("GET", "/", {})
    response = route.handle(make_request("/", headers={"Host": "pi"}))
    assert isinstance(response, Response)
    policy = response.headers["Content-Security-Policy"]
    assert "img-src 'self' pi:8082 https://cams.example blob: data:;" in policy
    assert policy.count("cams.example") == 1


def test_name_is_escaped() -> None:
    title = "</title><script>'\"&{{file}}"
    routes = [*page_routes(title=title, file_stem='a"b'), *webrtc_routes("http://pi:8889/cam", title=title)]
    escaped = "&lt;/title&gt;&lt;script&gt;&#x27;&quot;&amp;{{file}}"
    for path, count in (("/", 2), ("/docs", 1), ("/webrtc", 1)):
        response = Router(routes).find("GET", path, {}).handle(make_request(path))
        assert isinstance(response, Response)
        page = response.body.decode()
        assert f"<title>{escaped}" in page
        assert page.count(escaped) == count
        assert "</title><script>" not in page
        if path == "/":
            assert f'<h1 id="name">{escaped}</h1>' in page
            assert 'download="a&quot;b.jpg"' in page


@pytest.mark.parametrize("path", ["/", "/webrtc"])
def test_pages_follow_their_policy(path: str) -> None:
    """Nothing inline, nothing from other origins, and relative addresses, so that a sub-path works."""
    page = answer(path).body.decode()
    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", page)
    assert not re.search(r"<script(?![^>]*\ssrc=)", page)
    addresses = re.findall(r'\b(?:src|href)="([^"]*)"', page)
    assert addresses
    assert [address for address in addresses if address.startswith("/") or ":" in address] == []


@pytest.mark.parametrize("path", ["/", "/webrtc"])
def test_referenced_files_exist(path: str) -> None:
    page = answer(path).body.decode()
    known = {"/stream.mjpg", "/snapshot.jpg", *PATHS}
    for address in re.findall(r'\b(?:src|href)="([^"?#]*)', page):
        assert "/" + address.removeprefix("./") in known


@pytest.mark.parametrize("form", ["{tag}", "W/{tag}", '"other", {tag}', '"other",W/{tag} ', "*"])
def test_file_is_not_sent_again(form: str) -> None:
    tag = answer("/").headers["ETag"]
    assert re.fullmatch(r'"[0-9a-f]+"', tag)
    response = answer("/", {"If-None-Match": form.format(tag=tag)})
    assert response.status is HTTPStatus.NOT_MODIFIED
    assert response.body == b""
    assert response.headers["ETag"] == tag


@pytest.mark.parametrize("value", ['"other"', "", "no tag", 'W/"other"'])
def test_changed_file_is_sent(value: str) -> None:
    assert answer("/", {"If-None-Match": value}).status is HTTPStatus.OK


def test_distinct_etags() -> None:
    assert len({answer(path).headers["ETag"] for path in PATHS}) == len(PATHS) - 1  # two of them are one file


def test_page_over_http() -> None:
    with Site(page_routes()) as site, site.client() as client:
        page = client.ask("/?cacheBust=1")
        assert page.status == 200
        assert client.ask("/", headers={"If-None-Match": page.headers["ETag"]}).status == 304
        assert client.ask("/", method="HEAD").headers["Content-Length"] == str(len(page.body))
        for escape in ("/assets/../server.py", "/assets/..%2fserver.py", "/assets/", "/assets/page.html"):
            assert client.ask(escape).status == 404


@pytest.mark.parametrize("missing", ["index.html", "page.css", "dom.js", "docs.js"])
def test_incomplete_installation(tmp_path: Path, missing: str) -> None:
    assets = tmp_path / "assets"
    shutil.copytree(ASSETS, assets)
    assert len(page_routes(assets=assets)) == len(page_routes())
    (assets / missing).unlink()
    with pytest.raises(ConfigurationError, match=f"{missing}: .*the installation is incomplete") as caught:
        page_routes(assets=assets)
    assert caught.value.exit_code == 78
