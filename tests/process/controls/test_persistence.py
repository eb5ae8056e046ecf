"""Controls over restarts, reopenings and failures of the camera, and with a disabled one."""

import json
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Portal
from tests.support.control_client import SMALL, change, eventually, picture_of
from tests.support.http_client import StreamClient, ask, post, size_of, status_of
from tests.support.small_disk import small_disk

Start = Callable[..., Portal]


def test_controls_persist(start_portal: Start) -> None:
    portal = start_portal(*SMALL, "--linger", "0.1")
    change(portal, "manual_exposure", {"exposure_us": 7000, "gain": 4.0})
    change(portal, "transform", {"hflip": True})
    change(portal, "lens_position", {"position": 3.5})
    assert status_of(portal)["state"] == "closed"
    for _ in range(2):
        assert ask(portal, "/snapshot.jpg").status == 200
        portal.stop()
        portal = start_portal(*SMALL, "--linger", "0.1")
        assert ask(portal, "/camera/start", method="POST").status == 200
        eventually(portal, lambda status: (status["exposure_us"], status["lens_position"]) == (7000, 3.5))
        assert status_of(portal)["transform"]["hflip"] is True
    assert ask(portal, "/v1/camera/controls", method="DELETE").status == 200
    portal.stop()
    portal = start_portal(*SMALL)
    assert status_of(portal)["transform"]["hflip"] is False


def test_frozen_exposure_persists(start_portal: Start, faults: Path) -> None:
    held = start_portal(*SMALL, "--pattern-faults", str(faults))
    assert ask(held, "/camera/start", method="POST").status == 200
    picture_of(held)
    before = status_of(held)
    change(held, "auto_exposure", {"enabled": False})
    change(held, "awb", {"enabled": False})
    faults.write_text("dark")
    eventually(held, lambda status: status["lux"] == 1.0)
    after = status_of(held)
    assert after["exposure_us"] == pytest.approx(before["exposure_us"], rel=0.05)
    held.stop()
    again = start_portal(*SMALL, "--pattern-faults", str(faults))
    assert ask(again, "/camera/start", method="POST").status == 200
    eventually(again, lambda status: status["exposure_us"] == after["exposure_us"])
    eventually(again, lambda status: status["colour_gains"] == pytest.approx(after["colour_gains"], rel=0.01))


def test_sigkill_loses_no_controls(start_portal: Start) -> None:
    for number in range(3):
        portal = start_portal(*SMALL)
        change(portal, "lens_position", {"position": number + 0.5})
        portal.stop(signal.SIGKILL)
        again = start_portal(*SMALL)
        fields = ask(again, "/v1/camera/controls").json["controls"]["lens_position"]["fields"]
        assert fields["position"]["value"] == number + 0.5
        again.stop()


def test_state_that_breaks_start_is_quarantined(start_portal: Start, faults: Path, tmp_path: Path) -> None:
    flags = (*SMALL, "--pattern-faults", str(faults), "--state-dir", str(tmp_path / "kept"))
    portal = start_portal(*flags)
    change(portal, "transform", {"hflip": True})
    portal.stop()
    faults.write_text("refuse")  # from now on it does not open with flips
    portal = start_portal(*flags)
    assert ask(portal, "/snapshot.jpg").status == 200
    status = status_of(portal)
    assert "does not start mirrored" in status["controls_set_aside"]
    assert status["transform"]["hflip"] is False
    portal.wait_for_log("Saved controls moved to .*controls-pattern.json.bad")
    assert json.loads((tmp_path / "kept/controls-pattern.json.bad").read_text())["asked"]["transform"]["hflip"] is True
    portal.stop()
    assert ask(start_portal(*flags), "/snapshot.jpg").status == 200


def test_unwritable_state_directory(start_portal: Start, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    portal = start_portal(*SMALL, "--state-dir", str(tmp_path / "file"))
    change(portal, "lens_position", {"position": 2.0})
    assert str(tmp_path / "file") in status_of(portal)["controls_not_kept"]


def test_full_disk(start_portal: Start, tmp_path: Path) -> None:
    """Whatever is set while the disk is full is in effect, the response says that it is not saved, and it is later."""
    with small_disk(tmp_path / "state") as disk:
        flags = (*SMALL, "--state-dir", str(disk.folder), "--recordings", str(tmp_path / "recordings"))
        portal = start_portal(*flags)
        change(portal, "lens_position", {"position": 2.0})
        disk.fill(portal)
        reason = "lost with the next restart: .*/state/{}-pattern.json: .*; saving is retried"
        for position in (3.0, 4.0):
            note = change(portal, "lens_position", {"position": position})["note"]
            assert re.fullmatch(reason.format("controls"), note)
        note = ask(portal, "/v1/presets/mine", method="PUT").json["note"]
        assert re.fullmatch(reason.format("presets"), note)
        note = post(portal, "/v1/recordings/start", {}).json["note"]
        assert re.fullmatch("unknown to the next start .*/state/recordings-pattern.json: .*; saving is retried", note)
        status = status_of(portal)
        assert status["lens_position"] == 4.0
        assert None not in (
            status["controls_not_kept"],
            status["presets_not_kept"],
            status["recording"]["not_kept"],
        )
        disk.empty(portal)
        for line in ("Controls are saved again", "Presets are saved again", "A restart will resume what is recorded"):
            portal.wait_for_log(line)
        for content in ("controls", "presets"):
            assert portal.log.count(f"Failed to save {content}") == 1
        status = status_of(portal)
        assert status["controls_not_kept"] is status["presets_not_kept"] is status["recording"]["not_kept"] is None
        assert change(portal, "lens_position", {"position": 4.0}) == {"status": "ok", "position": 4.0}
        portal.stop(signal.SIGKILL)
        portal = start_portal(*flags)
        portal.wait_for_log("Video recording resumed")
        assert ask(portal, "/v1/presets/mine").status == 200
        assert status_of(portal)["lens_position"] == 4.0
        assert portal.stop() == 0


def test_rejected_change_is_reverted(held: Portal, faults: Path) -> None:
    with StreamClient(held) as client:
        client.next()
        faults.write_text("refuse")
        refused = post(held, "/v1/camera/transform", {"vflip": True})
        assert refused.status == 503
        assert "does not start mirrored" in refused.detail
        assert status_of(held)["transform"]["vflip"] is False
        for _ in range(10):
            client.next()
    assert status_of(held)["controls_set_aside"] is None


def test_clients_stay_connected_while_reopening(held: Portal) -> None:
    opens = status_of(held)["opens"]
    with StreamClient(held) as client:
        client.next()
        for name, content, size in (
            ("transform", {"hflip": True}, (640, 360)),
            ("hdr", {"mode": "sensor"}, (640, 360)),
            ("stream", {"width": 320, "height": 240}, (320, 240)),
        ):
            change(held, name, content)
            changed_s = time.time()
            while (part := client.next()).timestamp_s < changed_s:
                pass
            assert size_of(part.jpeg) == size
            assert not part.is_placeholder
    assert status_of(held)["opens"] == opens + 3


def test_camera_disabled(start_portal: Start, tmp_path: Path) -> None:
    flags = ("--state-dir", str(tmp_path))
    portal = start_portal(*flags, environment={"CAMERA_ENABLED": "0"})
    for path in ("/", "/docs", "/openapi.json", "/health", "/v1/camera/status", "/webrtc", "/v1/camera/controls"):
        assert ask(portal, path).status == 200, path
    for path in ("/snapshot.jpg", "/snapshot.jpg?format=dng", "/stream.mjpg", "/stream.mp4"):
        answer = ask(portal, path)
        assert answer.status == 503
        assert "Retry-After" not in answer.headers, "retrying is useless"
        assert "CAMERA_ENABLED=0" in answer.detail
    # As with a closed camera.
    change(portal, "image_processing", {"brightness": 0.5})
    change(portal, "transform", {"rotation": 90})
    assert status_of(portal)["transform"]["rotation"] == 90
    assert ask(portal, "/camera/stop", method="POST").json == {"status": "ok", "held": False, "state": "closed"}
    for path, content in (("/camera/start", None), ("/v1/camera/autofocus", {"trigger": True})):
        answer = ask(portal, path, method="POST") if content is None else post(portal, path, content)
        assert answer.status == 503
        assert "Retry-After" not in answer.headers
        assert "CAMERA_ENABLED=0" in answer.detail
    portal.stop()
    again = start_portal(*flags, environment={"CAMERA_ENABLED": "0"})
    assert (
        ask(again, "/v1/camera/controls").json["controls"]["image_processing"]["fields"]["brightness"]["value"] == 0.5
    )
    assert ask(again, "/v1/camera/controls", method="DELETE").status == 200
