"""WebRTC in a real browser, against a real WHEP peer: the page at `/webrtc`, and the page with the live picture."""

import base64
import re
import time
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.conftest import Portal
from tests.support.browser_client import HIDE, LIMIT_MS, Visitor, look, wait_for_state
from tests.support.http_client import wait_for_status
from tests.support.timeouts import TIMEOUT_FACTOR
from tests.support.whep_peer import HEIGHT, WIDTH, WhepPeer, stay_on_loopback

Start = Callable[..., Portal]
Until = Callable[..., None]


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
    """The video is playing."""
    expect(page.locator("#state")).to_have_text("Live", timeout=LIMIT_MS)
    expect(page.locator("#notice")).to_be_hidden()
    size = page.evaluate(
        "(() => { const v = document.getElementById('video'); return [v.videoWidth, v.videoHeight]; })()"
    )
    assert size == [WIDTH, HEIGHT]
    first_s = page.evaluate("document.getElementById('video').currentTime")
    wait_until(lambda: page.evaluate("document.getElementById('video').currentTime") > first_s + 0.5, "moving video")


def test_playback(start_portal: Start, peer: WhepPeer, page: Page, wait_until: Until) -> None:
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


def test_media_server_restart(start_portal: Start, peer: WhepPeer, page: Page, wait_until: Until) -> None:
    portal = start_portal("--webrtc-url", f"{peer.url}/whep")
    page.goto(f"{portal.url}/webrtc")
    plays(page, wait_until)
    peer.stop()
    expect(page.locator("#state")).to_have_text("Retrying", timeout=LIMIT_MS)
    expect(page.locator("#notice")).to_have_text(f"No response from 127.0.0.1:{peer.port}.", timeout=LIMIT_MS)
    peer.is_empty = True
    peer.start()
    expect(page.locator("#notice")).to_have_text("The media server has no stream at this address.", timeout=LIMIT_MS)
    peer.is_empty = False
    began_s = time.monotonic()
    plays(page, wait_until)
    print(f"figure: a WHEP server that came back plays again after {time.monotonic() - began_s:.1f} s")


def test_session_that_the_server_ends(start_portal: Start, peer: WhepPeer, page: Page, wait_until: Until) -> None:
    """As MediaMTX does when the size of the video changes: noticed at once, not after a stall of seconds."""
    portal = start_portal("--webrtc-url", peer.url)
    page.goto(f"{portal.url}/webrtc")
    plays(page, wait_until)
    reasons = page.evaluate_handle(
        """() => {
            const reasons = [], notice = document.getElementById("notice");
            new MutationObserver(() => reasons.push(notice.textContent)).observe(notice, { childList: true });
            return reasons;
        }"""
    )
    (first,) = peer.places
    began_s = time.monotonic()
    assert peer.drop(first)
    wait_until(lambda: peer.sessions == 1, "another session")
    again_s = time.monotonic() - began_s
    print(f"figure: the session after one that the server ended begins after {again_s:.2f} s")
    plays(page, wait_until)
    assert again_s < 2.0 * TIMEOUT_FACTOR  # 0.5 s by design; a stall is noticed after 5 s
    assert [reason for reason in reasons.json_value() if reason] == ["The media server ended the session."]
    assert ("DELETE", first) not in peer.asked


def test_answer_of_the_server_is_shown(start_portal: Start, peer: WhepPeer, page: Page, wait_until: Until) -> None:
    portal = start_portal("--webrtc-url", peer.url)
    for status, kind, body, shown in (
        (400, "application/json; charset=utf-8", '{"status":"error","error":"path \'a\' is not configured"}',
         "The media server returned status 400: path 'a' is not configured."),
        (404, "text/plain; charset=utf-8", "stream not found\n",
         "The media server has no stream at this address: stream not found."),
        (500, "text/plain", "<b>dial</b> tcp.", "The media server returned status 500: <b>dial</b> tcp."),
        (502, "text/html", "<h1>Bad Gateway</h1>", "The media server returned status 502."),
        (500, "application/json", "not JSON", "The media server returned status 500."),
        (401, "text/plain", "", "The media server requires a user name and password."),
    ):  # fmt: skip
        peer.rejection = status, kind, body
        page.goto(f"{portal.url}/webrtc")
        expect(page.locator("#notice")).to_have_text(shown, timeout=LIMIT_MS)
    peer.rejection = None
    plays(page, wait_until)


def test_address_is_used_as_given(start_portal: Start, peer: WhepPeer, page: Page, wait_until: Until) -> None:
    """go2rtc's, which permits requests from other pages only if it is configured so."""
    peer.endpoint = "/api/webrtc?src=cam"
    peer.is_cross_origin = False
    portal = start_portal("--webrtc-url", f"http://127.0.0.1:{peer.port}{peer.endpoint}")
    page.goto(f"{portal.url}/webrtc")
    reason = f"127.0.0.1:{peer.port} does not permit requests from this page (CORS)."
    expect(page.locator("#notice")).to_have_text(reason, timeout=LIMIT_MS)
    peer.is_cross_origin = True
    plays(page, wait_until)


def test_credentials_of_the_url(start_portal: Start, peer: WhepPeer, page: Page, wait_until: Until) -> None:
    peer.authorization = "Basic " + base64.b64encode(b"viewer:a b").decode()
    portal = start_portal("--webrtc-url", peer.url.replace("://", "://viewer:guessed@"))
    page.goto(f"{portal.url}/webrtc")
    words = "The media server rejected the user name or password."
    expect(page.locator("#notice")).to_have_text(words, timeout=LIMIT_MS)
    portal = start_portal("--webrtc-url", peer.url.replace("://", "://viewer:a%20b@"))
    page.goto(f"{portal.url}/webrtc")
    plays(page, wait_until)


def choose_webrtc(page: Page) -> None:
    page.locator("#view summary").click()
    page.get_by_role("radio", name="WebRTC").check()
    page.keyboard.press("Escape")


def test_select_webrtc(start_portal: Start, peer: WhepPeer, visitor: Visitor, wait_until: Until) -> None:
    portal = start_portal("--webrtc-url", peer.url)
    page = visitor.watch(portal)
    expect(page.locator("#about-webrtc")).to_be_hidden()
    choose_webrtc(page)
    expect(page.locator("#stage")).to_have_attribute("data-transport", "webrtc")
    wait_for_state(page, "Live")
    assert page.evaluate("[video.videoWidth, video.videoHeight]") == [WIDTH, HEIGHT]
    first = look(page)
    wait_until(lambda: abs(look(page) - first).mean() > 10, "a moving picture")
    expect(page.locator("#fact-bandwidth")).to_have_text(re.compile(r"Mbit/s"))
    wait_for_status(portal, viewers=0)  # the portal sends none of it
    expect(page.locator("#notice")).to_be_hidden()
    expect(page.locator("#age")).to_be_hidden()

    page.reload()  # it remembers
    expect(page.locator("#stage")).to_have_attribute("data-transport", "webrtc")
    wait_for_state(page, "Live")
    page.evaluate(HIDE, True)
    wait_until(lambda: peer.sessions == 0, "the end of the session")
    page.evaluate(HIDE, False)
    wait_for_state(page, "Live")
    page.locator("#view summary").click()
    page.get_by_role("radio", name="MJPEG").check()
    expect(page.locator("#stage")).to_have_attribute("data-transport", "mjpeg")
    wait_for_state(page, "Live")
    wait_until(lambda: peer.sessions == 0, "the end of the session")
    assert visitor.complaints == []
    assert {url.split("/")[2] for url in visitor.asked if url.startswith("http")} == {
        portal.url.split("/")[2],
        f"127.0.0.1:{peer.port}",
    }


def test_webrtc_errors_on_page(start_portal: Start, peer: WhepPeer, visitor: Visitor) -> None:
    peer.is_empty = True
    portal = start_portal("--webrtc-url", peer.url)
    page = visitor.watch(portal)
    choose_webrtc(page)
    words = "WebRTC failed: The media server has no stream at this address. Retrying …"
    expect(page.locator("#notice")).to_have_text(words)
    expect(page.locator("#state")).not_to_have_text("Live")
    peer.is_empty = False
    expect(page.locator("#stage")).to_have_attribute("data-transport", "webrtc")
    wait_for_state(page, "Live")
    expect(page.locator("#notice")).to_be_hidden()
    peer.stop()
    expect(page.locator("#notice")).to_have_text(f"WebRTC failed: No response from 127.0.0.1:{peer.port}. Retrying …")


def test_session_that_ends_on_page(start_portal: Start, peer: WhepPeer, visitor: Visitor, wait_until: Until) -> None:
    """The page keeps its transport, and shows no error."""
    portal = start_portal("--webrtc-url", peer.url)
    page = visitor.watch(portal)
    choose_webrtc(page)
    expect(page.locator("#stage")).to_have_attribute("data-transport", "webrtc")
    wait_for_state(page, "Live")
    peer.drop(peer.places[0])
    wait_until(lambda: peer.sessions == 1, "another session")
    first = look(page)
    wait_until(lambda: abs(look(page) - first).mean() > 10, "a moving picture")
    expect(page.locator("#notice")).to_be_hidden()
    expect(page.locator("#stage")).to_have_attribute("data-transport", "webrtc")
    assert visitor.complaints == []


def test_slow_line_switches_to_webrtc(start_portal: Start, peer: WhepPeer, visitor: Visitor) -> None:
    """Then MP4, if the media server has no stream."""
    portal = start_portal("--webrtc-url", peer.url, "--bitrate", "400000")
    page = visitor.on_slow_line(portal)
    expect(page.locator("#transport-now")).to_have_text("now WebRTC", timeout=2 * LIMIT_MS)
    wait_for_state(page, "Live")
    peer.stop()
    expect(page.locator("#transport-now")).to_have_text("now MP4")
    wait_for_state(page, "Live")


def test_page_without_media_server(portal: Portal, visitor: Visitor) -> None:
    page = visitor.page()
    page.add_init_script("localStorage.setItem('soft-stream.way', 'webrtc')")  # as when there was one
    page.goto(portal.url + "/")
    wait_for_state(page, "Live")
    page.locator("#view summary").click()
    expect(page.get_by_role("radio", name="Auto")).to_be_checked()
    expect(page.get_by_role("radio", name="WebRTC")).to_be_hidden()
    page.get_by_role("link", name="How to set up WebRTC").click()
    expect(page.locator("main")).to_contain_text("MediaMTX")
