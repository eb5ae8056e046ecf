"""Every built-in preset on the real Picamera2: what libcamera's virtual cameras do not support is left out."""

import pytest

from tests.rig.rig import Rig
from tests.support.http_client import ask
from tests.support.rig_client import start_portal

FLAGS = ("--width", "640", "--height", "360", "--linger", "0.2")


@pytest.mark.parametrize("camera", ["Virtual0", "Virtual1"])
def test_built_in_presets(rig: Rig, camera: str) -> None:
    portal = start_portal(rig, "--camera", camera, *FLAGS)
    built_in = [each["name"] for each in portal.get("/v1/presets").json["presets"]]
    assert len(built_in) >= 7
    with portal.watch() as viewer:
        viewer.wait_for_pictures(1)
        for name in [*built_in, "normal"]:
            opens = portal.status["opens"]
            answer = ask(portal, f"/v1/presets/{name}/apply", method="POST")
            assert answer.status == 200, (name, answer.body, portal.log)
            left_out, limited = (
                {each["field"]: each["reason"] for each in answer.json[kind]} for kind in ("left_out", "limited")
            )
            print(f"{camera}: {name}: left out: {left_out}; limited: {limited}")
            assert all("this camera does not support" in reason or "requires" in reason for reason in left_out.values())
            assert portal.get(f"/v1/presets/{name}").json["in_effect"] is True
            assert portal.status["opens"] <= opens + 1
            # They have a fixed range of frame rates.
            assert portal.status["controls_not_applied"] == [f"fps: {reason}" for reason in limited.values()]
            viewer.wait_for_pictures(3)
        assert viewer.is_connected
    assert portal.get("/v1/presets").json["current"]["look"] == {"name": "normal", "is_modified": False}
    assert "Traceback" not in portal.log
