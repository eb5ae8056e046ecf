"""The live picture: zoom, pan, focus, rotation and transports."""

import re
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from playwright.sync_api import Page, Route, expect

from tests.conftest import Portal
from tests.support.browser_client import (
    DESK,
    LIMIT_MS,
    PHONE,
    SIZES,
    WIDTH,
    Start,
    Visitor,
    ask,
    look,
    resize,
    shoot,
    value_of,
    wait_for_state,
    wait_until,
)
from tests.support.http_client import status_of, wait_for_status

ROI = "/v1/camera/roi"
WHOLE = {"x": 0, "y": 0, "width": 1, "height": 1}
# The widths and heights of both at the same time, after the page has reacted to a new size of the stage.
FRAME_AND_STAGE = """() => new Promise((resolve) => requestAnimationFrame(() => setTimeout(() => resolve(
    ["frame", "stage"].flatMap((id) => { const box = document.getElementById(id).getBoundingClientRect();
        return [box.width, box.height]; })))))"""
# Records the sizes of the stage from the beginning.
STAGE_SIZES = """window.sizes = [];
document.addEventListener("DOMContentLoaded", () => new ResizeObserver(([{contentRect: box}]) =>
    window.sizes.push(`${box.width}x${box.height}`)).observe(document.getElementById("stage")));"""


def middle(page: Page) -> tuple[float, float]:
    box = page.locator("#stage").bounding_box()
    assert box is not None
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def roi_of(portal: Portal) -> dict[str, float] | None:
    roi: dict[str, float] | None = status_of(portal)["roi"]
    return roi


def wait_for_own_zoom(page: Page) -> None:
    """Wait until the camera's zoom has replaced the browser's."""
    expect(page.locator("#layer")).not_to_have_attribute("style", re.compile("scale"), timeout=LIMIT_MS)


def choose_in_view(page: Page, name: str) -> None:
    page.locator("#view").get_by_role("radio", name=name, exact=True).check()


def likeness(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Correlation: 1 if the images differ only in brightness and contrast."""
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])


def scale_of(page: Page) -> float:
    return float(page.evaluate("new DOMMatrix(getComputedStyle(document.getElementById('layer')).transform).a"))


def test_zoom_by_wheel(portal: Portal, visitor: Visitor) -> None:
    page = visitor.watch(portal)
    held: list[Route] = []
    page.route("**" + ROI, lambda route: held.append(route))
    x, y = middle(page)
    page.mouse.move(x, y)
    page.mouse.wheel(0, -300)
    wait_until(lambda: scale_of(page) > 1.8, "zoom in the browser")
    assert roi_of(portal) is None or roi_of(portal) == WHOLE
    wait_until(lambda: page.evaluate("1") and held, "the zoom request")
    held.pop().continue_()
    page.unroute("**" + ROI)
    wait_until(lambda: (roi_of(portal) or WHOLE)["width"] < 0.6, "zoom of the camera")
    wait_for_own_zoom(page)
    roi = roi_of(portal)
    assert roi is not None
    assert roi["x"] + roi["width"] / 2 == pytest.approx(0.5, abs=0.02)
    assert roi["y"] + roi["height"] / 2 == pytest.approx(0.5, abs=0.02)
    expect(page.locator("#zoom-reset")).to_have_text("2.1\u00d7")
    shoot(page, "page-zoomed")

    page.locator("#zoom-reset").click()  # the way back
    wait_until(lambda: (roi_of(portal) or WHOLE)["width"] == 1, "the whole picture")
    wait_for_own_zoom(page)
    expect(page.locator("#zoom-reset")).to_be_disabled()
    assert visitor.complaints == []


@pytest.mark.parametrize("is_mirrored", [False, True])
def test_zoom_handover(portal: Portal, visitor: Visitor, is_mirrored: bool) -> None:
    """Browser and camera show the same region of the image."""
    ask(portal, "/v1/camera/transform", {"hflip": is_mirrored})
    ask(portal, "/v1/camera/lens_position", {"position": 1.8})  # another focus would change the shapes
    page = visitor.watch(portal)
    box = page.locator("#frame").bounding_box()
    assert box is not None
    x = 0.15 if is_mirrored else 0.85  # the large shapes of the pattern: fine bars look different when zoomed
    page.mouse.move(box["x"] + x * box["width"], box["y"] + 0.3 * box["height"])
    page.mouse.wheel(0, -200)
    wait_until(lambda: (roi_of(portal) or WHOLE)["width"] < 0.9, "zoom of the camera")
    wait_for_own_zoom(page)
    roi = roi_of(portal)
    assert roi is not None
    zoomed = look(page)
    ask(portal, ROI, WHOLE)
    expect(page.locator("#zoom-reset")).to_have_text("1.0\u00d7", timeout=LIMIT_MS)  # it follows another browser
    rows = np.clip(((np.arange(72) + 0.5) / 72 * roi["height"] + roi["y"]) * 72, 0, 71).astype(int)
    columns = np.clip(((np.arange(128) + 0.5) / 128 * roi["width"] + roi["x"]) * 128, 0, 127).astype(int)
    part, opposite = np.ix_(rows, columns), np.ix_(rows, 127 - columns[::-1])

    def shows_the_same_part() -> bool:
        # Details differ in size by the factor of the zoom, and what moves is elsewhere: the clock, the square.
        whole = look(page)
        right, wrong = likeness(zoomed, whole[part]), likeness(zoomed, whole[opposite])
        print(f"likeness of the part {right:.2f}, of the one opposite {wrong:.2f}")
        return right > max(0.45, 1.5 * wrong)

    wait_until(shows_the_same_part, "the same part of the whole picture")


def test_pan(portal: Portal, visitor: Visitor) -> None:
    page = visitor.page()
    ask(portal, ROI, {"x": 0.25, "y": 0.25, "width": 0.5, "height": 0.5})
    page.goto(portal.url + "/")
    wait_for_state(page, "Live")
    expect(page.locator("#zoom-reset")).to_have_text("2.0\u00d7", timeout=LIMIT_MS)
    x, y = middle(page)
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x - 100, y - 50, steps=4)
    page.mouse.up()
    wait_until(lambda: (roi_of(portal) or WHOLE)["x"] > 0.27, "the camera looks further right")
    roi = roi_of(portal)
    assert roi is not None
    assert roi["width"] == pytest.approx(0.5, abs=0.01)
    assert roi["y"] > 0.26
    wait_for_own_zoom(page)
    assert page.locator("#focus-ring").is_hidden()  # that was no click


def test_pinch_zoom(portal: Portal, visitor: Visitor) -> None:
    page = visitor.watch(portal, PHONE, has_touch=True, is_mobile=True)
    x, y = middle(page)
    fingers = page.context.new_cdp_session(page)

    def touch(kind: str, apart: float) -> None:
        points = [] if kind == "touchEnd" else [{"x": x - apart, "y": y, "id": 1}, {"x": x + apart, "y": y, "id": 2}]
        fingers.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    touch("touchStart", 30)
    for apart in (40, 50, 60, 70, 80, 90):
        touch("touchMove", apart)
    assert scale_of(page) > 2
    touch("touchEnd", 0)
    wait_until(lambda: (roi_of(portal) or WHOLE)["width"] < 0.5, "zoom of the camera")
    wait_for_own_zoom(page)


def test_keyboard(portal: Portal, visitor: Visitor) -> None:
    page = visitor.watch(portal)
    page.locator("#stage").focus()
    page.keyboard.press("+")
    page.keyboard.press("+")
    page.keyboard.press("ArrowRight")
    wait_until(lambda: (roi_of(portal) or WHOLE)["width"] < 0.7, "zoom of the camera")
    wait_for_own_zoom(page)
    roi = roi_of(portal)
    assert roi is not None
    assert roi["x"] + roi["width"] / 2 > 0.52
    page.keyboard.press("0")
    wait_until(lambda: (roi_of(portal) or WHOLE)["width"] == 1, "the whole picture")
    page.keyboard.press("Enter")
    expect(page.locator("#focus-ring")).to_have_class(re.compile("busy|good|bad"))


@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_click_to_focus(portal: Portal, visitor: Visitor, size: tuple[int, int]) -> None:
    page = visitor.watch(portal, size, has_touch=size == PHONE)
    wait_until(lambda: "can-focus" in (page.locator("#stage").get_attribute("class") or ""), "windows of autofocus")
    box = page.locator("#frame").bounding_box()
    assert box is not None
    x, y = box["x"] + 0.8 * box["width"], box["y"] + 0.4 * box["height"]
    if size == PHONE:
        page.touchscreen.tap(x, y)
    else:
        page.mouse.click(x, y)
    expect(page.locator("#focus-ring")).to_have_class(re.compile("good|bad"))
    shoot(page, f"page-focus-{size[0]}")
    window = value_of(portal, "autofocus", "window")
    assert window["x"] + window["width"] / 2 == pytest.approx(0.8, abs=0.02)
    assert window["y"] + window["height"] / 2 == pytest.approx(0.4, abs=0.03)
    expect(page.locator("#control-autofocus-window")).to_have_text("The point you clicked", timeout=LIMIT_MS)
    assert visitor.complaints == []


def test_no_focus_window_support(portal: Portal, visitor: Visitor) -> None:
    page = visitor.page()

    def without_windows(route: Any) -> None:
        content = route.fetch().json()
        content["controls"]["autofocus"]["fields"]["window"]["available"] = False
        route.fulfill(json=content)

    page.route("**/v1/camera/controls", without_windows)
    page.goto(portal.url + "/")
    wait_for_state(page, "Live")
    expect(page.locator("#sections .row").first).to_be_attached(timeout=LIMIT_MS)
    page.locator("#stage").click()
    assert page.locator("#focus-ring").is_hidden()
    assert value_of(portal, "autofocus", "window") is None


def test_fit_fill_and_real_size(start_portal: Start, visitor: Visitor) -> None:
    portal = start_portal("--width", "1536", "--height", "864")  # its picture is larger than every window
    page = visitor.watch(portal)

    def choose(name: str) -> tuple[float, ...]:
        page.locator("#view summary").click()
        choose_in_view(page, name)
        page.keyboard.press("Escape")
        return tuple(page.evaluate(FRAME_AND_STAGE))

    for size in SIZES.values():
        resize(page, size)
        width, height, stage_width, stage_height = choose("Fit")
        assert width <= stage_width + 1
        assert height <= stage_height + 1
        assert width / height == pytest.approx(16 / 9, rel=0.01)
        width, height, stage_width, stage_height = choose("Fill")
        assert width >= stage_width - 1
        assert height >= stage_height - 1
        assert width / height == pytest.approx(16 / 9, rel=0.01)
        width, height, *_ = choose("1:1")
        assert (width, height) == (1536, 864)
        assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    x, y = middle(page)
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x - 60, y, steps=3)
    page.mouse.up()
    moved = page.locator("#frame").bounding_box()
    assert moved is not None
    assert moved["x"] + moved["width"] / 2 == pytest.approx(x - 60, abs=1)
    assert (roi_of(portal) or WHOLE)["width"] == 1  # that was the browser's alone
    page.reload()
    wait_for_state(page, "Live")
    assert page.locator("#frame").bounding_box()["width"] == 1536  # type: ignore[index]  # it remembers


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_stage_keeps_its_size_when_values_arrive(portal: Portal, visitor: Visitor, size: tuple[int, int]) -> None:
    """Otherwise a click that begins at that moment misses its button."""
    page = visitor.page(size)
    page.add_init_script(STAGE_SIZES)
    page.goto(portal.url + "/")
    wait_for_state(page, "Live")
    for name in ("fps", "brightness", "viewers"):
        expect(page.locator(f"#fact-{name}")).to_have_text(re.compile(r"\d"), timeout=LIMIT_MS)
    page.evaluate("new Promise(requestAnimationFrame)")
    assert len(page.evaluate("window.sizes")) == 1


def test_full_screen(portal: Portal, visitor: Visitor) -> None:
    page = visitor.watch(portal)
    page.locator("#fullscreen").click()
    wait_until(lambda: page.evaluate("document.fullscreenElement?.id") == "stage", "full screen")
    page.locator("#fullscreen").click()
    wait_until(lambda: page.evaluate("document.fullscreenElement") is None, "the page again")


def test_rotate_and_flip(portal: Portal, visitor: Visitor) -> None:
    page = visitor.watch(portal)
    before = look(page)
    page.locator("#view summary").click()
    page.locator("#hflip").click()
    wait_for_status(portal, transform={"hflip": True, "vflip": False, "rotation": 0})
    wait_until(lambda: likeness(look(page)[:, ::-1], before) > 0.9, "a mirrored picture")
    page.locator("#hflip").click()
    wait_for_status(portal, transform={"hflip": False, "vflip": False, "rotation": 0})
    page.locator("#rotate").click()
    wait_until(lambda: page.evaluate("document.getElementById('picture').height") == WIDTH, "a picture on its end")
    frame = page.locator("#frame").bounding_box()
    assert frame is not None
    assert frame["height"] > frame["width"]
    page.keyboard.press("Escape")
    shoot(page, "page-turned")
    # Zoom and focus follow the turn: the upper right corner is what the camera has in its upper left.
    page.locator("#stage").click(position={"x": 5, "y": 5}, force=True)
    x, y = frame["x"] + frame["width"] - 30, frame["y"] + 30
    page.mouse.move(x, y)
    page.mouse.wheel(0, -300)
    wait_until(lambda: (roi_of(portal) or WHOLE)["width"] < 0.6, "zoom of the camera")
    roi = roi_of(portal)
    assert roi is not None
    assert roi["x"] < 0.1
    assert roi["y"] < 0.1
    wait_for_own_zoom(page)


def test_select_mp4(portal: Portal, visitor: Visitor) -> None:
    page = visitor.watch(portal)
    page.locator("#view summary").click()
    choose_in_view(page, "MP4")
    expect(page.locator("#stage")).to_have_attribute("data-transport", "mp4", timeout=LIMIT_MS)
    wait_for_state(page, "Live")
    first = look(page)
    wait_until(lambda: np.abs(look(page) - first).max() > 20, "a moving film")
    assert page.evaluate("document.getElementById('video').videoWidth") == WIDTH
    expect(page.locator("#age")).to_be_hidden()
    shoot(page, "page-mp4")
    choose_in_view(page, "MJPEG")
    expect(page.locator("#stage")).to_have_attribute("data-transport", "mjpeg", timeout=LIMIT_MS)
    wait_for_state(page, "Live")
    assert visitor.complaints == []


def test_slow_line_switches_to_mp4(start_portal: Start, visitor: Visitor) -> None:
    """In automatic mode the page switches to MP4 if MJPEG is too slow."""
    page = visitor.on_slow_line(start_portal("--bitrate", "400000"))
    expect(page.locator("#transport-now")).to_have_text("now MP4", timeout=3 * LIMIT_MS)
    expect(page.locator("#stage")).to_have_attribute("data-transport", "mp4", timeout=LIMIT_MS)
    wait_for_state(page, "Live")


def test_browser_without_mp4(portal: Portal, visitor: Visitor) -> None:
    page = visitor.page()
    page.add_init_script("MediaSource.isTypeSupported = () => false")
    page.goto(portal.url + "/")
    wait_for_state(page, "Live")
    page.locator("#view summary").click()
    choose_in_view(page, "MP4")
    expect(page.locator("#toast")).to_contain_text("This browser cannot play H.264")
    expect(page.locator("#stage")).to_have_attribute("data-transport", "mjpeg", timeout=LIMIT_MS)
    wait_for_state(page, "Live")


def test_hls_without_media_source_extensions(portal: Portal, visitor: Visitor) -> None:
    """As on an iPhone that is older than its ManagedMediaSource."""
    page = visitor.page()
    page.add_init_script("delete window.MediaSource; delete window.ManagedMediaSource;")
    page.goto(portal.url + "/")
    wait_for_state(page, "Live")
    page.locator("#view summary").click()
    choose_in_view(page, "MP4")
    expect(page.locator("#stage")).to_have_attribute("data-transport", "hls", timeout=LIMIT_MS)
    wait_for_state(page, "Live")
    first = look(page)
    wait_until(lambda: np.abs(look(page) - first).max() > 20, "a moving picture")
    assert page.evaluate("document.getElementById('video').videoWidth") == WIDTH
    choose_in_view(page, "MJPEG")
    expect(page.locator("#stage")).to_have_attribute("data-transport", "mjpeg", timeout=LIMIT_MS)
    wait_for_state(page, "Live")
    assert visitor.complaints == []
