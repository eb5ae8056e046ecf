"""Tests of the portal on the real Picamera2 with a browser, curl and ffmpeg on the host."""

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.rig.rig import Rig
from tests.support.browser_client import find_chromium
from tests.support.rig_client import Portal, decode, recognise, start_portal
from tests.support.timeouts import PATIENCE_S, RUN_LIMIT_S

# No screen, no sandbox, and no requests except those of the page.
_ARGUMENTS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking")
_HD = ("--camera", "Virtual0", "--width", "1280", "--height", "720", "--fps", "30")
_FRAMES = 60


@pytest.fixture
def portal(rig: Rig) -> Portal:
    return start_portal(rig, *_HD)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = find_chromium()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=[*_ARGUMENTS])
        yield browser
        browser.close()


def _program(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"needs {name}")
    return path


def _shown(rig: Rig, page: Page) -> int:
    return recognise(rig, decode(page.locator("#picture").screenshot(type="jpeg", quality=95)))


def test_browser_shows_stream(rig: Rig, portal: Portal, browser: Browser) -> None:
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    troubles: list[str] = []
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("console", lambda message: troubles.append(message.text) if message.type == "error" else None)
    page.goto(portal.url)
    page.locator("#state[data-state=live]").wait_for()
    assert page.locator("#picture").evaluate("picture => picture.width") == 1280
    seen: set[int] = set()
    deadline_s = time.monotonic() + PATIENCE_S
    while len(seen) < 3 and time.monotonic() < deadline_s:
        seen.add(_shown(rig, page))
    assert len(seen) >= 3, "the image does not change"
    assert page.title() == "imx708_wide"
    assert page.locator("#notice").is_hidden()
    assert troubles == []
    page.close()
    portal.wait_for_status(viewers=0)


def test_browser_shows_recovery(rig: Rig, browser: Browser) -> None:
    portal = start_portal(rig, *_HD, "--watchdog-timeout", "1")
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    page.goto(portal.url)
    page.locator("#state[data-state=live]").wait_for()
    portal.running.freeze()
    page.locator("#state[data-state=lost]").wait_for()
    assert "Recovering" in page.locator("#state").inner_text()
    portal.running.thaw()
    page.locator("#state[data-state=live]").wait_for()
    assert _shown(rig, page) >= 0
    assert portal.status["viewers"] == 1


def test_curl_snapshot_and_stream(rig: Rig, portal: Portal, tmp_path: Path) -> None:
    curl, file = _program("curl"), tmp_path / "snapshot.jpg"
    subprocess.run([curl, "-sSf", "-o", file, f"{portal.url}/?action=snapshot"], check=True, timeout=PATIENCE_S)
    assert recognise(rig, decode(file.read_bytes())) >= 0
    # The stream has no end, so curl stops at its time limit (28).
    stream = subprocess.run(
        [curl, "-sS", "-i", "--max-time", "2", f"{portal.url}/?action=stream"], capture_output=True, check=False
    )
    assert stream.returncode == 28, stream.stderr
    head, _, body = stream.stdout.partition(b"\r\n\r\n")
    assert b"multipart/x-mixed-replace;boundary=frame" in head
    assert body.startswith(b"--frame\r\nContent-Type: image/jpeg\r\n")
    parts = body.split(b"\r\n--frame\r\n")
    assert len(parts) > 30
    assert all(b"\r\n\r\n\xff\xd8" in part and part.endswith(b"\xff\xd9") for part in parts[1:-1])


def test_ffmpeg_stream(rig: Rig, portal: Portal, tmp_path: Path) -> None:
    pictures = tmp_path / "%02d.jpg"
    command = [_program("ffmpeg"), "-hide_banner", "-loglevel", "warning", "-f", "mpjpeg", "-i"]
    began_s = time.monotonic()
    done = subprocess.run(
        [*command, f"{portal.url}/stream.mjpg", "-frames:v", str(_FRAMES), "-c", "copy", pictures],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=RUN_LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    files = sorted(tmp_path.glob("*.jpg"))
    assert len(files) == _FRAMES
    assert time.monotonic() - began_s > _FRAMES / 31  # at the frame rate of the camera
    shown = [recognise(rig, decode(file.read_bytes())) for file in files]
    # libcamera shows each photograph for four frames.
    assert len(set(shown)) == 6
    assert max(np.bincount(shown)) <= _FRAMES / 2


def test_ffprobe_stream(portal: Portal) -> None:
    command = [_program("ffprobe"), "-loglevel", "error", "-show_streams", "-of", "json", f"{portal.url}/stream"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=RUN_LIMIT_S, check=False)
    assert done.returncode == 0, done.stderr
    (stream,) = json.loads(done.stdout)["streams"]
    assert (stream["codec_name"], stream["width"], stream["height"]) == ("mjpeg", 1280, 720)
    assert stream["pix_fmt"] == "yuvj420p"  # full range
