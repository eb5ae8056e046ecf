"""The API documentation in a real browser: everything is shown, can be tried, and is self-contained."""

import json
import subprocess
import sys
import threading
from pathlib import Path

from playwright.sync_api import Locator, Page, expect

from tests.conftest import Portal
from tests.support.browser_client import DESK, KEY, PHONE, Start, Visitor, resize, shoot
from tests.support.http_client import ask
from tests.support.timeouts import RUN_LIMIT_S


def test_show_and_try(portal: Portal, visitor: Visitor) -> None:
    page = visitor.page()
    page.goto(f"{portal.url}/docs")
    expect(page.locator("h1")).to_contain_text("Soft Stream")
    paths = ask(portal, "/openapi.json").json["paths"].values()
    expect(page.locator("section h2")).to_have_count(len({each["tags"][0] for path in paths for each in path.values()}))
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
    expect(gone.locator("pre")).to_contain_text("/v1/recordings/2026-01-31_12-00-00.mp4")  # an example
    gone.get_by_label("name", exact=True).fill("")
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


def snippet(part: Locator, language: str) -> str:
    part.get_by_label("Code").select_option(language)
    return part.locator("pre").inner_text()


def test_snippets_run(start_portal: Start, visitor: Visitor, tmp_path: Path) -> None:
    """What is shown for curl, Python and JavaScript runs as it is, with the key in place of YOUR_KEY."""
    portal = start_portal(environment={"CAMERA_API_KEY": KEY})
    page = visitor.page(http_credentials={"username": "anybody", "password": KEY})
    page.goto(f"{portal.url}/docs")
    awb = operation(page, "post", "/v1/camera/manual_awb")
    awb.locator("textarea").fill('{"red_gain": 1.5,\n "blue_gain": 2}')
    for language in ("curl", "Python"):
        code = snippet(awb, language).replace("YOUR_KEY", KEY)
        command = ["bash", "-c", f"{code} -sS"] if language == "curl" else [sys.executable, "-c", code]
        done = subprocess.run(command, capture_output=True, text=True, timeout=RUN_LIMIT_S)
        assert (done.returncode, done.stderr) == (0, "")
        assert '{"status":"ok","red_gain":1.5,"blue_gain":2.0}' in done.stdout, language
    code = snippet(awb, "JavaScript").replace("YOUR_KEY", KEY)
    log, returned = (
        "console.log(response.status, await response.text())",
        "return [response.status, await response.text()]",
    )
    assert log in code
    result = page.evaluate(f"(async () => {{ {code.replace(log, returned)} }})()")
    assert result == [200, '{"status":"ok","red_gain":1.5,"blue_gain":2.0}\n']
    picture = operation(page, "get", "/snapshot.jpg")
    picture.get_by_label("width", exact=True).fill("320")
    code = snippet(picture, "curl").replace("YOUR_KEY", KEY).replace("FILE", "picture.jpg")
    subprocess.run(["bash", "-c", f"{code} -sS"], cwd=tmp_path, check=True, timeout=RUN_LIMIT_S)
    assert (tmp_path / "picture.jpg").read_bytes()[:2] == b"\xff\xd8"
    code = snippet(operation(page, "get", "/v1/system/logs/stream"), "curl").replace("YOUR_KEY", KEY)
    with subprocess.Popen(["bash", "-c", f"exec {code} -sS"], stdout=subprocess.PIPE, text=True, cwd=tmp_path) as live:
        assert live.stdout is not None
        deadline = threading.Timer(RUN_LIMIT_S, live.kill)
        deadline.start()
        first = live.stdout.readline()
        deadline.cancel()
        live.terminate()
    assert first.startswith("retry: "), "the log is printed"
    assert "read1" in snippet(operation(page, "get", "/stream.mjpg"), "Python")
    assert awb.locator("pre").inner_text().startswith("import urllib"), "the language is that of all snippets"


def test_aliases_are_one_row(portal: Portal, visitor: Visitor) -> None:
    page = visitor.page()
    page.goto(f"{portal.url}/docs")
    part = operation(page, "get", "/v1/camera/status")
    expect(part).to_contain_text("Also under /api/camera/status, /camera/status, /status")
    expect(page.locator("summary .path").get_by_text("/camera/status", exact=True)).to_have_count(0)
    with page.expect_download() as download:
        page.get_by_role("link", name="Collection for Postman").click()
    made = json.loads(download.value.path().read_text())
    assert made["variable"][0] == {"key": "baseUrl", "value": portal.url}
