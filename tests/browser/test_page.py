"""The page in a real browser: the live picture and the states of camera and portal.

Without Chromium the tests are skipped, which CI does not allow. Screenshots are written to `build/screenshots/`.
"""

import re
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from playwright.sync_api import Route, expect

from tests.conftest import PROJECT, Portal
from tests.support.browser_client import (
    DESK,
    HIDE,
    KEY,
    LIMIT_MS,
    LISTEN,
    PHONE,
    SIZES,
    Start,
    Visitor,
    ask,
    look,
    resize,
    shoot,
    shown,
    told,
    wait_for_state,
    wait_until,
)
from tests.support.http_client import status_of, wait_for_status
from tests.support.proxy import below

ASSETS = PROJECT / "softcam" / "web" / "assets"
OTHER_PAGES = ("docs.", "webrtc.", "whep.")
LARGEST_PAGE = 150_000  # bytes, as they lie on the disk
FIRST_PICTURE_MS = 1000
AWAY = "The portal cannot be reached. Retrying …"
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
        1536,
        864,
    ]
    assert page.locator("#notice").is_hidden()
    assert page.locator("#age").is_hidden()
    assert page.locator("#name").inner_text().startswith("Pattern camera")
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


def test_page_size() -> None:
    """The page with all assets is below 150 kB, uncompressed as it is sent."""
    sizes = {path.name: path.stat().st_size for path in ASSETS.iterdir() if not path.name.startswith(OTHER_PAGES)}
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


def test_reconnect_behind_proxy(start_portal: Start, visitor: Visitor) -> None:
    """nginx with a password on a machine that reboots: nginx responds again before the portal does."""
    portal = start_portal()
    inside = portal.url.rpartition(":")[2]
    page = visitor.page(http_credentials={"username": "camera", "password": "a-password"})
    with below(portal.url, "/garden/", "camera:a-password") as url:
        page.goto(url, wait_until="domcontentloaded")
        wait_for_state(page, "Live")
        page.evaluate("window.isSame = true")
        assert portal.stop() == 0
        wait_for_state(page, "No connection")
        expect(page.locator("#notice")).to_have_text(AWAY)  # the proxy's error page is not shown
    with page.expect_event("requestfailed"):  # not even the proxy responds
        pass
    with below(portal.url, "/garden/", "camera:a-password", port=urlsplit(url).port or 0):
        with page.expect_event("response", lambda response: response.status == 502):
            pass
        start_portal("--port", inside).wait_for_log("Listening")
        wait_for_state(page, "Live")
        assert page.evaluate("window.isSame")  # the page was not reloaded
        expect(page.locator("#events")).to_contain_text("Connection to the portal restored")
        page.close()


def test_without_javascript(portal: Portal, visitor: Visitor) -> None:
    page = visitor.open(portal, java_script_enabled=False)
    wait_for_status(portal, viewers=1)
    assert page.locator("#initial-image").get_attribute("src") == "stream.mjpg"
    expect(page.locator("noscript p")).to_be_visible()
    for dead in ("#state", "#zoom", "#view", "#tabs", "#controls", "#graphs"):
        expect(page.locator(dead)).to_be_hidden()


def test_camera_states(start_portal: Start, visitor: Visitor, faults: Path) -> None:
    faults.write_text("hang-open")
    portal = start_portal("--pattern-faults", str(faults), "--watchdog-timeout", "4")  # it exits after three times that
    page = visitor.open(portal, PHONE)
    wait_for_state(page, "Opening the camera")
    assert page.locator("#notice").inner_text() == "Opening the camera …"
    faults.write_text("")
    wait_for_state(page, "Live")

    page.evaluate(LISTEN)
    faults.write_text("hang")
    wait_for_state(page, "Recovering the camera")
    # The picture is marked as stale before the reason is known.
    assert told(page, "age")[0].endswith("s old")
    assert any("stale" in classes.split() for classes in told(page, "stage"))
    expect(page.locator("#last-error")).to_contain_text(re.compile(r"no frame for \d s"))
    expect(page.locator("#age")).to_be_hidden()  # the notice image of the stream is current
    assert page.locator("#notice").is_hidden()

    def shows_placeholder() -> bool:
        """A dark background with a few letters."""
        grey = look(page)
        return bool(np.mean(np.abs(grey - np.median(grey)) < 8) > 0.8 and np.median(grey) < 60)

    wait_until(shows_placeholder, "the placeholder")
    shoot(page, "page-reconnecting")
    faults.write_text("")
    wait_for_state(page, "Live")
    page.locator("#tab-graphs").click()
    expect(page.locator("#events")).to_contain_text(re.compile(r"no frame for \d s"))
    shoot(page, "page-events")
    assert visitor.complaints == []


def test_frozen_portal(portal: Portal, visitor: Visitor) -> None:
    page = visitor.watch(portal)
    bright = shown(page).mean()
    page.evaluate(LISTEN)
    portal.process.send_signal(signal.SIGSTOP)
    try:
        wait_until(lambda: shown(page).mean() < 0.8 * bright, "a dimmed picture")
        shoot(page, "page-frozen")
        wait_for_state(page, "No connection")  # after the request timed out
        assert re.fullmatch(r"\d\.\d s old", told(page, "age")[0])
        states = told(page, "state")  # may begin with "Live": a status that came before the portal was stopped
        assert "No new image" in states[: states.index("No connection")]
        assert page.locator("#notice").inner_text() == AWAY
    finally:
        portal.process.send_signal(signal.SIGCONT)
    wait_for_state(page, "Live")
    assert page.locator("#age").is_hidden()


def test_stall_at_low_measured_rate(start_portal: Start, visitor: Visitor, faults: Path) -> None:
    """The measured rate of a few frames drops as fast as their age grows."""
    portal = start_portal("--pattern-faults", str(faults), "--watchdog-timeout", "60")
    page = visitor.page()

    def sink(route: Route) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, json=answer.json() | {"fps": 0.01})

    page.route("**/v1/camera/status", sink)
    page.goto(portal.url + "/", wait_until="domcontentloaded")
    wait_for_state(page, "Live")
    faults.write_text("hang")
    wait_for_state(page, "No new image")


def test_portal_restart(start_portal: Start, visitor: Visitor) -> None:
    portal = start_portal()
    port = portal.url.rpartition(":")[2]
    page = visitor.watch(portal)
    rate = page.locator("#plot-fps")
    expect(rate.locator("canvas")).to_have_attribute("aria-label", re.compile(r": now \d"), timeout=LIMIT_MS)
    assert portal.stop() == 0
    wait_for_state(page, "No connection")
    expect(rate.locator(".value")).to_have_text("\u2013")  # past values are cleared
    expect(rate.locator("canvas")).to_have_attribute("aria-label", re.compile(": unknown now;"))
    assert page.locator("#notice").inner_text() == AWAY
    expect(page.locator("#stage")).to_have_class(re.compile(r"\bunavailable\b"))  # the last image does not look live
    expect(page.locator("body")).to_have_class(re.compile(r"\boffline\b"))
    shoot(page, "page-away")
    again = start_portal("--port", port)
    again.wait_for_log("Listening")
    wait_for_state(page, "Live")
    assert page.locator("#notice").is_hidden()
    expect(page.locator("#events")).to_contain_text("Connection to the portal restored")
    assert again.stop() == 0


def test_broken_stream_is_reconnected(portal: Portal, visitor: Visitor) -> None:
    page = visitor.page()
    asked: list[str] = []

    def refuse_twice(route: Route) -> None:
        asked.append(route.request.url)
        if len(asked) <= 2:
            route.abort()
        else:
            route.continue_()

    page.route("**/stream.mjpg?*", refuse_twice)
    page.goto(portal.url + "/")
    wait_for_state(page, "Live")
    assert len(asked) == 3  # one attempt per second
    assert page.locator("#notice").is_hidden()


def test_portal_restart_with_key(start_portal: Start, visitor: Visitor) -> None:
    portal = start_portal(environment={"CAMERA_API_KEY": KEY})
    port = portal.url.rpartition(":")[2]
    page = visitor.watch(portal, http_credentials={"username": "anyone", "password": KEY})
    assert portal.stop() == 0
    wait_for_state(page, "No connection")
    start_portal("--port", port, environment={"CAMERA_API_KEY": KEY}).wait_for_log("Listening")
    wait_for_state(page, "Live")


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


def test_read_only_key(start_portal: Start, visitor: Visitor) -> None:
    portal = start_portal(environment={"CAMERA_API_KEY": KEY, "CAMERA_VIEW_KEY": "look-only"})
    page = visitor.watch(portal, http_credentials={"username": "anyone", "password": "look-only"})
    page.locator("#control-auto_exposure-enabled").click()
    expect(page.locator("#toast")).to_contain_text("read-only")
    expect(page.locator("#control-auto_exposure-enabled")).to_be_checked()  # the actual value
    expect(page.locator("#read-only")).to_have_text("This key is read-only.")
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


@pytest.mark.parametrize(
    ("trouble", "state", "notice"),
    [
        ({"state": "missing", "last_error": "gone"}, "Camera missing", "The camera is missing"),
        ({"last_error": "the camera is busy"}, "Camera unavailable", "No image: the camera is busy"),
    ],
    ids=["missing", "busy"],
)
def test_portal_exits_with_camera(
    portal: Portal, visitor: Visitor, trouble: Mapping[str, str], state: str, notice: str
) -> None:
    """The portal exits shortly after it reported the error; here it waits until the page has read it."""
    status: dict[str, Any] = {**status_of(portal), "available": False, **trouble}
    page = visitor.page()
    page.route("**/v1/camera/status", lambda route: route.fulfill(json=status))
    page.goto(portal.url + "/")
    wait_for_state(page, state)
    assert page.locator("#notice").inner_text() == f"{notice}."
    page.route("**/v1/camera/status", lambda route: route.abort())
    wait_for_state(page, "No connection")
    expect(page.locator("#notice")).to_have_text(f"{notice}. {AWAY}")


def test_portal_exits_after_stall(start_portal: Start, visitor: Visitor, faults: Path) -> None:
    """The portal exits some time after the last frame; the page keeps the last known reason."""
    portal = start_portal("--pattern-faults", str(faults), "--watchdog-timeout", "100")
    page = visitor.watch(portal)
    faults.write_text("hang")
    expect(page.locator("#age")).to_have_text(re.compile(r"^([3-9]|\d\d)"), timeout=LIMIT_MS)
    with page.expect_response("**/v1/camera/status"):
        pass
    assert portal.stop() == 0
    wait_for_state(page, "No connection")
    expect(page.locator("#notice")).to_have_text(f"The camera delivers no images. {AWAY}")
    shoot(page, "page-camera-gone")


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


def test_several_clients(portal: Portal, visitor: Visitor) -> None:
    pages = [visitor.watch(portal, DESK), visitor.watch(portal, DESK), visitor.watch(portal, PHONE)]
    wait_for_status(portal, viewers=3)
    for page in pages:
        expect(page.locator("#fact-viewers")).to_have_text("3", timeout=LIMIT_MS)
        wait_for_state(page, "Live")
    assert visitor.complaints == []


def test_webrtc_notice(portal: Portal, visitor: Visitor) -> None:
    page = visitor.open(portal)
    page.goto(portal.url + "/webrtc")
    assert "MediaMTX" in page.locator("main").inner_text()
    page.get_by_role("link", name="Back to the live picture").click()
    wait_for_state(page, "Live")
