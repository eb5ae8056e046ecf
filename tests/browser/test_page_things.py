"""The panels of the page: graphs and histogram, snapshots, recordings, publishing, links, all cameras."""

import io
import re
import socket
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, expect

from tests.conftest import Portal
from tests.support.browser_client import (
    DESK,
    HEIGHT,
    LIMIT_MS,
    PHONE,
    SIZES,
    WIDTH,
    Start,
    Visitor,
    ask,
    resize,
    shoot,
    shown,
    wait_for_state,
    wait_until,
)
from tests.support.http_client import post, wait_for_status

RECORDINGS = "/v1/recordings"
# How much of a canvas is drawn on, in each fifth of its width.
DRAWN = """(canvas) => { const {width, height} = canvas;
const copy = Object.assign(document.createElement("canvas"), {width, height}).getContext("2d");
copy.drawImage(canvas, 0, 0);
const {data} = copy.getImageData(0, 0, width, height), fifths = [0, 0, 0, 0, 0];
for (let at = 3; at < data.length; at += 4) if (data[at]) fifths[Math.floor(5 * ((at >> 2) % width) / width)] += 1;
return fifths; }"""


def open_tab(page: Page, name: str) -> None:
    tab = page.locator(f"#tab-{name}")
    if tab.is_visible():  # on a wide screen the graphs have no tab
        tab.click()


def least_gap(page: Page, panel: str) -> float:
    """The smallest vertical distance between two elements of a panel in pixels."""
    gap: float = page.locator(f"#{panel} > :not(.visually-hidden)").evaluate_all(
        """(all) => { const boxes = all.map((each) => each.getBoundingClientRect()).filter(({height}) => height);
        return Math.min(...boxes.slice(1).map((box, place) => box.top - boxes[place].bottom)); }"""
    )
    return gap


# --- curves -----------------------------------------------------------------------------------------------------------


def test_histogram_and_graphs(portal: Portal, visitor: Visitor) -> None:
    page = visitor.watch(portal)
    histogram = page.locator("#histogram")
    for size in SIZES.values():
        resize(page, size)
        open_tab(page, "graphs")
        wait_until(lambda: min(histogram.evaluate(DRAWN)) > 0, "a histogram from black to white")
        assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
        shoot(page, f"page-curves-{size[0]}")
    for name in ("fps", "bandwidth", "lux", "exposure", "gain", "focus"):
        tile = page.locator(f"#plot-{name}")
        expect(tile.locator(".value")).to_have_text(re.compile(r"\d"), timeout=LIMIT_MS)
        expect(tile.locator("canvas")).to_have_attribute("aria-label", re.compile(r"now .*\d"), timeout=LIMIT_MS)
    assert "Mbit/s" in page.locator("#plot-bandwidth .value").inner_text()
    # A dark picture has nothing on the right.
    ask(portal, "/v1/camera/manual_exposure", {"exposure_us": 400, "gain": 1.2})
    wait_until(lambda: histogram.evaluate(DRAWN)[4] < 0.02 * sum(histogram.evaluate(DRAWN)), "a dark histogram")
    expect(page.locator("#plot-exposure .value")).to_have_text("400\u00a0µs", timeout=LIMIT_MS)
    assert visitor.complaints == []


def test_value_under_pointer(portal: Portal, visitor: Visitor) -> None:
    page = visitor.watch(portal)
    canvas = page.locator("#plot-fps canvas")
    expect(canvas).to_have_attribute("aria-label", re.compile("now"), timeout=LIMIT_MS)
    box = canvas.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] - 3, box["y"] + 10)
    expect(page.locator("#plot-fps .value")).to_contain_text("s ago")
    page.mouse.move(5, 5)
    expect(page.locator("#plot-fps .value")).not_to_contain_text("s ago")


# --- pictures and recordings ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("button", "size"), [("snapshot", (WIDTH, HEIGHT)), ("full", (4608, 2592))])
def test_save_snapshot(portal: Portal, visitor: Visitor, button: str, size: tuple[int, int]) -> None:
    page = visitor.watch(portal)
    # A still of the whole sensor is much work, and the page itself waits longer for it than a test usually does.
    with page.expect_download(timeout=2 * LIMIT_MS) as started:
        page.locator(f"#{button}").click()
    image = Image.open(io.BytesIO(started.value.path().read_bytes()))
    assert image.format == "JPEG"
    assert image.size == size
    assert re.fullmatch(r"snapshot-\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d(-full)?\.jpg", started.value.suggested_filename)
    assert page.url == portal.url + "/"
    wait_for_state(page, "Live")
    assert visitor.complaints == []


def test_snapshot_error(portal: Portal, visitor: Visitor) -> None:
    page = visitor.watch(portal)
    page.route("**/snapshot.jpg*", lambda route: route.fulfill(status=503, json={"detail": "no frame came in time"}))
    page.locator("#snapshot").click()
    expect(page.locator("#toast")).to_have_text("Snapshot failed: no frame came in time")


def test_record_play_download_delete(recorder: Portal, visitor: Visitor) -> None:
    page = visitor.watch(recorder)
    open_tab(page, "recordings")
    expect(page.locator("#recordings-empty")).to_be_visible()
    page.locator("#record").click()
    expect(page.locator("#record")).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#record .detail")).to_have_text(
        re.compile(r"\d:(0[1-9]|[1-5]\d) · .*\s[kM]B"), timeout=LIMIT_MS
    )
    for size in SIZES.values():
        resize(page, size)
        assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
        shoot(page, f"page-recording-{size[0]}")
    page.locator("#record").click()
    expect(page.locator("#toast")).to_have_text("Recording saved")
    entry = page.locator(".recording")
    expect(entry).to_have_count(1, timeout=LIMIT_MS)
    expect(entry.get_by_role("link")).to_be_visible(timeout=LIMIT_MS)
    expect(entry.locator(".facts")).to_contain_text(f"Video · {WIDTH}")
    wait_until(lambda: entry.locator("img").evaluate("(image) => image.naturalWidth") > 100, "the thumbnail")
    with page.expect_download() as started:
        entry.get_by_role("link").click()
    assert started.value.path().read_bytes()[4:8] == b"ftyp"
    assert started.value.suggested_filename.endswith(".mp4")

    entry.get_by_role("button", name="Play").click()
    video = page.locator("#player video")
    wait_until(lambda: video.evaluate("(video) => video.currentTime") > 0.3, "the recording plays")
    assert video.evaluate("(video) => video.videoWidth") == WIDTH
    video.evaluate("(video) => { video.currentTime = 0; }")  # with ranges
    shoot(page, "page-player")
    page.keyboard.press("Escape")
    expect(page.locator("#player")).to_be_hidden()

    page.locator("#save-photo").click()
    expect(entry).to_have_count(2, timeout=LIMIT_MS)
    shoot(page, "page-recordings")
    keep = page.get_by_role("button", name="Keep: Photo")
    expect(keep).to_have_attribute("aria-pressed", "false")
    keep.click()
    expect(keep).to_have_attribute("aria-pressed", "true")
    expect(keep).to_be_focused()
    page.get_by_role("button", name="Delete: Photo").click()
    expect(page.locator("#confirm")).to_contain_text("cannot be undone")
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#confirm")).to_be_hidden()
    assert len(ask(recorder, RECORDINGS)["recordings"]) == 2
    page.get_by_role("button", name="Delete: Photo").click()
    page.get_by_role("button", name="Delete", exact=True).click()
    expect(entry).to_have_count(1, timeout=LIMIT_MS)
    expect(page.get_by_role("button", name="Delete: Video")).to_be_focused()  # the keyboard stays in the list
    assert [kept["kind"] for kept in ask(recorder, RECORDINGS)["recordings"]] == ["video"]
    assert visitor.complaints == []


def test_recordings_of_other_clients(recorder: Portal, visitor: Visitor) -> None:
    page = visitor.watch(recorder)
    open_tab(page, "recordings")
    ask(recorder, f"{RECORDINGS}/start", {})
    expect(page.locator("#record .text")).to_have_text("Stop", timeout=LIMIT_MS)
    ask(recorder, f"{RECORDINGS}/stop", {})
    expect(page.locator("#record .text")).to_have_text("Record", timeout=LIMIT_MS)
    expect(page.locator(".recording")).to_have_count(1, timeout=LIMIT_MS)


def test_time_lapse(recorder: Portal, visitor: Visitor) -> None:
    page = visitor.watch(recorder, PHONE)
    open_tab(page, "recordings")
    page.get_by_label("Interval").fill("0.5")
    page.locator("#record-timelapse").click()
    expect(page.locator("#record-timelapse .detail")).to_have_text(re.compile(r"([2-9]|\d\d) photos"), timeout=LIMIT_MS)
    expect(page.get_by_label("Interval")).to_be_disabled()
    assert ask(recorder, RECORDINGS)["running"]["timelapse"]["interval_s"] == 0.5
    page.locator("#record-timelapse").click()
    expect(page.locator(".recording .facts")).to_contain_text("Time-lapse", timeout=LIMIT_MS)


def test_many_recordings(start_portal: Start, visitor: Visitor, tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    folder.mkdir()
    for day in (20, 21, 22):
        for minute in range(50):
            (folder / f"2026-11-{day}_12-{minute:02}-00.{'jpg' if minute else 'mp4'}").write_bytes(b"x")
    page = visitor.watch(start_portal("--recordings", str(folder)))
    open_tab(page, "recordings")
    rows, days = page.locator(".recording"), page.locator("#recording-list .day")
    expect(rows).to_have_count(100, timeout=LIMIT_MS)
    expect(days).to_have_count(2)
    page.get_by_role("button", name="Show older").click()
    expect(rows).to_have_count(150)
    expect(days).to_have_count(3)
    expect(page.locator("#show-older")).to_be_hidden()
    page.locator("#shown-kind").select_option("videos")
    expect(rows).to_have_count(3)
    page.get_by_label("Day").fill("2026-11-21")
    expect(rows).to_have_count(1)
    page.get_by_label("Day").fill("2026-11-19")
    expect(page.locator("#recordings-empty")).to_have_text("No recordings of this kind and day.")


def test_resumed_recording(start_portal: Start, visitor: Visitor, tmp_path: Path) -> None:
    flags = ("--recordings", str(tmp_path / "kept"))
    portal = start_portal(*flags)
    assert post(portal, f"{RECORDINGS}/start", {}).status == 200
    portal.stop()
    page = visitor.watch(start_portal(*flags))
    open_tab(page, "recordings")
    expect(page.locator("#recordings-resumed")).to_have_text(
        re.compile("^Resumed after a restart; interrupted .*[0-9]$"), timeout=LIMIT_MS
    )
    page.locator("#record-video").click()
    expect(page.locator("#recordings-resumed")).to_be_hidden()


def test_recording_options(start_portal: Start, visitor: Visitor, tmp_path: Path) -> None:
    page = visitor.watch(start_portal("--recordings", str(tmp_path / "kept"), "--recordings-preroll", "3"))
    open_tab(page, "recordings")
    page.get_by_text("Length, segments").click()
    page.get_by_label("Duration").fill("1.5")
    page.get_by_label("Pre-roll").fill("2")
    with page.expect_request("**/v1/recordings/start") as asked:
        page.locator("#record-video").click()
    assert asked.value.post_data_json == {"kind": "video", "duration_s": 90, "preroll_s": 2}
    expect(page.locator("#record-video .text")).to_have_text("Stop", timeout=LIMIT_MS)


def test_invalid_recording_options(recorder: Portal, visitor: Visitor) -> None:
    page = visitor.watch(recorder)
    open_tab(page, "recordings")
    page.get_by_text("Length, segments").click()
    page.get_by_label("New file every").fill("90")  # minutes, which the portal does not know
    page.locator("#record-video").click()
    expect(page.locator("#toast")).to_have_text(re.compile(r"^New file every: .*\b60\b"))
    page.get_by_label("New file every").fill("")
    page.get_by_label("Pre-roll").fill("5")
    page.locator("#record-video").click()
    expect(page.locator("#toast")).to_have_text(re.compile("^preroll_s: .* 0 to 0 [(]set by --recordings-preroll[)]$"))
    assert ask(recorder, RECORDINGS)["running"]["video"] is None


def test_recordings_off(portal: Portal, visitor: Visitor) -> None:
    page = visitor.watch(portal)
    open_tab(page, "recordings")
    expect(page.locator("#no-recordings")).to_contain_text("--recordings")
    assert page.locator("#record").is_hidden()
    open_tab(page, "links")
    expect(page.locator("#no-publishing")).to_contain_text("--rtsp-url")
    assert page.locator("#publish").is_hidden()
    assert [url for url in visitor.asked if RECORDINGS in url] == []
    assert visitor.complaints == []


# --- day and night, other programs, other cameras ---------------------------------------------------------------------


def test_day_and_night(portal: Portal, visitor: Visitor) -> None:
    page = visitor.watch(portal)
    expect(page.locator("#fact-brightness")).to_have_text(re.compile(r"\d"), timeout=LIMIT_MS)
    assert least_gap(page, "controls") >= 8
    page.get_by_text("Day and night").click()
    page.locator("#control-day_night_mode-mode").select_option("night")
    wait_for_status(portal, scene_mode="night")
    expect(page.locator("#events")).to_contain_text("“night”", timeout=LIMIT_MS)


def test_rtsp_server_on_same_machine(start_portal: Start, visitor: Visitor) -> None:
    """A localhost URL would not work on other machines."""
    portal = start_portal("--host", "0.0.0.0", "--rtsp-url", "rtsp://127.0.0.1:9/garden", "--no-rtsp-autostart")
    page = visitor.page()
    page.goto(f"http://127.0.0.2:{portal.url.rpartition(':')[2]}/")
    wait_for_state(page, "Live")
    open_tab(page, "links")
    expect(page.locator("#programs")).to_contain_text("rtsp://127.0.0.2:9/garden")
    assert page.locator("#local-only").is_hidden()


def test_publishing(start_portal: Start, visitor: Visitor) -> None:
    # Port 9 is closed: the page shows the error and the state of the switch.
    portal = start_portal("--rtsp-url", "rtsp://someone:secret@127.0.0.1:9/garden", "--no-rtsp-autostart")
    page = visitor.watch(portal)
    open_tab(page, "links")
    expect(page.locator("#publish-state")).to_have_text("Off")
    page.locator("#publish").check()
    wait_for_status(portal, streaming=True)
    expect(page.locator("#publish-error")).to_contain_text("refused", timeout=LIMIT_MS)
    expect(page.locator("#programs")).to_contain_text("rtsp://127.0.0.1:9/garden")
    assert "secret" not in page.content()
    assert least_gap(page, "links") >= 8
    shoot(page, "page-links")
    page.locator("#publish").uncheck()
    wait_for_status(portal, streaming=False)
    expect(page.locator("#publish-state")).to_have_text("Off", timeout=LIMIT_MS)
    assert visitor.complaints == []


def test_copy_address(portal: Portal, visitor: Visitor) -> None:
    page = visitor.watch(portal, permissions=["clipboard-read", "clipboard-write"])
    open_tab(page, "links")
    for program in ("OctoPrint", "Home Assistant", "VLC"):
        expect(page.locator("#programs")).to_contain_text(program)
    page.get_by_role("button", name="Copy: OctoPrint, Mainsail, Fluidd, Snapshot URL").click()
    expect(page.locator("#toast")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == f"{portal.url}/snapshot.jpg"
    for size in (DESK, PHONE):
        resize(page, size)
        assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
        shoot(page, f"page-links-{size[0]}")


def shows_width(camera: Locator, width: int) -> bool:
    return bool(camera.locator("img").evaluate("(image) => image.naturalWidth") == width)


def test_all_cameras(start_portal: Start, visitor: Visitor) -> None:
    second = start_portal()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    first = start_portal("--port", str(port), "--neighbours", f"Door={port},Garden={second.url.rpartition(':')[2]}")
    page = visitor.watch(first, PHONE)
    wait_until(lambda: page.locator("#cameras a").count() == 2, "tabs")
    for tab in page.locator("#cameras a").all():
        edges = tab.bounding_box()  # all of them can be seen, on a phone as well
        assert edges is not None
        assert edges["x"] + edges["width"] <= PHONE[0]
    page.locator("#wall-toggle").click()
    expect(page.locator(".camera")).to_have_count(2)
    for camera in page.locator(".camera").all():
        wait_until(partial(shows_width, camera, 640), "a picture")
        expect(camera).to_contain_text("Live")
    wait_for_status(first, viewers=0)  # the wall needs no stream
    for size in (PHONE, DESK):
        resize(page, size)
        assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
        shoot(page, f"page-wall-{size[0]}")
    before = shown(page, ".camera:last-child")
    wait_until(lambda: np.abs(shown(page, ".camera:last-child") - before).max() > 20, "moving pictures")
    assert visitor.complaints == []
    second.stop()
    expect(page.locator(".camera.stale")).to_have_count(1, timeout=LIMIT_MS)
    expect(page.locator(".camera.stale")).to_contain_text("No image")
    page.evaluate("location.hash = 'all'")
    page.reload(wait_until="domcontentloaded")
    expect(page.locator(".camera.stale")).to_contain_text("No image", timeout=LIMIT_MS)
    expect(page.locator(".camera.stale img")).to_be_hidden()  # not the browser's icon for a broken image
    page.locator("#cameras [aria-current]").click()
    wait_for_state(page, "Live")
