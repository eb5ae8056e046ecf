"""A recording in a real browser: Chromium plays the file and seeks by range requests.

Without Chromium the test is skipped, which CI does not allow.
"""

import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Request, sync_playwright

from tests.conftest import Portal
from tests.support.http_client import ask, post

ARGUMENTS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking")
LIMIT_MS = 20_000

# Resolves with what a viewer would see: the length, and where the picture is after a seek.
WATCH = """
async ([address, to]) => {
    const video = document.createElement("video");
    video.muted = true;
    document.body.replaceChildren(video);
    const came = (name) => new Promise((resolve, reject) => {
        video.addEventListener(name, resolve, {once: true});
        video.addEventListener("error", () => reject(new Error(video.error.message)), {once: true});
    });
    let next = came("loadeddata");
    video.src = address;
    await next;
    next = came("seeked");
    video.currentTime = to;
    await next;
    const at = video.currentTime;
    next = came("ended");
    video.playbackRate = 0.5;  // a busy machine decodes enough frames too
    await video.play();
    await next;
    return {
        at, duration: video.duration, end: video.currentTime, width: video.videoWidth,
        seekable: video.seekable.length && video.seekable.end(0),
        shown: video.getVideoPlaybackQuality().totalVideoFrames,
    };
}
"""


@pytest.fixture
def browser() -> Iterator[Browser]:
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("needs chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(ARGUMENTS))
        yield browser
        browser.close()


def test_play_and_seek(
    start_portal: Callable[..., Portal], tmp_path: Any, browser: Browser, wait_until: Callable[..., None]
) -> None:
    portal = start_portal("--no-autofocus", "--recordings", str(tmp_path / "recordings"))
    name = post(portal, "/v1/recordings/start", {}).json["recording"]["name"]
    wait_until(lambda: ask(portal, "/v1/recordings").json["running"]["video"]["elapsed_s"] > 6)
    post(portal, "/v1/recordings/stop", {})
    (entry,) = ask(portal, "/v1/recordings").json["recordings"]
    page = browser.new_page()
    page.set_default_timeout(LIMIT_MS)
    asked: list[Request] = []
    page.on("request", lambda request: asked.append(request))
    page.goto(f"{portal.url}/v1/recordings")
    seen = page.evaluate(WATCH, [f"{portal.url}/v1/recordings/{name}", 4.0])
    assert seen["at"] == pytest.approx(4.0, abs=0.1)
    assert seen["duration"] == pytest.approx(entry["duration_s"], abs=0.1)
    assert seen["end"] == pytest.approx(seen["duration"], abs=0.1)
    assert seen["seekable"] == pytest.approx(seen["duration"], abs=0.1)
    assert seen["width"] == 1536
    assert seen["shown"] > 10
    ranges = [request.headers["range"] for request in asked if "range" in request.headers]
    assert ranges
    assert all(each.startswith("bytes=") for each in ranges)
