"""Publishing over HTTP where it is not possible: without an address, and without a camera."""

import json
from typing import Any

import pytest

from softcam.errors import NotSupported
from softcam.web.api.publishing import PublishingApi
from softcam.web.http.messages import AnyResponse, HttpError, Response
from tests.support.raw_http import make_request


def content(response: AnyResponse) -> Any:
    assert isinstance(response, Response)
    return json.loads(response.body)


def test_start_without_an_address_is_not_supported() -> None:
    with pytest.raises(NotSupported, match="rtsp_url: not configured"):
        PublishingApi(None, has_camera=True).start(make_request("/v1/streaming/start", method="POST"))


def test_start_without_a_camera_is_an_error() -> None:
    with pytest.raises(HttpError, match="CAMERA_ENABLED"):
        PublishingApi(None, has_camera=False).start(make_request("/v1/streaming/start", method="POST"))


def test_stop_succeeds_if_nothing_is_published() -> None:
    api = PublishingApi(None, has_camera=True)
    assert content(api.stop(make_request("/v1/streaming/stop", method="POST"))) == {"status": "ok", "streaming": False}
    assert api.status() == {"streaming": False, "publishing": None}
