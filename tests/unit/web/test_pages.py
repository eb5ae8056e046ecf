"""The pages come as files, are kept by browsers only while they are current, and work under any path."""

import re
from http import HTTPStatus

import pytest

from softcam.web.http.messages import Request, Response
from softcam.web.http.router import Router
from softcam.web.pages import Page, page_routes
from softcam.web.webrtc import webrtc_routes
from tests.support.raw_http import Site, make_request

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
def test_ok_the_files(path: str, content_type: str, within: bytes) -> None:
    response = answer(path)
    assert response.status is HTTPStatus.OK
    assert response.content_type == content_type
    assert within in response.body


@pytest.mark.parametrize("path", PATHS)
def test_what_is_shown_can_never_become_code(path: str) -> None:
    headers = answer(path).headers
    policy = dict(rule.split(" ", 1) for rule in headers["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == "'self'"
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"


def test_pictures_of_other_cameras_may_be_shown_and_nothing_else() -> None:
    def others(request: Request) -> list[str]:
        return [f"{request.headers['Host']}:8082", "https://cams.example"]

    route = Router(page_routes(others)).find("GET", "/", {})
    response = route.handle(make_request("/", headers={"Host": "pi"}))
    assert isinstance(response, Response)
    policy = response.headers["Content-Security-Policy"]
    assert "img-src 'self' pi:8082 https://cams.example blob: data:;" in policy
    assert policy.count("cams.example") == 1


@pytest.mark.parametrize("path", ["/", "/webrtc"])
def test_pages_obey_their_own_policy(path: str) -> None:
    """Nothing inline, nothing from elsewhere, and relative addresses: a sub-path of nginx works."""
    page = answer(path).body.decode()
    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", page)
    assert not re.search(r"<script(?![^>]*\ssrc=)", page)
    addresses = re.findall(r'\b(?:src|href)="([^"]*)"', page)
    assert addresses
    assert [address for address in addresses if address.startswith("/") or ":" in address] == []


@pytest.mark.parametrize("path", ["/", "/webrtc"])
def test_what_pages_refer_to_is_there(path: str) -> None:
    page = answer(path).body.decode()
    known = {"/stream.mjpg", "/snapshot.jpg", *PATHS}
    for address in re.findall(r'\b(?:src|href)="([^"?#]*)', page):
        assert "/" + address.removeprefix("./") in known


@pytest.mark.parametrize("form", ["{tag}", "W/{tag}", '"other", {tag}', '"other",W/{tag} ', "*"])
def test_ok_a_copy_that_is_current_is_not_sent_again(form: str) -> None:
    tag = answer("/").headers["ETag"]
    assert re.fullmatch(r'"[0-9a-f]+"', tag)
    response = answer("/", {"If-None-Match": form.format(tag=tag)})
    assert response.status is HTTPStatus.NOT_MODIFIED
    assert response.body == b""
    assert response.headers["ETag"] == tag


@pytest.mark.parametrize("value", ['"other"', "", "no tag", 'W/"other"'])
def test_ok_a_copy_that_is_old_is(value: str) -> None:
    assert answer("/", {"If-None-Match": value}).status is HTTPStatus.OK


def test_each_file_has_a_tag_of_its_own() -> None:
    assert len({answer(path).headers["ETag"] for path in PATHS}) == len(PATHS) - 1  # two of them are one file


def test_fail_a_file_that_is_not_there() -> None:
    with pytest.raises(FileNotFoundError):
        Page("absent.html")


def test_over_the_wire() -> None:
    with Site(page_routes()) as site, site.client() as client:
        page = client.ask("/?cacheBust=1")
        assert page.status == 200
        assert client.ask("/", headers={"If-None-Match": page.headers["ETag"]}).status == 304
        assert client.ask("/", method="HEAD").headers["Content-Length"] == str(len(page.body))
        for escape in ("/assets/../server.py", "/assets/..%2fserver.py", "/assets/", "/assets/page.html"):
            assert client.ask(escape).status == 404
