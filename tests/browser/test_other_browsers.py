"""The page in Firefox and in WebKit, the engine of Safari: live picture, controls, recordings."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Portal
from tests.support.browser_client import (
    AXE,
    DESK,
    PHONE,
    SHOTS,
    SIZES,
    VISITS,
    WIDTH,
    ask,
    check_streams,
    value_of,
    wait_until,
)
from tests.support.http_client import ask as fetch
from tests.support.http_client import post, wait_for_status
from tests.support.proxy import below
from tests.support.timeouts import TIMEOUT_FACTOR
from tests.support.webdriver import WebDriver, browsing

LIVE_LIMIT_S = 5 * TIMEOUT_FACTOR  # from the opening of the page
IS_LIVE = "return document.getElementById('state').textContent === 'Live'"
# The shown image in small, as text.
PIXELS = """const small = Object.assign(document.createElement("canvas"), {width: 64, height: 36});
const id = document.getElementById("stage").dataset.transport === "mjpeg" ? "picture" : "video";
const context = small.getContext("2d");
context.drawImage(document.getElementById(id), 0, 0, 64, 36);
return context.getImageData(0, 0, 64, 36).data.join();"""


PIXELS_OF_SEEKING = """const small = Object.assign(document.createElement("canvas"), {width: 64, height: 36});
const context = small.getContext("2d");
context.drawImage(document.getElementById("seeking"), 0, 0, 64, 36);
return context.getImageData(0, 0, 64, 36).data;"""


@pytest.fixture(scope="module", params=["firefox", "webkit"])
def window(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebDriver]:
    with browsing(request.param, tmp_path_factory.mktemp(request.param)) as window:
        yield window
        window.screenshot(SHOTS / f"{request.param}.png")


def test_live_picture(window: WebDriver, portal: Portal) -> None:
    window.open(portal.url, DESK)
    window.wait_for(IS_LIVE, timeout_s=LIVE_LIMIT_S)
    first = window.run(PIXELS)
    window.wait_for(f"return ((() => {{ {PIXELS} }})()) !== arguments[0]", first)
    check_streams(portal, lambda: window.open("about:blank", DESK))


def test_visits(window: WebDriver, portal: Portal) -> None:
    """Each page closes its stream, so that the next one finds a free connection."""
    for _ in range(VISITS):
        window.open(portal.url, DESK)
        window.wait_for(IS_LIVE, timeout_s=LIVE_LIMIT_S)
    check_streams(portal, lambda: window.open("about:blank", DESK))


def test_visits_without_javascript(window: WebDriver, portal: Portal) -> None:
    """Firefox shows the stream; WebKit, which would never close it, a snapshot."""
    has_stream = "AppleWebKit" not in window.run("return navigator.userAgent")
    with below(portal.url, "/garden/", headers={"Content-Security-Policy": "sandbox"}) as url:
        for _ in range(VISITS):
            window.open(url, DESK)
            window.wait_for("return document.querySelector('noscript img').naturalWidth")
            assert window.run("return document.querySelector('noscript img').currentSrc").endswith(
                "/stream.mjpg" if has_stream else "/snapshot.jpg"
            )
            wait_for_status(portal, viewers=int(has_stream))  # the proxy closes the stream with its next part
        if has_stream:
            check_streams(portal, lambda: window.open("about:blank", DESK))
        else:
            window.open("about:blank", DESK)
            assert "connected" not in portal.log


def test_controls(window: WebDriver, portal: Portal) -> None:
    window.open(portal.url, PHONE)
    field = "#control-image_processing-brightness"
    window.wait_for("return document.querySelector(arguments[0])", field)
    window.run(
        """const box = document.querySelector(arguments[0]);
        box.value = arguments[1];
        box.dispatchEvent(new Event("change"));""",
        field,
        "0.25",
    )
    window.wait_for("return document.querySelector(arguments[0]).closest('.row').classList.contains('set')", field)
    assert value_of(portal, "image_processing", "brightness") == 0.25
    window.click("#reset-all")


JUDGE = """window.violations = null;
axe.run("html", {resultTypes: ["violations"]}).then(({violations}) => {
    window.violations = violations.map(({id, nodes}) => `${id}: ${nodes.map(({target}) => target).join(" ")}`);
});"""


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_axe(window: WebDriver, portal: Portal, size: tuple[int, int]) -> None:
    window.open(portal.url, size)
    window.wait_for("return document.getElementById('preset-current').textContent")
    window.wait_for("return document.getElementById('machine').textContent.includes('Memory')")
    window.run("document.querySelector('#presets details').open = true")
    window.run(AXE)
    for tab, shown in (("controls", "#presets"), ("log", "#log-lines .line")):
        window.click(f"#tab-{tab}")
        window.wait_for("return document.querySelector(arguments[0])?.offsetParent", shown)
        window.run(JUDGE)
        assert window.wait_for("return window.violations && [window.violations]") == [[]], tab
    window.click("#tab-controls")


def test_presets_log_and_machine(window: WebDriver, portal: Portal) -> None:
    window.open(portal.url, DESK)
    window.wait_for("return document.getElementById('preset-current').textContent === 'Normal'")
    window.wait_for("return document.getElementById('machine').textContent.includes('Memory')")
    window.run("document.getElementById('preset').value = 'sports'")
    window.click("#preset-apply")
    window.wait_for("return document.getElementById('preset-current').textContent === 'Sports'")
    window.run("document.querySelector('#presets details').open = true")
    window.click("#preset-save")
    window.run("document.getElementById('enter-text').value = 'Race'")
    window.click("#enter-yes")
    window.wait_for("return document.getElementById('preset').value === 'Race'")
    window.click("#preset-delete")
    window.click("#confirm-yes")
    window.wait_for("return document.getElementById('preset').value !== 'Race'")
    assert ask(portal, "/v1/presets/normal/apply", method="POST")["status"] == "ok"
    window.click("#tab-log")
    window.wait_for("return document.getElementById('log-lines').textContent.includes('Listening on')")
    ask(portal, "/v1/camera/transform", {"hflip": True})
    line = "return document.querySelector('#log-lines').lastElementChild.textContent"
    before = window.run(line)
    ask(portal, "/v1/camera/transform", {"hflip": False})
    window.wait_for(f"{line} !== arguments[0]", before)
    window.click("#tab-controls")


def test_recording(window: WebDriver, recorder: Portal) -> None:
    window.open(recorder.url, DESK)
    window.wait_for(IS_LIVE)
    window.click("#tab-recordings")
    window.click("#record-video")
    window.wait_for("return document.querySelector('#record-video[aria-pressed=true]')")
    assert ask(recorder, "/v1/recordings")["running"]["video"]
    window.wait_for("return /0:0[2-9]/.test(document.querySelector('#record-video .detail').textContent)")
    window.click("#record-video")
    window.wait_for("return document.querySelector('.recording .thumb:enabled')")
    window.click(".recording .thumb")
    window.run("document.querySelector('#player-stage video').muted = true")
    window.run("document.querySelector('#player-stage video').play()")
    window.wait_for("return document.querySelector('#player-stage video').currentTime > 0.5")
    window.click("#player-close")


def test_seek_in_running_recording(window: WebDriver, recorder: Portal) -> None:
    assert post(recorder, "/v1/recordings/start", {}).status == 200
    name = ask(recorder, "/v1/recordings")["running"]["video"]["name"]
    window.open(recorder.url, DESK)
    wait_until(lambda: ask(recorder, "/v1/recordings?limit=1")["recordings"][0]["duration_s"] > 8, "eight seconds")
    window.run(
        """const video = document.body.appendChild(document.createElement("video"));
        Object.assign(video, {muted: true, id: "seeking"});
        video.onloadeddata = () => { video.currentTime = 7; };
        video.onseeked = () => { video.dataset.seeked = "yes"; };
        video.src = arguments[0];""",
        f"/v1/recordings/{name}?index=1",
    )
    window.wait_for("return document.getElementById('seeking').dataset.seeked")
    assert window.run("return document.getElementById('seeking').duration") > 7
    assert window.run("return document.getElementById('seeking').currentTime") == pytest.approx(7, abs=0.1)
    # WebKit reports that it has sought before it has painted; of grey, there would be one value.
    window.wait_for(f"return new Set((() => {{ {PIXELS_OF_SEEKING} }})()).size > 20")
    assert post(recorder, "/v1/recordings/stop", {}).status == 200


NATIVE_HLS = """const video = document.body.appendChild(document.createElement("video"));
Object.assign(video, {muted: true, id: "hls", src: arguments[0]});
const count = () => {
  video.dataset.frames = Number(video.dataset.frames ?? 0) + 1;
  video.requestVideoFrameCallback(count);
};
video.requestVideoFrameCallback(count);
video.play();"""


def test_native_hls(portal: Portal, tmp_path: Path) -> None:
    """WebKit's own player, with a stream that another viewer started some time ago."""
    began_s = time.monotonic()
    wait_until(lambda: fetch(portal, "/stream.m3u8").status == 200 and time.monotonic() - began_s > 5, "five seconds")
    with browsing("webkit", tmp_path, counts_frames=True) as window:
        window.open(f"{portal.url}/health", PHONE)
        window.run(NATIVE_HLS, f"{portal.url}/stream.m3u8")
        window.wait_for("return Number(document.getElementById('hls').dataset.frames) > 30", timeout_s=LIVE_LIMIT_S + 5)
        assert window.run("return document.getElementById('hls').videoWidth") == WIDTH
