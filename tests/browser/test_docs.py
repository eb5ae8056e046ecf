"""The API documentation in a real browser: everything is shown, can be tried, and is self-contained."""

import shutil

import pytest
from playwright.sync_api import ConsoleMessage, Locator, Page, expect, sync_playwright

from tests.conftest import PROJECT, Portal
from tests.support.browser_client import KEY, Start, Visitor

SHOTS = PROJECT / "build" / "screenshots"


@pytest.mark.parametrize("size", [(1440, 900), (390, 844)])
def test_show_and_try(portal: Portal, size: tuple[int, int]) -> None:
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("needs chromium")
    complaints: list[str] = []
    asked: list[str] = []

    def hear(message: ConsoleMessage) -> None:
        # An invalid body is sent on purpose below, and the browser logs every 400.
        if "400" not in message.text:
            complaints.append(message.text)

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--headless", "--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": size[0], "height": size[1]})
        page.on("console", hear)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"{portal.url}/docs")
        expect(page.locator("h1")).to_contain_text("Soft Stream")
        expect(page.locator("section h2")).to_have_count(6)
        status = page.locator("details", has_text="/v1/camera/status")
        status.locator("summary").click()
        status.get_by_role("button", name="Try it").click()
        expect(status.locator("output")).to_contain_text("200 OK")
        lens = page.locator("details", has_text="/v1/camera/lens_position")
        lens.locator("summary").click()
        lens.locator("textarea").fill('{"position": 99}')
        lens.get_by_role("button", name="Try it").click()
        expect(lens.locator("output")).to_contain_text("position: must be a number from 0 to 15")
        lens.locator("textarea").fill('{"position": 2.5}')
        lens.get_by_role("button", name="Try it").click()
        expect(lens.locator("output")).to_contain_text('"status":"ok"')
        SHOTS.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=SHOTS / f"docs-{size[0]}.png")
        width = page.evaluate("document.documentElement.scrollWidth")
        browser.close()
    assert complaints == []
    assert {url for url in asked if not url.startswith(portal.url)} == set()
    assert width <= size[0]


def test_parameters(portal: Portal, visitor: Visitor) -> None:
    page = visitor.page()
    page.goto(f"{portal.url}/docs")
    snapshot = operation(page, "get", "/snapshot.jpg")
    snapshot.get_by_label("width", exact=True).fill("320")
    snapshot.get_by_label("format", exact=True).fill("a b")
    expect(snapshot.get_by_role("link", name="Open")).to_have_attribute("href", "snapshot.jpg?width=320&format=a+b")
    mode = operation(page, "get", "/")
    mode.get_by_label("action", exact=True).fill("stream")
    expect(mode.get_by_role("link", name="Open")).to_have_attribute("href", "?action=stream")
    gone = operation(page, "delete", "/v1/recordings/{name}")
    gone.get_by_role("button", name="Try it").click()
    expect(gone.locator("output")).to_be_empty()  # nothing is asked without a name
    gone.get_by_label("name", exact=True).fill("no such/file")
    with page.expect_request("**/v1/recordings/no%20such%2Ffile") as asked:
        gone.get_by_role("button", name="Try it").click()
    assert asked.value.method == "DELETE"
    expect(gone.locator("output")).to_contain_text("409 Conflict")  # this portal has no folder for them


def operation(page: Page, method: str, path: str) -> Locator:
    """The part of the page that shows it, opened."""
    exactly = page.get_by_text(path, exact=True)
    part = page.locator("details").filter(has=page.locator(f'[data-method="{method}"]')).filter(has=exactly)
    part.locator("summary").click()
    return part


def test_credentials_in_url(start_portal: Start, visitor: Visitor) -> None:
    """Browsers refuse to fetch what they would find below such an address."""
    portal = start_portal(environment={"CAMERA_API_KEY": KEY})
    page = visitor.page()
    page.goto(portal.url.replace("//", f"//anybody:{KEY}@") + "/docs")
    expect(page.locator("h1")).to_contain_text("Soft Stream")
    status = page.locator("details", has_text="/v1/camera/status")
    status.locator("summary").click()
    status.get_by_role("button", name="Try it").click()
    expect(status.locator("output")).to_contain_text("200 OK")
    assert visitor.complaints == []
