"""What the tests in a browser share: Debian's Chromium, and a visitor who hears what pages complain of."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from tests.conftest import Portal
from tests.support.browser_client import LIMIT_MS, Start, Visitor

ARGUMENTS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking")

expect.set_options(timeout=LIMIT_MS)  # Playwright's own five seconds are too few beside other tests


@pytest.fixture(scope="module")
def browser_flags() -> tuple[str, ...]:
    """What Chromium is started with beyond the usual; a module may have its own."""
    return ()


@pytest.fixture(scope="module")
def browser(browser_flags: tuple[str, ...]) -> Iterator[Browser]:
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("needs chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=[*ARGUMENTS, *browser_flags])
        yield browser
        browser.close()


@pytest.fixture
def start_portal(start_portal: Start) -> Start:
    """Ten pictures a second unless a test wants others: a browser without a GPU is at work with each."""

    def start(*flags: str, **options: Any) -> Portal:
        return start_portal(*flags, *(() if "--fps" in flags else ("--fps", "10")), **options)

    return start


@pytest.fixture
def visitor(browser: Browser) -> Iterator[Visitor]:
    visitor = Visitor(browser)
    yield visitor
    for context in browser.contexts:
        for page in context.pages:
            # An answer that a test's own route is still about to change would fail there, and with it the next test.
            page.unroute_all(behavior="ignoreErrors")
        context.close()


@pytest.fixture
def faults(tmp_path: Path) -> Path:
    """The file that orders faults from the pattern camera; empty at first."""
    path = tmp_path / "faults"
    path.write_text("")
    return path
