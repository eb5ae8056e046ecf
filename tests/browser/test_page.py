"""The page in a real browser: the live picture and the states of camera and portal.

Without Chromium the tests are skipped, which CI does not allow. Screenshots are written to `build/screenshots/`.
"""

import signal
from urllib.request import Request, urlopen

import numpy as np
import pytest
from playwright.sync_api import Route, expect

from tests.conftest import PROJECT, Portal
from tests.support.browser_client import (
    DESK,
    HEIGHT,
    HIDE,
    KEY,
    LIMIT_MS,
    PHONE,
    SIZES,
    VISITS,
    WIDTH,
    Start,
    Visitor,
    ask,
    check_streams,
    look,
    resize,
    shoot,
    wait_for_state,
    wait_until,
)
from tests.support.http_client import status_of, wait_for_status
from tests.support.proxy import below

ASSETS = PROJECT / "softcam" / "web" / "assets"
OTHER_PAGES = ("docs.", "webrtc.", "whep.")
LARGEST_PAGE = 60_000  # bytes, as they are sent
FIRST_PICTURE_MS = 1000
SMALL_PHONES = ((320, 568), (360, 640), (568, 320), (667, 375), (844, 390))
# When the first image of the stream is shown, in milliseconds since the navigation started.
FIRST_PICTURE = """() => new Promise((resolve) => { const look = () => {
    const first = document.getElementById("initial-image");
    const isThere = (first && first.naturalWidth) || document.getElementById("stage")?.dataset.transport;
    if (isThere) resolve(performance.now()); else setTimeout(look, 5); }; look(); })"""


def test_live_picture(portal: Portal, visitor: Visitor) -> None:
    page = visitor.watch(portal, color_scheme="dark")
    first = look(page)
    wait_until(lambda: np.abs(look(page) - first).max() > 20, "a moving picture")
    assert page.evaluate("[document.getElementById('picture').width, document.getElementById('picture').height]") == [
        WIDTH,
        HEIGHT,
    ]
    assert page.locator("#notice").is_hidden()
    assert page.locator("#age").is_hidden()
    assert page.locator("#name").inner_text() == page.title() == "imx708"
    assert page.locator("#name").get_attribute("title") == "Pattern camera (behaves like an imx708)"
    expect(page.locator("#facts")).to_contain_text("lux")
    for size in SIZES.values():
        resize(page, size)
        assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
        edges = page.locator("#frame").bounding_box()  # all of the picture is in the first view, and it is large
        assert edges is not None
        assert edges["y"] + edges["height"] <= size[1]
        assert edges["width"] > 0.6 * size[0]
        shoot(page, f"page-{size[0]}x{size[1]}")
    assert visitor.complaints == []
    assert visitor.foreign(portal) == []


def test_small_phones(start_portal: Start, visitor: Visitor) -> None:
    """Nothing is cut off, and the whole picture is visible without scrolling."""
    portal = start_portal("--neighbours", "garden=1,greenhouse=2")
    page = visitor.watch(portal, SMALL_PHONES[0], has_touch=True)
    expect(page.locator("#cameras")).to_be_visible()
    page.evaluate("document.querySelectorAll('details.section').forEach((each) => { each.open = true; })")
    for width, height in SMALL_PHONES:
        resize(page, (width, height))
        for name in ("controls", "graphs", "recordings", "links"):
            page.locator(f"#tab-{name}").click()
            assert page.evaluate("document.documentElement.scrollWidth") <= width, (width, name)
        page.evaluate("scrollTo(0, 0)")
        box = page.locator("#stage").bounding_box()
        assert box is not None
        assert box["y"] + box["height"] <= height, width
        page.locator("#view summary").click()
        sheet = page.locator("#view .popup").bounding_box()
        assert sheet is not None
        assert sheet["y"] >= 0, width
        assert sheet["y"] + sheet["height"] <= height, width
        page.keyboard.press("Escape")
        shoot(page, f"page-{width}x{height}")


@pytest.mark.measurement
def test_first_image_within_a_second(portal: Portal, visitor: Visitor) -> None:
    ask(portal, "/camera/start", {})
    page = visitor.page()
    page.goto(portal.url + "/", wait_until="commit")
    passed_ms = page.evaluate(FIRST_PICTURE)
    print(f"first picture after {passed_ms:.0f} ms")
    assert passed_ms < FIRST_PICTURE_MS


def test_page_size(portal: Portal) -> None:
    """The page with all assets is below 60 kB, compressed as browsers receive it."""
    names = ["", *(f"assets/{path.name}" for path in ASSETS.iterdir() if path.suffix != ".html")]
    sizes = {}
    for name in names:
        if not name.startswith(tuple(f"assets/{other}" for other in OTHER_PAGES)):
            with urlopen(Request(f"{portal.url}/{name}", headers={"Accept-Encoding": "gzip"})) as response:
                assert response.headers["Content-Encoding"] == "gzip"
                sizes[name] = len(response.read())
    print(sum(sizes.values()), "bytes")
    assert sum(sizes.values()) < LARGEST_PAGE, sizes


def test_light_theme(portal: Portal, visitor: Visitor) -> None:
    page = visitor.watch(portal, color_scheme="light")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(238, 242, 243)"
    shoot(page, "page-light")


def test_sub_path(portal: Portal, visitor: Visitor) -> None:
    """Behind nginx at /garden/, nothing is requested from the root."""
    with below(portal.url, "/garden/") as url:
        page = visitor.page()
        page.goto(url, wait_until="domcontentloaded")
        wait_for_state(page, "Live")
        page.locator("#control-image_processing-exposure_value").fill("1.5")
        page.locator("#control-image_processing-exposure_value").press("Enter")
        wait_for_status(portal, viewers=1)
        expect(page.locator("#programs a").first).to_have_attribute("href", url + "stream.mjpg")
        page.locator("#tab-recordings").click()
        page.locator("#tab-links").click()
        assert [each for each in visitor.asked if not each.startswith((url, "blob:"))] == []
        assert visitor.complaints == []
        page.close()


def test_without_javascript(portal: Portal, visitor: Visitor) -> None:
    page = visitor.open(portal, java_script_enabled=False)
    wait_for_status(portal, viewers=1)
    expect(page.locator("noscript img")).to_have_js_property("currentSrc", f"{portal.url}/stream.mjpg")
    expect(page.locator("noscript p")).to_be_visible()
    for dead in ("#state", "#zoom", "#view", "#tabs", "#controls", "#graphs"):
        expect(page.locator(dead)).to_be_hidden()


def test_unauthorized(portal: Portal, visitor: Visitor) -> None:
    page = visitor.watch(portal)
    asked: list[str] = []

    def refuse(route: Route) -> None:
        asked.append(route.request.url)
        route.fulfill(status=401, json={"detail": "an API key is needed"})

    page.route("**/v1/camera/status", refuse)  # as after a dismissed password dialog
    wait_for_state(page, "Key required")
    expect(page.locator("#notice")).to_contain_text("Authentication required")
    wait_for_status(portal, viewers=0)
    assert len(asked) == 1  # no further requests
    shoot(page, "page-locked")


@pytest.mark.parametrize(
    ("scheme", "background"), [("dark", "rgb(13, 18, 21)"), ("light", "rgb(238, 242, 243)")], ids=["dark", "light"]
)
def test_wrong_key(start_portal: Start, visitor: Visitor, scheme: str, background: str) -> None:
    """What a person sees who dismissed the browser's password dialog: in the colours of the page."""
    portal = start_portal(environment={"CAMERA_API_KEY": KEY})
    page = visitor.open(
        portal, PHONE, http_credentials={"username": "anyone", "password": "wrong"}, color_scheme=scheme
    )
    expect(page.locator("h1")).to_have_text("Authentication required")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == background
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE[0]
    shoot(page, f"page-wrong-key-{scheme}")


def test_read_only_key(start_portal: Start, visitor: Visitor) -> None:
    portal = start_portal(environment={"CAMERA_API_KEY": KEY, "CAMERA_VIEW_KEY": "look-only"})
    page = visitor.watch(portal, http_credentials={"username": "anyone", "password": "look-only"})
    page.locator("#control-auto_exposure-enabled").click()
    expect(page.locator("#toast")).to_contain_text("read-only")
    expect(page.locator("#control-auto_exposure-enabled")).to_be_checked()  # the actual value
    expect(page.locator("#read-only")).to_have_text("This key is read-only: changes require the key of CAMERA_API_KEY.")
    for control in ("#control-auto_exposure-enabled", "#reset-all", "#rotate"):
        expect(page.locator(control)).to_be_disabled()


def test_camera_disabled(start_portal: Start, visitor: Visitor) -> None:
    portal = start_portal("--disabled")
    page = visitor.open(portal)
    wait_for_state(page, "Camera unavailable")
    assert "disabled" in page.locator("#notice").inner_text()
    expect(page.locator("#snapshot")).to_have_attribute("aria-disabled", "true")
    expect(page.locator("#rotate")).to_be_disabled()
    assert page.locator("#last-error").is_hidden()
    asked = len([url for url in visitor.asked if "stream.mjpg" in url])
    for _ in range(3):
        with page.expect_response("**/v1/camera/status"):
            pass
    assert len([url for url in visitor.asked if "stream.mjpg" in url]) == asked


def test_hidden_tab_releases_camera(start_portal: Start, visitor: Visitor) -> None:
    portal = start_portal("--linger", "0.2")
    page = visitor.watch(portal)
    page.evaluate(HIDE, True)
    wait_for_state(page, "Paused")
    wait_for_status(portal, viewers=0, state="closed")
    page.evaluate(HIDE, False)
    wait_for_state(page, "Live")
    assert status_of(portal)["opens"] == 2


def test_closed_tab_releases_camera(start_portal: Start, visitor: Visitor) -> None:
    portal = start_portal("--linger", "0.2")
    page = visitor.watch(portal)
    page.close()
    wait_for_status(portal, viewers=0, state="closed")
    assert portal.stop(signal.SIGINT) == 0


def test_visits(portal: Portal, visitor: Visitor) -> None:
    page = visitor.watch(portal)
    for _ in range(VISITS - 1):
        page.reload()
        wait_for_state(page, "Live")
    check_streams(portal, lambda: page.goto("about:blank"))
    assert visitor.complaints == []


def test_several_clients(portal: Portal, visitor: Visitor) -> None:
    pages = [visitor.watch(portal, DESK), visitor.watch(portal, PHONE)]
    wait_for_status(portal, viewers=2)
    for page in pages:
        expect(page.locator("#fact-viewers")).to_have_text("2", timeout=LIMIT_MS)
        wait_for_state(page, "Live")
    assert visitor.complaints == []


def test_webrtc_notice(portal: Portal, visitor: Visitor) -> None:
    page = visitor.open(portal)
    page.goto(portal.url + "/webrtc")
    assert "MediaMTX" in page.locator("main").inner_text()
    page.get_by_role("link", name="Back to the live picture").click()
    wait_for_state(page, "Live")
