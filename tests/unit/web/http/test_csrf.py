"""Changes are rejected from pages of other origins and from pages with a rebound host name."""

import socket
from collections.abc import Mapping
from email.message import Message
from http import HTTPStatus
from pathlib import Path

import pytest

from softcam.web.http.auth import AccessControl
from softcam.web.http.csrf import CsrfGuard
from softcam.web.http.messages import HttpError

DIRECT = {"Connection": "keep-alive"}  # as sent by a browser without a proxy


@pytest.fixture
def resolver(tmp_path: Path) -> Path:
    return tmp_path / "resolv.conf"


@pytest.fixture
def access(resolver: Path) -> AccessControl:
    return AccessControl(None, csrf=CsrfGuard(("cam.example.org",), resolver=resolver))


def make_headers(headers: Mapping[str, str]) -> Message:
    message = Message()
    for name, value in headers.items():
        message[name] = value
    return message


def page(address: str, **more: str) -> Message:
    """The headers of a change by a page of the same origin."""
    host = address.partition("://")[2]
    return make_headers(
        {"Host": host, "Origin": address, **DIRECT} | {name.replace("_", "-"): more[name] for name in more}
    )


@pytest.mark.parametrize(
    "address",
    [
        "http://127.0.0.1:18081",
        "http://192.168.1.20",
        "http://[fd00::20]:18081",
        "http://localhost:18081",
        "http://cam.localhost",
        "http://raspberrypi:18081",
        "http://raspberrypi.local:8081",
        "http://RaspberryPi.Local.",
        "http://pi.lan",
        "http://pi.home.arpa",
        "http://cam.example.org:8081",
        "https://cam.elsewhere.example",
    ],
)
def test_private_name_is_allowed(access: AccessControl, address: str) -> None:
    access.reject_cross_origin(page(address))


@pytest.mark.parametrize(
    "address",
    [
        "http://evil.example:18081",
        "http://evil.example",
        "http://evil.example.",
        "http://127.0.0.1.evil.example",
        "http://cam.example.org.evil.example",
        "http://evillocal.example",
        "http://x.cam.example.org",
    ],
)
def test_public_name_is_rejected(access: AccessControl, address: str) -> None:
    with pytest.raises(HttpError, match="CAMERA_HOST_NAMES") as refusal:
        access.reject_cross_origin(page(address))
    assert refusal.value.status is HTTPStatus.FORBIDDEN


@pytest.mark.parametrize(
    "more",
    [
        {"X_Forwarded_Host": "192.168.1.20", "X_Forwarded_For": "192.168.1.7"},
        {"X_Forwarded_Host": "localhost", "X_Forwarded_Proto": "https", "Forwarded": "host=localhost"},
        {"Authorization": "Bearer any", "X_API_Key": "any"},
    ],
)
def test_headers_that_a_page_can_set_allow_nothing(access: AccessControl, more: dict[str, str]) -> None:
    with pytest.raises(HttpError, match="evil"):
        access.reject_cross_origin(page("http://evil.example:18081", **more))


@pytest.mark.parametrize(
    "more",
    [
        {"Connection": "close"},  # nginx by default
        {"Connection": ""},  # nginx with the shipped configuration
        {"Connection": "keep-alive", "Via": "1.1 proxy"},
        {"Connection": "keep-alive", "Sec_Fetch_Site": "same-origin"},  # over TLS
    ],
)
def test_any_name_behind_a_proxy_is_allowed(access: AccessControl, more: dict[str, str]) -> None:
    access.reject_cross_origin(page("http://camera.example.net:8081", **more))


def test_any_name_without_origin_is_allowed(access: AccessControl) -> None:
    access.reject_cross_origin(make_headers({"Host": "pi.fritz.box:18081", **DIRECT}))


def test_any_name_with_a_key_is_allowed(resolver: Path) -> None:
    for keyed in (AccessControl("key"), AccessControl(None, "view")):
        keyed.reject_cross_origin(page("http://pi.example.net:18081"))


def test_name_in_search_domain_is_allowed(
    access: AccessControl, resolver: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "Garden")
    ours = page("http://garden.fritz.box:18081")
    with pytest.raises(HttpError, match=r"garden\.fritz\.box"):
        access.reject_cross_origin(ours)
    resolver.write_text("# made by a program\n\nnameserver 192.168.1.1\nsearch fritz.box tail1.ts.net.\n")
    access.reject_cross_origin(ours)
    access.reject_cross_origin(page("http://garden.tail1.ts.net"))
    with pytest.raises(HttpError, match="evil"):
        access.reject_cross_origin(page("http://evil.fritz.box"))
    monkeypatch.setattr(socket, "gethostname", lambda: "garden.example.net")
    access.reject_cross_origin(page("http://garden.example.net"))
    access.reject_cross_origin(ours)


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "pi.local", "Origin": "http://evil.example"},
        {"Host": "pi.local", "Origin": "null"},
        {"Host": "pi.local", "Sec-Fetch-Site": "cross-site"},
        {"Host": "pi.local:1", "Origin": "http://pi.local:2"},
    ],
)
def test_cross_origin_request_is_rejected(headers: Mapping[str, str]) -> None:
    for access in (AccessControl(None), AccessControl("key")):
        with pytest.raises(HttpError, match="cross-origin request rejected"):
            access.reject_cross_origin(make_headers(headers))
