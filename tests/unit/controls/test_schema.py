"""The table of controls: validation and JSON Schema."""

import math
from typing import Any

import pytest

from softcam.controls.schema import BY_NAME, GROUPS
from softcam.errors import BadValue

# Part of the API; names may be added, not renamed.
API_NAMES = {
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
    "ae_constraint_mode",
    "ae_exposure_mode",
}
HALF = {"x": 0.25, "y": 0.25, "width": 0.5, "height": 0.5}
GOOD: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("auto_exposure", {"enabled": True}, {"enabled": True}),
    ("manual_exposure", {"exposure_us": 20000.0}, {"exposure_us": 20000}),
    ("manual_exposure", {"exposure_us": 1, "gain": 1}, {"exposure_us": 1, "gain": 1.0}),
    ("exposure_limits", {"max_exposure_us": None}, {"max_exposure_us": None}),
    ("awb_preset", {"preset": "ir_850nm"}, {"preset": "ir_850nm"}),
    ("awb_preset", {"preset": "cloudy"}, {"preset": "cloudy"}),
    ("ae_constraint_mode", {"mode": "shadows"}, {"mode": "shadows"}),
    ("ae_exposure_mode", {"mode": "custom"}, {"mode": "custom"}),
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
    ("auto_exposure", {}, "enabled: must be true or false (missing)"),
    ("auto_exposure", {"enabled": 1}, "enabled: must be true or false"),
    ("auto_exposure", {"enabled": None}, "enabled: must be true or false"),
    ("auto_exposure", [], "body: must be a JSON object with enabled"),
    ("auto_exposure", None, "body: must be a JSON object"),
    ("auto_exposure", {"enabled": True, "foo": 1}, "'foo': unknown field; the body may have"),
    ("manual_exposure", {"exposure_us": 0}, "exposure_us: must be an integer from 1 to"),
    ("manual_exposure", {"exposure_us": 1.5}, "exposure_us: must be an integer"),
    ("manual_exposure", {"exposure_us": True}, "exposure_us: must be an integer"),
    ("manual_exposure", {"exposure_us": "20000"}, "exposure_us: must be an integer"),
    ("manual_exposure", {"exposure_us": 10**400}, "exposure_us: must be an integer"),
    ("manual_exposure", {"exposure_us": math.inf}, "exposure_us: must be an integer"),
    ("manual_exposure", {"exposure_us": 1, "gain": 0}, "gain: must be a number from 0.1 to 64"),
    ("manual_exposure", {"exposure_us": 1, "gain": math.nan}, "gain: must be a number"),
    ("manual_awb", {"red_gain": 1}, "blue_gain: must be a number from 0.1 to 32 (missing)"),
    ("awb_preset", {"preset": "moonlight"}, "preset: must be one of daylight_noir, ir_850nm"),
    ("autofocus_mode", {"mode": "Continuous"}, "mode: must be one of manual, auto, continuous"),
    ("ae_exposure_mode", {"mode": "sport"}, "mode: must be one of normal, short, long, custom"),
    ("ae_exposure_mode", {}, "mode: must be one of normal, short, long, custom (missing)"),
    ("autofocus", {}, "body: must have at least one of trigger, speed, window"),
    ("autofocus", {"window": {"x": 0}}, "window: must be an object with the fractions x and y from 0 to 0.99, width"),
    ("autofocus", {"window": HALF | {"x": 2}}, "window: must be an object with the fractions x and y"),
    ("autofocus", {"window": HALF | {"y": 1}}, "x and y from 0 to 0.99"),
    ("lens_position", {"position": 15.1}, "position: must be a number from 0 to 15"),
    ("image_processing", {"brightness": -1.1}, "brightness: must be a number from -1 to 1"),
    ("roi", HALF | {"width": 0}, "width: must be a number from 0.01 to 1"),
    ("transform", {"rotation": 45}, "rotation: must be a multiple of 90 from 0 to 270"),
    ("stream", {"width": 641}, "width: must be an even integer from 64"),
]


@pytest.mark.parametrize(("name", "body", "values"), GOOD)
def test_valid_values(name: str, body: dict[str, Any], values: dict[str, Any]) -> None:
    parsed = BY_NAME[name].parse(body)
    assert parsed == values
    assert [type(value) for value in parsed.values()] == [type(value) for value in values.values()]


@pytest.mark.parametrize(("name", "body", "error"), BAD)
def test_invalid_values(name: str, body: Any, error: str) -> None:
    with pytest.raises(BadValue) as caught:
        BY_NAME[name].parse(body)
    assert error in str(caught.value)


def test_all_errors_are_reported_at_once() -> None:
    with pytest.raises(BadValue) as caught:
        BY_NAME["manual_awb"].parse({"red_gain": 0, "foo": 1})
    message = str(caught.value)
    assert message.startswith("'foo': unknown field; the body may have")
    assert "; red_gain: must be a number" in message
    assert "; blue_gain: must be a number from 0.1 to 32 (missing)" in message


def test_api_names() -> None:
    assert set(BY_NAME) >= API_NAMES
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
