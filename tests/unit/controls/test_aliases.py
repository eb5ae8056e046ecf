"""Names of other camera services for controls: they have the limits of the table, and no state."""

from typing import Any

import pytest

from softcam.controls.aliases import ALIASES, AWB_MODE, FRAME_RATE, NOISE_REDUCTION, RESOLUTION, Alias, markdown_table
from softcam.controls.schema import AWB_MODES, BY_NAME
from softcam.errors import BadValue


@pytest.mark.parametrize("alias", ALIASES, ids=lambda alias: alias.body.name)
def test_alias_names_fields_of_the_table(alias: Alias) -> None:
    assert alias.body.name not in BY_NAME, "two routes"
    assert BY_NAME[alias.target.name] is alias.target
    for own, name in alias.fields.items():
        row, target = alias.body.row(own), alias.target.row(name)
        assert (row.kind, row.is_required) == (target.kind, True)
        assert row.choices.items() <= target.choices.items()
    for name, value in alias.constants.items():
        assert alias.target.row(name).parse(value) == value
    assert alias.body.help.endswith(".")
    assert alias.body.has_restart is alias.target.has_restart
    assert f"| `{alias.body.name}` |" in markdown_table()


def test_choices_are_complete() -> None:
    assert NOISE_REDUCTION.body.row("mode").choices == BY_NAME["image_processing"].row("noise_reduction").choices
    assert tuple(AWB_MODE.body.row("mode").choices) == AWB_MODES


@pytest.mark.parametrize(
    ("body", "values"),
    [
        ({"width": 1280, "height": 720}, {"width": 1280, "height": 720}),
        ({"width": 65.0, "height": 4095, "restart_streaming": False}, {"width": 64, "height": 4094}),
    ],
)
def test_sizes_are_rounded_down_to_even_numbers(body: dict[str, Any], values: dict[str, int]) -> None:
    assert RESOLUTION.values(RESOLUTION.body.parse(body)) == values


@pytest.mark.parametrize(
    ("alias", "body", "error"),
    [
        (RESOLUTION, {"width": 63, "height": 4097}, "width: must be an integer from 64 to 4096; height: must be"),
        (RESOLUTION, {"width": None, "height": 720}, "width: must be an integer from 64 to 4096"),
        (RESOLUTION, {"width": 1280}, "height: must be an integer from 64 to 4096 (missing)"),
        (FRAME_RATE, {"framerate": 0}, "framerate: must be a number above 0, at most 1000"),
        (FRAME_RATE, {"framerate": -1}, "framerate: must be a number above 0, at most 1000"),
        (FRAME_RATE, {"framerate": 1000.1}, "framerate: must be a number above 0, at most 1000"),
        (FRAME_RATE, {}, "framerate: must be a number above 0, at most 1000 (missing)"),
        (FRAME_RATE, {"fps": 20}, "'fps': unknown field; the body may have framerate, restart_streaming"),
    ],
)
def test_invalid_values(alias: Alias, body: dict[str, Any], error: str) -> None:
    with pytest.raises(BadValue) as caught:
        alias.body.parse(body)
    assert error in str(caught.value)


@pytest.mark.parametrize("fps", [1e-300, 0.5, 60, 1000])
def test_any_rate_above_0_is_valid(fps: float) -> None:
    assert FRAME_RATE.values(FRAME_RATE.body.parse({"framerate": fps})) == {"fps": fps}
    schema = FRAME_RATE.body.schema()["properties"]["framerate"]
    assert (schema["exclusiveMinimum"], schema["maximum"], "minimum" in schema) == (0, 1000, False)
