"""Presets of a running portal: applied under a connected client, saved, and kept over a crash."""

import signal
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

from tests.conftest import Portal
from tests.support.control_client import SMALL, eventually
from tests.support.http_client import StreamClient, ask, post, status_of


def apply(portal: Portal, name: str) -> Mapping[str, Any]:
    answer = ask(portal, f"/v1/presets/{quote(name, safe='')}/apply", method="POST")
    assert answer.status == 200, answer.body
    result: Mapping[str, Any] = answer.json
    return result


def test_presets(start_portal: Callable[..., Portal]) -> None:
    flags = (*SMALL, "--linger", "0.1")
    portal = start_portal(*flags)
    assert ask(portal, "/camera/start?preset=none", method="POST").status == 404
    assert status_of(portal)["opens"] == 0
    started = ask(portal, "/camera/start?preset=sports", method="POST").json
    assert (started["held"], started["preset"], started["left_out"], started["note"]) == (True, "sports", [], None)
    with StreamClient(portal) as client:
        client.next()
        eventually(portal, lambda status: status["exposure_us"] == 2000 and 45 < status["fps"] < 55)
        assert post(portal, "/v1/camera/image_processing", {"contrast": 1.5}).status == 200
        current = ask(portal, "/v1/presets").json["current"]
        assert current["look"] == {"name": "sports", "is_modified": True}
        saved = ask(portal, f"/v1/presets/{quote('Ski / Übung', safe='')}", method="PUT")
        assert saved.json["preset"]["controls"]["image_processing"]["contrast"] == 1.5
        assert apply(portal, "3d-print") == {
            "status": "ok", "preset": "3d-print", "left_out": [], "limited": [], "note": None,
        }  # fmt: skip
        eventually(portal, lambda status: 13 < status["fps"] < 17)
        for _ in range(3):
            assert not client.next().is_placeholder
    assert status_of(portal)["opens"] == 2
    portal.wait_for_log("Preset 'sports' applied$")
    portal.stop(signal.SIGKILL)

    again = start_portal(*flags)
    assert ask(again, "/v1/presets").json["current"]["look"] == {"name": "3d-print", "is_modified": False}
    assert apply(again, "Ski / Übung")["note"] == "applied when the camera opens"
    assert ask(again, "/camera/start", method="POST").status == 200
    eventually(again, lambda status: status["exposure_us"] == 2000)
