"""Fixtures of the browser tests: Chromium, the portals that a module shares, pages with their messages."""

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from tests.conftest import Portal
from tests.support.browser_client import HEIGHT, LIMIT_MS, WIDTH, Start, Visitor, ask, find_chromium
from tests.support.http_client import reset

ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    # WebRTC over the loopback interface: addresses, and not names for multicast DNS.
    "--disable-features=WebRtcHideLocalIpsWithMdns",
    "--allow-loopback-in-peer-connection",
)
# A browser without a GPU needs much time for each frame.
PICTURE = ("--fps", "10", "--width", str(WIDTH), "--height", str(HEIGHT))

expect.set_options(timeout=LIMIT_MS)  # Playwright's own five seconds are too few beside other tests


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for a module, as a thread runs only one Playwright and the rig starts its own; contexts per test."""
    path = find_chromium()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def start_portal(start_portal: Start) -> Start:
    """As everywhere, but with the shared portals' picture by default."""

    def start(*flags: str, **options: Any) -> Portal:
        return start_portal(*PICTURE, *flags, **options)

    return start


@pytest.fixture(scope="module")
def portal_flags() -> tuple[str, ...]:
    return PICTURE


@pytest.fixture(scope="module")
def shared_recorder(start_shared_portal: Start, tmp_path_factory: pytest.TempPathFactory) -> Portal:
    return start_shared_portal(
        *PICTURE,
        "--recordings",
        str(tmp_path_factory.mktemp("kept")),
        "--rtsp-url",
        "rtsp://127.0.0.1:9/garden",
        "--no-rtsp-autostart",
    )


@pytest.fixture
def recorder(shared_recorder: Portal) -> Portal:
    """A portal with all features, without recordings; shared by the tests of a module."""
    reset(shared_recorder)
    ask(shared_recorder, "/v1/streaming/stop", {})
    for kind, running in ask(shared_recorder, "/v1/recordings")["running"].items():
        if running is not None:  # or just ended: then stopping it again changes nothing
            ask(shared_recorder, "/v1/recordings/stop", {"kind": kind})
    for recording in ask(shared_recorder, "/v1/recordings")["recordings"]:
        ask(shared_recorder, f"/v1/recordings/{recording['name']}", method="DELETE")
    return shared_recorder


@pytest.fixture
def visitor(browser: Browser) -> Iterator[Visitor]:
    visitor = Visitor(browser)
    yield visitor
    for context in browser.contexts:
        for page in context.pages:
            # A response that a route of the test is still changing would fail there, and with it the next test.
            page.unroute_all(behavior="ignoreErrors")
        context.close()
