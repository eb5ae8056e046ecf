"""Presets, the log and the state of the machine on the page."""

import json
import re
import signal
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, Route, expect

from tests.conftest import Portal
from tests.support.browser_client import (
    AXE,
    HIDE,
    KEY,
    SIZES,
    Start,
    Visitor,
    ask,
    judge,
    resize,
    shoot,
    value_of,
    wait_until,
)

VIEW_KEY = "a-key-for-viewers-only"
# What the page does not show in the pattern camera's container: a Raspberry Pi with a weak supply.
WEAK_SUPPLY: dict[str, Any] = {
    "temperature": {"cpu_c": 61.8, "status": "warm"},
    "cpu": {"usage_percent": 37.2, "load_average": {"1min": 1.52, "5min": 1.1, "15min": 0.9}, "cores": 4},
    "memory": {"total_mb": 3796.0, "used_mb": 812.0, "available_mb": 2984.0, "percent": 21.4},
    "network": {"interface": "wlan0", "wifi": {"signal_dbm": -71, "quality_percent": 58, "status": "weak"}},
    "disk": {"total_gb": 29.0, "used_gb": 9.0, "free_gb": 18.6, "percent": 31.0, "path": "/srv"},
    "uptime": {"service_seconds": 60.0, "system_seconds": 90.0, "system_days": 0.0, "boot_id": "first"},
    "throttled": None,
    "warnings": [
        {
            "code": "under_voltage",
            "message": "The supply voltage is too low <now>.",
            "remedy": "Use the official power supply.",
            "is_current": True,
        }
    ],
}
PAST: dict[str, Any] = {
    "code": "under_voltage_occurred",
    "message": "The supply voltage was too low.",
    "remedy": "Use the official power supply.",
    "is_current": False,
}
LEFT = "id => document.getElementById(id).getBoundingClientRect().left"


def stop_pictures(page: Page) -> None:
    """The page as in a hidden tab, but as it is: pictures cost most of the time of a test that needs none."""
    page.evaluate(HIDE, True)
    page.evaluate("Object.defineProperty(document, 'hidden', {value: false, configurable: true})")


def enter(page: Page, text: str) -> None:
    page.locator("#enter-text").fill(text)
    page.locator("#enter-text").press("Enter")


def test_presets(portal: Portal, visitor: Visitor, tmp_path: Path) -> None:
    page = visitor.watch(portal)
    preset, current = page.locator("#preset"), page.locator("#preset-current")
    expect(current).to_have_text("Normal")
    preset.select_option("low-light")
    expect(page.locator("#preset-description")).to_contain_text("dim rooms")
    page.locator("#preset-apply").click()
    expect(page.locator("#toast")).to_contain_text("Low light applied")
    expect(current).to_have_text("Low light")
    assert value_of(portal, "ae_exposure_mode", "mode") == "long"
    ask(portal, "/v1/camera/exposure_value", {"ev": 1.5})
    expect(current).to_have_text("Low light, changed")

    page.locator("#presets summary").click()
    expect(page.locator("#preset-delete")).to_be_hidden()
    page.locator("#preset-save").click()
    enter(page, "Garden <b>& shed</b>")
    expect(current).to_have_text("Garden <b>& shed</b>")
    expect(preset.locator("option:checked")).to_have_text("Garden <b>& shed</b>")
    page.locator("#preset-rename").click()
    enter(page, "Garden")
    expect(preset.locator("option:checked")).to_have_text("Garden")
    with page.expect_download() as download:
        page.locator("#preset-export").click()
    saved = tmp_path / "presets.json"
    download.value.save_as(saved)
    assert [each["name"] for each in json.loads(saved.read_text())["presets"]] == ["Garden"]

    page.locator("#preset-import").click()
    page.locator("#preset-file").set_input_files(saved)
    expect(page.locator("#confirm-text")).to_have_text("Replaced by those in presets.json: Garden")
    page.locator("#confirm-yes").click()
    expect(page.locator("#toast")).to_have_text("Imported: Garden")
    page.locator("#preset-delete").click()
    page.locator("#confirm-yes").click()
    expect(preset.locator("optgroup[label=Saved]")).to_have_count(0)
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    page.locator("#preset-file").set_input_files(broken)
    expect(page.locator("#toast")).to_have_text("broken.json is not a JSON file.")
    broken.write_text(saved.read_text().replace("Garden", "sports"))
    page.locator("#preset-file").set_input_files(broken)
    expect(page.locator("#toast")).to_contain_text("must not be that of a built-in preset")
    expect(page.locator("#confirm")).to_be_hidden()
    ask(portal, "/v1/presets/normal/apply", method="POST")
    # The browser logs the response to the import of a built-in preset.
    assert [text for text in visitor.complaints if "409" not in text] == []


def test_preset_of_another_client(portal: Portal, visitor: Visitor) -> None:
    page = visitor.watch(portal)
    stop_pictures(page)
    ask(portal, "/v1/presets/Barn", {"scope": "all"}, method="PUT")
    ask(portal, "/v1/camera/transform", {"vflip": True})
    expect(page.locator("#preset option", has_text="Barn")).to_be_attached()
    expect(page.locator("#preset-current")).to_have_text("Barn, changed")
    ask(portal, "/v1/camera/transform", {"vflip": False})
    ask(portal, "/v1/presets/Barn", method="DELETE")
    expect(page.locator("#preset option", has_text="Barn")).to_have_count(0)


def test_log(portal: Portal, visitor: Visitor) -> None:
    page = visitor.watch(portal)
    lines = page.locator("#log-lines .line")
    page.locator("#tab-log").click()
    expect(lines.filter(has_text="Listening on")).to_have_count(1)
    expect(page.locator("#log-message")).to_be_hidden()
    ask(portal, "/camera/start", {})
    ask(portal, "/v1/camera/transform", {"hflip": True})  # reopens the camera, which is logged
    expect(lines.filter(has_text=re.compile("Camera open after")).nth(1)).to_be_attached()
    page.locator("#log-search").fill("listening ON")
    expect(lines).to_have_count(1)
    page.locator("#log-level").select_option("ERROR")
    expect(lines).to_have_count(0)
    expect(page.locator("#log-message")).to_have_text("No lines.")
    ask(portal, "/v1/camera/transform", {"hflip": False})
    ask(portal, "/camera/stop", {})
    count = len(re.findall(r"Log client \S+ disconnected", portal.log))
    page.locator("#tab-links").click()
    wait_until(lambda: len(re.findall(r"Log client \S+ disconnected", portal.log)) > count, "the end of its connection")
    assert visitor.complaints == []


def test_log_of_earlier_runs(start_portal: Start, visitor: Visitor, tmp_path: Path) -> None:
    """More lines than fit into one response, and the run before a restart."""
    environment = {"XDG_RUNTIME_DIR": str(tmp_path), "CAMERA_LOG_LEVEL": "DEBUG"}
    earlier = start_portal(environment=environment)
    assert earlier.url
    earlier.stop(signal.SIGKILL)
    portal = start_portal(environment=environment)
    for _ in range(120):
        ask(portal, "/camera/start", {})
        ask(portal, "/camera/stop", {})
    page = visitor.open(portal)
    page.locator("#tab-log").click()
    lines = page.locator("#log-lines li")
    expect(lines.first).to_be_attached()
    while page.locator("#log-older").is_visible():
        count = lines.count()
        page.locator("#log-older").click()
        expect(lines.nth(count)).to_be_attached()
    expect(page.locator("#log-lines .run")).to_have_text(["The portal was started again"])
    expect(lines.filter(has_text="Listening on")).to_have_count(2)


def test_log_is_for_the_full_key(start_portal: Start, visitor: Visitor) -> None:
    portal = start_portal(environment={"CAMERA_API_KEY": KEY, "CAMERA_VIEW_KEY": VIEW_KEY})
    page = visitor.page(http_credentials={"username": "viewer", "password": VIEW_KEY})
    page.goto(portal.url)
    page.locator("#tab-log").click()
    expect(page.locator("#log-message")).to_have_text("The log requires the key for full access.")
    page = visitor.page(http_credentials={"username": "owner", "password": KEY})
    page.goto(portal.url)
    page.locator("#tab-log").click()
    expect(page.locator("#log-lines .line").first).to_be_visible()
    ask_with_key = page.request.post(f"{portal.url}/camera/start", data={})
    assert ask_with_key.ok
    expect(page.locator("#log-lines .line", has_text="Camera open after").first).to_be_attached()


def test_state_of_the_machine(portal: Portal, visitor: Visitor) -> None:
    page = visitor.watch(portal)
    expect(page.locator("#machine")).to_contain_text("Memory")
    expect(page.locator("#machine")).to_contain_text("free")
    expect(page.locator("#machine-warnings")).to_be_hidden()


def test_warning_of_a_weak_supply(portal: Portal, visitor: Visitor) -> None:
    page = visitor.page()

    def answer(route: Route) -> None:
        route.fulfill(json=WEAK_SUPPLY)

    page.route("**/v1/system/status", answer)
    page.goto(portal.url)
    expect(page.locator("#machine-warnings")).to_have_text(
        "The supply voltage is too low <now>. Use the official power supply."
    )
    expect(page.locator("#machine dt").first).to_have_text("Temperature")
    expect(page.locator("#machine dd")).to_have_text(
        ["62\u00a0°C", "37\u00a0%", "1.52", "21\u00a0%", "20.0\u00a0GB free", "-71 dBm, weak"]
    )
    page.evaluate(AXE)
    for name, size in SIZES.items():
        resize(page, size)
        expect(page.locator("#machine-warnings")).to_be_in_viewport()
        assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
        left, button_left = page.evaluate(LEFT, "machine-warnings"), page.evaluate(LEFT, "snapshot")
        assert left == button_left, "aligned with what is above and below"
        shoot(page, f"weak-supply-{name}")
        judge(page, "#machine-warnings")
    page.unroute("**/v1/system/status")
    expect(page.locator("#machine-warnings")).to_be_hidden()  # the supply was replaced


def test_past_warning_is_dismissed_until_the_next_boot(portal: Portal, visitor: Visitor) -> None:
    page = visitor.page()
    machine: dict[str, Any] = {**WEAK_SUPPLY, "warnings": [PAST, {**PAST, "code": "throttled_occurred"}]}
    page.route("**/v1/system/status", lambda route: route.fulfill(json=machine))
    page.goto(portal.url)
    rows, buttons = page.locator("#machine-warnings > p"), page.locator("#machine-warnings button")
    expect(buttons).to_have_count(2)
    page.evaluate(AXE)
    for name, size in SIZES.items():
        resize(page, size)
        shoot(page, f"past-warnings-{name}")
        judge(page, "#machine-warnings")
    buttons.first.click()
    expect(buttons).to_have_count(1)

    page.reload()
    expect(buttons).to_have_count(1)
    machine["warnings"] = WEAK_SUPPLY["warnings"]
    expect(rows).to_have_text(re.compile("is too low"))
    expect(buttons).to_have_count(0)
    machine["warnings"] = [PAST]  # again
    expect(buttons).to_have_count(1)
    buttons.click()
    expect(page.locator("#machine-warnings")).to_be_hidden()

    machine["uptime"] = {**WEAK_SUPPLY["uptime"], "boot_id": "second"}
    expect(buttons).to_have_count(1)
    assert visitor.complaints == []
