"""The page in Firefox and in WebKit, the engine of Safari: live picture, controls, recordings."""

import re
from collections.abc import Iterator

import pytest

from tests.conftest import Portal
from tests.support.browser_client import DESK, PHONE, SHOTS, ask, value_of, wait_until
from tests.support.http_client import post
from tests.support.timeouts import TIMEOUT_FACTOR
from tests.support.webdriver import WebDriver, browsing

LIVE_LIMIT_S = 5 * TIMEOUT_FACTOR  # from the opening of the page
MAX_STREAMS = 2  # of one page: the initial image, and the stream that replaces it
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
    connected = [int(number) for number in re.findall(r"Client \S+ connected; (\d+) connected", portal.log)]
    assert connected
    assert max(connected) <= MAX_STREAMS
    window.open("about:blank", DESK)
    portal.wait_for_log(r"; 0 connected")  # the page leaves no connection open


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
    shown = f"return new Set((() => {{ {PIXELS_OF_SEEKING} }})()).size"
    assert window.run(shown) > 20, "grey"
    assert post(recorder, "/v1/recordings/stop", {}).status == 200
