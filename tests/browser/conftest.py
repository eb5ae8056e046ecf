"""Fixtures of the browser tests: Debian's Chromium, and pages whose console messages are collected."""

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
    """Additional flags of Chromium; a module may override them."""
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
    """10 fps by default: a browser without a GPU needs much time for each frame."""

    def start(*flags: str, **options: Any) -> Portal:
        return start_portal(*flags, *(() if "--fps" in flags else ("--fps", "10")), **options)

    return start


@pytest.fixture
def visitor(browser: Browser) -> Iterator[Visitor]:
    visitor = Visitor(browser)
    yield visitor
    for context in browser.contexts:
        for page in context.pages:
            # A response that a route of the test is still changing would fail there, and with it the next test.
            page.unroute_all(behavior="ignoreErrors")
        context.close()


@pytest.fixture
def faults(tmp_path: Path) -> Path:
    """The file that controls faults of the pattern camera; initially empty."""
    path = tmp_path / "faults"
    path.write_text("")
    return path
