"""The page in a real browser: Debian's Chromium, driven by Playwright, against the real portal.

Where there is no Chromium the tests are skipped, which CI does not allow. Screenshots for people go to
`build/screenshots/`; with `DOCS_IMAGES=1` those of the README are made anew.
"""

import io
import os
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, Route, expect, sync_playwright

from tests.conftest import PROJECT, Portal
from tests.process.asking import status_of, wait_for_status

Start = Callable[..., Portal]
Visit = Callable[..., Page]
DESK, TABLET, PHONE = (1440, 900), (768, 1024), (390, 844)
SHOTS = PROJECT / "build" / "screenshots"
README_IMAGES = PROJECT / "docs" / "images"
LIMIT_MS = 20_000
LARGEST_IMAGE = 400_000  # bytes, for who reads the README over a slow line
ARGUMENTS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking")
KEY = "a-key-that-nobody-guesses"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("needs chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(ARGUMENTS))
        yield browser
        browser.close()


class Visitor:
    """Opens pages, and hears what they complain of and what they ask for."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self.complaints: list[str] = []
        self.asked: list[str] = []

    def open(self, portal: Portal, size: tuple[int, int] = DESK, **options: Any) -> Page:
        context = self._browser.new_context(viewport={"width": size[0], "height": size[1]}, **options)
        context.set_default_timeout(LIMIT_MS)
        page = context.new_page()
        page.on("console", lambda message: self.complaints.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self.asked.append(request.url))
        page.goto(portal.url + "/", wait_until="domcontentloaded")
        return page


@pytest.fixture
def visitor(browser: Browser) -> Iterator[Visitor]:
    visitor = Visitor(browser)
    yield visitor
    for context in browser.contexts:
        context.close()


@pytest.fixture
def faults(tmp_path: Path) -> Path:
    """The file that orders faults from the pattern camera; empty at first."""
    path = tmp_path / "faults"
    path.write_text("")
    return path


def wait_for_state(page: Page, words: str) -> None:
    expect(page.locator("#state")).to_have_text(words, timeout=LIMIT_MS)


def picture(page: Page) -> bytes:
    return page.locator("#picture").screenshot()


def shows_notice(page: Page) -> bool:
    """Whether the stream shows its placeholder: one dark ground with a few letters."""
    grey = np.asarray(Image.open(io.BytesIO(picture(page))).convert("L"), dtype=np.int16)
    ground = int(np.median(grey))
    return bool(ground < 60 and np.mean(np.abs(grey - ground) < 8) > 0.8)


def shoot(page: Page, name: str) -> Path:
    SHOTS.mkdir(parents=True, exist_ok=True)
    path = SHOTS / f"{name}.png"
    page.screenshot(path=path)
    return path


@pytest.mark.parametrize("size", [DESK, TABLET, PHONE], ids=["desk", "tablet", "phone"])
def test_page_shows_a_moving_picture(portal: Portal, visitor: Visitor, size: tuple[int, int]) -> None:
    page = visitor.open(portal, size, color_scheme="dark")
    wait_for_state(page, "live")
    first = picture(page)
    expect(page.locator("#facts")).to_contain_text("fps")
    deadline_s = time.monotonic() + LIMIT_MS / 1000
    while picture(page) == first:
        assert time.monotonic() < deadline_s, "the picture does not move"
    assert page.evaluate("document.getElementById('picture').naturalWidth") == 1536
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    assert page.locator("#notice").is_hidden()
    assert page.locator("#name").inner_text().startswith("Pattern camera")
    for words in ("1536 \u00d7 864", "lux", "/stream.mjpg", "/snapshot.jpg"):
        assert words in page.locator("main").inner_text()
    # Every word is within the window, and all of the picture in the first view.
    edges = page.locator("#picture").bounding_box()
    assert edges is not None
    assert edges["y"] + edges["height"] <= size[1]
    assert edges["width"] > 0.7 * size[0]
    assert visitor.complaints == []
    assert [url for url in visitor.asked if not url.startswith(portal.url + "/")] == []
    shoot(page, f"page-{size[0]}x{size[1]}")


def test_page_in_the_light(portal: Portal, visitor: Visitor) -> None:
    page = visitor.open(portal, color_scheme="light")
    wait_for_state(page, "live")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(243, 246, 247)"
    shoot(page, "page-light")


def test_page_works_below_another_path(portal: Portal, visitor: Visitor) -> None:
    """nginx may show it at /camera/: then nothing may be asked for at the root."""
    page = visitor.open(portal)
    wait_for_state(page, "live")
    sources = page.evaluate(
        "[...document.querySelectorAll('[src], [href]')]"
        ".map(each => each.getAttribute('src') || each.getAttribute('href'))"
    )
    addresses = [source for source in sources if not source.startswith(portal.url)]
    assert len(addresses) > 5
    assert not any(re.match(r"/|[a-z]+:", address) for address in addresses), addresses


def test_snapshots_are_saved(portal: Portal, visitor: Visitor) -> None:
    page = visitor.open(portal)
    wait_for_state(page, "live")
    with page.expect_download() as started:
        page.locator("#snapshot").click()
    path = started.value.path()
    assert path.read_bytes().startswith(b"\xff\xd8")
    assert started.value.suggested_filename == "snapshot.jpg"
    assert page.url == portal.url + "/"


def test_page_says_what_the_camera_does(start_portal: Start, visitor: Visitor, faults: Path) -> None:
    faults.write_text("hang-open")
    portal = start_portal("--pattern-faults", str(faults), "--watchdog-timeout", "2.2")
    page = visitor.open(portal, PHONE)
    wait_for_state(page, "opening the camera")
    assert page.locator("#notice").inner_text() == "opening the camera …"
    faults.write_text("")
    wait_for_state(page, "live")

    faults.write_text("hang")
    wait_for_state(page, "reconnecting")
    expect(page.locator("#facts")).to_contain_text("no frame for 2 s")
    assert page.locator("#notice").is_hidden()  # the stream's own placeholder is to be seen
    while not shows_notice(page):
        assert status_of(portal)["state"] == "recovering"  # the loop ends, in one way or the other
    shoot(page, "page-reconnecting")
    faults.write_text("")
    wait_for_state(page, "live")
    assert visitor.complaints == []


def test_page_survives_the_portal(start_portal: Start, visitor: Visitor) -> None:
    portal = start_portal()
    port = portal.url.rpartition(":")[2]
    page = visitor.open(portal)
    wait_for_state(page, "live")
    assert portal.stop() == 0
    wait_for_state(page, "no connection")
    assert page.locator("#notice").inner_text() == "The portal cannot be reached. Trying again …"
    assert page.evaluate("document.getElementById('picture').hasAttribute('src')") is False  # no old picture stands
    expect(page.locator("#facts")).to_have_class("old")
    shoot(page, "page-away")
    again = start_portal("--port", port)
    again.wait_for_log("Listening")
    wait_for_state(page, "live")
    assert page.locator("#notice").is_hidden()
    assert again.stop() == 0


def test_page_asks_again_for_a_stream_that_broke(portal: Portal, visitor: Visitor) -> None:
    page = visitor.open(portal)
    wait_for_state(page, "live")
    asked: list[str] = []

    def refuse_twice(route: Route) -> None:
        asked.append(route.request.url)
        if len(asked) <= 2:
            route.abort()
        else:
            route.continue_()

    page.route("**/stream.mjpg*", refuse_twice)
    page.evaluate("document.getElementById('picture').src = 'stream.mjpg?broken'")
    wait_for_state(page, "waiting for a picture")
    wait_for_state(page, "live")
    assert len(asked) == 3  # that one, one more that failed as well, and one that did not: asked for once a second
    assert page.locator("#notice").is_hidden()


def test_page_survives_a_portal_with_a_key(start_portal: Start, visitor: Visitor) -> None:
    portal = start_portal(environment={"CAMERA_API_KEY": KEY})
    port = portal.url.rpartition(":")[2]
    page = visitor.open(portal, http_credentials={"username": "anyone", "password": KEY})
    wait_for_state(page, "live")
    assert portal.stop() == 0
    wait_for_state(page, "no connection")
    start_portal("--port", port, environment={"CAMERA_API_KEY": KEY}).wait_for_log("Listening")
    wait_for_state(page, "live")


def test_page_says_that_nobody_is_let_in(portal: Portal, visitor: Visitor) -> None:
    page = visitor.open(portal)
    wait_for_state(page, "live")
    asked: list[str] = []

    def refuse(route: Route) -> None:
        asked.append(route.request.url)
        route.fulfill(status=401, json={"detail": "an API key is needed"})

    page.route("**/v1/camera/status", refuse)  # as after a question for the key that somebody waved away
    wait_for_state(page, "no key")
    expect(page.locator("#notice")).to_contain_text("Nobody is let in without the key")
    wait_for_status(portal, viewers=0)
    assert len(asked) == 1  # and is not asked again every second
    shoot(page, "page-locked")


def test_browser_with_the_key_is_let_in(start_portal: Start, visitor: Visitor) -> None:
    portal = start_portal(environment={"CAMERA_API_KEY": KEY})
    page = visitor.open(portal, http_credentials={"username": "anyone", "password": KEY})
    wait_for_state(page, "live")


def test_camera_that_is_switched_off(start_portal: Start, visitor: Visitor) -> None:
    portal = start_portal("--disabled")
    page = visitor.open(portal)
    wait_for_state(page, "no camera")
    assert "switched off" in page.locator("#notice").inner_text()


def test_hidden_tab_gives_the_camera_free(start_portal: Start, visitor: Visitor) -> None:
    portal = start_portal("--linger", "0.2")
    page = visitor.open(portal)
    wait_for_state(page, "live")
    # A headless browser hides no tab by itself; the page hears the same as if one did.
    hide = "(is) => { Object.defineProperty(document, 'hidden', {value: is, configurable: true}); "
    page.evaluate(hide + "document.dispatchEvent(new Event('visibilitychange')); }", True)
    wait_for_state(page, "paused")
    wait_for_status(portal, viewers=0, state="closed")
    page.evaluate(hide + "document.dispatchEvent(new Event('visibilitychange')); }", False)
    wait_for_state(page, "live")
    assert status_of(portal)["opens"] == 2


def test_closed_tab_gives_the_camera_free(start_portal: Start, visitor: Visitor) -> None:
    portal = start_portal("--linger", "0.2")
    page = visitor.open(portal)
    wait_for_state(page, "live")
    page.close()
    wait_for_status(portal, viewers=0, state="closed")
    assert portal.stop(signal.SIGINT) == 0


def test_where_webrtc_comes_from(portal: Portal, visitor: Visitor) -> None:
    page = visitor.open(portal)
    page.goto(portal.url + "/webrtc")
    assert "MediaMTX" in page.locator("main").inner_text()
    page.get_by_role("link", name="Back to the live picture").click()
    wait_for_state(page, "live")


@pytest.mark.parametrize(("size", "name"), [(DESK, "page"), (PHONE, "page-phone")])
def test_images_of_the_readme(start_portal: Start, visitor: Visitor, size: tuple[int, int], name: str) -> None:
    """Those that are there are small enough; `DOCS_IMAGES=1 make test ARGS="-k images"` makes them anew."""
    path = README_IMAGES / f"{name}.png"
    if os.environ.get("DOCS_IMAGES") == "1":
        portal = start_portal(camera=None, environment={"CAMERA_CAMERA": "pattern"})
        page = visitor.open(portal, size, color_scheme="dark")
        wait_for_state(page, "live")
        portal.wait_for_log("Autofocus cycle for the stream focused")
        # A rate that is measured over some seconds is one that people will see, too.
        expect(page.locator("#facts")).to_contain_text(re.compile(r"(19\.[89]|20\.\d).fps"), timeout=LIMIT_MS)
        path.parent.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=path)
    image = path.read_bytes()
    assert image.startswith(b"\x89PNG")
    assert len(image) < LARGEST_IMAGE
    assert (int.from_bytes(image[16:20]), int.from_bytes(image[20:24])) == size
