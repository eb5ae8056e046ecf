"""Helpers for the browser tests: open the page, wait for its states, read its picture."""

import base64
import io
import json
import re
import shutil
import time
import urllib.request
from collections.abc import Callable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from tests.conftest import PROJECT, Portal
from tests.support.timeouts import PATIENCE_S, TIMEOUT_FACTOR

Start = Callable[..., Portal]
DESK, TABLET, PHONE = (1440, 900), (768, 1024), (390, 844)
SIZES = {"desk": DESK, "tablet": TABLET, "phone": PHONE}
WIDTH, HEIGHT = 640, 360  # of the shared portals' pictures, which a browser without a GPU draws
SHOTS = PROJECT / "build" / "screenshots"
LIMIT_MS = 30_000 * TIMEOUT_FACTOR  # reached only on failure
PAUSE_S = 0.05  # between two polls, so that the portal gets processor time
# Records the states of the page: a transient state could be missed by polling.
LISTEN = """() => { window.recorded = {state: [], age: [], stage: []};
for (const [id, heard] of Object.entries(window.recorded)) {
    const element = document.getElementById(id);
    new MutationObserver(() => heard.push(id === "stage" ? element.className : element.textContent))
        .observe(element, id === "stage" ? {attributeFilter: ["class"]} : {childList: true});
} }"""
# Injected by the test: the page's policy allows no foreign scripts.
AXE = files("axe_playwright_python").joinpath("axe.min.js").read_text()
VIOLATIONS = """async ([part, more]) => (await axe.run(part, {resultTypes: ["violations"], ...more})).violations
    .map((each) => [each.id, each.help, each.nodes.map((node) => node.target.join(" ") + ": " +
    node.any.concat(node.all).map((check) => check.message).join("; "))])"""
CONTRAST = {"runOnly": {"type": "rule", "values": ["color-contrast"]}}
KEY = "a-key-that-nobody-guesses"
# A headless browser hides no tab by itself: this simulates it.
HIDE = """(is) => { Object.defineProperty(document, 'hidden', {value: is, configurable: true});
document.dispatchEvent(new Event('visibilitychange')); }"""


VISITS = 6  # as many as the connections that a browser opens to a host: a leak in each would use them up
MAX_STREAMS = 2  # at once: that of the page, and that of the page before, which is about to be closed
LEAVE_LIMIT_S = 2.0 * TIMEOUT_FACTOR  # from leaving the page until its stream is closed


def find_chromium() -> str:
    """The path of Chromium's headless shell, which opens a page in a third of the time, or that of Chromium."""
    for name in ("chromium-headless-shell", "chromium", "chromium-browser"):
        if (path := shutil.which(name)) is not None:
            return path
    pytest.skip("needs chromium-headless-shell")


class Visitor:
    """Opens pages and collects their console messages and requests."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self.complaints: list[str] = []
        self.asked: list[str] = []

    def page(self, size: tuple[int, int] = DESK, **options: Any) -> Page:
        """An empty page in a new browser context."""
        context = self._browser.new_context(viewport={"width": size[0], "height": size[1]}, **options)
        context.set_default_timeout(LIMIT_MS)
        page = context.new_page()
        page.on("console", lambda message: self.complaints.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self.asked.append(request.url))
        return page

    def open(self, portal: Portal, size: tuple[int, int] = DESK, **options: Any) -> Page:
        """The portal's page, loading."""
        page = self.page(size, **options)
        page.goto(portal.url + "/", wait_until="domcontentloaded")
        return page

    def watch(self, portal: Portal, size: tuple[int, int] = DESK, **options: Any) -> Page:
        """The portal's page with a live picture and its controls."""
        page = self.open(portal, size, **options)
        wait_for_state(page, "Live")
        expect(page.locator("#sections .row").first).to_be_attached(timeout=LIMIT_MS)
        return page

    def on_slow_line(self, portal: Portal) -> Page:
        """The portal's page on a line that is too slow for MJPEG at 10 fps; WebRTC is not limited."""
        page = self.page()
        line = page.context.new_cdp_session(page)
        line.send("Network.enable")
        slow = {"offline": False, "latency": 20, "downloadThroughput": 100_000, "uploadThroughput": 100_000}
        line.send("Network.emulateNetworkConditions", slow)
        page.goto(portal.url + "/")
        expect(page.locator("#transport-now")).to_have_text("now MJPEG")
        return page

    def foreign(self, portal: Portal) -> list[str]:
        """Requests to other origins."""
        return [url for url in self.asked if not url.startswith((portal.url + "/", "blob:" + portal.url, "data:"))]


def check_streams(portal: Portal, leave: Callable[[], object]) -> None:
    """Check that the visits in the portal's log had few streams at once, and that `leave` ends the last one soon.

    The page is live when this is called.
    """
    counts = [int(number) for number in re.findall(r"Client \S+ connected; (\d+) connected", portal.log)]
    assert counts
    assert max(counts) <= MAX_STREAMS, portal.log
    portal.forget_log()
    leave()
    portal.wait_for_log("; 0 connected", timeout_s=LEAVE_LIMIT_S)


def judge(page: Page, part: str = "html") -> None:
    """A part of the page with all rules in the dark theme, and its contrast in the light theme."""
    schemes: tuple[tuple[Literal["light", "dark"], Mapping[str, Any]], ...] = (("light", CONTRAST), ("dark", {}))
    for scheme, more in schemes:
        page.emulate_media(color_scheme=scheme)
        found: list[Any] = page.evaluate(VIOLATIONS, [part, more])
        assert found == [], (part, scheme)


def resize(page: Page, size: tuple[int, int]) -> None:
    page.set_viewport_size({"width": size[0], "height": size[1]})


def recorded(page: Page, what: str) -> list[str]:
    """Since LISTEN: the texts of the state or the age, or the classes of the stage."""
    heard: list[str] = page.evaluate("(what) => window.recorded[what]", what)
    return heard


def open_tab(page: Page, name: str) -> None:
    tab = page.locator(f"#tab-{name}")
    if tab.is_visible():  # on a wide screen the graphs have no tab
        tab.click()


def wait_for_state(page: Page, words: str) -> None:
    expect(page.locator("#state")).to_have_text(words, timeout=LIMIT_MS)


def look(page: Page) -> NDArray[np.float32]:
    """The live picture as drawn by the page: grey, 72 rows of 128."""
    text = page.evaluate(
        """() => { const small = Object.assign(document.createElement("canvas"), {width: 128, height: 72});
        const transport = document.getElementById("stage").dataset.transport;
        const context = small.getContext("2d", {willReadFrequently: true});
        const isVideo = ["mp4", "hls", "webrtc"].includes(transport);
        context.drawImage(document.getElementById(isVideo ? "video" : "picture"), 0, 0, 128, 72);
        const {data} = context.getImageData(0, 0, 128, 72);
        return btoa(String.fromCharCode(...data.filter((_, at) => at % 4 < 3))); }"""
    )
    pixels = np.frombuffer(base64.b64decode(text), dtype=np.uint8).reshape(72, 128, 3)
    grey: npt.NDArray[np.float32] = pixels.mean(axis=2, dtype=np.float32)
    return grey


def shown(page: Page, selector: str = "#stage") -> NDArray[np.float32]:
    """A screenshot of the element, grey."""
    image = Image.open(io.BytesIO(page.locator(selector).screenshot())).convert("L")
    return np.asarray(image, dtype=np.float32)


def shoot(page: Page, name: str) -> Path:
    SHOTS.mkdir(parents=True, exist_ok=True)
    path = SHOTS / f"{name}.png"
    page.screenshot(path=path)
    return path


def wait_until(predicate: Callable[[], Any], what: str) -> None:
    """Poll a condition that Playwright cannot wait for."""
    deadline_s = time.monotonic() + LIMIT_MS / 1000
    while not predicate():
        assert time.monotonic() < deadline_s, f"timed out waiting for {what}"
        time.sleep(PAUSE_S)


def ask(portal: Portal, path: str, body: Any = None, method: str | None = None) -> Any:
    """A JSON request of another client."""
    data = None if body is None else json.dumps(body).encode()
    headers = {} if body is None else {"Content-Type": "application/json"}
    request = urllib.request.Request(portal.url + path, data=data, headers=headers, method=method)
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
        return json.load(answer)


def value_of(portal: Portal, group: str, field: str) -> Any:
    return ask(portal, "/v1/camera/controls")["controls"][group]["fields"][field]["value"]
