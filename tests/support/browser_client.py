"""Helpers for the browser tests: open the page, wait for its states, read its picture."""

import base64
import io
import json
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from tests.conftest import PROJECT, Portal
from tests.support.timeouts import PATIENCE_S, TIMEOUT_FACTOR

Start = Callable[..., Portal]
DESK, TABLET, PHONE = (1440, 900), (768, 1024), (390, 844)
SIZES = {"desk": DESK, "tablet": TABLET, "phone": PHONE}
WIDTH, HEIGHT = 960, 540  # of the shared portals' pictures, which a browser without a GPU draws
SHOTS = PROJECT / "build" / "screenshots"
LIMIT_MS = 30_000 * TIMEOUT_FACTOR  # reached only on failure
PAUSE_S = 0.05  # between two polls, so that the portal gets processor time
# Records the states of the page: a transient state could be missed by polling.
LISTEN = """() => { window.told = {state: [], age: [], stage: []};
for (const [id, heard] of Object.entries(window.told)) {
    const element = document.getElementById(id);
    new MutationObserver(() => heard.push(id === "stage" ? element.className : element.textContent))
        .observe(element, id === "stage" ? {attributeFilter: ["class"]} : {childList: true});
} }"""
KEY = "a-key-that-nobody-guesses"
# A headless browser hides no tab by itself: this simulates it.
HIDE = """(is) => { Object.defineProperty(document, 'hidden', {value: is, configurable: true});
document.dispatchEvent(new Event('visibilitychange')); }"""


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

    def foreign(self, portal: Portal) -> list[str]:
        """Requests to other origins."""
        return [url for url in self.asked if not url.startswith((portal.url + "/", "blob:" + portal.url, "data:"))]


def resize(page: Page, size: tuple[int, int]) -> None:
    page.set_viewport_size({"width": size[0], "height": size[1]})


def told(page: Page, what: str) -> list[str]:
    """Since LISTEN: the texts of the state or the age, or the classes of the stage."""
    heard: list[str] = page.evaluate("(what) => window.told[what]", what)
    return heard


def wait_for_state(page: Page, words: str) -> None:
    expect(page.locator("#state")).to_have_text(words, timeout=LIMIT_MS)


def look(page: Page) -> NDArray[np.float32]:
    """The live picture as drawn by the page: grey, 72 rows of 128."""
    text = page.evaluate(
        """() => { const small = Object.assign(document.createElement("canvas"), {width: 128, height: 72});
        const transport = document.getElementById("stage").dataset.transport;
        const context = small.getContext("2d", {willReadFrequently: true});
        const isVideo = ["mp4", "webrtc"].includes(transport);
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
