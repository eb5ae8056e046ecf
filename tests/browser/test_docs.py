"""The API documentation in a real browser: everything is shown, can be tried, and is self-contained."""

from playwright.sync_api import Locator, Page, expect

from tests.conftest import Portal
from tests.support.browser_client import DESK, KEY, PHONE, Start, Visitor, resize, shoot


def test_show_and_try(portal: Portal, visitor: Visitor) -> None:
    page = visitor.page()
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
    for size in (DESK, PHONE):
        resize(page, size)
        assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
        box = page.locator("#docs").bounding_box()
        assert box is not None
        assert box["width"] > 0.6 * size[0]  # the text has the page to itself
        shoot(page, f"docs-{size[0]}")
    # The browser logs the response to the invalid body.
    assert [text for text in visitor.complaints if "400" not in text] == []
    assert visitor.foreign(portal) == []


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
    expect(gone.locator("output")).to_be_empty()  # nothing is requested without a name
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
