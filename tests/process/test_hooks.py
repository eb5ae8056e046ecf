"""Tests of hooks in a running portal: the supplied hooks, and a user's hook that fails."""

import shutil
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg

from tests.conftest import PROJECT, Portal
from tests.support.http_client import StreamClient, ask, decode, post, status_of
from tests.support.timeouts import PATIENCE_S

SMALL = ("--width", "320", "--height", "180", "--linger", "0")
Start = Callable[..., Portal]


def a_picture(portal: Portal) -> Any:
    """The RGB pixels of a streamed frame."""
    with StreamClient(portal) as viewer:
        for _ in range(5):
            part = viewer.next()
    return simplejpeg.decode_jpeg(part.jpeg, "RGB")


def test_timestamp_on_streams_only(start_portal: Start) -> None:
    portal = start_portal(*SMALL, "--hook", "integrations.hooks.stamp:stamp", environment={"PYTHONPATH": str(PROJECT)})
    shown = a_picture(portal)
    corner = shown[-12:, 4:80]
    assert corner.max() > 180, "letters"
    assert np.median(corner) < 100, "on a dark background"
    snapshot = simplejpeg.decode_jpeg(ask(portal, "/snapshot.jpg?quality=95").body, "RGB")
    assert np.abs(snapshot[-12:, 4:80].astype(int) - corner).mean() > 20
    status = status_of(portal)["hook"]
    assert status["failures"] == 0, status
    assert status["name"] == "integrations.hooks.stamp:stamp"


def test_motion_starts_recording_without_clients(start_portal: Start, tmp_path: Path) -> None:
    folder = tmp_path / "recordings"
    portal = start_portal(
        *SMALL,
        "--recordings", str(folder), "--recordings-preroll", "1", "--hook", "integrations.hooks.motion:watch",
        environment={"MOTION_SECONDS": "1", "MOTION_SHARE": "0.001"},
    )  # fmt: skip
    name = portal.wait_for_log(r"Motion detected, recording (\S+\.mp4)")[1]
    portal.wait_for_log("Video recording ended: 1 file,")
    assert (folder / name).stat().st_size > 10_000
    status = status_of(portal)
    assert (status["viewers"], status["hook"]["failures"]) == (0, 0)
    assert portal.stop() == 0
    assert "is not recorded" not in portal.log


def test_motion_ignores_lamp(start_portal: Start, faults: Path) -> None:
    """The lamp is switched off and on; the exposure follows each time."""
    portal = start_portal(
        *SMALL, "--pattern-faults", str(faults), "--hook", "integrations.hooks.motion:watch",
        environment={"MOTION_SHARE": "0.2"},
    )  # fmt: skip
    with StreamClient(portal) as viewer:
        for words in ("", "dark", ""):
            faults.write_text(words)
            shown = [decode(viewer.next().jpeg).mean() for _ in range(80)]
            if words:
                assert min(shown) < 0.5 * shown[0], "it is dark"
                assert shown[-1] > 1.2 * min(shown), "the exposure has followed"
    assert status_of(portal)["hook"]["failures"] == 0
    assert "Motion detected" not in portal.log


def test_motion_logs_why_recording_failed(start_portal: Start) -> None:
    portal = start_portal(*SMALL, "--hook", "integrations.hooks.motion:watch", environment={"MOTION_SHARE": "0.001"})
    with StreamClient(portal) as viewer:
        portal.wait_for_log("Motion detected, but recording failed: .*CAMERA_RECORDINGS")
        viewer.next()
    assert status_of(portal)["hook"]["failures"] == 0


def test_motion_uses_configured_portal(start_portal: Start, tmp_path: Path) -> None:
    recording = start_portal(*SMALL, "--recordings", str(tmp_path / "recordings"), "--api-key", "a-key-for-the-test")
    watching = start_portal(
        *SMALL,
        "--hook", "integrations.hooks.motion:watch",
        environment={
            "MOTION_PORTAL": recording.url, "MOTION_SECONDS": "1", "MOTION_SHARE": "0.001",
            "CAMERA_API_KEY": "a-key-for-the-test",
        },
    )  # fmt: skip
    request = urllib.request.Request(f"{watching.url}/stream.mjpg", headers={"X-API-Key": "a-key-for-the-test"})
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as stream:
        assert stream.read(1)
        name = watching.wait_for_log(r"Motion detected, recording (\S+)")[1]
    recording.wait_for_log(f"Recording {name}")


def test_hanging_and_failing_hook(start_portal: Start, tmp_path: Path) -> None:
    (tmp_path / "wild.py").write_text(
        "import time\n"
        "calls = 0\n"
        "def hook(image, metadata):\n"
        "    global calls\n"
        "    calls += 1\n"
        "    if calls == 10:\n"
        "        time.sleep(3600)\n"
        "    if calls % 2:\n"
        "        raise RuntimeError('wild')\n"
        "    return image[:5]\n"
    )
    portal = start_portal(*SMALL, "--hook", "wild:hook", environment={"PYTHONPATH": str(tmp_path)})
    with StreamClient(portal) as viewer:
        portal.wait_for_log("bypassing it")
        before = status_of(portal)["frames"]
        for _ in range(40):
            viewer.next()
        status = status_of(portal)
        assert status["frames"] > before + 20
        assert status["hook"]["failures"] == 9
        assert status["hook"]["calls"] == 10
    assert portal.stop() == 0
    assert portal.log.count("Traceback") == 1, "only the first failure is logged with a traceback"


@pytest.mark.parametrize(
    ("flags", "code"),
    [((), 78), (("--check",), 78), (("--hook", "NAME"), 2), (("--check", "--hook", "NAME"), 2)],
)
def test_unloadable_hook_is_a_configuration_error(start_portal: Start, flags: tuple[str, ...], code: int) -> None:
    """Exit code and output; `tests/unit/streaming/test_hook.py` has all reasons."""
    name = "json:nothing"
    flags = tuple(flag.replace("NAME", name) for flag in flags)
    portal = start_portal(*flags, environment={"CAMERA_HOOK": name})
    assert portal.wait() == code
    assert f"{'--hook' if code == 2 else 'CAMERA_HOOK'} {name!r}: must be a function" in portal.log
    assert "AttributeError" in portal.log
    assert "Traceback" not in portal.log


UNENCODABLE = """
def fail(*_):
    raise OSError("cannot read \\udce4\\ud800.txt\\0\\x1b[31m")
"""


def test_error_that_is_no_text(start_portal: Start, tmp_path: Path) -> None:
    """The name of a file in Latin-1, as an error quotes it, and control characters: nothing that shows it fails.

    The same with the state folder and its files.
    """
    (tmp_path / "latin.py").write_text(UNENCODABLE)
    home = tmp_path / "n\udce9"
    (home / "soft-stream").mkdir(parents=True)
    (home / "soft-stream/controls-pattern.json").write_text('{"version": 1, "asked": {"\\udfff": {}}, "held": {}}')
    (home / "soft-stream/presets-pattern.json").write_bytes(b"\xe9")
    environment = {"PYTHONPATH": str(tmp_path), "XDG_STATE_HOME": str(home)}
    portal = start_portal(*SMALL, "--hook", "latin:fail", "--recordings", str(tmp_path), environment=environment)
    a_picture(portal)
    portal.wait_for_log("cannot read")
    assert "cannot read ??.txt" in status_of(portal)["hook"]["last_error"]
    assert "unknown control" in status_of(portal)["controls_set_aside"]
    targets = ("/", "/v1/camera/status", "/health", "/metrics", "/v1/system/logs", "/api/camera/status")
    for target in (*targets, "/v1/system/status", "/v1/camera/controls", "/v1/presets", "/v1/recordings", "/docs"):
        reply = ask(portal, target)
        assert reply.status == (503 if target == "/health" else 200), target
        reply.body.decode("utf-8")
    shutil.rmtree(home)
    home.write_text("")
    note = post(portal, "/v1/camera/lens_position", {"position": 2.0}).json["note"]
    assert "/n?/soft-stream/controls-pattern.json" in note
    assert "Traceback" in portal.log
    assert portal.stop() == 0
