"""The URLs of the other cameras, directly and through a proxy."""

import json
from typing import Any

import pytest

from softcam.web.api.cameras import CamerasApi
from softcam.web.http.messages import Request, Response
from tests.support.raw_http import make_request

TWO = (("Camera 0", 18081), ("Camera 1", 18082))


def asked_by(host: str | None) -> Request:
    return make_request("/v1/cameras", headers={} if host is None else {"Host": host})


def listed(api: CamerasApi, host: str | None) -> list[dict[str, Any]]:
    answer = api.get_list(asked_by(host))
    assert isinstance(answer, Response)
    cameras: list[dict[str, Any]] = json.loads(answer.body)["cameras"]
    return cameras


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1:18081", "//127.0.0.1:18082/"),
        ("pi.local:8081", "//pi.local:8082/"),
        ("[fe80::1]:8081", "//[fe80::1]:8082/"),
    ],
)
def test_port_offset(host: str, url: str) -> None:
    assert listed(CamerasApi(lambda: TWO, 18081), host) == [
        {"name": "Camera 0", "url": "./", "is_self": True},
        {"name": "Camera 1", "url": url, "is_self": False},
    ]
    assert CamerasApi(lambda: TWO, 18081).image_origins(asked_by(host)) == [url.strip("/")]


def test_host_that_a_proxy_reports() -> None:
    headers = {"Host": "127.0.0.1:18081", "X-Forwarded-Host": "pi.local:8081"}
    request = make_request("/v1/cameras", headers=headers, is_local=True)
    assert CamerasApi(lambda: TWO, 18081).image_origins(request) == ["pi.local:8082"]


@pytest.mark.parametrize("host", [None, "", "pi.local", "pi:x", "[::1", "x; script-src *:80", "a b:80", "pi:65535"])
def test_unknown_address_is_omitted(host: str | None) -> None:
    api = CamerasApi(lambda: TWO, 18081)
    assert [each["name"] for each in listed(api, host)] == ["Camera 0"]
    assert api.image_origins(asked_by(host)) == []


def test_configured_urls() -> None:
    api = CamerasApi(lambda: (("Door", 18081), ("Garden", "https://garden.example:444/cam/")), 18081)
    assert listed(api, "pi:1")[1] == {
        "name": "Garden",
        "url": "https://garden.example:444/cam/",
        "is_self": False,
    }
    assert api.image_origins(asked_by("pi:1")) == ["https://garden.example:444"]


def test_single_camera() -> None:
    assert listed(CamerasApi(tuple, 18081), "pi:18081") == []
