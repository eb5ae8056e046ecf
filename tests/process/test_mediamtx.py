"""The configurations for MediaMTX: one with sources that the portal serves, one with commands that start and stop it.

MediaMTX is not packaged in Debian; how it reads the files is not tested here.
"""

import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import av
import pytest
import yaml

from tests.conftest import PROJECT, Portal
from tests.process.test_publish import SMALL, free_port, url_of
from tests.support.http_client import ask, port_of
from tests.support.timeouts import RUN_LIMIT_S

Start = Callable[..., Portal]
FOLDER = PROJECT / "integrations" / "mediamtx"
README = (FOLDER / "README.md").read_text()
KEY = "a-key-that-nobody-guesses"
CAMERAS = ("cam0", "cam1")


@pytest.fixture(scope="module")
def configuration() -> Any:
    return yaml.safe_load((FOLDER / "mediamtx.yml").read_text())


@pytest.fixture(scope="module")
def for_publishers() -> Any:
    return yaml.safe_load((FOLDER / "mediamtx-publish.yml").read_text())


def publishing(portal: Portal, headers: dict[str, str]) -> Any:
    return ask(portal, "/v1/camera/status", headers=headers).json["publishing"]["state"]


@pytest.mark.parametrize("number", range(len(CAMERAS)))
@pytest.mark.parametrize("key", [KEY, None], ids=["key", "no key"])
def test_commands(start_portal: Start, for_publishers: Any, tmp_path: Path, number: int, key: str | None) -> None:
    """Run as MediaMTX does: split like a shell command line, but without a shell."""
    environment = {} if key is None else {"CAMERA_API_KEY": key}
    flags = ("--rtsp-url", url_of(free_port()), "--no-rtsp-autostart")
    portal = start_portal(*SMALL, *flags, environment=environment)
    headers = {} if key is None else {"X-API-Key": key}
    file = tmp_path / "portal-key"
    file.write_text("".join(f"{name}: {value}\n" for name, value in headers.items()))
    path = for_publishers["paths"][CAMERAS[number]]

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


def test_permissions_of_publishers(for_publishers: Any) -> None:
    assert tuple(for_publishers["paths"]) == CAMERAS
    assert permissions(for_publishers) == {
        (user, action, camera) for camera in CAMERAS for user, action in (("portal", "publish"), ("any", "read"))
    }
    assert for_publishers["authInternalUsers"][0]["ips"] == ["127.0.0.1", "::1"]
    assert for_publishers["pathDefaults"]["runOnDemandRestart"] is True
    # Viewers that return earlier after the portal has disappeared wait for good.
    assert for_publishers["pathDefaults"]["runOnDemandCloseAfter"] == "1s"


def test_permissions(configuration: Any) -> None:
    assert permissions(configuration) == {("any", "read", camera) for camera in CAMERAS}


def test_both_configurations_serve_the_same_addresses(configuration: Any, for_publishers: Any) -> None:
    for each in (configuration, for_publishers):
        assert [each[name] for name in ("rtsp", "hls", "webrtc", "rtmp", "srt")] == [True, True, True, False, False]
        addresses = [each[name] for name in ("rtspAddress", "rtpAddress", "rtcpAddress", "hlsAddress", "webrtcAddress")]
        assert addresses == [":8554", ":8000", ":8001", ":8888", ":8889"]
        assert each["hlsMuxerCloseAfter"] == "10s"
        # An unknown key keeps older versions from starting; the README sets the variable instead.
        assert not any(name.startswith("moq") for name in each)
    assert "Environment=MTX_MOQ=no" in README


def settings_of(text: str) -> dict[str, str]:
    lines = [line.strip() for line in text.splitlines()]
    return dict(line.split("=", 1) for line in lines if re.match(r"(cam\d_|CAMERA_)\w+=", line))


def test_sources(start_portal: Start, configuration: Any) -> None:
    """MediaMTX pulls from the ports that the README opens."""
    pulled, _, published = README.partition("## MediaMTX on another machine")
    settings = settings_of(pulled)
    assert len(settings) == 4
    assert configuration["pathDefaults"]["sourceOnDemand"] is True
    for number, name in enumerate(CAMERAS):
        assert configuration["paths"][name]["source"] == f"rtsp://127.0.0.1:{settings[f'cam{number}_rtsp_port']}/{name}"
    portal = start_portal(*SMALL, "--rtsp-port", "0", environment=settings)
    status = ask(portal, "/v1/camera/status").json
    assert b"http://HOST:8889/cam0/whep" in ask(portal, "/webrtc").body
    port = urlsplit(status["rtsp"]["url"]).port
    with av.open(f"rtsp://127.0.0.1:{port}/cam0", options={"rtsp_transport": "tcp"}, timeout=RUN_LIMIT_S) as stream:
        assert next(stream.demux(video=0)).is_keyframe
    settings = settings_of(published)
    portal = start_portal(environment=settings)  # those of camera 0 apply
    status = ask(portal, "/v1/camera/status").json
    assert status["publishing"]["url"] == "rtsp://server:8554/cam0"


def test_readme_names_the_addresses(configuration: Any) -> None:
    for name, protocol in (("rtspAddress", "rtsp"), ("hlsAddress", "http"), ("webrtcAddress", "http")):
        for camera in CAMERAS:
            assert f"`{protocol}://HOST{configuration[name]}/{camera}`" in README


def permissions(configuration: Any) -> set[tuple[str, str, str]]:
    return {
        (user["user"], right["action"], right["path"])
        for user in configuration["authInternalUsers"]
        for right in user["permissions"]
    }
