"""What the page shows while the camera, the portal or the connection fails, and afterwards."""

import re
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import urlopen

import numpy as np
import pytest
from playwright.sync_api import Route, expect

from tests.conftest import Portal
from tests.support.browser_client import (
    KEY,
    LIMIT_MS,
    LISTEN,
    PHONE,
    SIZES,
    Start,
    Visitor,
    ask,
    look,
    recorded,
    shoot,
    shown,
    wait_for_state,
    wait_until,
)
from tests.support.http_client import status_of
from tests.support.proxy import below
from tests.support.timeouts import PATIENCE_S

# As LISTEN, from the beginning of the page.
LISTEN_FROM_START = """window.heard = []; document.addEventListener("DOMContentLoaded", () => {
    const state = document.getElementById("state");
    new MutationObserver(() => window.heard.push(state.textContent)).observe(state, {childList: true}); });"""
NO_IMAGE_MS = 8000  # as long as the page waits for the first image of a transport
AWAY = "The portal cannot be reached. Retrying …"


def test_reconnect_behind_proxy(start_portal: Start, visitor: Visitor) -> None:
    """nginx with a password on a machine that reboots: nginx responds again before the portal does."""
    portal = start_portal()
    inside = portal.url.rpartition(":")[2]
    page = visitor.page(http_credentials={"username": "camera", "password": "a-password"})
    with below(portal.url, "/garden/", "camera:a-password") as url:
        page.goto(url, wait_until="domcontentloaded")
        wait_for_state(page, "Live")
        page.evaluate("window.isSame = true")
        assert portal.stop() == 0
        wait_for_state(page, "No connection")
        expect(page.locator("#notice")).to_have_text(AWAY)  # the proxy's error page is not shown
    with page.expect_event("requestfailed"):  # not even the proxy responds
        pass
    with below(portal.url, "/garden/", "camera:a-password", port=urlsplit(url).port or 0):
        with page.expect_event("response", lambda response: response.status == 502):
            pass
        start_portal("--port", inside).wait_for_log("Listening")
        wait_for_state(page, "Live")
        assert page.evaluate("window.isSame")  # the page was not reloaded
        expect(page.locator("#events")).to_contain_text("Connection to the portal restored")
        page.close()


def test_camera_states(start_portal: Start, visitor: Visitor, faults: Path) -> None:
    faults.write_text("hang-open")
    portal = start_portal("--pattern-faults", str(faults), "--watchdog-timeout", "4")  # it exits after three times that
    page = visitor.open(portal, PHONE)
    wait_for_state(page, "Opening the camera")
    assert page.locator("#notice").inner_text() == "Opening the camera …"
    faults.write_text("")
    wait_for_state(page, "Live")

    page.evaluate(LISTEN)
    faults.write_text("hang")
    wait_for_state(page, "Recovering the camera")
    # The picture is marked as stale before the reason is known.
    assert recorded(page, "age")[0].endswith("s old")
    assert any("stale" in classes.split() for classes in recorded(page, "stage"))
    expect(page.locator("#last-error")).to_contain_text(re.compile(r"no frame for \d s"))
    expect(page.locator("#age")).to_be_hidden()  # the notice image of the stream is current
    expect(page.locator("#notice")).to_have_text("Reconnecting to the camera …")

    def shows_placeholder() -> bool:
        """A dark background with a few letters."""
        grey = look(page)
        return bool(np.mean(np.abs(grey - np.median(grey)) < 8) > 0.8 and np.median(grey) < 60)

    wait_until(shows_placeholder, "the placeholder")
    shoot(page, "page-reconnecting")
    faults.write_text("")
    wait_for_state(page, "Live")
    page.locator("#tab-graphs").click()
    expect(page.locator("#events")).to_contain_text(re.compile(r"Recovering the camera: no frame for \d s"))
    expect(page.locator("#events li").first).to_contain_text("Camera recovered")
    shoot(page, "page-events")
    assert visitor.complaints == []


def test_frozen_portal(portal: Portal, visitor: Visitor) -> None:
    page = visitor.watch(portal)
    bright = shown(page).mean()
    page.evaluate(LISTEN)
    portal.process.send_signal(signal.SIGSTOP)
    try:
        wait_until(lambda: shown(page).mean() < 0.8 * bright, "a dimmed picture")
        shoot(page, "page-frozen")
        wait_for_state(page, "No connection")  # after the request timed out
        assert re.fullmatch(r"\d\.\d s old", recorded(page, "age")[0])
        states = recorded(page, "state")  # may begin with "Live": a status that came before the portal was stopped
        assert "No new image" in states[: states.index("No connection")]
        assert page.locator("#notice").inner_text() == AWAY
    finally:
        portal.process.send_signal(signal.SIGCONT)
    wait_for_state(page, "Live")
    assert page.locator("#age").is_hidden()


def test_long_exposure_is_not_a_stall(portal: Portal, visitor: Visitor) -> None:
    ask(portal, "/v1/presets/long-exposure/apply", method="POST")
    page = visitor.watch(portal)
    wait_until(lambda: (status_of(portal)["exposure_us"] or 0) > 1_000_000, "the first long exposure")
    frames = status_of(portal)["frames"]
    wait_until(lambda: status_of(portal)["frames"] > frames, "an image, during which the page learns of that")
    page.evaluate(LISTEN)
    frames = status_of(portal)["frames"]
    wait_until(lambda: status_of(portal)["frames"] >= frames + 3, "images of two seconds each")
    assert (recorded(page, "age"), recorded(page, "state")) == ([], [])
    expect(page.locator("#stage")).not_to_have_class(re.compile("stale"))
    expect(page.locator("#no-events")).to_be_visible()


def test_stall_at_low_measured_rate(start_portal: Start, visitor: Visitor, faults: Path) -> None:
    """The measured rate of a few frames drops as fast as their age grows."""
    portal = start_portal("--pattern-faults", str(faults), "--watchdog-timeout", "60")
    page = visitor.page()

    def sink(route: Route) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, json=answer.json() | {"fps": 0.01})

    page.route("**/v1/camera/status", sink)
    page.goto(portal.url + "/", wait_until="domcontentloaded")
    wait_for_state(page, "Live")
    faults.write_text("hang")
    wait_for_state(page, "No new image")


def test_portal_restart(start_portal: Start, visitor: Visitor) -> None:
    portal = start_portal()
    port = portal.url.rpartition(":")[2]
    page = visitor.watch(portal)
    rate = page.locator("#plot-fps")
    expect(rate.locator("canvas")).to_have_attribute("aria-label", re.compile(r": now \d"), timeout=LIMIT_MS)
    assert portal.stop() == 0
    wait_for_state(page, "No connection")
    expect(rate.locator(".value")).to_have_text("\u2013")  # past values are cleared
    expect(rate.locator("canvas")).to_have_attribute("aria-label", re.compile(": unknown now;"))
    assert page.locator("#notice").inner_text() == AWAY
    expect(page.locator("#stage")).to_have_class(re.compile(r"\bunavailable\b"))  # the last image does not look live
    expect(page.locator("body")).to_have_class(re.compile(r"\boffline\b"))
    shoot(page, "page-away")
    again = start_portal("--port", port)
    again.wait_for_log("Listening")
    wait_for_state(page, "Live")
    assert page.locator("#notice").is_hidden()
    expect(page.locator("#events")).to_contain_text("Connection to the portal restored")
    assert again.stop() == 0


def test_broken_stream_is_reconnected(portal: Portal, visitor: Visitor) -> None:
    page = visitor.page()
    asked: list[str] = []

    def refuse_twice(route: Route) -> None:
        asked.append(route.request.url)
        if len(asked) <= 2:
            route.abort()
        else:
            route.continue_()

    page.route("**/stream.mjpg?*", refuse_twice)
    page.goto(portal.url + "/")
    wait_for_state(page, "Live")
    assert len(asked) == 3  # one attempt per second
    assert page.locator("#notice").is_hidden()


def test_portal_restart_with_key(start_portal: Start, visitor: Visitor) -> None:
    portal = start_portal(environment={"CAMERA_API_KEY": KEY})
    port = portal.url.rpartition(":")[2]
    page = visitor.watch(portal, http_credentials={"username": "anyone", "password": KEY})
    assert portal.stop() == 0
    wait_for_state(page, "No connection")
    start_portal("--port", port, environment={"CAMERA_API_KEY": KEY}).wait_for_log("Listening")
    wait_for_state(page, "Live")


@pytest.mark.parametrize(
    ("trouble", "state", "notice"),
    [
        ({"state": "missing", "last_error": "gone"}, "Camera missing", "The camera is missing"),
        ({"last_error": "the camera is busy"}, "Camera unavailable", "No image: the camera is busy"),
    ],
    ids=["missing", "busy"],
)
def test_portal_exits_with_camera(
    portal: Portal, visitor: Visitor, trouble: Mapping[str, str], state: str, notice: str
) -> None:
    """The portal exits shortly after it reported the error; here it waits until the page has read it."""
    status: dict[str, Any] = {**status_of(portal), "available": False, **trouble}
    page = visitor.page()
    page.route("**/v1/camera/status", lambda route: route.fulfill(json=status))
    page.goto(portal.url + "/")
    wait_for_state(page, state)
    assert page.locator("#notice").inner_text() == f"{notice}."
    page.route("**/v1/camera/status", lambda route: route.abort())
    wait_for_state(page, "No connection")
    expect(page.locator("#notice")).to_have_text(f"{notice}. {AWAY}")


def test_portal_exits_after_stall(start_portal: Start, visitor: Visitor, faults: Path) -> None:
    """The portal exits some time after the last frame; the page keeps the last known reason, also without a stream."""
    portal = start_portal("--pattern-faults", str(faults), "--watchdog-timeout", "100")
    page = visitor.watch(portal)
    faults.write_text("hang")
    expect(page.locator("#age")).to_have_text(re.compile(r"^([3-9]|\d\d)"), timeout=LIMIT_MS)
    expect(page.locator("#age")).to_be_hidden(timeout=LIMIT_MS)  # the page has closed the stream to try again
    with page.expect_response("**/v1/camera/status"):
        pass
    assert portal.stop() == 0
    wait_for_state(page, "No connection")
    expect(page.locator("#notice")).to_have_text(f"The camera delivers no images. {AWAY}")
    shoot(page, "page-camera-gone")


def test_full_portal(start_portal: Start, visitor: Visitor) -> None:
    """Snapshots and the reason until there is a place for another stream."""
    portal = start_portal("--max-clients", "1")
    page = visitor.page(PHONE)
    with urlopen(f"{portal.url}/stream.mjpg", timeout=PATIENCE_S):
        page.goto(portal.url + "/", wait_until="domcontentloaded")
        wait_for_state(page, "Snapshots")
        first = look(page)
        wait_until(lambda: np.abs(look(page) - first).max() > 20, "another snapshot")
        expect(page.locator("#last-error")).to_contain_text("Snapshots every 2 s in place of the stream: client limit")
        expect(page.locator("#age")).to_be_hidden()
        shoot(page, "page-full")
    wait_for_state(page, "Live")
    expect(page.locator("#last-error")).to_be_hidden()


def test_only_client(start_portal: Start, visitor: Visitor) -> None:
    """The page does not take its own place, neither at first nor after a reload or with another transport."""
    portal = start_portal("--max-clients", "1", "--width", "640", "--height", "360")
    page = visitor.page()
    page.add_init_script(LISTEN_FROM_START)
    page.goto(portal.url + "/", wait_until="domcontentloaded")
    wait_for_state(page, "Live")
    for _ in range(2):
        page.reload(wait_until="domcontentloaded")
        wait_for_state(page, "Live")
    page.locator("#view summary").click()
    for name, transport in (("MP4", "mp4"), ("Reduced", "mjpeg"), ("MP4", "mp4"), ("MJPEG", "mjpeg")):
        page.locator("#view").get_by_role("radio", name=name, exact=True).check()
        expect(page.locator("#stage")).to_have_attribute("data-transport", transport)
        wait_for_state(page, "Live")
    assert "Snapshots" not in page.evaluate("window.heard")
    assert not [each for each in visitor.complaints if "503" in each]


def test_transport_without_image(portal: Portal, visitor: Visitor) -> None:
    """A browser or a proxy that swallows streams: the page tries each transport, at last snapshots."""
    page = visitor.page()
    page.route(re.compile(r"/stream\.(mjpg|mp4)"), lambda route: None)  # accepted, without an end
    page.clock.install()
    page.goto(portal.url + "/", wait_until="domcontentloaded")
    for label in ("MJPEG", "MP4", "MJPEG, reduced"):
        expect(page.locator("#transport-now")).to_have_text(f"now {label}", timeout=LIMIT_MS)
        with page.expect_response("**/v1/camera/status"):  # then no other request is waiting, which would time out
            pass
        page.clock.fast_forward(NO_IMAGE_MS)
    expect(page.locator("#transport-now")).to_have_text("now snapshots", timeout=LIMIT_MS)
    wait_for_state(page, "Snapshots")
    expect(page.locator("#last-error")).to_have_text("Snapshots every 2 s in place of the stream: no image arrived")
    page.unroute_all(behavior="ignoreErrors")
    page.locator("#view summary").click()
    page.locator("#view").get_by_role("radio", name="MJPEG", exact=True).check()
    wait_for_state(page, "Live")


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("state", ["open", "recovering", "missing"])
def test_error_below_picture(portal: Portal, visitor: Visitor, state: str, size: tuple[int, int]) -> None:
    """However long it is, an error covers neither the picture nor a notice, and hides no action."""
    status: dict[str, Any] = {**status_of(portal), "restarts": 2, "state": "open"}
    page = visitor.page(size)
    page.route("**/v1/camera/status", lambda route: route.fulfill(json=status))
    page.goto(portal.url + "/")
    wait_for_state(page, "Live")
    status |= {"state": state, "available": state == "open", "last_error": "the camera has disappeared " * 20}
    error = page.locator("#last-error")
    expect(error).to_be_visible()
    picture, box, actions = (page.locator(each).bounding_box() for each in ("#stage", "#last-error", "#actions"))
    assert picture is not None
    assert box is not None
    assert actions is not None
    assert picture["y"] + picture["height"] <= box["y"]
    assert box["y"] + box["height"] <= actions["y"]
    assert actions["y"] + actions["height"] <= size[1]
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    shoot(page, f"page-error-{state}-{size[0]}")
