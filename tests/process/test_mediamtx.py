"""The configuration for MediaMTX: valid YAML with commands that start and stop a portal.

MediaMTX is not packaged in Debian; how it reads the file is not tested here.
"""

import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import PROJECT, Portal
from tests.process.test_publish import SMALL, free_port, url_of
from tests.support.http_client import ask, port_of
from tests.support.timeouts import RUN_LIMIT_S

Start = Callable[..., Portal]
FOLDER = PROJECT / "integrations" / "mediamtx"
KEY = "a-key-that-nobody-guesses"
CAMERAS = ("cam0", "cam1")


@pytest.fixture(scope="module")
def configuration() -> Any:
    return yaml.safe_load((FOLDER / "mediamtx.yml").read_text())


def publishing(portal: Portal, headers: dict[str, str]) -> Any:
    return ask(portal, "/v1/camera/status", headers=headers).json["publishing"]["state"]


@pytest.mark.parametrize("number", range(len(CAMERAS)))
@pytest.mark.parametrize("key", [KEY, None], ids=["key", "no key"])
def test_commands(start_portal: Start, configuration: Any, tmp_path: Path, number: int, key: str | None) -> None:
    """Run as MediaMTX does: split like a shell command line, but without a shell."""
    environment = {} if key is None else {"CAMERA_API_KEY": key}
    flags = ("--rtsp-url", url_of(free_port()), "--no-rtsp-autostart")
    portal = start_portal(*SMALL, *flags, environment=environment)
    headers = {} if key is None else {"X-API-Key": key}
    file = tmp_path / "portal-key"
    file.write_text("".join(f"{name}: {value}\n" for name, value in headers.items()))
    path = configuration["paths"][CAMERAS[number]]

    def run(command: str) -> subprocess.CompletedProcess[str]:
        assert command.count("/etc/mediamtx/portal-key") == 1
        assert command.count(f"127.0.0.1:{18081 + number}/") == 1
        there = command.replace(f":{18081 + number}/", f":{port_of(portal)}/")
        argv = shlex.split(there.replace("/etc/mediamtx/portal-key", str(file)))
        return subprocess.run(argv, capture_output=True, text=True, timeout=RUN_LIMIT_S)

    assert publishing(portal, headers) == "off"
    for _ in range(2):
        done = run(path["runOnDemand"])
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert publishing(portal, headers) in ("connecting", "failed")
        done = run(path["runOnUnDemand"])
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert publishing(portal, headers) == "off"
    run(path["runOnDemand"])
    assert run(path["runOnInit"]).returncode == 0
    assert publishing(portal, headers) == "off"
    if key is not None:
        file.write_text("X-API-Key: another\n")
        assert run(path["runOnDemand"]).returncode != 0


def test_permissions(configuration: Any) -> None:
    assert tuple(configuration["paths"]) == CAMERAS
    rights = {(user["user"], right["action"], right["path"]) for user in configuration["authInternalUsers"]
              for right in user["permissions"]}  # fmt: skip
    assert rights == {
        (user, action, camera) for camera in CAMERAS for user, action in (("portal", "publish"), ("any", "read"))
    }
    assert configuration["authInternalUsers"][0]["ips"] == ["127.0.0.1", "::1"]
    assert [configuration[name] for name in ("rtsp", "hls", "webrtc")] == [True, True, True]


def test_readme_matches_configuration(start_portal: Start, configuration: Any) -> None:
    text = (FOLDER / "README.md").read_text()
    for name, protocol in (("rtspAddress", "rtsp"), ("hlsAddress", "http"), ("webrtcAddress", "http")):
        for camera in CAMERAS:
            assert f"`{protocol}://HOST{configuration[name]}/{camera}`" in text
    lines = [line.strip() for line in text.splitlines()]
    settings = dict(line.split("=", 1) for line in lines if re.match(r"(cam\d_|CAMERA_)\w+=", line))
    assert len(settings) == 5
    portal = start_portal(environment=settings)  # those of camera 0 apply
    status = ask(portal, "/v1/camera/status").json
    assert status["publishing"]["url"] == "rtsp://127.0.0.1:8554/cam0"
    assert status["streaming"] is False
    assert b"http://HOST:8889/cam0/whep" in ask(portal, "/webrtc").body
