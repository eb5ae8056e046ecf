"""The screenshots of the page in the README: file size and dimensions.

`DOCS_IMAGES=1 make test ARGS="-k images"` creates them again, which takes some minutes, since the graphs need data.
"""

import io
import os
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from tests.conftest import PROJECT, Portal
from tests.support.browser_client import DESK, LIMIT_MS, PHONE, TABLET, Start, Visitor, ask, wait_for_state, wait_until

FOLDER = PROJECT / "docs" / "images"
LARGEST_IMAGE = 400_000  # bytes, for slow lines
CURVES_MS = 12_000  # between two changes, to be visible in the graphs
IMAGES = {
    "page": (DESK, "dark", "controls"),
    "page-light": (DESK, "light", "recordings"),
    "page-tablet": (TABLET, "light", "graphs"),
    "page-phone": (PHONE, "dark", "controls"),
    "page-phone-recordings": (PHONE, "light", "recordings"),
}


def live_through(page: Page, portal: Portal) -> None:
    """A minute with changes that the graphs show."""
    for controls in (
        ("exposure_limits", {"max_exposure_us": 10_000}),
        ("manual_exposure", {"exposure_us": 12_000, "gain": 2.0}),
        ("lens_position", {"position": 4.0}),
        ("auto_exposure", {"enabled": True}),
        ("autofocus_mode", {"mode": "continuous"}),
        ("day_night_mode", {"mode": "night"}),
    ):
        ask(portal, f"/v1/camera/{controls[0]}", controls[1])
        page.wait_for_timeout(CURVES_MS)
    ask(portal, "/v1/camera/controls", method="DELETE")
    ask(portal, "/v1/camera/image_processing", {"exposure_value": 0.5, "sharpness": 1.5})


def make(start_portal: Start, visitor: Visitor, name: str, folder: Path) -> bytes:
    size, scheme, tab = IMAGES[name]
    portal = start_portal(
        "--fps", "20", "--recordings", str(folder), environment={"CAMERA_RTSP_URL": "rtsp://127.0.0.1:9/door"}
    )
    page = visitor.watch(portal, size, color_scheme=scheme)
    if tab == "recordings":
        ask(portal, "/v1/recordings/still", {"full": True})
        for _ in range(2):
            ask(portal, "/v1/recordings/start", {})
            page.wait_for_timeout(4000)
            ask(portal, "/v1/recordings/stop", {})
    live_through(page, portal)
    chosen = page.locator(f"#tab-{tab}")
    if chosen.is_visible():
        chosen.click()
    if tab == "recordings":
        page.locator("#record").click()
        expect(page.locator(".recording")).to_have_count(4, timeout=LIMIT_MS)
        images = page.locator(".recording img")
        wait_until(lambda: images.evaluate_all("(all) => all.every((each) => each.naturalWidth)"), "thumbnails")
        page.wait_for_timeout(CURVES_MS)
    if tab == "controls":  # changed values are visible
        expect(page.locator("#control-image_processing-exposure_value")).to_have_value("0.5", timeout=LIMIT_MS)
    wait_for_state(page, "Live")
    expect(page.locator("#toast.shown")).to_have_count(0, timeout=LIMIT_MS)
    page.wait_for_timeout(500)
    image = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    small = io.BytesIO()
    # The two lowest bits are JPEG noise: half of the file, and invisible.
    image.point(lambda level: level & 0xFC | level >> 6).save(small, "PNG", optimize=True)
    return small.getvalue()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", IMAGES)
def test_images_of_the_readme(start_portal: Start, visitor: Visitor, name: str, tmp_path: Path) -> None:
    path = FOLDER / f"{name}.png"
    if os.environ.get("DOCS_IMAGES") == "1":
        FOLDER.mkdir(parents=True, exist_ok=True)
        path.write_bytes(make(start_portal, visitor, name, tmp_path / "kept"))
    image = path.read_bytes()
    assert len(image) < LARGEST_IMAGE
    with Image.open(io.BytesIO(image)) as opened:
        assert opened.format == "PNG"
        assert opened.size == IMAGES[name][0]
