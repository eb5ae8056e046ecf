"""The live log in a browser: `EventSource` with Basic authentication, also across a restart of the portal."""

import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Page

from tests.support.browser_client import KEY, Start, Visitor, wait_until

CREDENTIALS = {"username": "anyone", "password": KEY}
LISTEN = """() => { window.events = []; window.errors = [];
window.source = new EventSource("v1/system/logs/stream?format=json");
window.source.onmessage = (event) => window.events.push([event.lastEventId, event.data]);
window.source.onerror = () => window.errors.push(window.source.readyState); }"""


def events(page: Page) -> list[tuple[int, Any]]:
    return [(int(number), json.loads(data)) for number, data in page.evaluate("window.events")]


def test_live_log_across_a_restart(start_portal: Start, visitor: Visitor, tmp_path: Path) -> None:
    places = {"XDG_RUNTIME_DIR": str(tmp_path), "CAMERA_API_KEY": KEY, "CAMERA_VIEW_KEY": "look-only"}
    portal = start_portal(environment=places)
    port = str(urlsplit(portal.url).port)
    page = visitor.page(http_credentials=CREDENTIALS)
    page.goto(portal.url + "/docs")
    page.evaluate(LISTEN)
    wait_until(lambda: events(page), "the line that the client has connected")
    assert portal.stop() == 0
    fresh = start_portal("--port", port, environment=places)
    wait_until(
        lambda: any(entry["message"].startswith("Log client") and entry["run"] == 2 for _, entry in events(page)),
        "the connection to the fresh portal",
    )
    seen = events(page)
    assert [number for number, _ in seen] == list(range(seen[0][0], seen[0][0] + len(seen))), "each line once"
    assert [entry["id"] for _, entry in seen] == [number for number, _ in seen]
    messages = [entry["message"] for _, entry in seen]
    for expected in ("Stopping: SIGTERM", "Stopped", "Exit code 0"):
        assert expected in messages
    assert page.evaluate("[...new Set(window.errors)]") == [0], "it reconnects by itself"
    assert fresh.url


def test_view_key_has_no_log(start_portal: Start, visitor: Visitor) -> None:
    portal = start_portal(environment={"CAMERA_API_KEY": KEY, "CAMERA_VIEW_KEY": "look-only"})
    page = visitor.page(http_credentials={"username": "anyone", "password": "look-only"})
    page.goto(portal.url + "/docs")
    page.evaluate(LISTEN)
    wait_until(lambda: page.evaluate("window.source.readyState") == 2, "the end of the source")
    assert page.evaluate("fetch('v1/system/logs').then((answer) => answer.status)") == 403


def test_foreign_page_cannot_read_the_log(start_portal: Start, visitor: Visitor) -> None:
    """Without a key. Another port is another origin."""
    portal, foreign = start_portal(), start_portal()
    page = visitor.page()
    page.goto(foreign.url + "/health")  # a document without a policy
    found = page.evaluate(
        """async (portal) => {
        const read = (path) => fetch(portal + path).then(() => true, () => false);
        const listen = (path) => new Promise((resolve) => {
            const source = new EventSource(portal + path);
            source.onopen = () => resolve(true); source.onerror = () => resolve(false); });
        return {status: await read("/v1/camera/status"), log: await read("/v1/system/logs"),
            stream: await listen("/v1/system/logs/stream")}; }""",
        portal.url,
    )
    assert found == {"status": True, "log": False, "stream": False}
