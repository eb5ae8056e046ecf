"""The table of controls: every rule by good and bad values, and the same rules in its JSON Schema."""

import math
from typing import Any

import pytest

from softcam.controls.schema import BY_NAME, GROUPS, BadValue

# Of the contract; more may be added, none renamed.
NAMES_ON_THE_WIRE = {
    "awb",
    "manual_awb",
    "autofocus_mode",
    "hdr",
    "exposure_limits",
    "autofocus",
    "awb_preset",
    "roi",
    "auto_exposure",
    "manual_exposure",
    "transform",
    "lens_position",
    "autofocus_range",
    "lens_correction",
    "image_processing",
    "day_night_mode",
}
HALF = {"x": 0.25, "y": 0.25, "width": 0.5, "height": 0.5}
GOOD: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("auto_exposure", {"enabled": True}, {"enabled": True}),
    ("manual_exposure", {"exposure_us": 20000.0}, {"exposure_us": 20000}),
    ("manual_exposure", {"exposure_us": 1, "gain": 1}, {"exposure_us": 1, "gain": 1.0}),
    ("exposure_limits", {"max_exposure_us": None}, {"max_exposure_us": None}),
    ("awb_preset", {"preset": "ir_850nm"}, {"preset": "ir_850nm"}),
    ("awb_preset", {"preset": "cloudy"}, {"preset": "cloudy"}),
    ("autofocus", {"window": HALF}, {"window": HALF}),
    ("autofocus", {"window": None}, {"window": None}),
    ("lens_position", {"position": 0}, {"position": 0.0}),
    ("lens_position", {"position": 15.0}, {"position": 15.0}),
    ("hdr", {"mode": "single-exp"}, {"mode": "single-exp"}),
    ("roi", HALF, HALF),
    ("transform", {"rotation": 270}, {"rotation": 270}),
    ("day_night_mode", {"mode": "auto", "threshold_lux": 10}, {"mode": "auto", "threshold_lux": 10.0}),
    ("stream", {"width": None, "fps": None}, {"width": None, "fps": None}),
    ("stream", {"width": 640, "height": 480, "fps": 12.5}, {"width": 640, "height": 480, "fps": 12.5}),
]
BAD: list[tuple[str, Any, str]] = [
    ("auto_exposure", {}, "enabled: is missing; wants true or false"),
    ("auto_exposure", {"enabled": 1}, "enabled: wants true or false"),
    ("auto_exposure", {"enabled": None}, "enabled: wants true or false"),
    ("auto_exposure", [], "wants a JSON object with enabled"),
    ("auto_exposure", None, "wants a JSON object"),
    ("auto_exposure", {"enabled": True, "foo": 1}, "'foo': no such field"),
    ("manual_exposure", {"exposure_us": 0}, "exposure_us: wants a whole number from 1 to"),
    ("manual_exposure", {"exposure_us": 1.5}, "exposure_us: wants a whole number"),
    ("manual_exposure", {"exposure_us": True}, "exposure_us: wants a whole number"),
    ("manual_exposure", {"exposure_us": "20000"}, "exposure_us: wants a whole number"),
    ("manual_exposure", {"exposure_us": 10**400}, "exposure_us: wants a whole number"),
    ("manual_exposure", {"exposure_us": math.inf}, "exposure_us: wants a whole number"),
    ("manual_exposure", {"exposure_us": 1, "gain": 0}, "gain: wants a number from 0.1 to 64"),
    ("manual_exposure", {"exposure_us": 1, "gain": math.nan}, "gain: wants a number"),
    ("manual_awb", {"red_gain": 1}, "blue_gain: is missing"),
    ("awb_preset", {"preset": "moonlight"}, "preset: wants one of daylight_noir, ir_850nm"),
    ("autofocus_mode", {"mode": "Continuous"}, "mode: wants one of manual, auto, continuous"),
    ("autofocus", {}, "wants at least one of trigger, speed, window"),
    ("autofocus", {"window": {"x": 0}}, "window: wants an object with x, y, width and height"),
    ("autofocus", {"window": HALF | {"x": 2}}, "window: wants an object with x, y"),
    ("autofocus", {"window": HALF | {"y": 1}}, "x and y at most 0.99"),
    ("lens_position", {"position": 15.1}, "position: wants a number from 0 to 15"),
    ("image_processing", {"brightness": -1.1}, "brightness: wants a number from -1 to 1"),
    ("roi", HALF | {"width": 0}, "width: wants a number from 0.01 to 1"),
    ("transform", {"rotation": 45}, "rotation: wants a multiple of 90 from 0 to 270"),
    ("stream", {"width": 641}, "width: wants a multiple of 2"),
]


@pytest.mark.parametrize(("name", "body", "values"), GOOD)
def test_ok_values(name: str, body: dict[str, Any], values: dict[str, Any]) -> None:
    parsed = BY_NAME[name].parse(body)
    assert parsed == values
    assert [type(value) for value in parsed.values()] == [type(value) for value in values.values()]


@pytest.mark.parametrize(("name", "body", "fault"), BAD)
def test_fail_values(name: str, body: Any, fault: str) -> None:
    with pytest.raises(BadValue) as caught:
        BY_NAME[name].parse(body)
    assert fault in str(caught.value)


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(BadValue) as caught:
        BY_NAME["manual_awb"].parse({"red_gain": 0, "foo": 1})
    told = str(caught.value)
    assert told.startswith("'foo': no such field")
    assert "; red_gain: wants a number" in told
    assert "; blue_gain: is missing" in told


def test_every_name_of_the_contract_is_there() -> None:
    assert set(BY_NAME) >= NAMES_ON_THE_WIRE
    assert len(BY_NAME) == len(GROUPS)


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.name)
def test_rows_are_complete(group: Any) -> None:
    assert group.help.endswith(".")
    assert {other for other in group.replaces if other not in BY_NAME} == set()
    assert len({row.name for row in group.fields}) == len(group.fields)
    for row in group.fields:
        assert row.help
        if row.kind in ("integer", "number"):
            assert row.low is not None
            assert row.high is not None
            assert row.low < row.high
            assert row.usual is None or row.low <= row.usual[0] < row.usual[1] <= row.high
        if row.default is not None:
            assert row.parse(row.default) == row.default
        schema = row.schema()
        assert schema["description"].startswith(row.help)
        assert ("null" in schema["type"]) is row.is_nullable
