"""The controls of the page: drawn from the capabilities, set while dragging, updated by other browsers."""

import json
import re
import threading
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, Request, Route, expect

from tests.conftest import Portal
from tests.support.browser_client import (
    DESK,
    LIMIT_MS,
    PHONE,
    SIZES,
    WIDTH,
    Visitor,
    ask,
    resize,
    shoot,
    value_of,
    wait_for_state,
    wait_until,
)
from tests.support.http_client import status_of

CONTROLS = "/v1/camera/controls"
BRIGHTNESS = "#control-image_processing-brightness"
VALUE = "#control-image_processing-exposure_value"


def unfold(page: Page) -> None:
    """Open every section."""
    page.evaluate("document.querySelectorAll('details.section').forEach((each) => { each.open = true; })")


def row(page: Page, key: str) -> Locator:
    return page.locator(f'.row[data-key="{key}"]')


def drag(page: Page, slider: Locator, *parts: float) -> None:
    """Drag the slider's thumb to these parts of its length, in many small steps."""
    slider.scroll_into_view_if_needed()
    box = slider.bounding_box()
    assert box is not None
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] / 2, y)
    page.mouse.down()
    for part in parts:
        page.mouse.move(box["x"] + part * box["width"], y, steps=25)
    page.mouse.up()


def test_all_controls(portal: Portal, visitor: Visitor) -> None:
    page = visitor.watch(portal)
    unfold(page)
    controls = ask(portal, CONTROLS)["controls"]
    wanted = {
        f"{group}.{name}"
        for group, content in controls.items()
        for name, field in content["fields"].items()
        if field["available"] is not False and group != "roi"  # which is on the picture
    }
    found = set(page.locator("#sections .row").evaluate_all("rows => rows.map((row) => row.dataset.key)"))
    assert found == wanted
    assert len(wanted) > 35
    for key in wanted:
        group, name = key.split(".")
        field = controls[group]["fields"][name]
        if field["type"] in ("integer", "number") and name != "rotation":
            assert row(page, key).locator("input[type=range]").count() == 1, key
            assert row(page, key).locator("input[type=number]").count() == 1, key
        if field["type"] == "choice":
            assert row(page, key).locator("option").count() >= len(field["choices"]), key
    assert row(page, "manual_exposure.exposure_us").locator(".unit").inner_text() == "µs"
    assert row(page, "image_processing.brightness").locator(".default").count() == 1
    assert [words for words in page.locator(".help").all_inner_texts() if "null" in words] == []  # programs say that
    for size in SIZES.values():
        resize(page, size)
        assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
        edge = page.locator("#sections *").evaluate_all(
            "(all) => Math.max(...all.map((each) => each.getBoundingClientRect().right))"
        )
        assert edge <= size[0]
        shoot(page, f"page-controls-{size[0]}")
    assert visitor.complaints == []


def test_unsupported_controls(portal: Portal, visitor: Visitor) -> None:
    page = visitor.page()

    def poorer(route: Route) -> None:
        content = route.fetch().json()
        for group in ("lens_position", "autofocus", "autofocus_mode", "autofocus_range"):
            for field in content["controls"][group]["fields"].values():
                field |= {"available": False, "reason": "this camera has no autofocus"}
        route.fulfill(json=content)

    page.route(f"**{CONTROLS}", poorer)
    page.goto(portal.url + "/")
    expect(page.locator("#unsupported")).to_contain_text("Autofocus")
    assert page.get_by_role("heading", name="Focus", exact=True).count() == 0
    assert page.locator("#sections .row").count() > 20


def test_panel_starts_at_top(portal: Portal, visitor: Visitor) -> None:
    page = visitor.watch(portal, PHONE)
    unfold(page)
    page.locator("#reset-all").scroll_into_view_if_needed()
    assert page.evaluate("scrollY") > 1000
    page.locator("#tab-links").click()
    tabs, first = page.locator("#tabs").bounding_box(), page.locator("#programs").bounding_box()
    assert tabs is not None
    assert first is not None
    assert first["y"] >= tabs["y"] + tabs["height"]
    assert tabs["y"] < PHONE[1] / 2  # and the picture is still in sight


def test_drag_sends_limited_requests(portal: Portal, visitor: Visitor) -> None:
    page = visitor.watch(portal)
    bodies: list[dict[str, Any]] = []
    lock = threading.Lock()
    under_way = most_under_way = 0

    def begin(request: Request) -> None:
        nonlocal under_way, most_under_way
        if request.method == "POST":
            with lock:
                bodies.append(json.loads(request.post_data or ""))
                under_way += 1
                most_under_way = max(most_under_way, under_way)

    def end(request: Request) -> None:
        nonlocal under_way
        if request.method == "POST":
            with lock:
                under_way -= 1

    page.on("request", begin)
    page.on("requestfinished", end)
    slider = page.locator(VALUE + "-slider")
    drag(page, slider, 0.75, 0.6, 1.0)
    wait_until(lambda: value_of(portal, "image_processing", "exposure_value") == 3, "the last place of the hand")
    page.evaluate("1")  # events of requests are delivered during calls
    values = [body["exposure_value"] for body in bodies]
    assert most_under_way == 1
    assert 2 < len(values) < 75  # while it moved, and not at each of the hand's steps
    assert values[-1] == 3
    expect(page.locator(VALUE)).to_have_value("3")
    assert visitor.complaints == []


def test_only_newest_value_is_sent(portal: Portal, visitor: Visitor) -> None:
    page = visitor.watch(portal)
    held: list[Route] = []
    page.route("**/v1/camera/image_processing", lambda route: held.append(route))
    drag(page, page.locator(VALUE + "-slider"), 0.6, 0.7, 0.8)
    wait_until(lambda: len(held) == 1, "the first value on its way")
    first = held.pop()
    assert json.loads(first.request.post_data or "")["exposure_value"] != 1.8
    first.continue_()
    wait_until(lambda: page.evaluate("1") and len(held) == 1, "the second one")
    assert held[0].request.post_data_json == {"exposure_value": pytest.approx(1.8, abs=0.1)}
    held.pop().continue_()
    wait_until(lambda: value_of(portal, "image_processing", "exposure_value") > 1.6, "the value")
    page.evaluate("1")
    assert held == []


def test_change_before_controls_are_loaded(portal: Portal, visitor: Visitor) -> None:
    page = visitor.page()
    silence = ["the portal does not say what can be set"]
    page.route("**" + CONTROLS, lambda route: route.abort() if silence else route.continue_())
    page.goto(portal.url + "/", wait_until="domcontentloaded")
    wait_for_state(page, "Live")
    page.locator("#view summary").click()
    page.locator("#rotate").click()
    silence.clear()
    expect(page.locator('[name=control-transform-rotation][value="90"]')).to_be_checked(timeout=LIMIT_MS)
    assert value_of(portal, "transform", "rotation") == 90
    page.locator("#hflip").click()  # nor is anything held up by the first one
    expect(page.locator("#control-transform-hflip")).to_be_checked(timeout=LIMIT_MS)
    assert value_of(portal, "transform", "hflip") is True
    assert [each for each in visitor.complaints if "ERR_FAILED" not in each] == []


def test_slider_released_at_start_value(portal: Portal, visitor: Visitor) -> None:
    """Browsers send no change event if the value is the same as at the start."""
    page = visitor.watch(portal)
    unfold(page)
    slider = page.locator(BRIGHTNESS + "-slider")
    slider.scroll_into_view_if_needed()
    box = slider.bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 0.2 * box["width"], y)
    wait_until(lambda: value_of(portal, "image_processing", "brightness") > 0.3, "the value under the hand")
    page.mouse.move(x, y + 40)  # beside it, as hands are
    wait_until(lambda: value_of(portal, "image_processing", "brightness") == 0, "the value that it began with")
    page.mouse.up()
    ask(portal, "/v1/camera/image_processing", {"brightness": 0.2})
    expect(page.locator(BRIGHTNESS)).to_have_value("0.2", timeout=LIMIT_MS)


def test_changes_of_another_browser(portal: Portal, visitor: Visitor) -> None:
    here, there = visitor.watch(portal), visitor.watch(portal, PHONE)
    unfold(here)
    unfold(there)
    there.locator(BRIGHTNESS).fill("0.4")
    there.locator(BRIGHTNESS).press("Enter")
    expect(here.locator(BRIGHTNESS)).to_have_value("0.4", timeout=LIMIT_MS)
    expect(row(here, "image_processing.brightness")).to_have_class(re.compile(r"\bset\b"))
    here.locator(BRIGHTNESS + "-slider").press("End")
    expect(there.locator(BRIGHTNESS)).to_be_focused()
    expect(there.locator(BRIGHTNESS)).to_have_value("1", timeout=LIMIT_MS)  # though the cursor still stands in it
    there.locator(BRIGHTNESS).press_sequentially("5")
    ask(portal, "/v1/camera/image_processing", {"brightness": 0.2})
    expect(here.locator(BRIGHTNESS)).to_have_value("0.2", timeout=LIMIT_MS)
    expect(there.locator(BRIGHTNESS)).to_have_value("15")  # but not while the user types
    there.locator(BRIGHTNESS).press("Enter")
    expect(here.locator(BRIGHTNESS)).to_have_value("1", timeout=LIMIT_MS)  # the most that there is
    here.locator("#control-image_processing-metering").select_option("spot")
    expect(there.locator("#control-image_processing-metering")).to_have_value("spot", timeout=LIMIT_MS)
    assert visitor.complaints == []


def test_reset(portal: Portal, visitor: Visitor) -> None:
    page = visitor.watch(portal)
    unfold(page)
    ask(portal, "/v1/camera/image_processing", {"brightness": 0.5, "contrast": 1.5})
    ask(portal, "/v1/camera/manual_exposure", {"exposure_us": 5000, "gain": 2})
    brightness = row(page, "image_processing.brightness")
    expect(brightness).to_have_class(re.compile(r"\bset\b"), timeout=LIMIT_MS)
    brightness.get_by_role("button").click()
    wait_until(lambda: value_of(portal, "image_processing", "brightness") == 0, "one default")
    assert value_of(portal, "image_processing", "contrast") == 1.5
    expect(brightness.get_by_role("button")).to_be_hidden(timeout=LIMIT_MS)
    # Exposure by hand goes back to the automatic.
    row(page, "manual_exposure.exposure_us").get_by_role("button").click()
    wait_until(lambda: status_of(portal)["auto_exposure"], "the automatic exposure")
    page.locator("#reset-all").click()
    expect(page.locator("#confirm")).to_contain_text("Every control is reset")
    page.locator("#confirm-yes").click()
    wait_until(lambda: value_of(portal, "image_processing", "contrast") == 1, "all defaults")
    expect(page.locator("#toast")).to_contain_text("reset to their defaults")


def test_reset_without_default(portal: Portal, visitor: Visitor) -> None:
    """A field without a default is reset to the camera's choice, alone."""
    page = visitor.watch(portal)
    unfold(page)
    mode = row(page, "autofocus_mode.mode")
    expect(mode.get_by_role("button")).to_be_hidden()
    mode.locator("select").select_option("manual")
    expect(mode).to_have_class(re.compile(r"\bset\b"))
    mode.get_by_role("button").click()
    wait_until(lambda: value_of(portal, "autofocus_mode", "mode") == "continuous", "the camera's own focus")
    expect(mode).not_to_have_class(re.compile(r"\bset\b"))
    expect(mode.get_by_role("button")).to_be_hidden()

    ask(portal, "/v1/camera/stream", {"width": 640, "height": 360, "fps": 10})
    width = row(page, "stream.width")
    expect(width).to_have_class(re.compile(r"\bset\b"))
    assert width.get_by_role("switch").count() == 0  # a stream always has a width
    width.get_by_role("button").click()
    wait_until(lambda: value_of(portal, "stream", "width") == WIDTH, "the width of the configuration")
    assert (value_of(portal, "stream", "height"), value_of(portal, "stream", "fps")) == (360, 10)
    expect(width.get_by_role("button")).to_be_hidden()
    assert visitor.complaints == []


def test_manual_exposure_starts_at_automatic_value(portal: Portal, visitor: Visitor) -> None:
    page = visitor.watch(portal)
    exposure = page.locator("#control-manual_exposure-exposure_us")
    expect(exposure).to_have_value(re.compile(r"^[1-9]\d+$"))
    gain = status_of(portal)["analogue_gain"]
    exposure.fill("4000")
    exposure.press("Enter")
    wait_until(lambda: status_of(portal)["exposure_us"] == pytest.approx(4000, rel=0.05), "the time")
    assert status_of(portal)["analogue_gain"] == pytest.approx(gain, rel=0.05)  # it does not jump
    expect(page.locator("#control-auto_exposure-enabled")).not_to_be_checked(timeout=LIMIT_MS)


def test_keyboard(portal: Portal, visitor: Visitor) -> None:
    page = visitor.watch(portal, PHONE)
    for size, second in ((PHONE, "graphs"), (DESK, "recordings")):
        resize(page, size)
        page.locator("#tab-controls").focus()
        page.keyboard.press("ArrowRight")
        expect(page.locator(f"#{second}")).to_be_visible()
        page.keyboard.press("Home")
        expect(page.locator("#controls")).to_be_visible()
    names: list[str] = []
    for _ in range(14):
        page.keyboard.press("Tab")
        names.append(page.evaluate("document.activeElement.id"))
    assert "control-auto_exposure-enabled" in names
    page.locator(VALUE + "-slider").focus()
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    wait_until(lambda: value_of(portal, "image_processing", "exposure_value") > 0.2, "the slider's value")
    page.locator("#control-auto_exposure-enabled").focus()
    page.keyboard.press("Space")
    wait_until(lambda: status_of(portal)["auto_exposure"] is False, "the held exposure")
    page.locator("#view summary").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#view .popup")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#view .popup")).to_be_hidden()
    assert page.evaluate("document.activeElement.tagName") == "SUMMARY"
    assert visitor.complaints == []


def test_rejected_change(portal: Portal, visitor: Visitor) -> None:
    page = visitor.watch(portal)
    unfold(page)
    ask(portal, "/v1/camera/exposure_limits", {"max_exposure_us": 10000})
    expect(page.locator("#control-exposure_limits-max_exposure_us")).to_have_value("10000", timeout=LIMIT_MS)
    page.locator("#control-exposure_limits-min_exposure_us-on").check()
    least = page.locator("#control-exposure_limits-min_exposure_us")
    least.fill("20000")
    least.press("Enter")
    expect(page.locator("#toast")).to_contain_text("must be at most")
    expect(row(page, "exposure_limits.min_exposure_us").locator(".error")).to_contain_text("must be at most")
    least.blur()
    expect(least).not_to_have_value("20000", timeout=LIMIT_MS)


def test_stream_restarts_only_when_the_hand_lets_go(portal: Portal, visitor: Visitor) -> None:
    page = visitor.watch(portal)
    unfold(page)
    posts: list[str] = []
    page.on("request", lambda request: posts.append(request.url) if request.method == "POST" else None)
    drag(page, page.locator("#control-stream-width-slider"), 0.3, 0.15)
    wait_until(lambda: (value_of(portal, "stream", "width") or 9999) < WIDTH, "another width")
    page.evaluate("1")  # events of requests are delivered during calls
    assert len(posts) == 1
