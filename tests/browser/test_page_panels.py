"""The panels of the page: graphs and histogram, snapshots, publishing, links, all cameras."""

import io
import re
import socket
from functools import partial

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, expect

from tests.conftest import Portal
from tests.support.browser_client import (
    DESK,
    HEIGHT,
    LIMIT_MS,
    PHONE,
    SIZES,
    WIDTH,
    Start,
    Visitor,
    ask,
    open_tab,
    resize,
    shoot,
    shown,
    wait_for_state,
    wait_until,
)
from tests.support.http_client import wait_for_status

# How much of a canvas is drawn on, in each fifth of its width.
DRAWN = """(canvas) => { const {width, height} = canvas;
const copy = Object.assign(document.createElement("canvas"), {width, height}).getContext("2d");
copy.drawImage(canvas, 0, 0);
const {data} = copy.getImageData(0, 0, width, height), fifths = [0, 0, 0, 0, 0];
for (let at = 3; at < data.length; at += 4) if (data[at]) fifths[Math.floor(5 * ((at >> 2) % width) / width)] += 1;
return fifths; }"""


def least_gap(page: Page, panel: str) -> float:
    """The smallest vertical distance between two elements of a panel in pixels."""
    gap: float = page.locator(f"#{panel} > :not(.visually-hidden)").evaluate_all(
        """(all) => { const boxes = all.map((each) => each.getBoundingClientRect()).filter(({height}) => height);
        return Math.min(...boxes.slice(1).map((box, place) => box.top - boxes[place].bottom)); }"""
    )
    return gap


# --- curves -----------------------------------------------------------------------------------------------------------


def test_histogram_and_graphs(portal: Portal, visitor: Visitor) -> None:
    page = visitor.watch(portal)
    histogram = page.locator("#histogram")
    for size in SIZES.values():
        resize(page, size)
        open_tab(page, "graphs")
        wait_until(lambda: min(histogram.evaluate(DRAWN)) > 0, "a histogram from black to white")
        assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
        shoot(page, f"page-curves-{size[0]}")
    for name in ("fps", "bandwidth", "lux", "exposure", "gain", "focus"):
        tile = page.locator(f"#plot-{name}")
        expect(tile.locator(".value")).to_have_text(re.compile(r"\d"), timeout=LIMIT_MS)
        expect(tile.locator("canvas")).to_have_attribute("aria-label", re.compile(r"now .*\d"), timeout=LIMIT_MS)
    assert "Mbit/s" in page.locator("#plot-bandwidth .value").inner_text()
    # A dark picture has nothing on the right.
    ask(portal, "/v1/camera/manual_exposure", {"exposure_us": 400, "gain": 1.2})
    wait_until(lambda: histogram.evaluate(DRAWN)[4] < 0.02 * sum(histogram.evaluate(DRAWN)), "a dark histogram")
    expect(page.locator("#plot-exposure .value")).to_have_text("400\u00a0µs", timeout=LIMIT_MS)
    assert visitor.complaints == []


def test_value_under_pointer(portal: Portal, visitor: Visitor) -> None:
    page = visitor.watch(portal)
    canvas = page.locator("#plot-fps canvas")
    expect(canvas).to_have_attribute("aria-label", re.compile("now"), timeout=LIMIT_MS)
    box = canvas.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] - 3, box["y"] + 10)
    expect(page.locator("#plot-fps .value")).to_contain_text("s ago")
    page.mouse.move(5, 5)
    expect(page.locator("#plot-fps .value")).not_to_contain_text("s ago")


# --- snapshots -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("button", "size"), [("snapshot", (WIDTH, HEIGHT)), ("full", (4608, 2592))])
def test_save_snapshot(portal: Portal, visitor: Visitor, button: str, size: tuple[int, int]) -> None:
    page = visitor.watch(portal)
    # A still of the whole sensor is much work, and the page itself waits longer for it than a test usually does.
    with page.expect_download(timeout=2 * LIMIT_MS) as started:
        page.locator(f"#{button}").click()
    image = Image.open(io.BytesIO(started.value.path().read_bytes()))
    assert image.format == "JPEG"
    assert image.size == size
    assert re.fullmatch(r"snapshot-\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d(-full)?\.jpg", started.value.suggested_filename)
    assert page.url == portal.url + "/"
    wait_for_state(page, "Live")
    assert visitor.complaints == []


def test_snapshot_error(portal: Portal, visitor: Visitor) -> None:
    page = visitor.watch(portal)
    page.route("**/snapshot.jpg*", lambda route: route.fulfill(status=503, json={"detail": "no frame came in time"}))
    page.locator("#snapshot").click()
    expect(page.locator("#toast")).to_have_text("Snapshot failed: no frame came in time")


# --- day and night, other programs, other cameras ---------------------------------------------------------------------


def test_day_and_night(portal: Portal, visitor: Visitor) -> None:
    page = visitor.watch(portal)
    expect(page.locator("#fact-brightness")).to_have_text(re.compile(r"\d"), timeout=LIMIT_MS)
    assert least_gap(page, "controls") >= 8
    page.get_by_text("Day and night").click()
    page.locator("#control-day_night_mode-mode").select_option("night")
    wait_for_status(portal, scene_mode="night")
    expect(page.locator("#events")).to_contain_text("“night”", timeout=LIMIT_MS)


def test_rtsp_server_on_same_machine(start_portal: Start, visitor: Visitor) -> None:
    """A localhost URL would not work on other machines."""
    portal = start_portal("--host", "0.0.0.0", "--rtsp-url", "rtsp://127.0.0.1:9/garden", "--no-rtsp-autostart")
    page = visitor.page()
    page.goto(f"http://127.0.0.2:{portal.url.rpartition(':')[2]}/")
    wait_for_state(page, "Live")
    open_tab(page, "links")
    expect(page.locator("#programs")).to_contain_text("rtsp://127.0.0.2:9/garden")
    assert page.locator("#local-only").is_hidden()


def test_rtsp_of_the_portal(start_portal: Start, visitor: Visitor) -> None:
    """Its address comes before that of a media server."""
    flags = ("--rtsp-port", "0", "--rtsp-url", "rtsp://127.0.0.1:9/garden", "--no-rtsp-autostart")
    portal = start_portal("--host", "0.0.0.0", *flags)
    address = ask(portal, "/status")["rtsp"]["url"].replace("127.0.0.1", "127.0.0.2")
    page = visitor.page()
    page.goto(f"http://127.0.0.2:{portal.url.rpartition(':')[2]}/")
    wait_for_state(page, "Live")
    open_tab(page, "links")
    expect(page.locator("#programs")).to_contain_text(address)
    assert "garden" not in page.locator("#programs").inner_text()


def test_publishing(start_portal: Start, visitor: Visitor) -> None:
    # Port 9 is closed: the page shows the error and the state of the switch.
    portal = start_portal("--rtsp-url", "rtsp://someone:secret@127.0.0.1:9/garden", "--no-rtsp-autostart")
    page = visitor.watch(portal)
    open_tab(page, "links")
    expect(page.locator("#publish-state")).to_have_text("Off")
    page.locator("#publish").check()
    wait_for_status(portal, streaming=True)
    expect(page.locator("#publish-error")).to_contain_text("refused", timeout=LIMIT_MS)
    expect(page.locator("#programs")).to_contain_text("rtsp://127.0.0.1:9/garden")
    assert "secret" not in page.content()
    assert least_gap(page, "links") >= 8
    shoot(page, "page-links")
    page.locator("#publish").uncheck()
    wait_for_status(portal, streaming=False)
    expect(page.locator("#publish-state")).to_have_text("Off", timeout=LIMIT_MS)
    assert visitor.complaints == []


def test_copy_address(portal: Portal, visitor: Visitor) -> None:
    page = visitor.watch(portal, permissions=["clipboard-read", "clipboard-write"])
    open_tab(page, "links")
    for program in ("OctoPrint", "Home Assistant", "VLC"):
        expect(page.locator("#programs")).to_contain_text(program)
    page.get_by_role("button", name="Copy: OctoPrint, Mainsail, Fluidd, Snapshot URL").click()
    expect(page.locator("#toast")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == f"{portal.url}/snapshot.jpg"
    for size in (DESK, PHONE):
        resize(page, size)
        assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
        shoot(page, f"page-links-{size[0]}")


def shows_width(camera: Locator, width: int) -> bool:
    return bool(camera.locator("img").evaluate("(image) => image.naturalWidth") == width)


def test_all_cameras(start_portal: Start, visitor: Visitor) -> None:
    second = start_portal()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    first = start_portal("--port", str(port), "--neighbours", f"Door={port},Garden={second.url.rpartition(':')[2]}")
    page = visitor.watch(first, PHONE)
    wait_until(lambda: page.locator("#cameras a").count() == 2, "tabs")
    for tab in page.locator("#cameras a").all():
        edges = tab.bounding_box()  # all of them can be seen, on a phone as well
        assert edges is not None
        assert edges["x"] + edges["width"] <= PHONE[0]
    page.locator("#wall-toggle").click()
    expect(page.locator(".camera")).to_have_count(2)
    for camera in page.locator(".camera").all():
        wait_until(partial(shows_width, camera, 640), "a picture")
        expect(camera).to_contain_text("Live")
    wait_for_status(first, viewers=0)  # the wall needs no stream
    for size in (PHONE, DESK):
        resize(page, size)
        assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
        shoot(page, f"page-wall-{size[0]}")
    before = shown(page, ".camera:last-child")
    wait_until(lambda: np.abs(shown(page, ".camera:last-child") - before).max() > 20, "moving pictures")
    assert visitor.complaints == []
    second.stop()
    expect(page.locator(".camera.stale")).to_have_count(1, timeout=LIMIT_MS)
    expect(page.locator(".camera.stale")).to_contain_text("No image")
    page.evaluate("location.hash = 'all'")
    page.reload(wait_until="domcontentloaded")
    expect(page.locator(".camera.stale")).to_contain_text("No image", timeout=LIMIT_MS)
    expect(page.locator(".camera.stale img")).to_be_hidden()  # not the browser's icon for a broken image
    page.locator("#cameras [aria-current]").click()
    wait_for_state(page, "Live")
