"""The recordings panel of the page: start, options, progress, playing, downloads, deletion."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import Route, expect

from tests.conftest import Portal
from tests.support.browser_client import (
    LIMIT_MS,
    PHONE,
    SIZES,
    WIDTH,
    Start,
    Visitor,
    ask,
    open_tab,
    resize,
    shoot,
    wait_for_state,
    wait_until,
)
from tests.support.http_client import post

RECORDINGS = "/v1/recordings"


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


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_paused_recordings(recorder: Portal, visitor: Visitor, size: tuple[int, int]) -> None:
    """A paused recording does not look like a running one, whichever panel is shown; stopping it is possible."""
    reasons = {"video": "no space left on device", "timelapse": "no image came"}
    page = visitor.page(size)

    def pause(route: Route) -> None:
        answer = route.fetch()
        content = answer.json()
        for kind, running in content["recording"].items():
            if kind in reasons and running is not None:
                running["paused"] = reasons[kind]
        route.fulfill(response=answer, json=content)

    page.route("**/v1/camera/status", pause)
    ask(recorder, f"{RECORDINGS}/start", {})
    page.goto(recorder.url + "/")
    for button in ("#record", "#record-video"):
        expect(page.locator(f"{button} .detail")).to_have_text("Paused")
        expect(page.locator(button)).to_have_class(re.compile(r"\bpaused\b"))
    notice = page.locator("#recording-paused")
    expect(notice).to_have_text("Recording paused: no space left on device")
    ask(recorder, f"{RECORDINGS}/start", {"kind": "timelapse", "interval_s": 60})
    expect(page.locator("#record-timelapse .detail")).to_have_text("Paused")
    expect(notice).to_have_text("Recording paused: no space left on device Time-lapse paused: no image came")
    expect(notice).to_be_in_viewport(ratio=1)
    wait_for_state(page, "Live")
    shoot(page, f"page-recording-paused-{size[0]}")
    reasons.clear()
    expect(notice).to_be_hidden()
    expect(page.locator("#record .detail")).to_have_text(re.compile(r"^\d+:\d\d · "))
    page.locator("#record").click()
    expect(page.locator("#record")).to_have_attribute("aria-pressed", "false")
    ask(recorder, f"{RECORDINGS}/stop", {"kind": "timelapse"})


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
