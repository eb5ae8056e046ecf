"""Accessibility, checked with axe-core: contrast, names for screen readers, reduced motion."""

import re

from playwright.sync_api import Page, expect

from tests.conftest import Portal
from tests.support.browser_client import AXE, LIMIT_MS, SIZES, Start, Visitor, ask, judge, resize, wait_for_state


def show(page: Page, name: str) -> None:
    tab = page.locator(f"#tab-{name}")
    if tab.is_visible():
        tab.click()
    expect(page.locator(f"#{name}")).to_be_visible()


def test_axe(recorder: Portal, visitor: Visitor) -> None:
    """The whole page once for each layout, then only what another tab or a dialog shows."""
    ask(recorder, "/v1/recordings/still", {})
    ask(recorder, "/v1/streaming/start", {})
    page = visitor.watch(recorder, reduced_motion="reduce")
    page.evaluate("document.querySelectorAll('details.section').forEach((each) => { each.open = true; })")
    page.evaluate(AXE)
    page.locator("#presets summary").click()
    for size in SIZES.values():
        resize(page, size)
        show(page, "controls")
        judge(page)
        show(page, "log")
        judge(page, "#log")
    for name in ("graphs", "recordings", "links"):
        show(page, name)
        if name == "recordings":
            expect(page.locator(".recording")).to_have_count(1, timeout=LIMIT_MS)
        judge(page, f"#{name}")
    page.locator("#view summary").click()
    judge(page, "#view")
    page.keyboard.press("Escape")
    show(page, "recordings")
    page.get_by_role("button", name="Show: Photo").click()
    judge(page, "#player")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Delete: Photo").click()
    judge(page, "#confirm")
    page.keyboard.press("Escape")
    show(page, "controls")
    page.locator("#preset-save").click()
    judge(page, "#enter")


def test_axe_while_disconnected(start_portal: Start, visitor: Visitor) -> None:
    portal = start_portal()
    page = visitor.watch(portal, reduced_motion="reduce")
    page.evaluate("document.getElementById('control-stream-width').closest('details').open = true")
    ask(portal, "/v1/camera/image_processing", {"brightness": 0.4})
    portal.stop()
    wait_for_state(page, "No connection")
    page.locator("#snapshot").click()
    expect(page.locator("#toast")).to_be_visible()
    page.evaluate(AXE)
    judge(page)


def test_accessible_names(recorder: Portal, visitor: Visitor) -> None:
    page = visitor.watch(recorder)
    page.evaluate("document.querySelectorAll('details.section').forEach((each) => { each.open = true; })")
    snapshot = page.locator("body").aria_snapshot()
    for words in (
        "status: Live",
        'button "Zoom in"',
        'button "Full screen"',
        'tab "Controls" [selected]',
        'slider "Exposure time"',
        'spinbutton "Exposure time"',
        'switch "Automatic exposure"',
        'combobox "Metering"',
    ):
        assert words in snapshot, words
    slider = page.locator("#control-manual_exposure-exposure_us-slider")
    expect(slider).to_have_attribute("aria-valuetext", re.compile(r"^[\d.]+\sms$"), timeout=LIMIT_MS)


def test_reduced_motion(portal: Portal, visitor: Visitor) -> None:
    page = visitor.watch(portal, reduced_motion="reduce")
    moving = page.locator("*").evaluate_all(
        "(all) => all.filter((each) => getComputedStyle(each).transitionDuration !== '0s').length"
    )
    assert moving == 0
