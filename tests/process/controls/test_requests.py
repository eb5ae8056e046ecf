"""Requests that change controls: invalid values and bodies, access, holding the camera open."""

import base64
import json
from collections.abc import Callable, Mapping

import pytest

from tests.conftest import Portal
from tests.support.control_client import SMALL, change
from tests.support.http_client import StreamClient, ask, post, status_of, wait_for_status

Start = Callable[..., Portal]


def test_invalid_field_rejects_all_fields(held: Portal) -> None:
    change(held, "image_processing", {"brightness": 0.1})
    refused = post(held, "/v1/camera/image_processing", {"brightness": 0.5, "contrast": 99})
    assert refused.status == 400
    assert refused.detail == "contrast: must be a number from 0 to 32"
    fields = ask(held, "/v1/camera/controls").json["controls"]["image_processing"]["fields"]
    assert (fields["brightness"]["value"], fields["contrast"]["is_set"]) == (0.1, False)


def test_value_beyond_camera_range(held: Portal) -> None:
    refused = post(held, "/v1/camera/manual_exposure", {"exposure_us": 500_000_000})
    assert refused.status == 409
    assert refused.detail == "exposure_us: this camera supports 13 to 112015096"
    assert status_of(held)["auto_exposure"] is True


@pytest.mark.parametrize(
    ("body", "status", "detail"),
    [
        (b"", 400, "body: must be valid JSON"),
        (b"{", 400, "body: must be valid JSON"),
        (b"[]", 400, "must be a JSON object"),
        (b'{"enabled": NaN}', 400, "body: must be valid JSON, which does not have NaN"),
        (b'{"enabled": true, "enabled": false}', 400, "enabled: must be present at most once"),
        (b'{"enabled": true, "foo": 1}', 400, "'foo': unknown field"),
        (b"\xff", 400, "body: must be valid JSON"),
        (b"[" * 60_000, 400, "body: must be valid JSON"),
        (b" " * 70_000, 413, "65536"),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_invalid_bodies(portal: Portal, body: bytes, status: int, detail: str) -> None:
    headers = {"Content-Type": "application/json"}
    answer = ask(portal, "/v1/camera/awb", method="POST", headers=headers, body=body)
    assert answer.status == status
    assert detail in answer.detail


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, 200),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "http://HOST"}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
        ({"Origin": "https://cam.example", "X-Forwarded-Host": "cam.example"}, 200),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),
        ({"Origin": "http://evil.example:1", "Host": "evil.example:1", "Connection": "keep-alive"}, 403),
        ({"Origin": "http://pi.local:1", "Host": "pi.local:1", "Connection": "keep-alive"}, 200),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
        ({"Content-Type": "application/json; charset=utf-8"}, 200),
    ],
)
def test_cross_origin_requests(portal: Portal, headers: Mapping[str, str], expected: int) -> None:
    host = portal.url.removeprefix("http://")
    sent = {"Content-Type": "application/json"} | {name: text.replace("HOST", host) for name, text in headers.items()}
    answer = ask(portal, "/v1/camera/awb", method="POST", headers=sent, body=b'{"enabled": true}')
    assert answer.status == expected, answer.body
    if expected != 200:
        assert answer.detail


def test_view_key_is_read_only(start_portal: Start) -> None:
    portal = start_portal(*SMALL, environment={"CAMERA_API_KEY": "change", "CAMERA_VIEW_KEY": "look"})
    body, json_type = json.dumps({"mode": "auto"}).encode(), {"Content-Type": "application/json"}

    def status(method: str, path: str, headers: Mapping[str, str]) -> int:
        return ask(portal, path, method=method, headers=headers, body=body if method == "POST" else None).status

    basic = base64.b64encode(b"anyone:look").decode()
    for look in ({"X-API-Key": "look"}, {"Authorization": "Bearer look"}, {"Authorization": f"Basic {basic}"}):
        assert status("GET", "/v1/camera/controls", look) == 200
        assert status("GET", "/snapshot.jpg", look) == 200
        assert status("POST", "/v1/camera/autofocus_mode", look | json_type) == 403
        assert status("POST", "/camera/start", look | json_type) == 403
        assert status("DELETE", "/v1/camera/controls", look) == 403
        taken = ask(portal, "/v1/camera/snapshot", method="POST", headers=look)
        assert taken.status == 200
    assert status("POST", "/v1/camera/autofocus_mode", {"X-API-Key": "change"} | json_type) == 200
    assert status("POST", "/v1/camera/autofocus_mode", json_type) == 401
    assert status("GET", "/openapi.json", {}) == 401
    assert status("GET", "/health", {}) == 200


def test_start_and_stop_hold_camera(portal: Portal) -> None:
    assert ask(portal, "/camera/start", method="POST").json == {"status": "ok", "held": True, "state": "open"}
    assert ask(portal, "/camera/start", method="POST").json["held"] is True
    assert [one["kind"] for one in status_of(portal)["held_by"]] == ["hold"]
    with StreamClient(portal) as client:
        client.next()
        assert ask(portal, "/camera/stop", method="POST").json["held"] is False
        assert ask(portal, "/camera/stop", method="POST").status == 200
        for _ in range(10):
            client.next()
    wait_for_status(portal, state="closed")
