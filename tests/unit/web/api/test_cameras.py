"""The URLs of the other cameras, directly and through a proxy."""

import json
from typing import Any

import pytest

from softcam.web.api.cameras import CameraList
from softcam.web.http.messages import Request, Response
from tests.support.raw_http import make_request

TWO = (("Camera 0", 18081), ("Camera 1", 18082))


def asked_by(host: str | None) -> Request:
    return make_request("/v1/cameras", headers={} if host is None else {"Host": host})


def told(neighbours: CameraList, host: str | None) -> list[dict[str, Any]]:
    answer = neighbours.answer(asked_by(host))
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
    assert told(CameraList(TWO, 18081), host) == [
        {"name": "Camera 0", "url": "./", "is_self": True},
        {"name": "Camera 1", "url": url, "is_self": False},
    ]
    assert CameraList(TWO, 18081).image_origins(asked_by(host)) == [url.strip("/")]


@pytest.mark.parametrize("host", [None, "", "pi.local", "pi:x", "[::1", "x; script-src *:80", "a b:80", "pi:65535"])
def test_unknown_address_is_omitted(host: str | None) -> None:
    neighbours = CameraList(TWO, 18081)
    assert [each["name"] for each in told(neighbours, host)] == ["Camera 0"]
    assert neighbours.image_origins(asked_by(host)) == []


def test_configured_urls() -> None:
    neighbours = CameraList((("Door", 18081), ("Garden", "https://garden.example:444/cam/")), 18081)
    assert told(neighbours, "pi:1")[1] == {"name": "Garden", "url": "https://garden.example:444/cam/", "is_self": False}
    assert neighbours.image_origins(asked_by("pi:1")) == ["https://garden.example:444"]


def test_single_camera() -> None:
    assert told(CameraList((), 18081), "pi:18081") == []
