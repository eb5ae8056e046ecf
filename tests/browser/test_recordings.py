"""A recording in a real browser: Chromium plays the file and seeks by range requests.

Without Chromium the test is skipped, which CI does not allow.
"""

from collections.abc import Callable

import pytest
from playwright.sync_api import Request

from tests.conftest import Portal
from tests.support.browser_client import WIDTH, Visitor
from tests.support.http_client import ask, post

LENGTH_S = 3
SEEK_S = 2.0

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
    video.playbackRate = 0.25;  // a busy machine decodes enough frames too
    await video.play();
    await next;
    return {
        at, duration: video.duration, end: video.currentTime, width: video.videoWidth,
        seekable: video.seekable.length && video.seekable.end(0),
        shown: video.getVideoPlaybackQuality().totalVideoFrames,
    };
}
"""


def test_play_and_seek(recorder: Portal, visitor: Visitor, wait_until: Callable[..., None]) -> None:
    name = post(recorder, "/v1/recordings/start", {}).json["recording"]["name"]
    wait_until(lambda: ask(recorder, "/v1/recordings").json["running"]["video"]["elapsed_s"] > LENGTH_S)
    post(recorder, "/v1/recordings/stop", {})
    (entry,) = ask(recorder, "/v1/recordings").json["recordings"]
    page = visitor.page()
    asked: list[Request] = []
    page.on("request", lambda request: asked.append(request))
    page.goto(f"{recorder.url}/v1/recordings")
    seen = page.evaluate(WATCH, [f"{recorder.url}/v1/recordings/{name}", SEEK_S])
    assert seen["at"] == pytest.approx(SEEK_S, abs=0.1)
    assert seen["duration"] == pytest.approx(entry["duration_s"], abs=0.1)
    assert seen["end"] == pytest.approx(seen["duration"], abs=0.1)
    assert seen["seekable"] == pytest.approx(seen["duration"], abs=0.1)
    assert seen["width"] == WIDTH
    assert seen["shown"] > 5
    ranges = [request.headers["range"] for request in asked if "range" in request.headers]
    assert ranges
    assert all(each.startswith("bytes=") for each in ranges)
