"""The page at `/webrtc` in a real browser, against a real WHEP peer."""

import base64
import time
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.whep_peer import HEIGHT, WIDTH, WhepPeer, stay_on_loopback
from tests.conftest import Portal

Start = Callable[..., Portal]
Until = Callable[..., None]
LIMIT_MS = 30_000


@pytest.fixture(scope="module")
def browser_flags() -> tuple[str, ...]:
    # Addresses as they are and not as names for multicast DNS, and the loopback interface too.
    return ("--disable-features=WebRtcHideLocalIpsWithMdns", "--allow-loopback-in-peer-connection")


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1000, "height": 800})
    context.set_default_timeout(LIMIT_MS)
    yield context.new_page()
    context.close()


@pytest.fixture
def peer(monkeypatch: pytest.MonkeyPatch) -> Iterator[WhepPeer]:
    stay_on_loopback(monkeypatch)
    with WhepPeer() as peer:
        yield peer


def plays(page: Page, wait_until: Until) -> None:
    """The video shows frames, and more of them."""
    expect(page.locator("#state")).to_have_text("live", timeout=LIMIT_MS)
    expect(page.locator("#notice")).to_be_hidden()
    size = page.evaluate(
        "(() => { const v = document.getElementById('video'); return [v.videoWidth, v.videoHeight]; })()"
    )
    assert size == [WIDTH, HEIGHT]
    first_s = page.evaluate("document.getElementById('video').currentTime")
    wait_until(lambda: page.evaluate("document.getElementById('video').currentTime") > first_s + 0.5, "moving video")


def test_the_video_plays(start_portal: Start, peer: WhepPeer, page: Page, wait_until: Until) -> None:
    complaints: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    portal = start_portal("--webrtc-url", peer.url)
    answer = page.goto(f"{portal.url}/webrtc")
    assert answer is not None
    policy = answer.headers["content-security-policy"]
    assert f"connect-src 'self' http://127.0.0.1:{peer.port};" in policy
    plays(page, wait_until)
    assert peer.sessions == 1
    assert complaints == []
    assert {url.split("/")[2] for url in asked} == {portal.url.split("/")[2], f"127.0.0.1:{peer.port}"}
    # Who leaves says so to the server.
    page.get_by_role("link", name="Back to the live picture").click()
    wait_until(lambda: peer.sessions == 0, "the end of the session")
    assert ("DELETE", "/cam/whep/1") in peer.asked


def test_a_server_that_goes_away_and_comes_back(
    start_portal: Start, peer: WhepPeer, page: Page, wait_until: Until
) -> None:
    portal = start_portal("--webrtc-url", f"{peer.url}/whep")
    page.goto(f"{portal.url}/webrtc")
    plays(page, wait_until)
    peer.stop()
    expect(page.locator("#state")).to_have_text("trying again", timeout=LIMIT_MS)
    expect(page.locator("#notice")).to_have_text(f"No answer from 127.0.0.1:{peer.port}.", timeout=LIMIT_MS)
    peer.is_empty = True
    peer.start()
    expect(page.locator("#notice")).to_have_text("Nothing is published at the server just now.", timeout=LIMIT_MS)
    peer.is_empty = False
    began_s = time.monotonic()
    plays(page, wait_until)
    print(f"figure: a WHEP server that came back plays again after {time.monotonic() - began_s:.1f} s")


def test_user_and_password_of_the_address(start_portal: Start, peer: WhepPeer, page: Page, wait_until: Until) -> None:
    peer.authorization = "Basic " + base64.b64encode(b"viewer:a b").decode()
    portal = start_portal("--webrtc-url", peer.url.replace("://", "://viewer:guessed@"))
    page.goto(f"{portal.url}/webrtc")
    words = "The server wants a user and a password, or others than it was given."
    expect(page.locator("#notice")).to_have_text(words, timeout=LIMIT_MS)
    portal = start_portal("--webrtc-url", peer.url.replace("://", "://viewer:a%20b@"))
    page.goto(f"{portal.url}/webrtc")
    plays(page, wait_until)
